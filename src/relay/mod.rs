//! Handing messages to upstream relays.
//!
//! [`Pool::deliver`] takes a [`Job`] (one message, one relay, some recipients) and says
//! what became of every recipient. It does not know the spool, limits or retries; what a
//! refusal means is for [`outcome`](crate::outcome).

pub mod attempt;
mod auth;
mod connect;
mod content;
mod dialogue;
mod elsewhere;
#[cfg(test)]
mod fake;
mod find;
pub mod job;
mod lessons;
mod notes;
mod plan;
mod pool;
mod secure;
mod test;
#[cfg(test)]
mod tests;
mod transcript;
mod wire;

pub use attempt::{Attempt, Delivery, RelayError, Severity};
pub use auth::Mechanism;
pub use job::{BeforeDot, Blocks, Boxed, Content, Job};
pub use pool::Pool;
pub use secure::TlsFacts;
pub use test::TestReport;
pub use transcript::{Said, Transcript};
