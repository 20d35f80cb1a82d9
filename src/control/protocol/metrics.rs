//! What is counted, for a monitoring system.

use serde::{Deserialize, Serialize};

use super::{LimitsReport, StatusReport};

/// Everything that is counted or measured; only `http` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsReport {
    /// How things are.
    pub status: StatusReport,
    /// What is used and left of the limits.
    pub limits: Vec<LimitsReport>,
    /// What went through each relay since the daemon started.
    pub relays: Vec<RelayTraffic>,
    /// From a message's last octet to its being durable.
    pub commit: Latency,
    /// How long the oldest message that may leave now has been in the spool; none: nothing
    /// may leave.
    pub oldest_sendable_seconds: Option<u64>,
    /// What will hurt delivery, as far as it is known now.
    pub hints: Vec<HintCount>,
}

/// How often one hint stands, with one severity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintCount {
    /// Its name, as in [`HintReport::hint`](super::HintReport::hint).
    pub hint: String,
    /// How bad: `serious`, `warning`, `notice` or `unknown`.
    pub severity: String,
    /// How many subjects (domains, addresses) it was found for.
    pub findings: u64,
}

/// What went through one relay since the daemon started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayTraffic {
    /// Its name.
    pub relay: String,
    /// Messages accepted for it.
    pub accepted: u64,
    /// Octets of those.
    pub accepted_bytes: u64,
    /// Messages that it took, or whose final reply never came.
    pub released: u64,
    /// Octets of those on the wire.
    pub released_bytes: u64,
    /// Messages that were held, by whomever.
    pub held: u64,
    /// Final dots without a reply.
    pub in_doubt: u64,
    /// Recipients delivered.
    pub delivered: u64,
    /// Recipients put off for the time being, each time.
    pub deferred: u64,
    /// Recipients that failed or expired.
    pub failed: u64,
    /// From the start of a transaction to its end, connecting included.
    pub latency: Latency,
}

/// How long something took, in buckets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The upper end of each bucket; what is longer is counted at the end.
    pub bounds_seconds: Vec<f64>,
    /// How many fell into each, not added up; one more than there are bounds.
    pub counts: Vec<u64>,
    /// All of them together.
    pub sum_seconds: f64,
}
