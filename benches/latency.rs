//! How long a lone message waits on an idle relay: from our 250 to the relay's DATA.
//!
//! ```text
//! cargo bench --bench latency
//! ```
//!
//! The real daemon with a spool on the disk, over loopback; one message after the other,
//! so that each is alone. Once over a connection that is kept, once over a new one each
//! time (a relay that takes one message a connection), with TLS and a login.

use std::time::Duration;

use tokio::time::Instant;

#[allow(dead_code)]
#[path = "../tests/it/certificates.rs"]
mod certificates;
#[allow(dead_code)]
#[path = "../tests/it/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../tests/process/daemon.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "../tests/it/relay.rs"]
mod relay;

use client::{Client, message};
use daemon::{Home, free_address, relay_table};
use relay::FakeRelay;

const MESSAGES: usize = 1_000;
/// Between two messages, so that the relay is idle again.
const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    // `cargo test --benches` starts this, too.
    if !std::env::args().any(|it| it == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        println!("{MESSAGES} lone messages each, from our 250 to the relay's DATA\n");
        println!(
            "{:>12} {:>10} {:>10} {:>10}",
            "connection", "median", "99 %", "most"
        );
        for (name, limits) in [("kept", ""), ("new", ", messages-per-connection = 1")] {
            let waits = measure(limits).await;
            let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
            println!(
                "{name:>12} {:>10.1?} {:>10.1?} {:>10.1?}",
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    });
}

/// The waits, shortest first.
async fn measure(limits: &str) -> Vec<Duration> {
    let relay = FakeRelay::default()
        .without("CHUNKING")
        .forgetting_content()
        .login("account", "secret")
        .start()
        .await;
    let listen = free_address();
    let home = Home::new("", "");
    let limits = format!(
        "limits = {{ preset = \"bulk\", batch-messages = 100000, per-hour = \"unlimited\"{limits} }}"
    );
    let table = relay_table(
        "out",
        &relay,
        &home.path("ca.pem"),
        Some(("account", "secret")),
        &limits,
    );
    let config = format!(
        "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n[[listen]]\naddress = \"{listen}\"\n\
         [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n{table}"
    );
    home.configure(&config, "");
    let mut daemon = home.start().await;
    let mut client = Client::connect(listen).await;
    let mut waits = Vec::new();
    for number in 0..MESSAGES {
        let from = format!("erp{}@example.org", number % 50);
        let content = message(&from, "bob@example.net", "an invoice", "hello");
        let answer = client.submit(&from, &["bob@example.net"], &content).await;
        let acknowledged = Instant::now();
        answer.expect_code(250);
        relay.commanded("DATA", number + 1, PATIENCE).await;
        waits.push(acknowledged.elapsed());
        relay.received(number + 1, PATIENCE).await;
        tokio::time::sleep(PAUSE).await;
    }
    assert!(daemon.stop().await.success());
    waits.sort();
    waits
}
