//! Reading a spool whose daemon is stopped: log and history, and nothing is changed.
//!
//! The index is not opened, because opening it writes. What a crash left torn, contents
//! included, is passed over, as the next open will do.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::mail::{Envelope, QueueId};

use super::durable::{Lock, SegmentName, Store};
use super::error::SpoolError;
use super::history;
use super::library::{Library, Place, ReadError};
use super::query::{Filter, Finished, Lookup};
use super::record::{ContentAt, Position, Record};
use super::recover::{contents_are_whole, decode, first_checkpoint};
use super::scan::{Found, Scan};

/// A spool that no daemon has open; none can open it as long as this lives.
#[derive(Debug)]
pub struct Offline {
    store: Arc<Store>,
    library: Library,
    messages: BTreeMap<QueueId, Places>,
    damaged_records: u64,
    _lock: Lock,
}

#[derive(Debug, Clone, Copy)]
struct Places {
    envelope: Place,
    content: Place,
}

impl Offline {
    /// Reads the log of a stopped daemon. With the daemon running, the error is
    /// [`SpoolError::InUse`].
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        let (store, lock) = Store::open_offline(path)?;
        let store = Arc::new(store);
        let mut offline = Self {
            library: Library::new(store.clone()),
            store,
            messages: BTreeMap::new(),
            damaged_records: 0,
            _lock: lock,
        };
        offline.read()?;
        Ok(offline)
    }

    fn read(&mut self) -> Result<(), SpoolError> {
        let segments = self.store.segments()?;
        for (place, name) in segments.iter().enumerate() {
            let end = match segments.get(place + 1) {
                None => None,
                Some(next) => first_checkpoint(&self.store, *next)?
                    .and_then(|it| it.0.previous)
                    .filter(|it| it.segment == name.number)
                    .map(|it| it.offset),
            };
            self.library.add_finished(*name, end.unwrap_or(u64::MAX));
            // Only at the end of the last one may contents be torn.
            let synced = match end {
                Some(_) => u64::MAX,
                None => furthest_synced(&self.store, *name)?,
            };
            let mut scan = Scan::new(&self.store, *name, 0, end)?;
            let mut bad = Vec::new();
            while let Some(found) = scan.next()? {
                match found {
                    Found::Bad { offset, .. } => bad.push(offset),
                    Found::Frame {
                        offset,
                        header,
                        words,
                    } if offset >= synced
                        && !contents_are_whole(&scan, offset, &header, &words).map_err(
                            |it| SpoolError::unreadable(&self.store.segment_path(*name), it),
                        )? => {}
                    Found::Frame {
                        offset,
                        header,
                        words,
                    } => match decode(&self.store, *name, &header, &words)? {
                        Some(record) => self.follow(name.number, offset, &record),
                        None => bad.push(offset),
                    },
                }
            }
            // What was never synced is torn, not damaged.
            let finished = end.is_some();
            let damaged = bad.iter().filter(|it| finished || **it < scan.synced);
            self.damaged_records += damaged.count() as u64;
        }
        Ok(())
    }

    fn follow(&mut self, segment: u64, offset: u64, record: &Record) {
        let Record::Messages(messages) = record else {
            return;
        };
        for (item, message) in messages.items.iter().enumerate() {
            let place = Place {
                position: Position { segment, offset },
                item: item as u32,
            };
            let id = message.envelope.id;
            if message.envelope.is_finished() {
                self.messages.remove(&id);
            } else if message.content.is_some() {
                let places = Places {
                    envelope: place,
                    content: place,
                };
                self.messages.insert(id, places);
            } else if let Some(places) = self.messages.get_mut(&id) {
                places.envelope = place;
            }
        }
    }

    /// Records that were found damaged.
    pub fn damaged_records(&self) -> u64 {
        self.damaged_records
    }

    /// The messages in order of acceptance, those that a filter means.
    pub fn list(&self, filter: &Filter) -> impl Iterator<Item = Result<Envelope, SpoolError>> {
        self.messages
            .iter()
            .map(|(id, places)| self.read_envelope(*id, *places))
            .filter(|it| it.as_ref().map_or(true, |it| filter.matches(it)))
    }

    /// The envelope of a message; none when it is not in the spool.
    pub fn envelope(&self, id: QueueId) -> Result<Option<Envelope>, SpoolError> {
        let places = self.messages.get(&id);
        places
            .map(|places| self.read_envelope(id, *places))
            .transpose()
    }

    fn read_envelope(&self, id: QueueId, places: Places) -> Result<Envelope, SpoolError> {
        match self.library.item(id, places.envelope) {
            Ok((item, ..)) => Ok(item.envelope),
            Err(ReadError::Spool(error)) => Err(error),
            Err(ReadError::Bad) => Err(SpoolError::Damaged {
                id,
                what: "envelope",
            }),
        }
    }

    /// The content of a message; none when it is not in the spool. Its checksum is
    /// checked at its end: a read past damage fails.
    pub fn content(&self, id: QueueId) -> Result<Option<impl Read + use<>>, SpoolError> {
        let Some(places) = self.messages.get(&id) else {
            return Ok(None);
        };
        let damaged = SpoolError::Damaged {
            id,
            what: "content",
        };
        let (item, contents, file) = match self.library.item(id, places.content) {
            Ok(found) => found,
            Err(ReadError::Spool(error)) => return Err(error),
            Err(ReadError::Bad) => return Err(damaged),
        };
        let at = item.content.ok_or(damaged)?;
        let (file, offset) = match &at.file {
            Some(name) => (Arc::new(self.store.open_large(name)?), 0),
            None => (file, contents + u64::from(at.offset)),
        };
        Ok(Some(Checked {
            file,
            offset,
            at,
            done: 0,
            sum: 0,
        }))
    }

    /// Finished messages of the last seven days: the latest `limit` of them, oldest first.
    pub fn history(&self, lookup: &Lookup, limit: usize) -> Result<Vec<Finished>, SpoolError> {
        history::find(&self.store, lookup, limit, Clock::system().now())
    }
}

/// The furthest place that any frame of a segment says was synced.
fn furthest_synced(store: &Store, name: SegmentName) -> Result<u64, SpoolError> {
    let mut scan = Scan::new(store, name, 0, None)?;
    while scan.next()?.is_some() {}
    Ok(scan.synced)
}

/// A content that is checked while it is read.
struct Checked {
    file: Arc<std::fs::File>,
    offset: u64,
    at: ContentAt,
    done: u64,
    sum: u32,
}

impl Read for Checked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.at.length - self.done;
        let wanted = left.min(into.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let read = self
            .file
            .read_at(&mut into[..wanted], self.offset + self.done)?;
        self.done += read as u64;
        self.sum = crc32c::crc32c_append(self.sum, &into[..read]);
        let at_end = self.done == self.at.length;
        if read == 0 || (at_end && self.sum != self.at.checksum) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the stored content is damaged",
            ));
        }
        Ok(read)
    }
}
