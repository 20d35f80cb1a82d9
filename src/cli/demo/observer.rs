//! What a relay saw, counted by its own clock: the proof of the demonstration.
//!
//! Shares no code with the ledger that keeps the limits.

use std::time::Duration;

use tokio::time::Instant;

/// When one relay answered each message that it took.
#[derive(Debug, Default)]
pub struct Observer {
    times: Vec<Instant>,
}

impl Observer {
    /// A message was taken then.
    pub fn saw(&mut self, at: Instant) {
        // Nearly always the end: its connections tell nearly in order.
        let place = self.times.partition_point(|it| *it <= at);
        self.times.insert(place, at);
    }

    /// How many it took in all.
    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// How many it took in the window of this length that ends at `end`, both included.
    pub fn within(&self, window: Duration, end: Instant) -> usize {
        let first = self.times.partition_point(|it| *it + window < end);
        self.times.partition_point(|it| *it <= end) - first
    }

    /// The most that any window of this length held: one that matters ends with a message.
    pub fn worst(&self, window: Duration) -> usize {
        let each = self.times.iter().map(|end| self.within(window, *end));
        each.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_worst_window_is_found_wherever_it_lies() {
        let zero = Instant::now();
        let mut observer = Observer::default();
        assert_eq!(observer.worst(Duration::from_secs(1)), 0);
        for milliseconds in [0, 900, 2_000, 1_901, 1_000, 5_000] {
            observer.saw(zero + Duration::from_millis(milliseconds));
        }
        assert_eq!(observer.count(), 6);
        // 0, 900 and 1,000: a window includes both of its ends.
        assert_eq!(observer.worst(Duration::from_millis(1_000)), 3);
        assert_eq!(observer.worst(Duration::from_millis(999)), 2);
        assert_eq!(observer.worst(Duration::from_secs(5)), 6);
        let end = zero + Duration::from_millis(2_500);
        assert_eq!(observer.within(Duration::from_millis(600), end), 2);
    }
}
