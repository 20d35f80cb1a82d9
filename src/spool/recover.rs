//! Opening a log that somebody may have died over.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crate::mail::QueueId;

use super::change::{Lease, LedgerEvent, Recovered};
use super::damage::report_damage;
use super::durable::{SegmentName, Store};
use super::error::SpoolError;
use super::frame::{Frame, Header};
use super::head::Head;
use super::known::Known;
use super::library::{Library, inline};
use super::record::{Checkpoint, Kind, Messages, Position, Record, RecordError};
use super::scan::{Found, Scan, read_up_to};

/// A log that was opened, with a new segment begun.
pub struct Opened {
    pub head: Head,
    pub known: Known,
    pub library: Library,
    pub recovered: Recovered,
    pub damage: HashSet<Position>,
    /// The last process closed the log: nothing of the index can be missing.
    pub closed: bool,
    /// Where the log ended; none when there was none.
    pub end: Option<Position>,
}

/// Opens the log, or makes one.
pub fn open(store: &Arc<Store>) -> Result<Opened, SpoolError> {
    store.remove_all_begun()?;
    let mut damage = HashSet::new();
    let library = Library::new(store.clone());
    let mut segments = store.segments()?;
    let mut tail = None;
    while let Some(last) = segments.last().copied() {
        match mend_tail(store, last, &mut damage)? {
            Some(end) => {
                tail = Some(end);
                break;
            }
            // It got its name when its first frame was synced: that and all behind it
            // is damaged.
            None => {
                damage.insert(Position {
                    segment: last.number,
                    offset: 0,
                });
                let segment = format!("{:016x}", last.number);
                tracing::error!(
                    segment,
                    "nothing of a segment can be read: it is kept in corrupt/"
                );
                store.keep_segment(last)?;
                segments.pop();
            }
        }
    }
    find_ends(store, &library, &segments, tail)?;
    let mut read = Reading {
        store,
        library: &library,
        damage: &mut damage,
        known: Known::default(),
        events: Vec::new(),
        closed: false,
        ledger_damaged: false,
    };
    read.go_on_from_last_checkpoint(&segments)?;
    let Reading {
        known,
        events,
        closed,
        ledger_damaged,
        ..
    } = read;
    let end = segments.last().zip(tail).map(|(name, offset)| Position {
        segment: name.number,
        offset,
    });
    let from = known.ledger.as_ref().map(|it| it.from).unwrap_or_default();
    let recovered = Recovered {
        ledger: known.ledger.as_ref().map(|it| it.octets.clone()),
        ledger_lost: ledger_damaged && !is_all_told(&known, &segments),
        later: events
            .into_iter()
            .filter(|it| it.0 >= from)
            .map(|it| it.1)
            .collect(),
        open_leases: known.open.values().cloned().collect(),
        last_grant: known.last_grant,
        notes: known.notes.clone(),
        in_doubt: known
            .dotted
            .keys()
            .copied()
            .map(QueueId::from_number)
            .collect(),
        crashed: end.is_some() && !closed,
        damaged_records: damage.len() as u64,
    };
    let number = end.map_or(1, |it| it.segment + 1);
    let head = match Head::begin(store, number, known.checkpoint(end)) {
        Ok(head) => {
            library.add_head(head.name, head.file.clone());
            head
        }
        // What waits can be shown, and new mail be refused for the time being.
        Err(error) if !error.is_fatal() => match segments.last().zip(tail) {
            Some((name, offset)) => {
                tracing::error!(%error, "nothing can be written to the spool yet");
                Head::without_room(store, *name, offset)?
            }
            None => return Err(error),
        },
        Err(error) => return Err(error),
    };
    Ok(Opened {
        head,
        known,
        library,
        recovered,
        damage,
        closed,
        end,
    })
}

/// Whether what came after a ledger, or after the beginning of all, is still in the log.
fn is_all_told(known: &Known, segments: &[SegmentName]) -> bool {
    let oldest = segments.first().map_or(1, |it| it.number);
    let from = known.ledger.as_ref().map_or(1, |it| it.from.segment);
    oldest <= from
}

/// Makes the last segment whole: what was torn is cut off, or covered when good frames
/// follow it. Says where it ends; none when there is no good frame in it at all.
///
/// What stands before the furthest synced place that a frame names cannot have been
/// torn: if it is bad, it is damaged, and stays as it is.
fn mend_tail(
    store: &Store,
    name: SegmentName,
    damage: &mut HashSet<Position>,
) -> Result<Option<u64>, SpoolError> {
    let mut scan = Scan::new(store, name, 0, None)?;
    let mut bad: Vec<(u64, u64)> = Vec::new();
    let mut unsure: Vec<(u64, Header, Vec<u8>)> = Vec::new();
    let mut good_end = 0;
    while let Some(found) = scan.next()? {
        match found {
            Found::Bad { offset, length, .. } => bad.push((offset, length)),
            Found::Frame {
                offset,
                header,
                words,
            } => {
                good_end = offset + header.frame_bytes();
                unsure.retain(|it| it.0 >= scan.synced);
                if offset >= scan.synced {
                    unsure.push((offset, header, words));
                }
            }
        }
    }
    if good_end == 0 {
        return Ok(None);
    }
    let synced = scan.synced;
    let path = store.segment_path(name);
    // Contents are not covered by the frame's own checksums: of what may be torn, they
    // are read.
    for (offset, header, words) in unsure {
        if !contents_are_whole(&scan, offset, &header, &words)
            .map_err(|it| SpoolError::unreadable(&path, it))?
        {
            bad.push((offset, header.frame_bytes()));
        }
    }
    bad.sort_unstable();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(|it| SpoolError::io("open", &path, it))?;
    let length = file
        .metadata()
        .map_err(|it| SpoolError::io("measure", &path, it))?
        .len();
    let mut end = length;
    for (offset, size) in bad.into_iter().rev() {
        if offset < synced {
            let at = Position {
                segment: name.number,
                offset,
            };
            if damage.insert(at) {
                // It stays where it is; when it has to go, the copy is tried again.
                report_damage(store, &scan, offset, size).ok();
            }
        } else if offset + size == end {
            end = offset;
        } else if let Some(void) = Frame::void(name, offset, size) {
            store.write_at(&file, name, &void, offset)?;
        }
    }
    if end < length {
        tracing::info!(octets = length - end, "cut off what was not written whole");
        store.cut_back(&file, name, end)?;
    }
    // What is believed from here on was perhaps written and not synced by a process
    // that was killed.
    store.sync(&file, &path)?;
    Ok(Some(end))
}

/// Whether every content behind a record fits its checksum.
pub fn contents_are_whole(
    scan: &Scan,
    offset: u64,
    header: &Header,
    words: &[u8],
) -> io::Result<bool> {
    if header.contents == 0 || header.kind == Kind::Void {
        return Ok(true);
    }
    let contents = header.contents_at(offset);
    match Record::decode(header.kind, header.version, words) {
        Ok(Record::Messages(Messages { items, .. })) => {
            let contents_at = items.iter().filter_map(|it| it.content.as_ref());
            for at in contents_at.filter(|it| it.file.is_none()) {
                if inline(&scan.file, contents, at)?.is_none() {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Ok(Record::Checkpoint(it)) => {
            Ok(it.ledger.is_none() || ledger_of(scan, contents, &it)?.is_some())
        }
        Ok(_) => Ok(true),
        // Not ours to judge: `Newer` is found again below, and ends the open.
        Err(_) => Ok(true),
    }
}

/// The ledger behind a checkpoint; none when there is none, or it is damaged.
fn ledger_of(scan: &Scan, contents: u64, checkpoint: &Checkpoint) -> io::Result<Option<Vec<u8>>> {
    let Some(at) = checkpoint.ledger else {
        return Ok(None);
    };
    let octets = read_up_to(&scan.file, contents, at.length as usize)?;
    let whole = octets.len() == at.length as usize && crc32c::crc32c(&octets) == at.checksum;
    Ok(whole.then_some(octets))
}

/// Reads where every segment ends: its successor's checkpoint says it.
fn find_ends(
    store: &Store,
    library: &Library,
    segments: &[SegmentName],
    tail: Option<u64>,
) -> Result<(), SpoolError> {
    for (place, name) in segments.iter().enumerate() {
        let end = match segments.get(place + 1) {
            None => tail,
            Some(next) => first_checkpoint(store, *next)?
                .and_then(|it| it.0.previous)
                .filter(|it| it.segment == name.number)
                .map(|it| it.offset),
        };
        let end = match end {
            Some(end) => end,
            None => {
                let path = store.segment_path(*name);
                let measured = store.open_segment(*name)?.metadata();
                measured
                    .map_err(|it| SpoolError::io("measure", &path, it))?
                    .len()
            }
        };
        library.add_finished(*name, end);
    }
    Ok(())
}

/// The checkpoint that a segment opens with, and whether its ledger is whole; none when
/// it is damaged.
pub fn first_checkpoint(
    store: &Store,
    name: SegmentName,
) -> Result<Option<(Checkpoint, bool)>, SpoolError> {
    let mut scan = Scan::new(store, name, 0, None)?;
    let Some(Found::Frame { header, words, .. }) = scan.next()? else {
        return Ok(None);
    };
    match decode(store, name, &header, &words)? {
        Some(Record::Checkpoint(it)) => {
            let ledger = ledger_of(&scan, header.contents_at(0), &it)
                .map_err(|error| SpoolError::unreadable(&store.segment_path(name), error))?;
            let whole = it.ledger.is_none() || ledger.is_some();
            Ok(Some((*it, whole)))
        }
        Some(_) | None => Ok(None),
    }
}

/// Reads words; none when they are malformed. Records of a newer version end the open.
pub fn decode(
    store: &Store,
    name: SegmentName,
    header: &Header,
    words: &[u8],
) -> Result<Option<Record>, SpoolError> {
    match Record::decode(header.kind, header.version, words) {
        Ok(record) => Ok(Some(record)),
        Err(RecordError::Newer(version)) => Err(SpoolError::Newer {
            path: store.segment_path(name),
            version,
        }),
        Err(RecordError::Malformed(_)) => Ok(None),
    }
}

/// The small state, read from the end of the log.
struct Reading<'a> {
    store: &'a Store,
    library: &'a Library,
    damage: &'a mut HashSet<Position>,
    known: Known,
    events: Vec<(Position, LedgerEvent)>,
    closed: bool,
    /// A later ledger than the one that is used could not be read.
    ledger_damaged: bool,
}

impl Reading<'_> {
    /// Reads on from the last checkpoint that is good, or from further back when its
    /// ledger is older.
    fn go_on_from_last_checkpoint(&mut self, segments: &[SegmentName]) -> Result<(), SpoolError> {
        let mut first = segments.len().saturating_sub(1);
        let from = loop {
            let Some(name) = segments.get(first) else {
                return Ok(());
            };
            // One whose ledger is damaged does not count.
            if let Some((checkpoint, true)) = first_checkpoint(self.store, *name)? {
                break checkpoint.ledger.map(|it| it.from);
            }
            self.ledger_damaged = true;
            if first == 0 {
                break None;
            }
            first -= 1;
        };
        let oldest = segments.partition_point(|it| it.number < from.unwrap_or_default().segment);
        for name in &segments[first.min(oldest)..] {
            self.segment(*name)?;
        }
        Ok(())
    }

    fn segment(&mut self, name: SegmentName) -> Result<(), SpoolError> {
        let end = self
            .library
            .segments(name.number)
            .first()
            .and_then(|it| it.1);
        let mut scan = Scan::new(self.store, name, 0, end)?;
        while let Some(found) = scan.next()? {
            match found {
                Found::Bad { offset, length, .. } => self.bad(&scan, offset, length),
                Found::Frame {
                    offset,
                    header,
                    words,
                } => match decode(self.store, name, &header, &words)? {
                    Some(record) => self.record(&scan, offset, &header, &record)?,
                    None => self.bad(&scan, offset, header.frame_bytes()),
                },
            }
        }
        Ok(())
    }

    fn bad(&mut self, scan: &Scan, offset: u64, length: u64) {
        let at = Position {
            segment: scan.name.number,
            offset,
        };
        if self.damage.insert(at) {
            // It stays where it is; when it has to go, the copy is tried again.
            report_damage(self.store, scan, offset, length).ok();
        }
    }

    fn record(
        &mut self,
        scan: &Scan,
        offset: u64,
        header: &Header,
        record: &Record,
    ) -> Result<(), SpoolError> {
        let at = Position {
            segment: scan.name.number,
            offset,
        };
        self.closed = matches!(record, Record::Closed);
        match record {
            Record::Leased(lease) => self.events.push((at, LedgerEvent::Leased(lease.clone()))),
            Record::Returned(grants) => {
                let returned = grants.iter().map(|grant| LedgerEvent::Released {
                    grant: *grant,
                    released: super::change::Released::NotSent,
                });
                self.events.extend(returned.map(|it| (at, it)));
            }
            Record::Messages(Messages {
                released: Some((grant, released)),
                ..
            }) => {
                let event = LedgerEvent::Released {
                    grant: *grant,
                    released: *released,
                };
                self.events.push((at, event));
            }
            Record::Messages(_)
            | Record::Void
            | Record::FinalDot(_)
            | Record::Note(_)
            | Record::Checkpoint(_)
            | Record::Closed => {}
        }
        let ledger = match record {
            Record::Checkpoint(it) => ledger_of(scan, header.contents_at(offset), it)
                .map_err(|it| SpoolError::unreadable(&self.store.segment_path(scan.name), it))?,
            _ => None,
        };
        if let (Record::Checkpoint(it), None) = (record, &ledger)
            && it.ledger.is_some()
        {
            self.ledger_damaged = true;
            self.bad(scan, offset, header.frame_bytes());
        }
        self.known.follow(record, ledger);
        Ok(())
    }
}

impl Lease {
    /// The grants of it.
    pub fn grants(&self) -> impl Iterator<Item = u64> {
        self.items.iter().map(|it| it.grant)
    }
}
