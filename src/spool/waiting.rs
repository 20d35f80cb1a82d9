//! What waits: messages as the release sees them, and the flows they belong to.

use jiff::Timestamp;

use crate::mail::{Envelope, Origin, QueueId, State};

/// Messages that share one turn: the same relay, user and mailing (PRODUCT section 6).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// The relay's name.
    pub relay: String,
    /// The user: the From address, folded.
    pub user: String,
    /// The mailing's key.
    pub mailing: String,
}

impl FlowKey {
    /// The flow that a message is part of.
    pub fn of(envelope: &Envelope) -> Self {
        Self {
            relay: envelope.relay.clone(),
            user: envelope.from.folded(),
            mailing: envelope.mailing.key.clone(),
        }
    }
}

/// A message that waits, as far as the release needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its name, which is also its place in the order of acceptance.
    pub id: QueueId,
    /// Its flow.
    pub flow: FlowKey,
    /// Octets on the wire.
    pub wire_bytes: u64,
    /// Recipients that are not settled yet.
    pub recipients: u32,
    /// Why it exists: what Penstock wrote is interactive.
    pub origin: Origin,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Not before this time; none: at once.
    pub not_before: Option<Timestamp>,
}

impl Waiting {
    /// A message as the release sees it; none when it is held or finished.
    pub fn of(envelope: &Envelope) -> Option<Self> {
        let State::Waiting { not_before } = envelope.state else {
            return None;
        };
        let recipients = u32::try_from(envelope.waiting().count()).unwrap_or(u32::MAX);
        (recipients > 0).then(|| Self {
            id: envelope.id,
            flow: FlowKey::of(envelope),
            wire_bytes: envelope.wire_bytes,
            recipients,
            origin: envelope.origin,
            accepted: envelope.accepted,
            not_before,
        })
    }
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Messages.
    pub messages: u64,
    /// Their unsettled recipients.
    pub recipients: u64,
    /// Their octets on the wire.
    pub wire_bytes: u64,
}

impl Amount {
    /// Adds.
    pub(super) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.wire_bytes += other.wire_bytes;
    }

    /// Takes away; nothing goes below zero.
    pub(super) fn take(&mut self, other: Self) {
        self.messages = self.messages.saturating_sub(other.messages);
        self.recipients = self.recipients.saturating_sub(other.recipients);
        self.wire_bytes = self.wire_bytes.saturating_sub(other.wire_bytes);
    }
}

/// One flow and what waits in it.
///
/// A flow is remembered for an hour after its last message was accepted, even when
/// nothing waits in it any more: that is how long a mailing lasts.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowSummary {
    /// Which.
    pub key: FlowKey,
    /// What an administrator calls its mailing.
    pub label: String,
    /// May leave at once.
    pub ready: Amount,
    /// Waits for its next attempt.
    pub deferred: Amount,
    /// Waits for an administrator.
    pub held: Amount,
    /// Messages accepted into it since it was silent for an hour, finished ones included.
    pub accepted: u64,
    /// When its last messages were accepted, at most 21, oldest first: more than 20
    /// in the last hour is a mailing.
    pub recent: Vec<Timestamp>,
}
