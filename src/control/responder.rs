//! The daemon's end of one request.

use tokio::sync::mpsc;

use super::Peer;
use super::protocol::{Failure, FailureKind, Item, Line};

/// Lines that may wait for a slow client before whoever answers has to wait, too: half a
/// megabyte of a content, and as much again is being written.
const LINES_AHEAD: usize = 128;

/// Answers one request: any number of items, then `done` or `fail`.
///
/// Dropped without either, the client is told that the answer is incomplete.
#[derive(Debug)]
pub struct Responder {
    peer: Peer,
    lines: mpsc::Sender<Line>,
}

/// Nobody reads the answer any more: the client left, or stopped reading for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

impl Responder {
    /// A responder for this caller, and what it will say.
    pub fn new(peer: Peer) -> (Self, mpsc::Receiver<Line>) {
        let (lines, said) = mpsc::channel(LINES_AHEAD);
        (Self { peer, lines }, said)
    }

    /// Who asked.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Says one item; waits while the client is slow, so a long answer must not be given
    /// from a task that has other work to do.
    pub async fn item(&self, item: Item) -> Result<(), Gone> {
        self.lines.send(Line::Item(item)).await.map_err(|_| Gone)
    }

    /// Resolves when nobody reads the answer any more.
    pub async fn gone(&self) {
        self.lines.closed().await;
    }

    /// The answer is complete.
    pub async fn done(self) {
        // Nobody reads it any more? Then nobody misses it.
        self.lines.send(Line::Done {}).await.ok();
    }

    /// The answer is one item.
    pub async fn only(self, item: Item) {
        if self.item(item).await.is_ok() {
            self.done().await;
        }
    }

    /// The request cannot be answered, or not to its end.
    pub async fn fail(self, kind: FailureKind, message: impl Into<String>) {
        let failure = Failure::new(kind, message);
        self.lines.send(Line::Error(failure)).await.ok();
    }
}
