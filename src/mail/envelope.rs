//! All that is known of one message but its content.

use std::fmt;

use jiff::Timestamp;

use super::{EnhancedStatus, ForwardPath, Mailbox, QueueId, ReversePath};

/// One accepted message: who sends it, to whom, by which relay, and how far it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Its name.
    pub id: QueueId,
    /// Why it exists.
    pub origin: Origin,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Who gets reports about it.
    pub reverse_path: ReversePath,
    /// The address that decided its route: From, Sender or the reverse-path
    /// (PRODUCT section 4). For a report that Penstock wrote, the one it stands in for.
    pub from: Mailbox,
    /// Which rule of the directory routed it.
    pub rule: Rule,
    /// The *name* of its relay: a waiting message follows a changed relay.
    pub relay: String,
    /// The mailing it is part of.
    pub mailing: Mailing,
    /// The login that submitted it, when there was one.
    pub login: Option<String>,
    /// Where it came from: an address, or `local` for what Penstock wrote itself.
    pub client: String,
    /// Its Message-ID without the angle brackets, for `trace`.
    pub message_id: String,
    /// What kind of octets its content has.
    pub body: Body,
    /// The client declared SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// How much of it a report should return (RFC 3461 section 4.3).
    pub ret: Option<Ret>,
    /// The client's own name for the transaction, xtext-decoded (RFC 3461 section 4.4).
    pub envid: Option<String>,
    /// Octets of the content as stored, trace fields included: what SIZE declares upstream.
    pub size_bytes: u64,
    /// Octets of the content as DATA sends it, stuffed dots and the final dot included:
    /// what the byte limits count.
    pub wire_bytes: u64,
    /// Never empty.
    pub recipients: Vec<Recipient>,
    /// Whether it may leave.
    pub state: State,
    /// Transactions tried so far.
    pub attempts: u32,
    /// When it first met a transient failure: warning and expiry count from here.
    pub first_failure: Option<Timestamp>,
    /// The delay warning was sent.
    pub warned: bool,
    /// What happened to it before what [`Recipient::last`] tells, oldest first; bounded
    /// by [`remember`](Self::remember).
    pub past: Vec<Past>,
}

/// Events of one message that are kept.
const PAST_MAXIMUM: usize = 40;

impl Envelope {
    /// The recipients that are not settled yet, each with its place in `recipients`.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, &Recipient)> {
        self.recipients
            .iter()
            .enumerate()
            .filter(|(_, it)| it.status == RecipientStatus::Waiting)
    }

    /// Keeps what happened, for `trace`. When there is too much, the first event and the
    /// latest ones are kept: how it began and how it goes now.
    pub fn remember(&mut self, event: Past) {
        if self.past.len() >= PAST_MAXIMUM {
            // What tells how it was routed at first is part of how it began.
            let first = 1 + self.past[1..]
                .iter()
                .position(|it| it.rule.is_none())
                .unwrap_or(0);
            self.past.remove(first);
        }
        self.past.push(event);
    }

    /// The rule that routed it when it was accepted; none: it was moved before that was
    /// kept.
    pub fn rule_at_acceptance(&self) -> Option<&Rule> {
        let moved = |it: &&Past| it.event == PastEvent::Rerouted;
        match self.past.iter().find(moved) {
            Some(first) => first.rule.as_ref(),
            None => Some(&self.rule).filter(|it| **it != Rule::Rerouted),
        }
    }

    /// Whether every recipient is settled.
    pub fn is_finished(&self) -> bool {
        self.waiting().next().is_none()
    }
}

/// Why a message exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A client submitted it.
    Submission,
    /// A delivery status notification of ours: failure or delivery.
    Report,
    /// A delay warning of ours.
    Warning,
    /// The test message that verifies a relay.
    Verification,
    /// An alarm to the administrator.
    Alarm,
}

impl Origin {
    /// Whether Penstock wrote it: such mail is interactive whatever its flow (PRODUCT section 6).
    pub fn is_ours(self) -> bool {
        self != Self::Submission
    }
}

/// Which rule of the directory chose the relay (PRODUCT section 4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The address or alias of this user matched exactly.
    Address(String),
    /// It matched this user after `+tag` was taken off.
    WithoutTag(String),
    /// The entry `@domain` matched.
    Domain(String),
    /// Nothing matched: the default relay.
    Default,
    /// Penstock chose: `bounces-via`, a relay under verification, the relay of the mail reported on.
    Own,
    /// The relay of this user is not verified yet: the default relay stands in.
    Unverified(String),
    /// An administrator moved it with `penstock reroute`; the directory no longer decides.
    Rerouted,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(user) => write!(f, "user {user}"),
            Self::WithoutTag(user) => write!(f, "user {user}, without the +tag"),
            Self::Domain(domain) => write!(f, "user {domain}"),
            Self::Default => f.write_str("default-relay"),
            Self::Own => f.write_str("penstock's own mail"),
            Self::Unverified(relay) => write!(f, "default-relay, because {relay} is not verified"),
            Self::Rerouted => f.write_str("rerouted by an administrator"),
        }
    }
}

/// Messages that belong together and share a user's turn (PRODUCT section 6).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailing {
    /// What tells mailings of one user apart; short, printable, made by us.
    pub key: String,
    /// What an administrator calls it: the List-Id or the subject, shortened.
    pub label: String,
}

/// What kind of octets the content has (RFC 6152).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Body {
    /// `BODY=7BIT`, or nothing said and nothing above 127 seen.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME` declared, or octets above 127 seen.
    EightBitMime,
}

/// How much of a message a report returns (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header only.
    Headers,
}

/// Which reports a recipient's sender wants (RFC 3461 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Notify {
    /// Nothing said: failures and delays are reported.
    #[default]
    Unspecified,
    /// `NOTIFY=NEVER`.
    Never,
    /// Any other list.
    On {
        /// Report delivery, or relaying to a host without DSN.
        success: bool,
        /// Report failure.
        failure: bool,
        /// Report delay.
        delay: bool,
    },
}

impl Notify {
    /// Whether a failure is to be reported.
    pub fn failure(self) -> bool {
        matches!(self, Self::Unspecified | Self::On { failure: true, .. })
    }

    /// Whether a delay is to be reported.
    pub fn delay(self) -> bool {
        matches!(self, Self::Unspecified | Self::On { delay: true, .. })
    }

    /// Whether success is to be reported.
    pub fn success(self) -> bool {
        matches!(self, Self::On { success: true, .. })
    }
}

/// One recipient and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipient {
    /// Who.
    pub path: ForwardPath,
    /// Which reports are wanted.
    pub notify: Notify,
    /// The original recipient as `type;address`, xtext-decoded (RFC 3461 section 4.2).
    pub orcpt: Option<String>,
    /// What became of it.
    pub status: RecipientStatus,
    /// What was last said about it; none before the first attempt.
    pub last: Option<Diagnostic>,
}

/// What became of one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecipientStatus {
    /// Not settled yet.
    Waiting,
    /// The relay took it.
    Delivered,
    /// It never will be delivered.
    Failed,
    /// Waited too long.
    Expired,
    /// An administrator deleted it.
    Deleted,
}

/// How far a transaction with a relay had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Looking up MX or address records.
    Dns,
    /// Making the TCP connection.
    Connect,
    /// The TLS handshake, at once or after STARTTLS.
    Tls,
    /// The 220 greeting.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// The command STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Recipient,
    /// DATA, or the first BDAT.
    Data,
    /// Sending the content.
    Content,
    /// The final dot (or last BDAT) and its reply.
    FinalDot,
    /// QUIT and after.
    Quit,
}

impl Stage {
    /// The word for it in logs, records and `--stage`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::StartTls => "starttls",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Recipient => "recipient",
            Self::Data => "data",
            Self::Content => "content",
            Self::FinalDot => "final-dot",
            Self::Quit => "quit",
        }
    }

    /// Every stage, in order.
    pub const ALL: [Self; 13] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Greeting,
        Self::Ehlo,
        Self::StartTls,
        Self::Auth,
        Self::Mail,
        Self::Recipient,
        Self::Data,
        Self::Content,
        Self::FinalDot,
        Self::Quit,
    ];

    /// The stage with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// What was last said about a recipient: by a relay, or by us when no relay answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// When.
    pub at: Timestamp,
    /// At which point of the dialogue.
    pub stage: Stage,
    /// The host that said it; empty when none was reached.
    pub server: String,
    /// The reply code; none when it was not a reply (a time-out, a lost connection).
    pub code: Option<u16>,
    /// The enhanced status, the relay's or ours.
    pub enhanced: Option<EnhancedStatus>,
    /// The words, already shortened and printable, several lines joined by `\n`.
    pub text: String,
    /// The final dot was sent and no reply came: it may have been delivered.
    pub in_doubt: bool,
}

/// Something that happened to a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: PastEvent,
    /// The place of the recipient that it happened to; none: all.
    pub recipient: Option<usize>,
    /// What was said then, about a recipient.
    pub said: Option<Diagnostic>,
    /// An administrator's name and words, for what an administrator did.
    pub note: String,
    /// The rule by which it was routed until then, when it was moved to another relay.
    pub rule: Option<Rule>,
}

/// What can happen to a message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PastEvent {
    /// An attempt failed for the time being.
    Deferred,
    /// It was held.
    Held,
    /// It was released from a hold.
    Released,
    /// It was to be tried at once.
    Retried,
    /// It was moved to another relay.
    Rerouted,
    /// Its sender was warned of the delay.
    Warned,
}

impl PastEvent {
    /// Every event.
    pub const ALL: [Self; 6] = [
        Self::Deferred,
        Self::Held,
        Self::Released,
        Self::Retried,
        Self::Rerouted,
        Self::Warned,
    ];

    /// The word for it in records and in `trace`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deferred => "deferred",
            Self::Held => "held",
            Self::Released => "released",
            Self::Retried => "retried",
            Self::Rerouted => "rerouted",
            Self::Warned => "warned",
        }
    }

    /// The event with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// Whether a message may leave.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It may, once its time has come and its relay has room.
    Waiting {
        /// Not before this time (a retry); none: at once.
        not_before: Option<Timestamp>,
    },
    /// It may not until somebody releases it.
    Held(Hold),
}

/// Why, since when and by whom a message is held.
#[derive(Debug, Clone, PartialEq)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// The administrator's name, or `penstock`.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// More words: the administrator's, or the relay's.
    pub note: String,
}

/// Why a message is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// `penstock hold`.
    Administrator,
    /// Beyond the `mailing-limit` of its relay.
    MailingLimit,
    /// The relay refused this sender for this login.
    SenderNotAllowed,
    /// The relay refused to relay to this recipient.
    RelayingDenied,
    /// A report that could not be delivered: nobody is left to tell.
    DoubleBounce,
    /// A hint whose action is `hold`.
    Hint,
    /// Its record in the spool was damaged in part; an administrator must look.
    Damaged,
}

impl HoldReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Administrator,
        Self::MailingLimit,
        Self::SenderNotAllowed,
        Self::RelayingDenied,
        Self::DoubleBounce,
        Self::Hint,
        Self::Damaged,
    ];

    /// The word for it in records, tables and filters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::MailingLimit => "mailing-limit",
            Self::SenderNotAllowed => "sender-not-allowed",
            Self::RelayingDenied => "relaying-denied",
            Self::DoubleBounce => "double-bounce",
            Self::Hint => "hint",
            Self::Damaged => "damaged",
        }
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}
