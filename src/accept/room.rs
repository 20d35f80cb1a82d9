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
    /// Whether the spool has room. It keeps its reserve by itself, so a stale answer only
    /// costs the client its content.
    pub fn ask(&self, spool: &Spool) -> bool {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|it| now.duration_since(it) > AGE) {
            *asked = Some(now);
            self.full
                .store(spool.check_room().is_err(), Ordering::Relaxed);
        }
        !self.full.load(Ordering::Relaxed)
    }
}
