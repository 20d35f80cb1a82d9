//! What a question looks for.

use std::collections::HashSet;

use super::super::query::{Filter, Lookup};
use super::super::signature::Signature;
use super::entry::Entry;
use super::flows::Flows;

/// What is looked for among all messages.
#[derive(Debug)]
pub enum Wanted<'a> {
    Filter(&'a Filter),
    Lookup(&'a Lookup),
    Everything,
}

impl Wanted<'_> {
    pub fn flows(&self, flows: &Flows) -> Option<HashSet<u32>> {
        let Self::Filter(filter) = self else {
            return None;
        };
        let (relay, from) = (&filter.relay, filter.from.as_ref().map(|it| it.folded()));
        if relay.is_none() && from.is_none() && filter.flows.is_none() {
            return None;
        }
        let of_these = |key| filter.flows.as_ref().is_none_or(|it| it.contains(key));
        let meant = flows.iter().filter(|(_, flow)| {
            of_these(&flow.key)
                && relay.as_ref().is_none_or(|it| *it == flow.key.relay)
                && from.as_ref().is_none_or(|it| *it == flow.key.user)
        });
        Some(meant.map(|it| it.0).collect())
    }

    pub fn signature(&self) -> Signature {
        match self {
            Self::Everything => Signature::default(),
            Self::Lookup(lookup) => Signature::wanted(lookup),
            Self::Filter(filter) => [&filter.from_domain, &filter.to_domain]
                .into_iter()
                .flatten()
                .map(|it| Signature::domain(it))
                .chain(filter.to.as_ref().map(Signature::address))
                .fold(Signature::default(), Signature::and),
        }
    }

    pub fn admits(&self, entry: &Entry) -> bool {
        let Self::Filter(filter) = self else {
            return true;
        };
        filter.state.is_none_or(|it| entry.status.is(it))
            && filter.larger_than.is_none_or(|it| entry.size_bytes > it)
            && filter
                .accepted_before
                .is_none_or(|it| entry.accepted < it.as_millisecond())
    }
}
