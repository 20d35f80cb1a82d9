//! A spool that does not answer: nothing that waits is lost sight of.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Moment;
use crate::mail::{Origin, QueueId};
use crate::spool::{Amount, FlowKey, FlowSummary, Waiting};

use super::{Ledger, Refill, Release};

fn now() -> Moment {
    Moment {
        uptime: Duration::from_secs(100_000),
        wall: Timestamp::from_second(1_790_000_000).unwrap(),
        boot: 1,
    }
}

fn flow() -> FlowKey {
    FlowKey {
        relay: "own".into(),
        user: "jan@example.nl".into(),
        mailing: "news".into(),
    }
}

fn waiting(number: u64) -> Waiting {
    Waiting {
        id: QueueId::from_number(number),
        flow: flow(),
        wire_bytes: 100,
        recipients: 1,
        origin: Origin::Submission,
        accepted: now().wall,
        not_before: None,
    }
}

fn summary(messages: u64) -> FlowSummary {
    FlowSummary {
        key: flow(),
        label: "news".into(),
        ready: Amount {
            messages,
            recipients: messages,
            wire_bytes: 100 * messages,
        },
        deferred: Amount::default(),
        held: Amount::default(),
        accepted: messages,
        recent: vec![now().wall],
    }
}

/// The one refill that is wanted.
fn asked(release: &mut Release) -> Refill {
    let mut refills = release.refills();
    assert_eq!(refills.len(), 1, "it asks, and only once");
    refills.remove(0)
}

fn waits(release: &mut Release) -> u64 {
    let outlooks = release.mailings("own", now());
    outlooks.iter().map(|it| it.waiting.messages).sum()
}

#[test]
fn a_flow_that_got_no_answer_asks_again() {
    let mut release = Release::new(Ledger::new());
    release.restore(&summary(40), now());
    let refill = asked(&mut release);
    release.unanswered(&refill, now());
    let again = asked(&mut release);
    assert_eq!(again.after, refill.after);
    // What comes too late is of no use.
    release.refilled(&refill, &[], now());
    assert_eq!(waits(&mut release), 40);
    let items: Vec<Waiting> = (1..=4).map(waiting).collect();
    release.refilled(&again, &items, now());
    assert_eq!(waits(&mut release), 4);
}

#[test]
fn new_mail_of_a_flow_that_got_no_answer_and_has_nothing_else_is_asked_for() {
    let mut release = Release::new(Ledger::new());
    release.restore(&summary(1), now());
    let refill = asked(&mut release);
    release.unanswered(&refill, now());
    let again = asked(&mut release);
    release.refilled(&again, &[], now());
    release.waiting(&waiting(7), now());
    assert_eq!(waits(&mut release), 1);
    assert!(release.refills().is_empty(), "it is here");
}

#[test]
fn what_is_restored_while_an_answer_is_missing_is_read_from_its_beginning() {
    let mut release = Release::new(Ledger::new());
    // Message 6 was told; 5 found no room on the way here.
    release.waiting(&waiting(6), now());
    release.restore(&summary(40), now());
    asked(&mut release);
    // The answer never came, and the spool tells its flows again.
    release.restore(&summary(2), now());
    let again = asked(&mut release);
    assert_eq!(again.after, QueueId::MIN);
    release.refilled(&again, &[waiting(5), waiting(6)], now());
    assert_eq!(waits(&mut release), 2);
}
