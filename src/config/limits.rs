//! What a relay may get: its limits and the presets they start from.

use std::time::Duration;

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
    /// Keys (kebab-case) written in the configuration, overriding the preset.
    pub overridden: Vec<&'static str>,
}

/// A set of limits with a name, a source and a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// 1,200 an hour.
    Standard,
    /// 6,000 an hour: for a relay that accepts large amounts of mail.
    Bulk,
    /// Microsoft 365, SMTP AUTH submission.
    Microsoft365,
    /// smtp.gmail.com with a personal account.
    Gmail,
    /// smtp.gmail.com or smtp-relay.gmail.com with Workspace.
    GoogleWorkspace,
    /// Amazon SES.
    AmazonSes,
    /// None but the connections.
    Unlimited,
}

/// Where an effective limit comes from, for `penstock config show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitSource {
    /// The configuration's own key.
    Written,
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
