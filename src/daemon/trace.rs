//! What happened to a message, told from its envelope.

use crate::control::protocol::TraceEvent;
use crate::mail::{Diagnostic, Envelope, RecipientStatus, State};
use crate::spool::Finished;

/// What happened to messages, the latest `limit` of them, oldest first.
pub fn events(finished: &[Finished], waiting: &[Envelope], limit: usize) -> Vec<TraceEvent> {
    let mut told: Vec<(&Envelope, Option<&Finished>)> = finished
        .iter()
        .map(|it| (&it.envelope, Some(it)))
        .chain(waiting.iter().map(|it| (it, None)))
        .collect();
    told.sort_by_key(|(envelope, _)| envelope.id);
    let skipped = told.len().saturating_sub(limit);
    told[skipped..]
        .iter()
        .flat_map(|(envelope, end)| message(envelope, *end))
        .collect()
}

/// What happened to one message.
fn message(envelope: &Envelope, end: Option<&Finished>) -> Vec<TraceEvent> {
    let mut events = vec![TraceEvent {
        event: "accepted".into(),
        at: envelope.accepted,
        text: format!("from {} by {}", envelope.client, envelope.rule),
        ..blank(envelope)
    }];
    for recipient in &envelope.recipients {
        let event = match recipient.status {
            RecipientStatus::Delivered => "delivered",
            RecipientStatus::Failed => "failed",
            RecipientStatus::Expired => "expired",
            RecipientStatus::Deleted => "deleted",
            RecipientStatus::Waiting if recipient.last.is_none() => continue,
            RecipientStatus::Waiting => "deferred",
        };
        let mut told = TraceEvent {
            event: event.into(),
            to: Some(recipient.path.to_string()),
            ..blank(envelope)
        };
        match (&recipient.last, end) {
            (Some(said), _) => tell(&mut told, said),
            (None, Some(end)) => {
                told.at = end.at;
                told.text = format!("by {}", end.by);
            }
            (None, None) => {}
        }
        events.push(told);
    }
    if let State::Held(hold) = &envelope.state {
        events.push(TraceEvent {
            event: "held".into(),
            at: hold.since,
            text: format!("{} by {} {}", hold.reason.name(), hold.by, hold.note)
                .trim_end()
                .into(),
            ..blank(envelope)
        });
    }
    events
}

fn tell(told: &mut TraceEvent, said: &Diagnostic) {
    told.at = said.at;
    told.server = (!said.server.is_empty()).then(|| said.server.clone());
    told.code = said.code;
    told.enhanced = said.enhanced.map(|it| it.to_string());
    told.text.clone_from(&said.text);
    if said.in_doubt && told.event == "deferred" {
        told.event = "in-doubt".into();
    }
}

fn blank(envelope: &Envelope) -> TraceEvent {
    TraceEvent {
        id: envelope.id.to_string(),
        at: envelope.accepted,
        event: String::new(),
        from: envelope.from.to_string(),
        to: None,
        relay: envelope.relay.clone(),
        server: None,
        code: None,
        enhanced: None,
        text: String::new(),
        size_bytes: envelope.size_bytes,
        message_id: envelope.message_id.clone(),
    }
}
