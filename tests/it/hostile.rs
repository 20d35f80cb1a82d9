//! Relays of ill will, or in disorder: every stage of the dialogue, every kind of trouble.
//!
//! One daemon, one relay for each cell of the table. For two hours every relay does the
//! same wrong thing again and again; then all are mended. Nothing may be lost, nothing
//! reported as failed, and no relay may keep its connection for ever.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;

use crate::certificates::Authority;
use crate::client::{Client, message};
use crate::harness::{Harness, relay};
use crate::relay::{Answer, FakeRelay, Relay};

/// Where in the dialogue: how it is called, what the fake relay calls it, how many usual
/// answers come before, and what is said there usually.
const STAGES: &[(&str, &str, usize, &str)] = &[
    ("greeting", "connect", 0, "220 relay.test"),
    ("EHLO", "EHLO", 0, "250 relay.test"),
    ("STARTTLS", "STARTTLS", 0, "220 go ahead"),
    ("TLS handshake", "TLS", 0, "220 go ahead"),
    ("second EHLO", "EHLO", 1, "250 relay.test"),
    ("AUTH", "AUTH", 0, "235 welcome"),
    ("MAIL", "MAIL", 0, "250 ok"),
    ("RCPT", "RCPT TO:<bob", 0, "250 ok"),
    ("DATA", "DATA", 0, "354 go ahead"),
    ("content", "content", 0, "250 taken"),
    ("final dot", ".", 0, "250 taken"),
    ("last BDAT", ".", 0, "250 taken"),
    ("RSET", "RSET", 0, "250 ok"),
    ("QUIT", "QUIT", 0, "221 bye"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Silence,
    /// One octet a second.
    Drip,
    /// HTTP, NUL and escape sequences.
    Garbage,
    /// 200,000 lines.
    Endless,
    /// The usual answer, and one more.
    Unasked,
    /// 421.
    Leaving,
    Close,
    /// A plain "not now".
    Refusal,
}

const TROUBLES: &[Trouble] = &[
    Trouble::Silence,
    Trouble::Drip,
    Trouble::Garbage,
    Trouble::Endless,
    Trouble::Unasked,
    Trouble::Leaving,
    Trouble::Close,
    Trouble::Refusal,
];

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The message waits, and the relay never got it.
    Waits,
    /// The relay may have got it: it waits, is sent again, and can arrive twice.
    InDoubt,
    /// It waits and is sent again; whether the relay got it, only its buffers know.
    Unsure,
    /// The message is taken all the same.
    Taken,
}

fn expected(stage: &str, trouble: Trouble) -> Outcome {
    match (stage, trouble) {
        // Said after the message was taken, or before one that can go another way.
        ("RSET" | "QUIT", _) => Outcome::Taken,
        ("final dot" | "last BDAT", Trouble::Unasked) => Outcome::Taken,
        // A reply that says no is an answer, not a doubt.
        ("final dot" | "last BDAT", Trouble::Leaving | Trouble::Refusal) => Outcome::Waits,
        ("final dot" | "last BDAT", _) => Outcome::InDoubt,
        // A small message is under way, its dot included, before the relay says a word.
        ("content", Trouble::Unasked) => Outcome::Taken,
        // It says no or nonsense too early, and takes the message after that.
        ("content", Trouble::Garbage | Trouble::Refusal) => Outcome::InDoubt,
        ("content", Trouble::Endless) => Outcome::Unsure,
        _ => Outcome::Waits,
    }
}

fn answer(trouble: Trouble, usual: &str) -> Answer {
    let code = &usual[..3];
    match trouble {
        Trouble::Silence => Answer::Silence,
        Trouble::Drip => Answer::Drip(
            format!("{code}-{}", "slowly ".repeat(500)),
            Duration::from_secs(1),
        ),
        Trouble::Garbage => Answer::garbage(),
        Trouble::Endless => Answer::endless(code.parse().unwrap(), 200_000),
        Trouble::Unasked => Answer::Raw(format!("{usual}\r\n250 and more\r\n").into_bytes()),
        Trouble::Leaving => Answer::from("421 4.3.2 closing"),
        Trouble::Close => Answer::Close,
        Trouble::Refusal => Answer::from("451 4.3.0 not now"),
    }
}

/// One relay, and what it is there for.
struct Cell {
    what: String,
    from: String,
    relay: Relay,
    outcome: Outcome,
    /// What is written of it besides its address.
    settings: String,
}

/// What the relay took while it behaved: its scripted answers are none of these.
fn taken(relay: &Relay) -> usize {
    let all = relay.transactions();
    all.iter()
        .filter(|it| it.reply == "250 2.0.0 taken")
        .count()
}

fn from(queue: &[Value], address: &str) -> usize {
    queue.iter().filter(|it| it["from"] == address).count()
}

/// What stands in every message of these tests.
const SUBJECT: &str = "subject-that-nobody-logs";
const BODY: &str = "body-that-nobody-shows";
/// With what these tests log in.
const PASSWORD: &str = "password-that-nobody-shows";

/// All that is logged on this thread, every level of it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        crate::machine::hear_everything();
        let log = Self::default();
        let writer = log.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let only_ours = tracing_subscriber::EnvFilter::new("penstock=trace");
        let subscriber = tracing_subscriber::registry().with(only_ours).with(layer);
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Nothing of a message or a login is in the log, nor in what anybody may ask.
async fn shows_no_secret(penstock: &Harness, queue: &[Value], log: &Log) {
    let log = log.text();
    assert!(log.contains("relay paused"), "it is a log");
    let mut shown = vec![log];
    let mut questions = vec![json!({"status": {}}), json!({"metrics": {}})];
    questions.push(json!({"relay-list": {}}));
    questions.extend(queue.iter().map(|it| json!({"show": {"id": it["id"]}})));
    for question in questions {
        shown.push(format!("{:?}", penstock.ask(question).await));
    }
    shown.push(format!("{queue:?}"));
    let login = format!("\0user\0{PASSWORD}");
    for secret in [
        BODY.to_owned(),
        PASSWORD.to_owned(),
        BASE64.encode(PASSWORD),
        BASE64.encode(login),
    ] {
        for text in &shown {
            let place = text.find(&secret);
            let around = place.map(|it| &text[it.saturating_sub(300)..it]);
            assert_eq!(around, None, "{secret}");
        }
    }
    // What a mailing is called by is its subject: to be shown, never to be logged.
    assert!(!shown[0].contains(SUBJECT));
}

async fn submit(client: &mut Client, from: &str, to: &str) {
    let mail = message(from, to, SUBJECT, BODY);
    client.submit(from, &[to], &mail).await.expect_code(250);
}

async fn run(cells: Vec<Cell>) {
    let (mut config, mut users) = (String::new(), String::new());
    for (number, cell) in cells.iter().enumerate() {
        let name = format!("r{number}");
        config += &relay(&name, &cell.relay, &cell.settings);
        users += &format!(
            "[[user]]\naddress = \"{}\"\nrelay = \"{name}\"\n",
            cell.from
        );
    }
    let (log, _logging) = Log::start();
    let penstock = Harness::start(&config, &users).await;
    let mut client = penstock.client().await;
    for cell in &cells {
        // One that is refused for now leaves a transaction open: RSET comes next.
        if cell.what.starts_with("RSET") {
            submit(&mut client, &cell.from, "later@example.net").await;
        }
        submit(&mut client, &cell.from, "bob@example.net").await;
    }
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    let queue = penstock.queue().await;
    for cell in &cells {
        let what = &cell.what;
        let (waiting, ended) = (from(&queue, &cell.from), cell.relay.count());
        match cell.outcome {
            Outcome::Waits => {
                assert_eq!(waiting, 1, "{what}: it does not wait");
                assert_eq!(taken(&cell.relay), 0, "{what}");
            }
            Outcome::InDoubt => {
                assert_eq!(waiting, 1, "{what}: it does not wait");
                assert!(ended >= 1, "{what}: the relay never got it");
            }
            Outcome::Unsure => assert_eq!(waiting, 1, "{what}: it does not wait"),
            Outcome::Taken => assert!(ended >= 1, "{what}: it was not taken"),
        }
        if cell.outcome != Outcome::Taken {
            // However it was answered, each attempt ended, and another was made.
            assert!(cell.relay.connections() >= 2, "{what}: it hangs");
        }
        cell.relay.mend();
    }
    shows_no_secret(&penstock, &queue, &log).await;
    penstock.until_idle().await;
    // A relay that behaves is used as if nothing had been.
    let mut client = penstock.client().await;
    for cell in &cells {
        submit(&mut client, &cell.from, "bob@example.net").await;
    }
    penstock.until_idle().await;
    for cell in &cells {
        let what = &cell.what;
        let all = cell.relay.transactions();
        let reports = all.iter().filter(|it| it.reverse_path().is_empty());
        assert_eq!(
            reports.count(),
            0,
            "{what}: something was reported as failed"
        );
        let to_bob = |it: &&crate::relay::Transaction| it.forward_paths() == ["bob@example.net"];
        let arrived = all.iter().filter(to_bob).count();
        match cell.outcome {
            Outcome::Waits => assert_eq!(taken(&cell.relay), 2, "{what}"),
            Outcome::InDoubt => assert!(arrived >= 3, "{what}: {arrived} times"),
            Outcome::Unsure => assert!(arrived >= 2, "{what}: {arrived} times"),
            Outcome::Taken => assert_eq!(arrived, 2, "{what}"),
        }
        let offences = cell.relay.offences();
        assert_eq!(offences, Vec::<String>::new(), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_a_relay_does_at_any_stage_no_message_is_lost_or_bounced() {
    let mut cells = Vec::new();
    for (stage, at, skip, usual) in STAGES {
        for trouble in TROUBLES {
            let mut out = FakeRelay::default().answering_after(*skip, at, answer(*trouble, usual));
            if *stage != "last BDAT" {
                out = out.without("CHUNKING");
            }
            if *stage == "RSET" {
                out = out.answering_once("RCPT TO:<later", "450 4.2.0 later");
            }
            cells.push(Cell {
                what: format!("{stage}: {trouble:?}"),
                from: format!("u{}@cells.test", cells.len()),
                relay: out.start().await,
                outcome: expected(stage, *trouble),
                settings: format!("login = \"user {PASSWORD}\""),
            });
        }
    }
    run(cells).await;
}

#[tokio::test(start_paused = true)]
async fn no_message_and_no_password_goes_to_a_relay_that_cannot_prove_who_it_is() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("ca.pem");
    authority.write(&trusted);
    let files = format!(
        "login = \"user secret\"\nca-file = \"{}\"",
        trusted.display()
    );
    let right = ["127.0.0.1", "localhost"];
    for (what, pair) in [
        ("another name", authority.sign(&["elsewhere.test"])),
        ("run out", authority.sign_expired(&right)),
        ("a stranger's word for it", Authority::new().sign(&right)),
    ] {
        let out = FakeRelay::default().certificate(pair).start().await;
        // Written out: the harness would pin the fingerprint.
        let config = format!(
            "default-relay = \"out\"\n[relays.out]\nserver = \"{}\"\ntls = \"required\"\n{files}\n",
            out.addr
        );
        let penstock = Harness::start(&config, "").await;
        let mut client = penstock.client().await;
        submit(&mut client, "ann@example.org", "bob@example.net").await;
        tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
        let queue = penstock.queue().await;
        assert_eq!(from(&queue, "ann@example.org"), 1, "{what}");
        assert_eq!((out.logins().len(), out.count()), (0, 0), "{what}");
        assert!(out.connections() >= 2, "{what}: it was tried once only");
    }
}
