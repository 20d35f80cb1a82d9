//! The flows and their counts: few enough to be kept in memory.

use std::collections::{BTreeSet, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::spool::waiting::{Amount, FlowKey, FlowSummary};

use super::entry::{Entry, Status, timestamp};
use super::keys::flow_key;

/// More than 20 in an hour make a mailing: 21 times tell.
const RECENT: usize = 21;
/// How long an empty flow is remembered after its last message was accepted.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);
/// Longer labels are cut in the index: a value of sled should stay small.
const LABEL_CHARACTERS: usize = 200;

/// Every flow, by number and by key.
#[derive(Debug, Default)]
pub struct Flows {
    numbers: HashMap<FlowKey, u32>,
    flows: HashMap<u32, Flow>,
    pub next: u32,
    /// Changed since they were last written.
    pub dirty: BTreeSet<u32>,
}

#[derive(Debug)]
pub struct Flow {
    pub key: FlowKey,
    label: String,
    pub ready: Amount,
    pub deferred: Amount,
    pub held: Amount,
    accepted: u64,
    recent: VecDeque<i64>,
}

impl Flow {
    fn side(&mut self, status: Status) -> &mut Amount {
        match status {
            Status::Ready => &mut self.ready,
            Status::Deferred(_) => &mut self.deferred,
            Status::Held(_) => &mut self.held,
        }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        let last = timestamp(self.recent.back().copied().unwrap_or(0));
        self.ready.messages + self.deferred.messages + self.held.messages == 0
            && now.duration_since(last) > REMEMBERED
    }
}

impl Flows {
    /// The number of a flow, a new one if need be.
    pub fn number(&mut self, key: FlowKey, label: &str) -> u32 {
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(key.clone(), number);
        self.flows.insert(
            number,
            Flow {
                key,
                label: label.chars().take(LABEL_CHARACTERS).collect(),
                ready: Amount::default(),
                deferred: Amount::default(),
                held: Amount::default(),
                accepted: 0,
                recent: VecDeque::new(),
            },
        );
        number
    }

    /// The flow with this number.
    pub fn get(&self, number: u32) -> Option<&Flow> {
        self.flows.get(&number)
    }

    /// The number of a flow that exists.
    pub fn find(&self, key: &FlowKey) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// Every flow.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Flow)> {
        self.flows.iter().map(|(number, flow)| (*number, flow))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// A message was accepted into a flow. What was accepted before an hour of silence
    /// counts no more, though the flow is still here for a message that is held: the
    /// mailing was over then.
    pub fn accepted(&mut self, number: u32, at: i64) {
        if let Some(flow) = self.flows.get_mut(&number) {
            // A log that was compacted tells them in another order.
            let last = flow.recent.iter().max();
            let silence = last.map(|last| timestamp(at).duration_since(timestamp(*last)));
            if silence.is_some_and(|it| it > REMEMBERED) {
                flow.accepted = 0;
            }
            flow.accepted += 1;
            flow.recent.push_back(at);
            if flow.recent.len() > RECENT {
                flow.recent.pop_front();
            }
            self.dirty.insert(number);
        }
    }

    /// A message was deleted: it is none of those that the mailing has behind it.
    pub fn deleted(&mut self, number: u32) {
        if let Some(flow) = self.flows.get_mut(&number) {
            flow.accepted = flow.accepted.saturating_sub(1);
            self.dirty.insert(number);
        }
    }

    /// A message's entry is counted.
    pub fn add(&mut self, entry: &Entry) {
        if let Some(flow) = self.flows.get_mut(&entry.flow) {
            flow.side(entry.status).add(entry.amount());
            self.dirty.insert(entry.flow);
        }
    }

    /// A message's entry counts no more.
    pub fn take(&mut self, entry: &Entry) {
        if let Some(flow) = self.flows.get_mut(&entry.flow) {
            flow.side(entry.status).take(entry.amount());
            self.dirty.insert(entry.flow);
        }
    }

    /// Forgets the flows that are over; says which.
    pub fn forget_over(&mut self, now: Timestamp) -> Vec<u32> {
        let over: Vec<u32> = self
            .iter()
            .filter(|(number, flow)| flow.is_over(now) && !self.dirty.contains(number))
            .map(|it| it.0)
            .collect();
        for number in &over {
            if let Some(flow) = self.flows.remove(number) {
                self.numbers.remove(&flow.key);
            }
        }
        over
    }

    /// The summaries.
    pub fn summaries(&self) -> Vec<FlowSummary> {
        let mut found: Vec<(u32, FlowSummary)> = self
            .iter()
            .map(|(number, flow)| {
                let summary = FlowSummary {
                    key: flow.key.clone(),
                    label: flow.label.clone(),
                    ready: flow.ready,
                    deferred: flow.deferred,
                    held: flow.held,
                    accepted: flow.accepted,
                    recent: flow.recent.iter().map(|it| timestamp(*it)).collect(),
                };
                (number, summary)
            })
            .collect();
        found.sort_by_key(|it| it.0);
        found.into_iter().map(|it| it.1).collect()
    }

    /// Puts these flows into a batch of sled's.
    pub fn write(&self, numbers: impl IntoIterator<Item = u32>, batch: &mut sled::Batch) {
        for number in numbers {
            if let Some(octets) = self.encode(number) {
                batch.insert(&flow_key(number), octets);
            }
        }
    }

    /// The written form of a flow.
    fn encode(&self, number: u32) -> Option<Vec<u8>> {
        let flow = self.flows.get(&number)?;
        let form = FlowForm {
            relay: flow.key.relay.clone(),
            user: flow.key.user.clone(),
            mailing: flow.key.mailing.clone(),
            label: flow.label.clone(),
            ready: form(flow.ready),
            deferred: form(flow.deferred),
            held: form(flow.held),
            accepted: flow.accepted,
            recent: flow.recent.iter().copied().collect(),
        };
        serde_json::to_vec(&form).ok()
    }

    /// Takes back the written form of a flow; whether it was one.
    pub fn restore(&mut self, number: u32, octets: &[u8]) -> bool {
        let Ok(form) = serde_json::from_slice::<FlowForm>(octets) else {
            return false;
        };
        let key = FlowKey {
            relay: form.relay,
            user: form.user,
            mailing: form.mailing,
        };
        self.numbers.insert(key.clone(), number);
        self.flows.insert(
            number,
            Flow {
                key,
                label: form.label,
                ready: amount(form.ready),
                deferred: amount(form.deferred),
                held: amount(form.held),
                accepted: form.accepted,
                recent: form.recent.into(),
            },
        );
        true
    }
}

#[derive(Serialize, Deserialize)]
struct FlowForm {
    relay: String,
    user: String,
    mailing: String,
    label: String,
    ready: (u64, u64, u64),
    deferred: (u64, u64, u64),
    held: (u64, u64, u64),
    accepted: u64,
    recent: Vec<i64>,
}

fn form(it: Amount) -> (u64, u64, u64) {
    (it.messages, it.recipients, it.wire_bytes)
}

fn amount((messages, recipients, wire_bytes): (u64, u64, u64)) -> Amount {
    Amount {
        messages,
        recipients,
        wire_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn what_was_accepted_before_an_hour_of_silence_counts_no_more() {
        let mut flows = Flows::default();
        let key = FlowKey {
            relay: "own".into(),
            user: "jan@example.nl".into(),
            mailing: "s-invoice".into(),
        };
        let number = flows.number(key, "Invoice");
        let mut accepted = |minute: i64| {
            flows.accepted(number, 1_800_000_000_000 + minute * MINUTE);
            flows.summaries()[0].accepted
        };
        assert_eq!([0, 1, 2].map(&mut accepted), [1, 2, 3]);
        assert_eq!(accepted(61), 4, "it went on");
        // A day later; one of the first is still held, say.
        assert_eq!(accepted(1_500), 1);
        // One that was moved in the log, and is older.
        assert_eq!(accepted(3), 2);
        assert_eq!(accepted(1_501), 3);
    }
}
