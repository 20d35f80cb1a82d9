//! Connections kept for the next message: per relay, servers, credentials and TLS.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::{Connection, Dialer, Target, Unconnected};
use super::dialogue::{After, Stale, transact};
use super::notes::failed;
use super::transcript::Transcript;
use super::{Attempt, Delivery, Job, RelayError};
use crate::clock::Clock;
use crate::config::Relay;
use crate::dns::Dns;
use crate::oauth::Tokens;

/// A connection without work is kept this long: servers close theirs after minutes, and
/// a batch has no longer gaps.
const IDLE_MAXIMUM: Duration = Duration::from_secs(10);
/// One that took so long to make that the turn it was made for had passed is kept until
/// the next turn: as long as servers must wait for a client (RFC 5321 section 4.5.3.2.7).
const UNUSED_MAXIMUM: Duration = Duration::from_secs(300);
/// A connection is used this long at most, so that changed DNS is noticed.
const AGE_MAXIMUM: Duration = Duration::from_secs(600);
/// And one to a fallback server this long, so that the first is found again: at once, or
/// when its silence is forgotten.
const FALLBACK_AGE_MAXIMUM: Duration = Duration::from_secs(60);
/// How long a server may take to answer QUIT.
const QUIT_MAXIMUM: Duration = Duration::from_secs(2);

/// Delivers to relays; cloned freely.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    dialer: Dialer,
    clock: Clock,
    relays: Mutex<HashMap<String, Shelf>>,
    farewells: Mutex<JoinSet<()>>,
}

/// The connections of one relay.
#[derive(Default)]
struct Shelf {
    /// Given out, being made, or saying goodbye.
    busy: u32,
    /// Each with the time until which it is kept.
    idle: Vec<(Connection, Instant)>,
    freed: Arc<Notify>,
}

/// The right to one connection of a relay; gives it back when dropped.
pub(super) struct Slot {
    shared: Arc<Shared>,
    relay: String,
}

impl Pool {
    /// A pool without connections.
    pub fn new(dns: Arc<dyn Dns>, clock: Clock, tokens: Tokens) -> Self {
        Self(Arc::new(Shared {
            dialer: Dialer::new(dns, tokens),
            clock,
            relays: Mutex::default(),
            farewells: Mutex::default(),
        }))
    }

    /// Sends one message, and says what became of every recipient of the job.
    ///
    /// Opens no more connections to a relay than its `connections` allow; waits for one
    /// to become free. Dropping the future closes the connection that it used.
    pub async fn deliver(&self, job: &Job) -> Delivery {
        self.run(job, None).await.0
    }

    /// The same on a connection of its own, with all that was said.
    pub async fn deliver_recorded(&self, job: &Job) -> (Delivery, Transcript) {
        let (delivery, transcript) = self.run(job, Some(Transcript::default())).await;
        (delivery, transcript.unwrap_or_default())
    }

    async fn run(&self, job: &Job, record: Option<Transcript>) -> (Delivery, Option<Transcript>) {
        let started = Instant::now();
        let clock = &self.0.clock;
        let target = Target {
            relay: Arc::clone(&job.relay),
            timeouts: job.timeouts,
            hostname: job.hostname.clone(),
        };
        let fail = |error: &RelayError, server: &str| failed(job, clock, started, server, error);
        let recorded = record.is_some();
        let ready = self.acquire(&target, Some(recorded));
        let (slot, kept) = tokio::select! {
            biased;
            () = job.cancel.cancelled() => return (fail(&RelayError::Cancelled, ""), record),
            () = job.too_late(clock) => return (fail(&RelayError::Cancelled, ""), record),
            ready = ready => ready,
        };
        let (kept, full) = match kept {
            Some(connection) if !connection.has_room_for(job) => (None, Some(connection)),
            kept => (kept, None),
        };
        if let Some(full) = full {
            full.wire.quit(QUIT_MAXIMUM).await;
        }
        if let Some(mut connection) = kept {
            self.0.dialer.lessons.apply(&mut connection);
            match transact(&mut connection, job, clock, started).await {
                Ok((delivery, after)) => {
                    return self.over(slot, connection, delivery, after, recorded).await;
                }
                // Told from the beginning, once, on a new connection.
                Err(Stale) => drop(connection),
            }
        }
        let dial = self.0.dialer.connect(&target, record);
        let dialled = tokio::select! {
            biased;
            () = job.cancel.cancelled() => return (fail(&RelayError::Cancelled, ""), None),
            dialled = dial => dialled,
        };
        let mut connection = match dialled {
            Ok(connection) => connection,
            Err(Unconnected {
                error,
                server,
                transcript,
            }) => return (fail(&error, &server), transcript),
        };
        match transact(&mut connection, job, clock, started).await {
            Ok((delivery, after)) => self.over(slot, connection, delivery, after, recorded).await,
            // Only a used connection can be stale.
            Err(Stale) => {
                let error = RelayError::Closed {
                    stage: crate::mail::Stage::Mail,
                    detail: "closed by the server".to_owned(),
                };
                (fail(&error, &connection.server), None)
            }
        }
    }

    /// What becomes of a connection after a job, and what was said on it.
    async fn over(
        &self,
        slot: Slot,
        mut connection: Connection,
        delivery: Delivery,
        after: After,
        recorded: bool,
    ) -> (Delivery, Option<Transcript>) {
        let is_lesson = |it: &Attempt| matches!(it.result, Err(RelayError::Chunking { .. }));
        if delivery.attempts.iter().any(is_lesson) {
            self.0
                .dialer
                .lessons
                .no_chunking(&connection.target.relay.name);
        }
        let is_unused = connection.transactions == 0 && delivery.is_unstarted();
        match after {
            After::Broken => (delivery, connection.wire.take_transcript()),
            After::Usable if recorded && !is_unused => {
                (delivery, connection.wire.quit(QUIT_MAXIMUM).await)
            }
            After::Usable => {
                let keep = if is_unused {
                    UNUSED_MAXIMUM
                } else {
                    IDLE_MAXIMUM
                };
                self.finish(slot, connection, keep);
                (delivery, None)
            }
        }
    }

    /// Closes connections that have been without work for too long. To be called every
    /// few seconds.
    pub fn tidy(&self) {
        let mut old = Vec::new();
        for shelf in self.0.shelves().values_mut() {
            let keep = std::mem::take(&mut shelf.idle);
            let (expired, kept): (Vec<_>, Vec<_>) = keep
                .into_iter()
                .partition(|(_, until)| *until <= Instant::now());
            shelf.idle = kept;
            shelf.busy += expired.len() as u32;
            old.extend(expired);
        }
        for (connection, _) in old {
            let slot = self.slot(&connection.target.relay.name);
            self.say_goodbye(slot, connection);
        }
    }

    /// Open connections to a relay, those without work included.
    pub fn connections(&self, relay: &str) -> u32 {
        let shelves = self.0.shelves();
        shelves
            .get(relay)
            .map_or(0, |it| it.busy + it.idle.len() as u32)
    }

    /// After a reload: certificates are read anew, and connections without work closed.
    pub fn reloaded(&self) {
        self.0.dialer.forget();
        self.close_idle();
    }

    /// Says goodbye to every server, and waits until that is done, for seconds at most.
    pub async fn close(&self) {
        self.close_idle();
        let mut farewells = std::mem::take(&mut *self.0.farewells());
        while farewells.join_next().await.is_some() {}
    }

    fn close_idle(&self) {
        let mut all = Vec::new();
        for shelf in self.0.shelves().values_mut() {
            shelf.busy += shelf.idle.len() as u32;
            all.append(&mut shelf.idle);
        }
        for (connection, _) in all {
            let slot = self.slot(&connection.target.relay.name);
            self.say_goodbye(slot, connection);
        }
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.0.dialer
    }

    /// A slot that was counted already.
    fn slot(&self, relay: &str) -> Slot {
        Slot {
            shared: Arc::clone(&self.0),
            relay: relay.to_owned(),
        }
    }

    /// Waits for the right to a new connection.
    pub(super) async fn acquire_fresh(&self, target: &Target) -> Slot {
        self.acquire(target, None).await.0
    }

    /// Waits for the right to a connection; with it comes one that is kept, if one fits
    /// and it may be such a one (`recorded`, or not).
    async fn acquire(&self, target: &Target, recorded: Option<bool>) -> (Slot, Option<Connection>) {
        self.tidy();
        loop {
            match self.try_acquire(target, recorded) {
                Ok((slot, kept, excess)) => {
                    for connection in excess {
                        connection.wire.quit(QUIT_MAXIMUM).await;
                    }
                    return (slot, kept);
                }
                Err(freed) => freed.notified().await,
            }
        }
    }

    /// A slot, a kept connection, and those without work that have to go so that there are
    /// not too many; or what to wait for.
    fn try_acquire(
        &self,
        target: &Target,
        recorded: Option<bool>,
    ) -> Result<(Slot, Option<Connection>, Vec<Connection>), Arc<Notify>> {
        let name = &target.relay.name;
        let limit = target.relay.limits.connections.max(1);
        let mut shelves = self.0.shelves();
        let shelf = shelves.entry(name.clone()).or_default();
        if shelf.busy >= limit {
            return Err(Arc::clone(&shelf.freed));
        }
        shelf.busy += 1;
        let kept = recorded.and_then(|recorded| shelf.take(target, recorded));
        let open = shelf.busy as usize + shelf.idle.len();
        let excess = open.saturating_sub(limit as usize).min(shelf.idle.len());
        let evicted = shelf.idle.drain(..excess).map(|(it, _)| it).collect();
        Ok((self.slot(name), kept, evicted))
    }

    /// Puts a connection back for so long, or ends it.
    fn finish(&self, slot: Slot, connection: Connection, keep: Duration) {
        if connection.is_used_up() {
            self.say_goodbye(slot, connection);
            return;
        }
        let mut shelves = self.0.shelves();
        if let Some(shelf) = shelves.get_mut(&slot.relay) {
            shelf.idle.push((connection, Instant::now() + keep));
        }
        // The slot is dropped behind the lock: only then may another take the connection.
        drop(shelves);
        drop(slot);
    }

    fn say_goodbye(&self, slot: Slot, connection: Connection) {
        let mut farewells = self.0.farewells();
        while farewells.try_join_next().is_some() {}
        farewells.spawn(async move {
            connection.wire.quit(QUIT_MAXIMUM).await;
            drop(slot);
        });
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Shared {
    fn shelves(&self) -> MutexGuard<'_, HashMap<String, Shelf>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn farewells(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.farewells
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// The connection that was used last: the others may then grow old and go.
    ///
    /// What is to be recorded is told from the beginning, so it takes only a connection on
    /// which nothing but that was said, and which nothing else may take.
    fn take(&mut self, target: &Target, recorded: bool) -> Option<Connection> {
        let fits = |(connection, until): &(Connection, Instant)| {
            Instant::now() < *until
                && connection.wire.is_recorded() == recorded
                && connection.fits(target)
        };
        let place = self.idle.iter().rposition(fits)?;
        let (mut connection, _) = self.idle.remove(place);
        connection.target = target.clone();
        // One that was never used may be stale all the same.
        connection.is_reused = true;
        Some(connection)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shelf) = self.shared.shelves().get_mut(&self.relay) {
            shelf.busy = shelf.busy.saturating_sub(1);
            shelf.freed.notify_one();
        }
    }
}

impl Connection {
    /// Whether it was made as this target would make it: never with another's
    /// credentials, never with less TLS.
    fn fits(&self, target: &Target) -> bool {
        let (ours, theirs): (&Relay, &Relay) = (&self.target.relay, &target.relay);
        ours.name == theirs.name
            && ours.servers == theirs.servers
            && ours.credentials == theirs.credentials
            && ours.auth == theirs.auth
            && ours.certificates == theirs.certificates
            && self.target.hostname == target.hostname
    }

    /// Whether one more message, to these domains, may go over it (RFC 9422).
    fn has_room_for(&self, job: &Job) -> bool {
        let Some(limit) = self.offered.limits.recipient_domains else {
            return true;
        };
        let domains = job.recipients.iter().filter_map(|it| {
            let path = &job.envelope.recipients.get(*it)?.path;
            Some(path.mailbox()?.domain().ascii())
        });
        let new: std::collections::BTreeSet<_> =
            domains.filter(|it| !self.domains.contains(*it)).collect();
        self.domains.len() + new.len() <= limit as usize
    }

    /// Whether it may carry no further message.
    fn is_used_up(&self) -> bool {
        let age = if self.is_fallback {
            FALLBACK_AGE_MAXIMUM
        } else {
            AGE_MAXIMUM
        };
        let limits = [
            self.target.relay.limits.messages_per_connection,
            self.offered.limits.mail,
        ];
        self.opened.elapsed() >= age
            || limits
                .into_iter()
                .flatten()
                .any(|it| self.transactions >= it)
    }
}
