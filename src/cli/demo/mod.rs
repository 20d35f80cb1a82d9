//! `penstock demo`: Penstock at work in one terminal, touching nothing on the machine.
//!
//! The daemon's real code runs in this process, with a configuration and a spool in a
//! temporary folder, five users and two relays of our own. Applications submit over real
//! SMTP; what the relays see is shown as it happens. Limits are scaled: one second stands
//! for the five minutes of a batch. It ends by itself, with exit code 0 only if everything
//! that left went to whom it should, with the login and within the limits it should.

mod capture;
mod letter;
mod observer;
mod stage;
mod story;
mod submit;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::context::Context;
use super::exit::{Outcome, Trouble};
use crate::config;
use crate::daemon::{Daemon, Setup};
use crate::smtp::Reply;
use capture::{Refusal, Relay, Running};
use letter::Letter;
use stage::Stage;

/// What `noord` takes in any interval: as much as many a provider does in five minutes.
const BATCH: usize = 500;
/// So long are five minutes here.
const INTERVAL: Duration = Duration::from_secs(1);

const NEWS: &str = "nieuws@noord.example";
const SURVEY: &str = "hr@noord.example";
const SHOP: &str = "winkel@noord.example";
const JAN: &str = "jan@noord.example";
const ELS: &str = "els@zuid.example";

/// What to send.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Messages (.eml) or archives (mbox) to send instead of the demonstration's own mail
    files: Vec<PathBuf>,
}

/// Runs the demonstration.
pub fn demo(context: &mut Context, arguments: &DemoArgs) -> Outcome {
    let failed = |error: anyhow::Error| Trouble::failed(format!("{error:#}"));
    let letters: Result<Vec<_>, _> = arguments.files.iter().map(|it| Letter::read(it)).collect();
    let letters = letters.map_err(failed)?.concat();
    let folder = tempfile::Builder::new()
        .prefix("penstock-demo-")
        .tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let screen = &mut context.screen;
    let went_well = runtime
        .block_on(async { play(Stage::new(screen), folder.path(), letters).await })
        .map_err(failed)?;
    match went_well {
        true => Ok(()),
        false => Err(Trouble::failed("the demonstration did not go as it should")),
    }
}

/// Sets everything up, tells the story, and says whether all was as it should.
async fn play(mut stage: Stage<'_>, folder: &Path, letters: Vec<Letter>) -> anyhow::Result<bool> {
    let (seen, mut events) = mpsc::unbounded_channel();
    let mut running = Vec::new();
    for relay in relays() {
        running.push((relay.name, relay.start(folder, seen.clone()).await?));
    }
    let file = folder.join("penstock.toml");
    write_private(&file, &configuration(&running))?;
    write_private(&folder.join("users.toml"), &directory())?;
    let checked = config::load(&file).context("the demonstration's own configuration")?;
    let mut setup = Setup::new(checked, Some(file))?;
    setup.control = folder.join("control.sock");
    let daemon = Daemon::start(setup).await?;
    let address = *daemon.addresses().first().context("no listener")?;
    stage.introduce(address, &running)?;

    let (stop, stopped) = oneshot::channel::<()>();
    let daemon = daemon.run_until(async {
        stopped.await.ok();
    });
    let story = async {
        let own = letters.is_empty();
        let story = match own {
            true => story::tell(&mut stage, address, &mut events).await,
            false => story::send_files(&mut stage, address, &letters, &mut events).await,
        };
        stop.send(()).ok();
        story
    };
    let (told, ended) = tokio::join!(story, daemon);
    stage.conclude(&told?, &ended)
}

/// The relays as the demonstration wants them; `noord` has a tight limit.
fn relays() -> [Relay; 2] {
    [
        Relay {
            name: "noord",
            implicit: false,
            username: "noord-account",
            password: "geheim",
            refusals: Vec::new(),
        },
        Relay {
            name: "zuid",
            implicit: true,
            username: "zuid-account",
            password: "segreto",
            refusals: vec![
                Refusal {
                    to: "weg@",
                    reply: Reply::enhanced(550, 1, 1, "no such user here"),
                    once: false,
                },
                Refusal {
                    to: "later@",
                    reply: Reply::enhanced(450, 7, 1, "greylisted, try again"),
                    once: true,
                },
            ],
        },
    ]
}

fn configuration(running: &[(&str, Running)]) -> String {
    let mut text = "hostname = \"demo.penstock.example\"\ndefault-relay = \"noord\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\n[spool]\npath = \"state\"\nmin-free = \"1MB\"\n\
         [hints]\ndns = false\n[retry]\nfirst = \"2s\"\nmax = \"4s\"\n"
        .to_owned();
    // Whatever is written over the preset is what a second stands for here.
    let scaled = format!(
        "preset = \"bulk\", batch-messages = {BATCH}, batch-interval = \"{0}s\", batch-window = \"{0}s\", \
         per-hour = \"unlimited\", connections = 8",
        INTERVAL.as_secs()
    );
    for (relay, limits) in relays()
        .iter()
        .zip([scaled.as_str(), "preset = \"unlimited\""])
    {
        let (_, server) = running
            .iter()
            .find(|(name, _)| *name == relay.name)
            .expect("both run");
        text.push_str(&format!(
            "[relays.{}]\nserver = \"{}\"\ntls = \"{}\"\nfingerprint = \"{}\"\nlogin = \"{} {}\"\nlimits = {{ {limits} }}\n",
            relay.name,
            server.address,
            if relay.implicit { "implicit" } else { "required" },
            server.fingerprint,
            relay.username,
            relay.password,
        ));
    }
    text
}

fn directory() -> String {
    let user =
        |(address, relay)| format!("[[user]]\naddress = \"{address}\"\nrelay = \"{relay}\"\n");
    [("@noord.example", "noord"), (ELS, "zuid")]
        .map(user)
        .concat()
}

/// The daemon reads no password that others can read.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
