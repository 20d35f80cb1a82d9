//! What can happen to a message after it was accepted, as the delivery side says it.

use std::collections::BTreeMap;

use crate::clock::Moment;
use crate::mail::{Envelope, QueueId};

use super::content::Content;

/// A short slice of transactions that are about to start: reserved, then written down
/// here, then begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// Whose budget is used.
    pub relay: String,
    /// When it was reserved, by both clocks: within one boot the limits go by uptime.
    pub at: Moment,
    /// What is about to leave.
    pub items: Vec<Leased>,
}

/// One transaction of a [`Lease`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// The release's own number for this transaction; it never comes again.
    pub grant: u64,
    /// The message.
    pub id: QueueId,
    /// Recipients in this transaction.
    pub recipients: u32,
    /// Octets on the wire.
    pub wire_bytes: u64,
}

/// What became of one transaction, as far as the limits are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// The content left; counts as of the final reply.
    Sent {
        /// When the relay's final reply came.
        at: Moment,
    },
    /// Refused or broken before the content was sent: the budget comes back.
    NotSent,
    /// The final dot went out and no reply came: counts as sent.
    InDoubt {
        /// When that was known.
        at: Moment,
    },
}

/// The end of one transaction, and what it made of the message.
#[derive(Debug)]
pub struct Settled {
    /// The message in its present state. When every recipient is settled, the message
    /// leaves the spool for the history.
    pub envelope: Envelope,
    /// The transaction's number in its [`Lease`].
    pub grant: u64,
    /// What it used of the budget.
    pub released: Released,
    /// The reports it causes; they are accepted in the same record: both or neither.
    pub reports: Vec<(Envelope, Content)>,
}

/// A change that is no delivery: hold, release, reroute, delete, fail, expire.
///
/// The envelope replaces the stored one whole. Whoever changes a message must
/// therefore know that nobody else does: the delivery task is the one place that may,
/// and a message whose transaction is under way is changed after its [`Settled`].
#[derive(Debug)]
pub struct Change {
    /// The message in its new state; finished when every recipient is settled.
    pub envelope: Envelope,
    /// Who did it: an administrator's name, or `penstock`.
    pub by: String,
    /// The reports it causes, accepted in the same record.
    pub reports: Vec<(Envelope, Content)>,
}

/// What the log says about the limit ledger after the last one that was stored whole.
#[derive(Debug, Clone, PartialEq)]
pub enum LedgerEvent {
    /// Budget was reserved.
    Leased(Lease),
    /// A transaction ended, or was given back.
    Released {
        /// Its number.
        grant: u64,
        /// How it ended.
        released: Released,
    },
}

/// What the spool remembers from before it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The last ledger that was given to [`Spool::checkpoint_ledger`](super::Spool::checkpoint_ledger).
    pub ledger: Option<Vec<u8>>,
    /// The ledger is damaged, and so much of the log has gone that no earlier one makes up
    /// for it: what left lately is not known.
    pub ledger_lost: bool,
    /// Leases and their ends that came after it. Some may be in it already: a grant's
    /// number tells.
    pub later: Vec<LedgerEvent>,
    /// Leases that had no end when the last process stopped, each grant alone in its lease.
    pub open_leases: Vec<Lease>,
    /// The highest grant number that the log has seen.
    pub last_grant: u64,
    /// Notes by kind and name: pauses, verifications.
    pub notes: BTreeMap<(String, String), serde_json::Value>,
    /// Messages whose final dot was sent and whose reply is unknown. Their recipients
    /// are marked so as soon as the index can tell their envelopes.
    pub in_doubt: Vec<QueueId>,
    /// The last process ended without closing the spool.
    pub crashed: bool,
    /// Records that were found damaged.
    pub damaged_records: u64,
}
