//! (outcome)
