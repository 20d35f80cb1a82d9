//! What the index keeps of one message: where it is, and what lists and limits ask for.
//!
//! Written compactly and without a version of its own: the index is thrown away when
//! its format changes.

use jiff::Timestamp;

use crate::mail::{Hold, HoldReason, Origin, QueueId, State};
use crate::spool::library::Place;
use crate::spool::query::StateFilter;
use crate::spool::record::Position;
use crate::spool::signature::Signature;
use crate::spool::waiting::{Amount, FlowKey, Waiting};

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The number of its flow.
    pub flow: u32,
    pub status: Status,
    pub origin: Origin,
    /// Milliseconds.
    pub accepted: i64,
    pub size_bytes: u64,
    pub wire_bytes: u64,
    /// Unsettled recipients.
    pub recipients: u32,
    /// Where its present envelope is.
    pub envelope: Place,
    /// Where its content is.
    pub content: Place,
    /// The name of its large file.
    pub large: Option<u64>,
    /// Octets of the log that it still needs.
    pub footprint: u64,
    pub signature: Signature,
}

/// A state, as far as the index tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ready,
    /// Until then, in milliseconds.
    Deferred(i64),
    Held(HoldReason),
}

impl Status {
    /// The state of an envelope.
    pub fn of(state: &State) -> Self {
        match state {
            State::Waiting { not_before: None } => Self::Ready,
            State::Waiting {
                not_before: Some(at),
            } => Self::Deferred(at.as_millisecond()),
            State::Held(Hold { reason, .. }) => Self::Held(*reason),
        }
    }

    /// Whether a filter means it.
    pub fn is(self, filter: StateFilter) -> bool {
        match (filter, self) {
            (StateFilter::Ready, Self::Ready)
            | (StateFilter::Deferred, Self::Deferred(_))
            | (StateFilter::Held, Self::Held(_)) => true,
            (StateFilter::HeldFor(wanted), Self::Held(reason)) => wanted == reason,
            (
                StateFilter::Ready
                | StateFilter::Deferred
                | StateFilter::Held
                | StateFilter::HeldFor(_),
                Self::Ready | Self::Deferred(_) | Self::Held(_),
            ) => false,
        }
    }
}

impl Entry {
    /// Whether it is held for this reason.
    pub fn is_held_for(&self, reason: HoldReason) -> bool {
        self.status == Status::Held(reason)
    }

    /// What it adds to the counts.
    pub fn amount(&self) -> Amount {
        Amount {
            messages: 1,
            recipients: u64::from(self.recipients),
            wire_bytes: self.wire_bytes,
        }
    }

    /// The message as the release sees it.
    pub fn waiting(&self, id: QueueId, flow: &FlowKey) -> Waiting {
        Waiting {
            id,
            flow: flow.clone(),
            wire_bytes: self.wire_bytes,
            recipients: self.recipients,
            origin: self.origin,
            accepted: timestamp(self.accepted),
            not_before: match self.status {
                Status::Deferred(at) => Some(timestamp(at)),
                Status::Ready | Status::Held(_) => None,
            },
        }
    }

    /// Its octets.
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(96);
        let (status, until) = match self.status {
            Status::Ready => (0, 0),
            Status::Deferred(at) => (1, at),
            Status::Held(reason) => {
                let place = HoldReason::ALL.iter().position(|it| *it == reason);
                (2 + place.unwrap_or(0) as u64, 0)
            }
        };
        for number in [
            u64::from(self.flow),
            status,
            until.cast_unsigned(),
            self.origin as u64,
            self.accepted.cast_unsigned(),
            self.size_bytes,
            self.wire_bytes,
            u64::from(self.recipients),
            self.envelope.position.segment,
            self.envelope.position.offset,
            u64::from(self.envelope.item),
            self.content.position.segment,
            self.content.position.offset,
            u64::from(self.content.item),
            self.footprint,
        ] {
            number_to(&mut octets, number);
        }
        octets.extend_from_slice(&self.signature.to_bytes());
        if let Some(name) = self.large {
            octets.extend_from_slice(&name.to_le_bytes());
        }
        octets
    }

    /// Reads its octets; none when they are not an entry's.
    pub fn decode(mut octets: &[u8]) -> Option<Self> {
        let octets = &mut octets;
        let flow = small(octets)?;
        let status = number_from(octets)?;
        let until = number_from(octets)?.cast_signed();
        let origin = *ORIGINS.get(number_from(octets)? as usize)?;
        let status = match status {
            0 => Status::Ready,
            1 => Status::Deferred(until),
            held => Status::Held(*HoldReason::ALL.get(held as usize - 2)?),
        };
        let accepted = number_from(octets)?.cast_signed();
        let (size_bytes, wire_bytes) = (number_from(octets)?, number_from(octets)?);
        let recipients = small(octets)?;
        let envelope = place_from(octets)?;
        let content = place_from(octets)?;
        let footprint = number_from(octets)?;
        let (signature, rest) = octets.split_first_chunk()?;
        let large = rest.first_chunk().map(|it| u64::from_le_bytes(*it));
        Some(Self {
            flow,
            status,
            origin,
            accepted,
            size_bytes,
            wire_bytes,
            recipients,
            envelope,
            content,
            large,
            footprint,
            signature: Signature::from_bytes(*signature),
        })
    }
}

const ORIGINS: [Origin; 5] = [
    Origin::Submission,
    Origin::Report,
    Origin::Warning,
    Origin::Verification,
    Origin::Alarm,
];

/// Milliseconds that were a timestamp before.
pub fn timestamp(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Seven bits an octet, the lowest first.
fn number_to(octets: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        octets.push(number as u8 | 128);
        number >>= 7;
    }
    octets.push(number as u8);
}

fn number_from(octets: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (octet, rest) = octets.split_first()?;
        *octets = rest;
        number |= u64::from(octet & 127) << shift;
        if octet & 128 == 0 {
            return Some(number);
        }
    }
    None
}

fn small(octets: &mut &[u8]) -> Option<u32> {
    u32::try_from(number_from(octets)?).ok()
}

fn place_from(octets: &mut &[u8]) -> Option<Place> {
    let (segment, offset) = (number_from(octets)?, number_from(octets)?);
    Some(Place {
        position: Position { segment, offset },
        item: small(octets)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_as_itself() {
        for (origin, status) in ORIGINS.into_iter().zip([
            Status::Ready,
            Status::Deferred(-1),
            Status::Deferred(1_790_000_000_000),
            Status::Held(HoldReason::Administrator),
            Status::Held(HoldReason::Damaged),
        ]) {
            let entry = Entry {
                flow: u32::MAX,
                status,
                origin,
                accepted: 1_790_000_000_000,
                size_bytes: u64::MAX,
                wire_bytes: 127,
                recipients: 128,
                envelope: Place::default(),
                content: Place {
                    position: Position {
                        segment: 1 << 40,
                        offset: 300,
                    },
                    item: 7,
                },
                large: (origin == Origin::Alarm).then_some(9),
                footprint: 0,
                signature: Signature::domain("example.nl"),
            };
            let octets = entry.encode();
            assert_eq!(Entry::decode(&octets), Some(entry));
            for length in 0..octets.len().min(16) {
                assert_eq!(Entry::decode(&octets[..length]), None);
            }
        }
    }
}
