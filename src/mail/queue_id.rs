//! The name of one message for its whole life.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

/// Crockford's base 32, lower case: no i, l, o or u to misread over a telephone.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 13 digits of 5 bits hold 64 bits.
const LENGTH: usize = 13;
/// The bits below the milliseconds: 2^20 messages fit one millisecond.
const COUNTER_BITS: u32 = 20;

/// Names one message in every log line, reply, report and command.
///
/// Ids grow strictly in the order in which the headers of messages arrived, which is also
/// their place in a first-in-first-out queue: an upload that took an hour does not stand
/// behind what came meanwhile. Printed with a fixed width, ids sort as
/// text just as they sort as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u64);

impl QueueId {
    /// The first id: lower than any that is given out.
    pub const MIN: Self = Self(0);
    /// Higher than any id that is given out.
    pub const MAX: Self = Self(u64::MAX);

    /// The next id to give out at `now`, later than `last` even when the clock went back.
    pub fn next(last: Self, now: Timestamp) -> Self {
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
        Self((milliseconds << COUNTER_BITS).max(last.0 + 1))
    }

    /// The number behind the name, for keys of the index.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The id with this number.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; LENGTH];
        for (place, digit) in text.iter_mut().rev().enumerate() {
            *digit = ALPHABET[(self.0 >> (5 * place)) as usize & 31];
        }
        f.pad(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a queue id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a queue id: a queue id is 13 letters and digits, like 1k9xw3q5g0000")]
pub struct NotAQueueId;

impl FromStr for QueueId {
    type Err = NotAQueueId;

    fn from_str(text: &str) -> Result<Self, NotAQueueId> {
        if text.len() != LENGTH {
            return Err(NotAQueueId);
        }
        let mut number: u64 = 0;
        for (place, letter) in text.bytes().enumerate() {
            let digit = ALPHABET
                .iter()
                .position(|it| *it == letter.to_ascii_lowercase())
                .ok_or(NotAQueueId)? as u64;
            // 13 digits are 65 bits: the first may only be 0 or 1 of its 5 bits' upper half.
            if place == 0 && digit > 15 {
                return Err(NotAQueueId);
            }
            number = number << 5 | digit;
        }
        Ok(Self(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_itself_and_sorts_as_text() {
        let ids = [0, 1, 31, 32, 1 << 20, 1_790_000_000_000 << 20, u64::MAX].map(QueueId);
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        }
        assert!(
            ids.windows(2)
                .all(|it| it[0].to_string() < it[1].to_string())
        );
    }

    #[test]
    fn ids_grow_even_when_the_clock_goes_back() {
        let late = QueueId::next(QueueId::MIN, Timestamp::from_millisecond(2_000).unwrap());
        let back = QueueId::next(late, Timestamp::from_millisecond(1_000).unwrap());
        assert!(back > late);
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in [
            "",
            "123",
            "zzzzzzzzzzzzz",
            "0000000000000000",
            "000000000000u",
            "00000000000é",
        ] {
            assert_eq!(text.parse::<QueueId>(), Err(NotAQueueId), "{text}");
        }
    }
}
