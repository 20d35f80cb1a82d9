//! Relays, their limits, and who is sent to which.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::message::MailingReport;

/// A relay and how it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Its name.
    pub relay: String,
    /// Its servers as configured, in order; empty when it is no longer configured.
    pub servers: Vec<String>,
    /// How it is.
    pub state: RelayState,
    /// Why it is not active, in its own words or an administrator's; none: it is active.
    pub reason: Option<String>,
    /// What to do about that.
    pub remedy: Option<String>,
    /// Who paused it: an administrator's name, or `penstock`.
    pub by: Option<String>,
    /// Since when it is as it is.
    pub since: Option<Timestamp>,
    /// When it is tried again by itself.
    pub next_probe: Option<Timestamp>,
    /// The user name at the relay; none: no login.
    pub username: Option<String>,
    /// The relay account's own address.
    pub sender: Option<String>,
    /// `implicit`, `required`, `opportunistic` or `off`, of its first server.
    pub tls: Option<String>,
    /// The preset of its limits.
    pub preset: Option<String>,
    /// It takes the mail of a From that matches nobody.
    pub default: bool,
    /// Open connections.
    pub connections: u64,
    /// Messages for it that are not held.
    pub waiting: u64,
    /// Octets of those.
    pub waiting_bytes: u64,
    /// Messages for it that are held.
    pub held: u64,
    /// When it last took a message.
    pub last_success: Option<Timestamp>,
    /// When it last refused something or was not reached.
    pub last_failure: Option<Timestamp>,
    /// What was said then.
    pub last_error: Option<String>,
    /// How its verification stands; none: it needs none.
    pub verification: Option<VerificationReport>,
    /// How its login with tokens stands; none: it takes no tokens.
    pub oauth: Option<OAuthReport>,
}

/// How a login with tokens stands; the tokens themselves are never said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuthReport {
    /// `login` or `client-credentials`.
    pub grant: String,
    /// Since when somebody is logged in; none: nobody is, or nobody needs to be.
    pub since: Option<Timestamp>,
    /// Who that was, on this machine.
    pub by: Option<String>,
    /// When the login was last used, to the day.
    pub used: Option<Timestamp>,
    /// When it ends, where the provider tells.
    pub expires: Option<Timestamp>,
    /// Why there was no token when one was last asked for, or will be none soon.
    pub trouble: Option<String>,
    /// What to do about that.
    pub remedy: Option<String>,
}

/// What a person has to do to log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginPrompt {
    /// The relay.
    pub relay: String,
    /// The mailbox to log in as.
    pub username: String,
    /// The page to open.
    pub page: String,
    /// The same with the code in it, where the provider has one.
    pub whole_page: Option<String>,
    /// The code to enter there.
    pub code: String,
    /// Until when.
    pub expires: Timestamp,
}

/// Somebody has logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedIn {
    /// The relay.
    pub relay: String,
    /// The mailbox.
    pub username: String,
    /// When.
    pub at: Timestamp,
    /// When the login ends, where the provider tells.
    pub expires: Option<Timestamp>,
}

/// How the verification of a relay stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationReport {
    /// How far it is.
    pub state: VerificationState,
    /// Since when.
    pub at: Option<Timestamp>,
    /// Who confirmed it.
    pub by: Option<String>,
    /// Until when the token of the latest test message is good.
    pub expires: Option<Timestamp>,
    /// What was said when the test message failed, passwords masked.
    pub conversation: Vec<Dialogue>,
}

/// How far the verification of a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerificationState {
    /// The test message has not left yet.
    Waiting,
    /// It left, and nobody has confirmed it yet.
    Sent,
    /// The relay did not take it.
    Failed,
    /// Nobody confirmed it in time.
    Expired,
    /// Somebody confirmed it.
    Confirmed,
}

/// How a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayState {
    /// Mail goes to it.
    Active,
    /// Mail waits.
    Paused,
    /// Its test message was not confirmed yet.
    Unverified,
    /// It has mail, but is no longer configured.
    Missing,
}

impl RelayState {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Unverified => "unverified",
            Self::Missing => "missing",
        }
    }
}

/// What is used and what is left of one relay's limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitsReport {
    /// The relay.
    pub relay: String,
    /// The preset its limits started from.
    pub preset: String,
    /// How it is.
    pub state: RelayState,
    /// Every limit on an amount within a window.
    pub windows: Vec<WindowReport>,
    /// From one release to the next, in milliseconds; zero: none.
    pub min_interval_ms: u64,
    /// Open connections.
    pub connections: u64,
    /// As many are allowed.
    pub connections_limit: u64,
    /// Messages that wait and are not held.
    pub waiting: u64,
    /// Their octets on the wire.
    pub waiting_bytes: u64,
    /// A batch is open: messages are leaving now.
    pub batch_open: bool,
    /// Why the next message does not leave at this moment; none: it does, or nothing waits.
    pub why: Option<String>,
    /// When that changes by itself, if it does.
    pub until: Option<Timestamp>,
    /// When the next batch opens; none: nothing waits, or the relay is not active.
    pub next_batch: Option<Timestamp>,
    /// When the queue will be empty if nothing is added; none: unknown, or it is empty.
    pub empty_at: Option<Timestamp>,
    /// The share of every window kept for interactive mail, 0 to 1.
    pub interactive_share: f64,
    /// Who waits, most messages first, at most 10.
    pub users: Vec<UserShare>,
    /// The mailings that wait or are held, most messages first, at most 10.
    pub mailings: Vec<MailingReport>,
}

/// One limit on an amount within a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowReport {
    /// The configuration's key: `batch-messages`, `batch-bytes`, `per-hour`, ...
    pub limit: String,
    /// The window's length.
    pub window_seconds: u64,
    /// How much is allowed.
    pub allowed: u64,
    /// How much is used, reservations included.
    pub used: u64,
    /// How much is left.
    pub left: u64,
    /// When room comes back first; none: nothing is used, or all of it is just being sent.
    pub room_at: Option<Timestamp>,
}

/// How much of one sender waits for a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserShare {
    /// The From address.
    pub from: String,
    /// Messages that wait.
    pub waiting: u64,
    /// Their octets on the wire.
    pub waiting_bytes: u64,
}

/// One thing said while a relay is tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialogue {
    /// Who said it.
    pub side: Side,
    /// What; passwords are masked, the relay's words are unchanged but made printable.
    pub text: String,
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Penstock, to the relay.
    Ours,
    /// The relay.
    Theirs,
    /// Penstock, to the reader: what it looks up, connects to, secures.
    Note,
}

/// How a relay's test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayTestReport {
    /// The relay.
    pub relay: String,
    /// It works as far as it was tried.
    pub ok: bool,
    /// The server that was reached last.
    pub server: Option<String>,
    /// How far the dialogue came.
    pub stage: String,
    /// What went wrong, in the server's words where it said any; or what went well.
    pub text: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Where mail from an address goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// The address asked about.
    pub address: String,
    /// The relay.
    pub relay: String,
    /// The directory's entry that matched; none: the default relay.
    pub user: Option<String>,
    /// Which rule gave it, in words.
    pub rule: String,
    /// How the relay is; none when nobody could be asked, because the daemon is stopped.
    pub state: Option<RelayState>,
}
