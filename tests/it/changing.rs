//! What is said about changes by hand: what was done, and what stays as it was.

use serde_json::{Value, json};

use crate::harness::Harness;
use crate::relay::FakeRelay;

/// A daemon whose relay is paused by hand, with one message that waits and one held.
async fn setting(out: &crate::relay::Relay) -> (Harness, String, String) {
    let penstock = Harness::relaying_to(out, "").await;
    penstock
        .ask(json!({"relay-pause": {"relay": "out", "note": "by hand"}}))
        .await;
    let mut ids = Vec::new();
    for subject in ["waits", "held"] {
        let answer = penstock
            .submit("ann@example.org", &["bob@example.net"], subject)
            .await;
        ids.push(answer.expect_code(250).queue_id());
    }
    let held = ids.pop().unwrap();
    let waits = ids.pop().unwrap();
    change(&penstock, json!("hold"), &[&held]).await;
    (penstock, waits, held)
}

/// What is told of a change to these messages.
async fn change(penstock: &Harness, action: Value, ids: &[&str]) -> Value {
    let request = json!({"change": {"action": action, "filter": {"ids": ids}}});
    penstock.ask(request).await.remove(0)["change"].clone()
}

#[tokio::test]
async fn a_retry_tells_what_is_held_and_which_relay_is_paused() {
    let out = FakeRelay::default().start().await;
    let (mut penstock, waits, held) = setting(&out).await;
    // Never tried, the one is due already, and leaves no sooner for being asked.
    let told = change(&penstock, json!("retry"), &[&waits, &held]).await;
    assert_eq!(
        [&told["messages"], &told["unchanged"], &told["held"]],
        [&json!(0), &json!(1), &json!(1)],
        "{told}"
    );
    assert_eq!(told["paused"], json!(["out"]), "{told}");
    let told = change(&penstock, json!("release"), &[&waits, &held]).await;
    assert_eq!(
        [&told["messages"], &told["unchanged"], &told["held"]],
        [&json!(1), &json!(1), &json!(0)],
        "{told}"
    );
    assert_eq!(told["paused"], json!(["out"]), "{told}");
    penstock
        .ask(json!({"relay-resume": {"relay": "out"}}))
        .await;
    penstock.until_idle().await;
    penstock.stop().await;
}

#[tokio::test]
async fn a_reroute_tells_what_stays_held() {
    let out = FakeRelay::default().start().await;
    let (mut penstock, waits, held) = setting(&out).await;
    let told = change(&penstock, json!({"reroute": {"to": "out"}}), &[&held]).await;
    assert_eq!(
        [&told["messages"], &told["held"], &told["paused"]],
        [&json!(1), &json!(1), &json!([])],
        "{told}"
    );
    let told = change(&penstock, json!({"reroute": {"to": "out"}}), &[&waits]).await;
    assert_eq!(
        [&told["messages"], &told["held"], &told["paused"]],
        [&json!(1), &json!(0), &json!(["out"])],
        "{told}"
    );
    let queue = penstock.queue().await;
    let state = queue.iter().find(|it| it["id"] == *held);
    assert_eq!(state.unwrap()["state"], "held", "{queue:?}");
    penstock.stop().await;
}
