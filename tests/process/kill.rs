//! Promise 1, the SIGKILL half: whatever was acknowledged arrives, whole, by the right
//! login, however often the daemon is killed, with relays that are up, slow and down.
//!
//! ```text
//! PENSTOCK_KILL_ROUNDS=100 cargo test --test process kill:: -- --nocapture
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::{Home, free_address, relay_table};
use crate::ledger::{Ledger, Load, USERS, balance, number_of};
use crate::relay::{Answer, FakeRelay, Relay, Transaction};

/// 5 in a plain `cargo test`; CI says 15 (`PENSTOCK_KILL_ROUNDS`), a long night 100.
fn rounds() -> usize {
    std::env::var("PENSTOCK_KILL_ROUNDS").map_or(5, |it| it.parse().unwrap())
}

const CLIENTS: usize = 8;
/// How the log begins what it says of a message that may have been delivered.
const IN_DOUBT: &str = "in doubt: the final dot was";

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_mail_survives_sigkill_at_any_moment_under_load() {
    // One is up; one takes its time over the final dot, where a kill leaves doubt; one is
    // down every other round, and cuts its connections then.
    let relays = [
        relay(0, Duration::ZERO).await,
        relay(1, Duration::from_millis(120)).await,
        relay(2, Duration::ZERO).await,
    ];
    let listen = free_address();
    let home = Home::new("", "");
    let mut config = format!(
        "hostname = \"penstock.test\"\n[[listen]]\naddress = \"{listen}\"\n[spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n\
         [retry]\nfirst = \"1s\"\nmax = \"2s\"\n"
    );
    let mut users = String::new();
    for (user, relay) in relays.iter().enumerate() {
        config.push_str(&relay_table(
            &format!("relay{user}"),
            relay,
            &home.path(&format!("ca{user}.pem")),
            Some((&format!("login{user}"), &format!("secret{user}"))),
            "limits = { preset = \"unlimited\", connections = 4 }",
        ));
        users.push_str(&format!(
            "[[user]]\naddress = \"user{user}@app.test\"\nrelay = \"relay{user}\"\n"
        ));
    }
    home.configure(&config, &users);
    let ledger = Arc::new(Ledger::default());
    for round in 0..rounds() {
        let mut daemon = home.start().await;
        let load = Load::start(listen, CLIENTS, &ledger);
        let first = Duration::from_millis(25 + rand::random::<u64>() % 300);
        tokio::time::sleep(first).await;
        if round % 2 == 1 {
            relays[2].answer("connect", None, Answer::Close);
            relays[2].hang_up();
        }
        tokio::time::sleep(Duration::from_millis(25 + rand::random::<u64>() % 300)).await;
        daemon.kill();
        load.stop().await;
        relays[2].mend();
    }
    let mut daemon = home.start().await;
    let until = tokio::time::Instant::now() + Duration::from_secs(120);
    let taken = || -> Vec<Transaction> { relays.iter().flat_map(Relay::accepted).collect() };
    loop {
        let found = balance(&ledger, &taken());
        if found.missing.is_empty() || tokio::time::Instant::now() > until {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(daemon.stop().await.success(), "{}", home.log());

    let taken = taken();
    let found = balance(&ledger, &taken);
    let doubted = doubted(&home.log());
    println!(
        "{} rounds: {} acknowledged, {} delivered, {} of them more than once, {} in doubt by the log",
        rounds(),
        found.acknowledged,
        found.delivered,
        found.repeated.len(),
        doubted.len()
    );
    assert!(found.wrong.is_empty(), "{:?}", found.wrong);
    assert!(
        found.missing.is_empty(),
        "{:?}\n{}",
        found.missing,
        home.log()
    );
    assert!(
        found.acknowledged > rounds() * 5,
        "hardly any load: {found:?}"
    );
    // What went twice was between its final dot and the record of the reply, and the log
    // said so before it went again.
    let ids = ids(&taken);
    for number in &found.repeated {
        let ids = &ids[number];
        assert_eq!(ids.len(), 1, "{number} was stored more than once: {ids:?}");
        let id = ids.first().unwrap();
        assert!(
            doubted.contains(id),
            "{number} ({id}) went twice and nobody doubted it\n{}",
            home.log()
        );
    }
    for relay in &relays {
        assert_eq!(relay.offences(), Vec::<String>::new());
    }
}

/// A relay for one user that answers the final dot so much later.
async fn relay(user: u64, delay: Duration) -> Relay {
    assert!(user < USERS);
    FakeRelay::default()
        .login(&format!("login{user}"), &format!("secret{user}"))
        .answering(".", Answer::from("250 2.0.0 taken").after(delay))
        .start()
        .await
}

/// The queue ids that the log calls in doubt.
fn doubted(log: &str) -> BTreeSet<String> {
    log.lines()
        .filter(|line| line.contains(IN_DOUBT))
        .filter_map(|line| line.split("queue_id=").nth(1)?.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// Under which queue ids each message arrived: its Received field tells.
fn ids(taken: &[Transaction]) -> BTreeMap<u64, BTreeSet<String>> {
    let mut ids: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for transaction in taken {
        let text = transaction.text();
        let id = text
            .split(" id ")
            .nth(1)
            .and_then(|it| it.split(';').next());
        if let (Some(number), Some(id)) = (number_of(&transaction.content), id) {
            ids.entry(number).or_default().insert(id.to_owned());
        }
    }
    ids
}
