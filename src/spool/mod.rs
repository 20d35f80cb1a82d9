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

mod change;
mod compact;
mod content;
mod damage;
mod durable;
mod engine;
mod error;
mod frame;
mod head;
mod history;
mod index;
mod known;
mod library;
mod offline;
#[doc(hidden)]
pub mod probe;
mod query;
mod rebuild;
mod record;
mod recover;
mod reserve;
mod scan;
mod search;
mod secrets;
mod signature;
mod stage;
mod waiting;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;

use crate::clock::Clock;
use crate::mail::{Envelope, HoldReason, QueueId};
use crate::measure::Counted;

use durable::{Lock, Store};
use engine::{Engine, Parts, Urgency, Write};
use index::{Index, Wanted};
use rebuild::{Afterwards, LAST_RECORD, Words, index_error};
use record::{FinalDot, Kind, Note, Record};

pub use change::{Change, Lease, Leased, LedgerEvent, Recovered, Released, Settled};
pub use content::{Content, ContentReader, ContentWriter};
pub use error::SpoolError;
pub use index::RetryPlace;
pub use offline::Offline;
pub use query::{
    Filter, Finished, Lookup, Page, Rebuilding, RelayCounts, SpoolStatus, StateFilter, Unreadable,
};
pub use reserve::Reserve;
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
    /// What the index lacks of the log is read before [`Spool::open`] returns if it is
    /// no more than this, else while mail is accepted already.
    pub at_once_bytes: u64,
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
            at_once_bytes: 16 << 20,
        }
    }
}

/// Accepted mail on the disk; cloned freely.
#[derive(Clone)]
pub struct Spool(Arc<Engine>, Patience);

/// What a question does while the index is read from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// It waits.
    Waits,
    /// It is an error.
    Refuses,
}

impl Spool {
    /// Opens the spool, or makes one.
    ///
    /// Blocks, for less than a second whatever waits: mail can be accepted at once.
    /// When the index has to be rebuilt, which takes longer, questions wait for it.
    /// Needs a tokio runtime around it.
    pub fn open(options: SpoolOptions, clock: Clock) -> Result<(Self, Recovered), SpoolError> {
        let (store, lock) = Store::open(&options.path)?;
        Self::over(Arc::new(store), lock, options, clock)
    }

    fn over(
        store: Arc<Store>,
        lock: Lock,
        options: SpoolOptions,
        clock: Clock,
    ) -> Result<(Self, Recovered), SpoolError> {
        let large = store.large_names()?;
        let opened = recover::open(&store)?;
        let in_doubt = opened
            .known
            .dotted
            .iter()
            .map(|(id, recipients)| (QueueId::from_number(*id), recipients.clone()))
            .collect();
        if opened.end.is_none() {
            store.remove_index()?;
        }
        let engine = Engine::new(Parts {
            options,
            clock,
            store,
            lock,
            library: opened.library,
            head: opened.head,
            known: opened.known,
            damage: opened.damage,
        });
        engine.open_index(opened.closed, Afterwards { in_doubt, large });
        Ok((Self(engine, Patience::Waits), opened.recovered))
    }

    /// The same spool for who must not be held up: while the index is read from the log, a
    /// question is refused with [`SpoolError::Index`] instead of waiting for the end of it.
    pub fn impatient(&self) -> Self {
        Self(self.0.clone(), Patience::Refuses)
    }

    /// Where the spool is.
    pub fn path(&self) -> &Path {
        &self.0.options.path
    }

    /// The name for the next message.
    pub fn next_id(&self) -> QueueId {
        let mut last = self.0.ids.lock().unwrap_or_else(PoisonError::into_inner);
        *last = QueueId::next(*last, self.0.clock.now());
        *last
    }

    /// From now on new mail leaves this much room.
    pub fn set_reserve(&self, reserve: Reserve) {
        self.0.reserve.set(reserve);
    }

    /// A place for a content that arrives; `expected` octets if the client said so.
    pub fn new_content(&self, expected: Option<u64>) -> ContentWriter {
        ContentWriter::new(
            self.0.store.clone(),
            self.0.reserve.clone(),
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

    /// Accepts several messages. An error means that none was accepted; a power cut before
    /// the answer may leave the first ones, like one before any answer.
    pub async fn commit_all(&self, messages: Vec<(Envelope, Content)>) -> Result<(), SpoolError> {
        self.check_room()?;
        let began = self.0.clock.uptime();
        let write = self.0.accepting(messages).await?;
        self.0.write(write).await?;
        let took = self.0.clock.uptime().saturating_sub(began);
        self.0.commits.observe(took);
        Ok(())
    }

    /// How long commits took since the spool was opened.
    pub fn commit_times(&self) -> Counted {
        self.0.commits.counted()
    }

    /// Whether new mail may be accepted: the reserve of `min-free` is untouched.
    pub fn check_room(&self) -> Result<(), SpoolError> {
        let checked = self.0.check_room();
        if checked.is_err() && !self.0.compacting.load(Ordering::Relaxed) {
            // What left may still use the room that new mail needs.
            let engine = self.0.clone();
            self.0.runtime.spawn_blocking(move || {
                engine.compact_if_due(&engine.log());
            });
        }
        checked
    }

    /// Writes down what is about to leave: durable before the first MAIL of it.
    pub async fn lease(&self, lease: Lease) -> Result<(), SpoolError> {
        let write = Write::new(Urgency::Durable, Record::Leased(lease));
        self.0.write(write).await
    }

    /// Gives back transactions that were leased and did not start.
    pub async fn unlease(&self, grants: Vec<u64>) -> Result<(), SpoolError> {
        let write = Write::new(Urgency::Written, Record::Returned(grants));
        self.0.write(write).await
    }

    /// Writes down that the final dot is about to be sent for these recipients (their
    /// places in the envelope). Written when this returns, durable with the sync that
    /// follows at once.
    pub async fn final_dot(&self, id: QueueId, recipients: Vec<usize>) -> Result<(), SpoolError> {
        let dot = FinalDot { id, recipients };
        let write = Write::new(Urgency::Written, Record::FinalDot(dot));
        self.0.write(write).await
    }

    /// Writes down how a transaction ended. Written when this returns, durable with the
    /// sync that follows at once.
    pub async fn settle(&self, settled: Settled) -> Result<(), SpoolError> {
        let released = Some((settled.grant, settled.released));
        let (frame, files) = self
            .0
            .presenting(
                Kind::Settled,
                "penstock",
                released,
                settled.envelope,
                settled.reports,
            )
            .await?;
        let write = Write::of(Urgency::Written, vec![frame], files);
        self.0.write(write).await
    }

    /// Changes messages, durable when this returns. An error means that none was changed; a
    /// power cut before the answer may leave only the first ones changed.
    pub async fn change(&self, changes: Vec<Change>) -> Result<(), SpoolError> {
        let mut frames = Vec::new();
        let mut files = Vec::new();
        for change in changes {
            let (frame, more) = self
                .0
                .presenting(
                    Kind::Changed,
                    &change.by,
                    None,
                    change.envelope,
                    change.reports,
                )
                .await?;
            frames.push(frame);
            files.extend(more);
        }
        self.0
            .write(Write::of(Urgency::Durable, frames, files))
            .await
    }

    /// Keeps a small value under a kind and a name, durably: a relay's pause, its
    /// verification. None forgets it. Every note is found in [`Recovered::notes`].
    pub async fn note(
        &self,
        kind: &str,
        name: &str,
        value: Option<serde_json::Value>,
    ) -> Result<(), SpoolError> {
        let note = Note {
            kind: kind.to_owned(),
            name: name.to_owned(),
            value,
        };
        let write = Write::new(Urgency::Durable, Record::Note(note));
        self.0.write(write).await
    }

    /// Hands over the present limit ledger, to be stored with the next segment and at
    /// the close. Call it every now and then from the task that owns the ledger, right
    /// after encoding it: every reservation whose [`lease`](Self::lease) was called
    /// before is taken to be in it, and only later records are found in
    /// [`Recovered::later`].
    pub fn checkpoint_ledger(&self, ledger: Vec<u8>) {
        self.0.keep_ledger(ledger);
    }

    /// The present envelope of a message; none when it is not in the spool. When it cannot
    /// be read the message is held from then on, and shown as such.
    pub async fn envelope(&self, id: QueueId) -> Result<Option<Envelope>, SpoolError> {
        let engine = self.0.clone();
        self.ask(move |_| {
            let words = engine.read_words(id);
            if let Err(error) = &words {
                engine.set_aside(id, error)?;
            }
            Ok(match words? {
                Some(Words::Present(envelope)) => Some(engine.as_held(id, envelope)?),
                Some(Words::AsAccepted(envelope)) => {
                    engine.hold_damaged(id, LAST_RECORD);
                    Some(envelope)
                }
                None => None,
            })
        })
        .await
    }

    /// The content of a message; none when it is not in the spool. When it is damaged
    /// the message is held, and shown as such.
    pub async fn content(&self, id: QueueId) -> Result<Option<ContentReader>, SpoolError> {
        let engine = self.0.clone();
        let found = self
            .ask(move |_| {
                let mut last = None;
                // A compaction may move what was just looked up.
                loop {
                    let index = engine.index().ok_or(SpoolError::Closed)?;
                    let Some(entry) = index.entry(id).map_err(index_error)? else {
                        return Ok(None);
                    };
                    match engine.library.content(id, entry.content) {
                        Err(_) if last.as_ref() != Some(&entry) => last = Some(entry),
                        found => return found.map(Some),
                    }
                }
            })
            .await;
        if matches!(found, Err(SpoolError::Damaged { .. })) {
            self.hold_damaged(id).await;
        }
        found
    }

    /// Holds a message whose content turned out to be damaged while it was read.
    pub async fn hold_damaged(&self, id: QueueId) {
        let engine = self.0.clone();
        let held = self.ask(move |index| {
            if let Some(entry) = index.entry(id).map_err(index_error)? {
                tracing::error!(queue_id = %id, "held: its content is damaged");
                if let Err(error) = engine.keep_damaged(entry.content) {
                    tracing::error!(%error, "cannot copy a damaged record");
                }
                engine.hold_damaged(id, "its content is damaged");
            }
            Ok(())
        });
        held.await.ok();
    }

    /// Every flow.
    pub async fn flows(&self) -> Result<Vec<FlowSummary>, SpoolError> {
        let now = self.0.clock.now();
        self.ask(move |index| index.flows(now).map_err(index_error))
            .await
    }

    /// What may leave at once in one flow, in order of acceptance, after a message.
    pub async fn ready(
        &self,
        flow: &FlowKey,
        after: QueueId,
        limit: usize,
    ) -> Result<Vec<Waiting>, SpoolError> {
        let flow = flow.clone();
        self.ask(move |index| index.ready(&flow, after, limit).map_err(index_error))
            .await
    }

    /// Messages of a relay whose next attempt is due by then, the earliest first; so many
    /// of one flow at most, or a mailing that failed as a whole would hide all others. So
    /// many are looked at and no more: the next look goes on after the place that comes
    /// with them, or from the beginning when there is none.
    pub async fn retries_due(
        &self,
        relay: &str,
        until: Timestamp,
        after: Option<RetryPlace>,
        limit: usize,
        per_flow: usize,
    ) -> Result<(Vec<Waiting>, Option<RetryPlace>), SpoolError> {
        let relay = relay.to_owned();
        let times = Timestamp::MIN..=until;
        let ask =
            move |index: &Index| index.retries(&relay, times, after.as_ref(), limit, per_flow);
        self.ask(move |index| ask(index).map_err(index_error)).await
    }

    /// Messages of one relay whose next attempt is at this time or later, the earliest
    /// first: later than any that is ever set, and the clock was set back since.
    pub async fn retries_from(
        &self,
        relay: &str,
        from: Timestamp,
        limit: usize,
        per_flow: usize,
    ) -> Result<Vec<Waiting>, SpoolError> {
        let relay = relay.to_owned();
        let times = from..=Timestamp::MAX;
        let ask = move |index: &Index| index.retries(&relay, times, None, limit, per_flow);
        let found = self.ask(move |index| ask(index).map_err(index_error));
        Ok(found.await?.0)
    }

    /// When the next attempt of a relay is due, if any waits for one.
    pub async fn next_retry(&self, relay: &str) -> Result<Option<Timestamp>, SpoolError> {
        let due = self.retries_due(relay, Timestamp::MAX, None, 1, 1);
        Ok(due.await?.0.first().and_then(|it| it.not_before))
    }

    /// Messages that a filter means, after one, in order of acceptance.
    pub async fn list(
        &self,
        filter: &Filter,
        after: QueueId,
        limit: usize,
    ) -> Result<Page, SpoolError> {
        let filter = Arc::new(filter.clone());
        self.walk(after, limit, move |engine, index, after, limit| {
            let wanted = Wanted::Filter(&filter);
            engine.search(index, &wanted, after, limit, |it| filter.matches(it))
        })
        .await
    }

    /// One step of the same: looks at some thousand messages at most, so that whoever asks
    /// can stop before the end, and gives those of them that are kept. Every message that
    /// the filter means is shown to `keep`, in order, on another thread.
    pub async fn look(
        &self,
        filter: &Filter,
        after: QueueId,
        limit: usize,
        keep: Arc<dyn Fn(&Envelope) -> bool + Send + Sync>,
    ) -> Result<Page, SpoolError> {
        let filter = filter.clone();
        self.step(after, limit, move |engine, index, after, limit| {
            let wanted = Wanted::Filter(&filter);
            let kept = |it: &Envelope| filter.matches(it) && keep(it);
            engine.search(index, &wanted, after, limit, kept)
        })
        .await
    }

    /// Messages in the spool by id, address or Message-ID.
    pub async fn find(&self, lookup: &Lookup, limit: usize) -> Result<Vec<Envelope>, SpoolError> {
        if let Lookup::Id(id) = lookup {
            return Ok(self.envelope(*id).await?.into_iter().collect());
        }
        let lookup = Arc::new(lookup.clone());
        let page = self.walk(QueueId::MIN, limit, move |engine, index, after, limit| {
            let wanted = Wanted::Lookup(&lookup);
            engine.search(index, &wanted, after, limit, |it| lookup.matches(it))
        });
        Ok(page.await?.messages)
    }

    /// Finished messages of the last seven days: the latest `limit` of them, oldest first.
    pub async fn history(
        &self,
        lookup: &Lookup,
        limit: usize,
    ) -> Result<Vec<Finished>, SpoolError> {
        let (lookup, store) = (lookup.clone(), self.0.store.clone());
        let now = self.0.clock.now();
        // Only what the index has is in the history.
        self.ask(move |_| history::find(&store, &lookup, limit, now))
            .await
    }

    /// How the spool is. Answers at once, with what is known of the counts.
    pub async fn status(&self) -> SpoolStatus {
        let engine = self.0.clone();
        let measured = self.0.runtime.spawn_blocking(move || engine.status());
        measured.await.unwrap_or_default()
    }

    /// Waits until nothing that was promised can be kept any more: a sync failed. The
    /// daemon must exit then, and read the log again.
    pub async fn fatal(&self) -> SpoolError {
        let mut fatal = self.0.fatal.subscribe();
        let error = fatal.wait_for(Option::is_some).await;
        // Cloned out of its guard, which must not be held over an await.
        match error.ok().and_then(|it| it.clone()) {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Whether questions are answered at once; if not, they wait for the index to be read
    /// from the log.
    pub fn is_complete(&self) -> bool {
        self.0.is_complete()
    }

    /// Waits until questions are answered in full; one that is
    /// [`impatient`](Self::impatient) at most until the last writes are in the index.
    pub async fn until_complete(&self) -> Result<(), SpoolError> {
        let groups = self.0.groups();
        let mut progress = self.0.progress.subscribe();
        let refuses = self.1 == Patience::Refuses;
        let reached = progress
            .wait_for(|it| {
                it.closed || (it.complete && it.groups >= groups) || (refuses && !it.complete)
            })
            .await;
        match reached {
            Ok(it) if it.closed => Err(SpoolError::Closed),
            Ok(it) if it.complete => Ok(()),
            Ok(_) => Err(SpoolError::Index(
                "it is being read from the log; ask again when penstock status says no more of it"
                    .into(),
            )),
            Err(_) => Err(SpoolError::Closed),
        }
    }

    /// Ends it in good order: the next open is quick. Every clone answers
    /// [`SpoolError::Closed`] from then on.
    pub async fn close(self) -> Result<(), SpoolError> {
        let engine = self.0.clone();
        let closed = self.0.runtime.spawn_blocking(move || engine.close());
        closed.await.unwrap_or(Err(SpoolError::Closed))
    }
}

impl Engine {
    /// A message that was set aside and can be read after all waits for a person, who may
    /// release it.
    fn as_held(
        self: &Arc<Self>,
        id: QueueId,
        mut envelope: Envelope,
    ) -> Result<Envelope, SpoolError> {
        let entry = match self.index() {
            Some(index) => index.entry(id).map_err(index_error)?,
            None => None,
        };
        let aside = entry.is_some_and(|it| it.is_held_for(HoldReason::Damaged));
        if aside && matches!(envelope.state, crate::mail::State::Waiting { .. }) {
            envelope.state = self.damaged_state("its record could not be read for some time");
            self.present(Kind::Changed, envelope.clone());
        }
        Ok(envelope)
    }

    /// Whether the reserve of `min-free` is untouched.
    fn check_room(&self) -> Result<(), SpoolError> {
        self.store.room()?.check(self.reserve.get())
    }

    fn status(&self) -> SpoolStatus {
        let mut status = SpoolStatus::default();
        // While the index is rebuilt: what was read so far, and `rebuilding` says so.
        if let Some(index) = self.index_so_far() {
            status.relays = index.counts();
            status.live_bytes = index.live_bytes();
        }
        for counts in status.relays.values() {
            status.ready.add(counts.ready);
            status.deferred.add(counts.deferred);
            status.held.add(counts.held);
        }
        let segments = self.library.segments(0);
        status.segments = segments.len() as u64;
        status.log_bytes = self.library.finished_bytes() + self.durable().offset;
        if let Ok(room) = self.store.room() {
            status.free_bytes = room.free_bytes;
            status.reserve_bytes = self.reserve.get().bytes(room.total_bytes);
        }
        status.damaged_records = self
            .damage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len() as u64;
        if !self.progress.borrow().complete {
            status.rebuilding = Some(Rebuilding {
                done_bytes: self.rebuilt.0.load(Ordering::Relaxed),
                all_bytes: self.rebuilt.1.load(Ordering::Relaxed),
            });
        }
        status.failing = self.failing();
        status
    }
}
