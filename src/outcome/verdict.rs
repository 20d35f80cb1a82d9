//! What one attempt means for its recipient: the judgement on which
//! [`settle`](super::settle) acts.

use jiff::Timestamp;

use crate::mail::text::printable;
use crate::mail::{
    Diagnostic, EnhancedStatus, Envelope, HoldReason, Notify, Origin, Recipient, RecipientStatus,
    ReversePath, Stage,
};
use crate::oauth::TokenError;
use crate::relay::{Attempt, Delivery, RelayError, Severity};

use super::classify::{classify, classify_error};
use super::finding::{Action, Class, Finding, Refusal};
use super::policy::Policy;
use super::rules::Rules;

/// Words of a server that are kept with a recipient.
pub(super) const WORDS_MAXIMUM: usize = 1_000;

/// Our own status for what a server lacks that stands in for one that is away ("system not
/// capable of selected features", RFC 3463 section 3.4).
pub(super) const FIRST_AWAY: EnhancedStatus = EnhancedStatus::new(4, 3, 3);
/// And for what a server lacks where it is only not known whether the relay does.
const PERHAPS_ELSEWHERE: EnhancedStatus = EnhancedStatus::new(4, 3, 0);

/// Whether a status of ours says that a server lacks what a message needs.
pub(super) fn is_lacking(status: EnhancedStatus) -> bool {
    (status.class, status.subject) == (5, 6) || [FIRST_AWAY, PERHAPS_ELSEWHERE].contains(&status)
}

/// What one attempt means for its recipient.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Delivered,
    /// For good.
    Fail(Finding),
    /// Counts as a failure of this message; again later.
    Retry(Finding),
    /// Waits for a person.
    Hold(HoldReason, Finding),
    /// Waits for the relay; counts for nothing.
    Wait(Finding),
    /// Nothing was tried.
    Untried {
        /// Our own trouble: not at once again.
        ours: bool,
    },
}

/// One verdict for each recipient that was waiting and has an attempt; where there are
/// two attempts for one recipient, having been taken wins.
pub(super) fn judge_all<'a>(
    envelope: &Envelope,
    delivery: &'a Delivery,
    rules: &Rules,
) -> Vec<(&'a Attempt, Verdict)> {
    let mut judged: Vec<(&Attempt, Verdict)> = Vec::new();
    for attempt in &delivery.attempts {
        let Some(recipient) = envelope.recipients.get(attempt.recipient) else {
            continue;
        };
        if recipient.status != RecipientStatus::Waiting {
            continue;
        }
        let verdict = judge(envelope, recipient, attempt, rules, &delivery.server);
        match judged
            .iter_mut()
            .find(|(it, _)| it.recipient == attempt.recipient)
        {
            Some(earlier) if verdict == Verdict::Delivered => *earlier = (attempt, verdict),
            Some(_) => {}
            None => judged.push((attempt, verdict)),
        }
    }
    judged
}

fn judge(
    envelope: &Envelope,
    recipient: &Recipient,
    attempt: &Attempt,
    rules: &Rules,
    server: &str,
) -> Verdict {
    let error = match &attempt.result {
        Ok(reply) if reply.is_positive() => return Verdict::Delivered,
        // A reply that cannot stand here proves nothing: transient.
        Ok(_) => {
            let finding = classify(rules, &Refusal::default());
            return Verdict::Retry(finding);
        }
        Err(error) => error,
    };
    let severity = error.severity();
    if severity == Severity::Untried {
        return Verdict::Untried {
            ours: matches!(error, RelayError::Ours { .. }),
        };
    }
    let finding = classify_error(rules, error, server);
    if severity == Severity::Relay {
        return Verdict::Wait(finding);
    }
    meant(envelope, recipient, finding)
}

/// What a finding about this message (not about the connection) does to a recipient.
fn meant(envelope: &Envelope, recipient: &Recipient, finding: Finding) -> Verdict {
    // A refused report never pauses anything: whoever can send us a bounce address
    // could otherwise stop a relay.
    let report = envelope.reverse_path == ReversePath::Null;
    match finding.action {
        Action::PauseRelay | Action::SlowDown if report => Verdict::Retry(finding),
        Action::PauseRelay | Action::SlowDown => Verdict::Wait(finding),
        Action::Retry => Verdict::Retry(finding),
        // The test message of a relay tells its verdict by failing.
        Action::HoldSender if envelope.origin == Origin::Verification => Verdict::Fail(finding),
        Action::FailRecipient | Action::FailMessage if may_end(envelope, recipient) => {
            Verdict::Fail(finding)
        }
        Action::FailRecipient | Action::FailMessage => {
            Verdict::Hold(HoldReason::DoubleBounce, finding)
        }
        Action::HoldSender if report => Verdict::Hold(HoldReason::DoubleBounce, finding),
        Action::HoldSender
            if matches!(finding.class, Class::RelayingDenied | Class::NotLoggedIn) =>
        {
            Verdict::Hold(HoldReason::RelayingDenied, finding)
        }
        Action::HoldSender => Verdict::Hold(HoldReason::SenderNotAllowed, finding),
    }
}

/// Whether a recipient may end undelivered: somebody is told, or said that nobody need
/// be. With a null reverse-path nobody can be told, so the message is kept and shown.
pub(super) fn may_end(envelope: &Envelope, recipient: &Recipient) -> bool {
    envelope.reverse_path != ReversePath::Null
        || recipient.notify == Notify::Never
        || envelope.origin == Origin::Verification
}

/// What to remember of an attempt; nothing when it was not its turn. Our own trouble is
/// remembered: what waits for it must show why.
pub(super) fn diagnostic(attempt: &Attempt, server: &str) -> Option<Diagnostic> {
    let (code, enhanced, text) = match &attempt.result {
        Ok(reply) => (Some(reply.code), reply.enhanced, reply.text()),
        Err(RelayError::Refused { reply, .. }) => (Some(reply.code), reply.enhanced, reply.text()),
        Err(RelayError::Cancelled) => return None,
        Err(error) => (None, own_status(error), error.to_string()),
    };
    // Each line was made printable when it was read; joining them needs their `\n`.
    let lines: Vec<_> = text
        .lines()
        .take(30)
        .map(|it| printable(it.as_bytes(), WORDS_MAXIMUM))
        .collect();
    let mut text = lines.join("\n");
    if let Some((cut, _)) = text.char_indices().nth(WORDS_MAXIMUM) {
        text.truncate(cut);
        text.push('…');
    }
    Some(Diagnostic {
        at: attempt.at,
        stage: attempt.stage,
        server: printable(server.as_bytes(), 255),
        code,
        enhanced,
        text,
        in_doubt: attempt.in_doubt(),
    })
}

/// The enhanced status for what was no reply (RFC 3463 section 3).
fn own_status(error: &RelayError) -> Option<EnhancedStatus> {
    let (class, subject, detail) = match error {
        RelayError::NoServer { .. } => (4, 4, 4),
        RelayError::Dns { .. } => (4, 4, 3),
        RelayError::Connect { .. } => (4, 4, 1),
        RelayError::Tls { .. } | RelayError::NoSecureLogin { .. } => (4, 7, 10),
        RelayError::AuthUnavailable { .. } => (4, 7, 9),
        RelayError::Token(trouble) if trouble.is_passing() => (4, 7, 0),
        RelayError::Token(_) => (4, 7, 8),
        RelayError::Garbage { .. } => (4, 5, 0),
        RelayError::Silent { .. } | RelayError::Closed { .. } => (4, 4, 2),
        RelayError::Unsupported { what: "SMTPUTF8" } => (5, 6, 7),
        RelayError::Unsupported { .. } => (5, 6, 3),
        RelayError::TooLarge { .. } => (5, 3, 4),
        RelayError::NotHere { first_is_away, .. } => {
            return Some(match first_is_away {
                true => FIRST_AWAY,
                false => PERHAPS_ELSEWHERE,
            });
        }
        RelayError::Chunking { .. } => (4, 5, 1),
        RelayError::Refused { reply, .. } => return reply.enhanced,
        RelayError::Ours { .. } | RelayError::Cancelled => return None,
    };
    Some(EnhancedStatus::new(class, subject, detail))
}

/// What an earlier attempt meant for a recipient that this one left out.
pub(super) fn recalled(
    envelope: &Envelope,
    recipient: &Recipient,
    policy: &Policy<'_>,
    now: Timestamp,
) -> Verdict {
    let Some(last) = &recipient.last else {
        return Verdict::Untried { ours: false };
    };
    let finding = classify_again(policy.rules, last);
    let verdict = match last.code {
        Some(_) => meant(envelope, recipient, finding),
        None => Verdict::Retry(finding),
    };
    match verdict {
        Verdict::Retry(finding)
            if !may_end(envelope, recipient)
                && policy.health.tried_for(envelope, now) >= policy.retry.expire_after =>
        {
            Verdict::Hold(HoldReason::DoubleBounce, finding)
        }
        // Whoever may fail has failed when it was said.
        Verdict::Fail(finding) => Verdict::Retry(finding),
        other => other,
    }
}

/// The error behind a diagnostic that was no reply, as far as [`own_status`] tells it.
fn own_error(last: &Diagnostic) -> Option<RelayError> {
    if last.code.is_some() {
        return None;
    }
    let (server, detail) = (last.server.clone(), last.text.clone());
    let stage = last.stage;
    let status = last.enhanced?;
    Some(match (status.class, status.subject, status.detail) {
        (4, 4, 4) => RelayError::NoServer {
            name: server,
            detail,
        },
        (4, 4, 3) => RelayError::Dns {
            name: server,
            detail,
        },
        (4, 4, 1) => RelayError::Connect { server, detail },
        (4, 7, 10) if stage == Stage::Tls => RelayError::Tls { server, detail },
        (4, 7, 10) => RelayError::NoSecureLogin { server },
        (4, 7, 9) => RelayError::AuthUnavailable { offered: detail },
        (4, 7, 0 | 8) => RelayError::Token(TokenError::Recalled {
            words: detail,
            passing: status.detail == 0,
        }),
        (4, 3, 0 | 3) => RelayError::NotHere {
            what: detail,
            why: String::new(),
            first_is_away: status == FIRST_AWAY,
        },
        (4, 5, 1) => RelayError::Chunking { said: detail },
        (4, 5, 0) => RelayError::Garbage {
            stage,
            said: detail,
        },
        (4, 4, 2) => RelayError::Closed { stage, detail },
        (5, 6, 7) => RelayError::Unsupported { what: "SMTPUTF8" },
        (5, 6, 3) => RelayError::Unsupported { what: "8BITMIME" },
        _ => return None,
    })
}

/// What was last said about a recipient, judged by the rules of today.
pub fn classify_again(rules: &Rules, last: &Diagnostic) -> Finding {
    if let Some(error) = own_error(last) {
        return classify_error(rules, &error, &last.server);
    }
    classify(
        rules,
        &Refusal {
            stage: Some(last.stage),
            code: last.code,
            enhanced: last.enhanced,
            text: &last.text,
            server: &last.server,
        },
    )
}
