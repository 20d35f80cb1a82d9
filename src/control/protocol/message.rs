//! Messages, what happened to them, and changing them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::filter::{Filter, MessageState};

/// A row of the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageSummary {
    /// Its queue id.
    pub id: String,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// The address that decided its route.
    pub from: String,
    /// The first recipient that is not settled yet; the first of all in a finished message.
    pub to: String,
    /// How many recipients are not settled yet.
    pub recipients: u64,
    /// Octets of its content.
    pub size_bytes: u64,
    /// The directory's entry that routed it; none: the default relay or ours.
    pub user: Option<String>,
    /// The name of its relay.
    pub relay: String,
    /// What an administrator calls its mailing.
    pub mailing: String,
    /// What tells mailings apart.
    pub mailing_key: String,
    /// Whether it may leave.
    pub state: MessageState,
    /// Why it is still here, for programs: `turn`, `limit`, `retry`, `sending`, `relay-paused`,
    /// `relay-unverified`, `relay-missing`, or the reason of a hold (`administrator`,
    /// `mailing-limit`, `sender-not-allowed`, `relaying-denied`, `double-bounce`, `hint`,
    /// `damaged`); `stopped` when it was read without the daemon.
    pub why: String,
    /// Why it is still here, for people: one sentence, without a time.
    pub why_text: String,
    /// When that may change by itself; none: not by itself, or not known.
    pub next: Option<Timestamp>,
    /// Transactions tried so far.
    pub attempts: u32,
    /// What a relay last said about one of its recipients, on one line.
    pub error: Option<String>,
}

/// Everything about one message but its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageDetail {
    /// What the queue shows of it.
    #[serde(flatten)]
    pub summary: MessageSummary,
    /// Who gets reports about it; empty: nobody (`<>`).
    pub reverse_path: String,
    /// Its Message-ID without the angle brackets.
    pub message_id: String,
    /// `submission`, `report`, `warning`, `verification` or `alarm`.
    pub origin: String,
    /// Which rule of the directory routed it, in words.
    pub rule: String,
    /// The login that submitted it.
    pub login: Option<String>,
    /// Where it came from: an address, or `local`.
    pub client: String,
    /// Octets as DATA sends it: what the byte limits count.
    pub wire_bytes: u64,
    /// `7bit` or `8bitmime`.
    pub body: String,
    /// It needs a relay with SMTPUTF8.
    pub smtputf8: bool,
    /// How much of it a report returns: `full` or `headers`.
    pub ret: Option<String>,
    /// The client's own name for the transaction.
    pub envid: Option<String>,
    /// When it first failed for the time being.
    pub first_failure: Option<Timestamp>,
    /// When it is given up; none before the first failure, while it is held, and while its
    /// relay is paused: nobody can tell then.
    pub expires: Option<Timestamp>,
    /// The delay warning was sent.
    pub warned: bool,
    /// The hold, when it is held.
    pub hold: Option<HoldDetail>,
    /// All its recipients.
    pub recipient_list: Vec<RecipientDetail>,
}

/// Why, since when and by whom a message is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldDetail {
    /// See [`MessageSummary::why`].
    pub reason: String,
    /// The administrator's name, or `penstock`.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// More words; may be empty.
    pub note: String,
}

/// One recipient and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientDetail {
    /// Who.
    pub address: String,
    /// `waiting`, `delivered`, `failed`, `expired` or `deleted`.
    pub status: String,
    /// `NOTIFY=` as the client said it, `never` or like `success,failure,delay`.
    pub notify: Option<String>,
    /// `ORCPT=` as the client said it, decoded.
    pub orcpt: Option<String>,
    /// What was last said about it; none before the first attempt.
    pub said: Option<Said>,
}

/// What a relay said about a recipient, or we, when no relay answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// When.
    pub at: Timestamp,
    /// At which point of the dialogue: `connect`, `auth`, `mail`, `recipient`, `final-dot`, ...
    pub stage: String,
    /// The host that said it; empty when none was reached.
    pub server: String,
    /// The reply code; none when it was not a reply.
    pub code: Option<u16>,
    /// The enhanced status, like `5.7.1`.
    pub enhanced: Option<String>,
    /// The words, shortened and printable, lines joined by `\n`.
    pub text: String,
    /// The final dot was sent and no reply came: it may have been delivered.
    pub in_doubt: bool,
    /// What the refusal means, like `sender-not-allowed`; none for a success.
    pub class: Option<String>,
    /// What to do about it, in a sentence or two.
    pub remedy: Option<String>,
}

/// A piece of a message's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The octets, in standard base 64 with padding; at most 48 KiB before encoding.
    pub base64: String,
}

/// Whose history is asked for: exactly one of the first three is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceRequest {
    /// A queue id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// An address: as From, reverse-path or recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A Message-ID without the angle brackets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// At most so many messages, the latest; none: 1,000. Never more than 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// One thing that happened to one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// The message.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// `accepted`, `delivered`, `deferred`, `failed`, `expired`, `deleted`, `held`,
    /// `released`, `rerouted`, `in-doubt` or `reported`.
    pub event: String,
    /// The address that decided its route.
    pub from: String,
    /// The recipient it happened to; none: to all.
    pub to: Option<String>,
    /// The name of the relay.
    pub relay: String,
    /// The server that said it.
    pub server: Option<String>,
    /// The reply code.
    pub code: Option<u16>,
    /// The enhanced status.
    pub enhanced: Option<String>,
    /// The words, lines joined by `\n`; may be empty.
    pub text: String,
    /// Octets of the message.
    pub size_bytes: u64,
    /// Its Message-ID without the angle brackets.
    pub message_id: String,
}

/// What to do to which messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// What to do.
    pub action: Action,
    /// To which.
    #[serde(default, skip_serializing_if = "Filter::is_empty")]
    pub filter: Filter,
    /// An empty filter means everything that waits, and is refused unless this is set.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all: bool,
    /// Only count what would be changed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Nothing accepted after this id: what a preview did not show is not touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<String>,
    /// Why, for whoever asks later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

fn is_false(it: &bool) -> bool {
    !*it
}

/// What to do to messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// Keep it until it is released.
    Hold,
    /// Let it go on, whatever held it.
    Release,
    /// Try it now, whenever it was to be tried again.
    Retry,
    /// Send it by another relay.
    Reroute {
        /// The name of that relay.
        to: String,
    },
    /// Drop it; nobody is told.
    Delete,
    /// Give it up; its sender gets a report.
    Fail,
}

impl Action {
    /// The verb on the command line.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Reroute { .. } => "reroute",
            Self::Delete => "delete",
            Self::Fail => "fail",
        }
    }
}

/// What a change did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// The verb.
    pub action: String,
    /// Nothing was changed, only counted.
    pub dry_run: bool,
    /// Messages changed, or that would be.
    pub messages: u64,
    /// Their recipients that are not settled yet.
    pub recipients: u64,
    /// Octets of their contents.
    pub size_bytes: u64,
    /// Messages that matched and cannot be changed now, because they are being sent.
    pub sending: u64,
    /// Messages that matched and were already as wanted.
    pub unchanged: u64,
    /// Messages that matched and stay held, because this verb releases nothing.
    #[serde(default)]
    pub held: u64,
    /// The relays that are paused, so that what was changed does not leave at once.
    #[serde(default)]
    pub paused: Vec<String>,
    /// The first of the ids, at most 5.
    pub first_ids: Vec<String>,
    /// From whom: at most 3 addresses, most messages first.
    pub senders: Vec<String>,
    /// The highest id that matched; give it back as `up_to` to change just these.
    pub up_to: Option<String>,
}

/// A mailing and how far it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailingReport {
    /// What tells mailings apart.
    pub key: String,
    /// What an administrator calls it.
    pub mailing: String,
    /// From whom.
    pub from: String,
    /// By which relay.
    pub relay: String,
    /// Messages accepted since it began.
    pub accepted: u64,
    /// Those of them that neither wait nor are held any more: delivered, refused, deleted.
    pub done: u64,
    /// Messages that still wait, held ones not counted.
    pub waiting: u64,
    /// Messages that are held.
    pub held: u64,
    /// What the relay allows a mailing; none: no limit.
    pub limit: Option<u64>,
    /// When its last message was accepted.
    pub last_accepted: Timestamp,
    /// It goes before bulk: at most 20 messages were accepted in the last hour.
    pub interactive: bool,
    /// When the last of what waits will have left, at the pace that the limits dictate;
    /// none: nothing waits, or its relay is not active.
    pub finished_at: Option<Timestamp>,
}
