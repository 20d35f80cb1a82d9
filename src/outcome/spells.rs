//! Spells of time that are over: when a relay was paused.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Spells that are kept apart; more are joined.
const MAXIMUM: usize = 64;

/// Past spells, each from its start to its end, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Spells(Vec<(Timestamp, Timestamp)>);

impl Spells {
    /// How much of the time between two moments they take.
    pub fn within(&self, from: Timestamp, to: Timestamp) -> Duration {
        let spells = self.0.iter();
        spells
            .map(|(start, end)| between(from.max(*start), to.min(*end)))
            .sum()
    }

    /// Whether one of them ended less than this long ago.
    pub fn ended_within(&self, length: Duration, now: Timestamp) -> bool {
        self.0.iter().any(|it| between(it.1, now) < length)
    }

    /// Remembers one more.
    pub fn add(&mut self, spell: (Timestamp, Timestamp)) {
        self.0.push(spell);
        self.0.sort();
        while self.0.len() > MAXIMUM {
            // Joining across the shortest gap counts that gap as paused: mail expires
            // a little later, never earlier.
            let shortest = (1..self.0.len())
                .min_by_key(|it| between(self.0[it - 1].1, self.0[*it].0))
                .expect("there are more than one");
            let (_, end) = self.0.remove(shortest);
            self.0[shortest - 1].1 = self.0[shortest - 1].1.max(end);
        }
    }
}

/// From one moment to a later one; nothing when the clock went back.
pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A moment after another; the end of time when there is no such moment.
pub(super) fn later(from: Timestamp, by: Duration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::pause::Health;
    use super::super::testing::at;
    use super::*;

    #[test]
    fn many_pauses_are_joined_to_the_safe_side() {
        let mut health = Health::default();
        let mut spells = Spells::default();
        for hour in 0..300 {
            let (start, end) = (at(hour * 60), at(hour * 60 + 10));
            health.pause_by("a", "", start);
            health.resume(end);
            spells.add((start, end));
        }
        assert!(spells.0.len() <= MAXIMUM);
        let least = Duration::from_secs(300 * 600);
        assert!(spells.within(at(0), at(300 * 60)) >= least);
        assert!(health.paused_between(at(0), at(300 * 60)) >= least);
    }
}
