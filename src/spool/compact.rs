//! Giving disk space back: the oldest segment goes, once nothing needs it.
//!
//! That is due when the log is more than twice what is needed of it, and two segments;
//! when the disk is short of room, those two segments are given back as well.
//!
//! Only the oldest one ever goes: what a later record buries must not outlive it. Live
//! messages are written again at the head, in their present state, and synced; then the
//! history is synced, which may lack what the segment still says; then the segment is
//! removed. A message that somebody else writes to in between is left for another pass.
//! Of what is damaged a durable copy is kept first; what the system does not read now ends
//! the pass, and the segment stays.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::mail::{HoldReason, QueueId};

use super::durable::SegmentName;
use super::engine::{Engine, Log, Urgency, Write, lock};
use super::error::SpoolError;
use super::frame::Frame;
use super::index::{Entry, IndexError, Wanted};
use super::library::ReadError;
use super::record::{ContentAt, Item, Kind, Messages, Record};
use super::recover::decode;
use super::scan::{Found, Scan, read_up_to};

/// When the disk is short of room, less than this is not worth a new segment.
const WORTH_BYTES: u64 = 256 << 10;
/// Octets that are moved in one step.
const STEP_BYTES: u64 = 1 << 20;
/// After one that failed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Passes over one segment before giving up until next time: each leaves only what
/// was written to meanwhile.
const PASSES: usize = 20;

impl Engine {
    /// Begins a compaction when the log is too long.
    pub fn compact_if_due(self: &Arc<Self>, log: &Log) {
        if self.is_too_long(log) && !self.compacting.swap(true, Ordering::AcqRel) {
            let engine = self.clone();
            self.runtime.spawn_blocking(move || {
                if let Err(error) = engine.compact() {
                    tracing::warn!(%error, "cannot compact the log");
                    *lock(&engine.compact_again) = engine.clock.uptime() + PATIENCE;
                    if error.is_fatal() {
                        engine.die(error);
                    }
                }
                engine.compacting.store(false, Ordering::Release);
            });
        }
    }

    fn is_too_long(&self, log: &Log) -> bool {
        let Some(index) = self.index().filter(|_| log.live && !log.closed) else {
            return false;
        };
        if self.clock.uptime() < *lock(&self.compact_again) {
            return false;
        }
        let length = self.library.finished_bytes() + log.head.position().offset;
        let needed = 2 * index.live_bytes();
        length > needed + 2 * self.options.segment_bytes
            || (length > needed + WORTH_BYTES && self.check_room().is_err())
    }

    fn compact(self: &Arc<Self>) -> Result<(), SpoolError> {
        while self.is_too_long(&self.log()) {
            let segments = self.library.segments(0);
            let (name, end) = match segments.first().copied() {
                Some((name, Some(end))) if name != self.log().head.name => (name, end),
                // There is no other segment: it ends here.
                Some(_) => {
                    self.begin_segment_if_open()?;
                    continue;
                }
                None => return Ok(()),
            };
            if self.ledger_needs().is_some_and(|it| it <= name.number) {
                // What left lately is written nowhere else yet. A later ledger comes with
                // the next segment.
                if !self.has_later_ledger(name.number) {
                    return Ok(());
                }
                self.begin_segment_if_open()?;
                continue;
            }
            if !self.empty(name, end)? {
                return Ok(());
            }
            if let Some(removed) = self.while_open(|| self.remove(name)) {
                removed?;
            }
        }
        Ok(())
    }

    /// Removes a segment of which nothing is needed any more.
    fn remove(&self, name: SegmentName) -> Result<(), SpoolError> {
        self.history().sync()?;
        if let Some(index) = self.index() {
            // After a kill the index must not name a position in a segment that is gone.
            index.flush().map_err(super::rebuild::index_error)?;
        }
        // When it cannot be removed it stays the oldest: the next one must not go before it.
        self.store.remove_segment(name)?;
        self.library.remove(name.number);
        tracing::debug!(segment = name.number, "removed the oldest segment");
        Ok(())
    }

    /// Begins a segment; nothing follows on what says that the log was closed.
    fn begin_segment_if_open(&self) -> Result<(), SpoolError> {
        let mut log = self.log();
        match log.closed {
            true => Ok(()),
            false => self.begin_segment(&mut log),
        }
    }

    /// Moves everything that is needed out of a segment; whether nothing is left.
    fn empty(self: &Arc<Self>, name: SegmentName, end: u64) -> Result<bool, SpoolError> {
        for _ in 0..PASSES {
            match self.pass(name, end)? {
                Pass::Nothing => return Ok(true),
                Pass::Moved => {}
                Pass::Stopped => return Ok(false),
            }
        }
        Ok(false)
    }

    fn pass(self: &Arc<Self>, name: SegmentName, end: u64) -> Result<Pass, SpoolError> {
        let done = self.watched_pass(name, end);
        self.log().touched = None;
        done
    }

    fn watched_pass(self: &Arc<Self>, name: SegmentName, end: u64) -> Result<Pass, SpoolError> {
        let mut scan = Scan::new(&self.store, name, 0, Some(end))?;
        let mut done = Pass::Nothing;
        let mut damaged = false;
        loop {
            if !self.begin_watching() {
                return Ok(Pass::Stopped);
            }
            let (mut ids, at_end) = self.next_ids(&mut scan, &mut damaged)?;
            if at_end && damaged {
                // Nobody knows by the log whom those records were about.
                ids.extend(self.living_in(name.number)?);
            }
            let mut frames = Vec::new();
            let mut seen = HashSet::new();
            for id in ids {
                if seen.insert(id) {
                    frames.extend(self.moved(name.number, QueueId::from_number(id))?);
                }
            }
            if !frames.is_empty() {
                done = Pass::Moved;
                self.write_blocking(Write::of(Urgency::Move, frames, Vec::new()))?;
            }
            if at_end {
                return Ok(done);
            }
        }
    }

    /// From here on, writes to messages are noted. The index is complete at this moment.
    fn begin_watching(&self) -> bool {
        let mut log = self.log();
        log.touched = Some(HashSet::new());
        log.live && !log.closed
    }

    /// Messages that the next records are about, and whether that was the end. A copy of
    /// what is damaged is kept: the original is about to go.
    fn next_ids(
        &self,
        scan: &mut Scan,
        damaged: &mut bool,
    ) -> Result<(Vec<u64>, bool), SpoolError> {
        let mut ids = Vec::new();
        let mut bytes = 0;
        while let Some(found) = scan.next()? {
            let (offset, header, words) = match found {
                Found::Frame {
                    offset,
                    header,
                    words,
                } => (offset, header, words),
                Found::Bad { offset, length, .. } => {
                    *damaged = true;
                    self.damaged(scan, offset, length)?;
                    continue;
                }
            };
            let about_messages = matches!(
                header.kind,
                Kind::Accepted | Kind::Moved | Kind::Settled | Kind::Changed
            );
            if !about_messages {
                continue;
            }
            bytes += header.frame_bytes();
            match decode(&self.store, scan.name, &header, &words)? {
                Some(Record::Messages(it)) => {
                    ids.extend(it.items.iter().map(|it| it.envelope.id.number()));
                }
                Some(_) => {}
                None => {
                    *damaged = true;
                    self.damaged(scan, offset, header.frame_bytes())?;
                }
            }
            if bytes >= STEP_BYTES {
                return Ok((ids, false));
            }
        }
        Ok((ids, true))
    }

    /// Every message that has its words or its content in a segment.
    fn living_in(&self, segment: u64) -> Result<Vec<u64>, SpoolError> {
        let mut ids = Vec::new();
        let mut after = Some(QueueId::MIN);
        while let (Some(from), Some(index)) = (after, self.index()) {
            let step = self.walker.run(move || {
                let mut ids = Vec::new();
                let after = index.candidates(&Wanted::Everything, from, |id, entry| {
                    let places = [entry.envelope, entry.content];
                    if places.iter().any(|it| it.position.segment == segment) {
                        ids.push(id.number());
                    }
                    ControlFlow::Continue(())
                });
                after.map(|it| (ids, it))
            });
            let step = step.unwrap_or_else(|| Err(IndexError("sled panicked".into())));
            let (found, left) = step.map_err(super::rebuild::index_error)?;
            ids.extend(found);
            after = left;
        }
        Ok(ids)
    }

    /// The frame that makes a message independent of a segment; none when it is already.
    fn moved(
        self: &Arc<Self>,
        segment: u64,
        id: QueueId,
    ) -> Result<Option<(Frame, Record)>, SpoolError> {
        let index = self.index();
        let index = index.ok_or_else(|| SpoolError::Index("it is being rebuilt".into()))?;
        let Some(entry) = index.entry(id).map_err(super::rebuild::index_error)? else {
            return Ok(None);
        };
        let here = [entry.envelope, entry.content];
        if here.iter().all(|it| it.position.segment != segment) {
            return Ok(None);
        }
        let envelope = match self.read_envelope(id) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return Ok(None),
            Err(SpoolError::Damaged { .. }) => {
                // Nothing of its words can be read; the copies in corrupt/ are all there is.
                tracing::error!(queue_id = %id, "lost: its record is damaged, see corrupt/");
                if let Some(name) = entry.large {
                    self.store.keep_large(&format!("{name:016x}"))?;
                }
                index.forget(id).map_err(super::rebuild::index_error)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let (at, octets) = self.raw_content(id, &entry)?;
        let mut envelope = envelope;
        let damaged = at.file.is_none() && crc32c::crc32c(&octets) != at.checksum;
        if damaged {
            self.keep_damaged(entry.content)?;
        }
        if damaged && !entry.is_held_for(HoldReason::Damaged) {
            envelope.state = self.damaged_state("its content is damaged");
        }
        let record = Record::Messages(Messages {
            kind: Kind::Moved,
            at: self.clock.now(),
            by: String::new(),
            released: None,
            items: vec![Item {
                envelope,
                content: Some(at),
            }],
        });
        Ok(Some((Frame::new(&record, &[&octets]), record)))
    }

    /// A content as it is stored, right or wrong: a wrong one keeps its old checksum, so
    /// that it stays known as damaged.
    fn raw_content(&self, id: QueueId, entry: &Entry) -> Result<(ContentAt, Vec<u8>), SpoolError> {
        let lost = ContentAt {
            file: None,
            offset: 0,
            length: 0,
            checksum: u32::MAX,
        };
        let (item, contents, file) = match self.library.item(id, entry.content) {
            Ok(found) => found,
            Err(ReadError::Spool(error)) => return Err(error),
            Err(ReadError::Bad) => return Ok((lost, Vec::new())),
        };
        let Some(at) = item.content else {
            return Ok((lost, Vec::new()));
        };
        if at.file.is_some() {
            return Ok((at, Vec::new()));
        }
        let length = usize::try_from(at.length).unwrap_or(0);
        let mut octets = read_up_to(&file, contents + u64::from(at.offset), length)
            .map_err(|it| SpoolError::unreadable(&self.library.path(entry.content), it))?;
        // Where the file ends too early the checksum tells.
        octets.resize(length, 0);
        Ok((ContentAt { offset: 0, ..at }, octets))
    }
}

enum Pass {
    Nothing,
    Moved,
    Stopped,
}
