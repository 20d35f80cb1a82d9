//! Whether the spool has room, asked at most once a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::spool::Spool;

/// How old the answer may be.
const AGE: Duration = Duration::from_secs(1);

/// The last answer of the spool.
#[derive(Debug, Default)]
pub struct Room {
    full: AtomicBool,
    asked: Mutex<Option<Instant>>,
}

impl Room {
    /// Whether the spool has room; it keeps its reserve by itself, so a stale answer
    /// only costs the client the content.
    pub async fn ask(&self, spool: &Spool) -> bool {
        let now = Instant::now();
        let is_stale = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let is_stale = asked.is_none_or(|it| now.duration_since(it) > AGE);
            if is_stale {
                *asked = Some(now);
            }
            is_stale
        };
        if is_stale {
            let status = spool.status().await;
            self.full
                .store(status.free_bytes < status.reserve_bytes, Ordering::Relaxed);
        }
        !self.full.load(Ordering::Relaxed)
    }
}
