//! (relay)

pub mod attempt;

pub use attempt::{Attempt, Delivery, RelayError, Severity};
