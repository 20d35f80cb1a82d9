//! One refusal of each class against the daemon as it is: what it does about it is what
//! the rules say, no trouble of a relay ends a message, and one poisonous message stops
//! nobody else's.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Harness;
use crate::relay::{Answer, FakeRelay};

/// What is to become of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The relay is paused, for this reason; the message waits and leaves later.
    Paused,
    /// The message is tried again.
    Retried,
    /// The message is held, its sender hears nothing.
    Held,
    /// The sender gets a report.
    Failed,
}

/// Class, where in the dialogue, what the relay says there, what becomes of the message.
fn refusals() -> Vec<(&'static str, &'static str, Answer, Then)> {
    use Then::{Failed, Held, Paused, Retried};
    let reply = |text: &str| Answer::from(text);
    vec![
        (
            "not-logged-in",
            "AUTH",
            reply("535 5.7.8 Error: authentication failed"),
            Paused,
        ),
        (
            "account-suspended",
            "MAIL",
            reply("550 5.7.501 Access denied, spam abuse detected."),
            Paused,
        ),
        (
            "sender-not-allowed",
            ".",
            reply("550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
            Held,
        ),
        (
            "relaying-denied",
            "RCPT TO:<bob",
            reply("553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
            Held,
        ),
        (
            "recipient-unknown",
            "RCPT TO:<bob",
            reply("550 5.1.1 The email account that you tried to reach does not exist."),
            Failed,
        ),
        (
            "recipient-refuses",
            "RCPT TO:<bob",
            reply("554 5.7.1 bob@example.net: Sender address rejected: Blocked by this recipient"),
            Failed,
        ),
        (
            "mailbox-full",
            "RCPT TO:<bob",
            reply("552 5.2.2 The email account that you tried to reach is over quota."),
            Failed,
        ),
        (
            "relay-quota",
            "MAIL",
            reply("550 5.4.5 Daily sending quota exceeded"),
            Paused,
        ),
        (
            "rate",
            ".",
            reply("454 Throttling failure: Maximum sending rate exceeded"),
            Paused,
        ),
        (
            "too-large",
            "MAIL FROM:<jan",
            reply("552 5.3.4 Message size exceeds fixed limit"),
            Failed,
        ),
        (
            "too-many-recipients",
            "RCPT TO:<bob",
            reply("452 4.5.3 Too many recipients"),
            Retried,
        ),
        ("spam", ".", reply("550 High probability of spam"), Failed),
        (
            "blacklisted",
            "RCPT",
            reply(
                "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using bl.example.org",
            ),
            Paused,
        ),
        (
            "policy",
            ".",
            reply("550 5.7.26 Your email has been blocked because the sender is unauthenticated."),
            Failed,
        ),
        (
            "content",
            ".",
            reply("552 5.7.0 Our system detected an illegal attachment on your message."),
            Failed,
        ),
        (
            "tls",
            "MAIL",
            reply("530 5.7.0 Must issue a STARTTLS command first"),
            Paused,
        ),
        ("unreachable", "connect", Answer::Close, Paused),
        (
            "temporary",
            "RCPT TO:<bob",
            reply("450 4.2.0 <bob@example.net>: Recipient address rejected: Greylisted"),
            Retried,
        ),
        ("loop", ".", reply("554 Too many Received: headers"), Failed),
        (
            "protocol",
            "MAIL",
            reply("502 Unimplemented command"),
            Paused,
        ),
        ("refused", ".", reply("554 No."), Failed),
    ]
}

#[tokio::test(start_paused = true)]
async fn one_refusal_of_each_class_has_the_action_that_its_rule_names() {
    let mut classes: Vec<&str> = refusals().iter().map(|it| it.0).collect();
    let mut all: Vec<&str> = penstock::outcome::Class::ALL.map(|it| it.name()).to_vec();
    classes.sort_unstable();
    all.sort_unstable();
    assert_eq!(classes, all, "one of each class");

    for (class, at, answer, then) in refusals() {
        let what = format!("{class} at {at}");
        let out = FakeRelay::default().without("CHUNKING").start().await;
        // Only the first message meets it: the report about it shall arrive.
        out.answer(at, then_times(then), answer);
        let penstock = Harness::relaying_to(
            &out,
            "login = \"user secret\"\n[retry]\nexpire-after = \"2h\"\nwarn-after = \"1h\"",
        )
        .await;
        let id = penstock
            .submit("jan@example.org", &["bob@example.net"], "hello")
            .await
            .expect_code(250)
            .queue_id();
        match then {
            Then::Failed => {
                penstock.until_idle().await;
                let all = out.accepted();
                assert_eq!(all.len(), 1, "{what}");
                assert_eq!(all[0].reverse_path(), "", "{what}");
                assert_eq!(all[0].forward_paths(), ["jan@example.org"], "{what}");
                let relay = relay(&penstock).await;
                assert_eq!(relay["state"], "active", "{what}: {relay}");
            }
            Then::Held => {
                penstock
                    .until(&what, |queue| {
                        queue.len() == 1 && queue[0]["state"] == "held"
                    })
                    .await;
                assert_eq!(out.accepted().len(), 0, "{what}");
                assert_eq!(relay(&penstock).await["state"], "active", "{what}");
                shown(&penstock, &id, class).await;
                out.mend();
                let release = json!({"change": {"action": "release", "all": true}});
                penstock.ask(release).await;
                penstock.until_idle().await;
                let taken = out.accepted();
                assert_eq!(taken.len(), 1, "{what}");
                assert_eq!(taken[0].forward_paths(), ["bob@example.net"], "{what}");
            }
            Then::Retried => {
                penstock
                    .until(&what, |queue| {
                        queue.len() == 1 && queue[0]["state"] == "deferred"
                    })
                    .await;
                assert_eq!(relay(&penstock).await["state"], "active", "{what}");
                shown(&penstock, &id, class).await;
                out.mend();
                penstock.until_idle().await;
                let taken = out.accepted();
                assert_eq!(taken.len(), 1, "{what}");
                assert_eq!(taken[0].forward_paths(), ["bob@example.net"], "{what}");
            }
            Then::Paused => {
                penstock
                    .until(&what, |queue| {
                        queue.len() == 1 && queue[0]["why"] == "relay-paused"
                    })
                    .await;
                shown(&penstock, &id, class).await;
                // Far beyond expire-after: nobody gets a report of failure.
                tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
                let queue = penstock.queue().await;
                assert!(queue.iter().any(|it| it["id"] == *id), "{what}: {queue:?}");
                for sent in out.accepted() {
                    assert!(!sent.text().contains("Action: failed"), "{what}");
                }
                out.mend();
                penstock
                    .ask(json!({"relay-resume": {"relay": "out"}}))
                    .await;
                penstock.until_idle().await;
                let delivered = out.accepted();
                let found = delivered
                    .iter()
                    .filter(|it| it.forward_paths() == ["bob@example.net"]);
                assert_eq!(found.count(), 1, "{what}");
            }
        }
    }
}

/// How often the relay says it: for good where the message shall stay, once where a
/// report follows.
fn then_times(then: Then) -> Option<usize> {
    match then {
        Then::Failed => Some(1),
        Then::Paused | Then::Retried | Then::Held => None,
    }
}

async fn relay(penstock: &Harness) -> Value {
    let found = penstock.ask(json!({"relay-list": {"relay": "out"}})).await;
    found[0]["relay"].clone()
}

/// `penstock show` names the class and a remedy.
async fn shown(penstock: &Harness, id: &str, class: &str) {
    let found = penstock.ask(json!({"show": {"id": id}})).await;
    let said = &found[0]["detail"]["recipient_list"][0]["said"];
    assert_eq!(said["class"], class, "{said}");
    assert!(
        said["remedy"].as_str().is_some_and(|it| it.len() > 10),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_poisonous_message_does_not_pause_a_relay_and_three_senders_do() {
    let out = FakeRelay::default()
        .without("CHUNKING")
        .answering(
            "MAIL FROM:<poison",
            "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        )
        .start()
        .await;
    let penstock = Harness::relaying_to(&out, "").await;
    // One sender, many messages, many recipients.
    for number in 0..6 {
        let to = format!("bob{number}@example.net");
        penstock
            .submit("poison@example.org", &[&to], "refused")
            .await
            .expect_code(250);
    }
    penstock
        .until("all are held", |queue| {
            queue.len() == 6 && queue.iter().all(|it| it["state"] == "held")
        })
        .await;
    assert_eq!(relay(&penstock).await["state"], "active");
    penstock
        .submit("jan@example.org", &["bob@example.net"], "fine")
        .await
        .expect_code(250);
    penstock
        .until("jan's is out", |queue| queue.len() == 6)
        .await;
    let taken = out.accepted();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].reverse_path(), "jan@example.org");

    // Three different senders and three different recipients, no success between.
    for number in 0..3 {
        let from = format!("poison{number}@example.org");
        let to = format!("carl{number}@example.net");
        penstock
            .submit(&from, &[&to], "refused")
            .await
            .expect_code(250);
    }
    let mut asked = 0;
    while relay(&penstock).await["state"] != "paused" {
        asked += 1;
        assert!(asked < 1_000, "{}", relay(&penstock).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_relay_says_to_everybody_bounces_nobodys_mail() {
    for (at, words) in [
        ("MAIL", "501 5.5.4 Syntax error in parameters or arguments"),
        ("MAIL", "500 5.5.1 Command unrecognized"),
        ("MAIL", "503 bad sequence"),
        ("MAIL", "554 5.3.0 no"),
        ("RCPT", "554 5.3.2 System not accepting network messages"),
        ("DATA", "502 5.5.1 Error"),
        (".", "554 5.3.5 system incorrectly configured"),
        (".", "500 5.5.2 what?"),
    ] {
        let what = format!("{words} at {at}");
        let out = FakeRelay::default().without("CHUNKING").start().await;
        out.answer(at, None, Answer::from(words));
        let penstock =
            Harness::relaying_to(&out, "[retry]\nexpire-after = \"2h\"\nwarn-after = \"90m\"")
                .await;
        for number in 0..12 {
            let from = format!("jan{number}@example.org");
            let to = format!("bob{number}@example.net");
            penstock
                .submit(&from, &[&to], "hello")
                .await
                .expect_code(250);
        }
        tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
        let queue = penstock.queue().await;
        let waiting = queue.iter().filter(|it| it["state"] != "held").count();
        assert!(waiting >= 12, "{what}: {queue:?}");
        assert_eq!(relay(&penstock).await["state"], "paused", "{what}");
        out.mend();
        penstock
            .ask(json!({"relay-resume": {"relay": "out"}}))
            .await;
        penstock.until_idle().await;
        let taken = out.accepted();
        let failed = taken.iter().find(|it| it.text().contains("Action: failed"));
        assert!(failed.is_none(), "{what}: {}", failed.unwrap().text());
        let to = |it: &&_| transaction_to(it).starts_with("bob");
        assert_eq!(taken.iter().filter(to).count(), 12, "{what}");
    }
}

fn transaction_to(transaction: &crate::relay::Transaction) -> String {
    transaction.forward_paths().concat()
}
