//! What a refusal means for a client of a relay, and what to do about it.
//!
//! The words are judged by the [rules](super::rules); what no rule knows falls back to
//! enhanced status and code ([`fallback`](super::fallback)) and says that it did.

use crate::mail::{EnhancedStatus, Stage};
use crate::relay::{RelayError, Severity};

use super::fallback;
use super::finding::{Action, Finding, Refusal};
use super::no_reply;
use super::rules::Rules;

/// Judges a refusal by its words.
pub fn classify(rules: &Rules, refusal: &Refusal<'_>) -> Finding {
    let mut refusal = refusal.clone();
    if refusal.enhanced.is_none() {
        refusal.enhanced = EnhancedStatus::find_in(refusal.text);
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
        return no_reply::judge(error);
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
/// (RFC 5321 section 4.2.1). Nor does 503, a bad sequence of commands: it is about the
/// session. Before MAIL nothing was said about any message, so no
/// message can suffer for it.
fn restrained(action: Action, refusal: &Refusal<'_>) -> Action {
    if refusal.stage.is_some_and(|it| it < Stage::Mail) && action != Action::SlowDown {
        return Action::PauseRelay;
    }
    let permanent = match refusal.code {
        Some(code) => (500..600).contains(&code) && code != 503,
        None => refusal.enhanced.is_none_or(|it| it.class == 5),
    };
    match action {
        Action::FailRecipient | Action::FailMessage | Action::HoldSender if !permanent => {
            Action::Retry
        }
        other => other,
    }
}

#[cfg(test)]
mod whose_trouble;

#[cfg(test)]
mod tests {
    use super::super::finding::Class;
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
    fn a_session_out_of_step_ends_no_mail_whatever_words_and_status_say() {
        let open = "5.5.1 Error: MAIL transaction in progress";
        let ours = all_finals();
        for stage in Stage::ALL.into_iter().filter(|it| *it >= Stage::Mail) {
            let judged = |rules: &Rules, text: &str| {
                let refusal = Refusal {
                    stage: Some(stage),
                    code: Some(503),
                    text,
                    ..Refusal::default()
                };
                classify(rules, &refusal).action
            };
            assert_eq!(judged(&ours, "no"), Action::Retry, "{stage:?}");
            // At MAIL nothing of ours came before it: the next one would hear it, too.
            let unknown = match stage {
                Stage::Mail => Action::PauseRelay,
                _ => Action::Retry,
            };
            assert_eq!(judged(&ours, open), unknown, "{stage:?}");
            assert_eq!(judged(Rules::compiled_in(), open), unknown, "{stage:?}");
        }
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
    fn what_is_said_at_mail_never_fails_a_recipient() {
        for rule in Rules::compiled_in().iter() {
            for sample in &rule.samples {
                let said = super::super::bounce::Said::read(&sample.reply);
                let mut refusal = said.refusal();
                refusal.stage = Some(Stage::Mail);
                refusal.code = Some(550);
                let it = classify(Rules::compiled_in(), &refusal);
                assert_ne!(
                    it.action,
                    Action::FailRecipient,
                    "{}: {}",
                    it.rule,
                    sample.reply
                );
            }
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
            (
                "mail",
                "552 5.2.2 Over quota",
                (Class::RelayQuota, PauseRelay),
            ),
            ("mail", "552 over quota", (Class::RelayQuota, PauseRelay)),
            // Of what gives no reason at MAIL only a person can tell the reason.
            ("mail", "554 5.0.0 no", (Class::Refused, HoldSender)),
            ("mail", "550 Access denied", (Class::Refused, HoldSender)),
            ("mail", "571 blocked", (Class::Refused, HoldSender)),
            // A command that is not understood, or trouble of the server itself, is about
            // no message; what is not understood at RCPT may be the address.
            ("mail", "501 Syntax error", (Class::Protocol, PauseRelay)),
            (
                "mail",
                "500 5.5.1 Unknown command",
                (Class::Protocol, PauseRelay),
            ),
            (
                "mail",
                "554 5.3.2 not today",
                (Class::Temporary, PauseRelay),
            ),
            ("data", "502 5.5.1 what?", (Class::Protocol, PauseRelay)),
            (
                "final-dot",
                "500 syntax error",
                (Class::Protocol, PauseRelay),
            ),
            (
                "final-dot",
                "500 Line too long",
                (Class::Content, FailMessage),
            ),
            (
                "recipient",
                "501 Syntax error",
                (Class::Protocol, FailRecipient),
            ),
            (
                "recipient",
                "554 5.3.5 misconfigured",
                (Class::Temporary, PauseRelay),
            ),
            // A mailbox that is named at MAIL is the sender's.
            (
                "mail",
                "550 Requested action not taken: mailbox unavailable",
                (Class::SenderNotAllowed, HoldSender),
            ),
            (
                "recipient",
                "550 Requested action not taken: mailbox unavailable",
                (Class::RecipientUnknown, FailRecipient),
            ),
            (
                "mail",
                "554 Unauthorized sender address",
                (Class::SenderNotAllowed, HoldSender),
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
