//! Which relay a message takes, and who may send as whom (PRODUCT sections 3 and 4).
//!
//! Pure look-ups over the configuration: no connections, no clock, nothing that waits.
//! A [`Directory`] is built once for each configuration and shared.

pub mod directory;
pub mod permission;

use crate::mail::{Mailbox, Rule};

pub use directory::Directory;
pub use permission::{NotAllowed, Submitter};

/// The answer of the directory for one From address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The relay's name.
    pub relay: String,
    /// The entry of the directory that matched, as written (`jan@example.nl`,
    /// `@example.nl`); empty when none did.
    pub user: String,
    /// Which rule gave the answer.
    pub rule: Rule,
}

/// No relay is meant for an address; its text is the reply and names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Nobody in the directory, and no default relay.
    #[error("no relay for <{address}>; add it to users.toml")]
    Unknown {
        /// The address that nobody knows.
        address: Mailbox,
    },
    /// In the directory without a relay of its own, and no default relay.
    #[error("no relay for <{address}>; set relay for {user} in users.toml, or default-relay")]
    WithoutRelay {
        /// The address that was looked up.
        address: Mailbox,
        /// The entry that matched.
        user: String,
    },
}
