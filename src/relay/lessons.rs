//! What dealing with a relay has taught: for some minutes which addresses only cost time,
//! for an hour what its servers offer, and until the next reload that it does not know what
//! it offers.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::RelayError;
use super::connect::Connection;
use crate::mail::Stage;
use crate::smtp::Extensions;

/// An address that was silent is tried last for this long.
const REMEMBERED: Duration = Duration::from_secs(300);
/// One that says no at once costs nothing: only waiting is worth remembering.
const COSTLY: Duration = Duration::from_secs(5);
/// What a server offered counts for this long: no message ends for what it lacked before.
const OFFER_REMEMBERED: Duration = Duration::from_secs(3600);
/// Addresses that are remembered at most.
const PLACES_MAXIMUM: usize = 1_000;

/// What was learned; everything in it may be forgotten at any time.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    silent: Mutex<HashMap<String, Instant>>,
    without_chunking: Mutex<HashSet<String>>,
    /// By relay and name, what was offered last in an EHLO that was taken.
    offers: Mutex<HashMap<(String, String), (Extensions, Instant)>>,
}

impl Lessons {
    /// Whether trying this place cost much time lately, for nothing.
    pub(super) fn costs_time(&self, place: &str) -> bool {
        let silent = lock(&self.silent);
        silent
            .get(place)
            .is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    /// Trying this place, since then, came to an error.
    pub(super) fn met(&self, place: &str, began: Instant, error: &RelayError) {
        if began.elapsed() < COSTLY || error.stage() >= Stage::Auth {
            return;
        }
        let mut silent = lock(&self.silent);
        silent.retain(|_, since| since.elapsed() < REMEMBERED);
        if silent.len() < PLACES_MAXIMUM {
            silent.insert(place.to_owned(), Instant::now());
        }
    }

    /// This relay offers CHUNKING and does not know BDAT.
    pub(super) fn no_chunking(&self, relay: &str) {
        lock(&self.without_chunking).insert(relay.to_owned());
    }

    /// Takes from a connection's offers what is known not to be true.
    pub(super) fn apply(&self, connection: &mut Connection) {
        if lock(&self.without_chunking).contains(&connection.target.relay.name) {
            connection.offered.chunking = false;
        }
    }

    /// A server of this relay offers this.
    pub(super) fn offers(&self, relay: &str, name: &str, offered: &Extensions) {
        let mut offers = lock(&self.offers);
        if offers.len() >= PLACES_MAXIMUM {
            offers.clear();
        }
        let key = (relay.to_owned(), name.to_owned());
        offers.insert(key, (offered.clone(), Instant::now()));
    }

    /// What a server of this relay offered, if it was asked lately.
    pub(super) fn offered(&self, relay: &str, name: &str) -> Option<Extensions> {
        let key = (relay.to_owned(), name.to_owned());
        let offers = lock(&self.offers);
        let (offered, at) = offers.get(&key)?;
        (at.elapsed() < OFFER_REMEMBERED).then(|| offered.clone())
    }

    /// The configuration or the network may have changed.
    pub(super) fn forget(&self) {
        lock(&self.silent).clear();
        lock(&self.without_chunking).clear();
        lock(&self.offers).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
