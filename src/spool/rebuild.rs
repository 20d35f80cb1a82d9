//! Bringing the index up to the log: by a few records, or all of them.
//!
//! Which messages a compaction saves, and which large files are removed, is asked of the
//! index alone. It is trusted with that when this process made it from the log, when the
//! last process closed it in good order, or when, after a kill, the sum over its entries is
//! the one that was written with its position: so an entry that sled lost costs a rebuild
//! and no mail.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::mail::{Diagnostic, Envelope, Hold, HoldReason, QueueId, RecipientStatus, Stage, State};

use super::engine::{Engine, Urgency, Write, lock};
use super::error::SpoolError;
use super::index::{Consequences, Index, IndexError, Wanted};
use super::library::{Place, ReadError};
use super::record::{Item, Kind, Messages, Position, Record};
use super::recover::decode;
use super::scan::{Found, Scan};

/// The committer waits for the last so many octets, no more.
const LAST_BYTES: u64 = 1 << 20;
/// For the end of an index that failed.
const CLOSING_PATIENCE: Duration = Duration::from_secs(2);
/// Between tries when sled cannot even be made.
const PATIENCE: Duration = Duration::from_secs(10);

/// More entries of an index that a kill left are not looked at before the open returns.
const COUNTED_AT_ONCE: u64 = 10_000;

/// Why a message is held that is shown as it was accepted.
pub const LAST_RECORD: &str = "its last record is damaged; this is how it was accepted";

/// What can be read of a message.
pub enum Words {
    /// Its present envelope.
    Present(Envelope),
    /// Its last record is damaged; this is how it was accepted, and held for that.
    AsAccepted(Envelope),
}

/// What is to be done once an index is complete, whichever that is: it is kept until then.
#[derive(Debug, Default)]
pub struct Afterwards {
    /// Final dots without a reply: message and recipients.
    pub in_doubt: Vec<(QueueId, Vec<usize>)>,
    /// Large files that were there when the spool was opened.
    pub large: Vec<String>,
}

/// Records about these messages were damaged: nobody knows what became of them.
type Suspects = HashSet<u64>;

impl Engine {
    /// Opens the index, or has it rebuilt; in the background when it takes long.
    pub fn open_index(self: &Arc<Self>, closed: bool, afterwards: Afterwards) {
        *lock(&self.afterwards) = afterwards;
        let index = self.usable_index(closed);
        let from = index.as_ref().and_then(Index::position);
        let distance = self.distance(from.unwrap_or_default());
        let counted = match closed {
            true => 0,
            false => index.as_ref().map_or(0, Index::messages),
        };
        let engine = self.clone();
        let work = move || {
            // Which messages a compaction saves is asked of the index alone: after a kill
            // every entry is looked at before that.
            let index = index.filter(|it| closed || is_whole(it));
            let brought = match index {
                Some(index) => engine.try_bring_up(index),
                None => engine.try_rebuild(),
            };
            if let Err(error) = brought {
                tracing::warn!(%error, "the index failed and is rebuilt from the log");
                let runtime = engine.runtime.clone();
                runtime.spawn_blocking(move || engine.rebuild());
            }
        };
        if distance <= self.options.at_once_bytes && counted <= COUNTED_AT_ONCE {
            work();
        } else {
            self.runtime.spawn_blocking(work);
        }
    }

    /// The index as it was left, if it can be trusted to be a past state of the log.
    ///
    /// After a kill it can: what sled gave to the system is still there. After the
    /// machine stopped it can only if it was synced at the close, because sled does not
    /// sync its files.
    fn usable_index(&self, closed: bool) -> Option<Index> {
        match self.store.prepare_index() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                tracing::warn!(%error, "cannot prepare the index");
                return None;
            }
        }
        let index = self.make_index().ok()?;
        let same_boot = index.written_in() == Some(self.clock.boot_id());
        let position = index.position()?;
        let usable =
            (same_boot || closed) && self.library.has(position) && self.is_boundary(position);
        usable.then_some(index)
    }

    fn make_index(&self) -> Result<Index, IndexError> {
        let made = self.store.make_index();
        made.map_err(|error| IndexError(error.to_string()))?;
        let made = catch_unwind(AssertUnwindSafe(|| {
            Index::open(
                &self.store.index_path(),
                self.options.index_cache_bytes,
                self.clock.boot_id(),
            )
        }));
        made.unwrap_or_else(|_| Err(IndexError("sled panicked".into())))
    }

    /// Whether a frame begins or the log of a segment ends there.
    fn is_boundary(&self, position: Position) -> bool {
        let segments = self.library.segments(position.segment);
        let end = segments.first().and_then(|it| it.1);
        position.offset == 0
            || end == Some(position.offset)
            || self.library.header(position).is_ok()
    }

    /// Octets of the log from a position on.
    fn distance(&self, from: Position) -> u64 {
        let durable = self.durable();
        self.library
            .segments(from.segment)
            .into_iter()
            .map(|(name, end)| {
                let end = end.unwrap_or(durable.offset);
                let start = if name.number == from.segment {
                    from.offset
                } else {
                    0
                };
                end.saturating_sub(start)
            })
            .sum()
    }

    /// Deletes the index and reads the whole log into a new one, for as long as it takes.
    pub fn rebuild(self: Arc<Self>) {
        while let Err(error) = self.try_rebuild() {
            if self.progress.borrow().closed {
                return;
            }
            tracing::warn!(%error, "cannot rebuild the index; trying again");
            for _ in 0..100 {
                if self.progress.borrow().closed {
                    return;
                }
                std::thread::sleep(PATIENCE / 100);
            }
        }
    }

    fn try_rebuild(self: &Arc<Self>) -> Result<(), IndexError> {
        self.progress.send_modify(|it| it.complete = false);
        if let Some(index) = self.set_index(None) {
            until_unused(index);
        }
        let made = self.while_open(|| {
            self.store.remove_index().map_err(text)?;
            self.make_index()
        });
        let index = made.unwrap_or_else(|| Err(text(SpoolError::Closed)))?;
        if let Err(error) = self.history().begin_rebuild() {
            tracing::warn!(%error, "cannot read the history");
        }
        self.try_bring_up(index)
    }

    fn try_bring_up(self: &Arc<Self>, index: Index) -> Result<(), IndexError> {
        let index = Arc::new(index);
        self.set_growing(Some(index.clone()));
        let done = catch_unwind(AssertUnwindSafe(|| {
            let suspects = self.catch_up(index)?;
            self.finish(suspects)
        }));
        self.set_growing(None);
        done.unwrap_or_else(|_| Err(IndexError("sled panicked".into())))
    }

    /// Reads the log into an index until the committer takes over.
    fn catch_up(self: &Arc<Self>, index: Arc<Index>) -> Result<Suspects, IndexError> {
        let mut suspects = Suspects::new();
        let mut at = index.position().unwrap_or_else(|| self.beginning());
        self.rebuilt.0.store(0, Ordering::Relaxed);
        self.rebuilt.1.store(self.distance(at), Ordering::Relaxed);
        index.hurry(true);
        while self.distance(at) > LAST_BYTES {
            if self.progress.borrow().closed {
                return Ok(suspects);
            }
            let to = self.durable();
            at = self.follow(&index, at, to, &mut suspects)?;
        }
        index.hurry(false);
        let mut log = self.log();
        self.follow(&index, at, log.head.position(), &mut suspects)?;
        self.history().end_rebuild();
        self.set_index(Some(index));
        self.set_growing(None);
        log.live = !log.closed;
        Ok(suspects)
    }

    fn beginning(&self) -> Position {
        let first = self.library.segments(0).first().map(|it| it.0.number);
        Position {
            segment: first.unwrap_or(0),
            offset: 0,
        }
    }

    /// Reads the log from one position to another.
    fn follow(
        &self,
        index: &Index,
        from: Position,
        to: Position,
        suspects: &mut Suspects,
    ) -> Result<Position, IndexError> {
        for (name, end) in self.library.segments(from.segment) {
            if name.number > to.segment {
                break;
            }
            if self.progress.borrow().closed {
                return Err(IndexError("the spool was closed".into()));
            }
            let start = if name.number == from.segment {
                from.offset
            } else {
                0
            };
            let end = if name.number == to.segment {
                Some(to.offset)
            } else {
                end
            };
            let scan = Scan::new(&self.store, name, start, end).map_err(text)?;
            self.follow_segment(index, scan, suspects)?;
        }
        Ok(to)
    }

    fn follow_segment(
        &self,
        index: &Index,
        mut scan: Scan,
        suspects: &mut Suspects,
    ) -> Result<(), IndexError> {
        let mut consequences = Consequences::default();
        while let Some(found) = scan.next().map_err(text)? {
            let place = |offset| Position {
                segment: scan.name.number,
                offset,
            };
            let (offset, bytes, subject, kind, record) = match found {
                Found::Bad {
                    offset,
                    length,
                    header,
                } => {
                    let subject = header.map_or(0, |it| it.subject);
                    (offset, length, subject, header.map(|it| it.kind), None)
                }
                Found::Frame {
                    offset,
                    header,
                    words,
                } => {
                    let record = decode(&self.store, scan.name, &header, &words)
                        .inspect_err(|error| self.die(error.clone()))
                        .map_err(text)?;
                    let bytes = header.frame_bytes();
                    (offset, bytes, header.subject, Some(header.kind), record)
                }
            };
            match record {
                Some(record) => index.follow(
                    place(offset),
                    place(offset + bytes),
                    bytes,
                    &record,
                    &mut consequences,
                )?,
                None => {
                    // It stays where it is; when it has to go, the copy is tried again.
                    self.damaged(&scan, offset, bytes).ok();
                    if matches!(kind, Some(Kind::Settled | Kind::Changed | Kind::FinalDot)) {
                        suspects.insert(subject);
                    }
                }
            }
            self.rebuilt.0.fetch_add(bytes, Ordering::Relaxed);
            if consequences.finished.len() >= 1_000 || consequences.unneeded.len() >= 1_000 {
                index.write()?;
                self.carry_out(&std::mem::take(&mut consequences));
            }
        }
        index.write()?;
        self.carry_out(&consequences);
        Ok(())
    }

    /// Marks what is in doubt and what is suspect, removes files that nothing names,
    /// and lets questions through.
    fn finish(self: &Arc<Self>, suspects: Suspects) -> Result<(), IndexError> {
        // Without one it was closed, or it failed already: then another rebuild is on its
        // way, and does what is still left to do.
        let Some(index) = self.index() else {
            return Ok(());
        };
        loop {
            let next = lock(&self.afterwards).in_doubt.pop();
            let Some((id, recipients)) = next else {
                break;
            };
            if let Err(SpoolError::Index(error)) = self.mark_in_doubt(id, &recipients) {
                lock(&self.afterwards).in_doubt.push((id, recipients));
                return match self.index() {
                    Some(_) => Err(IndexError(error)),
                    None => Ok(()),
                };
            }
        }
        for id in suspects {
            let id = QueueId::from_number(id);
            if index.entry(id)?.is_some() {
                tracing::error!(queue_id = %id, "held: a record of what became of it is damaged");
                self.hold_damaged(
                    id,
                    "a record of what became of it was damaged; it may have been delivered",
                );
            }
        }
        let large = lock(&self.afterwards).large.clone();
        if !large.is_empty() {
            let mut needed = HashSet::new();
            let mut after = Some(QueueId::MIN);
            while let Some(from) = after {
                after = index.candidates(&Wanted::Everything, from, |_, entry| {
                    needed.extend(entry.large.map(|it| format!("{it:016x}")));
                    std::ops::ControlFlow::Continue(())
                })?;
            }
            let damaged = self.has_damage();
            for name in large.iter().filter(|it| !needed.contains(*it)) {
                let gone = self.while_open(|| match damaged {
                    false => self.store.remove_large(name),
                    true => {
                        tracing::error!(
                            name,
                            "a content that no good record names was kept in corrupt/"
                        );
                        self.store.keep_large(name)
                    }
                });
                if let Some(Err(error)) = gone {
                    tracing::warn!(%error, "cannot remove a content that nothing names");
                }
            }
        }
        lock(&self.afterwards).large.clear();
        self.history().expire(self.clock.now());
        let log = self.log();
        let groups = self.groups();
        self.progress.send_modify(|it| {
            it.groups = groups;
            it.complete = log.live;
        });
        self.compact_if_due(&log);
        Ok(())
    }

    /// The history; nobody holds it for longer than a write.
    pub fn history(&self) -> std::sync::MutexGuard<'_, super::history::History> {
        self.history
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn mark_in_doubt(
        self: &Arc<Self>,
        id: QueueId,
        recipients: &[usize],
    ) -> Result<(), SpoolError> {
        let mut envelope = match self.read_envelope(id) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return Ok(()),
            Err(error @ SpoolError::Index(_)) => return Err(error),
            Err(error) => {
                tracing::error!(queue_id = %id, %error, "in doubt, and its envelope cannot be read");
                return Ok(());
            }
        };
        tracing::warn!(queue_id = %id, "the final dot was sent and the reply is not known: it will be sent again");
        for place in recipients {
            if let Some(recipient) = envelope.recipients.get_mut(*place)
                && recipient.status == RecipientStatus::Waiting
            {
                let server = recipient.last.take().map(|it| it.server);
                recipient.last = Some(Diagnostic {
                    at: self.clock.now(),
                    stage: Stage::FinalDot,
                    server: server.unwrap_or_default(),
                    code: None,
                    enhanced: None,
                    text: "Penstock stopped before the reply to the final dot came: it may have been delivered".into(),
                    in_doubt: true,
                });
            }
        }
        // Settled, though with no result: the final dot is answered for by this.
        self.present(Kind::Settled, envelope);
        Ok(())
    }

    /// Holds a message whose records are damaged.
    pub fn hold_damaged(self: &Arc<Self>, id: QueueId, note: &str) {
        let known = self.index().and_then(|it| it.entry(id).ok().flatten());
        if known.is_none_or(|it| it.is_held_for(HoldReason::Damaged)) {
            return;
        }
        let mut envelope = match self.read_envelope(id) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(queue_id = %id, %error, "damaged, and its envelope cannot be read");
                return;
            }
        };
        envelope.state = self.damaged_state(note);
        self.present(Kind::Changed, envelope);
    }

    /// Keeps a copy of a record that turned out to be damaged, words or content.
    pub fn keep_damaged(&self, place: Place) -> Result<(), SpoolError> {
        let at = place.position;
        let segment = self.library.segments(at.segment).into_iter().next();
        let Some((name, end)) = segment.filter(|it| it.0.number == at.segment) else {
            return Ok(());
        };
        let mut scan = Scan::new(&self.store, name, at.offset, end)?;
        match scan.next()? {
            Some(Found::Frame { offset, header, .. }) => {
                self.damaged(&scan, offset, header.frame_bytes())
            }
            Some(Found::Bad { offset, length, .. }) => self.damaged(&scan, offset, length),
            None => Ok(()),
        }
    }

    /// The state of a message whose records are damaged.
    pub fn damaged_state(&self, note: &str) -> State {
        State::Held(Hold {
            reason: HoldReason::Damaged,
            by: "penstock".into(),
            since: self.clock.now(),
            note: note.into(),
        })
    }

    pub fn present(self: &Arc<Self>, kind: Kind, envelope: Envelope) {
        let id = envelope.id;
        let record = Record::Messages(Messages {
            kind,
            at: self.clock.now(),
            by: "penstock".into(),
            released: None,
            items: vec![Item {
                envelope,
                content: None,
            }],
        });
        if let Err(error) = self.write_blocking(Write::new(Urgency::Durable, record)) {
            tracing::error!(queue_id = %id, %error, "cannot mark a message");
        }
    }

    /// The present envelope of a message, from wherever it can still be read.
    pub fn read_envelope(&self, id: QueueId) -> Result<Option<Envelope>, SpoolError> {
        let words = self.read_words(id)?;
        Ok(words.map(|it| match it {
            Words::Present(envelope) | Words::AsAccepted(envelope) => envelope,
        }))
    }

    /// The same, and whether it is the present one.
    pub fn read_words(&self, id: QueueId) -> Result<Option<Words>, SpoolError> {
        let mut last = None;
        // A compaction may move what was just looked up.
        for _ in 0..4 {
            let index = self
                .index()
                .ok_or_else(|| SpoolError::Index("it is being rebuilt".into()))?;
            let entry = index.entry(id).map_err(index_error)?;
            let Some(entry) = entry else {
                return Ok(None);
            };
            match self.library.item(id, entry.envelope) {
                Ok((item, ..)) => return Ok(Some(Words::Present(item.envelope))),
                Err(_) if last.as_ref() != Some(&entry) => last = Some(entry),
                Err(ReadError::Spool(error)) => return Err(error),
                Err(ReadError::Bad) => {
                    // Its last change is damaged; how it was accepted may not be.
                    let damaged = SpoolError::Damaged {
                        id,
                        what: "envelope",
                    };
                    let (item, ..) = match self.library.item(id, entry.content) {
                        Ok(found) => found,
                        Err(ReadError::Spool(error)) => return Err(error),
                        Err(ReadError::Bad) => return Err(damaged),
                    };
                    let mut envelope = item.envelope;
                    envelope.state = self.damaged_state(LAST_RECORD);
                    return Ok(Some(Words::AsAccepted(envelope)));
                }
            }
        }
        Err(SpoolError::Damaged {
            id,
            what: "envelope",
        })
    }
}

/// Whether an index that a kill left has every entry of its position, and no other.
fn is_whole(index: &Index) -> bool {
    let looked = catch_unwind(AssertUnwindSafe(|| index.is_whole()));
    let whole = matches!(looked, Ok(Ok(true)));
    if !whole {
        tracing::warn!("the index is not whole and is rebuilt from the log");
    }
    whole
}

/// Waits until nobody looks at an index any more, and closes it: sled should not write into
/// the folder of the next one. But a broken sled may never be done with closing.
fn until_unused(mut index: Arc<Index>) {
    let (closed, patience) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Err(used) = Arc::try_unwrap(index) {
            index = used;
            std::thread::sleep(Duration::from_millis(5));
        }
        closed.send(()).ok();
    });
    if patience.recv_timeout(CLOSING_PATIENCE).is_err() {
        tracing::warn!("the index that failed does not close; another one is made all the same");
    }
}

/// An error of the index, for a caller of the spool.
pub fn index_error(it: IndexError) -> SpoolError {
    SpoolError::Index(it.0)
}

fn text(it: SpoolError) -> IndexError {
    IndexError(it.to_string())
}
