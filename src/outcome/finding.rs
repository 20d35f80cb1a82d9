//! The words in which a refusal is judged: what was said, what it is about, what is done.

use crate::mail::{EnhancedStatus, Stage};

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The relay wants a login, or does not accept the one it got.
    NotLoggedIn,
    /// The relay has shut the account, or stopped it from sending.
    AccountSuspended,
    /// The login may not use this From or reverse-path.
    SenderNotAllowed,
    /// The relay does not pass mail on to this recipient.
    RelayingDenied,
    /// There is no such recipient.
    RecipientUnknown,
    /// The recipient exists and does not take this mail.
    RecipientRefuses,
    /// The recipient's mailbox is full.
    MailboxFull,
    /// The account has used up what it may send.
    RelayQuota,
    /// Too much at once: messages, connections.
    Rate,
    /// The message is too large.
    TooLarge,
    /// Too many recipients in one transaction.
    TooManyRecipients,
    /// The content was taken for spam.
    Spam,
    /// An address (IP or domain) is on a blacklist or has a bad reputation.
    Blacklisted,
    /// SPF, DKIM, DMARC, reverse DNS and other rules about who sends.
    Policy,
    /// An attachment, a virus, a malformed message.
    Content,
    /// TLS is missing or could not be agreed.
    Tls,
    /// The server could not be reached, or did not talk SMTP.
    Unreachable,
    /// Passing trouble: greylisting, overload, maintenance.
    Temporary,
    /// The message runs in circles.
    Loop,
    /// The relay did not understand, or does not offer what the message needs.
    Protocol,
    /// A refusal for good that gives no reason.
    Refused,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 21] = [
        Self::NotLoggedIn,
        Self::AccountSuspended,
        Self::SenderNotAllowed,
        Self::RelayingDenied,
        Self::RecipientUnknown,
        Self::RecipientRefuses,
        Self::MailboxFull,
        Self::RelayQuota,
        Self::Rate,
        Self::TooLarge,
        Self::TooManyRecipients,
        Self::Spam,
        Self::Blacklisted,
        Self::Policy,
        Self::Content,
        Self::Tls,
        Self::Unreachable,
        Self::Temporary,
        Self::Loop,
        Self::Protocol,
        Self::Refused,
    ];

    /// The word for it in rules, records and `--json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotLoggedIn => "not-logged-in",
            Self::AccountSuspended => "account-suspended",
            Self::SenderNotAllowed => "sender-not-allowed",
            Self::RelayingDenied => "relaying-denied",
            Self::RecipientUnknown => "recipient-unknown",
            Self::RecipientRefuses => "recipient-refuses",
            Self::MailboxFull => "mailbox-full",
            Self::RelayQuota => "relay-quota",
            Self::Rate => "rate",
            Self::TooLarge => "too-large",
            Self::TooManyRecipients => "too-many-recipients",
            Self::Spam => "spam",
            Self::Blacklisted => "blacklisted",
            Self::Policy => "policy",
            Self::Content => "content",
            Self::Tls => "tls",
            Self::Unreachable => "unreachable",
            Self::Temporary => "temporary",
            Self::Loop => "loop",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
        }
    }

    /// The class in a few plain words.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::NotLoggedIn => "the relay does not accept the login",
            Self::AccountSuspended => "the relay has suspended the account",
            Self::SenderNotAllowed => "the relay does not allow this sender for this login",
            Self::RelayingDenied => "the relay does not relay to this recipient",
            Self::RecipientUnknown => "the recipient does not exist",
            Self::RecipientRefuses => "the recipient does not accept this mail",
            Self::MailboxFull => "the recipient's mailbox is full",
            Self::RelayQuota => "the account's sending quota is used up",
            Self::Rate => "mail is sent faster than the relay allows",
            Self::TooLarge => "the message is too large",
            Self::TooManyRecipients => "too many recipients in one transaction",
            Self::Spam => "the content was taken for spam",
            Self::Blacklisted => "a sending address is on a blacklist",
            Self::Policy => "a rule about senders (SPF, DKIM, DMARC, reverse DNS) refused it",
            Self::Content => "an attachment or the form of the message was refused",
            Self::Tls => "TLS is missing or could not be agreed",
            Self::Unreachable => "the relay cannot be reached",
            Self::Temporary => "a passing trouble of the server",
            Self::Loop => "the message runs in circles",
            Self::Protocol => "the relay does not understand or support what was asked",
            Self::Refused => "refused without a reason that is known here",
        }
    }

    /// The class with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// What is done about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The relay takes a pause; its mail waits.
    PauseRelay,
    /// The relay takes a short pause, growing when it is met again; its mail waits.
    SlowDown,
    /// The recipient is tried again later, until the message expires.
    Retry,
    /// The message is held, visibly, until somebody releases it.
    HoldSender,
    /// The recipient fails and is reported.
    FailRecipient,
    /// All recipients that the reply speaks of fail and are reported.
    FailMessage,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 6] = [
        Self::PauseRelay,
        Self::SlowDown,
        Self::Retry,
        Self::HoldSender,
        Self::FailRecipient,
        Self::FailMessage,
    ];

    /// The word for it in rules, records and `--json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PauseRelay => "pause-relay",
            Self::SlowDown => "slow-down",
            Self::Retry => "retry",
            Self::HoldSender => "hold-sender",
            Self::FailRecipient => "fail-recipient",
            Self::FailMessage => "fail-message",
        }
    }

    /// What Penstock does, in plain words.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::PauseRelay => "the relay is paused and its mail waits",
            Self::SlowDown => "the relay is given a break and its mail waits",
            Self::Retry => "it is tried again later",
            Self::HoldSender => "the message is held until an administrator releases it",
            Self::FailRecipient => "this recipient fails and the sender gets a report",
            Self::FailMessage => "the message fails and the sender gets a report",
        }
    }

    /// The action with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Whether mail ends by it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::FailRecipient | Self::FailMessage)
    }
}

/// What was said, and where: all that the judgement rests on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Refusal<'a> {
    /// At which point of the dialogue; none when it is not known.
    pub stage: Option<Stage>,
    /// The reply code; none when it is not known.
    pub code: Option<u16>,
    /// The enhanced status; where none is given, one in the text is found.
    pub enhanced: Option<EnhancedStatus>,
    /// The words, lines joined by `\n`.
    pub text: &'a str,
    /// The host that said it; empty when it is not known.
    pub server: &'a str,
}

/// The rule of a judgement that rests on nothing.
pub(super) const NOTHING: &str = "nothing";

/// What a refusal means and what is done about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What it is about.
    pub class: Class,
    /// What is done.
    pub action: Action,
    /// What somebody could change, in one or two sentences.
    pub remedy: String,
    /// The rule's name, or what the judgement fell back to (`status 5.1.1`, `code 550`).
    pub rule: String,
    /// No rule knows the words: judged by enhanced status, code or stage alone.
    pub fallback: bool,
}

impl Finding {
    /// Whether anything of what was said is known here: words, a status or a reply code.
    pub fn is_known(&self) -> bool {
        !self.fallback || self.rule != NOTHING
    }
}
