//! Promise 1, the power-cut half: whatever was acknowledged is there after a power cut at
//! any moment, or was with the relay before.
//!
//! A recorder (`tools/powercut` of the folder `shared` beside this repository, or
//! `PENSTOCK_POWERCUT`) writes down all file operations of the daemon under load. Its
//! replayer then makes, cut by cut, the directory that could be left, and this file looks
//! into each: what was not synced may be lost, reordered or torn.
//!
//! The recorded daemon and the look into one image are this same test binary, started
//! again with the environment set: they are no tests by themselves.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use penstock::clock::Clock;
use penstock::mail::QueueId;
use penstock::spool::{Filter, Reserve, Spool, SpoolOptions};

use crate::harness::{Harness, relay};
use crate::ledger::{Ledger, Load, USERS, content_of, number_of};
use crate::relay::{Answer, FakeRelay, without_trace};

/// What starts the other halves.
const RECORD: &str = "PENSTOCK_POWERCUT_RECORD";
const IMAGE: &str = "PENSTOCK_POWERCUT_IMAGE";
const CLAIMS: &str = "PENSTOCK_POWERCUT_CLAIMS";

/// 300 in CI; a long night says 5000 (`PENSTOCK_CUTS`).
fn cuts() -> String {
    std::env::var("PENSTOCK_CUTS").unwrap_or_else(|_| "300".into())
}

fn tool() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tools/powercut");
    let folder = std::env::var_os("PENSTOCK_POWERCUT").map_or(beside, PathBuf::from);
    assert!(
        folder.join("powercut.c").exists(),
        "no powercut in {}: put shared/ beside the repository, or name its folder in PENSTOCK_POWERCUT",
        folder.display()
    );
    folder
}

#[test]
#[ignore = "needs gcc, python3 and shared/tools/powercut; .ci/run has them"]
fn acknowledged_mail_survives_a_power_cut_at_any_moment() {
    let tool = tool();
    // In memory: a thousand images are written.
    let place = tempfile::Builder::new()
        .prefix("penstock-cut-")
        .tempdir_in("/dev/shm")
        .unwrap();
    let path = |name: &str| place.path().join(name);
    let recorder = path("powercut.so");
    run(Command::new("gcc")
        .args(["-O2", "-w", "-fPIC", "-shared", "-o"])
        .arg(&recorder)
        .arg(tool.join("powercut.c"))
        .args(["-ldl", "-lpthread"]));
    std::fs::create_dir(path("state")).unwrap();

    let own = std::env::current_exe().unwrap();
    run(Command::new(&own)
        .args([
            "--ignored",
            "--exact",
            "powercut::a_recorded_daemon",
            "--nocapture",
        ])
        .env(RECORD, path("state"))
        .env("POWERCUT_DIR", path("state"))
        .env("POWERCUT_LOG", path("log"))
        .env("LD_PRELOAD", &recorder));

    let replayer = || {
        let mut command = Command::new("python3");
        command.arg(tool.join("powercut.py"));
        command
    };
    // Nothing escaped the recorder, or the cuts would prove nothing.
    let verified = run(replayer()
        .arg("verify")
        .arg(path("log"))
        .arg("--real")
        .arg(path("state")));
    assert!(verified.contains("identical"), "{verified}");

    // A look that finds nothing missing where something is would prove nothing, either.
    std::fs::write(path("false.acks"), "S 999999999\n").unwrap();
    let mut look = Command::new(&own);
    look.args(["--ignored", "--exact", "powercut::one_image"])
        .env(IMAGE, path("state"))
        .env(CLAIMS, path("false.acks"));
    assert!(!look.output().unwrap().status.success());

    let check = format!(
        "{IMAGE}={{img}} {CLAIMS}={{acks}} {} --ignored --exact powercut::one_image --nocapture",
        own.display()
    );
    let swept = run(replayer()
        .arg("sweep")
        .arg(path("log"))
        .args(["--cuts", &cuts(), "--check", &check])
        .arg("--out")
        .arg(path("image"))
        .arg("--keep-bad")
        .arg(path("bad")));
    println!("{swept}");
    assert!(
        !path("bad").exists(),
        "{swept}\n{}",
        bad(&path("bad"), &own)
    );
}

/// What the first bad image has to say.
fn bad(image: &Path, own: &Path) -> String {
    let output = Command::new(own)
        .args(["--ignored", "--exact", "powercut::one_image", "--nocapture"])
        .env(IMAGE, image)
        .env(CLAIMS, image.with_extension("acks"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said =
        String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}

/// Writes claims where the recorder puts them between the file operations.
#[derive(Clone)]
struct Claims(Arc<Mutex<std::fs::File>>);

impl Claims {
    fn open(state: &Path) -> Self {
        let file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(state.join(".powercut.mark"));
        Self(Arc::new(Mutex::new(file.unwrap())))
    }

    fn claim(&self, line: &str) {
        self.0
            .lock()
            .unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the recorded half of the test above"]
async fn a_recorded_daemon() {
    let Some(state) = std::env::var_os(RECORD).map(PathBuf::from) else {
        return;
    };
    let claims = Claims::open(&state);
    let mut server = FakeRelay::default().answering(
        ".",
        Answer::from("250 2.0.0 taken").after(Duration::from_millis(8)),
    );
    for user in 0..USERS {
        server = server.login(&format!("login{user}"), &format!("secret{user}"));
    }
    let taken = claims.clone();
    // Claimed before the daemon hears of it: it cannot have forgotten the message yet.
    let server = server
        .on_content(move |content| {
            if let Some(number) = number_of(content) {
                taken.claim(&format!("D {number}"));
            }
        })
        .start()
        .await;
    let mut config = String::new();
    let mut users = String::new();
    for user in 0..USERS {
        let login = format!(
            "login = \"login{user} secret{user}\"\nlimits = {{ preset = \"unlimited\", connections = 2 }}"
        );
        config.push_str(&relay(&format!("relay{user}"), &server, &login));
        users.push_str(&format!(
            "[[user]]\naddress = \"user{user}@app.test\"\nrelay = \"relay{user}\"\n"
        ));
    }
    let mut penstock = Harness::start_in(&state, &config, &users).await;
    claims.claim("begin");
    let ledger = Arc::new(Ledger::default());
    let promised = claims.clone();
    ledger.on_promise(move |number| promised.claim(&format!("S {number}")));
    let load = Load::start(penstock.address(), 6, &ledger);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    load.stop().await;
    penstock.stop().await;
    let acknowledged = ledger.acknowledged().len();
    assert!(acknowledged > 100, "hardly any load: {acknowledged}");
}

#[tokio::test]
#[ignore = "looks into one image, for the test above"]
async fn one_image() {
    let (Some(image), Some(claims)) = (std::env::var_os(IMAGE), std::env::var_os(CLAIMS)) else {
        return;
    };
    let mut options = SpoolOptions::at(PathBuf::from(image));
    options.min_free = Reserve::Bytes(0);
    let (spool, recovered) = Spool::open(options, Clock::system()).unwrap();
    spool.until_complete().await.unwrap();
    assert_eq!(recovered.damaged_records, 0, "{recovered:?}");

    let claims = std::fs::read_to_string(claims).unwrap();
    let claimed = |what: &str| -> std::collections::BTreeSet<u64> {
        let lines = claims.lines().filter_map(|it| it.strip_prefix(what));
        lines.map(|it| it.trim().parse().unwrap()).collect()
    };
    let (promised, delivered) = (claimed("S "), claimed("D "));
    let mut present = std::collections::BTreeSet::new();
    let mut after = QueueId::from_number(0);
    loop {
        let page = spool.list(&Filter::default(), after, 500).await.unwrap();
        for envelope in &page.messages {
            let mut reader = spool
                .content(envelope.id)
                .await
                .unwrap()
                .expect("its content");
            let mut content = Vec::new();
            loop {
                let block = reader.read(64 * 1024).await.unwrap();
                if block.is_empty() {
                    break;
                }
                content.extend(block);
            }
            let number = number_of(&content).expect("a message of the test");
            assert!(
                without_trace(&content) == content_of(number),
                "{number} is damaged"
            );
            assert_eq!(envelope.relay, format!("relay{}", number % USERS));
            present.insert(number);
        }
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    let lost: Vec<&u64> = promised
        .iter()
        .filter(|it| !present.contains(it) && !delivered.contains(it))
        .collect();
    assert!(
        lost.is_empty(),
        "lost: {lost:?} of {} promised, {} present",
        promised.len(),
        present.len()
    );
    spool.close().await.unwrap();
}
