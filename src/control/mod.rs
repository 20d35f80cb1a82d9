//! The control socket: how `penstock` asks `penstockd`.
//!
//! [`protocol`] is what is said: newline-delimited JSON over a Unix socket. A connection
//! carries a greeting, one request, streamed items, and `done` or `error`; it can be
//! held by hand with `nc -U`. [`server`] and [`client`] move it; they know nothing of
//! queues and relays: the daemon answers, behind a channel of [`Responder`]s.
//! [`describe`] puts the words of mail into those of the protocol, for the daemon and for
//! the verbs that work without it.

pub mod client;
mod crowd;
pub mod describe;
mod peer;
pub mod protocol;
mod responder;
pub mod server;
pub mod submission;
pub mod trace;

use std::path::{Path, PathBuf};

pub use peer::Peer;
pub use responder::{Gone, Responder};

/// The socket's name in whichever directory it stands.
const SOCKET_NAME: &str = "control.sock";

/// Where systemd makes the daemon's run directory.
const RUN_DIRECTORY: &str = "/run/penstock";

/// Where the daemon listens: in the run directory systemd made for it
/// (`RuntimeDirectory=`), else in its state directory.
pub fn listening_path(state_directory: &Path) -> PathBuf {
    match std::env::var_os("RUNTIME_DIRECTORY") {
        // Several are separated by colons; ours is written first.
        Some(run) if !run.is_empty() => {
            let run = run.to_string_lossy();
            Path::new(run.split(':').next().unwrap_or(RUN_DIRECTORY)).join(SOCKET_NAME)
        }
        _ => state_directory.join(SOCKET_NAME),
    }
}

/// Where the daemon of a state directory may listen, the likeliest first.
pub fn candidate_paths(state_directory: &Path) -> [PathBuf; 2] {
    [
        Path::new(RUN_DIRECTORY).join(SOCKET_NAME),
        state_directory.join(SOCKET_NAME),
    ]
}
