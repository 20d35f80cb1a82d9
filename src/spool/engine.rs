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

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use tokio::sync::{oneshot, watch};

use crate::clock::Clock;
use crate::mail::QueueId;
use crate::measure::Histogram;

use super::SpoolOptions;
use super::content::{Buffers, LargeFile};
use super::durable::{Lock, SegmentName, Store};
use super::error::SpoolError;
use super::frame::Frame;
use super::head::Head;
use super::history::History;
use super::index::{Consequences, Index, IndexError};
use super::known::{Known, Ledger};
use super::library::Library;
use super::record::{Kind, Position, Record};

/// Octets of one group, more or less: a bound on memory and on everybody's wait.
const GROUP_BYTES: u64 = 8 << 20;

/// Everything that is shared by the clones of a [`Spool`](super::Spool).
pub struct Engine {
    pub options: SpoolOptions,
    pub clock: Clock,
    /// How long commits took.
    pub commits: Histogram,
    pub runtime: tokio::runtime::Handle,
    pub store: Arc<Store>,
    pub library: Library,
    pub buffers: Arc<Buffers>,
    pub ids: Mutex<QueueId>,
    pub history: Mutex<History>,
    pub damage: Mutex<HashSet<Position>>,
    pub compacting: AtomicBool,
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

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Write>,
    /// Somebody is the committer.
    led: bool,
}

/// Something that is to be written: one or more frames, all or none.
#[derive(Debug)]
pub struct Write {
    pub frames: Vec<(Frame, Record)>,
    pub urgency: Urgency,
    /// Files that a record names from now on.
    pub files: Vec<LargeFile>,
    reply: Option<Reply>,
}

/// Who waits for the answer.
#[derive(Debug)]
enum Reply {
    Task(oneshot::Sender<Result<(), SpoolError>>),
    Thread(mpsc::SyncSender<Result<(), SpoolError>>),
}

/// What the writer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Durable; new mail, the first to be refused when there is no room.
    NewMail,
    /// Durable.
    Durable,
    /// Written; it becomes durable with the sync that follows at once.
    Written,
    /// Durable, and only if nobody else wrote to the message meanwhile.
    Move,
}

impl Write {
    pub fn new(urgency: Urgency, record: Record) -> Self {
        Self {
            frames: vec![(Frame::new(&record, &[]), record)],
            urgency,
            files: Vec::new(),
            reply: None,
        }
    }

    pub fn of(urgency: Urgency, frames: Vec<(Frame, Record)>, files: Vec<LargeFile>) -> Self {
        Self {
            frames,
            urgency,
            files,
            reply: None,
        }
    }

    fn bytes(&self) -> u64 {
        self.frames.iter().map(|it| it.0.len()).sum()
    }

    fn answer(&mut self, result: Result<(), SpoolError>) {
        // Who does not wait any more does not miss the answer.
        match self.reply.take() {
            Some(Reply::Task(reply)) => drop(reply.send(result)),
            Some(Reply::Thread(reply)) => drop(reply.send(result)),
            None => {}
        }
    }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these was held is answered by ending the process (the
    // committer) or by a rebuild (the index); until then the state is as good as it was.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    pub fn new(parts: Parts) -> Arc<Self> {
        let durable = parts.head.position();
        Arc::new(Self {
            buffers: Buffers::new(parts.options.buffer_bytes),
            runtime: tokio::runtime::Handle::current(),
            ids: Mutex::new(QueueId::from_number(parts.known.last_id)),
            history: Mutex::new(History::new(parts.store.clone())),
            damage: Mutex::new(parts.damage),
            compacting: AtomicBool::new(false),
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

    /// Writes, and waits as its urgency asks.
    pub async fn write(self: &Arc<Self>, write: Write) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        if self.enqueue(write, Reply::Task(reply)) {
            let engine = self.clone();
            self.runtime.spawn_blocking(move || engine.lead());
        }
        answer.await.unwrap_or(Err(SpoolError::Closed))
    }

    /// The same, on a thread that may block.
    pub fn write_blocking(self: &Arc<Self>, write: Write) -> Result<(), SpoolError> {
        let (reply, answer) = mpsc::sync_channel(1);
        if self.enqueue(write, Reply::Thread(reply)) {
            self.lead();
        }
        answer.recv().unwrap_or(Err(SpoolError::Closed))
    }

    /// Leaves something in the queue; whether the caller has to be the committer.
    fn enqueue(&self, mut write: Write, reply: Reply) -> bool {
        write.reply = Some(reply);
        let mut queue = lock(&self.queue);
        queue.waiting.push(write);
        !std::mem::replace(&mut queue.led, true)
    }

    /// Is the committer until nothing waits any more.
    fn lead(self: &Arc<Self>) {
        loop {
            let mut group = {
                let mut queue = lock(&self.queue);
                let mut bytes = 0;
                let count = queue
                    .waiting
                    .iter()
                    .take_while(|it| {
                        let fits = bytes < GROUP_BYTES;
                        bytes += it.bytes();
                        fits
                    })
                    .count();
                if count == 0 {
                    queue.led = false;
                    return;
                }
                queue.waiting.drain(..count).collect::<Vec<_>>()
            };
            let worked = catch_unwind(AssertUnwindSafe(|| self.commit(&mut group)));
            if worked.is_err() {
                // Nobody knows what was written.
                self.die(SpoolError::Closed);
                keep_files(&mut group);
            }
        }
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

    fn commit(self: &Arc<Self>, group: &mut Vec<Write>) {
        let mut log = self.log();
        let ended = self.fatal.borrow().clone();
        let ended = ended.or_else(|| log.closed.then_some(SpoolError::Closed));
        if let Some(error) = ended {
            return answer_all(group, &error);
        }
        if let Some(touched) = &log.touched {
            for write in group.iter_mut().filter(|it| it.urgency == Urgency::Move) {
                write.frames.retain(|it| !touched.contains(&it.1.subject()));
            }
        }
        if let Err(error) = self.turn_over(&mut log) {
            return self.refuse(group, &error);
        }
        let Some(positions) = self.append(&mut log, group) else {
            return;
        };
        for record in group.iter().flat_map(|it| &it.frames).map(|it| &it.1) {
            log.known.follow(record, None);
            if let (Some(touched), Record::Messages(it)) = (&mut log.touched, record)
                && it.kind != Kind::Moved
            {
                touched.extend(it.items.iter().map(|it| it.envelope.id.number()));
            }
        }
        let groups = self.groups.fetch_add(1, Ordering::Release) + 1;
        for write in group.iter_mut() {
            if write.urgency == Urgency::Written {
                write.answer(Ok(()));
            }
        }
        if let Err(error) = log.head.sync() {
            self.die(error.clone());
            // Their records may be on the disk all the same.
            keep_files(group);
            return answer_all(group, &error);
        }
        *lock(&self.durable) = log.head.position();
        keep_files(group);
        for write in group.iter_mut() {
            write.answer(Ok(()));
        }
        if log.live {
            self.follow_group(&mut log, group, &positions);
        }
        if log.live {
            self.progress.send_modify(|it| it.groups = groups);
            self.compact_if_due(&log);
        }
    }

    /// Writes a group. When there is no room for all of it, new mail is refused first:
    /// what is known about mail that left matters more.
    fn append(&self, log: &mut Log, group: &mut Vec<Write>) -> Option<Vec<Position>> {
        loop {
            let mut sizes = Vec::with_capacity(group.len());
            let mut frames = Vec::new();
            let mut records = Vec::new();
            for write in group.iter_mut() {
                sizes.push(write.frames.len());
                for (frame, record) in write.frames.drain(..) {
                    frames.push(frame);
                    records.push(record);
                }
            }
            let written = log.head.append(&mut frames);
            let mut parts = frames.into_iter().zip(records);
            for (write, size) in group.iter_mut().zip(sizes) {
                write.frames.extend(parts.by_ref().take(size));
            }
            match written {
                Ok(positions) => {
                    *lock(&self.failing) = None;
                    return Some(positions);
                }
                Err(error) => {
                    let others = group.extract_if(.., |it| it.urgency != Urgency::NewMail);
                    let others: Vec<Write> = others.collect();
                    let refused = !group.is_empty();
                    self.refuse(group, &error);
                    *group = others;
                    if group.is_empty() {
                        return None;
                    }
                    if !refused {
                        self.refuse(group, &error);
                        return None;
                    }
                    if log.head.is_broken()
                        && let Err(error) = self.turn_over(log)
                    {
                        self.refuse(group, &error);
                        return None;
                    }
                }
            }
        }
    }

    fn refuse(&self, group: &mut [Write], error: &SpoolError) {
        if error.is_fatal() {
            self.die(error.clone());
            keep_files(group);
        } else {
            tracing::warn!(%error, source = source_of(error), "cannot write to the spool");
            *lock(&self.failing) = Some(format!("{error}: {}", source_of(error)));
            // Who is refused finds nothing left of what was refused.
            group.iter_mut().for_each(|it| it.files.clear());
        }
        answer_all(group, error);
    }

    /// Begins a new segment when the present one is full or cannot be written to.
    fn turn_over(&self, log: &mut Log) -> Result<(), SpoolError> {
        let full = log.head.position().offset >= self.options.segment_bytes;
        if !full && !log.head.is_broken() {
            return Ok(());
        }
        match self.begin_segment(log) {
            // No room for a new segment is no reason not to use what this one has.
            Err(error) if !error.is_fatal() && !log.head.is_broken() => Ok(()),
            begun => begun,
        }
    }

    /// Begins a new segment.
    pub fn begin_segment(&self, log: &mut Log) -> Result<(), SpoolError> {
        if let Some(ledger) = lock(&self.ledger).take() {
            log.known.ledger = Some(ledger);
            // The ledger knows what earlier processes left open.
            let earlier = log.earlier_grants;
            log.known.open.retain(|grant, _| *grant > earlier);
        }
        let end = log.head.position();
        let checkpoint = log.known.checkpoint(Some(end));
        let head = Head::begin(&self.store, end.segment + 1, checkpoint)?;
        self.library.add_finished(log.head.name, end.offset);
        self.library.add_head(head.name, head.file.clone());
        log.head = head;
        Ok(())
    }

    fn follow_group(self: &Arc<Self>, log: &mut Log, group: &[Write], positions: &[Position]) {
        let Some(index) = self.index() else {
            return;
        };
        let mut consequences = Consequences::default();
        let frames = group.iter().flat_map(|it| &it.frames);
        let followed = catch_unwind(AssertUnwindSafe(|| {
            for ((frame, record), at) in frames.zip(positions) {
                let next = Position {
                    offset: at.offset + frame.len(),
                    ..*at
                };
                index.follow(*at, next, frame.len(), record, &mut consequences)?;
            }
            index.write()?;
            index.tidy(self.clock.now())
        }));
        self.carry_out(&consequences);
        let followed = followed.unwrap_or_else(|_| Err(IndexError("sled panicked".into())));
        if let Err(error) = followed {
            drop(index);
            self.index_failed(log, &error);
        }
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

    /// Writes down that everything is in order, and nothing after that.
    pub fn close(self: &Arc<Self>) -> Result<(), SpoolError> {
        let closed = self.write_closed();
        lock(&self.lock).take();
        closed
    }

    fn write_closed(self: &Arc<Self>) -> Result<(), SpoolError> {
        let mut log = self.log();
        if log.closed {
            return Ok(());
        }
        log.closed = true;
        self.progress.send_modify(|it| it.closed = true);
        if let Some(error) = self.fatal.borrow().clone() {
            return Err(error);
        }
        log.head.sync()?;
        lock(&self.history).sync()?;
        // The index may be used after another boot only if all of it is on the disk,
        // and sled does not see to that.
        let whole = log.live && self.close_index();
        log.live = false;
        if let Some(ledger) = lock(&self.ledger).take() {
            log.known.ledger = Some(ledger);
            let earlier = log.earlier_grants;
            log.known.open.retain(|grant, _| *grant > earlier);
            // A checkpoint in the middle of a segment is read like any other.
            let end = log.head.position();
            let previous = self.previous_end(end);
            let checkpoint = log.known.checkpoint(previous);
            log.head.append(&mut [checkpoint])?;
        }
        log.head.sync()?;
        if whole {
            log.head.append(&mut [Frame::new(&Record::Closed, &[])])?;
            log.head.sync()?;
        }
        Ok(())
    }

    fn previous_end(&self, head: Position) -> Option<Position> {
        let segments = self.library.segments(0);
        let before = segments
            .iter()
            .rev()
            .find(|it| it.0.number < head.segment)?;
        Some(Position {
            segment: before.0.number,
            offset: before.1?,
        })
    }

    fn close_index(&self) -> bool {
        let Some(mut index) = self.set_index(None) else {
            return false;
        };
        // Questions that are being answered hold it a moment longer.
        for _ in 0..200 {
            match Arc::try_unwrap(index) {
                Ok(index) => {
                    drop(index);
                    return self.store.sync_index().is_ok();
                }
                Err(shared) => index = shared,
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        false
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

    /// Notes damage, keeps a copy and says so; once for each place.
    pub fn damaged(&self, name: SegmentName, at: Position, octets: &[u8]) {
        if lock(&self.damage).insert(at) {
            report_damage(&self.store, name, at, octets);
        }
    }
}

/// Keeps a copy of a damaged record and says so.
pub fn report_damage(store: &Store, name: SegmentName, at: Position, octets: &[u8]) {
    let segment = format!("{:016x}", at.segment);
    let length = octets.len();
    match store.save_corrupt(name, at.offset, octets) {
        Ok(true) => {
            tracing::error!(
                segment,
                offset = at.offset,
                length,
                "a damaged record was found and copied to corrupt/"
            );
        }
        Ok(false) => {
            tracing::warn!(
                segment,
                offset = at.offset,
                length,
                "a damaged record is still in the log"
            );
        }
        Err(error) => {
            tracing::error!(segment, offset = at.offset, length, %error, "a damaged record was found and could not be copied");
        }
    }
}

fn source_of(error: &SpoolError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

fn answer_all(group: &mut [Write], error: &SpoolError) {
    for write in group {
        write.answer(Err(error.clone()));
    }
}

fn keep_files(group: &mut [Write]) {
    for file in group.iter_mut().flat_map(|it| it.files.drain(..)) {
        file.keep();
    }
}
