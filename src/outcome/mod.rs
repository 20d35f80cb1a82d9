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
mod doubt;
pub mod fallback;
mod finding;
mod lost;
mod no_reply;
pub mod pause;
#[cfg(test)]
mod pause_tests;
mod policy;
pub mod report;
pub mod rules;
pub mod settle;
#[cfg(test)]
mod settle_tests;
mod settlement;
mod spells;
#[cfg(test)]
mod testing;
mod turns;
#[cfg(test)]
mod turns_tests;
mod verdict;

pub use classify::{classify, classify_error};
pub use finding::{Action, Class, Finding, Refusal};
pub use lost::lost;
pub use pause::{Cause, Change, Health, Pause};
pub use policy::Policy;
pub use report::{Report, ReportKind};
pub use rules::{Rules, RulesError};
pub use settle::settle;
pub use settlement::{Released, Settlement, Suspicion, Trouble};
pub use turns::in_turn;
pub use verdict::classify_again;
