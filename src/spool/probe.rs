//! A way in for the fuzzer: records and segments from octets, without a spool around them.
//!
//! Nothing else uses it. What is asserted of the answers stands in
//! `fuzz/fuzz_targets/record.rs`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::durable::SegmentName;
use super::frame::{Frame, HEADER_BYTES};
use super::record::{Kind, Record, decode_finished, encode_finished};
use super::scan::{Found, Scan};

/// Octets of a frame before its words.
pub const HEADER: usize = HEADER_BYTES;

/// Reads words as a record of this kind; what it writes of it when that could be read.
pub fn rewrite(kind: u8, version: u8, words: &[u8]) -> Option<Vec<u8>> {
    let record = Record::decode(Kind::from_octet(kind)?, version, words).ok()?;
    Some(record.encode())
}

/// The same for a line of the history.
pub fn rewrite_finished(words: &[u8]) -> Option<Vec<u8>> {
    let (envelope, at, by) = decode_finished(words).ok()?;
    Some(encode_finished(&envelope, at, &by))
}

/// A segment of frames with these words and contents; also where each frame begins.
pub fn segment(mark: u64, frames: &[(&[u8], &[u8])]) -> (Vec<u8>, Vec<usize>) {
    let name = SegmentName { number: 1, mark };
    let mut octets = Vec::new();
    let mut places = Vec::new();
    for (words, contents) in frames {
        let offset = octets.len();
        places.push(offset);
        let mut frame = Frame::of(Kind::Changed, 0, words, &[contents]);
        frame.place(name, offset as u64, 0, &mut octets);
    }
    (octets, places)
}

/// A region of a segment, as a scan finds it.
#[derive(Debug)]
pub struct Region {
    /// Where it begins.
    pub offset: u64,
    /// Octets of it.
    pub length: u64,
    /// The words of a good frame; none: damage.
    pub words: Option<Vec<u8>>,
}

/// Scans octets as a segment with this mark.
pub fn scan(mark: u64, octets: &[u8]) -> io::Result<Vec<Region>> {
    let memory = rustix::fs::memfd_create("segment", rustix::fs::MemfdFlags::CLOEXEC)?;
    let file = File::from(memory);
    file.write_all_at(octets, 0)?;
    let name = SegmentName { number: 1, mark };
    let mut scan = Scan::over(file, Path::new("memory"), name, 0, octets.len() as u64);
    let mut regions = Vec::new();
    while let Some(found) = scan.next().map_err(io::Error::other)? {
        regions.push(match found {
            Found::Frame {
                offset,
                header,
                words,
            } => Region {
                offset,
                length: header.frame_bytes(),
                words: Some(words),
            },
            Found::Bad { offset, length, .. } => Region {
                offset,
                length,
                words: None,
            },
        });
    }
    Ok(regions)
}
