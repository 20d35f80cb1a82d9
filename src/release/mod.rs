//! (release)
