//! What an administrator hears of without asking.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Harness, relay};
use crate::relay::{Answer, FakeRelay, Relay};

const MINUTE: Duration = Duration::from_secs(60);
/// Of virtual time.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// Which alarms stand, and about whom.
async fn standing(penstock: &Harness) -> Vec<(String, String)> {
    let word = |it: &Value| it.as_str().unwrap_or("").to_owned();
    let status = penstock.status().await;
    let alarms = status["alarms"].as_array().unwrap();
    alarms
        .iter()
        .map(|it| (word(&it["alarm"]), word(&it["relay"])))
        .collect()
}

/// A daemon with `first` as everybody's relay and `second` beside it.
async fn between(first: &Relay, rest: &str, second: &Relay) -> Harness {
    let config = format!(
        "admin = \"postmaster@example.net\"\nbounces-via = \"second\"\ndefault-relay = \"first\"\n{}{}\n[timeouts]\nfinal-dot = \"3h\"\n",
        relay("first", first, rest),
        relay("second", second, "sender = \"penstock@example.net\"")
    );
    Harness::start(&config, "").await
}

#[tokio::test(start_paused = true)]
async fn mail_that_may_leave_and_does_not_for_a_quarter_of_an_hour_is_an_alarm() {
    // One connection, and its relay thinks about a message for forty minutes.
    let first = FakeRelay::default()
        .answering_once(".", Answer::from("250 2.0.0 taken").after(40 * MINUTE))
        .start()
        .await;
    let second = FakeRelay::default().start().await;
    let penstock = between(&first, "limits = { connections = 1 }", &second).await;
    for subject in ["one", "two"] {
        penstock
            .submit("ann@example.org", &["bob@example.net"], subject)
            .await
            .expect_code(250);
    }
    let began = penstock.clock().uptime();
    let mailed = second.received(1, LONG).await.remove(0);
    let waited = penstock.clock().uptime() - began;
    assert!((15 * MINUTE..20 * MINUTE).contains(&waited), "{waited:?}");
    assert!(
        mailed.text().contains("nothing leaves by relay first"),
        "{}",
        mailed.text()
    );
    let alarm = ("nothing-leaves".to_owned(), "first".to_owned());
    assert_eq!(standing(&penstock).await, [alarm]);
    penstock.until_idle().await;
    assert_eq!(standing(&penstock).await, []);
    assert_eq!(first.count(), 2);
}
