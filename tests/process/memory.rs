//! What the daemon costs: memory at rest, for each client, for large messages, and after
//! very many connections.
//!
//! ```text
//! cargo build --release
//! PENSTOCK_DAEMON=target/release/penstockd PENSTOCK_MEMORY=full \
//!     cargo test --test process -- --include-ignored --nocapture --test-threads=1 memory::
//! ```
//!
//! With the release build the limits are those that are promised; of a debug build, which
//! CI has, only what grows is judged. Without `full` the large messages and the many
//! connections are fewer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Client, message, stuff};
use crate::daemon::machine::need_descriptors;
use crate::daemon::{Daemon, Home, PATIENCE, free_address};

const MIB: u64 = 1024 * 1024;

fn is_full() -> bool {
    std::env::var("PENSTOCK_MEMORY").is_ok_and(|it| it == "full")
}

/// Whether it is the release build that is measured.
fn is_release() -> bool {
    std::env::var("PENSTOCK_DAEMON").is_ok()
}

/// A daemon with one listener whose relay cannot be reached.
struct Measured {
    listen: SocketAddr,
    daemon: Daemon,
    _home: Home,
}

impl Measured {
    async fn start() -> Self {
        need_descriptors(2_500);
        let listen = free_address();
        let nobody = free_address();
        let home = Home::new("", "");
        home.configure(
            &format!(
                "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n\
                 [[listen]]\naddress = \"{listen}\"\n\
                 [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n\
                 [relays.out]\nserver = \"{nobody}\"\ntls = \"off\"\n"
            ),
            "",
        );
        let daemon = home.start().await;
        Self {
            listen,
            daemon,
            _home: home,
        }
    }

    /// Its share of the machine's memory, in octets: with its program, which other
    /// daemons may use at the same time.
    fn pss(&self) -> u64 {
        self.memory("Pss:")
    }

    /// What is its own alone, whoever else runs.
    fn own(&self) -> u64 {
        self.memory("Anonymous:")
    }

    fn memory(&self, which: &str) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.daemon.pid());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|it| it.starts_with(which)).unwrap();
        let kib = line.split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.daemon.pid());
        std::fs::read_dir(path).unwrap().count()
    }

    /// Waits until it has no more descriptors than that: clients have left.
    async fn until_descriptors(&self, most: usize) {
        let until = Instant::now() + PATIENCE;
        while self.descriptors() > most {
            let now = self.descriptors();
            assert!(Instant::now() < until, "{now} descriptors, not {most}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn mib(octets: u64) -> String {
    format!("{:.1} MiB", octets as f64 / MIB as f64)
}

#[track_caller]
fn below(what: &str, octets: u64, limit: u64) {
    println!("{what}: {} (limit {})", mib(octets), mib(limit));
    assert!(octets < limit, "{what}: {}", mib(octets));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a process; .ci/run runs it"]
async fn at_start_and_with_a_thousand_idle_clients_it_stays_small() {
    let it = Measured::start().await;
    let start = it.own();
    if is_release() {
        below("at start", it.pss(), 12 * MIB);
    }
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        let mut client = Client::connect(it.listen).await;
        client.command("NOOP").await.expect_code(250);
        idle.push(client);
    }
    if is_release() {
        below("with 1,000 idle clients", it.pss(), 40 * MIB);
    }
    let added = it.own().saturating_sub(start);
    below("what 1,000 idle clients add", added, 28 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a process; .ci/run runs it"]
async fn a_thousand_that_stop_in_the_middle_of_a_message_cost_what_is_bounded() {
    let it = Measured::start().await;
    let start = it.own();
    let begun = format!(
        "From: a@app.test\r\nSubject: {}\r\n\r\n{}",
        "\r\n word".repeat(3_000),
        "0123456789abcdef\r\n".repeat(3_000)
    );
    let mut stuck = Vec::new();
    for _ in 0..1_000 {
        let mut client = Client::connect(it.listen).await;
        for command in ["MAIL FROM:<a@app.test>", "RCPT TO:<b@example.net>"] {
            client.command(command).await.expect_code(250);
        }
        client.command("DATA").await.expect_code(354);
        client.send(begun.as_bytes()).await;
        stuck.push(client);
    }
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for client in &mut stuck {
            client.send(b"x").await;
        }
    }
    let added = it.own().saturating_sub(start);
    // 32 MB of content for all of them, and the rest for each.
    below("what 1,000 stuck messages add", added, 90 * MIB);
    let mail = message("a@app.test", "b@example.net", "small", "x");
    let mut next = Client::connect(it.listen).await;
    let answer = next.submit("a@app.test", &["b@example.net"], &mail).await;
    answer.expect_code(250);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a process; .ci/run runs it"]
async fn fifty_large_messages_at_once_do_not_stay_in_memory() {
    let each = if is_full() { 40_000_000 } else { 4_000_000 };
    let it = Measured::start().await;
    let start = it.own();
    let text = "0123456789abcdef\r\n".repeat(each / 18);
    let mail = stuff(&message("a@app.test", "b@example.net", "large", &text));
    let mail = std::sync::Arc::new(mail);
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let (listen, mail) = (it.listen, mail.clone());
        clients.spawn(async move {
            let mut client = Client::connect(listen).await;
            for (command, code) in [
                ("MAIL FROM:<a@app.test>", 250),
                ("RCPT TO:<b@example.net>", 250),
                ("DATA", 354),
            ] {
                client.command(command).await.expect_code(code);
            }
            client.send(&mail).await;
            client.reply().await.expect_code(250);
        });
    }
    let (mut most, mut most_own) = (0, 0);
    let mut accepted = 0;
    while accepted < 50 {
        tokio::select! {
            Some(done) = clients.join_next() => {
                done.unwrap();
                accepted += 1;
            }
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                most = most.max(it.pss());
                most_own = most_own.max(it.own());
            }
        }
    }
    let what = format!("with 50 clients sending {} MB each", each / 1_000_000);
    if is_release() {
        below(&what, most, 150 * MIB);
    }
    let added = most_own.saturating_sub(start);
    below(&format!("what is added {what}"), added, 120 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a process; .ci/run runs it"]
async fn after_very_many_connections_it_has_no_more_than_before() {
    let total = if is_full() { 100_000 } else { 5_000 };
    let it = Measured::start().await;
    // One more may be in use at the moment of looking.
    let descriptors = it.descriptors() + 1;
    // The first thousand fill what is kept for the next.
    connect(it.listen, 1_000).await;
    it.until_descriptors(descriptors).await;
    let before = it.own();
    connect(it.listen, total).await;
    it.until_descriptors(descriptors).await;
    let after = it.own();
    println!(
        "{total} connections: no more than {descriptors} descriptors; {} before, {} after",
        mib(before),
        mib(after)
    );
    let grown = after.saturating_sub(before);
    below("what they leave behind", grown, 2 * MIB);
}

/// So many clients, 50 at a time; some leave politely, some in the middle of everything.
async fn connect(listen: SocketAddr, total: usize) {
    let mut clients = JoinSet::new();
    for client in 0..50 {
        clients.spawn(async move {
            for number in 0..total / 50 {
                let mut it = Client::connect(listen).await;
                match (client + number) % 4 {
                    0 => {}
                    1 => it.send(b"MAIL FROM:<a@app.test>\r\n").await,
                    2 => {
                        it.send(b"MAIL FROM:<a@app.test>\r\nRCPT TO:<b@c.test>\r\nDATA\r\nx")
                            .await
                    }
                    _ => {
                        it.command("QUIT").await.expect_code(221);
                    }
                }
            }
        });
    }
    clients.join_all().await;
}
