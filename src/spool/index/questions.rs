//! The questions that the index answers.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, ControlFlow, RangeInclusive};

use jiff::Timestamp;

use super::super::query::RelayCounts;
use super::super::waiting::{FlowKey, FlowSummary, Waiting};
use super::entry::Entry;
use super::keys::{flow_key, id_at, message_key, ready_key, retry_key};
use super::wanted::Wanted;
use super::{Index, IndexError, broken};
use crate::mail::QueueId;

/// Entries that one step of a walk looks at: some ten milliseconds. Tests step often.
const STEP_ENTRIES: usize = if cfg!(test) { 3 } else { 20_000 };
/// Due retries looked at for one question: time on the thread that asks. Tests have few.
const RETRIES_LOOKED_AT: usize = if cfg!(test) { 100 } else { 50_000 };

/// A place among the retries of a relay, in order of time: where a look ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPlace(Vec<u8>);

impl Index {
    /// What is known of a message.
    pub fn entry(&self, id: QueueId) -> Result<Option<Entry>, IndexError> {
        self.stored(id.number())
    }

    /// Every flow.
    pub fn flows(&self, now: Timestamp) -> Result<Vec<FlowSummary>, IndexError> {
        let mut state = self.state();
        for number in state.flows.forget_over(now) {
            self.db.remove(flow_key(number))?;
        }
        Ok(state.flows.summaries())
    }

    /// The counts of every relay.
    pub fn counts(&self) -> BTreeMap<String, RelayCounts> {
        let state = self.state();
        let mut relays: BTreeMap<String, RelayCounts> = BTreeMap::new();
        for (_, flow) in state.flows.iter() {
            let counts = relays.entry(flow.key.relay.clone()).or_default();
            counts.ready.add(flow.ready);
            counts.deferred.add(flow.deferred);
            counts.held.add(flow.held);
        }
        relays
    }

    /// What may leave at once in a flow, after a message.
    pub fn ready(
        &self,
        key: &FlowKey,
        after: QueueId,
        limit: usize,
    ) -> Result<Vec<Waiting>, IndexError> {
        let Some(number) = self.state().flows.find(key) else {
            return Ok(Vec::new());
        };
        let Some(from) = after.number().checked_add(1) else {
            return Ok(Vec::new());
        };
        let range = ready_key(number, from)..=ready_key(number, u64::MAX);
        let mut found = Vec::new();
        for read in self.db.range(range).take(limit) {
            let (name, octets) = read?;
            let entry = Entry::decode(&octets).ok_or_else(|| broken("entry"))?;
            found.push(entry.waiting(id_at(&name, 5)?, key));
        }
        Ok(found)
    }

    /// Messages of a relay whose next attempt is due by then, the earliest first, so many
    /// of one flow at most; and where to go on, when there may be more.
    pub fn retries(
        &self,
        relay: &str,
        times: RangeInclusive<Timestamp>,
        after: Option<&RetryPlace>,
        limit: usize,
        per_flow: usize,
    ) -> Result<(Vec<Waiting>, Option<RetryPlace>), IndexError> {
        let (from, until) = times.into_inner();
        let first = retry_key(relay, from.as_millisecond(), 0);
        let last = retry_key(relay, until.as_millisecond(), u64::MAX);
        let mut found = Vec::new();
        let mut of_flow: HashMap<u32, usize> = HashMap::new();
        let begin = match after {
            Some(RetryPlace(key)) if *key >= first => Bound::Excluded(key.clone()),
            _ => Bound::Included(first),
        };
        if after.is_some_and(|it| it.0 >= last) {
            return Ok((found, None));
        }
        let range = self.db.range((begin, Bound::Included(last)));
        for (looked_at, read) in range.enumerate() {
            let (name, octets) = read?;
            let is_enough = looked_at + 1 >= RETRIES_LOOKED_AT;
            let entry = Entry::decode(&octets).ok_or_else(|| broken("entry"))?;
            let taken = of_flow.entry(entry.flow).or_default();
            *taken += 1;
            if *taken <= per_flow {
                let key = self.state().flows.get(entry.flow).map(|it| it.key.clone());
                // Two relays whose names hash alike share a range.
                if let Some(key) = key.filter(|it| it.relay == relay) {
                    found.push(entry.waiting(id_at(&name, 17)?, &key));
                }
            }
            if is_enough || found.len() >= limit {
                return Ok((found, Some(RetryPlace(name.to_vec()))));
            }
        }
        Ok((found, None))
    }

    /// Shows the entries after a message that a filter or a look-up may mean, in order,
    /// until told to stop. Looks at so many entries at most, and returns the last of them
    /// when there may be more.
    pub fn candidates(
        &self,
        wanted: &Wanted<'_>,
        after: QueueId,
        mut show: impl FnMut(QueueId, Entry) -> ControlFlow<()>,
    ) -> Result<Option<QueueId>, IndexError> {
        let Some(from) = after.number().checked_add(1) else {
            return Ok(None);
        };
        self.fail_on_order()?;
        let flows = wanted.flows(&self.state().flows);
        let signature = wanted.signature();
        let range = message_key(from)..=message_key(u64::MAX);
        for (looked_at, read) in self.db.range(range).enumerate() {
            let (name, octets) = read?;
            let id = id_at(&name, 1)?;
            let entry = Entry::decode(&octets).ok_or_else(|| broken("entry"))?;
            let may = flows.as_ref().is_none_or(|it| it.contains(&entry.flow))
                && entry.signature.may_have(signature)
                && wanted.admits(&entry);
            if may && show(id, entry).is_break() {
                return Ok(None);
            }
            if looked_at + 1 == STEP_ENTRIES {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}
