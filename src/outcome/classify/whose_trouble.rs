//! Whose trouble a refusal is: replies as relays word them, beyond the samples of the rules.

use super::super::bounce::Said;
use super::super::finding::{Action, Class, Finding};
use super::*;

fn judged(stage: Stage, reply: &str) -> Finding {
    let said = Said::read(reply);
    let mut refusal = said.refusal();
    refusal.stage = Some(stage);
    classify(Rules::compiled_in(), &refusal)
}

const SENDING: [Stage; 3] = [Stage::Mail, Stage::Recipient, Stage::FinalDot];

#[test]
fn what_is_the_accounts_trouble_never_fails_mail() {
    for reply in [
        "550 5.7.0 Your message could not be sent. The limit on the number of allowed outgoing messages was exceeded. Try again later.",
        "550 User a@example.nl has exceeded its 24-hour sending limit. Messages to 250 recipients out of 250 allowed have been sent. Relay quota will reset in 19.11 hours.",
        "554 Message rejected: Sending paused for this account. For more information, please check the inbox",
        "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
        "550 5.7.30 Basic authentication is not supported for Client Submission.",
        "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domain(s)",
        "552 5.7.0 Daily sending limit exceeded",
        "552 5.2.0 sender daily quota exceeded",
        "552 5.2.2 Submission quota exceeded",
        "550 5.4.6 Sending limit exceeded",
        "550 5.7.1 Your account has been suspended, contact support",
        "550 Outgoing mail from \"example.nl\" has been suspended.",
        "550 Domain example.nl has an outgoing mail suspension. Message discarded.",
        "550 The account has exceeded the maximum number of emails per day",
        "550 You have reached your hourly email limit",
        "550 5.7.1 You have sent too many emails in the last hour",
        "550 5.7.1 You have used all your credits",
        "550 5.7.1 You must purchase a plan to send to this recipient",
        "550 5.7.1 Sandbox accounts may send to verified recipients only",
        "550 5.7.1 SMTP sending is disabled for this mailbox",
        "554 5.7.1 Sending is temporarily disabled for this account",
        "550 5.7.1 Your account may not do that before Friday",
        "550 5.7.0 Password expired, please change it in webmail",
        "550 5.7.1 Your IP is not allowed to use this relay",
        "554 5.2.0 STOREDRV.Submission.Exception:AccountDisabledException",
    ] {
        for stage in SENDING {
            let it = judged(stage, reply);
            assert!(
                !it.action.is_final(),
                "{stage:?} {reply}: {} {:?}",
                it.rule,
                it.action
            );
        }
    }
}

#[test]
fn what_is_one_messages_or_one_recipients_trouble_pauses_no_relay() {
    for (reply, class) in [
        (
            "554 5.7.1 Service unavailable; Sender address [info@listed.example] blocked using dbl.spamhaus.org",
            Class::Blacklisted,
        ),
        (
            "550 rejected because listed.example is in a black list at dbl.spamhaus.org",
            Class::Blacklisted,
        ),
        (
            "554 5.7.1 Service unavailable; Recipient address [info@listed.example] blocked using dbl.spamhaus.org",
            Class::RecipientRefuses,
        ),
        (
            "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required",
            Class::RecipientRefuses,
        ),
        (
            "550 5.7.134 RESOLVER.RST.SenderNotAuthenticatedForMailbox; authentication required",
            Class::RecipientRefuses,
        ),
        (
            "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required",
            Class::RecipientRefuses,
        ),
        (
            "552 5.2.2 recipient's daily quota exceeded",
            Class::MailboxFull,
        ),
        (
            "552 outgoing message limit: message size exceeds 20 MB",
            Class::TooLarge,
        ),
        ("552 Postfach voll", Class::MailboxFull),
        ("552 Mailbox is vol", Class::MailboxFull),
        ("550 Empfänger unbekannt", Class::RecipientUnknown),
        ("550 Benutzer unbekannt", Class::RecipientUnknown),
        ("550 Onbekende gebruiker", Class::RecipientUnknown),
        ("550 Destinataire inconnu", Class::RecipientUnknown),
        ("550 Relaying nicht erlaubt", Class::RelayingDenied),
        ("554 Ihre Nachricht wurde als Spam erkannt", Class::Spam),
        ("550 5.2.1 account suspended", Class::RecipientRefuses),
        (
            "550 5.2.1 Delivery is disabled for this account",
            Class::RecipientRefuses,
        ),
        (
            "550 5.7.1 Rejected by our outbound spam filter",
            Class::Spam,
        ),
        ("550 host is listed in multi.surbl.org", Class::Blacklisted),
        (
            "554 5.7.1 Message rejected. From domain is blacklisted",
            Class::Blacklisted,
        ),
        (
            "550 5.7.1 domain example.nl is listed by Spamhaus DBL",
            Class::Blacklisted,
        ),
        (
            "550 User x has received too many messages per day",
            Class::Temporary,
        ),
        ("550 5.2.0 mailbox daily limit exceeded", Class::Refused),
        (
            "552 5.3.4 Your message exceeded your account's message size limit",
            Class::TooLarge,
        ),
        (
            "554 Transaction failed: Recipient count exceeds 50.",
            Class::TooManyRecipients,
        ),
        ("550 5.7.1 message authentication failed", Class::Policy),
        ("554 5.7.1 Sender authentication failed", Class::Policy),
    ] {
        for stage in [Stage::Recipient, Stage::FinalDot] {
            let it = judged(stage, reply);
            assert_eq!(it.class, class, "{stage:?} {reply}: {}", it.rule);
            assert!(
                !matches!(it.action, Action::PauseRelay | Action::SlowDown),
                "{stage:?} {reply}: {} {:?}",
                it.rule,
                it.action
            );
        }
    }
}

#[test]
fn a_listing_of_the_sending_address_is_the_relays() {
    for reply in [
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
        "554 5.7.1 Service unavailable; Helo command [mx.example.nl] blocked using dbl.spamhaus.org",
        "550 rejected because 192.0.2.1 is in a black list at zen.spamhaus.org",
        "550 host is listed in zen.spamhaus.org",
        "554 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1",
    ] {
        for stage in [Stage::Greeting, Stage::Recipient, Stage::FinalDot] {
            let it = judged(stage, reply);
            assert_eq!(
                (it.class, it.action),
                (Class::Blacklisted, Action::PauseRelay),
                "{stage:?} {reply}: {}",
                it.rule
            );
        }
    }
}
