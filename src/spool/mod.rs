//! The spool: accepted mail on the disk.
//!
//! A log is the truth, an index in sled answers questions, and everything that was
//! answered with 250 is found again after a crash at any moment.
//!
//! # The legal states of a message
//!
//! ```text
//! commit ──► waiting ◄──────────────────┐
//!            │  ▲                       │ settle: recipients are left
//!            │  │ change                │ unlease: given back
//!            ▼  │                       │
//!           held         lease ──► leased ──► final dot ──► (crash: in doubt, waiting)
//!            │                          │         │
//!            │ change: deleted, failed  │ settle: every recipient settled
//!            ▼                          ▼         ▼
//!           finished: out of the spool, in the history
//! ```
//!
//! The spool knows neither half: who accepts and who delivers are its callers. It does
//! not decide what an outcome means; it keeps what it is told.

#![allow(dead_code, reason = "the log that uses the rest follows")]

mod change;
mod content;
mod durable;
mod error;
mod query;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::clock::Clock;
use crate::mail::{Envelope, QueueId, State};

pub use change::{Change, Lease, Leased, LedgerEvent, Recovered, Released, Settled};
pub use content::{Content, ContentReader, ContentWriter};
pub use error::SpoolError;
pub use query::{
    Filter, Finished, Lookup, Page, Rebuilding, RelayCounts, SpoolStatus, StateFilter,
};
pub use waiting::{Amount, FlowKey, FlowSummary, Waiting};

/// How a spool is opened.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// The state directory.
    pub path: PathBuf,
    /// New mail is refused when less than this is free.
    pub min_free: Reserve,
    /// A segment of the log is closed when it has grown to this.
    pub segment_bytes: u64,
    /// A content beyond this goes to a file of its own.
    pub large_bytes: u64,
    /// Memory for all contents that are being received.
    pub buffer_bytes: u64,
    /// Memory for the index's cache.
    pub index_cache_bytes: u64,
}

impl SpoolOptions {
    /// The usual settings.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            min_free: Reserve::Percent(5.0),
            segment_bytes: 64 << 20,
            large_bytes: 256 << 10,
            buffer_bytes: 32_000_000,
            index_cache_bytes: 16 << 20,
        }
    }
}

/// Room that new mail may not use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reserve {
    /// Percent of the file system.
    Percent(f64),
    /// Octets.
    Bytes(u64),
}

/// Accepted mail on the disk; cloned freely.
#[derive(Clone)]
pub struct Spool(Arc<Inner>);

struct Inner {
    store: Arc<durable::Store>,
    _lock: durable::Lock,
    buffers: Arc<content::Buffers>,
    options: SpoolOptions,
    runtime: tokio::runtime::Handle,
    clock: Clock,
    last_id: Mutex<QueueId>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    messages: BTreeMap<QueueId, (Envelope, Vec<u8>)>,
    flows: HashMap<FlowKey, (String, Vec<Timestamp>)>,
    history: Vec<Finished>,
}

impl Spool {
    /// Opens the spool, or makes one. Blocks; needs a tokio runtime around it.
    pub fn open(options: SpoolOptions, clock: Clock) -> Result<(Self, Recovered), SpoolError> {
        let (store, lock) = durable::Store::open(&options.path)?;
        let inner = Inner {
            store: Arc::new(store),
            _lock: lock,
            buffers: content::Buffers::new(options.buffer_bytes),
            options,
            runtime: tokio::runtime::Handle::current(),
            clock,
            last_id: Mutex::new(QueueId::MIN),
            memory: Mutex::default(),
        };
        Ok((Self(Arc::new(inner)), Recovered::default()))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the spool is.
    pub fn path(&self) -> &Path {
        &self.0.options.path
    }

    /// The name for the next message.
    pub fn next_id(&self) -> QueueId {
        let mut last = self
            .0
            .last_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = QueueId::next(*last, self.0.clock.now());
        *last
    }

    /// A place for a content that arrives; `expected` octets if the client said so.
    pub fn new_content(&self, expected: Option<u64>) -> ContentWriter {
        ContentWriter::new(
            self.0.store.clone(),
            self.0.buffers.clone(),
            self.0.runtime.clone(),
            self.0.options.large_bytes,
            expected,
        )
    }

    /// Accepts a message: it is durable when this returns Ok, and nothing of it is kept
    /// when it does not.
    pub async fn commit(&self, envelope: Envelope, content: Content) -> Result<(), SpoolError> {
        self.commit_all(vec![(envelope, content)]).await
    }

    /// Accepts several messages: all or none.
    pub async fn commit_all(&self, messages: Vec<(Envelope, Content)>) -> Result<(), SpoolError> {
        for (envelope, content) in messages {
            let octets = content.peek(0, usize::MAX)?;
            let mut memory = self.memory();
            let flow = memory
                .flows
                .entry(FlowKey::of(&envelope))
                .or_insert_with(|| (envelope.mailing.label.clone(), Vec::new()));
            flow.1.push(envelope.accepted);
            memory.messages.insert(envelope.id, (envelope, octets));
        }
        Ok(())
    }

    /// Writes down what is about to leave: durable before the first MAIL of it.
    pub async fn lease(&self, lease: Lease) -> Result<(), SpoolError> {
        drop(lease);
        Ok(())
    }

    /// Gives back transactions that were leased and did not start.
    pub async fn unlease(&self, grants: Vec<u64>) -> Result<(), SpoolError> {
        drop(grants);
        Ok(())
    }

    /// Writes down that the final dot is about to be sent for these recipients (their
    /// places in the envelope). Written when this returns, durable soon after.
    pub async fn final_dot(&self, id: QueueId, recipients: Vec<usize>) -> Result<(), SpoolError> {
        let _ = (id, recipients);
        Ok(())
    }

    /// Writes down how a transaction ended. Written when this returns, durable soon after.
    pub async fn settle(&self, settled: Settled) -> Result<(), SpoolError> {
        self.replace(settled.envelope, "penstock".into());
        self.commit_all(settled.reports).await
    }

    /// Changes messages; durable when this returns.
    pub async fn change(&self, changes: Vec<Change>) -> Result<(), SpoolError> {
        for change in changes {
            self.replace(change.envelope, change.by);
            self.commit_all(change.reports).await?;
        }
        Ok(())
    }

    fn replace(&self, envelope: Envelope, by: String) {
        let at = self.0.clock.now();
        let mut memory = self.memory();
        if envelope.is_finished() {
            memory.messages.remove(&envelope.id);
            memory.history.push(Finished { envelope, at, by });
        } else if let Some(entry) = memory.messages.get_mut(&envelope.id) {
            entry.0 = envelope;
        }
    }

    /// Keeps a small value under a kind and a name, durably: a relay's pause, its
    /// verification. None forgets it.
    pub async fn note(
        &self,
        kind: &str,
        name: &str,
        value: Option<serde_json::Value>,
    ) -> Result<(), SpoolError> {
        let _ = (kind, name, value);
        Ok(())
    }

    /// Hands over the present limit ledger, to be stored with the next segment. Call it
    /// from the task that owns the ledger, right after encoding it: every reservation
    /// whose [`lease`](Self::lease) was called before is taken to be in it.
    pub fn checkpoint_ledger(&self, ledger: Vec<u8>) {
        drop(ledger);
    }

    /// The present envelope of a message; none when it is not in the spool.
    pub async fn envelope(&self, id: QueueId) -> Result<Option<Envelope>, SpoolError> {
        Ok(self.memory().messages.get(&id).map(|it| it.0.clone()))
    }

    /// The content of a message; none when it is not in the spool.
    pub async fn content(&self, id: QueueId) -> Result<Option<ContentReader>, SpoolError> {
        let memory = self.memory();
        let found = memory.messages.get(&id);
        Ok(found.map(|it| ContentReader::memory(id, it.1.clone())))
    }

    /// Every flow.
    pub async fn flows(&self) -> Result<Vec<FlowSummary>, SpoolError> {
        let memory = self.memory();
        Ok(memory
            .flows
            .iter()
            .map(|(key, (label, recent))| {
                let mut flow = FlowSummary {
                    key: key.clone(),
                    label: label.clone(),
                    ready: Amount::default(),
                    deferred: Amount::default(),
                    held: Amount::default(),
                    accepted: recent.len() as u64,
                    recent: recent[recent.len().saturating_sub(21)..].to_vec(),
                };
                for (envelope, _) in memory.messages.values() {
                    if FlowKey::of(envelope) == *key {
                        match envelope.state {
                            State::Waiting { not_before: None } => &mut flow.ready,
                            State::Waiting { .. } => &mut flow.deferred,
                            State::Held(_) => &mut flow.held,
                        }
                        .add(amount(envelope));
                    }
                }
                flow
            })
            .collect())
    }

    /// What may leave at once in one flow, in order of acceptance, after a message.
    pub async fn ready(
        &self,
        flow: &FlowKey,
        after: QueueId,
        limit: usize,
    ) -> Result<Vec<Waiting>, SpoolError> {
        let memory = self.memory();
        Ok(memory
            .messages
            .range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
            .filter_map(|it| Waiting::of(&it.1.0))
            .filter(|it| it.flow == *flow && it.not_before.is_none())
            .take(limit)
            .collect())
    }

    /// Messages of a relay whose next attempt is due by then, the earliest first.
    pub async fn retries_due(
        &self,
        relay: &str,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Waiting>, SpoolError> {
        let memory = self.memory();
        let mut due: Vec<Waiting> = memory
            .messages
            .values()
            .filter_map(|it| Waiting::of(&it.0))
            .filter(|it| it.flow.relay == relay && it.not_before.is_some_and(|at| at <= until))
            .collect();
        due.sort_by_key(|it| (it.not_before, it.id));
        due.truncate(limit);
        Ok(due)
    }

    /// When the next attempt of a relay is due, if any waits for one.
    pub async fn next_retry(&self, relay: &str) -> Result<Option<Timestamp>, SpoolError> {
        let due = self.retries_due(relay, Timestamp::MAX, 1).await?;
        Ok(due.first().and_then(|it| it.not_before))
    }

    /// Messages that a filter means, after one, in order of acceptance.
    pub async fn list(
        &self,
        filter: &Filter,
        after: QueueId,
        limit: usize,
    ) -> Result<Page, SpoolError> {
        let memory = self.memory();
        let messages: Vec<Envelope> = memory
            .messages
            .range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
            .map(|it| &it.1.0)
            .filter(|it| filter.matches(it))
            .take(limit)
            .cloned()
            .collect();
        Ok(Page {
            next: (messages.len() == limit)
                .then(|| messages.last().map(|it| it.id))
                .flatten(),
            messages,
        })
    }

    /// Messages in the spool by id, address or Message-ID.
    pub async fn find(&self, lookup: &Lookup, limit: usize) -> Result<Vec<Envelope>, SpoolError> {
        let memory = self.memory();
        Ok(memory
            .messages
            .values()
            .map(|it| &it.0)
            .filter(|it| lookup.matches(it))
            .take(limit)
            .cloned()
            .collect())
    }

    /// Finished messages of the last seven days, the latest last.
    pub async fn history(
        &self,
        lookup: &Lookup,
        limit: usize,
    ) -> Result<Vec<Finished>, SpoolError> {
        let memory = self.memory();
        Ok(memory
            .history
            .iter()
            .filter(|it| lookup.matches(&it.envelope))
            .take(limit)
            .cloned()
            .collect())
    }

    /// How the spool is.
    pub async fn status(&self) -> SpoolStatus {
        SpoolStatus::default()
    }

    /// Waits until nothing that was promised can be kept any more: a sync failed. The
    /// daemon must exit then, and read the log again.
    pub async fn fatal(&self) -> SpoolError {
        std::future::pending().await
    }

    /// Ends it in good order: the next open is quick.
    pub async fn close(self) -> Result<(), SpoolError> {
        Ok(())
    }
}

fn amount(envelope: &Envelope) -> Amount {
    Amount {
        messages: 1,
        recipients: envelope.waiting().count() as u64,
        wire_bytes: envelope.wire_bytes,
    }
}
