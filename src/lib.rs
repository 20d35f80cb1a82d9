//! Penstock: a local SMTP submission proxy.
//!
//! ```text
//!             intake half                  the waist                 delivery half
//!                                       ┌────────────┐
//!  client ──► accept ──► route ───────► │   spool    │ ──► release ──► relay ──► outcome
//!                                       │ (on disk)  │                              │
//!                                       └────────────┘ ◄── settled recipients ──────┤
//!                                             ▲                                     │
//!                                             └────────── reports, as new mail ─────┘
//! ```
//!
//! Mail goes from left to right, always. The one arrow back is a delivery status
//! notification, and it enters by the door that all other mail takes.
//!
//! - [`accept`] speaks SMTP with clients; [`route`] says which relay a From takes, and who
//!   may use it; [`spool`] has a message on the disk before its 250.
//! - [`release`] decides what may leave now under its relay's limits; [`relay`] hands it
//!   over; [`outcome`] decides what the answer means, for each recipient, for the message
//!   and for the relay.
//! - [`hint`] tells what will hurt delivery, from what DNS says and from a message alone.
//! - [`smtp`] is the wire, shared by both sides, without sockets; [`mail`] has the words;
//!   [`config`] what was configured, [`dns`] and [`tls`] what both sides need of the world,
//!   [`clock`] the time, [`measure`] how long things take.
//! - [`oauth`] has access tokens for relays that take no password.
//! - [`verify`] is the proof that a relay delivers, before its users' mail goes there.
//! - [`daemon`] wires it all together, and nothing else does; [`control`] is how [`cli`]
//!   asks it, [`http`] how a browser and a monitoring system do.
//!
//! Both halves know the spool; the spool knows neither; the halves do not know each other.
//! `tests/it/layers.rs` holds the table of who may import whom, and checks it.
//!
//! # Promises
//!
//! 1. A message answered 250 is delivered, bounced, or visibly held: through SIGKILL, power
//!    cut and a full disk. The log is the truth: see [`spool`].
//! 2. No relay ever gets more than its limits: see [`release`].
//! 3. No message is sent with another user's credentials: connections are kept per relay
//!    and credential, see [`relay`].
//! 4. Nobody outside the allowed networks and logins can send anything: see [`accept`].
//! 5. A relay's trouble costs delay, never mail: see [`outcome`].
//! 6. Nothing waits without a reason that `penstock` can show.
//! 7. Secrets and message contents appear in no log, error or control reply, except where
//!    asked for by name.
//! 8. What the application sent is what the relay gets, after the trace fields.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
// These end the program where nobody reads what it says. Tests may.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

/// The version of the programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version and, in a release build, the commit it was made from: `0.1.0 (1a2b3c4d5e)`.
pub const VERSION_AND_COMMIT: &str =
    concat!(env!("CARGO_PKG_VERSION"), env!("PENSTOCK_COMMIT_SUFFIX"));

pub mod accept;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dns;
pub mod hint;
pub mod http;
pub mod mail;
pub mod measure;
pub mod oauth;
pub mod outcome;
pub mod relay;
pub mod release;
pub mod route;
pub mod smtp;
pub mod spool;
pub mod tls;
pub mod verify;
