//! Penstock: a local SMTP submission proxy.

/// The version of the programs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

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
pub mod outcome;
pub mod relay;
pub mod release;
pub mod route;
pub mod smtp;
pub mod spool;
pub mod tls;
pub mod verify;
