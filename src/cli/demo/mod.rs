//! `penstock demo`: Penstock at work in one terminal, touching nothing on the machine.
//!
//! The daemon's real code runs in this process, with a configuration and a spool in a
//! temporary folder, three users and two relays of our own. An application submits over
//! real SMTP; what the relays see is shown as it happens. It ends by itself, with exit
//! code 0 only if everything went to whom it should, with the login it should.

mod capture;
mod letter;
mod submit;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::screen::Screen;
use crate::config;
use crate::daemon::{Daemon, Ended, Setup};
use crate::smtp::Reply;
use capture::{Refusal, Relay, Running, Seen};
use letter::Letter;
use submit::Submission;

/// Who is not done by then never will be.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages of the mailing: three batches under the limit of its relay, and more than the
/// 20 an hour up to which a flow counts as interactive.
const MAILING: usize = 26;

const NEWS: &str = "nieuws@noord.example";
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
    let stage = Stage::new(&mut context.screen);
    let went_well = runtime
        .block_on(stage.play(folder.path(), letters))
        .map_err(failed)?;
    match went_well {
        true => Ok(()),
        false => Err(Trouble::failed("the demonstration did not go as it should")),
    }
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
    for (relay, limits) in relays().iter().zip([
        "batch-messages = 10, batch-interval = \"3s\", batch-window = \"3s\"",
        "preset = \"unlimited\"",
    ]) {
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
    [(NEWS, "noord"), (JAN, "noord"), (ELS, "zuid")]
        .map(user)
        .concat()
}

/// Where everything is shown, and what is expected.
struct Stage<'a> {
    screen: &'a mut Screen,
    began: Instant,
    /// How often each recipient is still to be served.
    open: BTreeMap<String, usize>,
    seen: Vec<Seen>,
    accepted: usize,
    refused_here: usize,
}

impl<'a> Stage<'a> {
    fn new(screen: &'a mut Screen) -> Self {
        Self {
            screen,
            began: Instant::now(),
            open: BTreeMap::new(),
            seen: Vec::new(),
            accepted: 0,
            refused_here: 0,
        }
    }

    async fn play(mut self, folder: &Path, letters: Vec<Letter>) -> anyhow::Result<bool> {
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
        self.introduce(address, &running)?;

        let (stop, stopped) = oneshot::channel::<()>();
        let daemon = daemon.run_until(async {
            stopped.await.ok();
        });
        let story = async {
            let own = letters.is_empty();
            let story = match own {
                true => self.tell_story(address, &mut events).await,
                false => self.send_files(address, &letters, &mut events).await,
            };
            stop.send(()).ok();
            story.map(|()| own)
        };
        let (own, ended) = tokio::join!(story, daemon);
        self.conclude(own?, &ended)
    }

    fn introduce(
        &mut self,
        address: SocketAddr,
        running: &[(&str, Running)],
    ) -> std::io::Result<()> {
        self.screen.line(
            "Penstock, a demonstration: everything here is on this machine and ends by itself.",
        )?;
        self.screen.line("")?;
        self.screen.line(format!(
            "  penstockd  {address}  takes mail from the application"
        ))?;
        for (relay, more) in relays()
            .iter()
            .zip(["takes 10 messages in any 3 seconds", "takes all that comes"])
        {
            let server = running
                .iter()
                .find(|(name, _)| *name == relay.name)
                .map(|(_, it)| it.address);
            self.screen.line(format!(
                "  {:<9}  {}  {}, login {}, {more}",
                relay.name,
                server.map(|it| it.to_string()).unwrap_or_default(),
                if relay.implicit { "TLS" } else { "STARTTLS" },
                relay.username
            ))?;
        }
        self.screen.line("")?;
        self.screen.line(format!(
            "  {NEWS} and {JAN} go through noord, {ELS} through zuid"
        ))?;
        self.screen.line("")?;
        self.screen.flush()
    }

    /// The demonstration's own mail.
    async fn tell_story(
        &mut self,
        address: SocketAddr,
        events: &mut mpsc::UnboundedReceiver<Seen>,
    ) -> anyhow::Result<()> {
        self.say(
            "",
            &format!(
                "The application hands in a mailing of {MAILING}; noord takes 10 in any 3 seconds."
            ),
        )?;
        let mut application = Submission::open(address).await?;
        for number in 1..=MAILING {
            let to = format!("lezer{number}@example.net");
            let news = Letter::new(
                NEWS,
                &to,
                "Nieuwsbrief",
                "List-Id: <nieuws.noord.example>\r\n",
            );
            self.hand_in(&mut application, &news, number == 1 || number == MAILING)
                .await?;
        }
        // Into the second batch: in the first, the mailing was still too young to be one.
        self.watch(events, PATIENCE, |it| it.seen.len() > 12)
            .await?;

        self.say(
            "",
            "A password reset through the same relay does not wait behind it:",
        )?;
        let reset = Letter::new(JAN, "klant@example.net", "Your new password", "");
        self.hand_in(&mut application, &reset, true).await?;
        self.watch(events, PATIENCE, |it| {
            !it.open.contains_key("klant@example.net")
        })
        .await?;

        self.say("", "Another user, another relay, another login. One recipient is unknown there, one is greylisted:")?;
        for (to, subject) in [
            ("piet@example.com", "The minutes"),
            ("weg@example.com", "Are you still there?"),
            ("later@example.com", "No hurry"),
        ] {
            self.hand_in(&mut application, &Letter::new(ELS, to, subject, ""), true)
                .await?;
        }
        // The unknown one comes back to her as a report.
        self.open.remove("weg@example.com");
        *self.open.entry(ELS.to_owned()).or_default() += 1;
        self.watch(events, PATIENCE, |it| it.open.is_empty()).await
    }

    async fn send_files(
        &mut self,
        address: SocketAddr,
        letters: &[Letter],
        events: &mut mpsc::UnboundedReceiver<Seen>,
    ) -> anyhow::Result<()> {
        self.say(
            "",
            &format!("The application hands in {} messages.", letters.len()),
        )?;
        let mut application = Submission::open(address).await?;
        for letter in letters {
            self.hand_in(&mut application, letter, true).await?;
        }
        // A message to several recipients is seen once, under the last of them.
        self.watch(events, PATIENCE, |it| {
            it.seen.iter().filter(|one| one.taken).count() >= it.accepted
        })
        .await
    }

    async fn hand_in(
        &mut self,
        application: &mut Submission,
        letter: &Letter,
        show: bool,
    ) -> anyhow::Result<()> {
        let reply = application.send(letter).await?;
        let to = letter.to.join(", ");
        if show {
            self.say("app", &format!("{} to {to}: {reply}", letter.from))?;
        } else if self.accepted == 1 {
            self.say("app", "...")?;
        }
        if reply.is_positive() {
            self.accepted += 1;
            *self.open.entry(to).or_default() += 1;
        } else {
            self.refused_here += 1;
        }
        Ok(())
    }

    /// Shows what the relays see until `done`, or for so long.
    async fn watch(
        &mut self,
        events: &mut mpsc::UnboundedReceiver<Seen>,
        patience: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        while !done(self) {
            let Ok(Some(seen)) = tokio::time::timeout_at(until, events.recv()).await else {
                return Ok(());
            };
            let from = if seen.from.is_empty() {
                "a report"
            } else {
                &seen.from
            };
            let what = match seen.taken {
                true => format!("{from} to {}, as {}: {}", seen.to, seen.login, seen.subject),
                false => format!("{from} to {} refused: {}", seen.to, seen.reply),
            };
            self.say(seen.relay, &what)?;
            if seen.taken
                && let Some(left) = self.open.get_mut(&seen.to)
            {
                *left -= 1;
                self.open.retain(|_, it| *it > 0);
            }
            self.seen.push(seen);
        }
        Ok(())
    }

    fn say(&mut self, who: &str, what: &str) -> std::io::Result<()> {
        if who.is_empty() {
            self.screen.line("")?;
        }
        let at = self.began.elapsed().as_secs_f32();
        self.screen.line(format!("{at:>6.2} s  {who:<6} {what}"))?;
        self.screen.flush()
    }

    fn conclude(self, own: bool, ended: &Ended) -> anyhow::Result<bool> {
        let taken: Vec<&Seen> = self.seen.iter().filter(|it| it.taken).collect();
        let reports = taken.iter().filter(|it| it.from.is_empty()).count();
        let wrong = taken.iter().filter(|it| !is_right(it)).count();
        let again = self
            .seen
            .iter()
            .filter(|it| it.reply.starts_with('4'))
            .count();
        let refused = self
            .seen
            .iter()
            .filter(|it| it.reply.starts_with('5'))
            .count();
        self.screen.line("")?;
        self.screen.line(format!(
            "  {} accepted, {} delivered, {refused} refused and reported ({reports} report), {again} delivered at the second try",
            self.accepted,
            taken.len() - reports,
        ))?;
        if self.refused_here > 0 {
            self.screen.line(format!(
                "  {} not accepted: the replies above say why",
                self.refused_here
            ))?;
        }
        let left: usize = self.open.values().sum();
        let complete = match own {
            true => left == 0 && refused == 1 && again == 1 && reports == 1,
            false => taken.len() >= self.accepted,
        };
        if !complete {
            self.screen.line(format!(
                "  {left} recipients were not served within {} s",
                PATIENCE.as_secs()
            ))?;
        }
        match wrong {
            0 => self
                .screen
                .line("  every message went through its own relay with its own login")?,
            some => self
                .screen
                .line(format!("  {some} went by the wrong relay or login"))?,
        }
        self.screen.flush()?;
        Ok(complete && wrong == 0 && *ended == Ended::InGoodOrder)
    }
}

/// Whether a message took the way that the directory says.
fn is_right(seen: &Seen) -> bool {
    let (relay, login) = match seen.from.as_str() {
        ELS => ("zuid", "zuid-account"),
        "" => return seen.login == format!("{}-account", seen.relay),
        _ => ("noord", "noord-account"),
    };
    seen.relay == relay && seen.login == login
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
