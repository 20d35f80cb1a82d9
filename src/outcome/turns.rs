//! Whose turn it is among the recipients of a message that takes several transactions.

use jiff::Timestamp;

use crate::mail::{Envelope, Recipient, State};

/// The waiting recipients of the next transaction, in turn: those that had none since the
/// message became due, and of these those never tried first, then those tried longest ago,
/// so that no part of a message starves behind another.
pub fn in_turn(envelope: &Envelope, limit: usize, now: Timestamp) -> Vec<usize> {
    let mut waiting: Vec<_> = envelope
        .waiting()
        .map(|(place, it)| (it.last.as_ref().map(|it| it.at), place))
        .collect();
    waiting.sort();
    let mut turn: Vec<usize> = waiting.into_iter().map(|(_, place)| place).collect();
    let is_due = |place: &usize| is_due(&envelope.recipients[*place], &envelope.state, now);
    if turn.iter().any(is_due) {
        turn.retain(is_due);
    }
    turn.truncate(limit);
    turn
}

/// Whether a recipient has had no turn since its message became due: whoever was told to
/// come later is not asked again before that, and whoever waits for the others has waited
/// long enough. Turns of a time that is still to come were had before the clock was set back.
pub(super) fn is_due(recipient: &Recipient, state: &State, now: Timestamp) -> bool {
    match (&recipient.last, state) {
        (None, _) => true,
        (
            Some(last),
            State::Waiting {
                not_before: Some(due),
            },
        ) => last.at < *due || last.at > now,
        (Some(_), _) => false,
    }
}
