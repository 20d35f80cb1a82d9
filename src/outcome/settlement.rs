//! What a delivery came to: for its message, its relay and whoever must be told.

use jiff::Timestamp;

use crate::mail::{Envelope, Stage};

use super::finding::Finding;
use super::report::Report;

/// What becomes of a message, its relay and whoever must be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The message as it is now.
    pub envelope: Envelope,
    /// What it counts against the relay's limits.
    pub released: Released,
    /// Reports to send, each about one kind of outcome.
    pub reports: Vec<Report>,
    /// The relay itself has trouble: pause it.
    pub trouble: Option<Trouble>,
    /// A sender or recipient was refused, which may turn out to be the relay's trouble.
    pub suspicion: Option<Suspicion>,
    /// The relay took at least one recipient.
    pub delivered: bool,
    /// The latest point of the dialogue at which the relay said something.
    pub reached: Option<Stage>,
    /// What each recipient's refusal means, for the log.
    pub findings: Vec<(usize, Finding)>,
}

/// What a transaction counts against the limits (PRODUCT section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It left, as of the relay's final reply.
    Sent {
        /// When the final reply came.
        at: Timestamp,
    },
    /// Nothing of the content left: the budget is given back.
    NotSent,
    /// Content left and no final reply came: it counts as sent.
    InDoubt {
        /// When that was decided.
        at: Timestamp,
    },
}

/// Why a relay must be paused.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// What it is about, and the remedy.
    pub finding: Finding,
    /// The relay only wants less at once.
    pub slow_down: bool,
    /// At which point of the dialogue.
    pub stage: Stage,
    /// The server's own words, printable.
    pub words: String,
}

/// A refusal that concerns one sender or recipient until proven otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Suspicion {
    /// Whose mail was refused.
    pub sender: String,
    /// To whom.
    pub recipients: Vec<String>,
    /// What to pause the relay for once it is proven.
    pub trouble: Trouble,
}
