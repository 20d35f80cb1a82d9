//! How the verification of a relay stands, for people: why it is not active, and what to
//! do about it.

use jiff::Timestamp;

use crate::config::Relay;
use crate::control::protocol::{
    Dialogue, RelayState, RelayStatus, Side, VerificationReport, VerificationState,
};
use crate::outcome::Cause;
use crate::verify::{self, Conversation, Outcome};

use crate::daemon::delivery::RelayBook;

/// How the verification of a relay stands, in its status.
pub fn add_verification(
    status: &mut RelayStatus,
    relay: &Relay,
    book: &RelayBook,
    is_active: bool,
    now: Timestamp,
) {
    let test = book.verification.test();
    let mut report = VerificationReport {
        state: VerificationState::Waiting,
        at: test.map(|it| it.asked),
        by: None,
        expires: test.map(|it| it.expires),
        conversation: Vec::new(),
    };
    if is_active {
        report.state = VerificationState::Confirmed;
        if let Some((at, by)) = book.verification.confirmation() {
            report.at = Some(at);
            report.by = Some(by.to_owned());
        }
        report.expires = None;
        status.verification = Some(report);
        return;
    }
    match test.map(|it| (&it.outcome, it.expires)) {
        None | Some((Outcome::Waiting, _)) => {}
        Some((Outcome::Sent { at }, expires)) => {
            report.state = match expires <= now {
                true => VerificationState::Expired,
                false => VerificationState::Sent,
            };
            report.at = Some(*at);
        }
        Some((
            Outcome::Failed {
                at, conversation, ..
            },
            _,
        )) => {
            report.state = VerificationState::Failed;
            report.at = Some(*at);
            report.conversation = dialogue(conversation);
        }
    }
    let by_hand = book
        .health
        .pause()
        .filter(|it| it.cause == Cause::Administrator);
    if by_hand.is_none() {
        let (reason, remedy) = unverified(relay, book, now);
        status.state = RelayState::Unverified;
        status.reason = Some(reason);
        status.remedy = Some(remedy);
        status.by = None;
        status.since = report.at;
    }
    status.verification = Some(report);
}

/// Why a relay is not verified, and what to do about it.
pub fn unverified(relay: &Relay, book: &RelayBook, now: Timestamp) -> (String, String) {
    let name = &relay.name;
    let sender = relay.sender.as_ref().map(ToString::to_string);
    let sender = sender.unwrap_or_default();
    let again = format!("penstock relay verify {name} sends another one.");
    let minute = |at: &Timestamp| at.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let test = book.verification.test();
    let (reason, remedy) = match test.map(|it| (&it.outcome, it.expires)) {
        None => (
            format!("no test message to {sender} has been sent"),
            format!("Run penstock relay verify {name}."),
        ),
        Some((Outcome::Waiting, _)) => (
            format!("its test message to {sender} has not left yet"),
            format!("penstock relay verify {name} tries at once and shows what is said."),
        ),
        Some((Outcome::Sent { .. }, expires)) if expires <= now => (
            format!(
                "its test message to {sender} was not confirmed before {}",
                minute(&expires)
            ),
            format!("Run penstock relay verify {name}, and confirm within 7 days."),
        ),
        Some((Outcome::Sent { at }, _)) => (
            format!(
                "its test message left for {sender} on {} and nobody has confirmed it",
                minute(at)
            ),
            format!(
                "Open the link in that message and press the button, or run penstock relay \
                 confirm with its token. If it does not arrive: {again}"
            ),
        ),
        Some((
            Outcome::Failed {
                stage,
                words,
                remedy,
                ..
            },
            _,
        )) => (
            format!("its test message to {sender} failed at {stage}: {words}"),
            format!(
                "{remedy} Then run penstock relay verify {name}: it tries again and shows what is said."
            ),
        ),
    };
    match book.verification.lost() {
        Some(why) => (
            format!("{why}, so it must be confirmed again; {reason}"),
            remedy,
        ),
        None => (reason, remedy),
    }
}

/// A dialogue in the words of the protocol.
pub fn dialogue(conversation: &Conversation) -> Vec<Dialogue> {
    let lines = conversation.0.iter();
    lines
        .map(|(side, text)| Dialogue {
            side: match side {
                verify::Side::Ours => Side::Ours,
                verify::Side::Theirs => Side::Theirs,
                verify::Side::Note => Side::Note,
            },
            text: text.clone(),
        })
        .collect()
}
