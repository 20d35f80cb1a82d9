//! What becomes of a message when a mistake of ours ends its transaction, nobody knows where.

use jiff::Timestamp;

use crate::config::Retry;
use crate::mail::{Diagnostic, Envelope, Hold, HoldReason, Past, PastEvent, Stage, State};

use super::backoff;
use super::spells::{between, later};
use super::turns::in_turn;

const WORDS: &str =
    "a mistake of Penstock ended the transaction, see its log: it may have been delivered";

/// The message after a transaction with so many of its recipients was lost: in doubt, and
/// tried again later. After the second time in a row it is held: a third might end in the
/// same way, and each may deliver it once more.
pub fn lost(
    envelope: &Envelope,
    recipients: usize,
    retry: &Retry,
    now: Timestamp,
    jitter: f64,
) -> Envelope {
    let mut next = envelope.clone();
    let mut again = false;
    for place in in_turn(envelope, recipients, now) {
        let said = Diagnostic {
            at: now,
            stage: Stage::FinalDot,
            server: String::new(),
            code: None,
            enhanced: None,
            text: WORDS.to_owned(),
            in_doubt: true,
        };
        if let Some(earlier) = next.recipients[place].last.replace(said) {
            again |= earlier.text == WORDS;
            next.remember(Past {
                at: earlier.at,
                event: PastEvent::Deferred,
                recipient: Some(place),
                said: Some(earlier),
                note: String::new(),
                rule: None,
            });
        }
    }
    let first = envelope.first_failure.unwrap_or(now).min(now);
    let delay = backoff::delay(retry, between(first, now), jitter);
    next.attempts = next.attempts.saturating_add(1);
    next.first_failure = Some(first);
    next.state = match again {
        false => State::Waiting {
            not_before: Some(later(now, delay)),
        },
        true => State::Held(Hold {
            reason: HoldReason::Administrator,
            by: "penstock".to_owned(),
            since: now,
            note: "twice a mistake of Penstock ended its transaction: report what the log says, \
                   and see whether it has arrived before you release it"
                .to_owned(),
        }),
    };
    next
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn what_ends_our_transaction_twice_is_held_and_said_to_be_in_doubt() {
        let message = envelope(&["a@x.nl", "b@x.nl"]);
        let once = lost(&message, 1, &RETRY, at(0), 0.5);
        let State::Waiting {
            not_before: Some(next),
        } = once.state
        else {
            panic!("{:?}", once.state)
        };
        assert!(next > at(0));
        assert_eq!((once.attempts, once.first_failure), (1, Some(at(0))));
        assert!(once.recipients[0].last.as_ref().unwrap().in_doubt);
        assert!(once.recipients[1].last.is_none(), "it had no turn");
        // The other one has its turn first, and its own first time.
        let other = lost(&once, 1, &RETRY, at(1), 0.5);
        assert!(matches!(other.state, State::Waiting { .. }));
        let twice = lost(&other, 1, &RETRY, at(2), 0.5);
        let State::Held(hold) = &twice.state else {
            panic!("{:?}", twice.state)
        };
        assert_eq!(hold.reason, HoldReason::Administrator);
        assert_eq!(twice.waiting().count(), 2);
    }
}
