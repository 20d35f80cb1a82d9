//! What the outcome of a delivery means: for each recipient, for the message, for the
//! relay, and for whoever must be told.
//!
//! Everything here only computes: time and chance are arguments, nothing is stored and
//! nothing is sent. [`settle`] turns a [`Delivery`](crate::relay::Delivery) into a
//! [`Settlement`]; [`Health`] is what the settlements of one relay add up to;
//! [`report`] writes the mail that tells people; [`classify`] says what a refusal means.

pub mod backoff;
pub mod bounce;
pub mod classify;
pub mod fallback;
pub mod pause;
pub mod report;
pub mod rules;
pub mod settle;
#[cfg(test)]
mod settle_tests;
#[cfg(test)]
mod testing;
mod verdict;

pub use classify::{Action, Class, Finding, Refusal, classify, classify_error};
pub use pause::{Cause, Change, Health, Pause};
pub use report::{Report, ReportKind};
pub use rules::{Rules, RulesError};
pub use settle::{Policy, Released, Settlement, Suspicion, Trouble, settle};
pub use verdict::classify_again;
