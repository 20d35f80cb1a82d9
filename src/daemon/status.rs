//! How the daemon is, in one report.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;

use crate::accept::Counters;
use crate::config::{ListenerAuth, ListenerTls};
use crate::control::protocol::{
    ListenerStatus, QueueCounts, RelayState, SpoolReport, StatusReport, Traffic,
};
use crate::mail::{Envelope, QueueId, RecipientStatus};
use crate::outcome::{Released, Settlement};
use crate::spool::{Filter, SpoolStatus};

use super::answers::Answers;
use super::desk::Stopping;

/// What is counted since the daemon started, and what is known of it.
#[derive(Debug)]
pub struct Facts {
    /// When it started.
    pub started: Timestamp,
    /// Recipients delivered.
    pub delivered: AtomicU64,
    /// Attempts that failed for the time being.
    pub deferred: AtomicU64,
    /// Recipients that failed or expired.
    pub failed: AtomicU64,
    /// Final dots without a reply, those of earlier runs included.
    pub in_doubt: AtomicU64,
    /// Transactions under way.
    in_flight: AtomicU64,
    /// When the configuration in use was taken, in milliseconds since 1970.
    configured_ms: AtomicI64,
    /// Why the latest configuration was not taken.
    pub configuration_error: Mutex<Option<String>>,
}

impl Facts {
    /// Nothing counted yet.
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            delivered: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            in_doubt: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            configured_ms: AtomicI64::new(started.as_millisecond()),
            configuration_error: Mutex::new(None),
        }
    }

    /// A transaction began.
    pub fn began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A transaction is over.
    pub fn ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Transactions under way.
    pub fn sending(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Final dots whose reply is not known.
    pub fn doubted(&self, messages: u64) {
        self.in_doubt.fetch_add(messages, Ordering::Relaxed);
    }

    /// Another configuration is in use.
    pub fn configured(&self, at: Timestamp) {
        self.configured_ms
            .store(at.as_millisecond(), Ordering::Relaxed);
    }

    fn configured_at(&self) -> Timestamp {
        let at = self.configured_ms.load(Ordering::Relaxed);
        Timestamp::from_millisecond(at).unwrap_or(self.started)
    }

    /// Counts what a transaction came to.
    pub fn count(&self, before: &Envelope, settlement: &Settlement) {
        let after = &settlement.envelope.recipients;
        for (recipient, next) in before.recipients.iter().zip(after) {
            if recipient.status != RecipientStatus::Waiting {
                continue;
            }
            let counter = match next.status {
                RecipientStatus::Delivered => &self.delivered,
                RecipientStatus::Failed | RecipientStatus::Expired => &self.failed,
                RecipientStatus::Waiting if next.last != recipient.last => &self.deferred,
                RecipientStatus::Waiting | RecipientStatus::Deleted => continue,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(settlement.released, Released::InDoubt { .. }) {
            self.doubted(1);
        }
    }

    /// The counters as the protocol names them.
    pub fn traffic(&self, clients: &Counters) -> Traffic {
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        Traffic {
            accepted: read(&clients.accepted),
            refused: read(&clients.refused),
            delivered: read(&self.delivered),
            deferred: read(&self.deferred),
            failed: read(&self.failed),
        }
    }
}

/// Everything at a glance.
pub(super) async fn report(answers: &Answers) -> Result<StatusReport, Stopping> {
    let live = answers.live.borrow().clone();
    let config = &live.config;
    let spool = answers.spool.status().await;
    let relays = answers.desk.relays(None).await?;
    let paused: BTreeMap<&str, u64> = relays
        .iter()
        .filter(|it| it.state != RelayState::Active)
        .map(|it| (it.relay.as_str(), it.waiting))
        .collect();
    let facts = &answers.facts;
    let first = answers
        .spool
        .list(&Filter::default(), QueueId::MIN, 1)
        .await;
    let oldest = first
        .ok()
        .and_then(|page| page.messages.first().map(|it| it.accepted));
    let configuration_error = facts
        .configuration_error
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    let mut problems = Vec::new();
    if let Some(error) = &configuration_error {
        problems.push(format!(
            "the configuration on disk is wrong, the one before stays in use: {error}"
        ));
    }
    if let Some(error) = &spool.failing {
        problems.push(format!("new mail is refused: {error}"));
    }
    if spool.damaged_records > 0 {
        problems.push(format!(
            "{} damaged records of the spool were put aside in corrupt/",
            spool.damaged_records
        ));
    }
    for relay in relays.iter().filter(|it| it.state != RelayState::Active) {
        problems.push(format!(
            "relay {} is {}, {} messages wait for it: {}",
            relay.relay,
            relay.state.name(),
            relay.waiting,
            relay.reason.as_deref().unwrap_or("no reason is known"),
        ));
    }
    match answers.hints.serious() {
        0 => {}
        1 => problems.push("1 serious hint: penstock hints".to_owned()),
        many => problems.push(format!("{many} serious hints: penstock hints")),
    }
    if let Some(rebuilding) = spool.rebuilding {
        problems.push(format!(
            "the index is being rebuilt ({} of {} octets): lists are partial until then",
            rebuilding.done_bytes, rebuilding.all_bytes
        ));
    }
    let listeners = config
        .listen
        .iter()
        .map(|listener| ListenerStatus {
            address: listener.address.to_string(),
            tls: match listener.tls {
                ListenerTls::Off => "off",
                ListenerTls::StartTls => "starttls",
                ListenerTls::Implicit => "implicit",
            }
            .into(),
            auth: match listener.auth {
                ListenerAuth::Off => "off",
                ListenerAuth::Optional => "optional",
                ListenerAuth::Required => "required",
            }
            .into(),
            clients: answers.shared.connections_at(listener.address) as u64,
        })
        .collect();
    Ok(StatusReport {
        version: crate::VERSION.into(),
        hostname: config.hostname.clone(),
        pid: std::process::id(),
        started: facts.started,
        configured: facts.configured_at(),
        configuration_error,
        listeners,
        queue: counts(&spool, &paused, facts.sending(), oldest),
        traffic: facts.traffic(answers.shared.counters()),
        spool: SpoolReport {
            path: config.spool.path.display().to_string(),
            used_bytes: spool.log_bytes,
            free_bytes: spool.free_bytes,
            min_free_bytes: spool.reserve_bytes,
            accepting: spool.failing.is_none() && spool.free_bytes >= spool.reserve_bytes,
            damaged_records: spool.damaged_records,
            in_doubt: facts.in_doubt.load(Ordering::Relaxed),
        },
        relays,
        problems,
    })
}

/// How many messages are in which state; those of a relay that is not active are paused.
fn counts(
    spool: &SpoolStatus,
    paused: &BTreeMap<&str, u64>,
    sending: u64,
    oldest: Option<Timestamp>,
) -> QueueCounts {
    let paused: u64 = paused.values().sum();
    let ready = spool.ready.messages;
    let deferred = spool.deferred.messages;
    let all = [spool.ready, spool.deferred, spool.held];
    QueueCounts {
        messages: all.iter().map(|it| it.messages).sum(),
        recipients: all.iter().map(|it| it.recipients).sum(),
        size_bytes: all.iter().map(|it| it.wire_bytes).sum(),
        waiting: ready.saturating_sub(paused).saturating_sub(sending),
        deferred: deferred.saturating_sub(paused.saturating_sub(ready)),
        sending,
        paused: paused.min(ready + deferred),
        held: spool.held.messages,
        oldest,
    }
}
