//! The secret of a test message: whoever has it has read the message.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// 160 bits: nobody guesses it, and it can still be typed.
const OCTETS: usize = 20;

/// A token, to be shown in one message and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// What is kept of a token. From it the token cannot be found: it is random enough that
/// no salt and no slow hash are needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenHash(String);

impl Token {
    /// A new one.
    pub fn random() -> Self {
        Self(digits(&rand::random::<[u8; OCTETS]>()))
    }

    /// A token as somebody typed or clicked it; none when it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let is_one = text.len() == 2 * OCTETS && text.bytes().all(|it| it.is_ascii_hexdigit());
        is_one.then_some(Self(text))
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be kept of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash(digits(&Sha256::digest(self.0.as_bytes())))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn digits(octets: &[u8]) -> String {
    octets.iter().map(|it| format!("{it:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_160_bits_typed_in_any_case_and_printed_by_nobody() {
        let token = Token::random();
        assert_eq!(token.expose().len(), 40);
        assert_ne!(token, Token::random());
        let typed = format!(" {}\n", token.expose().to_ascii_uppercase());
        assert_eq!(Token::parse(&typed), Some(token.clone()));
        assert_eq!(format!("{token:?}"), "***");
        let kept = serde_json::to_string(&token.hash()).unwrap();
        assert!(!kept.contains(token.expose()), "{kept}");
    }

    #[test]
    fn what_cannot_be_a_token_is_none() {
        for text in ["", "abc", &"g".repeat(40), &"0".repeat(41), &"é".repeat(20)] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
