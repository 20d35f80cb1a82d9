//! The index: answers questions that the log alone would have to be read whole for.
//!
//! It holds nothing that the log does not say, and no promise depends on it: whenever
//! anything about it is doubtful it is deleted and read from the log again. It follows
//! the log record by record, in batches of absolute values, each with the position up
//! to which the log is in it.
//!
//! Keys of the one tree, numbers big-endian:
//!
//! ```text
//! m id                         the entry of a message
//! q flow id                    may leave at once
//! r relay(hash) time id        waits for its next attempt
//! c flow                       a flow and its counts
//! p                            position, boot, format
//! ```

mod entry;
mod flows;
mod keys;
mod questions;
mod wanted;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::mail::{Envelope, HoldReason, QueueId, RecipientStatus};

use super::library::Place;
use super::query::Unreadable;
use super::record::{Messages, Position, Record, encode_finished};
use super::waiting::FlowKey;

use super::signature::Signature;
pub use entry::Entry;
use entry::Status;
use flows::Flows;
use keys::{flow_key, message_key, turn_key};
pub use questions::RetryPlace;
pub use wanted::Wanted;

/// Raised when the format of keys or values changes: the old index is deleted then.
const FORMAT: u32 = 3;
/// Messages of one batch. A message is at most three operations and two flows; larger
/// batches than 500 operations cost sled gigabytes of memory.
const BATCH_MESSAGES: usize = 90;
/// Flows of one batch that has nothing else in it.
const BATCH_FLOWS: usize = 400;
/// Messages of one record, so that a record never needs more than one batch.
pub const RECORD_MESSAGES: usize = 80;
/// Flows that come before the next look for those that are over.
const FLOWS_BEFORE_TIDY: usize = 1_000;

/// An error of sled, as text: there is only one answer to any of them.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct IndexError(pub String);

impl From<sled::Error> for IndexError {
    fn from(it: sled::Error) -> Self {
        Self(it.to_string())
    }
}

/// The index, open.
#[derive(Debug)]
pub struct Index {
    db: sled::Db,
    boot: String,
    state: Mutex<State>,
    /// Makes writes and lists fail.
    #[cfg(test)]
    pub broken: std::sync::atomic::AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    flows: Flows,
    live_bytes: u64,
    /// The sum of the fingerprints of all entries that are written.
    digest: u64,
    position: Option<Position>,
    /// Messages of the batch that is being gathered: as they were, and as they are.
    batch: HashMap<u64, (Option<Entry>, Option<Entry>)>,
    /// The newest message of all that are or were in it.
    newest: u64,
    /// Whether flows and position are written by [`Index::write`] alone, and not with every
    /// batch.
    hurried: bool,
    /// Whether entries were written behind the last position, which is therefore gone.
    ahead: bool,
    tidied: usize,
}

/// What has to be done besides, once a batch of records is in the index.
#[derive(Debug, Default)]
pub struct Consequences {
    /// Finished messages, for the history.
    pub finished: Vec<Finished>,
    /// Large files that no message needs any more.
    pub unneeded: Vec<String>,
}

/// A finished message, ready for the history.
#[derive(Debug)]
pub struct Finished {
    pub id: u64,
    pub at: Timestamp,
    pub signature: Signature,
    pub words: Vec<u8>,
}

/// What is written under `p`.
#[derive(Serialize, Deserialize)]
struct PositionForm {
    format: u32,
    boot: String,
    segment: u64,
    offset: u64,
    live_bytes: u64,
    digest: u64,
    next_flow: u32,
}

impl State {
    /// Moves what was gathered of messages into a batch of sled's.
    fn take_messages(&mut self, batch: &mut sled::Batch) {
        for (id, (old, new)) in self.batch.drain() {
            let old_place = old.as_ref().and_then(|it| turn_key(id, it, &self.flows));
            let new_place = new.as_ref().and_then(|it| turn_key(id, it, &self.flows));
            if let Some(key) = old_place.filter(|it| Some(it) != new_place.as_ref()) {
                batch.remove(key);
            }
            if let Some(old) = &old {
                let gone = fingerprint(id, &old.encode());
                self.digest = self.digest.wrapping_sub(gone);
            }
            match new {
                Some(entry) => {
                    let octets = entry.encode();
                    self.digest = self.digest.wrapping_add(fingerprint(id, &octets));
                    if let Some(key) = new_place {
                        batch.insert(key, octets.as_slice());
                    }
                    batch.insert(&message_key(id), octets);
                }
                None if old.is_some() => batch.remove(&message_key(id)),
                None => {}
            }
        }
    }
}

impl Index {
    /// Opens or makes an index.
    pub fn open(path: &Path, cache_bytes: u64, boot: String) -> Result<Self, IndexError> {
        let db = sled::Config::default()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(500))
            .open()?;
        let mut state = State::default();
        let read: Option<PositionForm> = db
            .get(b"p")?
            .and_then(|it| serde_json::from_slice(&it).ok())
            .filter(|it: &PositionForm| it.format == FORMAT);
        if let Some(form) = read {
            state.live_bytes = form.live_bytes;
            state.digest = form.digest;
            state.flows.next = form.next_flow;
            for found in db.scan_prefix(b"c") {
                let (key, value) = found?;
                let number = key.get(1..).and_then(|it| it.try_into().ok());
                let number = u32::from_be_bytes(number.ok_or_else(|| broken("flow"))?);
                if !state.flows.restore(number, &value) {
                    return Err(broken("flow"));
                }
            }
            // The position of another boot is of use only after a clean end; the
            // caller knows whether there was one.
            state.position = Some(Position {
                segment: form.segment,
                offset: form.offset,
            });
            if form.boot != boot {
                tracing::debug!("the index was written before the machine started");
            }
        }
        if let Some(newest) = db.scan_prefix(b"m").next_back() {
            state.newest = keys::id_at(&newest?.0, 1)?.number();
        }
        Ok(Self {
            db,
            boot,
            state: Mutex::new(state),
            #[cfg(test)]
            broken: false.into(),
        })
    }

    /// The boot in which an index was last written, its position checked by the caller.
    pub fn written_in(&self) -> Option<String> {
        let read = self.db.get(b"p").ok()??;
        Some(serde_json::from_slice::<PositionForm>(&read).ok()?.boot)
    }

    #[cfg(test)]
    fn fail_on_order(&self) -> Result<(), IndexError> {
        match self.broken.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(broken("on order")),
            false => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "only tests make it fail")]
    fn fail_on_order(&self) -> Result<(), IndexError> {
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where the log is in the index.
    pub fn position(&self) -> Option<Position> {
        self.state().position
    }

    /// Octets of the log that waiting messages need.
    pub fn live_bytes(&self) -> u64 {
        self.state().live_bytes
    }

    /// Messages by the counts of their flows.
    pub fn messages(&self) -> u64 {
        let state = self.state();
        let flows = state.flows.iter();
        flows
            .flat_map(|(_, it)| [it.ready, it.deferred, it.held])
            .map(|it| it.messages)
            .sum()
    }

    /// Whether the entries are those that were there when the position was written: sled
    /// promises it, and this looks at every one.
    pub fn is_whole(&self) -> Result<bool, IndexError> {
        let mut digest = 0u64;
        for read in self.db.scan_prefix(b"m") {
            let (name, octets) = read?;
            let id = keys::id_at(&name, 1)?.number();
            digest = digest.wrapping_add(fingerprint(id, &octets));
        }
        Ok(digest == self.state().digest)
    }

    /// Follows the log by one record of `bytes` octets, which ends at `next`.
    pub fn follow(
        &self,
        at: Position,
        next: Position,
        bytes: u64,
        record: &Record,
        consequences: &mut Consequences,
    ) -> Result<(), IndexError> {
        let mut state = self.state();
        if let Record::Messages(messages) = record {
            if state.batch.len() + messages.items.len() > BATCH_MESSAGES {
                match state.hurried {
                    true => self.write_ahead(&mut state)?,
                    false => self.write_batch(&mut state)?,
                }
            }
            self.follow_messages(&mut state, at, bytes, messages, consequences)?;
        }
        state.position = Some(next);
        Ok(())
    }

    /// Writes what was gathered.
    pub fn write(&self) -> Result<(), IndexError> {
        self.write_batch(&mut self.state())
    }

    /// Has much of the log followed faster, until it is told otherwise: a kill between two
    /// writes then costs a rebuild.
    pub fn hurry(&self, hurried: bool) {
        self.state().hurried = hurried;
    }

    fn follow_messages(
        &self,
        state: &mut State,
        at: Position,
        bytes: u64,
        messages: &Messages,
        consequences: &mut Consequences,
    ) -> Result<(), IndexError> {
        let inline: u64 = messages
            .items
            .iter()
            .filter_map(|it| it.content.as_ref())
            .filter(|it| it.file.is_none())
            .map(|it| it.length)
            .sum();
        // Each message's share of the frame, its own content aside.
        let share = bytes.saturating_sub(inline) / messages.items.len().max(1) as u64;
        for (index, item) in messages.items.iter().enumerate() {
            let envelope = &item.envelope;
            let place = Place {
                position: at,
                item: index as u32,
            };
            if envelope.is_finished() {
                consequences.finished.push(Finished {
                    id: envelope.id.number(),
                    at: messages.at,
                    signature: Signature::of(envelope),
                    words: encode_finished(envelope, messages.at, &messages.by),
                });
            }
            let old = self.current(state, envelope.id.number())?;
            let new = match (&item.content, &old) {
                // What is not here any more does not come back without its content.
                (None, None) => continue,
                _ if envelope.is_finished() => None,
                (Some(content), _) => {
                    let flow = state
                        .flows
                        .number(FlowKey::of(envelope), &envelope.mailing.label);
                    let mut entry = new_entry(envelope, flow, place);
                    entry.content = place;
                    entry.large = content
                        .file
                        .as_ref()
                        .and_then(|it| u64::from_str_radix(it, 16).ok());
                    let behind = if content.file.is_none() {
                        content.length
                    } else {
                        0
                    };
                    entry.footprint = share + behind;
                    Some(entry)
                }
                (None, Some(old)) => {
                    let flow = state
                        .flows
                        .number(FlowKey::of(envelope), &envelope.mailing.label);
                    let mut entry = new_entry(envelope, flow, place);
                    entry.content = old.content;
                    entry.large = old.large;
                    entry.footprint = old.footprint;
                    Some(entry)
                }
            };
            if let (None, Some(name)) = (&new, old.as_ref().and_then(|it| it.large)) {
                consequences.unneeded.push(format!("{name:016x}"));
            }
            if let Some(old) = &old {
                state.flows.take(old);
                if new.is_none() && was_deleted(envelope) {
                    state.flows.deleted(old.flow);
                }
                state.live_bytes = state.live_bytes.saturating_sub(old.footprint);
            }
            if let Some(new) = &new {
                if old.is_none() {
                    state.flows.accepted(new.flow, new.accepted);
                }
                state.flows.add(new);
                state.live_bytes += new.footprint;
            }
            state.newest = state.newest.max(envelope.id.number());
            match state.batch.get_mut(&envelope.id.number()) {
                Some(change) => change.1 = new,
                None => {
                    state.batch.insert(envelope.id.number(), (old, new));
                }
            }
        }
        Ok(())
    }

    fn current(&self, state: &State, id: u64) -> Result<Option<Entry>, IndexError> {
        match state.batch.get(&id) {
            Some((_, now)) => Ok(now.clone()),
            None if id > state.newest => Ok(None),
            None => self.stored(id),
        }
    }

    fn stored(&self, id: u64) -> Result<Option<Entry>, IndexError> {
        match self.db.get(message_key(id))? {
            None => Ok(None),
            Some(octets) => Entry::decode(&octets)
                .map(Some)
                .ok_or_else(|| broken("entry")),
        }
    }

    /// Writes the messages that were gathered without their flows, and without a position,
    /// so that what a kill leaves of it is of no use to anybody.
    fn write_ahead(&self, state: &mut State) -> Result<(), IndexError> {
        self.fail_on_order()?;
        let mut batch = sled::Batch::default();
        if !std::mem::replace(&mut state.ahead, true) {
            batch.remove(b"p");
        }
        state.take_messages(&mut batch);
        self.db.apply_batch(batch)?;
        Ok(())
    }

    fn write_batch(&self, state: &mut State) -> Result<(), IndexError> {
        let Some(position) = state.position else {
            return Ok(());
        };
        self.fail_on_order()?;
        if state.ahead {
            let dirty = std::mem::take(&mut state.flows.dirty);
            for numbers in Vec::from_iter(dirty).chunks(BATCH_FLOWS) {
                let mut batch = sled::Batch::default();
                state.flows.write(numbers.iter().copied(), &mut batch);
                self.db.apply_batch(batch)?;
            }
        }
        let mut batch = sled::Batch::default();
        state.take_messages(&mut batch);
        let dirty = std::mem::take(&mut state.flows.dirty);
        state.flows.write(dirty, &mut batch);
        let form = PositionForm {
            format: FORMAT,
            boot: self.boot.clone(),
            segment: position.segment,
            offset: position.offset,
            live_bytes: state.live_bytes,
            digest: state.digest,
            next_flow: state.flows.next,
        };
        let form = serde_json::to_vec(&form).map_err(|it| IndexError(it.to_string()))?;
        batch.insert(b"p", form);
        self.db.apply_batch(batch)?;
        state.ahead = false;
        Ok(())
    }

    /// Forgets flows that are over, now and then.
    pub fn tidy(&self, now: Timestamp) -> Result<(), IndexError> {
        let mut state = self.state();
        if state.flows.len() < 2 * state.tidied + FLOWS_BEFORE_TIDY {
            return Ok(());
        }
        let over = state.flows.forget_over(now);
        state.tidied = state.flows.len();
        for number in over {
            self.db.remove(flow_key(number))?;
        }
        Ok(())
    }

    /// Hands what sled buffers to the system, so that a kill loses none of it.
    pub fn flush(&self) -> Result<(), IndexError> {
        self.db.flush()?;
        Ok(())
    }

    /// Holds a message of which nothing can be read just now.
    pub fn hold_damaged(&self, id: QueueId) -> Result<(), IndexError> {
        let mut state = self.state();
        if let Some(old) = self.current(&state, id.number())? {
            let mut new = old.clone();
            new.status = Status::Held(HoldReason::Damaged);
            state.flows.take(&old);
            state.flows.add(&new);
            match state.batch.get_mut(&id.number()) {
                Some(change) => change.1 = Some(new),
                None => {
                    state.batch.insert(id.number(), (Some(old), Some(new)));
                }
            }
            self.write_batch(&mut state)?;
        }
        Ok(())
    }

    /// What there is to say of a message whose records cannot be read.
    pub fn unreadable(&self, id: QueueId, entry: &Entry) -> Option<Unreadable> {
        let flow = self.state().flows.get(entry.flow)?.key.clone();
        Some(Unreadable {
            id,
            flow,
            accepted: entry::timestamp(entry.accepted),
            size_bytes: entry.size_bytes,
            recipients: entry.recipients,
        })
    }

    /// Forgets a message of which nothing can be read.
    pub fn forget(&self, id: QueueId) -> Result<(), IndexError> {
        let mut state = self.state();
        if let Some(old) = self.current(&state, id.number())? {
            state.flows.take(&old);
            state.live_bytes = state.live_bytes.saturating_sub(old.footprint);
            match state.batch.get_mut(&id.number()) {
                Some(change) => change.1 = None,
                None => {
                    state.batch.insert(id.number(), (Some(old), None));
                }
            }
            self.write_batch(&mut state)?;
        }
        Ok(())
    }
}

/// Whether nothing else became of a message.
fn was_deleted(envelope: &Envelope) -> bool {
    let mut recipients = envelope.recipients.iter();
    recipients.all(|it| it.status == RecipientStatus::Deleted)
}

fn new_entry(envelope: &Envelope, flow: u32, place: Place) -> Entry {
    Entry {
        flow,
        status: Status::of(&envelope.state),
        origin: envelope.origin,
        accepted: envelope.accepted.as_millisecond(),
        size_bytes: envelope.size_bytes,
        wire_bytes: envelope.wire_bytes,
        recipients: u32::try_from(envelope.waiting().count()).unwrap_or(u32::MAX),
        envelope: place,
        content: Place::default(),
        large: None,
        footprint: 0,
        signature: Signature::of(envelope),
    }
}

/// FNV-1a over a message's number and the octets of its entry.
fn fingerprint(id: u64, octets: &[u8]) -> u64 {
    id.to_be_bytes()
        .iter()
        .chain(octets)
        .fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
            (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

fn broken(what: &str) -> IndexError {
    IndexError(format!("malformed {what}"))
}
