//! Puts the words of mail into those of the protocol.

use jiff::Timestamp;

use super::protocol::{
    Candidate, Filter, HoldDetail, MessageDetail, MessageState, MessageSummary, RecipientDetail,
    Said,
};
use crate::mail::{
    Body, Diagnostic, Envelope, Hold, HoldReason, Notify, Origin, Recipient, RecipientStatus, Ret,
    ReversePath, Rule, State,
};

/// Why a message is still here, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Situation {
    /// Whether it may leave.
    pub state: MessageState,
    /// For programs; see [`MessageSummary::why`].
    pub why: String,
    /// For people: one sentence, without a time.
    pub text: String,
    /// When that may change by itself.
    pub next: Option<Timestamp>,
    /// When it is given up; none: not by itself, or nobody can tell yet.
    pub expires: Option<Timestamp>,
}

impl Situation {
    /// What can be said from the envelope alone, when neither the relay's state nor the
    /// schedule is known.
    pub fn of(envelope: &Envelope, now: Timestamp) -> Self {
        match &envelope.state {
            State::Held(hold) => Self {
                state: MessageState::Held,
                why: hold.reason.name().into(),
                text: held(hold),
                next: None,
                expires: None,
            },
            State::Waiting {
                not_before: Some(at),
            } if *at > now => Self {
                state: MessageState::Deferred,
                why: "retry".into(),
                text: "the last attempt failed for the time being".into(),
                next: Some(*at),
                expires: None,
            },
            State::Waiting { .. } => Self {
                state: MessageState::Waiting,
                why: "unknown".into(),
                text: "waits for its turn".into(),
                next: None,
                expires: None,
            },
        }
    }
}

/// What a refusal means and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// Its class, like `sender-not-allowed`.
    pub class: String,
    /// What to do, in a sentence or two.
    pub remedy: String,
}

/// A row of the queue.
pub fn summary(envelope: &Envelope, situation: Situation) -> MessageSummary {
    let waiting = envelope.waiting().count() as u64;
    let to = envelope
        .waiting()
        .next()
        .map(|(_, it)| it)
        .or(envelope.recipients.first());
    MessageSummary {
        id: envelope.id.to_string(),
        accepted: envelope.accepted,
        from: envelope.from.to_string(),
        to: to.map(|it| it.path.to_string()).unwrap_or_default(),
        recipients: waiting,
        size_bytes: envelope.size_bytes,
        user: user(&envelope.rule).map(Into::into),
        relay: envelope.relay.clone(),
        mailing: envelope.mailing.label.clone(),
        mailing_key: envelope.mailing.key.clone(),
        state: situation.state,
        why: situation.why,
        why_text: situation.text,
        next: situation.next,
        attempts: envelope.attempts,
        error: latest(envelope).map(one_line),
    }
}

/// Everything about one message but its content.
///
/// `meaning` explains what a relay said.
pub fn detail(
    envelope: &Envelope,
    situation: Situation,
    meaning: &dyn Fn(&Diagnostic) -> Option<Meaning>,
) -> MessageDetail {
    MessageDetail {
        expires: situation.expires,
        summary: summary(envelope, situation),
        reverse_path: match &envelope.reverse_path {
            ReversePath::Null => String::new(),
            ReversePath::Mailbox(mailbox) => mailbox.to_string(),
        },
        message_id: envelope.message_id.clone(),
        origin: origin(envelope.origin).into(),
        rule: envelope.rule.to_string(),
        login: envelope.login.clone(),
        client: envelope.client.clone(),
        wire_bytes: envelope.wire_bytes,
        body: match envelope.body {
            Body::SevenBit => "7bit",
            Body::EightBitMime => "8bitmime",
        }
        .into(),
        smtputf8: envelope.smtputf8,
        ret: envelope.ret.map(|it| {
            match it {
                Ret::Full => "full",
                Ret::Headers => "headers",
            }
            .into()
        }),
        envid: envelope.envid.clone(),
        first_failure: envelope.first_failure,
        warned: envelope.warned,
        hold: match &envelope.state {
            State::Waiting { .. } => None,
            State::Held(hold) => Some(HoldDetail {
                reason: hold.reason.name().into(),
                by: hold.by.clone(),
                since: hold.since,
                note: hold.note.clone(),
            }),
        },
        recipient_list: envelope
            .recipients
            .iter()
            .map(|it| recipient(it, meaning))
            .collect(),
    }
}

/// Whether a filter chooses a message.
pub fn chooses(filter: &Filter, envelope: &Envelope, state: MessageState, now: Timestamp) -> bool {
    if filter.is_empty() {
        return true;
    }
    let recipients: Vec<String> = match &filter.to {
        None => Vec::new(),
        Some(_) => envelope
            .waiting()
            .map(|(_, it)| it.path.to_string())
            .collect(),
    };
    let errors: Vec<String> = match &filter.error {
        None => Vec::new(),
        Some(_) => envelope
            .waiting()
            .filter_map(|(_, it)| it.last.as_ref())
            .map(one_line)
            .collect(),
    };
    filter.matches(
        &Candidate {
            id: &envelope.id.to_string(),
            user: user(&envelope.rule),
            login: envelope.login.as_deref(),
            from: &envelope.from.to_string(),
            recipients: &recipients,
            relay: &envelope.relay,
            mailing_key: &envelope.mailing.key,
            mailing: &envelope.mailing.label,
            state,
            accepted: envelope.accepted,
            size_bytes: envelope.size_bytes,
            errors: &errors,
        },
        now,
    )
}

/// The directory's entry behind a rule.
pub fn user(rule: &Rule) -> Option<&str> {
    match rule {
        Rule::Address(user) | Rule::WithoutTag(user) | Rule::Domain(user) => Some(user),
        Rule::Default | Rule::Own | Rule::Unverified(_) | Rule::Rerouted => None,
    }
}

/// A hold in one sentence.
fn held(hold: &Hold) -> String {
    let reason = match hold.reason {
        HoldReason::Administrator => format!("held by {}", hold.by),
        HoldReason::MailingLimit => "beyond the mailing-limit of its relay".into(),
        HoldReason::SenderNotAllowed => "the relay refuses this sender or its account".into(),
        HoldReason::RelayingDenied => "the relay refuses this recipient".into(),
        HoldReason::DoubleBounce => "a report that could not be delivered".into(),
        HoldReason::Hint => "a hint holds it".into(),
        HoldReason::Damaged => "its record in the spool is damaged".into(),
    };
    if hold.note.is_empty() {
        reason
    } else {
        format!("{reason}: {}", hold.note.replace('\n', " "))
    }
}

/// What was said last about any recipient that is not settled yet.
fn latest(envelope: &Envelope) -> Option<&Diagnostic> {
    envelope
        .waiting()
        .filter_map(|(_, it)| it.last.as_ref())
        .max_by_key(|it| it.at)
}

/// What was said, as it stands in a table: code, status and words.
pub fn one_line(said: &Diagnostic) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(said.code.map(|it| it.to_string()));
    words.extend(said.enhanced.map(|it| it.to_string()));
    words.push(said.text.replace('\n', " "));
    words.join(" ")
}

fn recipient(
    recipient: &Recipient,
    meaning: &dyn Fn(&Diagnostic) -> Option<Meaning>,
) -> RecipientDetail {
    RecipientDetail {
        address: recipient.path.to_string(),
        status: status(recipient.status).into(),
        notify: notify(recipient.notify),
        orcpt: recipient.orcpt.clone(),
        said: recipient.last.as_ref().map(|it| {
            let meaning = meaning(it);
            Said {
                at: it.at,
                stage: it.stage.name().into(),
                server: it.server.clone(),
                code: it.code,
                enhanced: it.enhanced.map(|it| it.to_string()),
                text: it.text.clone(),
                in_doubt: it.in_doubt,
                class: meaning.as_ref().map(|it| it.class.clone()),
                remedy: meaning.map(|it| it.remedy),
            }
        }),
    }
}

fn status(status: RecipientStatus) -> &'static str {
    match status {
        RecipientStatus::Waiting => "waiting",
        RecipientStatus::Delivered => "delivered",
        RecipientStatus::Failed => "failed",
        RecipientStatus::Expired => "expired",
        RecipientStatus::Deleted => "deleted",
    }
}

fn notify(notify: Notify) -> Option<String> {
    match notify {
        Notify::Unspecified => None,
        Notify::Never => Some("never".into()),
        Notify::On {
            success,
            failure,
            delay,
        } => Some(
            [(success, "success"), (failure, "failure"), (delay, "delay")]
                .into_iter()
                .filter_map(|(on, name)| on.then_some(name))
                .collect::<Vec<_>>()
                .join(","),
        ),
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Submission => "submission",
        Origin::Report => "report",
        Origin::Warning => "warning",
        Origin::Verification => "verification",
        Origin::Alarm => "alarm",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::mail::{EnhancedStatus, ForwardPath, Mailbox, Mailing, QueueId, Stage};

    fn at(time: &str) -> Timestamp {
        format!("2026-11-21T{time}Z").parse().unwrap()
    }

    fn recipient(address: &str, status: RecipientStatus, said: Option<(&str, &str)>) -> Recipient {
        Recipient {
            path: ForwardPath::parse(address).unwrap(),
            notify: Notify::Unspecified,
            orcpt: None,
            status,
            last: said.map(|(time, text)| Diagnostic {
                at: at(time),
                stage: Stage::Recipient,
                server: "smtp.uwdomein.nl".into(),
                code: Some(450),
                enhanced: Some(EnhancedStatus::new(4, 7, 1)),
                text: text.into(),
                in_doubt: false,
            }),
        }
    }

    pub fn envelope(state: State, recipients: Vec<Recipient>) -> Envelope {
        Envelope {
            id: QueueId::from_number(1),
            origin: Origin::Submission,
            accepted: at("12:00:00"),
            reverse_path: ReversePath::Null,
            from: Mailbox::parse("Jan@uwdomein.nl").unwrap(),
            rule: Rule::Domain("@uwdomein.nl".into()),
            relay: "own".into(),
            mailing: Mailing {
                key: "s-1".into(),
                label: "Vacatures".into(),
            },
            login: Some("erp".into()),
            client: "127.0.0.1".into(),
            message_id: "m@uwdomein.nl".into(),
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            size_bytes: 4096,
            wire_bytes: 4100,
            recipients,
            state,
            attempts: 1,
            first_failure: None,
            warned: false,
            past: Vec::new(),
        }
    }

    #[test]
    fn a_row_speaks_of_what_is_left_and_of_the_latest_words() {
        use RecipientStatus::{Delivered, Waiting};
        let envelope = envelope(
            State::Waiting {
                not_before: Some(at("12:10:00")),
            },
            vec![
                recipient("ann@x.nl", Delivered, Some(("12:03:00", "ok"))),
                recipient("bob@x.nl", Waiting, Some(("12:01:00", "one\ntwo"))),
                recipient("carl@x.nl", Waiting, Some(("12:02:00", "three"))),
            ],
        );
        let situation = Situation::of(&envelope, at("12:05:00"));
        assert_eq!(situation.state, MessageState::Deferred);
        let row = summary(&envelope, situation);
        assert_eq!((row.to.as_str(), row.recipients), ("bob@x.nl", 2));
        assert_eq!(row.error.as_deref(), Some("450 4.7.1 three"));
        assert_eq!(row.user.as_deref(), Some("@uwdomein.nl"));
        assert_eq!(row.next, Some(at("12:10:00")));
        // Its time has come.
        assert_eq!(
            Situation::of(&envelope, at("12:10:00")).state,
            MessageState::Waiting
        );
    }

    #[test]
    fn a_hold_says_who_and_why() {
        let envelope = envelope(
            State::Held(Hold {
                reason: HoldReason::Administrator,
                by: "piet".into(),
                since: at("12:01:00"),
                note: "until\nMonday".into(),
            }),
            vec![recipient("bob@x.nl", RecipientStatus::Waiting, None)],
        );
        let situation = Situation::of(&envelope, at("12:05:00"));
        assert_eq!(situation.why, "administrator");
        assert_eq!(situation.text, "held by piet: until Monday");
        let shown = detail(&envelope, situation, &|_| None);
        assert_eq!(shown.reverse_path, "");
        assert_eq!(shown.hold.unwrap().by, "piet");
    }

    #[test]
    fn a_filter_looks_at_recipients_that_are_left_and_what_was_said_to_them() {
        use RecipientStatus::{Delivered, Waiting};
        let envelope = envelope(
            State::Waiting { not_before: None },
            vec![
                recipient("ann@x.nl", Delivered, Some(("12:03:00", "accepted"))),
                recipient("bob@x.nl", Waiting, Some(("12:01:00", "greylisted"))),
            ],
        );
        let chosen =
            |filter: Filter| chooses(&filter, &envelope, MessageState::Waiting, at("12:05:00"));
        let to = |address: &str| Filter {
            to: Some(address.into()),
            ..Filter::default()
        };
        assert!(chosen(to("bob@x.nl")));
        assert!(!chosen(to("ann@x.nl")));
        let error = |text: &str| Filter {
            error: Some(text.into()),
            ..Filter::default()
        };
        assert!(chosen(error("4.7.1 grey")));
        assert!(!chosen(error("accepted")));
        assert!(chosen(Filter::default()));
    }
}
