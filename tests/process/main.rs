//! The real programs in real time: SIGKILL, power cuts, systemd, exit codes.
//!
//! What needs programs of others is ignored by a plain `cargo test`; `.ci/run` runs it.

#[allow(dead_code)]
#[path = "../it/certificates.rs"]
mod certificates;
#[allow(dead_code)]
#[path = "../it/client.rs"]
mod client;
#[allow(dead_code)]
mod daemon;
#[allow(dead_code)]
#[path = "../it/harness.rs"]
mod harness;
#[allow(dead_code)]
mod ledger;
#[allow(dead_code)]
#[path = "../it/relay.rs"]
mod relay;

mod alarms;
mod checking;
mod cli;
mod configuring;
mod control;
mod damage;
mod demo;
mod disk;
mod kill;
mod limits;
mod memory;
mod million;
mod oauth;
mod powercut;
mod service;
mod shapes;
mod systemd;
mod terminal;
mod verifying;
