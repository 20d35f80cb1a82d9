//! (cli)

pub mod config;
