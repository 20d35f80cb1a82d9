//! Real clients and real servers of others, from Debian's packages and npm.
//!
//! A plain `cargo test` ignores what needs them; `.ci/run` installs them and runs all:
//! `cargo test --test peers -- --include-ignored`.

#[allow(dead_code)]
#[path = "../it/certificates.rs"]
mod certificates;
#[allow(dead_code)]
#[path = "../it/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../process/daemon.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "../it/relay.rs"]
mod relay;

mod browser;
mod clients;
mod commands;
mod hints;
mod monitoring;
mod postfix_import;
mod programs;
mod servers;
