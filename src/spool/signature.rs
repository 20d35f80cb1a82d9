//! Bloom filters over what can be looked up.

use crate::mail::{Envelope, Mailbox};

use super::query::Lookup;

/// A Bloom filter over the addresses, domains and the Message-ID of one message: a
/// look-up reads only the envelopes whose signature may hold what it looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signature(u128);

impl Signature {
    /// The signature of all that can be looked up.
    pub fn of(envelope: &Envelope) -> Self {
        let mut signature = Self::message_id(&envelope.message_id);
        let mailboxes = [Some(&envelope.from), envelope.reverse_path.mailbox()];
        let recipients = envelope.recipients.iter().map(|it| it.path.mailbox());
        for mailbox in mailboxes.into_iter().chain(recipients).flatten() {
            signature.0 |= Self::address(mailbox).0 | Self::domain(mailbox.domain().ascii()).0;
        }
        signature
    }

    /// What a message with this address has.
    pub fn address(mailbox: &Mailbox) -> Self {
        Self::bits("@", &mailbox.folded())
    }

    /// What a message with an address of this domain has.
    pub fn domain(domain: &str) -> Self {
        Self::bits(".", domain)
    }

    /// What a message with this Message-ID has.
    pub fn message_id(id: &str) -> Self {
        Self::bits("<", id)
    }

    /// What a message that a look-up means has.
    pub fn wanted(lookup: &Lookup) -> Self {
        match lookup {
            Lookup::Id(_) => Self::default(),
            Lookup::Address(mailbox) => Self::address(mailbox),
            Lookup::MessageId(id) => Self::message_id(id),
        }
    }

    /// Both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a message with this signature may have what `wanted` asks for.
    pub fn may_have(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// Its octets.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// The signature with these octets.
    pub fn from_bytes(octets: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(octets))
    }

    /// As 32 hexadecimal digits.
    pub fn to_hexadecimal(self) -> String {
        format!("{:032x}", self.0)
    }

    /// The signature with these digits.
    pub fn from_hexadecimal(digits: &str) -> Option<Self> {
        u128::from_str_radix(digits, 16).ok().map(Self)
    }

    fn bits(kind: &str, text: &str) -> Self {
        let hash = fnv(kind, text);
        let bit = |at: u32| 1u128 << ((hash >> at) & 127);
        Self(bit(0) | bit(17) | bit(39))
    }
}

/// FNV-1a, the same on every machine and in every version.
pub fn fnv(kind: &str, text: &str) -> u64 {
    kind.bytes()
        .chain(text.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_survives_as_digits_and_seldom_admits_a_stranger() {
        let address = |text: &str| Signature::address(&Mailbox::parse(text).unwrap());
        let have = address("jan@example.nl").and(Signature::domain("example.nl"));
        assert!(have.may_have(address("JAN@Example.NL")));
        assert_eq!(
            Signature::from_hexadecimal(&have.to_hexadecimal()),
            Some(have)
        );
        let strangers = (0..10_000)
            .filter(|it| have.may_have(address(&format!("user{it}@example.com"))))
            .count();
        assert!(strangers < 100, "{strangers} of 10,000");
    }
}
