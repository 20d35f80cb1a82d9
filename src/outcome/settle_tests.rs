//! The promises of [`settle`](super::settle), each kept by a test.

use std::time::Duration;

use proptest::prelude::*;

use super::pause::Health;
use super::report::ReportKind;
use super::rules::Rules;
use super::settle::*;
use super::settlement::Released;
use super::testing::*;
use crate::mail::{Hold, HoldReason, Notify, Origin, RecipientStatus, ReversePath, Stage, State};
use crate::relay::{Attempt, RelayError, Severity};
use crate::smtp::Reply;

#[test]
fn each_recipient_has_its_own_result() {
    use RecipientStatus::*;
    let it = settled(
        &envelope(&["a@x.nl", "b@x.nl", "c@x.nl"]),
        &delivery(
            at(0),
            vec![
                taken(),
                refused(Stage::Recipient, "550 5.1.1 unknown"),
                refused(Stage::Recipient, "450 4.2.0 greylisted"),
            ],
        ),
        at(0),
    );
    assert_eq!(statuses(&it.envelope), [Delivered, Failed, Waiting]);
    assert_eq!(it.released, Released::Sent { at: at(0) });
    assert_eq!(it.envelope.first_failure, Some(at(0)));
    assert_eq!(later_than(&it.envelope), Some(at(1)));
    assert_eq!(it.reports.len(), 1);
    assert_eq!(it.trouble, None);
}

#[test]
fn a_message_that_fails_for_days_is_warned_of_once_and_expires() {
    let mut message = envelope(&["a@x.nl"]);
    let mut now = at(0);
    let mut tries = Vec::new();
    let mut kinds = Vec::new();
    for _ in 0..200 {
        tries.push((now.as_second() - at(0).as_second()) / 60);
        let it = settled(
            &message,
            &delivery(now, vec![refused(Stage::Recipient, "451 4.3.0 later")]),
            now,
        );
        kinds.extend(
            it.reports
                .iter()
                .map(|it| (it.kind, *tries.last().unwrap())),
        );
        message = it.envelope;
        if message.is_finished() {
            break;
        }
        now = later_than(&message).unwrap();
    }
    assert_eq!(tries[..8], [0, 1, 3, 7, 15, 31, 63, 123]);
    assert_eq!(
        kinds,
        [(ReportKind::Delayed, 240), (ReportKind::Failed, 4 * 1440)]
    );
    assert_eq!(statuses(&message), [RecipientStatus::Expired]);
}

#[test]
fn waiting_for_budget_counts_for_neither_warning_nor_expiry() {
    let failing = |now| delivery(now, vec![refused(Stage::Recipient, "451 4.3.0 later")]);
    let first = settled(&envelope(&["a@x.nl"]), &failing(at(0)), at(0)).envelope;
    // It was due at minute 1 and got its turn after ten days.
    let ten_days = at(10 * 1440);
    let it = settled(&first, &failing(ten_days), ten_days);
    assert_eq!(statuses(&it.envelope), [RecipientStatus::Waiting]);
    assert!(it.reports.is_empty());
    assert_eq!(later_than(&it.envelope), Some(at(10 * 1440 + 2)));
}

#[test]
fn waiting_for_budget_between_the_parts_of_a_message_counts_for_nothing() {
    let failing = |place, now| {
        let mut one = delivery(now, vec![refused(Stage::Recipient, "451 4.3.0 later")]);
        one.attempts[0].recipient = place;
        one
    };
    let message = envelope(&["a@x.nl", "b@x.nl"]);
    let part = settled(&message, &failing(0, at(0)), at(0)).envelope;
    assert_eq!(part.state, State::Waiting { not_before: None });
    let ten_days = at(10 * 1440);
    assert_eq!(overdue(&part, &policy(&Health::default()), ten_days), None);
    let it = settled(&part, &failing(1, ten_days), ten_days);
    assert!(it.reports.is_empty() && it.envelope.waiting().count() == 2);
    assert_eq!(it.envelope.first_failure, Some(ten_days));
}

#[test]
fn no_recipient_is_given_up_at_its_first_attempt() {
    let later = || refused(Stage::Recipient, "451 4.3.0 later");
    let mut message = envelope(&["a@x.nl", "b@x.nl", "c@x.nl"]);
    message.first_failure = Some(at(-9_000));
    message.attempts = 50;
    message.state = State::Waiting {
        not_before: Some(at(0)),
    };
    let tried = |stage| {
        settled(
            &envelope(&["a@x.nl"]),
            &delivery(at(-1), vec![refused(stage, "451 x")]),
            at(-1),
        )
        .envelope
        .recipients
        .remove(0)
        .last
    };
    message.recipients[0].last = tried(Stage::Recipient);
    // Not to reach the relay is no attempt.
    message.recipients[1].last = tried(Stage::Greeting);
    let it = settled(
        &message,
        &delivery(at(0), vec![later(), later(), later()]),
        at(0),
    );
    use RecipientStatus::*;
    assert_eq!(statuses(&it.envelope), [Expired, Waiting, Waiting]);
}

#[test]
fn a_clock_that_jumps_forward_ends_no_mail() {
    let failing = |now| delivery(now, vec![refused(Stage::Recipient, "451 4.3.0 later")]);
    let mut message = settled(&envelope(&["a@x.nl"]), &failing(at(0)), at(0)).envelope;
    // As if it had been due all the time.
    message.first_failure = Some(at(-20_000));
    let mut now = at(0);
    for attempt in 2..5 {
        now = now.max(later_than(&message).unwrap());
        message = settled(&message, &failing(now), now).envelope;
        assert!(!message.is_finished(), "attempt {attempt}");
    }
    now = later_than(&message).unwrap();
    assert!(
        settled(&message, &failing(now), now).envelope.is_finished(),
        "the fifth"
    );
}

#[test]
fn a_hold_counts_for_neither() {
    let failing = |now| delivery(now, vec![refused(Stage::Recipient, "451 4.3.0 later")]);
    let mut message = settled(&envelope(&["a@x.nl"]), &failing(at(0)), at(0)).envelope;
    message.state = State::Held(Hold {
        reason: HoldReason::Administrator,
        by: "anna".into(),
        since: at(1),
        note: String::new(),
    });
    let released = released_from_hold(&message, at(20_000));
    assert_eq!(released.first_failure, Some(at(19_999)));
    let it = settled(&released, &failing(at(20_000)), at(20_000));
    assert!(it.reports.is_empty() && !it.envelope.is_finished());
}

#[test]
fn waiting_for_a_paused_relay_counts_for_the_warning_alone() {
    let failing = |now| delivery(now, vec![refused(Stage::Recipient, "451 4.3.0 later")]);
    let first = settled(&envelope(&["a@x.nl", "b@x.nl"]), &failing(at(0)), at(0)).envelope;
    let mut health = Health::default();
    health.pause_by("anna", "", at(1));
    // For a minute the second recipient had waited for its turn.
    assert_eq!(overdue(&first, &policy(&health), at(240)), None);
    let (warned, report) = overdue(&first, &policy(&health), at(241)).unwrap();
    assert_eq!(report.unwrap().kind, ReportKind::Delayed);
    assert_eq!(overdue(&warned, &policy(&health), at(242)), None);
    health.resume(at(10 * 1440));
    let it = settle(
        &warned,
        &failing(at(10 * 1440)),
        &policy(&health),
        at(10 * 1440),
        0.5,
    );
    assert_eq!(statuses(&it.envelope)[0], RecipientStatus::Waiting);
    // Never tried at all: the pause alone counts.
    let mut health = Health::default();
    health.pause_by("anna", "", at(60));
    let fresh = envelope(&["a@x.nl"]);
    assert_eq!(overdue(&fresh, &policy(&health), at(299)), None);
    assert!(overdue(&fresh, &policy(&health), at(300)).is_some());
}

#[test]
fn a_relays_own_trouble_leaves_the_message_as_it_was() {
    for result in [
        Err(RelayError::Connect {
            server: "x".into(),
            detail: "refused".into(),
        }),
        Err(RelayError::Dns {
            name: "x".into(),
            detail: "timeout".into(),
        }),
        Err(RelayError::NoServer {
            name: "x".into(),
            detail: "NXDOMAIN".into(),
        }),
        Err(RelayError::Tls {
            server: "x".into(),
            detail: "expired".into(),
        }),
        Err(RelayError::NoSecureLogin { server: "x".into() }),
        Err(RelayError::AuthUnavailable {
            offered: "none".into(),
        }),
        Err(RelayError::Silent {
            stage: Stage::Greeting,
            after: Duration::from_secs(30),
        }),
        refused(Stage::Auth, "535 5.7.8 bad credentials"),
        refused(Stage::Greeting, "554 5.7.1 go away"),
        refused(Stage::Mail, "530 5.7.0 Authentication required"),
        refused(Stage::Mail, "550 5.7.13 account disabled"),
    ] {
        let message = envelope(&["a@x.nl"]);
        let it = settled(&message, &delivery(at(0), vec![result.clone()]), at(0));
        assert!(it.trouble.is_some(), "{result:?}");
        assert!(it.reports.is_empty());
        assert_eq!(it.released, Released::NotSent);
        let now = &it.envelope;
        // After MAIL another message had better be the next probe.
        let aside = result.is_err_and(|it| it.stage() >= Stage::Mail);
        assert_eq!(
            (now.first_failure, now.attempts, later_than(now)),
            (None, 0, aside.then(|| at(2))),
        );
        assert!(now.recipients[0].last.is_some(), "the reason can be shown");
        assert!(!now.is_finished());
    }
}

#[test]
fn a_message_in_doubt_is_tried_again_and_marked_for_good() {
    let silent = Err(RelayError::Silent {
        stage: Stage::FinalDot,
        after: Duration::from_secs(600),
    });
    let it = settled(
        &envelope(&["a@x.nl"]),
        &delivery(at(0), vec![silent]),
        at(0),
    );
    assert_eq!(it.released, Released::InDoubt { at: at(0) });
    assert!(it.envelope.recipients[0].last.as_ref().unwrap().in_doubt);
    assert_eq!(later_than(&it.envelope), Some(at(1)));
    let it = settled(
        &it.envelope,
        &delivery(at(1), vec![refused(Stage::Recipient, "550 5.1.1 x")]),
        at(1),
    );
    assert!(it.envelope.recipients[0].last.as_ref().unwrap().in_doubt);
    assert_eq!(statuses(&it.envelope), [RecipientStatus::Failed]);
}

#[test]
fn denied_relaying_holds_only_whom_it_concerns() {
    use RecipientStatus::*;
    let denied = || refused(Stage::Recipient, "550 5.7.1 Unable to relay");
    let it = settled(
        &envelope(&["a@x.nl", "b@x.nl", "c@x.nl"]),
        &delivery(
            at(0),
            vec![
                taken(),
                denied(),
                refused(Stage::Recipient, "450 4.2.0 later"),
            ],
        ),
        at(0),
    );
    assert_eq!(statuses(&it.envelope), [Delivered, Waiting, Waiting]);
    assert_eq!(held(&it.envelope), None, "c has its next try");
    assert_eq!(it.suspicion, None, "a got through");
    let mut second = delivery(at(1), vec![denied(), taken()]);
    second.attempts[0].recipient = 1;
    second.attempts[1].recipient = 2;
    let it = settled(&it.envelope, &second, at(1));
    assert_eq!(statuses(&it.envelope), [Delivered, Waiting, Delivered]);
    assert_eq!(held(&it.envelope), Some(HoldReason::RelayingDenied));
    let alone = settled(
        &envelope(&["b@x.nl"]),
        &delivery(at(0), vec![denied()]),
        at(0),
    );
    assert_eq!(held(&alone.envelope), Some(HoldReason::RelayingDenied));
    assert_eq!(alone.suspicion.unwrap().sender, "jan@example.nl");
    assert_eq!(alone.trouble, None);
}

#[test]
fn who_is_denied_beside_one_that_is_delayed_is_held_and_never_told_to_be_delayed() {
    let denied = || refused(Stage::Recipient, "550 5.7.1 Unable to relay");
    let later = || refused(Stage::Recipient, "450 4.2.0 later");
    let mut message = envelope(&["a@x.nl", "b@x.nl"]);
    let mut now = at(0);
    let mut told = Vec::new();
    while held(&message).is_none() {
        let mut both = delivery(now, vec![denied(), later()]);
        both.attempts
            .retain(|it| message.recipients[it.recipient].status == RecipientStatus::Waiting);
        let it = settled(&message, &both, now);
        for report in &it.reports {
            told.extend(report.items.iter().map(|it| (report.kind, it.recipient)));
        }
        message = it.envelope;
        now = later_than(&message).unwrap_or(now);
        assert!(now <= at(4 * 1440), "{message:?}");
    }
    assert_eq!(told, [(ReportKind::Delayed, 1), (ReportKind::Failed, 1)]);
    use RecipientStatus::*;
    assert_eq!(statuses(&message), [Waiting, Expired]);
    assert_eq!(held(&message), Some(HoldReason::RelayingDenied));
}

#[test]
fn what_a_server_lacks_that_stands_in_for_another_ends_no_message() {
    use ReportKind::{Delayed, Failed};
    let ends = |first_is_away| {
        let mut message = envelope(&["a@x.nl"]);
        let mut now = at(0);
        let mut kinds = Vec::new();
        while now < at(20 * 1440) && !message.is_finished() {
            let error = RelayError::NotHere {
                what: "at mx2: the relay does not offer SMTPUTF8".into(),
                why: "it is a fallback server".into(),
                first_is_away,
            };
            let it = settled(&message, &delivery(now, vec![Err(error)]), now);
            assert_eq!(it.trouble, None, "others can leave");
            kinds.extend(it.reports.iter().map(|it| it.kind));
            message = it.envelope;
            now = later_than(&message).unwrap_or(now);
        }
        let last = message.recipients[0].last.as_ref().unwrap();
        let finding = crate::outcome::classify_again(Rules::compiled_in(), last);
        assert_eq!(finding.rule, "not at this server");
        kinds
    };
    assert_eq!(ends(true), [Delayed]);
    // Nobody is away: nothing better will come.
    assert_eq!(ends(false), [Delayed, Failed]);
}

#[test]
fn a_report_that_cannot_be_delivered_is_held_and_never_reported() {
    let mut message = envelope(&["a@x.nl"]);
    message.reverse_path = ReversePath::Null;
    message.origin = Origin::Report;
    let it = settled(
        &message,
        &delivery(at(0), vec![refused(Stage::Recipient, "550 5.1.1 x")]),
        at(0),
    );
    assert_eq!(held(&it.envelope), Some(HoldReason::DoubleBounce));
    assert_eq!(statuses(&it.envelope), [RecipientStatus::Waiting]);
    assert!(it.reports.is_empty() && it.trouble.is_none() && it.suspicion.is_none());
    let mut now = at(0);
    for _ in 0..200 {
        if held(&message).is_some() {
            break;
        }
        now = later_than(&message).unwrap_or(now);
        message = settled(
            &message,
            &delivery(now, vec![refused(Stage::Recipient, "451 later")]),
            now,
        )
        .envelope;
    }
    assert_eq!(
        held(&message),
        Some(HoldReason::DoubleBounce),
        "at its expiry, too"
    );
    assert_eq!(now, at(4 * 1440));
}

#[test]
fn our_own_trouble_counts_for_nothing_and_shows_why_it_waits() {
    let detail = "cannot read the content".to_owned();
    let ours = delivery(at(0), vec![Err(RelayError::Ours { detail })]);
    let it = settled(&envelope(&["a@x.nl"]), &ours, at(0)).envelope;
    assert_eq!((it.first_failure, it.attempts), (None, 0));
    assert_eq!(later_than(&it), Some(at(1)), "not at once");
    let said = it.recipients[0].last.as_ref().unwrap();
    assert!(said.text.contains("cannot read the content"));
}

#[test]
fn a_delivery_that_never_began_changes_nothing() {
    for not_before in [None, Some(at(-1))] {
        let mut message = envelope(&["a@x.nl", "b@x.nl"]);
        message.state = State::Waiting { not_before };
        let cancelled = || Err(RelayError::Cancelled);
        let stopped = delivery(at(0), vec![cancelled(), cancelled()]);
        assert_eq!(settled(&message, &stopped, at(0)).envelope, message);
    }
}

fn any_result() -> impl Strategy<Value = Result<Reply, RelayError>> {
    let stage = proptest::sample::select(Stage::ALL.to_vec());
    let words = proptest::sample::select(vec![
        "5.1.1 user unknown",
        "5.7.1 unable to relay",
        "5.7.8 bad password",
        "4.7.1 greylisted",
        "quota exceeded",
        "",
        "account suspended, spam, virus, too large",
    ]);
    prop_oneof![
        (200u16..600).prop_map(|code| Ok(reply(&format!("{code} x")))),
        (stage.clone(), 200u16..600, words)
            .prop_map(|(stage, code, words)| refused(stage, &format!("{code} {words}"))),
        stage.clone().prop_map(|stage| Err(RelayError::Garbage {
            stage,
            said: "?".into()
        })),
        stage.clone().prop_map(|stage| Err(RelayError::Silent {
            stage,
            after: Duration::ZERO
        })),
        stage.prop_map(|stage| Err(RelayError::Closed {
            stage,
            detail: "reset".into()
        })),
        Just(Err(RelayError::Cancelled)),
        Just(Err(RelayError::Ours {
            detail: "disk".into()
        })),
        Just(Err(RelayError::Connect {
            server: "x".into(),
            detail: "x".into()
        })),
        Just(Err(RelayError::Unsupported { what: "SMTPUTF8" })),
    ]
}

proptest! {
    #[test]
    fn no_recipient_is_lost_or_failed_without_a_clear_never(
        results in proptest::collection::vec((0usize..6, any_result()), 0..8),
        null in any::<bool>(),
        before in proptest::collection::vec(0u8..4, 5),
        first in proptest::option::of(-9_000i64..0),
        jitter in any::<f64>(),
    ) {
        let mut message = envelope(&["a@x.nl", "b@x.nl", "c@x.nl", "d@x.nl", "e@x.nl"]);
        for (recipient, status) in message.recipients.iter_mut().zip(&before) {
            recipient.status = match status {
                0 => RecipientStatus::Delivered,
                1 => RecipientStatus::Failed,
                _ => RecipientStatus::Waiting,
            };
            recipient.notify = Notify::Unspecified;
            recipient.last = (*status == 3).then(|| crate::mail::Diagnostic {
                at: at(-1),
                stage: Stage::Recipient,
                server: String::new(),
                code: Some(451),
                enhanced: None,
                text: "later".into(),
                in_doubt: false,
            });
        }
        message.attempts = 9;
        if null {
            message.reverse_path = ReversePath::Null;
        }
        message.first_failure = first.map(at);
        let (places, results): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        let mut delivery = delivery(at(0), results);
        for (attempt, place) in delivery.attempts.iter_mut().zip(places) {
            attempt.recipient = place;
        }
        let it = settle(&message, &delivery, &policy(&Health::default()), at(0), jitter);
        prop_assert_eq!(it.envelope.recipients.len(), 5);
        for (place, (was, is)) in message.recipients.iter().zip(&it.envelope.recipients).enumerate() {
            let of = |it: &&Attempt| it.recipient == place;
            if was.status != RecipientStatus::Waiting {
                prop_assert_eq!(was, is, "what is settled stays");
                continue;
            }
            let tried: Vec<_> = delivery.attempts.iter().filter(of).collect();
            let taken = tried.iter().any(|it| it.result.as_ref().is_ok_and(Reply::is_positive));
            prop_assert_eq!(taken, is.status == RecipientStatus::Delivered);
            let never = tried.iter().any(|it| matches!(&it.result, Err(error) if error.severity() == Severity::Permanent));
            if is.status == RecipientStatus::Failed {
                prop_assert!(never && !null);
                prop_assert!(it.reports.iter().any(|it| it.kind == ReportKind::Failed && it.items.iter().any(|it| it.recipient == place)));
            }
            if is.status == RecipientStatus::Expired {
                prop_assert!(!null && first.is_some_and(|it| it <= -4 * 1440) && was.last.is_some());
                prop_assert!(tried.iter().any(|it| it.result.as_ref().map_or_else(|error| !matches!(error.severity(), Severity::Relay | Severity::Untried), |_| true)));
            }
        }
        if null {
            prop_assert!(it.reports.is_empty() && it.suspicion.is_none());
        }
        // Nothing waits for nothing: what is not finished has a time, a reason or is due.
        if let State::Held(hold) = &it.envelope.state {
            prop_assert!(!it.envelope.is_finished() && !hold.note.is_empty());
        }
    }
}
