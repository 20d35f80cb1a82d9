//! Envelopes, deliveries and refusals for the tests of this module.

use std::time::Duration;

use jiff::Timestamp;

use super::pause::Health;
use super::policy::Policy;
use super::rules::Rules;
use super::settle::settle;
use super::settlement::Settlement;
use crate::config::Retry;
use crate::mail::{
    Body, Envelope, ForwardPath, HoldReason, Mailbox, Mailing, Notify, Origin, QueueId, Recipient,
    RecipientStatus, ReversePath, Rule, Stage, State,
};
use crate::relay::{Attempt, Delivery, RelayError};
use crate::smtp::Reply;

pub(super) const RETRY: Retry = Retry {
    first: Duration::from_secs(60),
    max: Duration::from_secs(3600),
    expire_after: Duration::from_secs(4 * 86_400),
    warn_after: Duration::from_secs(4 * 3600),
};

pub(super) fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + 60 * minutes).unwrap()
}

pub(super) fn envelope(recipients: &[&str]) -> Envelope {
    let from = Mailbox::parse("jan@example.nl").unwrap();
    Envelope {
        id: QueueId::from_number(1 << 60),
        origin: Origin::Submission,
        accepted: at(0),
        reverse_path: ReversePath::Mailbox(from.clone()),
        from,
        rule: Rule::Default,
        relay: "own".into(),
        mailing: Mailing {
            key: "k".into(),
            label: "l".into(),
        },
        login: None,
        client: "127.0.0.1".into(),
        message_id: "abc@example.nl".into(),
        body: Body::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        size_bytes: 100,
        wire_bytes: 105,
        recipients: recipients
            .iter()
            .map(|it| Recipient {
                path: ForwardPath::parse(it).unwrap(),
                notify: Notify::Unspecified,
                orcpt: None,
                status: RecipientStatus::Waiting,
                last: None,
            })
            .collect(),
        state: State::Waiting { not_before: None },
        attempts: 0,
        first_failure: None,
        warned: false,
        past: Vec::new(),
    }
}

pub(super) fn reply(text: &str) -> Reply {
    let (code, rest) = text.split_once(' ').unwrap();
    let (enhanced, words) = match rest.split_once(' ') {
        Some((status, words)) if status.parse::<crate::mail::EnhancedStatus>().is_ok() => {
            (status.parse().ok(), words)
        }
        _ => (None, rest),
    };
    Reply {
        code: code.parse().unwrap(),
        enhanced,
        lines: words.lines().map(str::to_owned).collect(),
    }
}

pub(super) fn refused(stage: Stage, text: &str) -> Result<Reply, RelayError> {
    Err(RelayError::Refused {
        stage,
        reply: reply(text),
    })
}

pub(super) fn taken() -> Result<Reply, RelayError> {
    Ok(reply("250 2.0.0 ok"))
}

pub(super) fn stage_of(result: &Result<Reply, RelayError>) -> Stage {
    match result {
        Ok(_) => Stage::FinalDot,
        Err(
            RelayError::Refused { stage, .. }
            | RelayError::Garbage { stage, .. }
            | RelayError::Silent { stage, .. }
            | RelayError::Closed { stage, .. },
        ) => *stage,
        Err(RelayError::NoServer { .. } | RelayError::Dns { .. }) => Stage::Dns,
        Err(RelayError::Connect { .. }) => Stage::Connect,
        Err(RelayError::Tls { .. }) => Stage::Tls,
        Err(RelayError::NoSecureLogin { .. }) => Stage::StartTls,
        Err(RelayError::AuthUnavailable { .. }) => Stage::Auth,
        Err(_) => Stage::Mail,
    }
}

/// A delivery with one result a recipient, in order.
pub(super) fn delivery(now: Timestamp, results: Vec<Result<Reply, RelayError>>) -> Delivery {
    let attempts: Vec<Attempt> = results
        .into_iter()
        .enumerate()
        .map(|(recipient, result)| Attempt {
            recipient,
            stage: stage_of(&result),
            result,
            at: now,
            took: Duration::ZERO,
        })
        .collect();
    let content = attempts.iter().any(|it| it.stage >= Stage::Content);
    let in_doubt = attempts.iter().any(Attempt::in_doubt);
    Delivery {
        content_sent: content,
        final_reply_at: (content && !in_doubt).then_some(now),
        in_doubt,
        attempts,
        server: "mx.relay.example [192.0.2.7]:587".into(),
        dsn_passed_on: false,
    }
}

pub(super) fn settled(envelope: &Envelope, delivery: &Delivery, now: Timestamp) -> Settlement {
    settle(envelope, delivery, &policy(&Health::default()), now, 0.5)
}

pub(super) fn policy(health: &Health) -> Policy<'_> {
    Policy {
        retry: &RETRY,
        rules: Rules::compiled_in(),
        health,
    }
}

pub(super) fn statuses(envelope: &Envelope) -> Vec<RecipientStatus> {
    envelope.recipients.iter().map(|it| it.status).collect()
}

pub(super) fn held(envelope: &Envelope) -> Option<HoldReason> {
    match &envelope.state {
        State::Held(hold) => Some(hold.reason),
        State::Waiting { .. } => None,
    }
}

pub(super) fn later_than(envelope: &Envelope) -> Option<Timestamp> {
    match envelope.state {
        State::Waiting { not_before } => not_before,
        State::Held(_) => None,
    }
}
