//! What waits for the committer, and who waits for it.

use std::sync::mpsc;

use tokio::sync::oneshot;

use super::super::content::LargeFile;
use super::super::error::SpoolError;
use super::super::frame::Frame;
use super::super::record::Record;

/// Something that is to be written: one or more frames, all or none for who waits for the
/// answer. Each frame is whole for itself; a power cut before it can leave the first ones.
#[derive(Debug)]
pub struct Write {
    pub frames: Vec<(Frame, Record)>,
    pub urgency: Urgency,
    /// Files that a record names from now on.
    pub files: Vec<LargeFile>,
    pub reply: Option<Reply>,
}

/// Who waits for the answer.
#[derive(Debug)]
pub enum Reply {
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

    /// Octets that it takes in the log.
    pub fn bytes(&self) -> u64 {
        self.frames.iter().map(|it| it.0.len()).sum()
    }

    /// Tells who waits, once.
    pub fn answer(&mut self, result: Result<(), SpoolError>) {
        // Who does not wait any more does not miss the answer.
        match self.reply.take() {
            Some(Reply::Task(reply)) => drop(reply.send(result)),
            Some(Reply::Thread(reply)) => drop(reply.send(result)),
            None => {}
        }
    }
}

/// Tells everybody of a group the same.
pub fn answer_all(group: &mut [Write], error: &SpoolError) {
    for write in group {
        write.answer(Err(error.clone()));
    }
}

/// Leaves the files where they are: records may name them.
pub fn keep_files(group: &mut [Write]) {
    for file in group.iter_mut().flat_map(|it| it.files.drain(..)) {
        file.keep();
    }
}
