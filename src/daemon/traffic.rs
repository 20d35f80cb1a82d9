//! What went through each relay since the daemon started, for metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::control::protocol::{Latency, RelayTraffic};
use crate::mail::{Envelope, RecipientStatus, State};
use crate::measure::{BOUNDS_MS, Counted, Histogram};
use crate::outcome::{Released, Settlement};

/// The counters of all relays.
#[derive(Debug, Default)]
pub struct ByRelay(Mutex<BTreeMap<String, Counters>>);

#[derive(Debug, Default)]
struct Counters {
    accepted: u64,
    accepted_bytes: u64,
    released: u64,
    released_bytes: u64,
    held: u64,
    in_doubt: u64,
    delivered: u64,
    deferred: u64,
    failed: u64,
    latency: Histogram,
}

impl ByRelay {
    /// A client handed in a message.
    pub fn accepted(&self, envelope: &Envelope) {
        let mut all = self.lock();
        let counters = all.entry(envelope.relay.clone()).or_default();
        counters.accepted += 1;
        counters.accepted_bytes += envelope.size_bytes;
        if matches!(envelope.state, State::Held(_)) {
            counters.held += 1;
        }
    }

    /// An administrator held messages.
    pub fn held(&self, relay: &str, messages: u64) {
        self.lock().entry(relay.to_owned()).or_default().held += messages;
    }

    /// A transaction came to an end.
    pub fn ended(&self, before: &Envelope, settlement: &Settlement, octets: u64, took: Duration) {
        let mut all = self.lock();
        let counters = all.entry(before.relay.clone()).or_default();
        counters.latency.observe(took);
        match settlement.released {
            Released::Sent { .. } => {
                counters.released += 1;
                counters.released_bytes += octets;
            }
            Released::InDoubt { .. } => {
                counters.released += 1;
                counters.released_bytes += octets;
                counters.in_doubt += 1;
            }
            Released::NotSent => {}
        }
        if matches!(settlement.envelope.state, State::Held(_)) && !settlement.envelope.is_finished()
        {
            counters.held += 1;
        }
        for outcome in outcomes(before, settlement) {
            match outcome {
                Outcome::Delivered => counters.delivered += 1,
                Outcome::Deferred => counters.deferred += 1,
                Outcome::Failed => counters.failed += 1,
            }
        }
    }

    /// All of it, with the relays that nothing went through yet.
    pub fn report(&self, relays: impl Iterator<Item = String>) -> Vec<RelayTraffic> {
        let mut all = self.lock();
        for relay in relays {
            all.entry(relay).or_default();
        }
        all.iter().map(|(relay, it)| told(relay, it)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Counters>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of one recipient in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The relay took it.
    Delivered,
    /// It is tried again.
    Deferred,
    /// It failed or expired.
    Failed,
}

/// What became of the recipients that a transaction was about.
pub fn outcomes<'a>(
    before: &'a Envelope,
    settlement: &'a Settlement,
) -> impl Iterator<Item = Outcome> + 'a {
    let after = &settlement.envelope.recipients;
    let both = before.recipients.iter().zip(after);
    both.filter(|(was, _)| was.status == RecipientStatus::Waiting)
        .filter_map(|(was, is)| match is.status {
            RecipientStatus::Delivered => Some(Outcome::Delivered),
            RecipientStatus::Failed | RecipientStatus::Expired => Some(Outcome::Failed),
            RecipientStatus::Waiting if is.last != was.last => Some(Outcome::Deferred),
            RecipientStatus::Waiting | RecipientStatus::Deleted => None,
        })
}

fn told(relay: &str, it: &Counters) -> RelayTraffic {
    RelayTraffic {
        relay: relay.to_owned(),
        accepted: it.accepted,
        accepted_bytes: it.accepted_bytes,
        released: it.released,
        released_bytes: it.released_bytes,
        held: it.held,
        in_doubt: it.in_doubt,
        delivered: it.delivered,
        deferred: it.deferred,
        failed: it.failed,
        latency: latency(&it.latency.counted()),
    }
}

/// A histogram in the words of the protocol.
pub fn latency(counted: &Counted) -> Latency {
    Latency {
        bounds_seconds: BOUNDS_MS.iter().map(|it| *it as f64 / 1_000.0).collect(),
        counts: counted.counts.clone(),
        sum_seconds: counted.sum.as_secs_f64(),
    }
}
