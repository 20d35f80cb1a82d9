//! The committer: many writers, one log.
//!
//! Whoever wants something written leaves it in a queue. The first to find nobody at
//! work becomes the committer: on a blocking thread it takes all that waits as one
//! group, writes it in one go, syncs once, answers everybody, brings the index up to
//! date, and goes on until the queue is empty. While the disk syncs one group the next
//! one gathers.
//!
//! There is no committing thread that waits: disk work happens only inside
//! `spawn_blocking`, and a test's stopped clock stands still as long as it does.

mod closing;
mod commit;
mod walker;
mod write;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::SpoolOptions;
use super::content::Buffers;
use super::damage::report_damage;
use super::durable::{Lock, Store};
use super::error::SpoolError;
use super::head::Head;
use super::history::History;
use super::index::{Consequences, Index, IndexError};
use super::known::{Known, Ledger};
use super::library::Library;
use super::rebuild::Afterwards;
use super::record::Position;
use super::reserve::CurrentReserve;
use super::scan::Scan;
use crate::clock::Clock;
use crate::mail::QueueId;
use crate::measure::Histogram;
use commit::Queue;
use walker::Walker;
pub use write::{Urgency, Write};

/// Everything that is shared by the clones of a [`Spool`](super::Spool).
pub struct Engine {
    pub options: SpoolOptions,
    pub clock: Clock,
    /// How long commits took.
    pub commits: Histogram,
    pub runtime: tokio::runtime::Handle,
    /// For long looks into the index.
    pub walker: Walker,
    pub store: Arc<Store>,
    pub library: Library,
    pub buffers: Arc<Buffers>,
    pub reserve: CurrentReserve,
    pub ids: Mutex<QueueId>,
    pub history: Mutex<History>,
    pub damage: Mutex<HashSet<Position>>,
    /// What is left to do once an index is complete.
    pub afterwards: Mutex<Afterwards>,
    pub compacting: AtomicBool,
    /// Held while files are removed outside the committer.
    removing: Mutex<()>,
    /// Not before this uptime: the last compaction failed.
    pub compact_again: Mutex<Duration>,
    /// Octets read and to be read by a rebuild.
    pub rebuilt: (AtomicU64, AtomicU64),
    pub progress: watch::Sender<Progress>,
    pub fatal: watch::Sender<Option<SpoolError>>,
    queue: Mutex<Queue>,
    log: Mutex<Log>,
    index: Mutex<Option<Arc<Index>>>,
    /// An index that is still being brought up to the log: for partial counts.
    growing: Mutex<Option<Arc<Index>>>,
    /// The last ledger that was handed over, until the next checkpoint takes it.
    ledger: Mutex<Option<Ledger>>,
    /// Up to where the log is durable.
    durable: Mutex<Position>,
    /// Groups written.
    groups: AtomicU64,
    failing: Mutex<Option<String>>,
    lock: Mutex<Option<Lock>>,
}

/// How far the index is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Groups that are in the index.
    pub groups: u64,
    /// Whether it is complete.
    pub complete: bool,
    /// The spool was closed.
    pub closed: bool,
}

/// The log, as the committer holds it.
#[derive(Debug)]
pub struct Log {
    pub head: Head,
    known: Known,
    /// Grants up to this one are of earlier processes.
    earlier_grants: u64,
    /// Whether the index follows group by group; if not, a rebuild reads the log.
    pub live: bool,
    pub closed: bool,
    /// Messages written to while a compaction prepares to move some.
    pub touched: Option<HashSet<u64>>,
}

/// What an engine is made of.
pub struct Parts {
    pub options: SpoolOptions,
    pub clock: Clock,
    pub store: Arc<Store>,
    pub lock: Lock,
    pub library: Library,
    pub head: Head,
    pub known: Known,
    pub damage: HashSet<Position>,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these was held is answered by ending the process (the
    // committer) or by a rebuild (the index); until then the state is as good as it was.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    pub fn new(parts: Parts) -> Arc<Self> {
        let durable = parts.head.position();
        Arc::new(Self {
            buffers: Buffers::new(parts.options.buffer_bytes),
            reserve: CurrentReserve::new(parts.options.min_free),
            runtime: tokio::runtime::Handle::current(),
            walker: Walker::default(),
            ids: Mutex::new(QueueId::from_number(parts.known.last_id)),
            history: Mutex::new(History::new(parts.store.clone())),
            damage: Mutex::new(parts.damage),
            afterwards: Mutex::default(),
            compacting: AtomicBool::new(false),
            removing: Mutex::default(),
            compact_again: Mutex::default(),
            rebuilt: (AtomicU64::new(0), AtomicU64::new(0)),
            progress: watch::Sender::new(Progress::default()),
            fatal: watch::Sender::new(None),
            queue: Mutex::default(),
            log: Mutex::new(Log {
                earlier_grants: parts.known.last_grant,
                head: parts.head,
                known: parts.known,
                live: false,
                closed: false,
                touched: None,
            }),
            index: Mutex::new(None),
            growing: Mutex::new(None),
            ledger: Mutex::new(None),
            durable: Mutex::new(durable),
            groups: AtomicU64::new(0),
            failing: Mutex::new(None),
            options: parts.options,
            clock: parts.clock,
            commits: Histogram::default(),
            store: parts.store,
            library: parts.library,
            lock: Mutex::new(Some(parts.lock)),
        })
    }

    /// Ends every promise: from here on each write fails, and the daemon has to exit.
    pub fn die(&self, error: SpoolError) {
        tracing::error!(%error, "the spool cannot keep its promises any more");
        self.fatal.send_if_modified(|it| {
            let first = it.is_none();
            if first {
                *it = Some(error);
            }
            first
        });
    }

    /// Does what finished messages entail, once their records are durable.
    pub fn carry_out(&self, consequences: &Consequences) {
        if !consequences.finished.is_empty() {
            let written = lock(&self.history).append(&consequences.finished, self.clock.now());
            if let Err(error) = written {
                tracing::warn!(%error, "cannot write the history");
            }
        }
        for name in &consequences.unneeded {
            if let Err(error) = self.store.remove_large(name) {
                tracing::warn!(%error, "cannot remove a content that is no longer needed");
            }
        }
    }

    /// Has a new index read from the log, because this one could not answer.
    pub fn doubt_index(self: &Arc<Self>, index: &Arc<Index>, error: &str) {
        let mut log = self.log();
        // Somebody else may have met the same.
        if log.live && self.index().is_some_and(|it| Arc::ptr_eq(&it, index)) {
            self.index_failed(&mut log, &IndexError(error.to_owned()));
        }
    }

    /// Drops an index that failed, and has a new one read from the log.
    fn index_failed(self: &Arc<Self>, log: &mut Log, error: &IndexError) {
        tracing::warn!(%error, "the index failed and is rebuilt from the log");
        log.live = false;
        *lock(&self.index) = None;
        self.progress.send_modify(|it| it.complete = false);
        let engine = self.clone();
        self.runtime.spawn_blocking(move || engine.rebuild());
    }

    /// The log; waits for the group that is being written.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// The index, if there is one just now.
    pub fn index(&self) -> Option<Arc<Index>> {
        lock(&self.index).clone()
    }

    /// Puts a new index in place, or none.
    pub fn set_index(&self, index: Option<Arc<Index>>) -> Option<Arc<Index>> {
        std::mem::replace(&mut *lock(&self.index), index)
    }

    /// The index, or what there is of it while it is read from the log.
    pub fn index_so_far(&self) -> Option<Arc<Index>> {
        self.index().or_else(|| lock(&self.growing).clone())
    }

    /// Shows an index that is being brought up to the log, or none any more.
    pub fn set_growing(&self, index: Option<Arc<Index>>) {
        *lock(&self.growing) = index;
    }

    /// Whether the index has all of the log.
    pub fn is_complete(&self) -> bool {
        self.progress.borrow().complete
    }

    /// The log up to here is durable.
    pub fn durable(&self) -> Position {
        *lock(&self.durable)
    }

    /// Groups written so far.
    pub fn groups(&self) -> u64 {
        self.groups.load(Ordering::Acquire)
    }

    /// Why the last write failed.
    pub fn failing(&self) -> Option<String> {
        lock(&self.failing).clone()
    }

    /// Takes a ledger for the next checkpoint.
    pub fn keep_ledger(&self, octets: Vec<u8>) {
        // Records before this place were asked for before the ledger was encoded.
        let from = self.durable();
        *lock(&self.ledger) = Some(Ledger { octets, from });
    }

    /// Whether any record was found damaged since the log was opened.
    pub fn has_damage(&self) -> bool {
        !lock(&self.damage).is_empty()
    }

    /// Up to where records may be missing from the ledger that the head's checkpoint has:
    /// segments from this one on are what it is brought up with after a kill.
    pub fn ledger_needs(&self) -> Option<u64> {
        let log = self.log();
        log.known.ledger.as_ref().map(|it| it.from.segment)
    }

    /// Whether a ledger waits for the next checkpoint that needs nothing up to a segment.
    pub fn has_later_ledger(&self, segment: u64) -> bool {
        let ledger = lock(&self.ledger);
        ledger.as_ref().is_some_and(|it| it.from.segment > segment)
    }

    /// Notes damage, keeps a copy and says so, once for each place. Whoever is about to
    /// remove the original must not when this fails.
    pub fn damaged(&self, scan: &Scan, offset: u64, length: u64) -> Result<(), SpoolError> {
        let segment = scan.name.number;
        let is_new = lock(&self.damage).insert(Position { segment, offset });
        if is_new {
            return report_damage(&self.store, scan, offset, length);
        }
        // The copy may have failed before.
        let store = &self.store;
        store
            .save_corrupt(scan.name, &scan.file, offset, length)
            .map(drop)
    }
}
