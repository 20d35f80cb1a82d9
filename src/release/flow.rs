//! One mailing of one user: its next messages, and how many more there are.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use crate::clock::Moment;
use crate::mail::QueueId;
use crate::spool::{Amount, FlowKey, Waiting};

use super::history::{Load, Millis};
use super::timeline::millis_down;

/// So many messages of a flow are read from the spool at once.
pub(super) const HEADS: usize = 32;
/// With so many left, more are asked for.
const LOW: usize = HEADS / 2;
/// So many of a flow are kept at most.
const MOST_HEADS: usize = 2 * HEADS;
/// More accepted in an hour, or waiting, is a mailing and not interactive.
const INTERACTIVE: usize = 20;
/// What was accepted longer ago does not count, and the flow may be forgotten.
pub(super) const HOUR: Millis = 60 * 60 * 1000;

/// A message that may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: QueueId,
    pub(super) octets: u64,
    pub(super) recipients: u32,
    /// Penstock wrote it: interactive at any rate.
    pub(super) is_ours: bool,
    pub(super) is_retry: bool,
}

impl Head {
    pub(super) fn of(waiting: &Waiting) -> Self {
        Self {
            id: waiting.id,
            octets: waiting.wire_bytes,
            recipients: waiting.recipients.max(1),
            is_ours: waiting.origin.is_ours(),
            is_retry: waiting.not_before.is_some(),
        }
    }

    pub(super) fn load(self) -> Load {
        Load {
            messages: 1,
            octets: self.octets,
            recipients: u64::from(self.recipients),
        }
    }
}

/// One mailing of one user.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) user: u32,
    pub(super) key: Arc<FlowKey>,
    /// What an administrator calls the mailing; empty when it is not known here.
    pub(super) label: Box<str>,
    /// First attempts, in order of acceptance.
    fresh: VecDeque<Head>,
    /// Everything fresh up to this id is in `fresh` (or on its way); `beyond` comes after.
    loaded_to: QueueId,
    /// What is fresh and only in the spool.
    beyond: Load,
    /// Further attempts that are due, in order of acceptance.
    retries: VecDeque<Head>,
    /// A retry was the last to go: a first attempt is next, if there is one.
    retry_went: bool,
    /// Everything that may leave, here or in the spool.
    pub(super) waiting: Load,
    /// When the last messages were accepted, at most one more than is interactive.
    recent: VecDeque<Millis>,
    /// The last message that was counted in `recent`.
    newest: QueueId,
    refill: RefillState,
    /// How often the spool was asked.
    asked: u64,
    /// It stands in the list of flows that may soon be forgotten.
    pub(super) is_fading: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RefillState {
    None,
    /// To be asked for.
    Wanted,
    /// Asked for.
    Asked(Arrived),
}

/// What came into a flow since the spool was asked, and may be missing in its answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Arrived {
    /// The first of it in order of acceptance, which need not be the order of arrival:
    /// a message released from a hold may be older than all that waits.
    first: Vec<Head>,
    /// There was more, behind the last of `first`.
    more: bool,
}

impl Arrived {
    fn note(&mut self, head: Head) {
        if let Err(place) = self.first.binary_search_by_key(&head.id, |it| it.id) {
            self.first.insert(place, head);
        }
        if self.first.len() > MOST_HEADS {
            self.first.truncate(MOST_HEADS);
            self.more = true;
        }
    }

    /// Everything that arrived up to this id is in `first`.
    fn known_to(&self) -> QueueId {
        match self.first.last() {
            Some(last) if self.more => last.id,
            _ => QueueId::MAX,
        }
    }
}

impl Flow {
    /// The next message; retries and first attempts take turns when there are both, so
    /// that neither can keep the other waiting.
    pub(super) fn head(&self) -> Option<&Head> {
        match (self.retries.front(), self.fresh.front()) {
            (Some(_), Some(fresh)) if self.retry_went => Some(fresh),
            (Some(retry), _) => Some(retry),
            (None, fresh) => fresh,
        }
    }

    pub(super) fn new(user: u32, key: Arc<FlowKey>, label: &str) -> Self {
        Self {
            user,
            key,
            label: label.into(),
            fresh: VecDeque::new(),
            loaded_to: QueueId::MIN,
            beyond: Load::default(),
            retries: VecDeque::new(),
            retry_went: false,
            waiting: Load::default(),
            recent: VecDeque::new(),
            newest: QueueId::MIN,
            refill: RefillState::None,
            asked: 0,
            is_fading: false,
        }
    }

    /// Whether it is interactive: little was accepted lately, and little waits.
    ///
    /// The second half is ours: a mailing of 10,000 does not turn interactive because an
    /// hour has passed since it was handed in.
    pub(super) fn is_interactive(&self, now: Millis) -> bool {
        let Some(head) = self.head() else {
            return false;
        };
        head.is_ours
            || self.waiting.messages <= INTERACTIVE as u64
                && self.accepted_lately(now) <= INTERACTIVE
    }

    /// Messages accepted in the last hour, counted up to one more than is interactive.
    fn accepted_lately(&self, now: Millis) -> usize {
        self.recent.iter().filter(|at| **at + HOUR > now).count()
    }

    /// Whether it has nothing and had nothing for an hour.
    pub(super) fn is_over(&self, now: Millis) -> bool {
        self.waiting.messages == 0 && self.accepted_lately(now) == 0
    }

    /// Notes that a message was accepted into the flow; again for the same one is nothing.
    pub(super) fn note_accepted(&mut self, id: QueueId, accepted: Timestamp, now: Moment) {
        if id > self.newest {
            self.newest = id;
            self.note_time(accepted, now);
        }
    }

    pub(super) fn note_time(&mut self, accepted: Timestamp, now: Moment) {
        let age = now.wall.as_millisecond() - accepted.as_millisecond();
        let at = millis_down(now.uptime) - age.max(0);
        let place = self.recent.partition_point(|it| *it <= at);
        self.recent.insert(place, at);
        if self.recent.len() > INTERACTIVE + 1 {
            self.recent.pop_front();
        }
    }

    /// Adds a message that may leave: keeps it, or counts it when it comes after others
    /// that are only in the spool. False when it is here already.
    pub(super) fn add(&mut self, head: Head) -> bool {
        let all_here = self.beyond.messages == 0 && self.refill == RefillState::None;
        if head.is_retry || all_here || head.id <= self.loaded_to {
            if !self.insert(head) {
                return false;
            }
            if !head.is_retry {
                self.loaded_to = self.loaded_to.max(head.id);
                self.trim();
            }
        } else {
            self.beyond = self.beyond.plus(head.load());
            if let RefillState::Asked(arrived) = &mut self.refill {
                arrived.note(head);
            }
        }
        self.waiting = self.waiting.plus(head.load());
        true
    }

    /// Takes the next message out.
    pub(super) fn take(&mut self) -> Option<Head> {
        let head = *self.head()?;
        if head.is_retry {
            self.retries.pop_front();
        } else {
            self.fresh.pop_front();
        }
        self.retry_went = head.is_retry;
        self.waiting = self.waiting.minus(head.load());
        Some(head)
    }

    /// Takes a certain message out, wherever it is; false when it was not counted here.
    pub(super) fn remove(&mut self, head: Head) -> bool {
        for list in [&mut self.fresh, &mut self.retries] {
            if let Ok(place) = list.binary_search_by_key(&head.id, |it| it.id)
                && let Some(found) = list.remove(place)
            {
                self.waiting = self.waiting.minus(found.load());
                return true;
            }
        }
        let only_in_spool = !head.is_retry && head.id > self.loaded_to && self.beyond.messages > 0;
        if only_in_spool {
            if let RefillState::Asked(arrived) = &mut self.refill {
                arrived.first.retain(|it| it.id != head.id);
            }
            self.beyond = self.beyond.minus(head.load());
            self.waiting = self.waiting.minus(head.load());
        }
        only_in_spool
    }

    /// What the spool counts in this flow. All of it is read again: what is here may have
    /// gaps, if the spool was asked in vain before.
    pub(super) fn restore(&mut self, ready: Amount) {
        self.fresh.clear();
        self.loaded_to = QueueId::MIN;
        self.beyond = Load {
            messages: ready.messages,
            octets: ready.wire_bytes,
            recipients: ready.recipients,
        };
        self.waiting = sum(&self.retries).plus(self.beyond);
        self.ask_anew();
    }

    /// Forgets when messages were accepted, to be told by the spool.
    pub(super) fn forget_times(&mut self) {
        self.recent.clear();
    }

    /// Question `asked` has no answer.
    pub(super) fn unanswered(&mut self, asked: u64) {
        if asked == self.asked {
            self.ask_anew();
        }
    }

    /// Whatever was asked is asked again if need be, and the old answer is of no use.
    fn ask_anew(&mut self) {
        self.refill = RefillState::None;
        self.asked += 1;
    }

    /// What to ask the spool for: what comes after this message, and the number of the
    /// question. Only once until it was answered.
    pub(super) fn ask(&mut self) -> Option<(QueueId, u64)> {
        if self.refill != RefillState::Wanted {
            return None;
        }
        self.refill = RefillState::Asked(Arrived::default());
        self.asked += 1;
        Some((self.loaded_to, self.asked))
    }

    /// The answer to question `asked`; `is_all` when the spool has no more. Of the items
    /// only those with a head may be given out.
    pub(super) fn answer(
        &mut self,
        asked: u64,
        is_all: bool,
        items: impl Iterator<Item = (QueueId, Option<Head>)>,
    ) {
        // After `trim` it asks anew, and the old answer is of no use.
        let RefillState::Asked(arrived) = &mut self.refill else {
            return;
        };
        if asked != self.asked {
            return;
        }
        let arrived = std::mem::take(arrived);
        self.refill = RefillState::None;
        // Up to here the answer and what arrived meanwhile tell everything.
        let items: Vec<_> = items.collect();
        let mut end = arrived.known_to();
        if !is_all {
            end = end.min(items.last().map_or(self.loaded_to, |it| it.0));
        }
        let heads = items.iter().filter_map(|it| it.1).chain(arrived.first);
        for head in heads.filter(|it| it.id <= end) {
            if self.insert(head) {
                self.beyond = self.beyond.minus(head.load());
            }
        }
        if end == QueueId::MAX {
            self.beyond = Load::default();
            let last = items
                .last()
                .map(|it| it.0)
                .max(self.fresh.back().map(|it| it.id));
            self.loaded_to = self.loaded_to.max(last.unwrap_or(QueueId::MIN));
        } else {
            self.beyond.messages = self.beyond.messages.max(1);
            self.loaded_to = self.loaded_to.max(end);
        }
        self.trim();
        self.waiting = sum(&self.fresh).plus(sum(&self.retries)).plus(self.beyond);
    }

    /// Whether it begins to need more from the spool.
    pub(super) fn begins_to_want(&mut self) -> bool {
        let wants =
            self.refill == RefillState::None && self.beyond.messages > 0 && self.fresh.len() <= LOW;
        if wants {
            self.refill = RefillState::Wanted;
        }
        wants
    }

    /// Retries kept here.
    pub(super) fn retries(&self) -> usize {
        self.retries.len()
    }

    /// Puts a message into its place; false when it is there already.
    fn insert(&mut self, head: Head) -> bool {
        let list = if head.is_retry {
            &mut self.retries
        } else {
            &mut self.fresh
        };
        match list.binary_search_by_key(&head.id, |it| it.id) {
            Ok(_) => false,
            Err(place) => {
                list.insert(place, head);
                true
            }
        }
    }

    /// Leaves to the spool what is too much to keep here.
    fn trim(&mut self) {
        if self.fresh.len() <= MOST_HEADS {
            return;
        }
        for head in self.fresh.drain(HEADS..) {
            self.beyond = self.beyond.plus(head.load());
        }
        if let Some(last) = self.fresh.back() {
            self.loaded_to = last.id;
        }
        // What was asked for begins behind what was just given up.
        self.refill = RefillState::None;
    }
}

fn sum(heads: &VecDeque<Head>) -> Load {
    heads
        .iter()
        .fold(Load::default(), |sum, head| sum.plus(head.load()))
}
