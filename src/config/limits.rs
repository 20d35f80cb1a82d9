//! What a relay may get: its limits, read over the preset they start from.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::file::Table;
use super::value::{write_duration, write_percent, write_size};

pub use super::preset::Preset;

const DAY: Duration = Duration::from_secs(86_400);
/// More than any relay takes; keeps sums far from overflow.
const MOST: u32 = 1_000_000_000;
/// One octet would only hold mail up one message at a time; still, it is a limit.
const OCTETS: RangeInclusive<u64> = 1..=1_000_000_000_000;
/// How a limit is lifted that the preset sets.
const UNLIMITED: &str = "unlimited";

/// The limits of one relay, effective values (PRODUCT section 6).
///
/// `None` means without limit. One SMTP transaction is one message; octets count as
/// DATA sends them.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The preset they started from.
    pub preset: Preset,
    /// Messages in any window of `batch_interval`.
    pub batch_messages: Option<u32>,
    /// Octets in any window of `batch_interval`.
    pub batch_bytes: Option<u64>,
    /// The length of that window, and from one batch to the next.
    pub batch_interval: Duration,
    /// How long after a batch opened its last transaction may start.
    pub batch_window: Duration,
    /// Messages in any window of an hour.
    pub per_hour: Option<u32>,
    /// Messages in any window of 24 hours.
    pub per_day: Option<u32>,
    /// Recipients of one transaction.
    pub recipients_per_message: Option<u32>,
    /// Recipients in any window of an hour.
    pub recipients_per_hour: Option<u32>,
    /// Recipients in any window of 24 hours.
    pub recipients_per_day: Option<u32>,
    /// From one release to the next; zero: none.
    pub min_interval: Duration,
    /// Simultaneous connections.
    pub connections: u32,
    /// Transactions on one connection; none: without limit.
    pub messages_per_connection: Option<u32>,
    /// Messages of one mailing; the excess is held.
    pub mailing_limit: Option<u32>,
    /// Share of every window kept for interactive mail, 0 to 1.
    pub interactive_share: f64,
    /// Keys (kebab-case) written in the configuration, overriding the preset, and on
    /// which line.
    pub overridden: Vec<(&'static str, WrittenAt)>,
}

/// The line on which a key is written, where it is known. The same key with the same
/// value on another line is no change.
#[derive(Debug, Clone, Copy, Default)]
pub struct WrittenAt(pub Option<usize>);

impl PartialEq for WrittenAt {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for WrittenAt {}

/// Where an effective limit comes from, for `penstock config show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitSource {
    /// The configuration's own key, on this line.
    Written(WrittenAt),
    /// The preset, with the source of the figure and its date.
    Preset {
        /// Which.
        preset: Preset,
        /// Who says so.
        source: &'static str,
        /// When it was read, `2026-11-21`.
        date: &'static str,
    },
}

impl Limits {
    /// Every limit: its key, and its value as it would be written.
    pub fn entries(&self) -> [(&'static str, String); 14] {
        let number = |it: Option<u32>| it.map_or(UNLIMITED.to_owned(), |it| it.to_string());
        let octets = self.batch_bytes.map_or(UNLIMITED.to_owned(), write_size);
        [
            ("batch-messages", number(self.batch_messages)),
            ("batch-bytes", octets),
            ("batch-interval", write_duration(self.batch_interval)),
            ("batch-window", write_duration(self.batch_window)),
            ("per-hour", number(self.per_hour)),
            ("per-day", number(self.per_day)),
            (
                "recipients-per-message",
                number(self.recipients_per_message),
            ),
            ("recipients-per-hour", number(self.recipients_per_hour)),
            ("recipients-per-day", number(self.recipients_per_day)),
            ("min-interval", write_duration(self.min_interval)),
            ("connections", self.connections.to_string()),
            (
                "messages-per-connection",
                number(self.messages_per_connection),
            ),
            ("mailing-limit", number(self.mailing_limit)),
            (
                "interactive-share",
                write_percent(self.interactive_share * 100.0),
            ),
        ]
    }

    /// Where the value of a limit comes from, by its key.
    pub fn source(&self, key: &str) -> LimitSource {
        if let Some((_, line)) = self.overridden.iter().find(|it| it.0 == key) {
            return LimitSource::Written(*line);
        }
        LimitSource::Preset {
            preset: self.preset,
            source: self.preset.source(),
            date: self.preset.date(),
        }
    }
}

/// Reads `limits` over the preset that is written there, or else over `preset`.
pub(super) fn read_limits(table: Table, preset: Preset) -> Limits {
    let words = Preset::ALL.map(|it| (it.name(), it));
    let preset = table.choice("preset", &words).unwrap_or(preset);
    let mut limits = preset.limits();

    set(
        &mut limits.batch_messages,
        numbered(table, "batch-messages"),
    );
    set(&mut limits.per_hour, numbered(table, "per-hour"));
    set(&mut limits.per_day, numbered(table, "per-day"));
    set(
        &mut limits.recipients_per_message,
        numbered(table, "recipients-per-message"),
    );
    set(
        &mut limits.recipients_per_hour,
        numbered(table, "recipients-per-hour"),
    );
    set(
        &mut limits.recipients_per_day,
        numbered(table, "recipients-per-day"),
    );
    set(
        &mut limits.messages_per_connection,
        numbered(table, "messages-per-connection"),
    );
    set(&mut limits.mailing_limit, numbered(table, "mailing-limit"));
    set(
        &mut limits.batch_bytes,
        match unlimited(table, "batch-bytes") {
            true => Some(None),
            false => table.size("batch-bytes", OCTETS).map(Some),
        },
    );
    let short = Duration::from_millis(10);
    set(
        &mut limits.batch_interval,
        table.duration("batch-interval", short..=DAY),
    );
    set(
        &mut limits.batch_window,
        table.duration("batch-window", short..=DAY),
    );
    set(
        &mut limits.min_interval,
        table.duration("min-interval", Duration::ZERO..=DAY),
    );
    set(
        &mut limits.connections,
        table.number("connections", 1..=200),
    );
    // All of a window kept for interactive mail would leave a mailing waiting for ever.
    set(
        &mut limits.interactive_share,
        table
            .percent("interactive-share", 0.0..=90.0)
            .map(|it| it / 100.0),
    );

    if limits.batch_window > limits.batch_interval {
        if table.has("batch-window") {
            table.wrong(
                "batch-window",
                &format!(
                    "{} is longer than batch-interval, {}",
                    write_duration(limits.batch_window),
                    write_duration(limits.batch_interval)
                ),
                "a batch must end before the next one opens: write a shorter batch-window",
            );
        }
        // Only the interval was written, shorter than the preset's window.
        limits.batch_window = limits.batch_interval;
    }
    limits.overridden = limits
        .entries()
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| table.has(key))
        .map(|key| (key, WrittenAt(table.line(key))))
        .collect();
    limits
}

fn set<T>(limit: &mut T, written: Option<T>) {
    if let Some(written) = written {
        *limit = written;
    }
}

fn unlimited(table: Table, key: &str) -> bool {
    table.written(key) == Some(UNLIMITED)
}

/// A number or `"unlimited"`. Zero is refused: it would hold mail for ever, and
/// `penstock relay pause` does that in a way that everybody can see.
fn numbered(table: Table, key: &str) -> Option<Option<u32>> {
    match unlimited(table, key) {
        true => Some(None),
        false => table.number(key, 1..=MOST).map(Some),
    }
}
