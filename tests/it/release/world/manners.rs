//! How the world behaves, and the dice that decide it.

use penstock::config::{Limits, Preset};

/// Limits of nothing, with intervals as usual and no share for interactive mail.
pub fn unlimited() -> Limits {
    Limits {
        connections: 4,
        interactive_share: 0.0,
        ..Preset::Unlimited.limits()
    }
}

/// A small generator of numbers (splitmix64): a world is the same for the same seed.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// How a relay behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Milliseconds of a transaction, at most.
    pub slow: u64,
    /// Percent refused before the content.
    pub refuses: u64,
    /// Percent whose reply never comes.
    pub silent: u64,
    /// Percent of grants that the delivery does not begin.
    pub unstarted: u64,
    /// Percent of the spool's answers that come late.
    pub late: u64,
}

/// Quick and always content.
pub const GOOD: Manners = Manners {
    slow: 0,
    refuses: 0,
    silent: 0,
    unstarted: 0,
    late: 0,
};
