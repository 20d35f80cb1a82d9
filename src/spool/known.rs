//! What every checkpoint carries: the small state that must not need the whole log.

use std::collections::BTreeMap;

use crate::mail::QueueId;

use super::change::Lease;
use super::frame::Frame;
use super::record::{Checkpoint, FinalDot, Kind, LedgerAt, Position, Record};

/// The small state after some record of the log.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub last_id: u64,
    pub last_grant: u64,
    pub notes: BTreeMap<(String, String), serde_json::Value>,
    /// Final dots without a reply, by message.
    pub dotted: BTreeMap<u64, Vec<usize>>,
    /// Leases without an end, by grant; each lease has one item.
    pub open: BTreeMap<u64, Lease>,
    pub ledger: Option<Ledger>,
}

/// A limit ledger as it was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    pub octets: Vec<u8>,
    /// Records from here on may not be in it yet.
    pub from: Position,
}

impl Known {
    /// Follows the log by one record. `ledger` is what stands behind a checkpoint.
    pub fn follow(&mut self, record: &Record, ledger: Option<Vec<u8>>) {
        match record {
            Record::Void | Record::Closed => {}
            Record::Messages(it) => {
                for item in &it.items {
                    let id = item.envelope.id.number();
                    self.last_id = self.last_id.max(id);
                    if it.kind == Kind::Settled || item.envelope.is_finished() {
                        self.dotted.remove(&id);
                    }
                }
                if let Some((grant, _)) = it.released {
                    self.open.remove(&grant);
                }
            }
            Record::Leased(it) => {
                for item in &it.items {
                    self.last_grant = self.last_grant.max(item.grant);
                    let one = Lease {
                        items: vec![*item],
                        ..it.clone()
                    };
                    self.open.insert(item.grant, one);
                }
            }
            Record::Returned(it) => {
                for grant in it {
                    self.open.remove(grant);
                }
            }
            Record::FinalDot(it) => {
                self.dotted.insert(it.id.number(), it.recipients.clone());
            }
            Record::Note(it) => {
                let key = (it.kind.clone(), it.name.clone());
                match &it.value {
                    Some(value) => self.notes.insert(key, value.clone()),
                    None => self.notes.remove(&key),
                };
            }
            Record::Checkpoint(it) => {
                *self = Self {
                    last_id: it.last_id.max(self.last_id),
                    last_grant: it.last_grant.max(self.last_grant),
                    notes: it.notes.clone(),
                    dotted: it
                        .dotted
                        .iter()
                        .map(|it| (it.id.number(), it.recipients.clone()))
                        .collect(),
                    open: it
                        .open
                        .iter()
                        .filter_map(|it| Some((it.items.first()?.grant, it.clone())))
                        .collect(),
                    ledger: ledger
                        .zip(it.ledger)
                        .map(|(octets, at)| Ledger {
                            octets,
                            from: at.from,
                        })
                        // A damaged ledger: the one before it, and what came after that.
                        .or(self.ledger.take()),
                };
            }
        }
    }

    /// The frame that opens a segment.
    pub fn checkpoint(&self, previous: Option<Position>) -> Frame {
        let octets = self.ledger.as_ref().map(|it| it.octets.as_slice());
        let checkpoint = Checkpoint {
            last_id: self.last_id,
            last_grant: self.last_grant,
            previous,
            ledger: self.ledger.as_ref().map(|it| LedgerAt {
                length: u32::try_from(it.octets.len()).unwrap_or(u32::MAX),
                checksum: crc32c::crc32c(&it.octets),
                from: it.from,
            }),
            open: self.open.values().cloned().collect(),
            dotted: self
                .dotted
                .iter()
                .map(|(id, recipients)| FinalDot {
                    id: QueueId::from_number(*id),
                    recipients: recipients.clone(),
                })
                .collect(),
            notes: self.notes.clone(),
        };
        Frame::new(
            &Record::Checkpoint(Box::new(checkpoint)),
            &[octets.unwrap_or_default()],
        )
    }
}
