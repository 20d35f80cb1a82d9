//! (spool)
