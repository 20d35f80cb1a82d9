//! Relays that must be verified: nothing goes through one before somebody has read its
//! test message and confirmed it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Harness, relay};
use crate::relay::{FakeRelay, Relay};

/// Virtual or real, nobody waits longer.
const LONG: Duration = Duration::from_secs(3600);

const JAN: &str = "[[user]]\naddress = \"jan@uwdomein.nl\"\nrelay = \"own\"\n";
const OWN: &str =
    "sender = \"mailer@uwdomein.nl\"\nlogin = \"mailer secretpassword\"\nverify = true";

/// A default relay that works, and the relay `own` of jan that must be verified.
fn config(default: &Relay, own: &Relay) -> String {
    format!(
        "default-relay = \"default\"\n{}{}",
        relay("default", default, ""),
        relay("own", own, OWN)
    )
}

/// The token in a test message.
pub fn token(text: &str) -> String {
    let line = text
        .lines()
        .find(|it| it.contains("penstock relay confirm"));
    let line = line.unwrap_or_else(|| panic!("no token: {text}"));
    line.trim().rsplit(' ').next().unwrap().to_owned()
}

/// The token that the relay got last.
pub async fn received(own: &Relay, count: usize) -> String {
    let all = own.received(count, LONG).await;
    let test = all.last().unwrap();
    assert_eq!(test.reverse_path(), "mailer@uwdomein.nl");
    assert_eq!(test.forward_paths(), ["mailer@uwdomein.nl"]);
    token(&test.text())
}

impl Harness {
    /// What `penstock relay list NAME` knows.
    pub async fn relay(&self, name: &str) -> Value {
        let found = self.ask(json!({"relay-list": {"relay": name}})).await;
        found[0]["relay"].clone()
    }

    /// Waits until its verification stands so.
    async fn until_verification(&self, name: &str, state: &str) -> Value {
        for _ in 0..10_000 {
            let status = self.relay(name).await;
            if status["verification"]["state"] == state {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {state}: {}", self.relay(name).await);
    }

    /// `penstock relay verify NAME`: what was said, and how it ended.
    async fn verify(&self, name: &str) -> (String, Value) {
        let items = self.ask(json!({"relay-verify": {"relay": name}})).await;
        let said = items
            .iter()
            .filter_map(|it| it["dialogue"]["text"].as_str());
        let said = said.collect::<Vec<_>>().join("\n");
        (said, items.last().unwrap()["relay-test"].clone())
    }

    /// `penstock relay confirm TOKEN`; the error's kind and words when it is refused.
    async fn confirm(&self, token: &str) -> Result<Value, (String, String)> {
        let request = json!({"relay-confirm": {"token": token}});
        let word = |it: &Value| it.as_str().unwrap().to_owned();
        match self.try_ask(&request).await {
            Ok(items) => Ok(items[0]["verified"].clone()),
            Err(error) => Err((word(&error["kind"]), word(&error["message"]))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn until_it_is_confirmed_the_default_relay_stands_in_visibly_and_then_no_more() {
    let default = FakeRelay::default().start().await;
    let own = FakeRelay::default().start().await;
    let penstock = Harness::start(&config(&default, &own), JAN).await;
    let token = received(&own, 1).await;

    let status = penstock.until_verification("own", "sent").await;
    assert_eq!(status["state"], "unverified");
    let told = status["reason"].as_str().unwrap();
    assert!(
        told.contains("left for mailer@uwdomein.nl") && told.contains("nobody has confirmed it"),
        "{told}"
    );
    let id = penstock
        .submit("jan@uwdomein.nl", &["bob@example.net"], "before")
        .await
        .expect_code(250)
        .queue_id();
    penstock.until_idle().await;
    assert_eq!(default.received(1, LONG).await.len(), 1);
    assert_eq!(own.count(), 1, "nothing but the test message");
    let traced = penstock.ask(json!({"trace": {"id": id}})).await;
    let traced = traced[0]["event"]["text"].as_str().unwrap();
    assert!(
        traced.contains("default-relay, because own is not verified"),
        "{traced}"
    );
    let route = penstock
        .ask(json!({"route": {"address": "jan@uwdomein.nl"}}))
        .await;
    assert_eq!(route[0]["route"]["relay"], "default");

    let confirmed = penstock.confirm(&token.to_uppercase()).await.unwrap();
    assert_eq!(confirmed["relay"], "own");
    let status = penstock.relay("own").await;
    assert_eq!(status["state"], "active");
    assert_eq!(status["verification"]["state"], "confirmed");
    penstock
        .submit("jan@uwdomein.nl", &["bob@example.net"], "after")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    assert_eq!(
        own.received(2, LONG).await[1].forward_paths(),
        ["bob@example.net"]
    );
    assert_eq!(default.count(), 1);
    let used = penstock.confirm(&token).await.unwrap_err();
    assert_eq!(used.0, "failed");
    assert!(used.1.contains("own is confirmed already"), "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn without_an_active_default_relay_mail_waits_and_says_why_until_the_moment_of_confirmation()
{
    let own = FakeRelay::default().start().await;
    let config = format!("default-relay = \"own\"\n{}", relay("own", &own, OWN));
    let penstock = Harness::start(&config, "").await;
    let token = received(&own, 1).await;
    for subject in ["one", "two"] {
        penstock
            .submit("jan@uwdomein.nl", &["bob@example.net"], subject)
            .await
            .expect_code(250);
    }
    // Its own address submits, too: it is no test message because of that.
    penstock
        .submit(
            "mailer@uwdomein.nl",
            &["mailer@uwdomein.nl"],
            "verification",
        )
        .await
        .expect_code(250);
    let queue = penstock.queue().await;
    assert_eq!(queue.len(), 3, "{queue:#?}");
    for row in &queue {
        assert_eq!(row["why"], "relay-unverified", "{row}");
        let text = row["why_text"].as_str().unwrap();
        assert!(text.contains("nobody has confirmed it"), "{text}");
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(own.count(), 1, "nothing but the test message");
    assert!(
        penstock.status().await["problems"][0]
            .as_str()
            .unwrap()
            .contains("relay own is unverified, 3 messages wait for it")
    );

    let before = tokio::time::Instant::now();
    penstock.confirm(&token).await.unwrap();
    own.received(4, LONG).await;
    assert!(before.elapsed() < Duration::from_secs(1), "virtual time");
}

#[tokio::test(start_paused = true)]
async fn mail_that_waits_at_the_stand_in_goes_to_its_own_relay_once_that_is_confirmed() {
    let default = FakeRelay::default()
        .answering("MAIL FROM:<jan", "451 4.3.0 later")
        .start()
        .await;
    let own = FakeRelay::default().start().await;
    let penstock = Harness::start(&config(&default, &own), JAN).await;
    let token = received(&own, 1).await;
    penstock
        .submit("jan@uwdomein.nl", &["bob@example.net"], "patient")
        .await
        .expect_code(250);
    penstock
        .until("it was tried", |queue| queue[0]["state"] == "deferred")
        .await;
    penstock.confirm(&token).await.unwrap();
    penstock.until_idle().await;
    assert_eq!(own.count(), 2);
    assert_eq!(default.accepted().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_test_message_shows_the_servers_words_and_never_the_password() {
    let default = FakeRelay::default().start().await;
    let own = FakeRelay::default()
        .answering("AUTH", "535 5.7.8 Wrong: mailer secretpassword")
        .start()
        .await;
    let penstock = Harness::start(&config(&default, &own), JAN).await;
    own.commanded("AUTH", 1, LONG).await;
    let (said, report) = penstock.verify("own").await;
    assert_eq!(report["ok"], false);
    assert_eq!(report["stage"], "auth");
    assert!(said.contains("AUTH PLAIN ***"), "{said}");
    assert!(said.contains("535 5.7.8 Wrong: mailer ***"), "{said}");
    let status = penstock.relay("own").await;
    assert_eq!(status["state"], "unverified");
    assert_eq!(status["verification"]["state"], "failed");
    let reason = status["reason"].as_str().unwrap();
    assert!(
        reason.contains("failed at auth: 535 5.7.8 Wrong"),
        "{reason}"
    );
    let all = format!("{status} {} {report}", penstock.status().await);
    assert!(all.contains("AUTH PLAIN ***"), "{all}");
    for secret in ["secretpassword", "AG1haWxlcgBzZWNyZXRwYXNzd29yZA"] {
        assert!(!all.contains(secret) && !said.contains(secret), "{all}");
    }
    // The mistake is mended: it goes at once, and needs no pause.
    own.mend();
    let (_, report) = penstock.verify("own").await;
    assert_eq!(report["ok"], true, "{report}");
    penstock.confirm(&received(&own, 1).await).await.unwrap();
    assert_eq!(penstock.relay("own").await["state"], "active");
}

#[tokio::test(start_paused = true)]
async fn a_test_message_that_is_refused_for_good_can_be_sent_again_at_once() {
    let default = FakeRelay::default().start().await;
    let own = FakeRelay::default()
        .answering_once("RCPT", "550 5.7.1 Unable to relay")
        .start()
        .await;
    let penstock = Harness::start(&config(&default, &own), JAN).await;
    let status = penstock.until_verification("own", "failed").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(
        reason.contains("failed at recipient: 550 5.7.1 Unable to relay"),
        "{reason}"
    );
    assert_eq!(default.count(), 0, "nobody gets a report of it");
    let (_, report) = penstock.verify("own").await;
    assert_eq!(report["ok"], true, "{report}");
    let again = penstock
        .try_ask(&json!({"relay-verify": {"relay": "own"}}))
        .await
        .unwrap_err();
    assert_eq!(again["kind"], "try-again");
    let words = again["message"].as_str().unwrap();
    assert!(
        words.contains("the next one may go in 5 min") && words.contains("5 min between two"),
        "{words}"
    );
    tokio::time::sleep(Duration::from_secs(301)).await;
    let (_, report) = penstock.verify("own").await;
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(own.accepted().len(), 2);
    // Mails overtake one another: the first token is as good as the second.
    let first = token(&own.accepted()[0].text());
    penstock.confirm(&first).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_once_for_a_week_and_for_the_relay_as_it_was() {
    let default = FakeRelay::default().start().await;
    let own = FakeRelay::default().start().await;
    let other = FakeRelay::default().start().await;
    let penstock = Harness::start(&config(&default, &own), JAN).await;
    let first = received(&own, 1).await;
    let (kind, words) = penstock.confirm(&"0".repeat(40)).await.unwrap_err();
    assert_eq!(kind, "not-found");
    assert!(words.contains("not known"), "{words}");
    assert_eq!(penstock.confirm("junk").await.unwrap_err(), (kind, words));

    tokio::time::sleep(Duration::from_secs(7 * 24 * 3600)).await;
    let (_, words) = penstock.confirm(&first).await.unwrap_err();
    assert!(words.contains("expired"), "{words}");
    let (_, report) = penstock.verify("own").await;
    assert_eq!(report["ok"], true);
    let second = received(&own, 2).await;

    penstock.configure(&config(&default, &other), JAN);
    penstock.ask(json!({"reload": {}})).await;
    let third = received(&other, 1).await;
    let (_, words) = penstock.confirm(&second).await.unwrap_err();
    assert!(words.contains("was changed after"), "{words}");
    assert_eq!(penstock.relay("own").await["state"], "unverified");
    penstock.confirm(&third).await.unwrap();
    assert_eq!(penstock.relay("own").await["state"], "active");
}

#[tokio::test(start_paused = true)]
async fn a_changed_server_closes_a_confirmed_relay_before_anything_goes_there() {
    let own = FakeRelay::default().start().await;
    let other = FakeRelay::default().start().await;
    let with = |it: &Relay| format!("default-relay = \"own\"\n{}", relay("own", it, OWN));
    let penstock = Harness::start(&with(&own), "").await;
    penstock.confirm(&received(&own, 1).await).await.unwrap();
    penstock.configure(&with(&other), "");
    penstock.ask(json!({"reload": {}})).await;
    let token = received(&other, 1).await;
    penstock
        .submit("jan@uwdomein.nl", &["bob@example.net"], "waits")
        .await
        .expect_code(250);
    let reason = penstock.relay("own").await["reason"].clone();
    let reason = reason.as_str().unwrap();
    assert!(
        reason.contains("the server changed from") && reason.contains("must be confirmed again"),
        "{reason}"
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(other.count(), 1);
    penstock.confirm(&token).await.unwrap();
    penstock.until_idle().await;
    assert_eq!(other.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_outlives_restarts_and_the_index() {
    let default = FakeRelay::default().start().await;
    let own = FakeRelay::default().start().await;
    let mut penstock = Harness::start(&config(&default, &own), JAN).await;
    let token = received(&own, 1).await;
    penstock.stop().await;
    penstock.run().await;
    assert_eq!(penstock.relay("own").await["state"], "unverified");
    penstock.confirm(&token).await.unwrap();
    penstock.stop().await;
    std::fs::remove_dir_all(penstock.path("state/index")).unwrap();
    penstock.run().await;
    assert_eq!(penstock.relay("own").await["state"], "active");
    penstock
        .submit("jan@uwdomein.nl", &["bob@example.net"], "after")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    assert_eq!(own.count(), 2, "one test message, one of jan's");
    assert_eq!(default.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_test_message_cannot_be_sent_through_another_relay() {
    let default = FakeRelay::default().start().await;
    let own = FakeRelay::default()
        .answering("MAIL", "451 4.3.0 later")
        .start()
        .await;
    let penstock = Harness::start(&config(&default, &own), JAN).await;
    penstock
        .until("it was tried", |queue| {
            queue.first().is_some_and(|it| it["state"] == "deferred")
        })
        .await;
    let change = json!({"change": {"action": {"reroute": {"to": "default"}}, "all": true}});
    let report = penstock.ask(change).await;
    assert_eq!(report[0]["change"]["messages"], 0);
    assert_eq!(report[0]["change"]["unchanged"], 1);
    assert_eq!(default.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_needs_no_verification_says_so() {
    let own = FakeRelay::default().start().await;
    let penstock = Harness::relaying_to(&own, "").await;
    let request = json!({"relay-verify": {"relay": "out"}});
    let error = penstock.try_ask(&request).await.unwrap_err();
    assert!(error["message"].as_str().unwrap().contains("verify = true"));
    assert_eq!(penstock.relay("out").await["verification"], Value::Null);
    assert_eq!(own.count(), 0);
}
