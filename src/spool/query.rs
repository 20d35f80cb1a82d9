//! Questions to the spool, and what it says about itself.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::mail::{Envelope, HoldReason, Mailbox, QueueId, State};

use super::waiting::{Amount, FlowKey};

/// Which messages are meant; an empty filter means all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// From this address.
    pub from: Option<Mailbox>,
    /// From any address of this domain (A-labels, lower case).
    pub from_domain: Option<String>,
    /// To this recipient, still unsettled.
    pub to: Option<Mailbox>,
    /// To any recipient of this domain (A-labels, lower case), still unsettled.
    pub to_domain: Option<String>,
    /// By this relay.
    pub relay: Option<String>,
    /// Of any of these flows.
    pub flows: Option<Arc<HashSet<FlowKey>>>,
    /// Of the mailing with this key, or with this text in its label.
    pub mailing: Option<String>,
    /// In this state.
    pub state: Option<StateFilter>,
    /// Accepted before.
    pub accepted_before: Option<Timestamp>,
    /// Content of more octets than this.
    pub larger_than: Option<u64>,
    /// These words occur in what was last said about an unsettled recipient.
    pub error: Option<String>,
}

/// A state as a filter names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFilter {
    /// Waits and may leave at once.
    Ready,
    /// Waits for its next attempt.
    Deferred,
    /// Held, for whatever reason.
    Held,
    /// Held for this reason.
    HeldFor(HoldReason),
}

impl Filter {
    /// Whether a message is meant.
    pub fn matches(&self, envelope: &Envelope) -> bool {
        let domain = |mailbox: &Mailbox, domain: &str| mailbox.domain().ascii() == domain;
        let unsettled = || envelope.waiting().map(|(_, recipient)| recipient);
        let to = |test: &dyn Fn(&Mailbox) -> bool| {
            unsettled().any(|it| it.path.mailbox().is_some_and(test))
        };
        self.from
            .as_ref()
            .is_none_or(|it| it.folded() == envelope.from.folded())
            && self
                .from_domain
                .as_ref()
                .is_none_or(|it| domain(&envelope.from, it))
            && self
                .to
                .as_ref()
                .is_none_or(|it| to(&|other| other.folded() == it.folded()))
            && self
                .to_domain
                .as_ref()
                .is_none_or(|it| to(&|other| domain(other, it)))
            && self.relay.as_ref().is_none_or(|it| *it == envelope.relay)
            && self
                .flows
                .as_ref()
                .is_none_or(|it| it.contains(&FlowKey::of(envelope)))
            && self.mailing.as_ref().is_none_or(|it| {
                *it == envelope.mailing.key
                    || envelope
                        .mailing
                        .label
                        .to_lowercase()
                        .contains(&it.to_lowercase())
            })
            && self.state.is_none_or(|it| it.matches(&envelope.state))
            && self.accepted_before.is_none_or(|it| envelope.accepted < it)
            && self.larger_than.is_none_or(|it| envelope.size_bytes > it)
            && self.error.as_ref().is_none_or(|it| {
                let words = it.to_lowercase();
                unsettled()
                    .filter_map(|recipient| recipient.last.as_ref())
                    .any(|last| last.text.to_lowercase().contains(&words))
            })
    }
}

impl StateFilter {
    /// Whether a state is meant.
    pub fn matches(self, state: &State) -> bool {
        match (self, state) {
            (Self::Ready, State::Waiting { not_before }) => not_before.is_none(),
            (Self::Deferred, State::Waiting { not_before }) => not_before.is_some(),
            (Self::Held, State::Held(_)) => true,
            (Self::HeldFor(reason), State::Held(hold)) => hold.reason == reason,
            (Self::Ready | Self::Deferred, State::Held(_))
            | (Self::Held | Self::HeldFor(_), State::Waiting { .. }) => false,
        }
    }
}

/// A part of a long answer.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The messages, in order of acceptance.
    pub messages: Vec<Envelope>,
    /// Ask on after this one; none: that was all.
    pub next: Option<QueueId>,
    /// Of which nothing but this can be read, whatever the filter says of their words: they
    /// are held as damaged, and are no part of `messages`.
    pub unreadable: Vec<Unreadable>,
}

/// A message whose records cannot be read: what the index knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Its name.
    pub id: QueueId,
    /// Its relay, user and mailing.
    pub flow: FlowKey,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Octets of it.
    pub size_bytes: u64,
    /// Recipients that are not settled.
    pub recipients: u32,
}

/// What `trace` is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// One message.
    Id(QueueId),
    /// Everything from or to an address.
    Address(Mailbox),
    /// A Message-ID, without angle brackets.
    MessageId(String),
}

impl Lookup {
    /// Whether a message is meant.
    pub fn matches(&self, envelope: &Envelope) -> bool {
        match self {
            Self::Id(id) => envelope.id == *id,
            Self::MessageId(text) => envelope.message_id == *text,
            Self::Address(mailbox) => {
                let wanted = mailbox.folded();
                let is = |it: &Mailbox| it.folded() == wanted;
                is(&envelope.from)
                    || envelope.reverse_path.mailbox().is_some_and(is)
                    || envelope
                        .recipients
                        .iter()
                        .any(|it| it.path.mailbox().is_some_and(is))
            }
        }
    }
}

/// A message that left the spool.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// As it was at the end.
    pub envelope: Envelope,
    /// When.
    pub at: Timestamp,
    /// Who ended it: `penstock`, or an administrator who deleted or failed it.
    pub by: String,
}

/// How the spool is.
#[derive(Debug, Clone, Default)]
pub struct SpoolStatus {
    /// What may leave at once.
    pub ready: Amount,
    /// What waits for its next attempt.
    pub deferred: Amount,
    /// What waits for an administrator.
    pub held: Amount,
    /// The same three for each relay.
    pub relays: BTreeMap<String, RelayCounts>,
    /// Octets of the log.
    pub log_bytes: u64,
    /// Octets of the log that a waiting message still needs.
    pub live_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Octets free on the file system.
    pub free_bytes: u64,
    /// Octets that `min-free` keeps back.
    pub reserve_bytes: u64,
    /// Records found damaged since the spool was opened; copies are in `corrupt/`.
    pub damaged_records: u64,
    /// Whether the index is complete; if not, how far its rebuild came, in octets of
    /// the log: counts and lists are partial until then.
    pub rebuilding: Option<Rebuilding>,
    /// Why new mail could not be written, when the last attempt failed.
    pub failing: Option<String>,
}

/// Messages of one relay by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayCounts {
    /// May leave at once.
    pub ready: Amount,
    /// Wait for their next attempt.
    pub deferred: Amount,
    /// Wait for an administrator.
    pub held: Amount,
}

/// How far a rebuild of the index came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilding {
    /// Octets of the log that were read.
    pub done_bytes: u64,
    /// Octets that there are to read.
    pub all_bytes: u64,
}
