//! Judging a reply that no rule knows: by enhanced status (RFC 3463, RFC 5248 and the
//! registry they opened), by reply code and stage (RFC 5321 section 4.2).

use crate::mail::{EnhancedStatus, Stage};

use super::finding::{Action, Class, Finding, NOTHING, Refusal};
use super::no_reply;

/// Judges a refusal whose words no rule knows.
pub fn judge(refusal: &Refusal<'_>) -> Finding {
    if refusal.code.is_none()
        && let Some(finding) = no_reply::by_words(refusal.text, refusal.enhanced)
    {
        return finding;
    }
    let transient = refusal.code.is_some_and(|it| (400..500).contains(&it))
        || (refusal.code.is_none() && refusal.enhanced.is_some_and(|it| it.class == 4));
    // "Bad sequence of commands" is about the session, whatever its status: no message
    // ends for it. At MAIL nothing came before it, so it will be said to the next one, too.
    if refusal.code == Some(503) {
        let (class, action, remedy) = OUT_OF_STEP;
        let action = match refusal.stage {
            Some(Stage::Mail) => Action::PauseRelay,
            _ => action,
        };
        return finding(class, action, remedy, "code 503".into());
    }
    if let Some(status) = refusal.enhanced
        && let Some(verdict) = by_status(status, transient || status.class == 4)
    {
        let (class, action, remedy) = at_its_stage(verdict, refusal);
        // A status may contradict its code: the code decides what happens (RFC 2034
        // section 4), the status only says what it is about.
        let action = match action {
            Action::FailRecipient | Action::FailMessage | Action::HoldSender if transient => {
                Action::Retry
            }
            other => other,
        };
        return finding(class, action, remedy, format!("status {status}"));
    }
    match refusal.code {
        Some(code) => {
            let (class, action, remedy) = at_its_stage(by_code(code, refusal.stage), refusal);
            finding(class, action, remedy, format!("code {code}"))
        }
        None if transient => {
            let (class, action, remedy) = TEMPORARY;
            finding(class, action, remedy, "class 4".into())
        }
        None if refusal.enhanced.is_some() => {
            let (class, action, remedy) = at_its_stage(REFUSED, refusal);
            finding(class, action, remedy, "class 5".into())
        }
        // Neither a code nor known words: nothing may end because of it.
        None => finding(
            Class::Temporary,
            Action::Retry,
            "These words carry no reply code, and nothing here knows them. Give the whole reply \
             of the server with its code, or the whole bounce message.",
            NOTHING.into(),
        ),
    }
}

type Verdict = (Class, Action, &'static str);

/// A verdict of nobody's rule.
pub(super) fn finding(class: Class, action: Action, remedy: &str, rule: String) -> Finding {
    Finding {
        class,
        action,
        remedy: remedy.to_owned(),
        rule,
        fallback: true,
    }
}

const TEMPORARY: Verdict = (
    Class::Temporary,
    Action::Retry,
    "The server asks to try again later. If it says so for hours, ask its operator.",
);
/// What RFC 3463 section 3.4 calls the mail system status: of the whole server, not of
/// one mailbox.
const SYSTEM: Verdict = (
    Class::Temporary,
    Action::PauseRelay,
    "The relay says that it has trouble itself, whatever the message: ask its operator if it \
     stays so.",
);
const PROTOCOL: Verdict = (
    Class::Protocol,
    Action::PauseRelay,
    "The relay did not understand a command, which says nothing about a recipient: look at \
     the conversation with penstock relay test; something between may be rewriting it.",
);
const BAD_SYNTAX: Verdict = (
    Class::Protocol,
    Action::FailRecipient,
    "The relay does not take the recipient's address as it is written: check it.",
);
const OUT_OF_STEP: Verdict = (
    Class::Protocol,
    Action::Retry,
    "Relay and Penstock were out of step, which a new connection mends: if it stays so, look \
     at the conversation with penstock relay test.",
);
const REFUSED: Verdict = (
    Class::Refused,
    Action::FailRecipient,
    "The server refuses it for good: its own words are all that is known about the reason.",
);
const NO_LOGIN: Verdict = (
    Class::NotLoggedIn,
    Action::PauseRelay,
    "Check user name and password of this relay (penstock relay set), and that the \
     account may send by SMTP.",
);
const NO_TLS: Verdict = (
    Class::Tls,
    Action::PauseRelay,
    "The server wants TLS before it goes on: set tls = \"required\", or use port 587 or 465.",
);
/// 454 to STARTTLS (RFC 3207 section 4): it was asked for, and cannot be had.
const NO_TLS_AT_PRESENT: Verdict = (
    Class::Tls,
    Action::PauseRelay,
    "The server offers STARTTLS and cannot do it at present: its operator must mend that. \
     Where the provider has port 465, try that.",
);
const UNKNOWN_RECIPIENT: Verdict = (
    Class::RecipientUnknown,
    Action::FailRecipient,
    "Check the address for a typing error and take it off the list if it is out of date.",
);
const TOO_LARGE: Verdict = (
    Class::TooLarge,
    Action::FailMessage,
    "The message is too large: send the file as a link, or in parts.",
);
const BAD_SENDER: Verdict = (
    Class::SenderNotAllowed,
    Action::HoldSender,
    "The server does not take this sender address: check the reverse-path that the \
     application uses, or set reverse-path for this relay.",
);
const AUTHENTICITY: Verdict = (
    Class::Policy,
    Action::FailMessage,
    "SPF, DKIM or DMARC of the From domain does not cover this relay: see penstock check.",
);

/// Said at MAIL, where nothing but the sender is known: a guess, and called one.
const UNEXPLAINED_AT_MAIL: Verdict = (
    Class::Refused,
    Action::HoldSender,
    "The server does not say why. So early it knows only the sender address, the account and \
     this machine: check whether the account may send, and from this address, ask the \
     server's operator, then release the message.",
);
const ACCOUNT_QUOTA: Verdict = (
    Class::RelayQuota,
    Action::PauseRelay,
    "The account's own quota at the relay is used up: make room there, or wait until it \
     renews.",
);

/// What a status says (the registry of enumerated status codes, RFC 5248 section 2).
fn by_status(status: EnhancedStatus, transient: bool) -> Option<Verdict> {
    Some(match (status.subject, status.detail) {
        (1, 0..=3 | 6 | 9 | 10) => UNKNOWN_RECIPIENT,
        (1, 7 | 8) => BAD_SENDER,
        (2, 1) => (
            Class::RecipientRefuses,
            Action::FailRecipient,
            "The recipient's mailbox is disabled or takes no mail: ask the recipient by \
             another way, or take the address off the list.",
        ),
        (2, 2) => (
            Class::MailboxFull,
            Action::FailRecipient,
            "The recipient's mailbox is full: the recipient must make room.",
        ),
        (2, 3) | (3, 4) => TOO_LARGE,
        (2, 4) => (
            Class::RecipientRefuses,
            Action::FailRecipient,
            "The address is a mailing list that could not be expanded: ask its owner.",
        ),
        (3, _) | (4, 3 | 5) if transient => (
            Class::Temporary,
            Action::Retry,
            "The server has trouble of its own and asks to try again later.",
        ),
        (3, _) | (4, 3 | 5) => SYSTEM,
        (4, 6) => (
            Class::Loop,
            Action::FailMessage,
            "The message runs in circles between servers: check forwardings and the \
             relay's routes.",
        ),
        (4, _) if transient => (
            Class::Temporary,
            Action::Retry,
            "The relay cannot reach the next server at present.",
        ),
        (4, 4) => (
            Class::RecipientUnknown,
            Action::FailRecipient,
            "The relay finds no mail server for the recipient's domain: check the address \
             for a typing error.",
        ),
        (5, 3) => (
            Class::TooManyRecipients,
            Action::Retry,
            "Set recipients-per-message for this relay to what it accepts.",
        ),
        (5, 0..=2 | 4..=6) if transient => (PROTOCOL.0, Action::Retry, PROTOCOL.2),
        (5, 0..=2 | 4..=6) => PROTOCOL,
        (6, 3 | 5 | 7..=9) => (
            Class::Protocol,
            Action::FailMessage,
            "The relay or the recipient's server cannot carry this message as it is: send \
             it in a plainer form.",
        ),
        (6, 1 | 2 | 4) => (
            Class::Content,
            Action::FailMessage,
            "The form of the content was refused: send it in a plainer form.",
        ),
        (7, 8 | 9 | 12 | 14) => NO_LOGIN,
        (7, 10 | 11) => NO_TLS,
        (7, 13) => (
            Class::AccountSuspended,
            Action::PauseRelay,
            "The relay has disabled the account: ask its operator why, then run penstock \
             relay resume.",
        ),
        (7, 15 | 16) if transient => TEMPORARY,
        // From 124 on Exchange's own: its groups and mailboxes choose who may write to them.
        (7, 2 | 17..=19 | 124 | 133..=136) => (
            Class::RecipientRefuses,
            Action::FailRecipient,
            "The recipient does not take mail from this sender: ask the recipient by \
             another way.",
        ),
        // The sender's domain takes no mail itself (RFC 7505 section 4.2).
        (7, 27) => BAD_SENDER,
        (7, 20..=24 | 26 | 29) => AUTHENTICITY,
        (7, 25) => (
            Class::Policy,
            Action::PauseRelay,
            "The sending address has no matching reverse DNS: whoever runs the sending \
             server must set its PTR record.",
        ),
        (7, 28) => (
            Class::Rate,
            Action::SlowDown,
            "The server takes this for a flood: lower the relay's limits.",
        ),
        _ => return None,
    })
}

/// What a verdict becomes where it was said.
///
/// At MAIL no recipient was named yet and no content seen, so what is refused without a
/// reason is most likely refused for its sender, and is held. A wrong guess costs an
/// administrator a look at held mail; the other way round it bounces whatever this sender
/// submits. What is about commands or the server itself is about no message anywhere,
/// except at RCPT, where an address may be what was not understood.
fn at_its_stage(verdict: Verdict, refusal: &Refusal<'_>) -> Verdict {
    let status = refusal.enhanced.map(|it| (it.subject, it.detail));
    // 5.5.0 beside a code that speaks of mailboxes says nothing at all.
    let undefined = status == Some((5, 0)) && refusal.code.is_some_and(|it| !is_syntax(it));
    match (refusal.stage, verdict) {
        (Some(Stage::Recipient), PROTOCOL) if !matches!(refusal.code, Some(500 | 502)) => {
            BAD_SYNTAX
        }
        (Some(Stage::Mail), PROTOCOL) if undefined => UNEXPLAINED_AT_MAIL,
        (Some(it), PROTOCOL) if undefined && it >= Stage::Data => {
            (PROTOCOL.0, Action::Retry, PROTOCOL.2)
        }
        (Some(Stage::Recipient), SYSTEM) if names_a_mailbox(refusal.text) => REFUSED,
        (Some(Stage::Mail), SYSTEM) if names_a_mailbox(refusal.text) => BAD_SENDER,
        (Some(Stage::Mail), (Class::MailboxFull, ..)) => ACCOUNT_QUOTA,
        (Some(Stage::Mail), (_, Action::FailRecipient, _))
            if matches!(status, Some((1 | 2, _))) =>
        {
            BAD_SENDER
        }
        (Some(Stage::Mail), (Class::Refused, ..))
            if refusal.code == Some(553) && status.is_none() =>
        {
            BAD_SENDER
        }
        (
            Some(Stage::Mail),
            (_, Action::FailRecipient, _) | (Class::Refused, Action::FailMessage, _),
        ) if names_a_sender(refusal.text) => BAD_SENDER,
        (
            Some(Stage::Mail),
            (_, Action::FailRecipient, _) | (Class::Refused, Action::FailMessage, _),
        ) => UNEXPLAINED_AT_MAIL,
        // The message is within what EHLO announced, or this would not have been asked.
        (Some(Stage::Mail), TOO_LARGE) if status.is_none() => UNEXPLAINED_AT_MAIL,
        (_, other) => other,
    }
}

/// Reply codes about commands and their parameters (RFC 5321 section 4.2.2).
fn is_syntax(code: u16) -> bool {
    matches!(code, 500..=504 | 555)
}

/// Whether words at MAIL tell that it is the sender's address.
fn names_a_sender(text: &str) -> bool {
    let text = text.to_lowercase();
    ["@", "mailbox", "sender", "reverse-path"]
        .iter()
        .any(|it| text.contains(it))
}

/// Whether a server that speaks of trouble of its own means one mailbox after all.
fn names_a_mailbox(text: &str) -> bool {
    let text = text.to_lowercase();
    ["@", "mailbox", "user", "recipient", "address"]
        .iter()
        .any(|it| text.contains(it))
}

/// What a reply code says, with the stage where that matters.
fn by_code(code: u16, stage: Option<Stage>) -> Verdict {
    match code {
        432 | 454 | 530 | 534 | 535 | 538
            if stage.is_none_or(|it| it <= Stage::Auth || code == 530) =>
        {
            match (code, stage) {
                (538, _) => NO_TLS,
                (454, Some(Stage::StartTls)) => NO_TLS_AT_PRESENT,
                _ => NO_LOGIN,
            }
        }
        400..500 => TEMPORARY,
        552 if matches!(stage, Some(Stage::Recipient)) => (
            Class::MailboxFull,
            Action::FailRecipient,
            "The recipient's mailbox is full or takes no message of this size: the \
             recipient must make room.",
        ),
        552 => TOO_LARGE,
        551 => UNKNOWN_RECIPIENT,
        550 | 553 | 556 if matches!(stage, Some(Stage::Recipient)) => REFUSED,
        500..=504 | 555 => PROTOCOL,
        // A host that takes no mail at all (RFC 7504).
        521 if stage != Some(Stage::Recipient) => (REFUSED.0, Action::PauseRelay, REFUSED.2),
        500..600 => match stage {
            Some(Stage::Recipient) | None => REFUSED,
            _ => (REFUSED.0, Action::FailMessage, REFUSED.2),
        },
        // Not a refusal in any reading: a reply that cannot stand here.
        _ => TEMPORARY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: u16, status: &str, stage: Stage) -> (Class, Action) {
        let it = judge(&Refusal {
            stage: Some(stage),
            code: Some(code),
            enhanced: status.parse().ok(),
            ..Refusal::default()
        });
        assert!(it.fallback);
        (it.class, it.action)
    }

    #[test]
    fn the_status_says_what_it_is_about_and_the_code_whether_it_is_final() {
        use Action::*;
        for (code, status, stage, expected) in [
            (
                550,
                "5.1.1",
                Stage::Recipient,
                (Class::RecipientUnknown, FailRecipient),
            ),
            (
                450,
                "4.1.1",
                Stage::Recipient,
                (Class::RecipientUnknown, Retry),
            ),
            (
                450,
                "5.1.1",
                Stage::Recipient,
                (Class::RecipientUnknown, Retry),
            ),
            (552, "5.3.4", Stage::Mail, (Class::TooLarge, FailMessage)),
            (535, "5.7.8", Stage::Auth, (Class::NotLoggedIn, PauseRelay)),
            (
                550,
                "5.7.13",
                Stage::Mail,
                (Class::AccountSuspended, PauseRelay),
            ),
            (550, "5.7.1", Stage::FinalDot, (Class::Refused, FailMessage)),
            // About the recipient (RFC 7293), not about a login.
            (
                550,
                "5.7.18",
                Stage::Recipient,
                (Class::RecipientRefuses, FailRecipient),
            ),
            (
                550,
                "5.7.134",
                Stage::FinalDot,
                (Class::RecipientRefuses, FailRecipient),
            ),
            (
                550,
                "5.7.27",
                Stage::Recipient,
                (Class::SenderNotAllowed, HoldSender),
            ),
            // REQUIRETLS in the registry, a login at Microsoft: no word of SPF.
            (550, "5.7.30", Stage::Mail, (Class::Refused, HoldSender)),
            (538, "5.7.11", Stage::Auth, (Class::Tls, PauseRelay)),
            (454, "", Stage::StartTls, (Class::Tls, PauseRelay)),
            (550, "5.7.1", Stage::Mail, (Class::Refused, HoldSender)),
            (554, "", Stage::Mail, (Class::Refused, HoldSender)),
            (554, "5.0.0", Stage::Mail, (Class::Refused, HoldSender)),
            (571, "", Stage::Mail, (Class::Refused, HoldSender)),
            (552, "", Stage::Mail, (Class::Refused, HoldSender)),
            (553, "", Stage::Mail, (Class::SenderNotAllowed, HoldSender)),
            (552, "5.2.2", Stage::Mail, (Class::RelayQuota, PauseRelay)),
            (
                550,
                "5.1.1",
                Stage::Mail,
                (Class::SenderNotAllowed, HoldSender),
            ),
            (550, "5.5.0", Stage::Mail, (Class::Refused, HoldSender)),
            (451, "4.1.1", Stage::Mail, (Class::SenderNotAllowed, Retry)),
            (501, "5.5.4", Stage::Mail, (Class::Protocol, PauseRelay)),
            (
                501,
                "5.1.7",
                Stage::Mail,
                (Class::SenderNotAllowed, HoldSender),
            ),
            (554, "5.6.7", Stage::Mail, (Class::Protocol, FailMessage)),
            (
                550,
                "5.7.1",
                Stage::Recipient,
                (Class::Refused, FailRecipient),
            ),
            (451, "", Stage::Recipient, (Class::Temporary, Retry)),
            (530, "", Stage::Mail, (Class::NotLoggedIn, PauseRelay)),
            (454, "", Stage::FinalDot, (Class::Temporary, Retry)),
            (552, "", Stage::FinalDot, (Class::TooLarge, FailMessage)),
            (354, "", Stage::FinalDot, (Class::Temporary, Retry)),
            (503, "5.5.1", Stage::Mail, (Class::Protocol, PauseRelay)),
            (503, "5.5.1", Stage::Data, (Class::Protocol, Retry)),
            (
                550,
                "5.4.4",
                Stage::Recipient,
                (Class::RecipientUnknown, FailRecipient),
            ),
            (554, "5.4.0", Stage::FinalDot, (Class::Refused, FailMessage)),
            (450, "4.4.4", Stage::Recipient, (Class::Temporary, Retry)),
            (
                550,
                "5.7.15",
                Stage::Recipient,
                (Class::Refused, FailRecipient),
            ),
        ] {
            assert_eq!(
                judged(code, status, stage),
                expected,
                "{code} {status} {stage:?}"
            );
        }
    }

    #[test]
    fn what_is_about_commands_or_the_server_itself_ends_no_mail() {
        let stages = Stage::ALL.into_iter().filter(|it| *it >= Stage::Mail);
        for stage in stages.filter(|it| *it != Stage::Recipient) {
            for code in [500, 501, 502, 503, 504, 555] {
                for status in ["", "5.5.0", "5.5.1", "5.5.2", "5.5.4", "5.5.5", "5.5.6"] {
                    let (class, action) = judged(code, status, stage);
                    assert_eq!(class, Class::Protocol, "{code} {status} {stage:?}");
                    assert!(
                        matches!(action, Action::PauseRelay | Action::Retry),
                        "{code} {status} {stage:?}: {action:?}"
                    );
                }
            }
            for code in [550, 552, 554] {
                for status in [
                    "5.3.0", "5.3.1", "5.3.2", "5.3.3", "5.3.5", "5.5.1", "5.5.2",
                ] {
                    let (_, action) = judged(code, status, stage);
                    assert_eq!(action, Action::PauseRelay, "{code} {status} {stage:?}");
                }
            }
        }
    }

    #[test]
    fn at_rcpt_only_what_names_an_address_is_about_the_recipient() {
        for (code, status, text, expected) in [
            (
                554,
                "5.3.2",
                "System not accepting messages",
                Action::PauseRelay,
            ),
            (554, "5.3.0", "<a@b>... Denied", Action::FailRecipient),
            (552, "5.3.1", "Mailbox too busy", Action::FailRecipient),
            (552, "5.3.1", "no space", Action::PauseRelay),
            (500, "", "what?", Action::PauseRelay),
            (502, "5.5.1", "what?", Action::PauseRelay),
            (501, "5.1.3", "bad address", Action::FailRecipient),
            (501, "5.5.4", "bad argument", Action::FailRecipient),
            (555, "5.5.2", "syntax", Action::FailRecipient),
            (552, "5.3.4", "too big", Action::FailMessage),
        ] {
            let it = judge(&Refusal {
                stage: Some(Stage::Recipient),
                code: Some(code),
                enhanced: status.parse().ok(),
                text,
                ..Refusal::default()
            });
            assert_eq!(it.action, expected, "{code} {status} {text}");
        }
    }

    #[test]
    fn no_transient_code_ends_mail_whatever_its_status() {
        for code in 400..500 {
            for subject in 0..8 {
                for detail in 0..40 {
                    for class in [4, 5] {
                        for stage in Stage::ALL {
                            let it = judge(&Refusal {
                                stage: Some(stage),
                                code: Some(code),
                                enhanced: Some(EnhancedStatus::new(class, subject, detail)),
                                ..Refusal::default()
                            });
                            assert!(!it.action.is_final(), "{code} {class}.{subject}.{detail}");
                        }
                    }
                }
            }
        }
    }
}
