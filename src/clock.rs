//! The only place that asks the machine what time it is.
//!
//! Wall time ([`Timestamp`]) is for what is stored and shown. Uptime is for limits:
//! it counts on through suspend and no administrator can set it back. For waiting
//! inside the program tokio's clock is used directly.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// One reading of both clocks, and of which boot it was.
///
/// Small and `Copy`, so that it can be an argument everywhere and stand in records:
/// within one boot [`uptime`](Self::uptime) compares readings, across boots only
/// [`wall`](Self::wall) can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time since the machine booted, suspends included.
    pub uptime: Duration,
    /// Wall time.
    pub wall: Timestamp,
    /// Which boot `uptime` counts from: a number made of the [boot id](Clock::boot_id).
    pub boot: u64,
}

impl Moment {
    /// The same moment `later` on.
    pub fn after(self, later: Duration) -> Self {
        Self {
            uptime: self.uptime + later,
            wall: self.wall.checked_add(later).unwrap_or(Timestamp::MAX),
            boot: self.boot,
        }
    }
}

/// The number that stands for a boot id in a [`Moment`].
pub fn boot_number(boot_id: &str) -> u64 {
    // FNV-1a: stable over versions, and nobody can choose a boot id.
    boot_id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Tells the time; cloned freely.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// Read once: the machine cannot boot under a running program.
    boot: u64,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    /// Follows tokio's clock, which a test can pause and advance.
    Tokio {
        origin: tokio::time::Instant,
        start: Timestamp,
        /// Milliseconds by which the wall clock was set since.
        set_by: Arc<AtomicI64>,
        uptime: Duration,
        boot: String,
    },
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self::with(Source::System)
    }

    /// A clock that shows `start` now and then follows tokio's clock, paused or not.
    pub fn following_tokio(start: Timestamp) -> Self {
        Self::with(Source::Tokio {
            origin: tokio::time::Instant::now(),
            start,
            set_by: Arc::default(),
            uptime: Duration::from_secs(1_000),
            boot: "test-boot".into(),
        })
    }

    /// Sets the wall clock of a [clock that follows tokio's](Self::following_tokio), as an
    /// administrator or NTP may; the machine's own is not ours to set.
    pub fn set_wall(&self, by: SignedDuration) {
        if let Source::Tokio { set_by, .. } = &self.source {
            let by = i64::try_from(by.as_millis()).unwrap_or(0);
            set_by.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// The same clock on another boot of the machine, for tests of what a reboot changes.
    pub fn on_boot(mut self, name: &str) -> Self {
        if let Source::Tokio { boot, .. } = &mut self.source {
            name.clone_into(boot);
        }
        Self::with(self.source)
    }

    fn with(source: Source) -> Self {
        let mut clock = Self { source, boot: 0 };
        clock.boot = boot_number(&clock.boot_id());
        clock
    }

    /// Both clocks at once.
    pub fn moment(&self) -> Moment {
        Moment {
            uptime: self.uptime(),
            wall: self.now(),
            boot: self.boot,
        }
    }

    /// Wall time, to the millisecond.
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Timestamp {
        let now = match &self.source {
            Source::System => Timestamp::now(),
            Source::Tokio {
                origin,
                start,
                set_by,
                ..
            } => {
                let set_by = SignedDuration::from_millis(set_by.load(Ordering::Relaxed));
                *start + origin.elapsed() + set_by
            }
        };
        Timestamp::from_millisecond(now.as_millisecond()).expect("it was a timestamp before")
    }

    /// Time since the machine booted, suspends included (CLOCK_BOOTTIME).
    ///
    /// Comparable only between readings with the same [`boot_id`](Self::boot_id).
    pub fn uptime(&self) -> Duration {
        match &self.source {
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
        match &self.source {
            Source::System => std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|it| it.trim().to_owned())
                .unwrap_or_else(|_| format!("unknown-{:016x}", rand::random::<u64>())),
            Source::Tokio { boot, .. } => boot.clone(),
        }
    }
}
