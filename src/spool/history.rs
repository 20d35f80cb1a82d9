//! What became of finished mail, for seven days.
//!
//! One file a day, one line a message: checksum, signature, words. The lines are
//! written from the log's records and never synced one by one: what a power cut takes,
//! the rebuild that follows it writes again, and a segment of the log goes only after
//! the history was synced.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::mail::QueueId;

use super::durable::Store;
use super::error::SpoolError;
use super::index;
use super::query::{Finished, Lookup};
use super::record::decode_finished;
use super::signature::Signature;

/// How long finished mail is remembered.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Octets that wait for a disk that is full.
const MISSED_BYTES: usize = 16 << 20;
/// A longer line is not one that we wrote.
const LINE_BYTES: u64 = 256 << 20;

/// The history, open for writing.
#[derive(Debug)]
pub struct History {
    store: Arc<Store>,
    today: Option<(String, File)>,
    unsynced: bool,
    /// Lines that could not be written, and their days: the disk was full.
    missed: VecDeque<(String, Vec<u8>)>,
    /// The day on which old days were last removed.
    expired: String,
    /// Messages that the history has, while the log is read again from its beginning.
    had: Option<HashSet<u64>>,
}

impl History {
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            today: None,
            unsynced: false,
            missed: VecDeque::new(),
            expired: String::new(),
            had: None,
        }
    }

    /// From now on the log is read again: what the history has is not written twice.
    pub fn begin_rebuild(&mut self) -> Result<(), SpoolError> {
        let mut had = HashSet::new();
        for day in self.store.history_days()? {
            each_line(&self.store, &day, |line| {
                // A line that a power cut tore does not count: it is written again.
                if let Some((_, words)) = split(line)
                    && is_whole(line, words)
                    && let Some(id) = id_of(words)
                {
                    had.insert(id);
                }
            })?;
        }
        self.had = Some(had);
        Ok(())
    }

    /// The rebuild is over.
    pub fn end_rebuild(&mut self) {
        self.had = None;
    }

    /// Writes finished messages down.
    pub fn append(
        &mut self,
        finished: &[index::Finished],
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        self.expire(now);
        let mut written = self.write_missed();
        let mut lines = Vec::new();
        let mut lines_day = String::new();
        for message in finished {
            let old = now.duration_since(message.at) > KEPT;
            let had = self.had.as_ref().is_some_and(|it| it.contains(&message.id));
            if old || had {
                continue;
            }
            let day = day_of(message.at);
            if day != lines_day {
                written = written.and(self.write_or_keep(&lines_day, &lines));
                lines.clear();
                lines_day = day;
            }
            let sum = crc32c::crc32c(&message.words);
            let signature = message.signature.to_hexadecimal();
            lines.extend_from_slice(format!("{sum:08x} {signature} ").as_bytes());
            lines.extend_from_slice(&message.words);
            lines.push(b'\n');
        }
        written.and(self.write_or_keep(&lines_day, &lines))
    }

    /// Lines that cannot be written now are written before the next ones.
    fn write_or_keep(&mut self, day: &str, lines: &[u8]) -> Result<(), SpoolError> {
        let written = match self.missed.is_empty() {
            true => self.write(day, lines),
            // In order: behind what is missing already.
            false => Ok(()),
        };
        if (written.is_err() || !self.missed.is_empty()) && !lines.is_empty() {
            self.missed.push_back((day.to_owned(), lines.to_vec()));
            while self.missed.iter().map(|it| it.1.len()).sum::<usize>() > MISSED_BYTES {
                self.missed.pop_front();
                tracing::warn!("finished mail is missing from the history: it cannot be written");
            }
        }
        written
    }

    fn write_missed(&mut self) -> Result<(), SpoolError> {
        while let Some((day, lines)) = self.missed.pop_front() {
            if let Err(error) = self.write(&day, &lines) {
                self.missed.push_front((day, lines));
                return Err(error);
            }
        }
        Ok(())
    }

    fn write(&mut self, day: &str, lines: &[u8]) -> Result<(), SpoolError> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = self.store.history_path(day);
        let io = |it| SpoolError::io("write", &path, it);
        if self.today.as_ref().is_none_or(|it| it.0 != day) {
            self.sync_today()?;
            let mut file = self.store.append_history(day)?;
            // A line that was torn must not swallow the next one.
            if !ends_with_newline(&mut file).map_err(io)? {
                file.write_all(b"\n").map_err(io)?;
            }
            self.today = Some((day.to_owned(), file));
        }
        if let Some((_, mut file)) = self.today.take() {
            self.unsynced = true;
            // After a failure the file is opened anew, and a torn line ended.
            file.write_all(lines).map_err(io)?;
            self.today = Some((day.to_owned(), file));
        }
        Ok(())
    }

    /// Makes it durable, all of it.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        self.write_missed()?;
        self.sync_today()
    }

    fn sync_today(&mut self) -> Result<(), SpoolError> {
        if let Some((day, file)) = self.today.as_ref().filter(|_| self.unsynced) {
            self.store.sync(file, &self.store.history_path(day))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Removes the days that are over, once a day.
    pub fn expire(&mut self, now: Timestamp) {
        let today = day_of(now);
        if self.expired == today {
            return;
        }
        self.expired = today;
        let first = day_of(now - KEPT);
        let removed: Result<(), SpoolError> = self.store.history_days().and_then(|days| {
            let mut over = days.iter().filter(|it| **it < first);
            over.try_for_each(|it| self.store.remove_history(it))
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove old history");
        }
    }
}

/// Finished messages of the last seven days that a look-up means, the latest `limit` of
/// them, oldest first. No more than these are held in memory.
pub fn find(
    store: &Store,
    lookup: &Lookup,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Finished>, SpoolError> {
    let wanted = Signature::wanted(lookup);
    let id = match lookup {
        Lookup::Id(id) => Some(id.number()),
        Lookup::Address(_) | Lookup::MessageId(_) => None,
    };
    let mut latest: BTreeMap<(Timestamp, QueueId), Finished> = BTreeMap::new();
    // A message whose line was written twice is told once.
    let mut times: HashMap<QueueId, Timestamp> = HashMap::new();
    let first = now - KEPT;
    let first_day = day_of(first);
    for day in store.history_days()? {
        if day < first_day {
            continue;
        }
        each_line(store, &day, |line| {
            let Some((signature, words)) = split(line) else {
                return;
            };
            let may = signature.may_have(wanted) && id.is_none_or(|it| id_of(words) == Some(it));
            if !may || !is_whole(line, words) {
                return;
            }
            if let Ok((envelope, at, by)) = decode_finished(words)
                && at >= first
                && lookup.matches(&envelope)
            {
                let id = envelope.id;
                if let Some(before) = times.insert(id, at) {
                    latest.remove(&(before, id));
                }
                latest.insert((at, id), Finished { envelope, at, by });
                if latest.len() > limit
                    && let Some(((_, id), _)) = latest.pop_first()
                {
                    times.remove(&id);
                }
            }
        })?;
    }
    Ok(latest.into_values().collect())
}

fn day_of(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).date().to_string()
}

fn each_line(store: &Store, day: &str, mut show: impl FnMut(&[u8])) -> Result<(), SpoolError> {
    let path = store.history_path(day);
    let mut lines = BufReader::with_capacity(256 * 1024, store.open_history(day)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|it| SpoolError::io("read", &path, it))?;
        if read == 0 {
            return Ok(());
        }
        show(line.strip_suffix(b"\n").unwrap_or(&line));
    }
}

/// Signature and words of a line.
fn split(line: &[u8]) -> Option<(Signature, &[u8])> {
    let digits = std::str::from_utf8(line.get(9..41)?).ok()?;
    Some((Signature::from_hexadecimal(digits)?, line.get(42..)?))
}

fn is_whole(line: &[u8], words: &[u8]) -> bool {
    line.get(..8) == Some(format!("{:08x}", crc32c::crc32c(words)).as_bytes())
}

/// The id in the words of a finished message, without reading all of them: it is the
/// first number that is called so, because it is the envelope's first word.
fn id_of(words: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"envelope\":{\"id\":";
    let place = words.windows(NAME.len()).position(|it| it == NAME)?;
    let digits = &words[place + NAME.len()..];
    let length = digits.iter().position(|it| !it.is_ascii_digit())?;
    std::str::from_utf8(&digits[..length]).ok()?.parse().ok()
}

fn ends_with_newline(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::record::encode_finished;
    use crate::spool::tests::{envelope, mailbox};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn finished(number: u64, at: Timestamp) -> index::Finished {
        let id = QueueId::from_number(number);
        let envelope = envelope(id, "ann@example.org", &["bob@example.net"]);
        index::Finished {
            id: number,
            at,
            signature: Signature::of(&envelope),
            words: encode_finished(&envelope, at, "penstock"),
        }
    }

    fn numbers(store: &Store, limit: usize, now: Timestamp) -> Vec<u64> {
        let ann = Lookup::Address(mailbox("ann@example.org"));
        let found = find(store, &ann, limit, now).unwrap();
        found.iter().map(|it| it.envelope.id.number()).collect()
    }

    #[test]
    fn days_that_are_over_go_while_the_daemon_runs_and_nothing_older_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path()).unwrap().0);
        let mut history = History::new(store.clone());
        let start: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        for day in 0..20 {
            let at = start + DAY * day;
            history.append(&[finished(day as u64, at)], at).unwrap();
        }
        let now = start + DAY * 19 + SignedDuration::from_hours(1);
        assert_eq!(store.history_days().unwrap().len(), 8);
        // The twelfth finished seven days and an hour ago.
        assert_eq!(numbers(&store, 100, now), [13, 14, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn only_the_latest_are_told_and_each_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path()).unwrap().0);
        let mut history = History::new(store.clone());
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let at = |number: i64| now - SignedDuration::from_secs(100 - number);
        let all: Vec<_> = (0..100).map(|it| finished(it as u64, at(it))).collect();
        history.append(&all, now).unwrap();
        history.append(&all[98..], now).unwrap();
        assert_eq!(numbers(&store, 3, now), [97, 98, 99]);
        assert!(numbers(&store, 0, now).is_empty());
        assert_eq!(numbers(&store, 1_000, now).len(), 100);
    }
}
