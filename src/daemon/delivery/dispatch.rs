//! From grants to transactions, and what came of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::config::Relay;
use crate::mail::{Envelope, Origin, Rule, State};
use crate::outcome::lost;
use crate::release::Grant;
use crate::spool::{FlowKey, Lease, Leased, Released, Settled, SpoolError, Waiting};
use crate::verify;

use crate::daemon::alarms::Kind;
use crate::daemon::desk::Event;
use crate::daemon::transaction::{End, Ended};

use super::{DISK_PAUSE, Delivery, Sending};

/// While a probe is on its way no other one goes; this long at most.
pub(super) const PROBE_PATIENCE: Duration = Duration::from_secs(20 * 60);

impl Delivery {
    /// Writes grants down and starts their transactions; returns how many were started.
    pub(super) async fn start(&mut self, grants: Vec<Grant>) -> Result<usize, SpoolError> {
        let live = self.live.clone();
        let at = self.office.clock.moment();
        let mut by_relay: BTreeMap<Arc<str>, Vec<Grant>> = BTreeMap::new();
        for grant in grants {
            by_relay.entry(grant.relay.clone()).or_default().push(grant);
        }
        // Together they wait for one sync.
        let mut leases = JoinSet::new();
        for (relay, grants) in &by_relay {
            let items = grants.iter().map(|grant| Leased {
                grant: grant.grant,
                id: grant.id,
                recipients: grant.recipients,
                wire_bytes: grant.wire_bytes,
            });
            let lease = Lease {
                relay: relay.to_string(),
                at,
                items: items.collect(),
            };
            let spool = self.spool.clone();
            leases.spawn(async move { spool.lease(lease).await });
        }
        let mut written = Ok(());
        for lease in leases.join_all().await {
            written = written.and(lease);
        }
        let mut started = 0;
        let mut unused = Vec::new();
        for grant in by_relay.into_values().flatten() {
            let relay = live.config.relays.get(&*grant.relay);
            // The configuration may have changed since the plan: a relay that nobody has
            // confirmed as it is now gets nothing but its test message.
            let is_open = |it: &&Relay| {
                grant.flow.mailing == verify::MAILING || self.office.confirmations.is_active(it)
            };
            let (Ok(()), Some(relay)) = (&written, relay.filter(is_open)) else {
                self.release.unstarted(grant.grant, at);
                unused.push(grant.grant);
                if let Some(relay) = relay {
                    self.open_or_close(relay);
                }
                continue;
            };
            started += 1;
            self.facts.began();
            self.sending.insert(grant.id, Sending { since: at.wall });
            let until = at
                .wall
                .checked_add(PROBE_PATIENCE)
                .unwrap_or(Timestamp::MAX);
            let book = self.book(&grant.relay);
            book.sending += 1;
            book.health.probing(until);
            let health = Arc::new(book.health.clone());
            let relay = Arc::new(relay.clone());
            let (office, desk) = (self.office.clone(), self.desk.clone());
            let lost = self.told_as_lost(grant.clone());
            let carried_out = async move {
                let ended = office.carry_out(grant, relay, health).await;
                // The desk is gone only when the daemon has stopped.
                desk.tell(Event::Ended(Box::new(ended))).await.ok();
            };
            self.office.lifecycle.spawn_or(carried_out, lost);
        }
        self.give_back(unused).await;
        written.map(|()| started)
    }

    /// Tells of the end of a transaction that panicked: else its message would count as
    /// being sent for ever, and the relay would have a connection less.
    fn told_as_lost(&self, grant: Grant) -> impl FnOnce() + Send + use<> {
        let (desk, lifecycle) = (self.desk.clone(), self.office.lifecycle.clone());
        move || {
            let ended = Box::new(Ended {
                grant,
                end: End::Lost,
            });
            lifecycle.spawn(async move {
                desk.tell(Event::Ended(ended)).await.ok();
            });
        }
    }

    /// Has the log forget leases that were not used; one that stays in it counts as used
    /// after the next start, which is the safe mistake.
    async fn give_back(&self, grants: Vec<u64>) {
        if grants.is_empty() {
            return;
        }
        if let Err(trouble) = self.spool.unlease(grants).await {
            debug!(%trouble, "unused leases stay in the log");
        }
    }

    /// A transaction is over.
    pub(super) async fn ended(&mut self, ended: Ended) {
        let now = self.office.clock.moment();
        let Ended { grant, end } = ended;
        self.facts.ended();
        self.sending.remove(&grant.id);
        let relay = grant.relay.to_string();
        let book = self.book(&relay);
        book.sending -= 1;
        match end {
            End::Unstarted { trouble } => {
                self.no_probe(&relay, now.wall);
                self.release.unstarted(grant.grant, now);
                self.give_back(vec![grant.grant]).await;
                if let Some(trouble) = trouble {
                    warn!(queue_id = %grant.id, %trouble, "cannot read a message");
                    self.disk_pause = Some(Instant::now() + DISK_PAUSE);
                }
            }
            End::Gone => {
                self.no_probe(&relay, now.wall);
                self.release.settled(grant.grant, Released::NotSent, now);
                self.give_back(vec![grant.grant]).await;
            }
            // The log knows what was begun; the next start counts it.
            End::CutOff => {}
            End::Lost => {
                error!(queue_id = %grant.id, relay, "a mistake of ours ended a transaction; the message may have been delivered, and is tried again once");
                self.no_probe(&relay, now.wall);
                let released = Released::InDoubt { at: now };
                self.release.settled(grant.grant, released, now);
                if let Err(trouble) = self.put_off(&grant, released).await {
                    warn!(queue_id = %grant.id, %trouble, "cannot put a message off");
                    // Then it is found with everything else that waits.
                    self.rebuilding = true;
                }
            }
            End::Settled(outcome) => {
                self.release.settled(grant.grant, outcome.released, now);
                self.facts.count(
                    &outcome.before,
                    &outcome.settlement,
                    grant.wire_bytes,
                    outcome.took,
                );
                self.clear(Kind::NothingLeaves, Some(&relay));
                let retry = self.live.config.retry;
                let book = self.book(&relay);
                book.idle_since = None;
                if outcome.settlement.delivered {
                    book.last_success = Some(outcome.at);
                } else if let Some(said) = last_words(&outcome.settlement.envelope) {
                    book.last_failure = Some((outcome.at, said));
                }
                let change =
                    book.health
                        .learn(&outcome.settlement, &retry, now.wall, rand::random());
                self.health_changed(&relay, change).await;
                if outcome.before.origin == Origin::Verification {
                    self.test_ended(&outcome).await;
                }
                self.waits_again(&outcome.settlement.envelope);
                for report in &outcome.reports {
                    self.waits_again(report);
                }
            }
        }
    }

    /// Ends a transaction that nobody knows the end of.
    async fn put_off(&mut self, grant: &Grant, released: Released) -> Result<(), SpoolError> {
        let now = self.office.clock.now();
        let Some(before) = self.spool.envelope(grant.id).await? else {
            return Ok(());
        };
        // Then its end was written down before the mistake.
        if before.is_finished() || !matches!(before.state, State::Waiting { .. }) {
            return Ok(());
        }
        let retry = &self.live.config.retry;
        let next = lost(
            &before,
            grant.recipients as usize,
            retry,
            now,
            rand::random(),
        );
        self.spool
            .settle(Settled {
                envelope: next.clone(),
                grant: grant.grant,
                released,
                reports: Vec::new(),
            })
            .await?;
        self.waits_again(&next);
        Ok(())
    }

    /// A message is in the spool in a new state: whatever is left of it waits.
    pub(in crate::daemon) fn waits_again(&mut self, envelope: &Envelope) {
        let Some(item) = Waiting::of(envelope) else {
            return;
        };
        match item.not_before {
            Some(at) => {
                let book = self.book(&envelope.relay);
                book.next_retry = Some(book.next_retry.map_or(at, |it| it.min(at)));
            }
            None => {
                self.relays.entry(envelope.relay.clone()).or_default();
                self.release.waiting(&item, self.office.clock.moment());
            }
        }
        // These two were sent where they are on purpose.
        if !matches!(envelope.rule, Rule::Own | Rule::Rerouted) {
            self.sort_flows([FlowKey::of(envelope)]);
        }
    }

    /// What went as a probe never reached the relay.
    fn no_probe(&mut self, relay: &str, now: Timestamp) {
        let retry = self.live.config.retry;
        self.book(relay).health.no_probe(&retry, now);
    }
}

/// What a relay last said about any recipient, on one line.
fn last_words(envelope: &Envelope) -> Option<String> {
    let said = envelope.recipients.iter().filter_map(|it| it.last.as_ref());
    said.max_by_key(|it| it.at)
        .map(|it| it.text.replace('\n', " / "))
}
