//! What left through one relay, and how much of it each sliding window still holds.
//!
//! Entries are merged as they grow older, so that an entry of age `a` is never rounded
//! by more than `a / 240`. A window only asks when entries as old as itself leave it:
//! whatever its length, it sees buckets no coarser than a 240th of it. One history
//! therefore serves every window up to its longest, and a window whose length changes
//! on reload finds what it needs. Rounding is upwards: an entry may leave a window too
//! late by that much, never too early.

use std::collections::VecDeque;

/// Milliseconds of uptime of the present boot; what left before the boot is negative.
pub(super) type Millis = i64;

/// The oldest entry that anybody may still ask for.
pub(super) const DAY: Millis = 24 * 60 * 60 * 1000;
/// Buckets of a window, at least.
const FINENESS: Millis = 240;
/// How many windows are watched: the batch, the hour, the day.
pub(super) const WINDOWS: usize = 3;

/// An amount of mail, in everything that a limit can count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Transactions.
    pub messages: u64,
    /// Octets on the wire.
    pub octets: u64,
    /// Recipients.
    pub recipients: u64,
}

impl Load {
    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            octets: self.octets.saturating_add(other.octets),
            recipients: self.recipients.saturating_add(other.recipients),
        }
    }

    /// This, or what there is.
    pub(super) fn at_most(self, other: Self) -> Self {
        Self {
            messages: self.messages.min(other.messages),
            octets: self.octets.min(other.octets),
            recipients: self.recipients.min(other.recipients),
        }
    }

    /// Messages, octets and recipients.
    pub(super) fn parts(self) -> [u64; 3] {
        [self.messages, self.octets, self.recipients]
    }

    /// What is left; nothing goes below zero.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            octets: self.octets.saturating_sub(other.octets),
            recipients: self.recipients.saturating_sub(other.recipients),
        }
    }
}

/// Which part of a window's limit pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// What is not kept for interactive mail.
    General,
    /// The share kept for interactive mail.
    Interactive,
}

/// The same amount of mail, by who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Paid {
    pub(super) general: Load,
    pub(super) interactive: Load,
}

impl Paid {
    pub(super) fn by(budget: Budget, load: Load) -> Self {
        match budget {
            Budget::General => Self {
                general: load,
                interactive: Load::default(),
            },
            Budget::Interactive => Self {
                general: Load::default(),
                interactive: load,
            },
        }
    }

    pub(super) fn total(self) -> Load {
        self.general.plus(self.interactive)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            general: self.general.plus(other.general),
            interactive: self.interactive.plus(other.interactive),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            general: self.general.minus(other.general),
            interactive: self.interactive.minus(other.interactive),
        }
    }
}

/// What left at one time (or in the bucket that ends then).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at: Millis,
    pub(super) paid: Paid,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    length: Millis,
    /// Entries before this one have left the window for good.
    first: usize,
    /// The sum of the rest.
    used: Paid,
}

/// What left through one relay, oldest first.
#[derive(Debug, Clone)]
pub(super) struct History {
    entries: VecDeque<Entry>,
    windows: [Window; WINDOWS],
    /// Entries are merged when there are this many.
    merge_at: usize,
}

const MERGE_AT_LEAST: usize = 512;

impl History {
    pub(super) fn new(lengths: [Millis; WINDOWS]) -> Self {
        Self {
            entries: VecDeque::new(),
            windows: lengths.map(|length| Window {
                length,
                first: 0,
                used: Paid::default(),
            }),
            merge_at: MERGE_AT_LEAST,
        }
    }

    /// Changes how long the windows are; what already left counts in the new ones.
    pub(super) fn set_lengths(&mut self, lengths: [Millis; WINDOWS], now: Millis) {
        for (window, length) in self.windows.iter_mut().zip(lengths) {
            if window.length == length {
                continue;
            }
            let first = self
                .entries
                .partition_point(|entry| has_left(entry.at, length, now));
            let used = self
                .entries
                .range(first..)
                .fold(Paid::default(), |sum, entry| sum.plus(entry.paid));
            *window = Window {
                length,
                first,
                used,
            };
        }
    }

    /// Adds what left at `at`, which is not later than `now`.
    pub(super) fn record(&mut self, at: Millis, paid: Paid, now: Millis) {
        self.advance(now);
        let mut at = at.min(now);
        // Merging may have given an entry that left a window a later time than this one's:
        // what is still in the window must come after it.
        let floor = self
            .windows
            .iter()
            .filter(|window| !has_left(at, window.length, now))
            .map(|window| window.first)
            .max()
            .unwrap_or(0);
        // Nearly always the end: replies are recorded as they come.
        let mut place = self.entries.partition_point(|entry| entry.at <= at);
        if place < floor {
            place = floor;
            at = self.entries[floor - 1].at;
        }
        let same = place > floor && self.entries[place - 1].at == at;
        let index = place - usize::from(same);
        if same {
            self.entries[index].paid = self.entries[index].paid.plus(paid);
        } else {
            self.entries.insert(index, Entry { at, paid });
        }
        for window in &mut self.windows {
            if index < window.first {
                window.first += usize::from(!same);
            } else if has_left(at, window.length, now) {
                // Everything before it has left, too: `advance` saw to that.
                window.first = index + 1;
            } else {
                window.used = window.used.plus(paid);
            }
        }
        if self.entries.len() >= self.merge_at {
            self.merge(now);
        }
    }

    /// Lets everything leave the windows whose time is over.
    pub(super) fn advance(&mut self, now: Millis) {
        for window in &mut self.windows {
            while let Some(entry) = self.entries.get(window.first)
                && has_left(entry.at, window.length, now)
            {
                window.used = window.used.minus(entry.paid);
                window.first += 1;
            }
        }
        let kept = self.windows.map(|window| window.first).into_iter().min();
        for _ in 0..kept.unwrap_or(0) {
            // A shorter window may become longer on reload, up to a day.
            if self
                .entries
                .front()
                .is_none_or(|it| !has_left(it.at, DAY, now))
            {
                break;
            }
            self.entries.pop_front();
            for window in &mut self.windows {
                window.first -= 1;
            }
        }
    }

    /// What a window holds; right as of the last `advance` or `record`.
    pub(super) fn used(&self, window: usize) -> Paid {
        self.windows[window].used
    }

    /// What leaves a window, and when, earliest first.
    pub(super) fn leaving(&self, window: usize) -> impl Iterator<Item = (Millis, Paid)> + '_ {
        let Window { length, first, .. } = self.windows[window];
        self.entries
            .range(first..)
            .map(move |entry| (entry.at + length + 1, entry.paid))
    }

    /// Everything, for the log.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Merges old entries into buckets: a few thousand at most, whatever was sent.
    pub(super) fn merge(&mut self, now: Millis) {
        let mut merged: VecDeque<Entry> = VecDeque::with_capacity(self.entries.len() / 2 + 1);
        let mut firsts = self.windows.map(|_| None);
        for (index, entry) in self.entries.drain(..).enumerate() {
            let mut apart = false;
            for (window, first) in self.windows.iter().zip(&mut firsts) {
                if window.first == index {
                    // What has left a window stays out of it: no bucket spans its edge.
                    *first = Some(merged.len());
                    apart = true;
                }
            }
            let at = bucket_end(entry.at, now);
            match merged.back_mut() {
                Some(last) if !apart && last.at >= at => last.paid = last.paid.plus(entry.paid),
                Some(last) => {
                    let at = at.max(last.at);
                    merged.push_back(Entry { at, ..entry });
                }
                None => merged.push_back(Entry { at, ..entry }),
            }
        }
        for (window, first) in self.windows.iter_mut().zip(firsts) {
            window.first = first.unwrap_or(merged.len());
        }
        self.entries = merged;
        self.merge_at = (2 * self.entries.len()).max(MERGE_AT_LEAST);
    }
}

/// Whether something that left at `at` is outside of a window that ends now.
///
/// The window is closed at both ends: two messages exactly its length apart are both in it.
fn has_left(at: Millis, length: Millis, now: Millis) -> bool {
    at + length < now
}

/// The end of the bucket that an entry belongs to at its present age.
///
/// Widths are powers of two, so that a bucket always becomes part of one wider bucket
/// and rounding does not add up.
fn bucket_end(at: Millis, now: Millis) -> Millis {
    let finest = (now - at) / FINENESS;
    if finest < 2 {
        return at;
    }
    let width = 1 << finest.ilog2();
    at.div_euclid(width) * width + if at.rem_euclid(width) == 0 { 0 } else { width }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one() -> Paid {
        Paid::by(
            Budget::General,
            Load {
                messages: 1,
                octets: 10,
                recipients: 2,
            },
        )
    }

    #[test]
    fn an_entry_leaves_a_window_right_after_its_length() {
        let mut history = History::new([300_000, 3_600_000, DAY]);
        history.record(1_000, one(), 1_000);
        history.advance(301_000);
        assert_eq!(history.used(0).general.messages, 1);
        history.advance(301_001);
        assert_eq!(history.used(0).general.messages, 0);
        assert_eq!(history.used(1).general.messages, 1);
        assert_eq!(history.leaving(1).next().unwrap().0, 3_601_001);
    }

    #[test]
    fn a_day_at_full_speed_stays_a_few_thousand_entries() {
        let mut history = History::new([1_000, 3_600_000, DAY]);
        for at in (0..2 * DAY).step_by(250) {
            history.record(at, one(), at);
        }
        assert!(
            history.entries.len() < 12_000,
            "{} entries",
            history.entries.len()
        );
        let now = 2 * DAY;
        history.merge(now);
        assert!(
            history.entries.len() < 5_500,
            "{} entries",
            history.entries.len()
        );
    }

    proptest! {
        /// Every window, its length changed or not, is compared with a list of everything:
        /// what truly left it may still be counted for a 240th of its length, no longer.
        #[test]
        fn a_window_never_forgets_early_and_never_keeps_longer_than_a_240th(
            steps in prop::collection::vec((0i64..20_000, 0i64..3_000, 0usize..40), 1..400),
            lengths in prop::array::uniform4(300i64..400_000),
        ) {
            let mut history = History::new([lengths[0], 3_600_000, DAY]);
            let mut length = lengths[0];
            let mut all: Vec<Millis> = Vec::new();
            let mut now = 0;
            for (wait, late, action) in steps {
                now += wait;
                match action {
                    0..4 => {
                        length = lengths[action];
                        history.set_lengths([length, 3_600_000, DAY], now);
                    }
                    4..10 => history.merge(now),
                    _ => {
                        history.record(now - late, one(), now);
                        all.push(now - late);
                    }
                }
                history.advance(now);
                for (window, length) in [length, 3_600_000].into_iter().enumerate() {
                    let inside = |slack: Millis| {
                        all.iter().filter(|at| **at + length + slack >= now).count() as u64
                    };
                    let used = history.used(window).general.messages;
                    prop_assert!(used >= inside(0), "forgot early: {} < {}", used, inside(0));
                    let latest = inside(length / 240 + 1);
                    prop_assert!(used <= latest, "kept too long: {} > {}", used, latest);
                }
            }
        }
    }
}
