//! A clean end.

use std::sync::Arc;

use super::super::error::SpoolError;
use super::super::frame::Frame;
use super::super::record::{Position, Record};
use super::{Engine, lock};

impl Engine {
    /// Writes down that everything is in order, and nothing after that.
    pub fn close(self: &Arc<Self>) -> Result<(), SpoolError> {
        let closed = self.write_closed();
        // Whoever opens it next must not see files vanish.
        let _removed = lock(&self.removing);
        lock(&self.lock).take();
        closed
    }

    /// Removes files, unless the spool was closed: then they are somebody else's, who may
    /// have them open.
    ///
    /// Closing waits for it; nothing else does, least of all the committer.
    pub fn while_open<T>(&self, remove: impl FnOnce() -> T) -> Option<T> {
        let _removing = lock(&self.removing);
        let open = !self.progress.borrow().closed;
        open.then(remove)
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
        if log.head.is_broken() {
            // The next open reads what there is, as after a kill.
            return Ok(());
        }
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
}
