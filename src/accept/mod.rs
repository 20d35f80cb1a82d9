//! (accept)
