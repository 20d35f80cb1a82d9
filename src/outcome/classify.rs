//! What a refusal means for a client of a relay, and what to do about it.
//!
//! The words are judged by the [rules](super::rules); what no rule knows falls back to
//! enhanced status and code ([`fallback`](super::fallback)) and says that it did.

use crate::mail::{EnhancedStatus, Stage};
use crate::relay::{RelayError, Severity};

use super::fallback;
use super::rules::Rules;

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

/// Judges a refusal by its words.
pub fn classify(rules: &Rules, refusal: &Refusal<'_>) -> Finding {
    let mut refusal = refusal.clone();
    if refusal.enhanced.is_none() {
        refusal.enhanced = status_in(refusal.text);
    }
    let mut finding = rules
        .judge(&refusal)
        .unwrap_or_else(|| fallback::judge(&refusal));
    finding.action = restrained(finding.action, &refusal);
    finding
}

/// Judges a failed attempt: a reply by its words, anything else by what it is.
pub fn classify_error(rules: &Rules, error: &RelayError, server: &str) -> Finding {
    let RelayError::Refused { stage, reply } = error else {
        return fallback::judge_error(error);
    };
    let text = reply.text();
    let refusal = Refusal {
        stage: Some(*stage),
        code: Some(reply.code),
        enhanced: reply.enhanced,
        text: &text,
        server,
    };
    let mut finding = classify(rules, &refusal);
    if error.severity() == Severity::Relay && finding.action != Action::SlowDown {
        finding.action = Action::PauseRelay;
    }
    finding
}

/// What no rule may do, however it is written.
///
/// A 4yz asks to be tried again, so it neither ends a message nor waits for a person
/// (RFC 5321 section 4.2.1). Before MAIL nothing was said about any message, so no
/// message can suffer for it.
fn restrained(action: Action, refusal: &Refusal<'_>) -> Action {
    if refusal.stage.is_some_and(|it| it < Stage::Mail) && action != Action::SlowDown {
        return Action::PauseRelay;
    }
    let permanent = match refusal.code {
        Some(code) => (500..600).contains(&code),
        None => refusal.enhanced.is_none_or(|it| it.class == 5),
    };
    match action {
        Action::FailRecipient | Action::FailMessage | Action::HoldSender if !permanent => {
            Action::Retry
        }
        other => other,
    }
}

/// The first enhanced status in a text, as in `(#5.7.1)` or `550 5.1.1 ...`.
///
/// Part of an address (`5.7.1.2`) or of a version is none.
pub fn status_in(text: &str) -> Option<EnhancedStatus> {
    text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '.' || it == '-'))
        .take(400)
        .map(|word| word.trim_matches('.'))
        .map(|word| word.rsplit('-').next().unwrap_or(word))
        .find_map(|word| {
            word.parse()
                .ok()
                .filter(|it: &EnhancedStatus| it.class != 2)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::Reply;

    fn all_finals() -> Rules {
        Rules::read(
            "[[rule]]\nname='x'\nclass='refused'\naction='fail-message'\nremedy='r'\nwords=['no']",
            "test",
        )
        .unwrap()
    }

    #[test]
    fn a_transient_code_never_ends_mail_whatever_a_rule_says() {
        let finding = classify(
            &all_finals(),
            &Refusal {
                code: Some(450),
                text: "no",
                ..Refusal::default()
            },
        );
        assert_eq!(finding.action, Action::Retry);
        assert_eq!(finding.rule, "x");
    }

    #[test]
    fn before_mail_no_message_suffers() {
        for stage in Stage::ALL.into_iter().filter(|it| *it < Stage::Mail) {
            let finding = classify_error(
                &all_finals(),
                &RelayError::Refused {
                    stage,
                    reply: Reply {
                        code: 554,
                        enhanced: None,
                        lines: vec!["no".into()],
                    },
                },
                "",
            );
            assert_eq!(finding.action, Action::PauseRelay, "{stage:?}");
        }
    }

    #[test]
    fn a_status_is_found_in_words_and_an_address_is_none() {
        for (text, status) in [
            (
                "sorry, that domain isn't in my list (#5.7.1)",
                Some("5.7.1"),
            ),
            ("5.1.1 unknown", Some("5.1.1")),
            ("550-5.7.26 unauthenticated", Some("5.7.26")),
            ("blocked: 5.7.1.9", None),
            ("version 2.0.0", None),
            ("see 4.4.7.", Some("4.4.7")),
        ] {
            let status: Option<EnhancedStatus> = status.map(|it| it.parse().unwrap());
            assert_eq!(status_in(text), status, "{text}");
        }
    }

    #[test]
    fn the_same_words_mean_what_stage_and_code_allow() {
        use Action::*;
        for (stage, reply, expected) in [
            // A 4yz is tried again, whatever its words.
            (
                "recipient",
                "454 4.7.1 <a@b>: Relay access denied",
                (Class::RelayingDenied, Retry),
            ),
            (
                "recipient",
                "450 4.1.1 <a@b>: user unknown",
                (Class::RecipientUnknown, Retry),
            ),
            (
                "",
                "4.7.26 rate limited because it is unauthenticated",
                (Class::Policy, Retry),
            ),
            // Before MAIL it is the relay's.
            (
                "greeting",
                "554 5.7.1 High probability of spam",
                (Class::Spam, PauseRelay),
            ),
            (
                "auth",
                "550 5.1.1 no such user",
                (Class::RecipientUnknown, PauseRelay),
            ),
            (
                "greeting",
                "421 too many connections",
                (Class::Rate, SlowDown),
            ),
            // The account's quota is not the mailbox's.
            (
                "recipient",
                "552 5.2.2 quota exceeded",
                (Class::MailboxFull, FailRecipient),
            ),
            (
                "final-dot",
                "550 5.4.5 Daily user sending limit exceeded",
                (Class::RelayQuota, PauseRelay),
            ),
            // The account's trouble is not the recipient's.
            (
                "recipient",
                "550 5.2.1 account is disabled",
                (Class::RecipientRefuses, FailRecipient),
            ),
            (
                "mail",
                "550 5.7.13 whatever",
                (Class::AccountSuspended, PauseRelay),
            ),
            (
                "mail",
                "530 5.7.0 Authentication required",
                (Class::NotLoggedIn, PauseRelay),
            ),
            // Authentication of a domain is no login.
            (
                "final-dot",
                "550 5.7.1 SPF authentication failed",
                (Class::Refused, FailMessage),
            ),
            (
                "recipient",
                "552 too many recipients",
                (Class::TooManyRecipients, Retry),
            ),
            (
                "recipient",
                "550 recipient address rejected: undeliverable address: host x said: 554 blocked using dnsbl",
                (Class::RecipientUnknown, FailRecipient),
            ),
        ] {
            let said = super::super::bounce::Said::read(reply);
            let mut refusal = said.refusal();
            refusal.stage = Stage::from_name(stage);
            let it = classify(Rules::compiled_in(), &refusal);
            assert_eq!(
                (it.class, it.action),
                expected,
                "{stage} {reply}: {}",
                it.rule
            );
        }
    }

    #[test]
    fn what_nothing_knows_says_so() {
        let it = classify(
            Rules::compiled_in(),
            &Refusal {
                text: "zzz",
                ..Refusal::default()
            },
        );
        assert_eq!((it.action, it.fallback), (Action::Retry, true));
    }

    #[test]
    fn names_read_back() {
        for class in Class::ALL {
            assert_eq!(Class::from_name(class.name()), Some(class));
        }
        for action in Action::ALL {
            assert_eq!(Action::from_name(action.name()), Some(action));
        }
    }
}
