//! The ledger as bytes, for the checkpoints of the spool's log.
//!
//! Numbers are LEB128. Times are ages, counted back from the moment of storing, which
//! stands at the front with its boot: that one moment is all that has to be brought
//! from one boot to the next.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Moment;

use super::account::Account;
use super::history::{Entry, Load, Millis, Paid};
use super::limits::{Ledger, Open};
use super::timeline::{Timeline, millis_up};

const VERSION: u64 = 1;
/// More relays, entries or open transactions than there can be: a length beyond it is damage.
const PLENTY: u64 = 1 << 20;

/// A stored ledger that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It was written by a later version of Penstock.
    #[error("the stored limit ledger has version {0}, this program reads version {VERSION}")]
    Version(u64),
    /// It ends too early, or says what it cannot say.
    #[error("the stored limit ledger is damaged")]
    Damaged,
}

pub(super) fn encode(ledger: &Ledger, now: Moment) -> Vec<u8> {
    let present = millis_up(now.uptime);
    let age = |at: Millis| u64::try_from(present - at).unwrap_or(0);
    let mut bytes = Writer(Vec::new());
    bytes.number(VERSION);
    bytes.number(now.boot);
    bytes.number(u64::try_from(present).unwrap_or(0));
    // A clock before 1970 is wrong, and counts as 1970.
    bytes.number(u64::try_from(now.wall.as_millisecond()).unwrap_or(0));
    bytes.number(ledger.last_grant);

    bytes.number(ledger.accounts.len() as u64);
    for (relay, account) in &ledger.accounts {
        bytes.text(relay);
        for time in [account.last_release(), account.opened()] {
            bytes.number(time.map_or(0, |at| age(at) + 1));
        }
        let entries = account.entries();
        bytes.number(entries.len() as u64);
        for entry in entries {
            bytes.number(age(entry.at));
            bytes.paid(entry.paid);
        }
    }

    bytes.number(ledger.open.len() as u64);
    for (grant, open) in &ledger.open {
        bytes.number(*grant);
        bytes.text(&open.relay);
        bytes.paid(open.paid);
    }
    bytes.0
}

/// When it was stored.
pub(super) fn stored_at(stored: &[u8]) -> Result<Moment, RecordError> {
    Reader(stored).front()
}

pub(super) fn decode(stored: &[u8], timeline: &Timeline) -> Result<Ledger, RecordError> {
    let mut bytes = Reader(stored);
    let base = timeline.local(bytes.front()?);
    let present = timeline.present();
    let at = |age: u64| base.saturating_sub(Millis::try_from(age).unwrap_or(Millis::MAX / 4));

    let mut ledger = Ledger::new();
    ledger.last_grant = bytes.number()?;
    for _ in 0..bytes.length()? {
        let relay = bytes.text()?;
        let mut times = [None; 2];
        for time in &mut times {
            *time = bytes.number()?.checked_sub(1).map(at);
        }
        let mut entries = Vec::new();
        for _ in 0..bytes.length()? {
            let at = at(bytes.number()?);
            let paid = bytes.paid()?;
            entries.push(Entry { at, paid });
        }
        let account = Account::restored(entries, times[0], times[1], present);
        ledger.accounts.insert(relay, account);
    }
    for _ in 0..bytes.length()? {
        let grant = bytes.number()?;
        let relay = bytes.text()?;
        let paid = bytes.paid()?;
        ledger.account(&relay).reopen(paid);
        ledger.open.insert(grant, Open { relay, paid });
    }
    if !bytes.0.is_empty() {
        return Err(RecordError::Damaged);
    }
    Ok(ledger)
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn paid(&mut self, paid: Paid) {
        for load in [paid.general, paid.interactive] {
            self.number(load.messages);
            self.number(load.octets);
            self.number(load.recipients);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// The version, and the moment from which ages are counted back.
    fn front(&mut self) -> Result<Moment, RecordError> {
        let version = self.number()?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let boot = self.number()?;
        // A duration of more milliseconds than that is no uptime.
        let uptime = Duration::from_millis(self.number()?.min(u64::MAX >> 16));
        let wall = i64::try_from(self.number()?)
            .ok()
            .and_then(|it| Timestamp::from_millisecond(it).ok())
            .ok_or(RecordError::Damaged)?;
        Ok(Moment { uptime, wall, boot })
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        let mut number: u64 = 0;
        for shift in (0..64).step_by(7) {
            let (octet, rest) = self.0.split_first().ok_or(RecordError::Damaged)?;
            self.0 = rest;
            let bits = u64::from(octet & 0x7f);
            if bits << shift >> shift != bits {
                return Err(RecordError::Damaged);
            }
            number |= bits << shift;
            if octet & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(RecordError::Damaged)
    }

    fn length(&mut self) -> Result<u64, RecordError> {
        let length = self.number()?;
        if length > PLENTY {
            return Err(RecordError::Damaged);
        }
        Ok(length)
    }

    fn text(&mut self) -> Result<String, RecordError> {
        let length = usize::try_from(self.length()?).map_err(|_| RecordError::Damaged)?;
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(RecordError::Damaged)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| RecordError::Damaged)
    }

    fn paid(&mut self) -> Result<Paid, RecordError> {
        let mut paid = Paid::default();
        for load in [&mut paid.general, &mut paid.interactive] {
            *load = Load {
                messages: self.number()?,
                octets: self.number()?,
                recipients: self.number()?,
            };
        }
        Ok(paid)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::release::Budget;

    fn moment(seconds: u64) -> Moment {
        Moment {
            uptime: Duration::from_secs(seconds),
            wall: Timestamp::from_second(1_790_000_000 + seconds as i64).unwrap(),
            boot: 7,
        }
    }

    fn stored() -> Vec<u8> {
        let mut ledger = Ledger::new();
        for second in 0..300 {
            let load = Load {
                messages: 1,
                octets: 10_000 + second,
                recipients: 2,
            };
            let budget = [Budget::General, Budget::Interactive][second as usize % 2];
            let relay = ["own", "carerix"][second as usize / 7 % 2];
            let grant = ledger.reserve(relay, budget, load, moment(second * 60));
            if second % 10 != 0 {
                let at = millis_up(moment(second * 60 + 1).uptime);
                ledger.end(grant, Some(at), at);
            }
        }
        ledger.to_bytes(moment(20_000))
    }

    #[test]
    fn a_stored_ledger_reads_back_as_itself() {
        let now = moment(20_000);
        let stored = stored();
        let timeline = Timeline::new([stored_at(&stored).unwrap()], now);
        let ledger = decode(&stored, &timeline).unwrap();
        assert_eq!(ledger.last_grant, 300);
        assert_eq!(ledger.open.len(), 30);
        // Maps have no order; their amounts of bytes and what they say are the same.
        let again = decode(&ledger.to_bytes(now), &timeline).unwrap();
        assert_eq!(again.open, ledger.open);
        for (relay, account) in &ledger.accounts {
            let entries: Vec<_> = account.entries().collect();
            assert!(again.accounts[relay].entries().eq(entries));
            assert_eq!(again.accounts[relay].opened(), account.opened());
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let error = stored_at(&[2, 0, 0]).unwrap_err();
        assert_eq!(error, RecordError::Version(2));
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_another_ledger_but_never_a_panic(
            place in any::<prop::sample::Index>(),
            octets in prop::collection::vec(any::<u8>(), 0..12),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = stored();
            let place = place.index(bytes.len());
            for (at, octet) in (place..bytes.len()).zip(octets) {
                bytes[at] = octet;
            }
            bytes.truncate(cut.index(bytes.len() * 2).max(1));
            let now = moment(30_000);
            if let Ok(stored) = stored_at(&bytes) {
                let timeline = Timeline::new([stored], now);
                if let Ok(mut ledger) = decode(&bytes, &timeline) {
                    ledger.account("own").advance(millis_up(now.uptime));
                    ledger.to_bytes(now);
                }
            }
        }
    }
}
