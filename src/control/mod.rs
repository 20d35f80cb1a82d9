//! The control socket: how `penstock` asks `penstockd`.
//!
//! [`protocol`] is what is said: newline-delimited JSON over a Unix socket. A connection
//! carries a greeting, one request, streamed items, and `done` or `error`; it can be
//! held by hand with `nc -U`. This module moves requests and answers; it knows nothing
//! of queues and relays, and the daemon behind the channel answers.

pub mod protocol;
