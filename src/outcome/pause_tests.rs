//! A relay in trouble, and out of it again.

use std::time::Duration;

use jiff::Timestamp;

use super::pause::*;
use super::policy::Policy;
use super::rules::Rules;
use super::settle::settle;
use super::spells::{between, later};
use super::testing::*;
use crate::mail::{Envelope, QueueId, ReversePath, Stage, State};
use crate::relay::{Delivery, RelayError};

fn learn(health: &mut Health, envelope: &Envelope, delivery: &Delivery, now: Timestamp) -> Change {
    let policy = Policy {
        retry: &RETRY,
        rules: Rules::compiled_in(),
        health,
    };
    let settlement = settle(envelope, delivery, &policy, now, 0.5);
    health.learn(&settlement, &RETRY, now, 0.5)
}

fn no_connection(now: Timestamp) -> Delivery {
    delivery(
        now,
        vec![Err(RelayError::Connect {
            server: "mx".into(),
            detail: "refused".into(),
        })],
    )
}

#[test]
fn trouble_pauses_once_and_probes_come_later_and_later() {
    let message = envelope(&["a@example.org"]);
    let mut health = Health::default();
    assert_eq!(
        learn(&mut health, &message, &no_connection(at(0)), at(0)),
        Change::Paused
    );
    // What was under way at the same time is no probe.
    assert_eq!(
        learn(&mut health, &message, &no_connection(at(0)), at(0)),
        Change::None
    );
    let mut probes = Vec::new();
    let mut now = at(0);
    for _ in 0..7 {
        now = health.wake_at().unwrap();
        assert!(health.probe_due(now));
        probes.push((now.as_second() - at(0).as_second()) / 60);
        assert_eq!(
            learn(&mut health, &message, &no_connection(now), now),
            Change::Postponed
        );
    }
    assert_eq!(probes, [1, 3, 7, 15, 31, 63, 123]);
    let pause = health.pause().unwrap();
    assert_eq!(
        (pause.since, pause.probes, pause.stage.as_str()),
        (at(0), 7, "connect")
    );
    let early = delivery(now, vec![taken()]);
    assert_eq!(learn(&mut health, &message, &early, now), Change::None);
    let now = health.wake_at().unwrap();
    let taken = delivery(now, vec![taken()]);
    assert_eq!(learn(&mut health, &message, &taken, now), Change::Resumed);
    assert!(health.is_well());
    assert_eq!(health.paused_between(at(-10), at(500)), between(at(0), now));
}

#[test]
fn a_refusal_past_the_trouble_proves_that_it_is_over() {
    let mut health = Health::default();
    let message = envelope(&["a@example.org"]);
    let auth = delivery(at(0), vec![refused(Stage::Auth, "535 5.7.8 no")]);
    assert_eq!(learn(&mut health, &message, &auth, at(0)), Change::Paused);
    let unknown = delivery(at(2), vec![refused(Stage::Recipient, "550 5.1.1 unknown")]);
    assert_eq!(
        learn(&mut health, &message, &unknown, at(2)),
        Change::Resumed
    );
}

#[test]
fn a_relay_that_wants_breaks_again_and_again_gets_longer_ones() {
    let message = envelope(&["a@example.org"]);
    let busy = |now| {
        delivery(
            now,
            vec![refused(Stage::Greeting, "421 too many connections")],
        )
    };
    let mut health = Health::default();
    let mut now = at(0);
    let mut minutes = Vec::new();
    for _ in 0..4 {
        assert_eq!(
            learn(&mut health, &message, &busy(now), now),
            Change::Paused
        );
        assert_eq!(health.pause().unwrap().cause, Cause::Rate);
        // Other connections go on delivering: that does not end the break.
        let taken = delivery(now, vec![taken()]);
        assert_eq!(learn(&mut health, &message, &taken, now), Change::None);
        let wake = health.wake_at().unwrap();
        minutes.push((wake.as_second() - now.as_second()) / 60);
        now = wake;
        health.probing(later(now, Duration::from_secs(600)));
        assert!(!health.probe_due(now), "one probe at a time");
        assert_eq!(learn(&mut health, &message, &taken, now), Change::Resumed);
    }
    assert_eq!(minutes, [1, 2, 3, 4]);
    now = at(600);
    learn(&mut health, &message, &busy(now), now);
    assert_eq!(health.wake_at(), Some(at(601)), "all is forgiven");
}

#[test]
fn a_command_that_is_not_understood_pauses_the_relay_and_one_message_alone_does_not() {
    let syntax = |now| {
        delivery(
            now,
            vec![refused(Stage::Mail, "501 5.5.4 Syntax error in parameters")],
        )
    };
    let mut health = Health::default();
    let mut odd = from("odd@x.nl", "1@y.nl");
    odd.id = QueueId::from_number((1 << 60) + 1);
    assert_eq!(
        learn(&mut health, &odd, &syntax(at(0)), at(0)),
        Change::Paused
    );
    // Said to everybody, it goes on for as long as it may.
    let mut now = at(0);
    for days in 0..9 {
        let other = from(&format!("{days}@x.nl"), "2@y.nl");
        now = now.max(at(1440 * days)).max(health.wake_at().unwrap());
        let change = learn(&mut health, &other, &syntax(now), now);
        assert_eq!(change, Change::Postponed);
    }
    now = health.wake_at().unwrap();
    let fine = from("fine@x.nl", "3@y.nl");
    let taken = delivery(now, vec![taken()]);
    assert_eq!(learn(&mut health, &fine, &taken, now), Change::Resumed);
    // Others got through: now it is this message's own.
    let now = later(now, Duration::from_secs(60));
    assert_eq!(learn(&mut health, &odd, &syntax(now), now), Change::None);
    assert!(health.is_well());
}

fn from(sender: &str, recipient: &str) -> Envelope {
    let mut message = envelope(&[recipient]);
    message.from = crate::mail::Mailbox::parse(sender).unwrap();
    message
}

#[test]
fn three_senders_and_three_recipients_prove_that_relaying_is_denied() {
    let denied = || {
        delivery(
            at(0),
            vec![refused(Stage::Recipient, "550 5.7.1 Unable to relay")],
        )
    };
    let mut health = Health::default();
    for (sender, recipient) in [
        ("a@x.nl", "1@y.nl"),
        ("a@x.nl", "2@y.nl"),
        ("a@x.nl", "3@y.nl"),
        ("b@x.nl", "3@y.nl"),
        ("B@x.nl", "4@y.nl"),
    ] {
        assert_eq!(
            learn(&mut health, &from(sender, recipient), &denied(), at(0)),
            Change::None
        );
    }
    let mut proven = health.clone();
    assert_eq!(
        learn(&mut proven, &from("c@x.nl", "1@y.nl"), &denied(), at(0)),
        Change::Paused
    );
    // One success between, and the count begins again.
    learn(
        &mut health,
        &envelope(&["z@y.nl"]),
        &delivery(at(0), vec![taken()]),
        at(0),
    );
    assert_eq!(
        learn(&mut health, &from("c@x.nl", "1@y.nl"), &denied(), at(0)),
        Change::None
    );
}

#[test]
fn a_refused_report_never_pauses_anything() {
    let mut health = Health::default();
    for number in 0..9 {
        for words in ["550 5.7.1 Unable to relay", "550 5.7.13 account disabled"] {
            let mut message = from(&format!("a{number}@x.nl"), &format!("{number}@y.nl"));
            message.reverse_path = ReversePath::Null;
            let denied = delivery(at(0), vec![refused(Stage::Mail, words)]);
            assert_eq!(learn(&mut health, &message, &denied, at(0)), Change::None);
        }
    }
    assert!(health.is_well());
}

#[test]
fn what_an_administrator_paused_only_an_administrator_resumes() {
    let mut health = Health::default();
    let message = envelope(&["a@example.org"]);
    assert_eq!(
        health.pause_by("anna", "maintenance", at(0)),
        Change::Paused
    );
    let taken = delivery(at(1), vec![taken()]);
    assert_eq!(learn(&mut health, &message, &taken, at(1)), Change::None);
    assert_eq!(
        learn(&mut health, &message, &no_connection(at(1)), at(1)),
        Change::None
    );
    assert_eq!(
        (health.wake_at(), health.probe_due(at(9_999))),
        (None, false)
    );
    assert_eq!(health.resume(at(3)), Change::Resumed);
    assert_eq!(health.resume(at(3)), Change::None);
    assert_eq!(health.paused_between(at(1), at(2)), Duration::from_secs(60));
}

/// Settles one message after the other at one relay, each a minute later.
struct Relay {
    health: Health,
    now: Timestamp,
}

impl Relay {
    fn answers(&mut self, message: &mut Envelope, results: Vec<Answer>) -> Change {
        self.now =
            later(self.now, Duration::from_secs(60)).max(self.health.wake_at().unwrap_or_default());
        let policy = Policy {
            retry: &RETRY,
            rules: Rules::compiled_in(),
            health: &self.health,
        };
        let settlement = settle(
            message,
            &delivery(self.now, results),
            &policy,
            self.now,
            0.5,
        );
        *message = settlement.envelope.clone();
        self.health.learn(&settlement, &RETRY, self.now, 0.5)
    }

    fn of(number: u64, sender: &str) -> Envelope {
        let mut message = from(sender, "x@y.nl");
        message.id = QueueId::from_number((1 << 60) + number);
        message
    }
}

type Answer = Result<crate::smtp::Reply, RelayError>;

fn quota() -> Vec<Answer> {
    vec![refused(
        Stage::Recipient,
        "451 4.7.1 Recipient rate limit exceeded",
    )]
}

fn not_before(message: &Envelope) -> Option<Timestamp> {
    match message.state {
        State::Waiting { not_before } => not_before,
        State::Held(_) => None,
    }
}

#[test]
fn one_poison_message_pauses_a_relay_once_and_is_never_the_next_probe() {
    let mut relay = Relay {
        health: Health::default(),
        now: at(0),
    };
    let mut poison = Relay::of(1, "a@x.nl");
    assert_eq!(relay.answers(&mut poison, quota()), Change::Paused);
    let probe = relay.health.wake_at().unwrap();
    assert!(
        not_before(&poison).unwrap() > probe,
        "another message goes first"
    );
    assert_eq!(
        poison.first_failure, None,
        "the relay is believed the first time"
    );
    let mut good = Relay::of(2, "a@x.nl");
    assert_eq!(relay.answers(&mut good, vec![taken()]), Change::Resumed);
    assert_eq!(relay.health.call_back(), [poison.id]);
    assert_eq!(relay.health.call_back(), [], "once");
    // The second time it is the message's own, and counts.
    assert_eq!(relay.answers(&mut poison, quota()), Change::None);
    assert!(relay.health.is_well());
    assert_eq!(poison.first_failure, Some(relay.now));
    assert!(not_before(&poison).is_some());
}

#[test]
fn a_mailing_of_poison_pauses_a_relay_once_while_others_get_through() {
    let mut relay = Relay {
        health: Health::default(),
        now: at(0),
    };
    let spam = || vec![refused(Stage::FinalDot, "554 5.7.1 sender ip reputation")];
    assert_eq!(
        relay.answers(&mut Relay::of(1, "a@x.nl"), spam()),
        Change::Paused
    );
    assert_eq!(
        relay.answers(&mut Relay::of(2, "b@x.nl"), vec![taken()]),
        Change::Resumed
    );
    for number in 3..20 {
        let mut next = Relay::of(number, "a@x.nl");
        assert_eq!(relay.answers(&mut next, spam()), Change::None);
        assert!(next.first_failure.is_some() && !next.is_finished());
    }
    // Their first success makes them like everybody.
    relay.answers(&mut Relay::of(20, "a@x.nl"), vec![taken()]);
    assert_eq!(
        relay.answers(&mut Relay::of(21, "a@x.nl"), spam()),
        Change::Paused
    );
}

#[test]
fn while_nobody_gets_through_it_is_the_relay_and_no_mail_fails_for_it() {
    let mut relay = Relay {
        health: Health::default(),
        now: at(0),
    };
    let mut messages: Vec<_> = (1..4).map(|it| Relay::of(it, "a@x.nl")).collect();
    for round in 0..200 {
        let disabled = vec![refused(Stage::Mail, "550 5.7.13 account disabled")];
        let message = &mut messages[round % 3];
        relay.answers(message, disabled);
        assert_eq!(
            (message.first_failure, message.is_finished()),
            (None, false)
        );
        assert!(!relay.health.is_well());
    }
    let mut back = relay.health.call_back();
    back.sort();
    assert_eq!(back, messages.iter().map(|it| it.id).collect::<Vec<_>>());
}

#[test]
fn a_recipient_that_is_refused_beside_one_that_is_taken_pauses_nothing() {
    let mut relay = Relay {
        health: Health::default(),
        now: at(0),
    };
    let mut message = envelope(&["a@x.nl", "b@x.nl"]);
    let mut answers = quota();
    answers.push(taken());
    assert_eq!(relay.answers(&mut message, answers), Change::None);
    assert_eq!(message.first_failure, Some(relay.now));
}

#[test]
fn a_clock_set_back_does_not_stretch_a_pause() {
    let mut health = Health::default();
    learn(
        &mut health,
        &envelope(&["a@example.org"]),
        &no_connection(at(0)),
        at(0),
    );
    health.clock_went_back(RETRY.max, at(-30));
    assert_eq!(
        health.wake_at(),
        Some(at(1)),
        "within an hour it may be meant so"
    );
    health.clock_went_back(RETRY.max, at(-10_000));
    assert!(health.probe_due(at(-10_000)));
}

#[test]
fn a_pause_that_was_renewed_still_counts_as_late() {
    let mut health = Health::default();
    health.pause_by("anna", "", at(0));
    health.resume(at(200));
    let within = Duration::from_secs(4 * 3600);
    assert!(health.paused_lately(within, at(300)));
    assert!(!health.paused_lately(within, at(500)));
    health.pause_by("anna", "", at(600));
    assert!(health.paused_lately(within, at(601)));
}

#[test]
fn when_a_message_is_given_up_moves_on_with_every_pause() {
    let mut health = Health::default();
    let mut message = envelope(&["a@example.org"]);
    assert_eq!(health.gives_up(&message, &RETRY, at(0)), None);
    message.first_failure = Some(at(0));
    let four_days = 4 * 1440;
    assert_eq!(
        health.gives_up(&message, &RETRY, at(9)),
        Some(at(four_days))
    );
    health.pause_by("anna", "", at(10));
    // Nobody knows how long it takes, and none of it counts.
    assert_eq!(health.gives_up(&message, &RETRY, at(20)), None);
    health.resume(at(100));
    assert_eq!(
        health.gives_up(&message, &RETRY, at(200)),
        Some(at(four_days + 90))
    );
    let almost = at(four_days + 89);
    assert!(health.tried_for(&message, almost) < RETRY.expire_after);
    assert!(health.tried_for(&message, at(four_days + 90)) >= RETRY.expire_after);
}

#[test]
fn mail_takes_along_that_its_old_relay_was_paused() {
    let mut health = Health::default();
    health.pause_by("anna", "", at(10));
    health.resume(at(9_000));
    let mut message = envelope(&["a@example.org"]);
    message.first_failure = Some(at(0));
    message.attempts = 9;
    assert_eq!(health.without_pauses(at(0), at(9_010)), at(8_990));
    message.first_failure = Some(health.without_pauses(at(0), at(9_010)));
    let elsewhere = Health::default().tried_for(&message, at(9_010));
    assert_eq!(
        elsewhere,
        health.tried_for(
            &Envelope {
                first_failure: Some(at(0)),
                ..message
            },
            at(9_010)
        )
    );
}

#[test]
fn the_state_reads_back_and_garbage_is_health() {
    let mut health = Health::default();
    learn(
        &mut health,
        &envelope(&["a@example.org"]),
        &no_connection(at(0)),
        at(0),
    );
    assert_eq!(Health::from_value(&health.to_value(), at(9)), health);
    assert_eq!(
        Health::from_value(&serde_json::json!([1, 2]), at(9)),
        Health::default()
    );
}

#[test]
fn whoever_paused_a_relay_by_hand_finds_it_paused_although_the_rest_cannot_be_read() {
    let mut health = Health::default();
    health.pause_by("anna", "the invoices are wrong", at(0));
    let mut value = health.to_value();
    value["past"] = serde_json::json!("garbage");
    let read = Health::from_value(&value, at(9));
    let pause = read.pause().unwrap();
    assert_eq!(pause.cause, Cause::Administrator);
    assert_eq!(
        (pause.by.as_str(), pause.words.as_str()),
        ("anna", "the invoices are wrong")
    );
    value["pause"]["cause"] = serde_json::json!("trouble");
    assert_eq!(Health::from_value(&value, at(9)), Health::default());
}
