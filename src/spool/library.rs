//! The segments there are, and reading single records of them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mail::QueueId;

use super::content::ContentReader;
use super::durable::{SegmentName, Store};
use super::error::SpoolError;
use super::frame::{HEADER_BYTES, Header};
use super::record::{ContentAt, Item, Position, Record};
use super::scan::read_up_to;

/// Open files that are kept; one more and all are closed.
const OPEN_FILES: usize = 128;
/// Octets read at first for one record.
const READ_BYTES: usize = 4096;

/// The segments of the log, open for reading.
#[derive(Debug)]
pub struct Library {
    pub store: Arc<Store>,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    names: BTreeMap<u64, SegmentName>,
    /// Where the last good frame of a finished segment ends.
    ends: BTreeMap<u64, u64>,
    files: HashMap<u64, Arc<File>>,
}

/// One message of one record: where its state or its content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub position: Position,
    /// Which of the record's messages.
    pub item: u32,
}

/// Why a record could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// It is not there (any more), or damaged.
    Bad,
    /// The system refused.
    Spool(SpoolError),
}

impl From<SpoolError> for ReadError {
    fn from(it: SpoolError) -> Self {
        Self::Spool(it)
    }
}

impl Library {
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            shelf: Mutex::default(),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment that is finished and ends there.
    pub fn add_finished(&self, name: SegmentName, end: u64) {
        let mut shelf = self.shelf();
        shelf.names.insert(name.number, name);
        shelf.ends.insert(name.number, end);
    }

    /// The segment that is written now.
    pub fn add_head(&self, name: SegmentName, file: Arc<File>) {
        let mut shelf = self.shelf();
        shelf.names.insert(name.number, name);
        shelf.files.insert(name.number, file);
    }

    /// Forgets a segment that was removed.
    pub fn remove(&self, number: u64) {
        let mut shelf = self.shelf();
        shelf.names.remove(&number);
        shelf.ends.remove(&number);
        shelf.files.remove(&number);
    }

    /// Segments from a number on, oldest first, each with its end; none: still growing.
    pub fn segments(&self, from: u64) -> Vec<(SegmentName, Option<u64>)> {
        let shelf = self.shelf();
        let names = shelf.names.range(from..);
        names
            .map(|(number, name)| (*name, shelf.ends.get(number).copied()))
            .collect()
    }

    /// Octets of all finished segments.
    pub fn finished_bytes(&self) -> u64 {
        self.shelf().ends.values().sum()
    }

    /// Whether a position is within the log.
    pub fn has(&self, position: Position) -> bool {
        let shelf = self.shelf();
        shelf.names.contains_key(&position.segment)
            && shelf
                .ends
                .get(&position.segment)
                .is_none_or(|end| position.offset <= *end)
    }

    fn open(&self, number: u64) -> Result<(SegmentName, Arc<File>), ReadError> {
        let mut shelf = self.shelf();
        let name = *shelf.names.get(&number).ok_or(ReadError::Bad)?;
        if let Some(file) = shelf.files.get(&number) {
            return Ok((name, file.clone()));
        }
        let file = Arc::new(self.store.open_segment(name)?);
        if shelf.files.len() >= OPEN_FILES {
            shelf.files.clear();
        }
        shelf.files.insert(number, file.clone());
        Ok((name, file))
    }

    /// Reads the header of a frame.
    pub fn header(&self, at: Position) -> Result<Header, ReadError> {
        let (name, file) = self.open(at.segment)?;
        let octets = self.read(name, &file, at.offset, HEADER_BYTES)?;
        Header::read(name, at.offset, &octets).ok_or(ReadError::Bad)
    }

    /// Reads a record, and says where its contents begin and in which file.
    pub fn record(&self, at: Position) -> Result<(Record, u64, Arc<File>), ReadError> {
        let (name, file) = self.open(at.segment)?;
        let mut octets = self.read(name, &file, at.offset, READ_BYTES)?;
        let header = Header::read(name, at.offset, &octets).ok_or(ReadError::Bad)?;
        let end = HEADER_BYTES + header.words as usize;
        if octets.len() < end {
            // The length comes from a header whose checksum was right: it is one we wrote.
            octets = self.read(name, &file, at.offset, end)?;
        }
        let words = octets.get(HEADER_BYTES..end).ok_or(ReadError::Bad)?;
        if crc32c::crc32c(words) != header.words_checksum {
            return Err(ReadError::Bad);
        }
        let record =
            Record::decode(header.kind, header.version, words).map_err(|_| ReadError::Bad)?;
        Ok((record, header.contents_at(at.offset), file))
    }

    fn read(
        &self,
        name: SegmentName,
        file: &File,
        offset: u64,
        wanted: usize,
    ) -> Result<Vec<u8>, SpoolError> {
        read_up_to(file, offset, wanted)
            .map_err(|it| SpoolError::unreadable(&self.store.segment_path(name), it))
    }

    /// Where the segment of a place is.
    pub fn path(&self, place: Place) -> PathBuf {
        let name = self.shelf().names.get(&place.position.segment).copied();
        let name = name.unwrap_or(SegmentName {
            number: place.position.segment,
            mark: 0,
        });
        self.store.segment_path(name)
    }

    /// Reads one message of a record.
    pub fn item(&self, id: QueueId, place: Place) -> Result<(Item, u64, Arc<File>), ReadError> {
        let (record, contents, file) = self.record(place.position)?;
        let Record::Messages(mut messages) = record else {
            return Err(ReadError::Bad);
        };
        let index = place.item as usize;
        if messages.items.get(index).map(|it| it.envelope.id) != Some(id) {
            return Err(ReadError::Bad);
        }
        Ok((messages.items.swap_remove(index), contents, file))
    }

    /// Opens the content of a message whose place in the log is known.
    pub fn content(&self, id: QueueId, place: Place) -> Result<ContentReader, SpoolError> {
        let damaged = SpoolError::Damaged {
            id,
            what: "content",
        };
        let (item, contents, file) = match self.item(id, place) {
            Ok(found) => found,
            Err(ReadError::Bad) => return Err(damaged),
            Err(ReadError::Spool(it)) => return Err(it),
        };
        let Some(at) = item.content else {
            return Err(damaged);
        };
        match &at.file {
            Some(name) => open_large(&self.store, id, name, &at),
            None => inline(&file, contents, &at)
                .map_err(|it| SpoolError::unreadable(&self.path(place), it))?
                .map(|octets| ContentReader::memory(id, octets))
                .ok_or(damaged),
        }
    }
}

/// Reads a content behind the words of its record; none when it is damaged.
pub fn inline(file: &File, contents: u64, at: &ContentAt) -> io::Result<Option<Vec<u8>>> {
    let Ok(length) = usize::try_from(at.length) else {
        return Ok(None);
    };
    let octets = read_up_to(file, contents + u64::from(at.offset), length)?;
    let whole = octets.len() == length && crc32c::crc32c(&octets) == at.checksum;
    Ok(whole.then_some(octets))
}

fn open_large(
    store: &Store,
    id: QueueId,
    name: &str,
    at: &ContentAt,
) -> Result<ContentReader, SpoolError> {
    let damaged = SpoolError::Damaged {
        id,
        what: "content",
    };
    match store.open_large(name) {
        Ok(file) if file.metadata().is_ok_and(|it| it.len() == at.length) => {
            let path = store.large_path(name);
            Ok(ContentReader::file(id, file, path, at.length, at.checksum))
        }
        Ok(_) => Err(damaged),
        Err(SpoolError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(damaged)
        }
        Err(it) => Err(it),
    }
}
