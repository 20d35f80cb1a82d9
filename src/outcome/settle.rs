//! From what a delivery came to, to what becomes of the message: pure, because every
//! mistake here costs somebody's mail.

use std::time::Duration;

use jiff::Timestamp;

use crate::mail::text::printable;
use crate::mail::{
    Envelope, Hold, HoldReason, Past, PastEvent, Recipient, RecipientStatus, ReversePath, Stage,
    State,
};
use crate::relay::{Attempt, Delivery, RelayError};

use super::backoff;
use super::finding::{Action, Class, Finding};
use super::pause::Health;
use super::policy::Policy;
use super::report::{Item, Report, ReportKind};
use super::settlement::{Released, Settlement, Suspicion, Trouble};
use super::spells::{between, later};
use super::turns::is_due;
use super::verdict::{
    FIRST_AWAY, Verdict, WORDS_MAXIMUM, classify_again, diagnostic, judge_all, may_end, recalled,
};

/// Decides what becomes of a message after one delivery. `jitter` is from 0 to 1.
pub fn settle(
    envelope: &Envelope,
    delivery: &Delivery,
    policy: &Policy<'_>,
    now: Timestamp,
    jitter: f64,
) -> Settlement {
    let mut judged = judge_all(envelope, delivery, policy.rules);
    own_up(envelope, &mut judged, policy.health, now);
    the_rest_next(&mut judged);
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
    let expired = failing
        && policy.health.tried_for(&next, now) >= policy.retry.expire_after
        && next.attempts >= backoff::least_attempts(policy.retry);
    // The time counts for the whole message: a recipient whose part of it had no turn
    // before has its first try now.
    let gives_up =
        |attempt: &Attempt| expired && was_tried(&envelope.recipients[attempt.recipient]);
    if expired {
        for (attempt, verdict) in &mut judged {
            if let Verdict::Retry(finding) = verdict
                && gives_up(attempt)
                && !may_end(envelope, &envelope.recipients[attempt.recipient])
            {
                *verdict = Verdict::Hold(HoldReason::DoubleBounce, finding.clone());
            }
        }
    }

    let mut reported: Vec<(ReportKind, Item)> = Vec::new();
    let mut past = Vec::new();
    for (attempt, verdict) in &judged {
        let recipient = &mut next.recipients[attempt.recipient];
        let earlier_doubt = recipient.last.as_ref().is_some_and(|it| it.in_doubt);
        if let Some(mut said) = diagnostic(attempt, &delivery.server) {
            said.in_doubt |= earlier_doubt && *verdict != Verdict::Delivered;
            if let Some(earlier) = recipient.last.replace(said) {
                past.push(Past {
                    at: earlier.at,
                    event: PastEvent::Deferred,
                    recipient: Some(attempt.recipient),
                    said: Some(earlier),
                    note: String::new(),
                    rule: None,
                });
            }
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
            Verdict::Retry(finding) if gives_up(attempt) => {
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

    past.into_iter().for_each(|it| next.remember(it));
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

/// One message does not pause a relay that takes others: what it met after MAIL before,
/// or for one recipient while the relay took another, is its own.
fn own_up(
    envelope: &Envelope,
    judged: &mut [(&Attempt, Verdict)],
    health: &Health,
    now: Timestamp,
) {
    let own = health.is_own(envelope, now);
    let taken = judged.iter().any(|(_, it)| *it == Verdict::Delivered);
    for it in judged {
        let one_of_many = taken && it.0.stage == Stage::Recipient;
        if is_aside(it)
            && (own || one_of_many)
            && let Verdict::Wait(finding) = &it.1
        {
            it.1 = Verdict::Retry(Finding {
                action: Action::Retry,
                ..finding.clone()
            });
        }
    }
}

/// "Too many recipients" beside some whose fate is decided is no failure: the rest goes
/// in further transactions at once (RFC 5321 section 4.5.3.1.10).
fn the_rest_next(judged: &mut [(&Attempt, Verdict)]) {
    if !judged.iter().any(|it| is_decided(&it.1)) {
        return;
    }
    for (attempt, verdict) in judged {
        if attempt.stage == Stage::Recipient
            && let Verdict::Retry(finding) = verdict
            && finding.class == Class::TooManyRecipients
        {
            *verdict = Verdict::Untried { ours: false };
        }
    }
}

fn is_decided(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Delivered | Verdict::Fail(_))
}

/// Whether a message waits for its relay although the relay began to listen to it: the
/// next probe had better be another message.
fn is_aside((attempt, verdict): &(&Attempt, Verdict)) -> bool {
    matches!(verdict, Verdict::Wait(_)) && attempt.stage >= Stage::Mail
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
    next.state = at_once(&next, now);
    next
}

/// May go at once; one that failed keeps since when, so that waiting for budget from
/// here on does not count, and so does one of whose parts some were tried before: all of
/// them go now.
pub fn at_once(envelope: &Envelope, now: Timestamp) -> State {
    let mut waiting = envelope.waiting().map(|(_, it)| it);
    let in_parts = envelope.waiting().count() > 1 && waiting.any(|it| it.last.is_some());
    State::Waiting {
        not_before: (envelope.first_failure.is_some() || in_parts).then_some(now),
    }
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
    let Some(due) = due(envelope) else {
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

/// Since when a message may leave: what it waits longer is for budget, or for its relay.
fn due(envelope: &Envelope) -> Option<Timestamp> {
    match envelope.state {
        // The other parts of a message go at once when one was tried.
        State::Waiting { not_before } => {
            let tried = envelope.recipients.iter().filter_map(|it| it.last.as_ref());
            tried.map(|it| it.at).max().max(not_before)
        }
        State::Held(_) => None,
    }
}

/// Whether a relay was ever asked about this recipient.
fn was_tried(recipient: &Recipient) -> bool {
    let last = recipient.last.as_ref();
    last.is_some_and(|it| {
        // Our own trouble has neither code nor status; and that the relay's first server is
        // away is the relay's trouble, whatever the second one lacks.
        let asked = it.code.is_some() || it.enhanced.is_some_and(|it| it != FIRST_AWAY);
        it.stage >= Stage::Mail && asked
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
    if !this_time(|it| !matches!(it, Verdict::Untried { .. })) {
        return before.state.clone();
    }
    let progress = this_time(is_decided);
    // What leaves ahead of its time (as a probe, or because the clock was set back) begins no
    // round for those who were tried before.
    let round = match &before.state {
        State::Waiting {
            not_before: Some(due),
        } if *due > now => State::Waiting { not_before: None },
        other => other.clone(),
    };
    let kinds: Vec<Verdict> = next
        .waiting()
        .map(|(place, recipient)| {
            let told = judged.iter().find(|(it, _)| it.recipient == place);
            match told {
                // Whoever was left out of it, and failed before, is no reason to hurry, or a
                // relay that takes one recipient at a time would be asked without end.
                Some((_, Verdict::Untried { .. })) if !progress => {
                    recalled(next, recipient, policy, now)
                }
                Some((_, verdict)) => verdict.clone(),
                None if is_due(recipient, &round, now) => Verdict::Untried { ours: false },
                None => match recalled(next, recipient, policy, now) {
                    // What was in their way is gone: the relay takes recipients.
                    Verdict::Wait(_) if progress => Verdict::Untried { ours: false },
                    Verdict::Retry(it) if progress && it.class == Class::TooManyRecipients => {
                        Verdict::Untried { ours: false }
                    }
                    verdict => verdict,
                },
            }
        })
        .collect();
    let failed_again = this_time(|it| matches!(it, Verdict::Retry(_)));
    if this_time(|it| matches!(it, Verdict::Wait(_))) {
        return if failed_again {
            again()
        } else if judged.iter().any(is_aside) {
            State::Waiting {
                not_before: Some(later(now, policy.health.aside(policy.retry, now, jitter))),
            }
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
            round
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

/// The time of the next try: later each time, and once exactly when the warning or the
/// expiry is due.
fn next_try(envelope: &Envelope, policy: &Policy<'_>, now: Timestamp, jitter: f64) -> Timestamp {
    let tried = policy.health.tried_for(envelope, now);
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
            let due = due(envelope).map_or(now, |it| it.min(now));
            // Between due and now it waits for its relay, or for budget.
            between(first, due) + policy.health.paused_between(due, now)
        }
        None => policy.health.paused_between(envelope.accepted, now),
    };
    if waited < policy.retry.warn_after {
        return None;
    }
    envelope.warned = true;
    envelope.remember(Past {
        at: now,
        event: PastEvent::Warned,
        recipient: None,
        said: None,
        note: String::new(),
        rule: None,
    });
    let items = envelope
        .waiting()
        .filter(|(_, it)| it.notify.delay())
        // What only waits until the others are through, to be held, is not delayed: time
        // does not mend it, and a report that says so would contradict the server's words.
        .filter(|(_, it)| {
            let meant = recalled(envelope, it, policy, now);
            !matches!(meant, Verdict::Hold(..))
        })
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
                        | RelayError::NotHere { .. }
                        | RelayError::Chunking { .. }
                        | RelayError::Unsupported { .. })
            )
        })
        .map(|it| it.stage)
        .max()
}
