//! Replies (RFC 5321 section 4.2).
//!
//! Only the value so far: parsing and printing come with the codec.

use crate::mail::EnhancedStatus;
use crate::mail::text::printable;

/// What one side answered to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// The enhanced status at the front of the text, where there was one (RFC 2034).
    pub enhanced: Option<EnhancedStatus>,
    /// The text of each line, without code and enhanced status.
    pub lines: Vec<String>,
}

impl Reply {
    /// 2yz.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 4yz.
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5yz.
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// The lines joined by `\n`, shortened and printable.
    pub fn text(&self) -> String {
        let shown: Vec<_> = self
            .lines
            .iter()
            .take(50)
            .map(|it| printable(it.as_bytes(), 512))
            .collect();
        shown.join("\n")
    }
}
