//! The only place that asks the machine what time it is.
//!
//! Wall time ([`Timestamp`]) is for what is stored and shown. Uptime is for limits:
//! it counts on through suspend and no administrator can set it back. For waiting
//! inside the program tokio's clock is used directly.

use std::time::Duration;

use jiff::Timestamp;

/// Tells the time; cloned freely.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// Follows tokio's clock, which a test can pause and advance.
    Tokio {
        origin: tokio::time::Instant,
        start: Timestamp,
        uptime: Duration,
        boot: String,
    },
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `start` now and then follows tokio's clock, paused or not.
    pub fn following_tokio(start: Timestamp) -> Self {
        Self(Source::Tokio {
            origin: tokio::time::Instant::now(),
            start,
            uptime: Duration::from_secs(1_000),
            boot: "test-boot".into(),
        })
    }

    /// Wall time, to the millisecond.
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Timestamp {
        let now = match &self.0 {
            Source::System => Timestamp::now(),
            Source::Tokio { origin, start, .. } => *start + origin.elapsed(),
        };
        Timestamp::from_millisecond(now.as_millisecond()).expect("it was a timestamp before")
    }

    /// Time since the machine booted, suspends included (CLOCK_BOOTTIME).
    ///
    /// Comparable only between readings with the same [`boot_id`](Self::boot_id).
    pub fn uptime(&self) -> Duration {
        match &self.0 {
            Source::System => {
                let read = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                Duration::new(
                    u64::try_from(read.tv_sec).unwrap_or(0),
                    u32::try_from(read.tv_nsec).unwrap_or(0),
                )
            }
            Source::Tokio { origin, uptime, .. } => *uptime + origin.elapsed(),
        }
    }

    /// Names the current boot of the machine; another boot has another name.
    ///
    /// Where the kernel does not tell (no `/proc`), the name is random: every start
    /// of the program is then taken for a new boot, which is the safe mistake.
    pub fn boot_id(&self) -> String {
        match &self.0 {
            Source::System => std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|it| it.trim().to_owned())
                .unwrap_or_else(|_| format!("unknown-{:016x}", rand::random::<u64>())),
            Source::Tokio { boot, .. } => boot.clone(),
        }
    }
}
