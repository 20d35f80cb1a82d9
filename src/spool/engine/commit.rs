//! One group after the other: written, synced, answered, followed by the index.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use super::super::error::SpoolError;
use super::super::head::Head;
use super::super::index::{Consequences, IndexError};
use super::super::record::{Position, Record};
use super::write::{Reply, Urgency, Write, answer_all, keep_files};
use super::{Engine, Log, lock};

/// Octets of one group, more or less: a bound on memory and on everybody's wait.
const GROUP_BYTES: u64 = 8 << 20;

/// What waits to be written.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Vec<Write>,
    /// Somebody is the committer.
    led: bool,
}

impl Engine {
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

    /// How many writes wait for the next group; none: nobody is the committer.
    #[cfg(test)]
    pub fn queued(&self) -> Option<usize> {
        let queue = lock(&self.queue);
        queue.led.then_some(queue.waiting.len())
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

    fn commit(self: &Arc<Self>, group: &mut Vec<Write>) {
        let mut log = self.log();
        let ended = self.fatal.borrow().clone();
        let ended = ended.or_else(|| log.closed.then_some(SpoolError::Closed));
        if let Some(error) = ended {
            return answer_all(group, &error);
        }
        if let Some(touched) = &mut log.touched {
            leave_out_stale_moves(touched, group);
        }
        if let Err(error) = self.turn_over(&mut log) {
            return self.refuse(group, &error);
        }
        let Some(positions) = self.append(&mut log, group) else {
            return;
        };
        for record in group.iter().flat_map(|it| &it.frames).map(|it| &it.1) {
            log.known.follow(record, None);
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
}

/// Takes back the moves of messages that somebody else wrote to since they were read, be it
/// in front of the move in this very group: such a move would bring back a message that
/// is finished, or undo a hold. What is left out is moved by another pass.
fn leave_out_stale_moves(touched: &mut HashSet<u64>, group: &mut [Write]) {
    for write in group {
        if write.urgency == Urgency::Move {
            write.frames.retain(|it| !touched.contains(&it.1.subject()));
            continue;
        }
        for (_, record) in &write.frames {
            if let Record::Messages(it) = record {
                touched.extend(it.items.iter().map(|it| it.envelope.id.number()));
            }
        }
    }
}

fn source_of(error: &SpoolError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}
