//! Changing what waits: by an administrator, or because a relay's trouble is over.

use jiff::Timestamp;
use tracing::{info, warn};

use crate::control::protocol::Action;
use crate::mail::{
    Diagnostic, EnhancedStatus, Envelope, Hold, HoldReason, Origin, Past, PastEvent, QueueId,
    RecipientStatus, Rule, Stage, State,
};
use crate::outcome::report::Item;
use crate::outcome::settle::{at_once, released_from_hold};
use crate::outcome::{Report, ReportKind};
use crate::spool::{self, SpoolError, Waiting};

use super::delivery::Delivery;
use super::desk::{Change, Changed};

impl Delivery {
    /// Does what an administrator wants done.
    pub(super) async fn change(&mut self, change: Change) {
        let Change {
            ids,
            action,
            by,
            note,
            done,
        } = change;
        let result = self.change_all(ids, &action, &by, &note).await;
        // The administrator may have gone; it is done all the same.
        done.send(result.map_err(|error| error.to_string())).ok();
    }

    /// Changes each of these messages that is not so already.
    pub(super) async fn change_all(
        &mut self,
        ids: Vec<QueueId>,
        action: &Action,
        by: &str,
        note: &str,
    ) -> Result<Changed, SpoolError> {
        let now = self.office.clock.now();
        let mut told = Changed::default();
        let mut pairs = Vec::new();
        let mut changes = Vec::new();
        for id in ids {
            if self.sending.contains_key(&id) {
                told.sending += 1;
                continue;
            }
            let next = match self.spool.envelope(id).await? {
                None => None,
                Some(before) => changed(&before, action, by, note, now)
                    .map(|next| self.moved(&before, next, now))
                    .map(|next| (before, next)),
            };
            let Some((before, next)) = next else {
                told.unchanged += 1;
                continue;
            };
            let reports = match action {
                Action::Fail => failure(&before, &next),
                _ => Vec::new(),
            };
            let reports = self
                .office
                .compose(&self.spool, &next, &reports, None, now)
                .await?;
            let told_of: Vec<Envelope> = reports.iter().map(|it| it.0.clone()).collect();
            changes.push(spool::Change {
                envelope: next.clone(),
                by: by.to_owned(),
                reports,
            });
            pairs.push((before, next, told_of));
            told.changed += 1;
        }
        self.spool.change(changes).await?;
        for (before, next, reports) in pairs {
            if matches!(action, Action::Hold) {
                self.facts.relays.held(&next.relay, 1);
            }
            info!(queue_id = %next.id, action = action.verb(), by, note, relay = next.relay, "changed");
            self.replaced(&before, &next);
            for report in &reports {
                self.waits_again(report);
            }
        }
        Ok(told)
    }

    /// A message that changes its relay takes with it how long the old one was paused:
    /// waiting for it counts no more on the new one than it did before.
    pub(super) fn moved(
        &mut self,
        before: &Envelope,
        mut next: Envelope,
        now: Timestamp,
    ) -> Envelope {
        if next.relay != before.relay {
            let health = &self.book(&before.relay).health;
            next.first_failure = next.first_failure.map(|it| health.without_pauses(it, now));
        }
        next
    }

    /// A message in the spool became another one.
    pub(super) fn replaced(&mut self, before: &Envelope, next: &Envelope) {
        if let Some(item) = Waiting::of(before) {
            self.release.removed(&item, self.office.clock.moment());
        }
        self.waits_again(next);
    }

    /// Lets messages go at once that stepped aside for a relay's trouble that is over.
    pub(super) async fn call_back(&mut self, relay: &str, ids: Vec<QueueId>) {
        let mut pairs = Vec::new();
        let mut unanswered = Vec::new();
        for id in ids {
            let before = match self.spool.envelope(id).await {
                Ok(Some(before)) => before,
                Err(trouble) if trouble.is_of_index() => {
                    unanswered.push(id);
                    continue;
                }
                Ok(None) | Err(_) => continue,
            };
            let waits = matches!(before.state, State::Waiting { .. });
            if !waits || before.relay != relay || self.sending.contains_key(&id) {
                continue;
            }
            let state = State::Waiting { not_before: None };
            let next = Envelope {
                state,
                ..before.clone()
            };
            pairs.push((before, next));
        }
        if !unanswered.is_empty() {
            let relay = relay.to_owned();
            self.later.called_back.push((relay, unanswered));
        }
        let changes = pairs.iter().map(|(_, next)| spool::Change {
            envelope: next.clone(),
            by: "penstock".to_owned(),
            reports: Vec::new(),
        });
        if let Err(trouble) = self.spool.change(changes.collect()).await {
            warn!(%trouble, relay, "cannot call back what stepped aside; it keeps its time");
            return;
        }
        for (before, next) in pairs {
            self.replaced(&before, &next);
        }
    }
}

/// The message as an administrator wants it; none when it is so already.
pub(super) fn changed(
    before: &Envelope,
    action: &Action,
    by: &str,
    note: &str,
    now: Timestamp,
) -> Option<Envelope> {
    let mut next = before.clone();
    let held = matches!(before.state, State::Held(_));
    match action {
        Action::Hold if held => return None,
        Action::Hold => {
            next.state = State::Held(Hold {
                reason: HoldReason::Administrator,
                by: by.to_owned(),
                since: now,
                note: note.to_owned(),
            });
        }
        Action::Release if !held => return None,
        Action::Release => next = released_from_hold(before, now),
        // What is held stays held: releasing it is another verb.
        Action::Retry if held || is_due(before, now) => return None,
        Action::Retry => next.state = at_once(before, now),
        Action::Reroute { to } if *to == before.relay && before.rule == Rule::Rerouted => {
            return None;
        }
        // Through another relay it would prove nothing about its own.
        Action::Reroute { .. } if before.origin == Origin::Verification => return None,
        Action::Reroute { to } => {
            next.relay.clone_from(to);
            next.rule = Rule::Rerouted;
            if !held {
                next.state = at_once(before, now);
            }
        }
        Action::Delete => end(&mut next, RecipientStatus::Deleted, None),
        Action::Fail => {
            let reason = match note {
                "" => "given up by an administrator".to_owned(),
                words => format!("given up by an administrator: {words}"),
            };
            let said = Diagnostic {
                at: now,
                stage: Stage::Quit,
                server: String::new(),
                code: None,
                enhanced: Some(EnhancedStatus::new(5, 7, 0)),
                text: reason,
                in_doubt: false,
            };
            end(&mut next, RecipientStatus::Failed, Some(&said));
        }
    }
    let event = match action {
        Action::Hold => Some(PastEvent::Held),
        Action::Release => Some(PastEvent::Released),
        Action::Retry => Some(PastEvent::Retried),
        Action::Reroute { .. } => Some(PastEvent::Rerouted),
        // The history tells who ended it.
        Action::Delete | Action::Fail => None,
    };
    if let Some(event) = event {
        let words = match action {
            Action::Reroute { to } => format!("by {by} to {to} {note}"),
            _ => format!("by {by} {note}"),
        };
        next.remember(Past {
            at: now,
            event,
            recipient: None,
            said: None,
            note: words.trim_end().to_owned(),
            rule: (event == PastEvent::Rerouted).then(|| before.rule.clone()),
        });
    }
    Some(next)
}

fn is_due(envelope: &Envelope, now: Timestamp) -> bool {
    match envelope.state {
        State::Waiting { not_before } => not_before.is_none_or(|it| it <= now),
        State::Held(_) => false,
    }
}

/// Settles whoever still waits.
fn end(envelope: &mut Envelope, status: RecipientStatus, said: Option<&Diagnostic>) {
    for recipient in &mut envelope.recipients {
        if recipient.status == RecipientStatus::Waiting {
            recipient.status = status;
            if let Some(said) = said {
                let in_doubt = recipient.last.as_ref().is_some_and(|it| it.in_doubt);
                recipient.last = Some(Diagnostic {
                    in_doubt,
                    ..said.clone()
                });
            }
        }
    }
}

/// The report about a message that an administrator gave up.
fn failure(before: &Envelope, next: &Envelope) -> Vec<Report> {
    let items = before.waiting().map(|(recipient, _)| Item {
        recipient,
        finding: None,
    });
    Report::of(next, ReportKind::Failed, items.collect())
        .into_iter()
        .collect()
}
