//! Looks through what waits: for mail that follows the directory, and for senders who are
//! to be told that theirs is late. They go on beside the deliveries.

use std::time::Duration;

use serde_json::json;

use crate::client::message;
use crate::harness::{Harness, relay};
use crate::relay::FakeRelay;

#[tokio::test(start_paused = true)]
async fn everybody_who_waits_too_long_is_told_in_the_same_minute() {
    let out = FakeRelay::default().start().await;
    let penstock = Harness::relaying_to(&out, "[retry]\nwarn-after = \"1h\"").await;
    penstock.ask(json!({"relay-pause": {"relay": "out"}})).await;
    let began = penstock.clock().now();
    let mut client = penstock.client().await;
    for number in 0..450 {
        let subject = format!("n{number}");
        let content = message("jan@example.org", "bob@example.net", &subject, "hello");
        client
            .submit("jan@example.org", &["bob@example.net"], &content)
            .await
            .expect_code(250);
    }
    drop(client);
    tokio::time::sleep(Duration::from_secs(3_600 + 61)).await;
    // Each has a report, which waits for the same relay.
    penstock
        .until("450 messages and 450 reports", |queue| queue.len() == 900)
        .await;
    let took = penstock.clock().now().duration_since(began);
    assert!(took.as_secs() < 3_600 + 120, "{took:?}");
    // And nobody is told twice.
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert_eq!(penstock.queue().await.len(), 900);
}

#[tokio::test(start_paused = true)]
async fn mail_of_all_moved_users_follows_them_and_what_was_rerouted_stays() {
    let out = FakeRelay::default().start().await;
    let names = ["ann", "eve", "jan"];
    let users = |relay: &str| -> String {
        let one = |name| format!("[[user]]\naddress = \"{name}@x.nl\"\nrelay = \"{relay}\"\n");
        names.map(one).concat()
    };
    let relays = relay("old", &out, "") + &relay("new", &out, "");
    let penstock = Harness::start(&relays, &users("old")).await;
    for name in ["old", "new"] {
        penstock.ask(json!({"relay-pause": {"relay": name}})).await;
    }
    let mut rerouted = String::new();
    for number in 0..12 {
        for name in names {
            let from = format!("{name}@x.nl");
            let accepted = penstock.submit(&from, &["bob@example.net"], "news").await;
            let accepted = accepted.expect_code(250);
            if number == 5 && name == "eve" {
                rerouted = accepted.queue_id();
            }
        }
    }
    let change =
        json!({"change": {"action": {"reroute": {"to": "old"}}, "filter": {"ids": [rerouted]}}});
    penstock.ask(change).await;
    penstock.configure(&relays, &users("new"));
    penstock.ask(json!({"reload": {}})).await;
    penstock
        .until("all but one wait for the new relay", |queue| {
            queue.len() == 36
                && queue
                    .iter()
                    .all(|it| (it["relay"] == "old") == (it["id"] == *rerouted))
        })
        .await;
}
