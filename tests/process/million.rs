//! A million waiting messages: starting, listing, what is due next, and memory, with the
//! index as it was left and with the index gone.
//!
//! ```text
//! PENSTOCK_MILLION=1000000 cargo test --release --test process million -- --ignored --nocapture
//! ```
//!
//! Prints what it measured; times depend on the machine, so that only memory and the
//! counts can fail.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use penstock::clock::Clock;
use penstock::mail::{
    Body, Envelope, ForwardPath, Hold, HoldReason, Mailbox, Mailing, Notify, Origin, QueueId,
    Recipient, RecipientStatus, ReversePath, Rule, State,
};
use penstock::release;
use penstock::spool::{Filter, Reserve, Spool, SpoolOptions};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Client, message};
use crate::daemon::{Daemon, Home, free_address};
use crate::relay::{FakeRelay, Tls};

const RELAYS: u64 = 10;
const USERS: u64 = 1_000;
/// Each user has two, so that a flow has about 500 of a million.
const MAILINGS: u64 = 2;
const CONTENT_BYTES: usize = 1_024;
/// Clients that fill the spool together: each message is a record of its own.
const FILLING: u64 = 256;
/// The promise: memory of the daemon at all times.
const MEMORY_BYTES: u64 = 300_000_000;
/// The promise: memory of the CLI, however much it lists.
const CLI_KILOBYTES: u64 = 30_000;

/// 20,000 in CI; the promise is about a million (`PENSTOCK_MILLION`).
fn count() -> u64 {
    std::env::var("PENSTOCK_MILLION").map_or(20_000, |it| it.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; .ci/run runs a short form"]
async fn a_million_waiting_messages_cost_little_time_and_memory() {
    let relay = FakeRelay::default()
        .tls(Tls::Off)
        .forgetting_content()
        .start()
        .await;
    let listen = free_address();
    let mut config = format!(
        "hostname = \"penstock.test\"\n[[listen]]\naddress = \"{listen}\"\n\
         [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n"
    );
    let mut users = String::new();
    for number in 0..RELAYS {
        config.push_str(&format!(
            "[relays.r{number}]\nserver = \"{}\"\ntls = \"off\"\n",
            relay.addr
        ));
        users.push_str(&format!(
            "[[user]]\naddress = \"@r{number}.test\"\nrelay = \"r{number}\"\n"
        ));
    }
    let home = Home::new(&config, &users);
    let state = home.path("state");
    let count = count();
    fill(&state, count).await;
    ask(&state).await;

    println!("\nclean start");
    let began = Instant::now();
    let mut daemon = home.start().await;
    say("ready", began.elapsed());
    let memory = Memory::watch(&daemon);
    relay.received(1, Duration::from_secs(120)).await;
    say("first delivery", began.elapsed());
    list(&home, count);
    memory.ended("clean start, deliveries, listing", MEMORY_BYTES);
    let memory = Memory::watch(&daemon);
    choose(&home, count);
    memory.ended("filters", MEMORY_BYTES);
    assert!(daemon.stop().await.success(), "{}", home.log());

    println!("\nafter a kill");
    let began = Instant::now();
    let mut daemon = home.start().await;
    say("ready", began.elapsed());
    daemon.kill();
    let began = Instant::now();
    let mut daemon = home.start().await;
    let complete = until_complete(&home, began).await;
    say("complete", complete.0);
    assert!(daemon.stop().await.success(), "{}", home.log());

    println!("\nthe index deleted");
    fs::remove_dir_all(state.join("index")).unwrap();
    let began = Instant::now();
    let mut daemon = home.start().await;
    let memory = Memory::watch(&daemon);
    say("ready", began.elapsed());
    let mut client = Client::connect(listen).await;
    let octets = message("u0@r0.test", "bob@example.net", "new", "hello");
    client
        .submit("u0@r0.test", &["bob@example.net"], &octets)
        .await
        .expect_code(250);
    say("accepted a message", began.elapsed());
    let (complete, partial) = until_complete(&home, began).await;
    say("complete", complete);
    println!("  {partial} partial reports, each of which said so");
    let left = status(&home)["queue"]["messages"].as_u64().unwrap();
    // None is missing. A few are counted twice: what the kill left in doubt, and what has
    // left and is not settled yet.
    let seen = left + relay.count() as u64;
    assert!(
        (count + 1..count + 101).contains(&seen),
        "{seen} of {count}"
    );
    memory.ended("rebuild", MEMORY_BYTES);
    assert!(daemon.stop().await.success(), "{}", home.log());
}

/// The usual options, whatever else fills the disk.
fn options(state: &Path) -> SpoolOptions {
    SpoolOptions {
        min_free: Reserve::Bytes(1_000_000),
        ..SpoolOptions::at(state)
    }
}

/// Fills a spool by its own door, many at once.
async fn fill(state: &Path, count: u64) {
    let began = Instant::now();
    let (spool, _) = Spool::open(options(state), Clock::system()).unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let mut set = JoinSet::new();
    for _ in 0..FILLING {
        let (spool, next) = (spool.clone(), next.clone());
        set.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                let envelope = envelope(spool.next_id(), number);
                if number % 10_000 == 0 {
                    // As a daemon does once a minute: opening reads the log from the last
                    // ledger on.
                    let ledger = release::Ledger::new().to_bytes(Clock::system().moment());
                    spool.checkpoint_ledger(ledger);
                }
                let content = vec![b'a' + (number % 26) as u8; CONTENT_BYTES];
                spool.commit(envelope, content.into()).await.unwrap();
            }
        });
    }
    set.join_all().await;
    spool.until_complete().await.unwrap();
    let took = began.elapsed();
    let status = spool.status().await;
    println!(
        "{count} messages of {USERS} users and {RELAYS} relays: {} MB of log in {} segments, accepted in {:.1} s ({:.0} a second)",
        status.log_bytes / 1_000_000,
        status.segments,
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64()
    );
    let began = Instant::now();
    spool.close().await.unwrap();
    say("closed", began.elapsed());
}

/// One in ten waits for its next attempt, one in a hundred is held.
fn envelope(id: QueueId, number: u64) -> Envelope {
    let user = number % USERS;
    let from = Mailbox::parse(&format!("u{user}@r{}.test", user % RELAYS)).unwrap();
    let now = Timestamp::from_millisecond((id.number() >> 20) as i64).unwrap();
    let state = match number / USERS % 100 {
        _ if is_held(number) => State::Held(Hold {
            reason: HoldReason::Administrator,
            by: "jan".into(),
            since: now,
            note: String::new(),
        }),
        1..=10 => State::Waiting {
            not_before: Some(now + SignedDuration::from_hours(6)),
        },
        _ => State::Waiting { not_before: None },
    };
    let mailing = number / USERS % MAILINGS;
    Envelope {
        id,
        origin: Origin::Submission,
        accepted: now,
        reverse_path: ReversePath::Mailbox(from.clone()),
        from,
        rule: Rule::Default,
        relay: format!("r{}", user % RELAYS),
        mailing: Mailing {
            key: format!("subject:mailing {mailing}"),
            label: format!("mailing {mailing}"),
        },
        login: None,
        client: "127.0.0.1".into(),
        message_id: format!("{number}@app.test"),
        body: Body::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        size_bytes: CONTENT_BYTES as u64,
        wire_bytes: CONTENT_BYTES as u64,
        recipients: (0..=number % 2)
            .map(|it| Recipient {
                path: ForwardPath::parse(&format!("customer{number}-{it}@example.net")).unwrap(),
                notify: Notify::Unspecified,
                orcpt: None,
                status: RecipientStatus::Waiting,
                last: None,
            })
            .collect(),
        state,
        attempts: 0,
        first_failure: None,
        warned: false,
        past: Vec::new(),
    }
}

fn is_held(number: u64) -> bool {
    (number / USERS).is_multiple_of(100)
}

/// Asks a spool in this process what is due next.
async fn ask(state: &Path) {
    let began = Instant::now();
    let (spool, _) = Spool::open(options(state), Clock::system()).unwrap();
    say("opened", began.elapsed());
    spool.until_complete().await.unwrap();
    say("complete", began.elapsed());
    let flows = spool.flows().await.unwrap();
    let mut ready = Vec::new();
    for flow in &flows {
        let began = Instant::now();
        let found = spool.ready(&flow.key, QueueId::MIN, 500).await.unwrap();
        ready.push(began.elapsed());
        assert_eq!(found.len() as u64, flow.ready.messages.min(500));
    }
    say_all(&format!("next 500 of one of {} flows", flows.len()), ready);
    let mut retries = Vec::new();
    for number in 0..RELAYS {
        let began = Instant::now();
        let relay = format!("r{number}");
        spool
            .retries_due(&relay, Timestamp::MAX, None, 500, 500)
            .await
            .unwrap();
        retries.push(began.elapsed());
    }
    say_all("next 500 retries of a relay", retries);
    let began = Instant::now();
    spool
        .list(&Filter::default(), QueueId::MIN, 100)
        .await
        .unwrap();
    say("first page of a list", began.elapsed());
    spool.close().await.unwrap();
}

/// `penstock status`, and `penstock queue` whole and filtered.
fn list(home: &Home, count: u64) {
    let began = Instant::now();
    let reported = status(home)["queue"]["messages"].as_u64().unwrap();
    say("penstock status", began.elapsed());
    assert!(reported <= count && reported > count / 2, "{reported}");
    // Deliveries go on meanwhile.
    let read = queue(home, &[], &[]);
    assert!(read > reported / 2, "{read} of {reported}");
    assert!(queue(home, &["--json"], &[]) > reported / 2);
}

/// What filters find. The index answers nearly all of it, in one walk.
fn choose(home: &Home, count: u64) {
    let held = queue(home, &["--state", "held"], &["--json"]);
    assert_eq!(held, (0..count).filter(|it| is_held(*it)).count() as u64);
    let user = queue(home, &["--from", "u7@r7.test"], &["--json"]);
    assert!((1..=count.div_ceil(USERS)).contains(&user), "{user}");
    let number = count - USERS + 7;
    let to = format!("customer{number}-0@example.net");
    assert_eq!(queue(home, &["--to", &to], &["--json"]), 1);
}

/// `penstock queue` with these words: how many rows it printed, in little memory.
fn queue(home: &Home, words: &[&str], more: &[&str]) -> u64 {
    let began = Instant::now();
    let mut child = home
        .cli_command()
        .arg("queue")
        .args(words)
        .args(more)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = format!("/proc/{}/status", child.id());
    let titles = u64::from(!words.contains(&"--json") && more.is_empty());
    let (mut read, mut first, mut peak) = (0, Duration::ZERO, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        line.unwrap();
        read += 1;
        if read == 1 + titles {
            first = began.elapsed();
        }
        if read % 10_000 == 1 {
            // Of its highest; gone with the program.
            peak = peak.max(kilobytes(&told));
        }
    }
    assert!(child.wait().unwrap().success());
    // The line of titles, and the sums.
    let rows = read - 2 * titles;
    // A short answer ends before anybody looks.
    let memory = match peak {
        0 => String::new(),
        _ => format!(", {:.1} MB", peak as f64 / 1_000.0),
    };
    println!(
        "  penstock queue {}: first row {:.2} s, all {rows} {:.2} s{memory}",
        words.join(" "),
        first.as_secs_f64(),
        began.elapsed().as_secs_f64(),
    );
    assert!(peak < CLI_KILOBYTES, "{peak} kB");
    rows
}

/// The most memory that a program had so far.
fn kilobytes(status: &str) -> u64 {
    let text = fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    line.and_then(|it| it.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn status(home: &Home) -> Value {
    let output = home.cli(&["status", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asks for the status until nothing is rebuilt any more: how long it took, and how many
/// reports said that they are partial.
async fn until_complete(home: &Home, began: Instant) -> (Duration, usize) {
    let mut partial = 0;
    let until = began + Duration::from_secs(600);
    loop {
        let text = status(home)["problems"].to_string();
        if !text.contains("read from the log") {
            return (began.elapsed(), partial);
        }
        partial += 1;
        assert!(Instant::now() < until, "never complete:\n{}", home.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The most memory that the daemon had while it was looked at.
struct Memory {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Memory {
    fn watch(daemon: &Daemon) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, pid) = (stop.clone(), daemon.pid());
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(proportional_bytes(pid).unwrap_or(0));
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        Self { stop, thread }
    }

    fn ended(self, what: &str, allowed: u64) {
        self.stop.store(true, Ordering::Relaxed);
        let most = self.thread.join().unwrap();
        println!("  memory (PSS), {what}: at most {} MB", most / 1_000_000);
        assert!(most > 0 && most < allowed, "{most} octets of memory");
    }
}

/// Its proportional set size.
fn proportional_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|it| it.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn say(what: &str, took: Duration) {
    println!("  {what}: {:.1} ms", took.as_secs_f64() * 1e3);
}

fn say_all(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let milliseconds = |it: Duration| it.as_secs_f64() * 1e3;
    println!(
        "  {what}: median {:.2} ms, longest {:.2} ms",
        milliseconds(took[took.len() / 2]),
        milliseconds(took[took.len() - 1])
    );
}
