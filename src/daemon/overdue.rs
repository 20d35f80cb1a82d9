//! Warning the senders of what waits too long for a relay that is paused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use crate::mail::{Envelope, QueueId, State};
use crate::outcome::settle::overdue;
use crate::outcome::{Policy, Report};
use crate::spool::{self, Filter, SpoolError};

use super::delivery::Delivery;
use super::look::{Found, Look, Search};

/// Messages that are warned of at a time: for each a report is written.
const STEP: usize = 50;
/// How often a relay's messages are looked at from the first on. In between, those in
/// front that need no warning any more are passed over; what comes back among them, from
/// a hold say, is found then.
const WHOLE: SignedDuration = SignedDuration::from_hours(1);

/// Messages that are looked at in a minute and need no warning: a million that wait for
/// budget must not be read every minute because their relay was paused for a moment.
const LOOKED_AT: usize = 100_000;

/// What is known of those who wait for a relay.
#[derive(Default)]
pub(in crate::daemon) struct Warned {
    look: Option<(Look, Arc<Mutex<Front>>)>,
    /// Where the last look ended before it had seen everybody.
    left_off: Option<(QueueId, bool)>,
    /// Up to here nobody needs a warning.
    up_to: Option<QueueId>,
    /// When they were looked at from the first on.
    whole: Option<Timestamp>,
}

/// The messages in front that need no warning any more, as a look goes on.
#[derive(Debug, Default)]
struct Front {
    up_to: Option<QueueId>,
    is_over: bool,
    /// How many need none, or not yet.
    passed: usize,
}

impl Front {
    fn pass(&mut self, envelope: &Envelope, is_overdue: bool) {
        let may_need_one = matches!(envelope.state, State::Waiting { .. }) && !envelope.warned;
        self.is_over |= may_need_one && !is_overdue;
        if !self.is_over {
            self.up_to = Some(envelope.id);
        }
        self.passed += usize::from(!is_overdue);
    }
}

impl Delivery {
    /// Looks for what waits too long for a relay, unless a look is under way.
    pub(super) fn warn_of_delay(&mut self, relay: &str) {
        let now = self.office.clock.now();
        let live = self.office.live.borrow().clone();
        let retry = live.config.retry;
        let warned = &mut self.book(relay).warned;
        if warned.look.as_ref().is_some_and(|it| it.0.is_under_way()) {
            return;
        }
        if let Some((look, front)) = warned.look.take()
            && let Some(end) = look.end()
        {
            let front = lock(&front);
            warned.up_to = front.up_to;
            warned.left_off = end.map(|it| (it, front.is_over));
        }
        let fresh = |it: Timestamp| now.duration_since(it).abs() < WHOLE;
        if warned.left_off.is_none() && !warned.whole.is_some_and(fresh) {
            warned.whole = Some(now);
            warned.up_to = None;
        }
        let after = warned.left_off.map(|it| it.0).or(warned.up_to);
        let front = Arc::new(Mutex::new(Front {
            up_to: warned.up_to,
            is_over: warned.left_off.is_some_and(|it| it.1),
            passed: 0,
        }));
        let (health, rules) = (
            self.book(relay).health.clone(),
            self.office.rules.borrow().clone(),
        );
        let (passing, counted) = (front.clone(), front.clone());
        let name = relay.to_owned();
        let look = self.look(Search {
            filter: Filter {
                relay: Some(relay.to_owned()),
                // What is younger has not waited for so long.
                accepted_before: now.checked_sub(retry.warn_after).ok(),
                ..Filter::default()
            },
            after: after.unwrap_or(QueueId::MIN),
            step: STEP,
            keep: Arc::new(move |it| {
                let policy = Policy {
                    retry: &retry,
                    rules: &rules,
                    health: &health,
                };
                let is_overdue = overdue(it, &policy, now).is_some();
                lock(&passing).pass(it, is_overdue);
                is_overdue
            }),
            found: Box::new(move |ids| Found::Overdue(name.clone(), ids)),
            is_enough: Box::new(move || lock(&counted).passed >= LOOKED_AT),
        });
        self.book(relay).warned.look = Some((look, front));
    }

    /// Warns the senders of these messages, as far as they still wait for too long.
    pub(super) async fn warn_of(
        &mut self,
        relay: &str,
        ids: Vec<QueueId>,
    ) -> Result<(), SpoolError> {
        let live = self.office.live.borrow().clone();
        let now = self.office.clock.now();
        let health = self.book(relay).health.clone();
        let rules = self.office.rules.borrow().clone();
        let policy = Policy {
            retry: &live.config.retry,
            rules: &rules,
            health: &health,
        };
        let (mut changes, mut told) = (Vec::new(), Vec::new());
        for id in ids {
            if self.sending.contains_key(&id) {
                continue;
            }
            let before = match self.spool.envelope(id).await {
                Ok(Some(before)) if before.relay == relay => before,
                Ok(_) => continue,
                Err(trouble) if trouble.is_of_index() => return Err(trouble),
                Err(trouble) => {
                    warn!(queue_id = %id, %trouble, "cannot warn of a delay");
                    continue;
                }
            };
            let Some((next, report)) = overdue(&before, &policy, now) else {
                continue;
            };
            let reports: Vec<Report> = report.into_iter().collect();
            let gives_up = health.gives_up(&next, &live.config.retry, now);
            let composed = self
                .office
                .compose(&self.spool, &next, &reports, gives_up, now)
                .await;
            let reports = match composed {
                Ok(reports) => reports,
                Err(trouble) if trouble.is_of_index() => return Err(trouble),
                // One message must not keep the warnings of all others back.
                Err(trouble) => {
                    warn!(queue_id = %id, %trouble, "cannot warn of a delay");
                    continue;
                }
            };
            told.extend(reports.iter().map(|it| it.0.clone()));
            changes.push(spool::Change {
                envelope: next,
                by: "penstock".to_owned(),
                reports,
            });
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.spool.change(changes).await?;
        for report in &told {
            self.waits_again(report);
        }
        Ok(())
    }
}

fn lock(front: &Mutex<Front>) -> MutexGuard<'_, Front> {
    front.lock().unwrap_or_else(PoisonError::into_inner)
}
