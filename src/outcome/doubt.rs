//! Whether a reply after MAIL that looks like the relay's trouble is one message's own.
//!
//! "Rate limit exceeded" or "bad reputation" may mean the account, or this recipient, or
//! this content. The first time the relay is believed: it pauses, and the message steps
//! aside, so that another one is the next probe. If others get through meanwhile, it was
//! not the relay.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::mail::{Envelope, QueueId};

use super::spells::between;

/// Messages, and senders, that are remembered; the oldest are forgotten.
const REMEMBERED: usize = 100;
/// A sender whose mail nobody sees for so long begins anew.
const SENDER_MAXIMUM: Duration = Duration::from_secs(24 * 3600);

/// Which messages met such a reply, and whether others got through since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Doubt {
    messages: BTreeMap<String, Met>,
    /// Senders none of whose mail got through since.
    senders: BTreeMap<String, Timestamp>,
    passed: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Met {
    since: Timestamp,
    /// It stepped aside, and has not been called back.
    aside: bool,
}

impl Doubt {
    /// Whether the relay took others' mail since this message, or this sender's, met such
    /// a reply.
    pub(super) fn is_own(&self, envelope: &Envelope, now: Timestamp) -> bool {
        let message = self.messages.get(&envelope.id.to_string());
        let sender = self.senders.get(&envelope.from.folded());
        message
            .map(|it| it.since)
            .into_iter()
            .chain(
                sender
                    .copied()
                    .filter(|it| between(*it, now) < SENDER_MAXIMUM),
            )
            .any(|since| self.passed.is_some_and(|it| it > since))
    }

    /// A message met such a reply, and stepped aside.
    pub(super) fn met(&mut self, envelope: &Envelope, now: Timestamp) {
        let met = self.messages.entry(envelope.id.to_string());
        met.or_insert(Met {
            since: now,
            aside: true,
        })
        .aside = true;
        let sender = self.senders.entry(envelope.from.folded()).or_insert(now);
        if between(*sender, now) >= SENDER_MAXIMUM {
            *sender = now;
        }
        forget_oldest(&mut self.messages, |it| it.since);
        forget_oldest(&mut self.senders, |it| *it);
    }

    /// The relay took a message.
    pub(super) fn passed(&mut self, envelope: &Envelope, now: Timestamp) {
        self.senders.remove(&envelope.from.folded());
        self.over(envelope);
        self.passed = Some(now);
    }

    /// A message is finished.
    pub(super) fn over(&mut self, envelope: &Envelope) {
        if envelope.is_finished() {
            self.messages.remove(&envelope.id.to_string());
        }
    }

    /// The messages that stepped aside and may come back now.
    pub(super) fn call_back(&mut self) -> Vec<QueueId> {
        self.messages
            .iter_mut()
            .filter_map(|(id, met)| std::mem::take(&mut met.aside).then_some(id))
            .filter_map(|id| id.parse().ok())
            .collect()
    }
}

fn forget_oldest<T>(map: &mut BTreeMap<String, T>, since: impl Fn(&T) -> Timestamp) {
    while map.len() > REMEMBERED {
        let Some(oldest) = map
            .iter()
            .min_by_key(|it| since(it.1))
            .map(|it| it.0.clone())
        else {
            return;
        };
        map.remove(&oldest);
    }
}
