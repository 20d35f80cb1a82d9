//! Promise 1, the SIGKILL half: whatever was acknowledged arrives, whole, by the right
//! login, however often the daemon is killed.

use std::sync::Arc;
use std::time::Duration;

use crate::daemon::{Home, free_address, relay_table};
use crate::ledger::{Ledger, Load, USERS, balance};
use crate::relay::FakeRelay;

/// 5 in a plain `cargo test`; CI says 20 (`PENSTOCK_KILL_ROUNDS`), a long night 100.
fn rounds() -> usize {
    std::env::var("PENSTOCK_KILL_ROUNDS").map_or(5, |it| it.parse().unwrap())
}

const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_mail_survives_sigkill_at_any_moment_under_load() {
    let mut relay = FakeRelay::default();
    for user in 0..USERS {
        relay = relay.login(&format!("login{user}"), &format!("secret{user}"));
    }
    let relay = relay.start().await;
    let listen = free_address();
    let home = Home::new("", "");
    let mut config = format!(
        "hostname = \"penstock.test\"\n[[listen]]\naddress = \"{listen}\"\n[spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n\
         [retry]\nfirst = \"1s\"\nmax = \"2s\"\n"
    );
    let mut users = String::new();
    for user in 0..USERS {
        config.push_str(&relay_table(
            &format!("relay{user}"),
            &relay,
            &home.path("ca.pem"),
            Some((&format!("login{user}"), &format!("secret{user}"))),
            "limits = { preset = \"unlimited\", connections = 2 }",
        ));
        users.push_str(&format!(
            "[[user]]\naddress = \"user{user}@app.test\"\nrelay = \"relay{user}\"\n"
        ));
    }
    home.configure(&config, &users);
    let ledger = Arc::new(Ledger::default());
    for _ in 0..rounds() {
        let mut daemon = home.start().await;
        let load = Load::start(listen, CLIENTS, &ledger);
        tokio::time::sleep(Duration::from_millis(50 + rand::random::<u64>() % 600)).await;
        daemon.kill();
        load.stop().await;
    }
    let mut daemon = home.start().await;
    let until = tokio::time::Instant::now() + Duration::from_secs(120);
    loop {
        let found = balance(&ledger, &relay.accepted());
        if found.missing.is_empty() || tokio::time::Instant::now() > until {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(daemon.stop().await.success(), "{}", home.log());

    let found = balance(&ledger, &relay.accepted());
    println!(
        "{} rounds: {} acknowledged, {} delivered, {} of them more than once",
        rounds(),
        found.acknowledged,
        found.delivered,
        found.repeated.len()
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
    // Only what was between its final dot and the record of the reply may go twice: at
    // most what all connections carried at the moment of each kill.
    let in_flight = rounds() * USERS as usize * 2;
    assert!(found.repeated.len() <= in_flight, "{:?}", found.repeated);
    assert_eq!(relay.offences(), Vec::<String>::new());
}
