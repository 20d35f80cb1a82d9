//! How long things take, counted in fixed buckets, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper ends of the buckets, in milliseconds: from a sync of a good disk to the reply
/// to a final dot, which may take ten minutes.
pub const BOUNDS_MS: [u64; 16] = [
    1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 60_000, 180_000, 600_000,
];

/// Durations by bucket; one more bucket takes what is longer than every bound.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    micros: AtomicU64,
}

/// What a [`Histogram`] held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// How many fell into each bucket, and at the end those beyond all of them.
    pub counts: Vec<u64>,
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let bucket = BOUNDS_MS.partition_point(|it| Duration::from_millis(*it) < took);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What it holds now.
    pub fn counted(&self) -> Counted {
        Counted {
            counts: self
                .counts
                .iter()
                .map(|it| it.load(Ordering::Relaxed))
                .collect(),
            sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for ms in [0, 1, 2, 3, 600_000, 600_001] {
            histogram.observe(Duration::from_millis(ms));
        }
        let counted = histogram.counted();
        assert_eq!(counted.counts[..3], [2, 1, 1]);
        assert_eq!(counted.counts[15..], [1, 1]);
        assert_eq!(counted.counts.iter().sum::<u64>(), 6);
        assert_eq!(counted.sum, Duration::from_millis(1_200_007));
    }
}
