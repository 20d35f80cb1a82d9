//! Reading a segment from front to back, past whatever is damaged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::durable::{SegmentName, Store};
use super::error::SpoolError;
use super::frame::{HEADER_BYTES, Header};

/// Octets read at once: a header with its words, usually, and no more of the content.
const READ_BYTES: usize = 4096;
/// Octets searched at once for the next mark.
const SEARCH_BYTES: usize = 64 * 1024;

/// A segment being read.
#[derive(Debug)]
pub struct Scan {
    pub name: SegmentName,
    pub file: Arc<File>,
    path: PathBuf,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
    /// The furthest that any frame read so far says was synced.
    pub synced: u64,
}

/// What stands at a place of a segment.
#[derive(Debug)]
pub enum Found {
    /// A good frame: header and words fit their checksums.
    Frame {
        offset: u64,
        header: Header,
        words: Vec<u8>,
    },
    /// Anything else. With a header, only the words behind it are bad.
    Bad {
        offset: u64,
        length: u64,
        header: Option<Header>,
    },
}

impl Scan {
    /// Reads a segment from an offset, to an end or to the end of the file.
    pub fn new(
        store: &Store,
        name: SegmentName,
        from: u64,
        end: Option<u64>,
    ) -> Result<Self, SpoolError> {
        let file = store.open_segment(name)?;
        let path = store.segment_path(name);
        let length = file
            .metadata()
            .map_err(|it| SpoolError::io("measure", &path, it))?
            .len();
        let end = end.map_or(length, |it| it.min(length));
        Ok(Self::over(file, &path, name, from, end))
    }

    /// Reads an open file as a segment, from an offset to an end that it has.
    pub fn over(file: File, path: &Path, name: SegmentName, from: u64, end: u64) -> Self {
        Self {
            name,
            file: Arc::new(file),
            path: path.to_owned(),
            at: from,
            end,
            window: Vec::new(),
            window_at: 0,
            synced: 0,
        }
    }

    /// The next frame or damaged region; none at the end.
    ///
    /// What the system does not read now may be there the next time: it is an error, and
    /// no damage.
    pub fn next(&mut self) -> Result<Option<Found>, SpoolError> {
        let offset = self.at;
        if offset >= self.end {
            return Ok(None);
        }
        let name = self.name;
        let Some(header) = Header::read(name, offset, self.read(offset, HEADER_BYTES)?) else {
            return Ok(Some(self.bad(offset)?));
        };
        let next = offset + header.frame_bytes();
        if next > self.end {
            // Torn: it was the last thing that was written.
            self.at = self.end;
            return Ok(Some(Found::Bad {
                offset,
                length: self.end - offset,
                header: None,
            }));
        }
        self.at = next;
        self.synced = self.synced.max(header.synced);
        let words = self
            .read(offset + HEADER_BYTES as u64, header.words as usize)?
            .to_vec();
        if crc32c::crc32c(&words) != header.words_checksum {
            return Ok(Some(Found::Bad {
                offset,
                length: header.frame_bytes(),
                header: Some(header),
            }));
        }
        Ok(Some(Found::Frame {
            offset,
            header,
            words,
        }))
    }

    /// The region from here to the next good header.
    fn bad(&mut self, offset: u64) -> Result<Found, SpoolError> {
        let next = self.next_header(offset + 1)?.unwrap_or(self.end);
        self.at = next;
        Ok(Found::Bad {
            offset,
            length: next - offset,
            header: None,
        })
    }

    fn next_header(&mut self, from: u64) -> Result<Option<u64>, SpoolError> {
        let (name, end) = (self.name, self.end);
        let mark = name.mark.to_le_bytes();
        let mut at = from;
        while at + HEADER_BYTES as u64 <= end {
            let block = self.read(at, SEARCH_BYTES)?;
            let length = block.len();
            let Some(place) = block.windows(mark.len()).position(|it| it == mark) else {
                // A mark may begin in the last octets of this block.
                at += (length.saturating_sub(mark.len() - 1)).max(1) as u64;
                continue;
            };
            at += place as u64;
            if Header::read(name, at, self.read(at, HEADER_BYTES)?).is_some() {
                return Ok(Some(at));
            }
            at += 1;
        }
        Ok(None)
    }

    /// Octets at a place, fewer at the end.
    fn read(&mut self, offset: u64, wanted: usize) -> Result<&[u8], SpoolError> {
        let wanted = (self.end.saturating_sub(offset)).min(wanted as u64) as usize;
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if !(held.contains(&offset) && offset + wanted as u64 <= held.end) && wanted > 0 {
            let length = (self.end - offset).min(wanted.max(READ_BYTES) as u64) as usize;
            let read = read_up_to(&self.file, offset, length);
            self.window = read.map_err(|it| SpoolError::unreadable(&self.path, it))?;
            // A file that became shorter since it was measured ends in zeros.
            self.window.resize(length, 0);
            self.window_at = offset;
        }
        let start = (offset.saturating_sub(self.window_at)) as usize;
        Ok(self.window.get(start..start + wanted).unwrap_or_default())
    }
}

/// Reads up to `wanted` octets of a file: fewer only where it ends.
pub fn read_up_to(file: &File, offset: u64, wanted: usize) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; wanted];
    let mut done = 0;
    while done < wanted {
        match file.read_at(&mut octets[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(it) if it.kind() == io::ErrorKind::Interrupted => {}
            Err(it) => return Err(it),
        }
    }
    octets.truncate(done);
    Ok(octets)
}
