//! How the daemon is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::relay::RelayStatus;

/// How things are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The daemon's version.
    pub version: String,
    /// The name it greets with.
    pub hostname: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// When the configuration in use was read.
    pub configured: Timestamp,
    /// Why the latest configuration was not taken; none: it was.
    pub configuration_error: Option<String>,
    /// Where it listens.
    pub listeners: Vec<ListenerStatus>,
    /// What waits.
    pub queue: QueueCounts,
    /// What went through.
    pub traffic: Traffic,
    /// The disk.
    pub spool: SpoolReport,
    /// Every relay.
    pub relays: Vec<RelayStatus>,
    /// The alarms that stand; each is also mailed to `admin`.
    pub alarms: Vec<AlarmReport>,
    /// What somebody should look at, a sentence each, worst first; empty: all is well.
    pub problems: Vec<String>,
}

/// An alarm that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmReport {
    /// `disk-low`, `nothing-leaves` or `relay-paused`.
    pub alarm: String,
    /// The relay that has it; none: it is about all of them.
    pub relay: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// For people: a sentence.
    pub text: String,
}

/// A listener and who is connected to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Address and port.
    pub address: String,
    /// `off`, `starttls` or `implicit`.
    pub tls: String,
    /// `off`, `optional` or `required`.
    pub auth: String,
    /// Clients connected now.
    pub clients: u64,
}

/// How many messages are in which state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounts {
    /// All of them.
    pub messages: u64,
    /// Their recipients that are not settled yet.
    pub recipients: u64,
    /// Octets of their contents.
    pub size_bytes: u64,
    /// For their turn, or for room.
    pub waiting: u64,
    /// For their next attempt.
    pub deferred: u64,
    /// Being sent.
    pub sending: u64,
    /// For a relay that is not active.
    pub paused: u64,
    /// Held.
    pub held: u64,
    /// When the oldest was accepted.
    pub oldest: Option<Timestamp>,
}

/// What went through since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Messages accepted.
    pub accepted: u64,
    /// Messages refused at the door.
    pub refused: u64,
    /// Recipients delivered.
    pub delivered: u64,
    /// Attempts that failed for the time being.
    pub deferred: u64,
    /// Recipients that failed or expired.
    pub failed: u64,
}

/// The spool on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolReport {
    /// Its directory.
    pub path: String,
    /// Octets of its log and its large messages.
    pub used_bytes: u64,
    /// Octets free on its file system.
    pub free_bytes: u64,
    /// Below so many new mail is refused.
    pub min_free_bytes: u64,
    /// New mail is taken.
    pub accepting: bool,
    /// Records that could not be read and were put aside.
    pub damaged_records: u64,
    /// Messages that were being sent when the daemon or the machine went down, or whose
    /// final reply never came.
    pub in_doubt: u64,
}

/// One of the pictures of `penstock top`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopSnapshot {
    /// When.
    pub at: Timestamp,
    /// Clients connected now.
    pub clients: u64,
    /// What waits.
    pub queue: QueueCounts,
    /// What went through since the daemon started; rates are differences of two pictures.
    pub traffic: Traffic,
    /// Every relay.
    pub relays: Vec<RelayStatus>,
    /// Their limits, in the same order.
    pub limits: Vec<super::relay::LimitsReport>,
}

/// A reload that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// When the new configuration came into use.
    pub at: Timestamp,
    /// What is different, a line each; empty: nothing.
    pub changes: Vec<String>,
    /// What takes effect only after a restart, a line each.
    pub needs_restart: Vec<String>,
    /// Warnings of the configuration.
    pub warnings: Vec<String>,
}

/// The relay behind a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Its name.
    pub relay: String,
    /// Its servers as configured.
    pub servers: Vec<String>,
    /// The account's own address.
    pub sender: String,
    /// Since when it is active; none: it was only asked what the token is for.
    pub at: Option<Timestamp>,
}

/// Something that will hurt delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintReport {
    /// Its name in the configuration, like `spf-relay-missing`.
    pub hint: String,
    /// How bad: `serious`, `warning`, `notice` or `unknown`.
    pub severity: String,
    /// What it is about: a domain, an address, a message.
    pub subject: String,
    /// The relay concerned.
    pub relay: Option<String>,
    /// What was found, in a sentence.
    pub found: String,
    /// What it was seen in: the DNS answers, the figures.
    pub evidence: Vec<String>,
    /// What to do, in words.
    pub remedy: String,
    /// The TXT record to publish, as in a zone file, on one line.
    pub record: Option<String>,
    /// What is done about it: `log`, `hold` or `reject`.
    pub action: String,
    /// In how many messages it was seen; zero: nobody sent any yet.
    pub messages: u64,
    /// When it was last seen.
    pub last_seen: Timestamp,
}
