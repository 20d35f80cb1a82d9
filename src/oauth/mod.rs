//! Access tokens for relays that take no password (RFC 6749, RFC 8628).
//!
//! [`Tokens`] has an access token for every relay that wants one: in memory only, renewed
//! before it ends, asked for once however many want it. What it is asked with, the
//! refresh token of a person's [login](device), lies in the spool's folder, and a new one
//! is on the disk before it counts. A relay's mail waits while there is no token; what
//! the endpoint says and what to do about it is in [`TokenError`].

mod account;
pub mod answer;
mod ask;
mod device;
mod kept;
mod tokens;
mod trouble;
mod web;

pub use account::AccessToken;
pub use device::Prompt;
pub use tokens::{Granted, Keeper, Standing, Tokens};
pub use trouble::TokenError;
pub use web::Said;
