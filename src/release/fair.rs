//! Who is next: users share a relay evenly, and mailings share their user's turns.
//!
//! Fair queueing by virtual time, twice: among users, and within a user among flows.
//! Everyone has a tag, the virtual time at which the next message may start; the
//! smallest tag is next, and a message moves its tag on by its cost. Who was away
//! starts at the present virtual time and so has saved nothing up; virtual time moves
//! on with whatever is served, so that nobody's turn can be put off for ever by others
//! who come and go (docs/limits.md derives how long it takes).
//!
//! It does not know what is waiting, only who is; a decision costs the logarithm of
//! the number of those who are ready, however much they have waiting.

use std::collections::{BTreeSet, HashMap};

/// The cost of a batch: a message costs the larger of its shares of the batch's
/// messages and octets.
pub(super) const BATCH_COST: u64 = 1 << 32;

type Tag = u64;
type Key = u32;

/// Some who take turns.
#[derive(Debug, Default)]
struct Turns {
    /// Present virtual time.
    time: Tag,
    /// The tag of everyone known.
    tags: HashMap<Key, Tag>,
    /// Those who have something to send, the next one first.
    ready: BTreeSet<(Tag, Key)>,
}

impl Turns {
    fn next(&self) -> Option<Key> {
        self.ready.first().map(|it| it.1)
    }

    fn set_ready(&mut self, key: Key, is_ready: bool) {
        let known = self.tags.get(&key).copied();
        let was_ready = known.is_some_and(|tag| self.ready.contains(&(tag, key)));
        match (was_ready, is_ready) {
            (false, true) => {
                let tag = known.unwrap_or(0).max(self.time);
                self.tags.insert(key, tag);
                self.ready.insert((tag, key));
            }
            (true, false) => {
                self.ready.remove(&(known.unwrap_or(0), key));
            }
            (true, true) | (false, false) => {}
        }
    }

    fn charge(&mut self, key: Key, cost: Tag) {
        let start = self.tags.get(&key).copied().unwrap_or(self.time);
        // As if all who are ready were served at once, each at an equal part of the rate.
        let together = self.ready.len().max(1) as u64;
        self.time = (self.time + cost / together).max(start);
        self.set_tag(key, start + cost);
    }

    fn refund(&mut self, key: Key, cost: Tag) {
        if let Some(tag) = self.tags.get(&key).copied() {
            self.set_tag(key, tag.saturating_sub(cost));
        }
    }

    fn set_tag(&mut self, key: Key, tag: Tag) {
        let old = self.tags.insert(key, tag);
        if old.is_some_and(|old| self.ready.remove(&(old, key))) {
            self.ready.insert((tag, key));
        }
    }

    fn forget(&mut self, key: Key) {
        if let Some(tag) = self.tags.remove(&key) {
            self.ready.remove(&(tag, key));
        }
    }
}

/// Turns among users and, within each, among their flows.
#[derive(Debug, Default)]
pub(super) struct Fair {
    users: Turns,
    flows: HashMap<Key, Turns>,
}

impl Fair {
    /// Says whether a flow has something to send.
    pub(super) fn set_ready(&mut self, user: Key, flow: Key, is_ready: bool) {
        let flows = self.flows.entry(user).or_default();
        flows.set_ready(flow, is_ready);
        self.users.set_ready(user, flows.next().is_some());
    }

    /// Whose turn it is: the user and the flow.
    pub(super) fn next(&self) -> Option<(Key, Key)> {
        let user = self.users.next()?;
        Some((user, self.flows.get(&user)?.next()?))
    }

    /// The first flow of each user, in the order of their turns.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (Key, Key)> + '_ {
        self.users
            .ready
            .iter()
            .filter_map(|(_, user)| Some((*user, self.flows.get(user)?.next()?)))
    }

    /// A message of this flow is sent.
    pub(super) fn charge(&mut self, user: Key, flow: Key, cost: u64) {
        self.users.charge(user, cost);
        self.flows.entry(user).or_default().charge(flow, cost);
    }

    /// It was not even tried: the turn was none.
    pub(super) fn refund(&mut self, user: Key, flow: Key, cost: u64) {
        self.users.refund(user, cost);
        if let Some(flows) = self.flows.get_mut(&user) {
            flows.refund(flow, cost);
        }
    }

    /// Forgets a flow, and its user with the last one.
    pub(super) fn forget(&mut self, user: Key, flow: Key) {
        let Some(flows) = self.flows.get_mut(&user) else {
            return;
        };
        flows.forget(flow);
        let is_ready = flows.next().is_some();
        if flows.tags.is_empty() {
            self.flows.remove(&user);
            self.users.forget(user);
        } else {
            self.users.set_ready(user, is_ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves `count` messages and says who got how many of them.
    fn serve(fair: &mut Fair, count: usize, cost: impl Fn(Key) -> u64) -> HashMap<(Key, Key), u32> {
        let mut served = HashMap::new();
        for _ in 0..count {
            let (user, flow) = fair.next().expect("someone is ready");
            fair.charge(user, flow, cost(user));
            *served.entry((user, flow)).or_default() += 1;
        }
        served
    }

    #[test]
    fn users_share_evenly_and_mailings_share_their_users_part() {
        let mut fair = Fair::default();
        fair.set_ready(1, 10, true);
        fair.set_ready(2, 20, true);
        fair.set_ready(2, 21, true);
        let served = serve(&mut fair, 400, |_| 1000);
        assert_eq!(served[&(1, 10)], 200);
        assert_eq!(served[&(2, 20)], 100);
        assert_eq!(served[&(2, 21)], 100);
    }

    #[test]
    fn large_messages_count_for_more() {
        let mut fair = Fair::default();
        fair.set_ready(1, 10, true);
        fair.set_ready(2, 20, true);
        let served = serve(&mut fair, 500, |user| if user == 1 { 4000 } else { 1000 });
        assert_eq!(served[&(1, 10)], 100);
        assert_eq!(served[&(2, 20)], 400);
    }

    #[test]
    fn who_was_away_has_saved_nothing_up() {
        let mut fair = Fair::default();
        fair.set_ready(1, 10, true);
        fair.set_ready(2, 20, true);
        serve(&mut fair, 2, |_| 1000);
        fair.set_ready(2, 20, false);
        serve(&mut fair, 1000, |_| 1000);
        fair.set_ready(2, 20, true);
        let served = serve(&mut fair, 100, |_| 1000);
        assert!(served[&(2, 20)] <= 51, "{served:?}");
        assert!(served[&(2, 20)] >= 49, "{served:?}");
    }

    #[test]
    fn a_newcomer_is_served_at_its_first_turn() {
        let mut fair = Fair::default();
        for user in 0..100 {
            fair.set_ready(user, user, true);
        }
        serve(&mut fair, 100_050, |_| 1000);
        fair.set_ready(200, 200, true);
        let served = serve(&mut fair, 101, |_| 1000);
        assert_eq!(served[&(200, 200)], 1);
    }

    #[test]
    fn an_endless_stream_of_newcomers_does_not_put_anybody_off() {
        let mut fair = Fair::default();
        fair.set_ready(0, 0, true);
        fair.charge(0, 0, 10_000);
        for newcomer in 1.. {
            fair.set_ready(newcomer, newcomer, true);
            let (user, flow) = fair.next().unwrap();
            if user == 0 {
                assert!(newcomer < 25, "{newcomer}");
                return;
            }
            fair.charge(user, flow, 1000);
            fair.forget(user, flow);
        }
    }
}
