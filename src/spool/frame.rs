//! Frames: what makes a record findable and its damage visible.
//!
//! ```text
//!  0  8  the segment's own random mark
//!  8  1  version of the record
//!  9  1  kind of the record
//! 10  2  zero
//! 12  4  octets of words
//! 16  4  octets of contents behind them
//! 20  8  the message it is about, or zero
//! 28  4  CRC-32C of the words
//! 32  8  everything before this offset was synced when the frame was written
//! 40  4  CRC-32C of: segment number, own offset, the 40 octets above
//! 44     words, contents
//! ```
//!
//! The mark keeps contents from passing for frames: who submits a message cannot know
//! it. The offset in the checksum keeps a frame from being valid at another place.
//! `synced` tells damage from a torn write: what a later frame says was synced cannot
//! have been torn. Contents have checksums of their own, in the words, so that reading
//! the log need not read them.

use super::durable::SegmentName;
use super::record::{Kind, Record, VERSION};

/// Octets of a frame's header.
pub const HEADER_BYTES: usize = 44;
/// More words than any record has; more is damage.
const WORDS_MAXIMUM: u32 = 256 << 20;

/// The header of a frame, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub version: u8,
    pub kind: Kind,
    pub words: u32,
    pub contents: u32,
    pub subject: u64,
    pub words_checksum: u32,
    pub synced: u64,
}

impl Header {
    /// Octets of the whole frame.
    pub fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.words) + u64::from(self.contents)
    }

    /// Where its contents begin, for a frame that begins at `offset`.
    pub fn contents_at(&self, offset: u64) -> u64 {
        offset + HEADER_BYTES as u64 + u64::from(self.words)
    }

    /// Reads a header that stands at an offset of a segment; none when it is no header.
    ///
    /// A kind that this version does not know is still a frame: it is read as `Void`
    /// when its version is ours (nothing but a skippable record may be added within a
    /// version), and refused by version otherwise.
    pub fn read(name: SegmentName, offset: u64, octets: &[u8]) -> Option<Self> {
        let octets: &[u8; HEADER_BYTES] = octets.get(..HEADER_BYTES)?.try_into().ok()?;
        let four =
            |at: usize| u32::from_le_bytes(octets[at..at + 4].try_into().expect("four octets"));
        let eight =
            |at: usize| u64::from_le_bytes(octets[at..at + 8].try_into().expect("eight octets"));
        if eight(0) != name.mark || four(40) != checksum(name, offset, octets) {
            return None;
        }
        let header = Self {
            version: octets[8],
            kind: Kind::from_octet(octets[9]).unwrap_or(Kind::Void),
            words: four(12),
            contents: four(16),
            subject: eight(20),
            words_checksum: four(28),
            synced: eight(32),
        };
        (header.words <= WORDS_MAXIMUM).then_some(header)
    }
}

/// A frame that waits to be written: all but what depends on its place.
#[derive(Debug)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// A frame of a record and the contents behind it.
    pub fn new(record: &Record, contents: &[&[u8]]) -> Self {
        Self::of(record.kind(), record.subject(), &record.encode(), contents)
    }

    /// A frame of words, whatever they say.
    pub fn of(kind: Kind, subject: u64, words: &[u8], contents: &[&[u8]]) -> Self {
        let behind: usize = contents.iter().map(|it| it.len()).sum();
        let mut octets = Vec::with_capacity(HEADER_BYTES + words.len() + behind);
        octets.extend_from_slice(&[0; 8]);
        octets.extend_from_slice(&[VERSION, kind.octet(), 0, 0]);
        octets.extend_from_slice(&length(words.len()).to_le_bytes());
        octets.extend_from_slice(&length(behind).to_le_bytes());
        octets.extend_from_slice(&subject.to_le_bytes());
        octets.extend_from_slice(&crc32c::crc32c(words).to_le_bytes());
        octets.extend_from_slice(&[0; 12]);
        octets.extend_from_slice(words);
        for content in contents {
            octets.extend_from_slice(content);
        }
        Self(octets)
    }

    /// The header of a frame that says of `length` octets that they hold nothing.
    pub fn void(name: SegmentName, offset: u64, length: u64) -> Option<Vec<u8>> {
        let behind = u32::try_from(length.checked_sub(HEADER_BYTES as u64)?).ok()?;
        let mut frame = Self::new(&Record::Void, &[]);
        frame.0[16..20].copy_from_slice(&behind.to_le_bytes());
        let mut octets = Vec::new();
        frame.place(name, offset, 0, &mut octets);
        Some(octets)
    }

    /// Whether its words are a record for whoever reads them later.
    pub fn reads_back(&self) -> bool {
        let words = u32::from_le_bytes(self.0[12..16].try_into().expect("four octets"));
        let words = &self.0[HEADER_BYTES..HEADER_BYTES + words as usize];
        Kind::from_octet(self.0[9]).is_some_and(|it| Record::decode(it, VERSION, words).is_ok())
    }

    /// Octets of it.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Appends it to a group that is written to a segment, at this offset of it.
    pub fn place(&mut self, name: SegmentName, offset: u64, synced: u64, group: &mut Vec<u8>) {
        self.0[..8].copy_from_slice(&name.mark.to_le_bytes());
        self.0[32..40].copy_from_slice(&synced.to_le_bytes());
        let header: &[u8; HEADER_BYTES] = self.0[..HEADER_BYTES]
            .try_into()
            .expect("a frame has a header");
        let sum = checksum(name, offset, header);
        self.0[40..44].copy_from_slice(&sum.to_le_bytes());
        group.extend_from_slice(&self.0);
    }
}

/// Frames are built from bounded parts: see `stage`, which splits what is longer.
fn length(octets: usize) -> u32 {
    u32::try_from(octets).expect("a frame is shorter than 4 GiB")
}

fn checksum(name: SegmentName, offset: u64, header: &[u8; HEADER_BYTES]) -> u32 {
    let sum = crc32c::crc32c(&name.number.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &offset.to_le_bytes());
    crc32c::crc32c_append(sum, &header[..40])
}
