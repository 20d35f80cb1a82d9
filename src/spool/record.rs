//! Records of the log as they are written: versioned, self-describing, checked when read.
//!
//! A record's words are JSON: what a later version adds, an earlier one skips, and what
//! an earlier one did not write yet has a default. Only a change that an old reader
//! must not overlook raises [`VERSION`]. The types here are the written form; the rest
//! of the program sees [`Envelope`] and the types of [`change`](super::change).

mod envelope;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::mail::{Envelope, QueueId};

use super::change::{Lease, Leased, Released};
use envelope::EnvelopeForm;

/// The version of records that this program writes, and the highest that it reads.
pub const VERSION: u8 = 1;

/// What kind of record a frame holds; written as one octet in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A region that holds nothing: where recovery found a torn record.
    Void,
    /// Messages were accepted.
    Accepted,
    /// Live messages were written again, because their old segment is to go.
    Moved,
    /// Budget was reserved.
    Leased,
    /// Reservations were given back.
    Returned,
    /// A final dot is about to be sent.
    FinalDot,
    /// A transaction ended.
    Settled,
    /// Messages were changed.
    Changed,
    /// A small value by kind and name.
    Note,
    /// What must be known without reading any earlier segment.
    Checkpoint,
    /// The spool was closed in good order.
    Closed,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Void,
        Self::Accepted,
        Self::Moved,
        Self::Leased,
        Self::Returned,
        Self::FinalDot,
        Self::Settled,
        Self::Changed,
        Self::Note,
        Self::Checkpoint,
        Self::Closed,
    ];

    /// The octet for it.
    pub fn octet(self) -> u8 {
        self as u8
    }

    /// The kind with this octet.
    pub fn from_octet(octet: u8) -> Option<Self> {
        Self::ALL.get(usize::from(octet)).copied()
    }
}

/// A record as the program sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Void,
    /// `Accepted`, `Moved`, `Settled` or `Changed`: messages in their present state.
    Messages(Messages),
    Leased(Lease),
    Returned(Vec<u64>),
    FinalDot(FinalDot),
    Note(Note),
    Checkpoint(Box<Checkpoint>),
    Closed,
}

/// What the four kinds of records about messages have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Messages {
    pub kind: Kind,
    /// When it was written.
    pub at: Timestamp,
    /// Who caused it.
    pub by: String,
    /// Which transaction ended, and how.
    pub released: Option<(u64, Released)>,
    pub items: Vec<Item>,
}

/// One message of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its present state, whole.
    pub envelope: Envelope,
    /// Where its content is; none when an earlier record says it.
    pub content: Option<ContentAt>,
}

/// Where a content is, and what its checksum must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ContentAt {
    /// A file in `large/`; none: behind the words of this very record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where it begins behind the words.
    #[serde(default)]
    pub offset: u32,
    pub length: u64,
    /// CRC-32C.
    pub checksum: u32,
}

/// A final dot is about to be sent for these recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalDot {
    pub id: QueueId,
    pub recipients: Vec<usize>,
}

/// A small value by kind and name; none: forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    pub kind: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
}

/// A place in the log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize,
)]
pub struct Position {
    pub segment: u64,
    pub offset: u64,
}

/// What must be known without reading any earlier segment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checkpoint {
    pub last_id: u64,
    pub last_grant: u64,
    /// The segment before this one, and where its last good frame ends.
    pub previous: Option<Position>,
    /// The ledger is the content of the record: its length and checksum, and the
    /// place of the first record that it may not know.
    pub ledger: Option<LedgerAt>,
    /// Leases without an end, each grant alone.
    pub open: Vec<Lease>,
    /// Final dots without a reply.
    pub dotted: Vec<FinalDot>,
    pub notes: BTreeMap<(String, String), serde_json::Value>,
}

/// The ledger that follows a checkpoint's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerAt {
    pub length: u32,
    pub checksum: u32,
    /// Records from here on may not be in it yet.
    pub from: Position,
}

/// Why the words of a record could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A later version of this program wrote it.
    #[error("record version {0} is newer than this program")]
    Newer(u8),
    /// The words are not those of such a record.
    #[error("not a record: {0}")]
    Malformed(String),
}

impl Record {
    /// The kind that its frame says.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Void => Kind::Void,
            Self::Messages(it) => it.kind,
            Self::Leased(_) => Kind::Leased,
            Self::Returned(_) => Kind::Returned,
            Self::FinalDot(_) => Kind::FinalDot,
            Self::Note(_) => Kind::Note,
            Self::Checkpoint(_) => Kind::Checkpoint,
            Self::Closed => Kind::Closed,
        }
    }

    /// The message that its frame names, so that damage to the words still tells whom
    /// it concerns; zero when there is none.
    pub fn subject(&self) -> u64 {
        match self {
            Self::Messages(it) => it.items.first().map_or(0, |it| it.envelope.id.number()),
            Self::FinalDot(it) => it.id.number(),
            Self::Leased(it) => it.items.first().map_or(0, |it| it.id.number()),
            Self::Void | Self::Returned(_) | Self::Note(_) | Self::Checkpoint(_) | Self::Closed => {
                0
            }
        }
    }

    /// The words of it.
    pub fn encode(&self) -> Vec<u8> {
        let words = match self {
            Self::Void | Self::Closed => return Vec::new(),
            Self::Messages(it) => serde_json::to_vec(&MessagesForm::from(it)),
            Self::Leased(it) => serde_json::to_vec(&LeaseForm::from(it)),
            Self::Returned(it) => serde_json::to_vec(it),
            Self::FinalDot(it) => serde_json::to_vec(&DotForm::from(it)),
            Self::Note(it) => serde_json::to_vec(it),
            Self::Checkpoint(it) => serde_json::to_vec(&CheckpointForm::from(&**it)),
        };
        // Every form has string keys and no type whose serialisation can fail.
        words.expect("records are plain data")
    }

    /// Reads the words of a record of this kind and version.
    pub fn decode(kind: Kind, version: u8, words: &[u8]) -> Result<Self, RecordError> {
        if version > VERSION {
            return Err(RecordError::Newer(version));
        }
        Ok(match kind {
            Kind::Void => Self::Void,
            Kind::Closed => Self::Closed,
            Kind::Accepted | Kind::Moved | Kind::Settled | Kind::Changed => {
                Self::Messages(read::<MessagesForm>(words)?.into_messages(kind)?)
            }
            Kind::Leased => Self::Leased(read::<LeaseForm>(words)?.into_lease()?),
            Kind::Returned => Self::Returned(read(words)?),
            Kind::FinalDot => Self::FinalDot(read::<DotForm>(words)?.into()),
            Kind::Note => Self::Note(read(words)?),
            Kind::Checkpoint => {
                Self::Checkpoint(Box::new(read::<CheckpointForm>(words)?.into_checkpoint()?))
            }
        })
    }
}

fn read<'a, T: Deserialize<'a>>(words: &'a [u8]) -> Result<T, RecordError> {
    // The error's text names a place and a type, never a value of the mail.
    serde_json::from_slice(words)
        .map_err(|it| RecordError::Malformed(format!("line {}, column {}", it.line(), it.column())))
}

fn malformed(what: &str) -> RecordError {
    RecordError::Malformed(what.to_owned())
}

fn time(milliseconds: i64) -> Result<Timestamp, RecordError> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| malformed("time"))
}

/// A finished message, as the history keeps it.
#[derive(Serialize, Deserialize)]
struct FinishedForm {
    at: i64,
    by: String,
    envelope: EnvelopeForm,
}

/// The words of a finished message for the history.
pub fn encode_finished(envelope: &Envelope, at: Timestamp, by: &str) -> Vec<u8> {
    let form = FinishedForm {
        at: at.as_millisecond(),
        by: by.to_owned(),
        envelope: EnvelopeForm::from(envelope),
    };
    serde_json::to_vec(&form).expect("records are plain data")
}

/// Reads the words of a finished message.
pub fn decode_finished(words: &[u8]) -> Result<(Envelope, Timestamp, String), RecordError> {
    let form: FinishedForm = read(words)?;
    Ok((form.envelope.into_envelope()?, time(form.at)?, form.by))
}

#[derive(Serialize, Deserialize)]
struct MessagesForm {
    at: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    released: Option<ReleasedForm>,
    items: Vec<ItemForm>,
}

#[derive(Serialize, Deserialize)]
struct ItemForm {
    envelope: EnvelopeForm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<ContentAt>,
}

impl From<&Messages> for MessagesForm {
    fn from(it: &Messages) -> Self {
        Self {
            at: it.at.as_millisecond(),
            by: it.by.clone(),
            grant: it.released.map(|it| it.0),
            released: it.released.map(|it| it.1.into()),
            items: it
                .items
                .iter()
                .map(|it| ItemForm {
                    envelope: EnvelopeForm::from(&it.envelope),
                    content: it.content.clone(),
                })
                .collect(),
        }
    }
}

impl MessagesForm {
    fn into_messages(self, kind: Kind) -> Result<Messages, RecordError> {
        let released = match (self.grant, self.released) {
            (Some(grant), Some(it)) => Some((grant, it.into_released()?)),
            (None, _) | (_, None) => None,
        };
        let items = self
            .items
            .into_iter()
            .map(|it| {
                Ok(Item {
                    envelope: it.envelope.into_envelope()?,
                    content: it.content,
                })
            })
            .collect::<Result<_, RecordError>>()?;
        Ok(Messages {
            kind,
            at: time(self.at)?,
            by: self.by,
            released,
            items,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ReleasedForm {
    Sent(MomentForm),
    NotSent,
    InDoubt(MomentForm),
}

/// Uptime in nanoseconds, wall time in milliseconds, boot.
#[derive(Serialize, Deserialize)]
struct MomentForm(u64, i64, u64);

impl From<Moment> for MomentForm {
    fn from(it: Moment) -> Self {
        let uptime = u64::try_from(it.uptime.as_nanos()).unwrap_or(u64::MAX);
        Self(uptime, it.wall.as_millisecond(), it.boot)
    }
}

impl MomentForm {
    fn into_moment(self) -> Result<Moment, RecordError> {
        let Self(uptime, wall, boot) = self;
        Ok(Moment {
            uptime: Duration::from_nanos(uptime),
            wall: time(wall)?,
            boot,
        })
    }
}

impl From<Released> for ReleasedForm {
    fn from(it: Released) -> Self {
        match it {
            Released::Sent { at } => Self::Sent(at.into()),
            Released::NotSent => Self::NotSent,
            Released::InDoubt { at } => Self::InDoubt(at.into()),
        }
    }
}

impl ReleasedForm {
    fn into_released(self) -> Result<Released, RecordError> {
        Ok(match self {
            Self::Sent(at) => Released::Sent {
                at: at.into_moment()?,
            },
            Self::NotSent => Released::NotSent,
            Self::InDoubt(at) => Released::InDoubt {
                at: at.into_moment()?,
            },
        })
    }
}

#[derive(Serialize, Deserialize)]
struct LeaseForm {
    relay: String,
    at: MomentForm,
    /// Grant, message, recipients, octets on the wire.
    items: Vec<(u64, u64, u32, u64)>,
}

impl From<&Lease> for LeaseForm {
    fn from(it: &Lease) -> Self {
        let items = it.items.iter();
        Self {
            relay: it.relay.clone(),
            at: it.at.into(),
            items: items
                .map(|it| (it.grant, it.id.number(), it.recipients, it.wire_bytes))
                .collect(),
        }
    }
}

impl LeaseForm {
    fn into_lease(self) -> Result<Lease, RecordError> {
        let items = self.items.into_iter();
        Ok(Lease {
            relay: self.relay,
            at: self.at.into_moment()?,
            items: items
                .map(|(grant, id, recipients, wire_bytes)| Leased {
                    grant,
                    id: QueueId::from_number(id),
                    recipients,
                    wire_bytes,
                })
                .collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct DotForm {
    id: u64,
    recipients: Vec<usize>,
}

impl From<&FinalDot> for DotForm {
    fn from(it: &FinalDot) -> Self {
        Self {
            id: it.id.number(),
            recipients: it.recipients.clone(),
        }
    }
}

impl From<DotForm> for FinalDot {
    fn from(it: DotForm) -> Self {
        Self {
            id: QueueId::from_number(it.id),
            recipients: it.recipients,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CheckpointForm {
    last_id: u64,
    #[serde(default)]
    last_grant: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ledger: Option<LedgerAt>,
    #[serde(default)]
    open: Vec<LeaseForm>,
    #[serde(default)]
    dotted: Vec<DotForm>,
    #[serde(default)]
    notes: Vec<Note>,
}

impl From<&Checkpoint> for CheckpointForm {
    fn from(it: &Checkpoint) -> Self {
        Self {
            last_id: it.last_id,
            last_grant: it.last_grant,
            previous: it.previous,
            ledger: it.ledger,
            open: it.open.iter().map(LeaseForm::from).collect(),
            dotted: it.dotted.iter().map(DotForm::from).collect(),
            notes: it
                .notes
                .iter()
                .map(|((kind, name), value)| Note {
                    kind: kind.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                })
                .collect(),
        }
    }
}

impl CheckpointForm {
    fn into_checkpoint(self) -> Result<Checkpoint, RecordError> {
        let open = self.open.into_iter().map(LeaseForm::into_lease);
        let notes = self.notes.into_iter();
        Ok(Checkpoint {
            last_id: self.last_id,
            last_grant: self.last_grant,
            previous: self.previous,
            ledger: self.ledger,
            open: open.collect::<Result<_, _>>()?,
            dotted: self.dotted.into_iter().map(FinalDot::from).collect(),
            notes: notes
                .filter_map(|it| Some(((it.kind, it.name), it.value?)))
                .collect(),
        })
    }
}
