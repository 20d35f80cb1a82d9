//! From what a delivery came to, to what becomes of the message: pure, because every
//! mistake here costs somebody's mail.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Retry;
use crate::mail::text::printable;
use crate::mail::{
    Diagnostic, EnhancedStatus, Envelope, Hold, HoldReason, Origin, Recipient, RecipientStatus,
    ReversePath, Stage, State,
};
use crate::relay::{Attempt, Delivery, RelayError, Severity};

use super::backoff;
use super::classify::{Action, Class, Finding, Refusal, classify, classify_error};
use super::pause::{Health, between, later};
use super::report::{Item, Report, ReportKind};
use super::rules::Rules;

/// Words of a server that are kept with a recipient.
const WORDS_MAXIMUM: usize = 1_000;

/// What the judgement rests on besides the delivery itself.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// When to try again and when to give up.
    pub retry: &'a Retry,
    /// What refusals mean.
    pub rules: &'a Rules,
    /// The relay's pauses: waiting for them does not count for the expiry.
    pub health: &'a Health,
}

/// What becomes of a message, its relay and whoever must be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The message as it is now.
    pub envelope: Envelope,
    /// What it counts against the relay's limits.
    pub released: Released,
    /// Reports to send, each about one kind of outcome.
    pub reports: Vec<Report>,
    /// The relay itself has trouble: pause it.
    pub trouble: Option<Trouble>,
    /// A sender or recipient was refused, which may turn out to be the relay's trouble.
    pub suspicion: Option<Suspicion>,
    /// The relay took at least one recipient.
    pub delivered: bool,
    /// The latest point of the dialogue at which the relay said something.
    pub reached: Option<Stage>,
    /// What each recipient's refusal means, for the log.
    pub findings: Vec<(usize, Finding)>,
}

/// What a transaction counts against the limits (PRODUCT section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It left, as of the relay's final reply.
    Sent {
        /// When the final reply came.
        at: Timestamp,
    },
    /// Nothing of the content left: the budget is given back.
    NotSent,
    /// Content left and no final reply came: it counts as sent.
    InDoubt {
        /// When that was decided.
        at: Timestamp,
    },
}

/// Why a relay must be paused.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// What it is about, and the remedy.
    pub finding: Finding,
    /// The relay only wants less at once.
    pub slow_down: bool,
    /// At which point of the dialogue.
    pub stage: Stage,
    /// The server's own words, printable.
    pub words: String,
}

/// A refusal that concerns one sender or recipient until proven otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspicion {
    /// Whose mail was refused.
    pub sender: String,
    /// To whom.
    pub recipients: Vec<String>,
    /// What to pause the relay for once it is proven.
    pub trouble: Trouble,
}

/// What one attempt means for its recipient.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
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

/// Decides what becomes of a message after one delivery. `jitter` is from 0 to 1.
pub fn settle(
    envelope: &Envelope,
    delivery: &Delivery,
    policy: &Policy<'_>,
    now: Timestamp,
    jitter: f64,
) -> Settlement {
    let mut judged = judge_all(envelope, delivery, policy.rules);
    let mut next = envelope.clone();
    let mut findings = Vec::new();

    if judged
        .iter()
        .any(|(_, it)| !matches!(it, Verdict::Untried { .. } | Verdict::Wait(_)))
    {
        next.attempts = next.attempts.saturating_add(1);
    }
    let failing = judged.iter().any(|(_, it)| matches!(it, Verdict::Retry(_)));
    if failing {
        next.first_failure = Some(first_failure(envelope, delivery, policy.health, now));
    }
    let expired = failing && tried_for(&next, policy.health, now) >= policy.retry.expire_after;
    if expired {
        for (attempt, verdict) in &mut judged {
            if let Verdict::Retry(finding) = verdict
                && !may_end(envelope, &envelope.recipients[attempt.recipient])
            {
                *verdict = Verdict::Hold(HoldReason::DoubleBounce, finding.clone());
            }
        }
    }

    let mut reported: Vec<(ReportKind, Item)> = Vec::new();
    for (attempt, verdict) in &judged {
        let recipient = &mut next.recipients[attempt.recipient];
        let earlier_doubt = recipient.last.as_ref().is_some_and(|it| it.in_doubt);
        if let Some(mut said) = diagnostic(attempt, &delivery.server) {
            said.in_doubt |= earlier_doubt && *verdict != Verdict::Delivered;
            recipient.last = Some(said);
        }
        let mut tell = |kind, finding: Option<&Finding>| {
            reported.push((
                kind,
                Item {
                    recipient: attempt.recipient,
                    finding: finding.cloned(),
                },
            ));
        };
        match verdict {
            Verdict::Delivered => {
                recipient.status = RecipientStatus::Delivered;
                if recipient.notify.success() && !delivery.dsn_passed_on {
                    tell(ReportKind::Relayed, None);
                }
            }
            Verdict::Fail(finding) => {
                recipient.status = RecipientStatus::Failed;
                tell(ReportKind::Failed, Some(finding));
            }
            Verdict::Retry(finding) if expired => {
                recipient.status = RecipientStatus::Expired;
                tell(ReportKind::Failed, Some(finding));
            }
            Verdict::Retry(_) | Verdict::Hold(..) | Verdict::Wait(_) | Verdict::Untried { .. } => {}
        }
        if let Verdict::Fail(it) | Verdict::Retry(it) | Verdict::Hold(_, it) | Verdict::Wait(it) =
            verdict
        {
            findings.push((attempt.recipient, it.clone()));
        }
    }

    next.state = state(&next, envelope, &judged, policy, now, jitter);
    let mut reports = Report::gather(envelope, reported);
    if let Some(warning) = warning(&mut next, policy, now) {
        reports.push(warning);
    }
    let delivered = judged.iter().any(|(_, it)| *it == Verdict::Delivered);
    Settlement {
        released: released(delivery, now),
        trouble: trouble(envelope, &judged),
        suspicion: suspicion(envelope, &judged, delivered),
        delivered,
        reached: reached(delivery),
        reports,
        findings,
        envelope: next,
    }
}

/// The waiting recipients of the next transaction, in turn: those never tried first,
/// then those tried longest ago, so that no part of a message starves behind another.
pub fn in_turn(envelope: &Envelope, limit: usize) -> Vec<usize> {
    let mut waiting: Vec<_> = envelope
        .waiting()
        .map(|(place, it)| (it.last.as_ref().map(|it| it.at), place))
        .collect();
    waiting.sort();
    waiting.truncate(limit);
    let mut places: Vec<_> = waiting.into_iter().map(|(_, place)| place).collect();
    places.sort_unstable();
    places
}

/// A message that waits, perhaps for a paused relay, and whose sender must be told by
/// now: the message marked so, and the warning where one is wanted.
pub fn overdue(
    envelope: &Envelope,
    policy: &Policy<'_>,
    now: Timestamp,
) -> Option<(Envelope, Option<Report>)> {
    if !matches!(envelope.state, State::Waiting { .. }) || envelope.warned {
        return None;
    }
    let mut next = envelope.clone();
    let warning = warning(&mut next, policy, now);
    next.warned.then_some((next, warning))
}

/// A message that leaves its hold: the hold counts neither for the warning nor for the
/// expiry, and it may go at once.
pub fn released_from_hold(envelope: &Envelope, now: Timestamp) -> Envelope {
    let mut next = envelope.clone();
    if let State::Held(hold) = &envelope.state {
        next.first_failure = next
            .first_failure
            .map(|it| later(it, between(hold.since.max(it), now)));
    }
    next.state = State::Waiting { not_before: None };
    next
}

/// One verdict for each recipient that was waiting and has an attempt; where there are
/// two attempts for one recipient, having been taken wins.
fn judge_all<'a>(
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
fn may_end(envelope: &Envelope, recipient: &Recipient) -> bool {
    envelope.reverse_path != ReversePath::Null
        || recipient.notify == crate::mail::Notify::Never
        || envelope.origin == Origin::Verification
}

/// What to remember of an attempt; nothing when nothing was tried.
fn diagnostic(attempt: &Attempt, server: &str) -> Option<Diagnostic> {
    let (code, enhanced, text) = match &attempt.result {
        Ok(reply) => (Some(reply.code), reply.enhanced, reply.text()),
        Err(RelayError::Refused { reply, .. }) => (Some(reply.code), reply.enhanced, reply.text()),
        Err(error) if error.severity() == Severity::Untried => return None,
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
        RelayError::Garbage { .. } => (4, 5, 0),
        RelayError::Silent { .. } | RelayError::Closed { .. } => (4, 4, 2),
        RelayError::Unsupported { what: "SMTPUTF8" } => (5, 6, 7),
        RelayError::Unsupported { .. } => (5, 6, 3),
        RelayError::TooLarge { .. } => (5, 3, 4),
        RelayError::Refused { reply, .. } => return reply.enhanced,
        RelayError::Ours { .. } | RelayError::Cancelled => return None,
    };
    Some(EnhancedStatus::new(class, subject, detail))
}

/// When the failing of this message began, moved on by the time since its last try was
/// due that it waited for budget: that waiting counts for nothing. Pauses of the relay
/// are left in, because they count for the warning.
fn first_failure(
    envelope: &Envelope,
    delivery: &Delivery,
    health: &Health,
    now: Timestamp,
) -> Timestamp {
    let Some(first) = envelope.first_failure else {
        return now;
    };
    let State::Waiting {
        not_before: Some(due),
    } = envelope.state
    else {
        return first;
    };
    let took = delivery.attempts.iter().map(|it| it.took).max();
    let started = now
        .checked_sub(took.unwrap_or_default())
        .unwrap_or(Timestamp::MIN)
        .min(now);
    let waited = between(due, started);
    let for_budget = waited.saturating_sub(health.paused_between(due, started));
    later(first, for_budget).min(now)
}

/// How long a message has been failing, pauses of the relay left out.
fn tried_for(envelope: &Envelope, health: &Health, now: Timestamp) -> Duration {
    envelope.first_failure.map_or(Duration::ZERO, |first| {
        between(first, now).saturating_sub(health.paused_between(first, now))
    })
}

/// Whether the message may leave, and when.
fn state(
    next: &Envelope,
    before: &Envelope,
    judged: &[(&Attempt, Verdict)],
    policy: &Policy<'_>,
    now: Timestamp,
    jitter: f64,
) -> State {
    let this_time = |wanted: fn(&Verdict) -> bool| judged.iter().any(|(_, it)| wanted(it));
    let again = || State::Waiting {
        not_before: Some(next_try(next, policy, now, jitter)),
    };
    if next.is_finished() {
        return State::Waiting { not_before: None };
    }
    // An administrator may have held it while it was under way.
    if matches!(before.state, State::Held(_)) {
        return before.state.clone();
    }
    if this_time(|it| matches!(it, Verdict::Untried { ours: true })) {
        return State::Waiting {
            not_before: Some(later(now, policy.retry.first)),
        };
    }
    let kinds: Vec<Verdict> = next
        .waiting()
        .map(|(place, recipient)| {
            judged
                .iter()
                .find(|(it, _)| it.recipient == place)
                .map(|(_, it)| it.clone())
                .unwrap_or_else(|| recalled(next, recipient, policy, now))
        })
        .collect();
    let failed_again = this_time(|it| matches!(it, Verdict::Retry(_)));
    if this_time(|it| matches!(it, Verdict::Wait(_))) {
        return if failed_again {
            again()
        } else {
            before.state.clone()
        };
    }
    if kinds.iter().any(|it| matches!(it, Verdict::Untried { .. })) {
        // The other parts of a message need not wait for the one that failed, unless it
        // failed as a whole: they would, too.
        let whole = judged.iter().all(|(attempt, it)| {
            matches!(it, Verdict::Retry(_)) && attempt.stage != Stage::Recipient
        });
        return if failed_again && whole {
            again()
        } else {
            State::Waiting { not_before: None }
        };
    }
    match kinds.iter().find_map(|it| match it {
        Verdict::Hold(reason, finding) => Some((*reason, finding)),
        _ => None,
    }) {
        // Nothing is left that time could mend.
        Some((reason, finding)) if kinds.iter().all(|it| matches!(it, Verdict::Hold(..))) => {
            State::Held(Hold {
                reason,
                by: "penstock".to_owned(),
                since: now,
                note: finding.remedy.clone(),
            })
        }
        _ => again(),
    }
}

/// What an earlier attempt meant for a recipient that this one left out.
fn recalled(
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
                && tried_for(envelope, policy.health, now) >= policy.retry.expire_after =>
        {
            Verdict::Hold(HoldReason::DoubleBounce, finding)
        }
        // Whoever may fail has failed when it was said.
        Verdict::Fail(finding) => Verdict::Retry(finding),
        other => other,
    }
}

/// What was last said about a recipient, judged by the rules of today.
pub fn classify_again(rules: &Rules, last: &Diagnostic) -> Finding {
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

/// The time of the next try: later each time, and once exactly when the warning or the
/// expiry is due.
fn next_try(envelope: &Envelope, policy: &Policy<'_>, now: Timestamp, jitter: f64) -> Timestamp {
    let tried = tried_for(envelope, policy.health, now);
    let mut wait = backoff::delay(policy.retry, tried, jitter);
    let mut no_later = |by: Duration| {
        if let Some(left) = by.checked_sub(tried)
            && left >= policy.retry.first
        {
            wait = wait.min(left);
        }
    };
    no_later(policy.retry.expire_after);
    if !envelope.warned {
        no_later(policy.retry.warn_after);
    }
    later(now, wait)
}

/// Marks a message that has waited for too long as warned of, and says whom to tell.
fn warning(envelope: &mut Envelope, policy: &Policy<'_>, now: Timestamp) -> Option<Report> {
    if envelope.warned || envelope.is_finished() || matches!(envelope.state, State::Held(_)) {
        return None;
    }
    let waited = match envelope.first_failure {
        Some(first) => {
            let due = match envelope.state {
                State::Waiting {
                    not_before: Some(due),
                } => due.min(now),
                _ => now,
            };
            // Between due and now it waits for its relay, or for budget.
            between(first, due) + policy.health.paused_between(due, now)
        }
        None => policy.health.paused_between(envelope.accepted, now),
    };
    if waited < policy.retry.warn_after {
        return None;
    }
    envelope.warned = true;
    let items = envelope
        .waiting()
        .filter(|(_, it)| it.notify.delay())
        .map(|(place, it)| {
            let finding = match &it.last {
                Some(last) => Some(classify_again(policy.rules, last)),
                None => policy.health.finding(),
            };
            (
                ReportKind::Delayed,
                Item {
                    recipient: place,
                    finding,
                },
            )
        })
        .collect();
    Report::gather(envelope, items).pop()
}

fn released(delivery: &Delivery, now: Timestamp) -> Released {
    if !delivery.content_sent {
        return Released::NotSent;
    }
    match delivery.final_reply_at {
        Some(at) if !delivery.in_doubt => Released::Sent { at },
        // Cut off in the middle counts, too: the relay may have counted it.
        _ => Released::InDoubt { at: now },
    }
}

/// The trouble that the attempts prove: the earliest in the dialogue.
fn trouble(envelope: &Envelope, judged: &[(&Attempt, Verdict)]) -> Option<Trouble> {
    judged
        .iter()
        .filter_map(|(attempt, verdict)| match verdict {
            Verdict::Wait(finding) => Some(Trouble {
                slow_down: finding.action == Action::SlowDown,
                stage: attempt.stage,
                words: words(attempt),
                finding: finding.clone(),
            }),
            _ => None,
        })
        .filter(|it| envelope.reverse_path != ReversePath::Null || it.stage < Stage::Mail)
        .min_by_key(|it| (it.slow_down, it.stage))
}

/// Who was refused, when nobody got through in the same transaction.
fn suspicion(
    envelope: &Envelope,
    judged: &[(&Attempt, Verdict)],
    delivered: bool,
) -> Option<Suspicion> {
    if delivered || envelope.reverse_path == ReversePath::Null {
        return None;
    }
    let refused: Vec<_> = judged
        .iter()
        .filter_map(|(attempt, verdict)| match verdict {
            Verdict::Hold(_, finding) => Some((*attempt, finding)),
            _ => None,
        })
        .collect();
    let (attempt, finding) = refused.first()?;
    Some(Suspicion {
        sender: envelope.from.folded(),
        recipients: refused
            .iter()
            .take(3)
            .map(|(it, _)| {
                envelope.recipients[it.recipient]
                    .path
                    .to_string()
                    .to_lowercase()
            })
            .collect(),
        trouble: Trouble {
            slow_down: false,
            stage: attempt.stage,
            words: words(attempt),
            finding: (*finding).clone(),
        },
    })
}

fn words(attempt: &Attempt) -> String {
    let said = match &attempt.result {
        Ok(reply) | Err(RelayError::Refused { reply, .. }) => {
            let status = reply
                .enhanced
                .map_or_else(String::new, |it| format!("{it} "));
            format!("{} {status}{}", reply.code, reply.text().replace('\n', " "))
        }
        Err(error) => error.to_string(),
    };
    printable(said.as_bytes(), WORDS_MAXIMUM)
}

fn reached(delivery: &Delivery) -> Option<Stage> {
    delivery
        .attempts
        .iter()
        .filter(|it| {
            matches!(
                it.result,
                Ok(_)
                    | Err(RelayError::Refused { .. }
                        | RelayError::TooLarge { .. }
                        | RelayError::Unsupported { .. })
            )
        })
        .map(|it| it.stage)
        .max()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::mail::Notify;
    use crate::smtp::Reply;
    use proptest::prelude::*;

    fn settled(envelope: &Envelope, delivery: &Delivery, now: Timestamp) -> Settlement {
        settle(envelope, delivery, &policy(&Health::default()), now, 0.5)
    }

    fn policy(health: &Health) -> Policy<'_> {
        Policy {
            retry: &RETRY,
            rules: Rules::compiled_in(),
            health,
        }
    }

    fn statuses(envelope: &Envelope) -> Vec<RecipientStatus> {
        envelope.recipients.iter().map(|it| it.status).collect()
    }

    fn held(envelope: &Envelope) -> Option<HoldReason> {
        match &envelope.state {
            State::Held(hold) => Some(hold.reason),
            State::Waiting { .. } => None,
        }
    }

    fn later_than(envelope: &Envelope) -> Option<Timestamp> {
        match envelope.state {
            State::Waiting { not_before } => not_before,
            State::Held(_) => None,
        }
    }

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
        assert_eq!(overdue(&first, &policy(&health), at(239)), None);
        let (warned, report) = overdue(&first, &policy(&health), at(240)).unwrap();
        assert_eq!(report.unwrap().kind, ReportKind::Delayed);
        assert_eq!(overdue(&warned, &policy(&health), at(241)), None);
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
            assert_eq!(
                (now.first_failure, now.attempts, later_than(now)),
                (None, 0, None),
                "{result:?}"
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
    fn no_part_of_a_message_starves_behind_another() {
        let mut message = envelope(&["a@x.nl", "b@x.nl", "c@x.nl"]);
        let mut tried = Vec::new();
        for step in 0..6 {
            let part = in_turn(&message, 1);
            tried.push(part[0]);
            let mut one = delivery(at(step), vec![refused(Stage::Recipient, "450 later")]);
            one.attempts[0].recipient = part[0];
            message = settled(&message, &one, at(step)).envelope;
            if step < 2 {
                assert_eq!(later_than(&message), None, "the other parts go at once");
            }
        }
        assert_eq!(tried, [0, 1, 2, 0, 1, 2]);
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
            }
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
                    prop_assert!(!null && first.is_some_and(|it| it <= -4 * 1440));
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
}
