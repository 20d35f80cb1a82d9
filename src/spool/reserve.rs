//! Room that new mail leaves free, for what happens to mail that is here already.

use std::sync::{Arc, Mutex, PoisonError};

use super::durable::Room;
use super::error::SpoolError;

/// Room that new mail may not use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reserve {
    /// Percent of the file system.
    Percent(f64),
    /// Octets.
    Bytes(u64),
}

/// The reserve that holds now; clones share it. A reload changes it while mail comes in.
#[derive(Debug, Clone)]
pub(super) struct CurrentReserve(Arc<Mutex<Reserve>>);

impl CurrentReserve {
    pub(super) fn new(reserve: Reserve) -> Self {
        Self(Arc::new(Mutex::new(reserve)))
    }

    pub(super) fn get(&self) -> Reserve {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, reserve: Reserve) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reserve;
    }
}

impl Room {
    /// Whether the reserve is untouched.
    pub(super) fn check(self, reserve: Reserve) -> Result<(), SpoolError> {
        let reserve_bytes = reserve.bytes(self.total_bytes);
        if self.free_bytes < reserve_bytes {
            return Err(SpoolError::Full {
                free_bytes: self.free_bytes,
                reserve_bytes,
            });
        }
        Ok(())
    }
}

impl Reserve {
    pub(super) fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            // A fraction of an octet does not matter.
            Self::Percent(percent) => (total as f64 * percent / 100.0) as u64,
        }
    }
}
