//! What waits for one relay: its flows, and whose turn it is.
//!
//! The spool knows everything that waits; here is kept what a decision needs. Of a long
//! flow only the first messages are here and a count of the rest; when they run low the
//! flow asks for more ([`Refill`]). A million waiting costs no more than their flows.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::clock::Moment;
use crate::mail::QueueId;
use crate::spool::{FlowKey, FlowSummary, Waiting};

use super::fair::Fair;
use super::flow::{Flow, HEADS, HOUR, Head};
use super::history::{Load, Millis};
use super::timeline::millis_down;

/// So many retries of a relay are kept; the rest stays in the spool, in order of time.
const MOST_RETRIES: usize = 4096;

/// A flow that needs its next messages from the spool: ask
/// [`Spool::ready`](crate::spool::Spool::ready) with these, and hand over the answer
/// with [`Release::refilled`](super::Release::refilled).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refill {
    /// Which flow.
    pub flow: FlowKey,
    /// Only messages after this one.
    pub after: QueueId,
    /// So many at most; fewer mean that there are no more.
    pub limit: usize,
    /// The flow's number for this question.
    pub(super) asked: u64,
}

/// What waits for one relay.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    flows: Vec<Option<Flow>>,
    free_flows: Vec<u32>,
    by_key: HashMap<Arc<FlowKey>, u32>,
    /// Each user's number, and how many flows it has.
    users: HashMap<String, (u32, usize)>,
    next_user: u32,
    /// Turns for everything.
    pub(super) everyone: Fair,
    /// Turns for interactive mail.
    pub(super) interactive: Fair,
    /// Everything that may leave.
    pub(super) waiting: Load,
    retries: usize,
    /// On its way: not to be given out again.
    in_flight: HashSet<QueueId>,
    wanting: Vec<u32>,
    /// Flows in the order in which they may be forgotten, with the time to look at them.
    fading: VecDeque<(Millis, u32)>,
}

impl Schedule {
    /// Adds a message that may leave; one that is here or on its way stays as it is.
    pub(super) fn add(&mut self, item: &Waiting, now: Moment) {
        if self.in_flight.contains(&item.id) {
            return;
        }
        let index = self.flow_of(&item.flow, "");
        let flow = self.flow_mut(index);
        flow.note_accepted(item.id, item.accepted, now);
        self.change(index, now, |flow| flow.add(Head::of(item)));
    }

    /// Takes a message out that may no longer leave, or not by this relay.
    pub(super) fn remove(&mut self, item: &Waiting, now: Moment) {
        if let Some(index) = self.by_key.get(&item.flow).copied() {
            self.change(index, now, |flow| flow.remove(Head::of(item)));
        }
    }

    /// Takes the next message of a flow: it is on its way now.
    pub(super) fn take(&mut self, index: u32, now: Moment) -> Option<Head> {
        let head = self.change(index, now, Flow::take)?;
        self.in_flight.insert(head.id);
        Some(head)
    }

    /// A message is no longer on its way.
    pub(super) fn end(&mut self, id: QueueId) {
        self.in_flight.remove(&id);
    }

    /// A message that was taken was not even tried: it has its place again.
    pub(super) fn put_back(&mut self, key: &FlowKey, head: Head, now: Moment) -> u32 {
        self.in_flight.remove(&head.id);
        let index = self.flow_of(key, "");
        self.change(index, now, |flow| flow.add(head));
        index
    }

    /// Takes over what the spool says about a flow.
    pub(super) fn restore(&mut self, summary: &FlowSummary, now: Moment) {
        if summary.ready.messages == 0 && summary.recent.is_empty() {
            return;
        }
        let index = self.flow_of(&summary.key, &summary.label);
        let flow = self.flow_mut(index);
        flow.forget_times();
        for accepted in &summary.recent {
            flow.note_time(*accepted, now);
        }
        self.change(index, now, |flow| flow.restore(summary.ready));
    }

    /// The flows that need their next messages; each is named once until it is answered.
    pub(super) fn refills(&mut self) -> Vec<Refill> {
        let mut refills = Vec::new();
        for index in std::mem::take(&mut self.wanting) {
            let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_mut) else {
                continue;
            };
            if let Some((after, asked)) = flow.ask() {
                refills.push(Refill {
                    flow: (*flow.key).clone(),
                    after,
                    limit: HEADS,
                    asked,
                });
            }
        }
        refills
    }

    /// Takes the answer to a refill.
    pub(super) fn refilled(&mut self, refill: &Refill, items: &[Waiting], now: Moment) {
        let Some(index) = self.by_key.get(&refill.flow).copied() else {
            return;
        };
        let in_flight = std::mem::take(&mut self.in_flight);
        let heads = items.iter().map(|item| {
            let usable = item.not_before.is_none() && !in_flight.contains(&item.id);
            (item.id, usable.then(|| Head::of(item)))
        });
        self.change(index, now, |flow| {
            flow.answer(refill.asked, items.len() < refill.limit, heads);
        });
        self.in_flight = in_flight;
    }

    /// A refill has no answer: the flow wants it again.
    pub(super) fn unanswered(&mut self, refill: &Refill, now: Moment) {
        if let Some(index) = self.by_key.get(&refill.flow).copied() {
            self.change(index, now, |flow| flow.unanswered(refill.asked));
        }
    }

    /// How many more retries should be fetched at most.
    pub(super) fn retry_room(&self) -> usize {
        MOST_RETRIES.saturating_sub(self.retries)
    }

    pub(super) fn flow(&self, index: u32) -> Option<&Flow> {
        self.flows.get(index as usize)?.as_ref()
    }

    /// Every flow.
    pub(super) fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter().flatten()
    }

    pub(super) fn index_of(&self, key: &FlowKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(super) fn flow_by_key(&self, key: &FlowKey) -> Option<&Flow> {
        self.flow(self.index_of(key)?)
    }

    pub(super) fn is_in_flight(&self, id: QueueId) -> bool {
        self.in_flight.contains(&id)
    }

    /// Forgets flows in which nothing was accepted for an hour and nothing waits.
    pub(super) fn forget_old(&mut self, now: Millis) {
        while let Some((at, index)) = self.fading.front().copied()
            && at <= now
        {
            self.fading.pop_front();
            let Some(flow) = self.flows.get_mut(index as usize).and_then(Option::as_mut) else {
                continue;
            };
            flow.is_fading = false;
            if flow.is_over(now) {
                self.forget(index);
            } else if flow.waiting.messages == 0 {
                flow.is_fading = true;
                self.fading.push_back((now + HOUR / 4, index));
            }
        }
    }

    fn forget(&mut self, index: u32) {
        let Some(flow) = self.flows[index as usize].take() else {
            return;
        };
        self.everyone.forget(flow.user, index);
        self.interactive.forget(flow.user, index);
        self.by_key.remove(&flow.key);
        self.free_flows.push(index);
        if let Some(user) = self.users.get_mut(&flow.key.user) {
            user.1 -= 1;
            if user.1 == 0 {
                self.users.remove(&flow.key.user);
            }
        }
    }

    /// The flow's index; it is made when it is new.
    fn flow_of(&mut self, key: &FlowKey, label: &str) -> u32 {
        if let Some(index) = self.by_key.get(key) {
            return *index;
        }
        let user = match self.users.get_mut(&key.user) {
            Some(user) => {
                user.1 += 1;
                user.0
            }
            None => {
                self.next_user = self.next_user.wrapping_add(1);
                self.users.insert(key.user.clone(), (self.next_user, 1));
                self.next_user
            }
        };
        let key = Arc::new(key.clone());
        let flow = Flow::new(user, key.clone(), label);
        let index = match self.free_flows.pop() {
            Some(index) => {
                self.flows[index as usize] = Some(flow);
                index
            }
            None => {
                self.flows.push(Some(flow));
                u32::try_from(self.flows.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_key.insert(key, index);
        index
    }

    fn flow_mut(&mut self, index: u32) -> &mut Flow {
        self.flows[index as usize]
            .as_mut()
            .expect("an index is given up with its flow")
    }

    /// Changes a flow and keeps everything true that depends on it.
    fn change<T>(&mut self, index: u32, now: Moment, change: impl FnOnce(&mut Flow) -> T) -> T {
        let present = millis_down(now.uptime);
        let flow = self.flow_mut(index);
        let (waiting, retries) = (flow.waiting, flow.retries());
        let result = change(flow);
        let (user, is_ready) = (flow.user, flow.head().is_some());
        let is_interactive = flow.is_interactive(present);
        let wants = flow.begins_to_want();
        let fades = flow.waiting.messages == 0 && !flow.is_fading;
        flow.is_fading |= fades;
        let (now_waiting, now_retries) = (flow.waiting, flow.retries());

        self.waiting = self.waiting.minus(waiting).plus(now_waiting);
        self.retries = self.retries - retries + now_retries;
        self.everyone.set_ready(user, index, is_ready);
        self.interactive.set_ready(user, index, is_interactive);
        if wants {
            self.wanting.push(index);
        }
        if fades {
            self.fading.push_back((present + HOUR, index));
        }
        result
    }
}
