//! The end of the log that grows.

use std::fs::File;
use std::sync::Arc;

use super::durable::{SegmentName, Store};
use super::error::SpoolError;
use super::frame::Frame;
use super::record::Position;

/// The segment that is being written.
#[derive(Debug)]
pub struct Head {
    store: Arc<Store>,
    pub name: SegmentName,
    pub file: Arc<File>,
    /// Where the last good frame ends; whatever stands behind it was never answered.
    end: u64,
    synced: u64,
    /// What a failed write left behind `end` could not be cut off: nothing may be
    /// written here any more.
    broken: bool,
}

impl Head {
    /// Begins a segment with its checkpoint, durably.
    ///
    /// When this fails nothing is left behind, so that it can be tried again; but a
    /// failed sync is final, like every one.
    pub fn begin(store: &Arc<Store>, number: u64, checkpoint: Frame) -> Result<Self, SpoolError> {
        let name = SegmentName {
            number,
            mark: rand::random(),
        };
        let file = Arc::new(store.create_segment(name)?);
        let mut head = Self {
            store: store.clone(),
            name,
            file,
            end: 0,
            synced: 0,
            broken: false,
        };
        if let Err(it) = head.append(&mut [checkpoint]) {
            store.remove_begun(name).ok();
            return Err(it);
        }
        head.sync()?;
        store.name_segment(name)?;
        Ok(head)
    }

    /// Stands at the end of the last segment, which may not be written to any more, because
    /// there is no room for the next one yet: whoever writes tries for that first.
    pub fn without_room(
        store: &Arc<Store>,
        name: SegmentName,
        end: u64,
    ) -> Result<Self, SpoolError> {
        Ok(Self {
            store: store.clone(),
            name,
            file: Arc::new(store.open_segment(name)?),
            end,
            synced: end,
            broken: true,
        })
    }

    /// Where the next frame will stand.
    pub fn position(&self) -> Position {
        Position {
            segment: self.name.number,
            offset: self.end,
        }
    }

    /// Whether nothing may be written here any more.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Writes frames in one go; says where each of them stands. They are durable after
    /// [`sync`](Self::sync). When this fails, none of them is part of the log.
    pub fn append(&mut self, frames: &mut [Frame]) -> Result<Vec<Position>, SpoolError> {
        let mut group = Vec::with_capacity(frames.iter().map(|it| it.len() as usize).sum());
        let mut positions = Vec::with_capacity(frames.len());
        for frame in frames {
            let offset = self.end + group.len() as u64;
            positions.push(Position {
                segment: self.name.number,
                offset,
            });
            frame.place(self.name, offset, self.synced, &mut group);
        }
        if let Err(it) = self.store.write_at(&self.file, self.name, &group, self.end) {
            // What was answered with an error must not come to life at the next open.
            if self
                .store
                .cut_back(&self.file, self.name, self.end)
                .is_err()
            {
                self.broken = true;
            }
            return Err(it);
        }
        self.end += group.len() as u64;
        Ok(positions)
    }

    /// Makes everything that was written durable.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        if self.synced < self.end {
            self.store
                .sync(&self.file, &self.store.segment_path(self.name))?;
            self.synced = self.end;
        }
        Ok(())
    }
}
