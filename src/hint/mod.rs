//! (hint)
