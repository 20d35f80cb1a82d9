//! One transaction with a relay, from its grant to its record in the spool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::accept::Live;
use crate::clock::Clock;
use crate::config::Relay;
use crate::control::describe;
use crate::mail::{
    Envelope, Hold, HoldReason, Mailbox, Origin, QueueId, RecipientStatus, ReversePath, State,
};
use crate::oauth::Tokens;
use crate::outcome::report::HEADER_MAXIMUM_BYTES;
use crate::outcome::{Health, Policy, Report, Rules, Settlement, in_turn, report, settle};
use crate::relay::{Blocks, Boxed, Delivery, Job, Pool, Transcript};
use crate::release::Grant;
use crate::spool::{Content, ContentReader, Released, Settled, Spool, SpoolError};
use crate::verify::Confirmations;

use super::lifecycle::{Lifecycle, Phase};

/// How long to wait before the end of a transaction is written down again, when it
/// could not be: until then nothing else happens to the message.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// All that a transaction needs; one for the whole daemon.
pub struct Office {
    /// The waiting mail.
    pub spool: Spool,
    /// The connections.
    pub pool: Pool,
    /// What some relays want instead of a password.
    pub tokens: Tokens,
    /// The configuration in use.
    pub live: watch::Receiver<Arc<Live>>,
    /// What refusals mean.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// What the time is.
    pub clock: Clock,
    /// When to give up.
    pub lifecycle: Lifecycle,
    /// Which relays are confirmed.
    pub confirmations: Confirmations,
}

/// How a transaction ended.
pub struct Ended {
    /// The grant that it used.
    pub grant: Grant,
    /// What came of it.
    pub end: End,
}

/// What came of a transaction.
pub enum End {
    /// It was not begun: its turn had passed, or we are stopping, or the spool did not
    /// give the message out (and then it is not tried again at once).
    Unstarted {
        /// What the spool said.
        trouble: Option<SpoolError>,
    },
    /// The message is not there any more, or may not leave.
    Gone,
    /// We had to stop in the middle of it.
    CutOff,
    /// A mistake of ours ended it, and nobody knows where.
    Lost,
    /// A relay was asked, and the answer is in the spool.
    Settled(Box<Outcome>),
}

/// What a relay made of a message.
pub struct Outcome {
    /// The message before.
    pub before: Envelope,
    /// What it used of the budget.
    pub released: Released,
    /// What it means; the envelope in it is the one in the spool now.
    pub settlement: Settlement,
    /// The reports that were accepted with it.
    pub reports: Vec<Envelope>,
    /// The host that was spoken to.
    pub server: String,
    /// When it was over.
    pub at: Timestamp,
    /// What was said, when it was a test message.
    pub conversation: Option<Transcript>,
    /// How long it took, connecting included.
    pub took: Duration,
}

impl Office {
    /// Whether mail may go to the relay of this name.
    pub fn is_active(&self, live: &Live, relay: &str) -> bool {
        let relay = live.config.relays.get(relay);
        relay.is_some_and(|it| self.confirmations.is_active(it))
    }

    /// Carries out one grant.
    pub async fn carry_out(&self, grant: Grant, relay: Arc<Relay>, health: Arc<Health>) -> Ended {
        #[cfg(test)]
        assert_ne!(&*grant.relay, "panics", "a mistake that a test ordered");
        let end = match self.begin(&grant).await {
            Ok(Some(envelope)) => self.deliver(&grant, envelope, relay, &health).await,
            Ok(None) => End::Gone,
            Err(trouble) => End::Unstarted { trouble },
        };
        Ended { grant, end }
    }

    /// The message, if it still may leave now.
    async fn begin(&self, grant: &Grant) -> Result<Option<Envelope>, Option<SpoolError>> {
        if self.lifecycle.is_stopping() {
            return Err(None);
        }
        let envelope = match self.spool.envelope(grant.id).await {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return Ok(None),
            // The spool holds it: it must not keep the others waiting.
            Err(SpoolError::Damaged { .. } | SpoolError::Unreadable { .. }) => return Ok(None),
            Err(trouble) => return Err(Some(trouble)),
        };
        let may_leave = matches!(envelope.state, State::Waiting { .. })
            && envelope.relay == *grant.relay
            && !envelope.is_finished();
        if !may_leave {
            return Ok(None);
        }
        if grant
            .start_before
            .is_some_and(|closes| self.clock.uptime() > closes)
        {
            return Err(None);
        }
        Ok(Some(envelope))
    }

    async fn deliver(
        &self,
        grant: &Grant,
        envelope: Envelope,
        relay: Arc<Relay>,
        health: &Health,
    ) -> End {
        let live = self.live.borrow().clone();
        let config = &live.config;
        let id = envelope.id;
        let spool = self.spool.clone();
        let damaged = Arc::new(AtomicBool::new(false));
        let past_dot = Arc::new(AtomicBool::new(false));
        let dot = past_dot.clone();
        let job = Job {
            relay,
            timeouts: config.timeouts,
            hostname: config.hostname.clone(),
            recipients: in_turn(&envelope, grant.recipients as usize, self.clock.now()),
            content: Arc::new(Stored {
                spool: self.spool.clone(),
                id,
                size_bytes: envelope.size_bytes,
                damaged: damaged.clone(),
            }),
            envelope: Arc::new(envelope.clone()),
            before_dot: Arc::new(move |accepted| {
                let spool = spool.clone();
                dot.store(true, Ordering::Relaxed);
                Box::pin(async move {
                    let written = spool.final_dot(id, accepted).await;
                    written.map_err(|error| error.to_string())
                })
            }),
            start_before: grant.start_before,
            cancel: self.lifecycle.draining(),
        };
        let began = self.clock.uptime();
        // Of a test message an administrator wants to see what was said.
        let is_test = envelope.origin == Origin::Verification;
        let delivered = async {
            match is_test {
                true => {
                    let (delivery, said) = self.pool.deliver_recorded(&job).await;
                    (delivery, Some(said))
                }
                false => (self.pool.deliver(&job).await, None),
            }
        };
        let (delivery, conversation) = tokio::select! {
            delivered = delivered => delivered,
            // The log has the lease and perhaps the final dot: the next start knows.
            () = self.cut_off(&past_dot) => return End::CutOff,
        };
        if delivery.is_unstarted() {
            return End::Unstarted { trouble: None };
        }
        let moment = self.clock.moment();
        let now = moment.wall;
        let took = moment.uptime.saturating_sub(began);
        let rules = self.rules.borrow().clone();
        let policy = Policy {
            retry: &config.retry,
            rules: &rules,
            health,
        };
        let mut settlement = settle(&envelope, &delivery, &policy, now, rand::random());
        // What is written at the end of a transaction replaces the hold that the spool
        // may have noted when it found the damage.
        if damaged.load(Ordering::Relaxed) && !settlement.envelope.is_finished() {
            settlement.envelope.state = damaged_state(now);
        }
        let released = match settlement.released {
            crate::outcome::Released::Sent { .. } => Released::Sent { at: moment },
            crate::outcome::Released::NotSent => Released::NotSent,
            crate::outcome::Released::InDoubt { .. } => Released::InDoubt { at: moment },
        };
        log(&envelope, &settlement, &delivery);
        let gives_up = health.gives_up(&settlement.envelope, &config.retry, now);
        match self
            .record(grant, &settlement, released, gives_up, now)
            .await
        {
            Some(reports) => End::Settled(Box::new(Outcome {
                before: envelope,
                released,
                settlement,
                reports,
                server: delivery.server,
                at: now,
                conversation,
                took,
            })),
            // We were told to stop: the lease and the final dot in the log tell the rest.
            None => End::CutOff,
        }
    }

    /// Resolves when a stop waits no longer: for the reply to a final dot it waits longest.
    async fn cut_off(&self, past_dot: &AtomicBool) {
        self.lifecycle.reached(Phase::RepliesOnly).await;
        if past_dot.load(Ordering::Relaxed) {
            self.lifecycle.reached(Phase::Stopped).await;
        }
    }

    /// Writes down how it ended, for as long as that takes: a delivered message whose
    /// record is missing would be delivered again. None when we have to stop first.
    async fn record(
        &self,
        grant: &Grant,
        settlement: &Settlement,
        released: Released,
        gives_up: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Vec<Envelope>> {
        let mut complained = false;
        loop {
            let written = async {
                let reports = self
                    .compose(
                        &self.spool,
                        &settlement.envelope,
                        &settlement.reports,
                        gives_up,
                        now,
                    )
                    .await?;
                let told = reports.iter().map(|it| it.0.clone()).collect();
                self.spool
                    .settle(Settled {
                        envelope: settlement.envelope.clone(),
                        grant: grant.grant,
                        released,
                        reports,
                    })
                    .await?;
                Ok::<Vec<Envelope>, SpoolError>(told)
            };
            let trouble = match written.await {
                Ok(reports) => return Some(reports),
                Err(trouble) => trouble,
            };
            if !std::mem::replace(&mut complained, true) {
                error!(queue_id = %grant.id, %trouble, "cannot write down how a delivery ended; trying until it works");
            }
            tokio::select! {
                () = tokio::time::sleep(WRITE_AGAIN) => {}
                () = self.lifecycle.reached(Phase::RepliesOnly) => return None,
            }
        }
    }

    /// Writes the reports about a message: each an envelope and its content. `gives_up`
    /// is when the message is, where that can be told. The message is read from `spool`,
    /// which is the caller's: it may be one that waits for no index.
    pub async fn compose(
        &self,
        spool: &Spool,
        envelope: &Envelope,
        reports: &[Report],
        gives_up: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Vec<(Envelope, Content)>, SpoolError> {
        let mut composed = Vec::new();
        for report in reports {
            let limit = match report.returns_content(envelope) {
                true => usize::try_from(envelope.size_bytes).unwrap_or(HEADER_MAXIMUM_BYTES),
                false => HEADER_MAXIMUM_BYTES,
            };
            let returned = match spool.content(envelope.id).await {
                Ok(Some(mut content)) => content.read(limit).await.unwrap_or_default(),
                Err(trouble) if trouble.is_of_index() => return Err(trouble),
                // A report without the message is better than none.
                Ok(None) | Err(_) => Vec::new(),
            };
            let live = self.live.borrow().clone();
            let (relay, author) = way(&live, envelope, &|it| self.is_active(&live, it));
            let way = report::Way {
                id: self.spool.next_id(),
                hostname: &live.config.hostname,
                relay: &relay,
                author,
                now,
                gives_up,
            };
            let (mut written, octets) = report.compose(envelope, &returned, &way);
            written.state = State::Waiting { not_before: None };
            // What it tells must be written whatever clients hold and `min-free` keeps back.
            composed.push((written, Content::from(octets)));
        }
        Ok(composed)
    }
}

/// The content of a message in the spool.
struct Stored {
    spool: Spool,
    id: QueueId,
    size_bytes: u64,
    /// It turned out to be damaged: trying again will not mend it.
    damaged: Arc<AtomicBool>,
}

/// Notes when an error means that a content is damaged; its words.
fn noted(error: &SpoolError, damaged: &AtomicBool) -> String {
    if matches!(error, SpoolError::Damaged { .. }) {
        damaged.store(true, Ordering::Relaxed);
    }
    error.to_string()
}

/// A message whose content cannot be read waits for a person.
fn damaged_state(now: Timestamp) -> State {
    State::Held(Hold {
        reason: HoldReason::Damaged,
        by: "penstock".to_owned(),
        since: now,
        note: "its content is damaged".to_owned(),
    })
}

impl crate::relay::Content for Stored {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn open(&self) -> Boxed<'_, Result<Box<dyn Blocks>, String>> {
        Box::pin(async move {
            match self.spool.content(self.id).await {
                Ok(Some(content)) => Ok(Box::new(Reading {
                    content,
                    damaged: self.damaged.clone(),
                }) as Box<dyn Blocks>),
                Ok(None) => Err(format!("the content of {} is not in the spool", self.id)),
                Err(error) => Err(noted(&error, &self.damaged)),
            }
        })
    }
}

struct Reading {
    content: ContentReader,
    damaged: Arc<AtomicBool>,
}

impl Blocks for Reading {
    fn next(&mut self) -> Boxed<'_, Result<Option<Vec<u8>>, String>> {
        Box::pin(async move {
            let block = self.content.next().await;
            block.map_err(|error| noted(&error, &self.damaged))
        })
    }
}

/// By which relay a report leaves: where the one that its message had is gone, the one
/// that its sender has now.
fn carrier(live: &Live, envelope: &Envelope, is_active: &dyn Fn(&str) -> bool) -> String {
    let config = &live.config;
    let usual = config.bounces_via.as_ref().unwrap_or(&envelope.relay);
    if config.relays.contains_key(usual) {
        return usual.clone();
    }
    let route = live.directory.route(&envelope.from, is_active).ok();
    route
        .map(|it| it.relay)
        .or_else(|| config.default_relay.clone())
        .unwrap_or_else(|| usual.clone())
}

/// By which relay a report leaves, and from which address: one that the relay lets us use.
fn way(live: &Live, envelope: &Envelope, is_active: &dyn Fn(&str) -> bool) -> (String, Mailbox) {
    let relay = carrier(live, envelope, is_active);
    let own = live
        .config
        .relays
        .get(&relay)
        .and_then(|it| it.sender.clone());
    let author = own.unwrap_or_else(|| match &envelope.reverse_path {
        ReversePath::Mailbox(mailbox) => mailbox.clone(),
        ReversePath::Null => envelope.from.clone(),
    });
    (relay, author)
}

/// One line for each recipient that was tried.
fn log(before: &Envelope, settlement: &Settlement, delivery: &Delivery) {
    let queue_id: QueueId = before.id;
    let relay = before.relay.as_str();
    let from = before.from.to_string();
    let user = describe::user(&before.rule);
    for attempt in &delivery.attempts {
        let settled = &settlement.envelope.recipients[attempt.recipient];
        let recipient = settled.path.to_string();
        let took_ms = u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX);
        let said = settled.last.as_ref();
        let words = said
            .map(|it| it.text.replace('\n', " / "))
            .unwrap_or_default();
        let code = said.and_then(|it| it.code);
        let server = delivery.server.as_str();
        let stage = attempt.stage.name();
        let finding = settlement
            .findings
            .iter()
            .find(|(place, _)| *place == attempt.recipient)
            .map(|(_, finding)| finding);
        let class = finding.map(|it| it.class.name());
        let remedy = finding.map(|it| it.remedy.as_str());
        match settled.status {
            RecipientStatus::Delivered => {
                info!(%queue_id, user, relay, from, recipient, status = "delivered", server, code, words, took_ms, "delivered");
            }
            RecipientStatus::Failed | RecipientStatus::Expired => {
                warn!(%queue_id, user, relay, from, recipient, status = "failed", server, stage, code, words, class, remedy, "failed");
            }
            RecipientStatus::Waiting if attempt.in_doubt() => {
                warn!(%queue_id, user, relay, from, recipient, status = "in-doubt", server, stage, words, "in doubt: the final dot was sent and no reply came; it is sent again");
            }
            RecipientStatus::Waiting if attempt.result.is_ok() => {}
            RecipientStatus::Waiting => {
                let again = match &settlement.envelope.state {
                    State::Waiting { not_before } => not_before.map(|it| it.to_string()),
                    State::Held(hold) => Some(format!("held: {}", hold.reason.name())),
                };
                info!(%queue_id, user, relay, from, recipient, status = "deferred", server, stage, code, words, class, remedy, again, "deferred");
            }
            RecipientStatus::Deleted => {}
        }
    }
}
