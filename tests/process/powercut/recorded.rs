//! The recorded half: a daemon under load, with a log whose segments come and go.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Disk, Harness, relay};
use crate::ledger::{self, Ledger, Load, Step, USERS, number_of};
use crate::relay::{Answer, FakeRelay};

pub const NAME: &str = "powercut::recorded::a_recorded_daemon";
/// The state directory; set only by the test.
pub const STATE: &str = "PENSTOCK_POWERCUT_STATE";
/// Set when the directory is what a power cut left.
pub const AGAIN: &str = "PENSTOCK_POWERCUT_AGAIN";

/// So small that segments fill, are emptied and go while the recorder looks.
const SEGMENT_BYTES: u64 = 32 << 10;
const CLIENTS: usize = 6;
/// The numbers of the second run, apart from those of the first.
const SECOND_NUMBERS: u64 = 1_000_000;

/// Most recipients are taken at once, some are put off, and some are refused for good:
/// those cause a report.
pub fn recipient_of(number: u64) -> String {
    match (number % 17, number % 23) {
        (5, _) => format!("later{number}@example.net"),
        (_, 7) => format!("never{number}@example.net"),
        _ => ledger::recipient_of(number),
    }
}

/// Writes claims where the recorder puts them between the file operations:
///
/// ```text
/// begin        cuts are made from here on
/// B number     a client is about to submit it
/// S number     a client read its 250
/// D number     a relay has all of it, or of the report about it
/// F number     it is in the history, so that its end is durable
/// ```
#[derive(Clone)]
struct Claims(Arc<Mutex<File>>);

impl Claims {
    fn open(state: &Path) -> Self {
        let file = File::options()
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

    /// Claims what the history says from now on, until the daemon has stopped.
    async fn follow_history(self, history: PathBuf) {
        let mut seen = std::collections::HashMap::new();
        loop {
            let files = std::fs::read_dir(&history).into_iter().flatten();
            for path in files.map(|it| it.unwrap().path()) {
                let (file, line) = seen
                    .entry(path.clone())
                    .or_insert_with(|| (File::open(path).unwrap(), Vec::new()));
                file.read_to_end(line).unwrap();
                while let Some(end) = line.iter().position(|it| *it == b'\n') {
                    let words: Vec<u8> = line.drain(..=end).collect();
                    if let Some(number) = finished(&String::from_utf8_lossy(&words)) {
                        self.claim(&format!("F {number}"));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The number of the message that a line of the history is about, by its Message-ID.
fn finished(line: &str) -> Option<u64> {
    let id = line.split("\"message-id\":\"").nth(1)?;
    id.split("@app.test\"").next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the recorded half of the test of power cuts"]
async fn a_recorded_daemon() {
    let Some(state) = std::env::var_os(STATE).map(PathBuf::from) else {
        return;
    };
    let again = std::env::var_os(AGAIN).is_some();
    let claims = Claims::open(&state);
    let mut server = FakeRelay::default()
        .answering(
            ".",
            Answer::from("250 2.0.0 taken").after(Duration::from_millis(3)),
        )
        .answering("RCPT TO:<later", "450 4.2.1 later")
        .answering("RCPT TO:<never", "550 5.1.1 nobody");
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
            "login = \"login{user} secret{user}\"\nlimits = {{ preset = \"unlimited\", connections = 4 }}"
        );
        config.push_str(&relay(&format!("relay{user}"), &server, &login));
        users.push_str(&format!(
            "[[user]]\naddress = \"user{user}@app.test\"\nrelay = \"relay{user}\"\n"
        ));
    }
    let disk = Disk {
        state: &state,
        segment_bytes: SEGMENT_BYTES,
        boot: if again { "second" } else { "first" },
    };
    if again {
        // The recovery itself is cut, too.
        claims.claim("begin");
    }
    let mut penstock = Harness::start_on(disk, &config, &users).await;
    if !again {
        claims.claim("begin");
    }
    let mut history = tokio::task::JoinSet::new();
    history.spawn(claims.clone().follow_history(state.join("history")));
    let first = if again { SECOND_NUMBERS } else { 0 };
    let ledger = Arc::new(Ledger::new(first, recipient_of));
    ledger.on_step(move |step, number| match step {
        Step::Begun => claims.claim(&format!("B {number}")),
        Step::Promised => claims.claim(&format!("S {number}")),
    });
    if again {
        let load = Load::start(penstock.address(), CLIENTS, &ledger);
        tokio::time::sleep(Duration::from_millis(300)).await;
        load.stop().await;
    } else {
        load_until_all_took_part(&state, &mut penstock, &ledger).await;
    }
    penstock.stop().await;
    history.shutdown().await;
}

/// Loads it in waves, so that the log empties in between, until several segments of it
/// were removed and large contents came and went. It is started again for each wave: that
/// stores the ledger of limits, without which the log keeps what left.
async fn load_until_all_took_part(state: &Path, penstock: &mut Harness, ledger: &Arc<Ledger>) {
    let until = tokio::time::Instant::now() + crate::daemon::PATIENCE;
    loop {
        let load = Load::start(penstock.address(), CLIENTS, ledger);
        tokio::time::sleep(Duration::from_millis(400)).await;
        load.stop().await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        penstock.stop().await;
        penstock.run().await;
        let acknowledged = ledger.acknowledged();
        let large = acknowledged.keys().filter(|it| *it % 50 == 0).count();
        let segments = std::fs::read_dir(state.join("log")).unwrap();
        let oldest = segments.map(|it| it.unwrap().file_name()).min().unwrap();
        let oldest = oldest.to_str().unwrap().split('-').next().unwrap();
        let removed = u64::from_str_radix(oldest, 16).unwrap() - 1;
        let took_part = format!(
            "{} messages, {large} large ones, {removed} segments removed",
            acknowledged.len()
        );
        if acknowledged.len() > 100 && large > 2 && removed > 5 {
            println!("recorded: {took_part}");
            return;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "hardly any load: {took_part}"
        );
    }
}
