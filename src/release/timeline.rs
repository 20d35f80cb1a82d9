//! Times of earlier boots on the clock of the present one.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Moment;

use super::history::Millis;

/// Brings times of earlier boots onto the clock of the present one.
///
/// Within a boot uptime decides, whatever was done to the wall clock. Only the step from
/// one boot to the next is measured by wall time: from the last reading that is known of
/// the one to the first of the other; a step back counts as none. That the wall clock
/// jumps forward in just that step is the documented exception to the limits.
#[derive(Debug)]
pub(super) struct Timeline {
    now: Moment,
    /// Of each earlier boot its last reading, and when that was.
    last: HashMap<u64, (Moment, Millis)>,
}

impl Timeline {
    /// From readings of both clocks, boot by boot in the order of time, and the present one.
    pub(super) fn new(readings: impl IntoIterator<Item = Moment>, now: Moment) -> Self {
        let mut boots: Vec<(Moment, Moment)> = Vec::new();
        for reading in readings.into_iter().chain([now]) {
            match boots.last_mut() {
                Some((first, last)) if last.boot == reading.boot => {
                    if reading.uptime < first.uptime {
                        *first = reading;
                    }
                    // At the same millisecond the clock may just have been set.
                    if reading.uptime >= last.uptime {
                        *last = reading;
                    }
                }
                _ => boots.push((reading, reading)),
            }
        }
        let mut timeline = Self {
            now,
            last: HashMap::new(),
        };
        let mut after: Option<Moment> = None;
        for (first, last) in boots.into_iter().rev() {
            if let Some(next) = after {
                let step = next.wall.as_millisecond() - last.wall.as_millisecond();
                let at = timeline.local(next) - step.max(0);
                timeline.last.entry(last.boot).or_insert((last, at));
            }
            after = Some(first);
        }
        timeline
    }

    /// Now.
    pub(super) fn present(&self) -> Millis {
        millis_up(self.now.uptime)
    }

    /// When something happened, in milliseconds of the present boot; never later than now.
    pub(super) fn local(&self, at: Moment) -> Millis {
        if at.boot == self.now.boot {
            return millis_up(at.uptime).min(self.present());
        }
        match self.last.get(&at.boot) {
            Some((last, local)) => local - millis_down(last.uptime.saturating_sub(at.uptime)),
            None => {
                let since = self.now.wall.as_millisecond() - at.wall.as_millisecond();
                self.present() - since.max(0)
            }
        }
    }
}

/// Whole milliseconds, not shorter than this.
pub(super) fn millis_up(length: Duration) -> Millis {
    Millis::try_from(length.as_nanos().div_ceil(1_000_000)).unwrap_or(Millis::MAX / 4)
}

/// Whole milliseconds, not longer than this.
pub(super) fn millis_down(length: Duration) -> Millis {
    Millis::try_from(length.as_millis()).unwrap_or(Millis::MAX / 4)
}
