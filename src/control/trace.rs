//! What happened to a message, told from its envelope.

use jiff::Timestamp;

use super::protocol::TraceEvent;
use crate::mail::{Diagnostic, Envelope, Hold, HoldReason, PastEvent, RecipientStatus, State};

/// Messages that are told of when nobody says how many.
pub const USUAL_LIMIT: u64 = 1_000;
/// More are never told of at once: each may be large.
pub const MOST: u64 = 10_000;

/// How many messages are told of.
pub fn limit(asked: Option<u64>) -> usize {
    usize::try_from(asked.unwrap_or(USUAL_LIMIT).min(MOST)).unwrap_or(usize::MAX)
}

/// When a message left the spool, and who ended it.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// When.
    pub at: Timestamp,
    /// `penstock`, or an administrator.
    pub by: &'a str,
}

/// What happened to messages, the latest `limit` of them, oldest first. `told` has each
/// message and, when it is finished, how it ended.
pub fn events(mut told: Vec<(&Envelope, Option<End<'_>>)>, limit: usize) -> Vec<TraceEvent> {
    told.sort_by_key(|(envelope, _)| envelope.id);
    // A message that finished while it was looked for is told once.
    told.dedup_by_key(|(envelope, _)| envelope.id);
    let skipped = told.len().saturating_sub(limit);
    told[skipped..]
        .iter()
        .flat_map(|(envelope, end)| message(envelope, *end))
        .collect()
}

/// What happened to one message.
fn message(envelope: &Envelope, end: Option<End<'_>>) -> Vec<TraceEvent> {
    let mut words = format!("from {}", envelope.client);
    if let Some(rule) = envelope.rule_at_acceptance() {
        words += &format!("; route: {rule}");
    }
    let mut events = vec![TraceEvent {
        event: "accepted".into(),
        at: envelope.accepted,
        text: words,
        ..blank(envelope)
    }];
    for past in &envelope.past {
        let recipient = past
            .recipient
            .and_then(|place| envelope.recipients.get(place));
        let mut told = TraceEvent {
            event: past.event.name().into(),
            at: past.at,
            to: recipient.map(|it| it.path.to_string()),
            text: past.note.clone(),
            ..blank(envelope)
        };
        if let Some(said) = &past.said {
            tell(&mut told, said);
        }
        events.push(told);
    }
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
    let by_hand = |hold: &Hold| hold.reason == HoldReason::Administrator;
    if let State::Held(hold) = &envelope.state
        && !by_hand(hold)
        // It may have been told already, as one of the things that happened.
        && !envelope.past.iter().any(|it| it.event == PastEvent::Held && it.at == hold.since)
    {
        events.push(TraceEvent {
            event: "held".into(),
            at: hold.since,
            text: format!("{} by {} {}", hold.reason.name(), hold.by, hold.note)
                .trim_end()
                .into(),
            ..blank(envelope)
        });
    }
    events.sort_by_key(|it| it.at);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::describe::tests::envelope;
    use crate::mail::{Past, Rule};

    fn rerouted(rule: Option<Rule>) -> Past {
        Past {
            at: "2026-11-21T12:00:00Z".parse().unwrap(),
            event: PastEvent::Rerouted,
            recipient: None,
            said: None,
            note: "by jan to other".into(),
            rule,
        }
    }

    #[test]
    fn what_is_held_for_a_hint_was_held_once() {
        let hold = Hold {
            reason: HoldReason::Hint,
            by: "penstock".into(),
            since: "2026-11-21T12:00:00Z".parse().unwrap(),
            note: "scripts: found".into(),
        };
        let held = |it: &Envelope| {
            let events = message(it, None);
            events.iter().filter(|it| it.event == "held").count()
        };
        let mut envelope = envelope(State::Held(hold.clone()), Vec::new());
        assert_eq!(held(&envelope), 1);
        envelope.remember(Past {
            event: PastEvent::Held,
            at: hold.since,
            rule: None,
            ..rerouted(None)
        });
        assert_eq!(held(&envelope), 1);
    }

    #[test]
    fn what_was_moved_still_tells_which_rule_routed_it() {
        let mut envelope = envelope(State::Waiting { not_before: None }, Vec::new());
        let accepted = |it: &Envelope| message(it, None)[0].text.clone();
        assert!(accepted(&envelope).ends_with("; route: user @uwdomein.nl"));
        let rule = std::mem::replace(&mut envelope.rule, Rule::Rerouted);
        // An earlier build moved it: nobody knows any more, and nothing is claimed.
        assert!(!accepted(&envelope).contains("route"));
        envelope.remember(rerouted(Some(rule)));
        for _ in 0..100 {
            envelope.remember(rerouted(Some(Rule::Rerouted)));
        }
        assert!(accepted(&envelope).ends_with("; route: user @uwdomein.nl"));
    }
}
