//! What a settlement rests on besides the delivery itself.

use crate::config::Retry;

use super::pause::Health;
use super::rules::Rules;

/// What the judgement rests on besides the delivery itself.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// When to try again and when to give up.
    pub retry: &'a Retry,
    /// What refusals mean.
    pub rules: &'a Rules,
    /// The relay's pauses: waiting for them does not count for the expiry.
    pub health: &'a Health,
}
