//! The keys of the index's one tree; the table is in the module above.

use super::super::signature::fnv;
use super::entry::{Entry, Status};
use super::flows::Flows;
use super::{IndexError, broken};
use crate::mail::QueueId;

pub fn message_key(id: u64) -> [u8; 9] {
    let mut key = [b'm'; 9];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

pub fn flow_key(number: u32) -> [u8; 5] {
    let mut key = [b'c'; 5];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

pub fn ready_key(flow: u32, id: u64) -> Vec<u8> {
    let mut key = vec![b'q'];
    key.extend_from_slice(&flow.to_be_bytes());
    key.extend_from_slice(&id.to_be_bytes());
    key
}

pub fn retry_key(relay: &str, at: i64, id: u64) -> Vec<u8> {
    let mut key = vec![b'r'];
    key.extend_from_slice(&fnv("relay", relay).to_be_bytes());
    // The sign bit turned over: earlier times sort first.
    key.extend_from_slice(&(at.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    key.extend_from_slice(&id.to_be_bytes());
    key
}

/// Where a message stands in line, if it does.
pub fn turn_key(id: u64, entry: &Entry, flows: &Flows) -> Option<Vec<u8>> {
    match entry.status {
        Status::Ready => Some(ready_key(entry.flow, id)),
        Status::Deferred(at) => {
            let flow = flows.get(entry.flow)?;
            Some(retry_key(&flow.key.relay, at, id))
        }
        Status::Held(_) => None,
    }
}

pub fn id_at(key: &[u8], at: usize) -> Result<QueueId, IndexError> {
    let octets = key.get(at..at + 8).and_then(|it| it.try_into().ok());
    let octets = octets.ok_or_else(|| broken("key"))?;
    Ok(QueueId::from_number(u64::from_be_bytes(octets)))
}
