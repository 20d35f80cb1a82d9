//! Reading MIME, which a library does.
//!
//! What strangers write is read by code that is not ours: where it gives up, a message has
//! no structure that could be looked at, and nothing else has happened to it.

use std::panic::catch_unwind;

use mail_parser::{Message, MessageParser};

/// A message with all its parts; none where it cannot be read.
pub fn message(octets: &[u8]) -> Option<Message<'_>> {
    catch_unwind(|| MessageParser::default().parse(octets)).unwrap_or_default()
}

/// A message with its header fields alone; none where they cannot be read.
pub fn fields(octets: &[u8]) -> Option<Message<'_>> {
    catch_unwind(|| MessageParser::default().parse_headers(octets)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_gives_up_on_ends_nothing_else() {
        // Found by fuzzing: mail-parser 0.11.9 asserts here in builds with assertions.
        let octets = include_bytes!("../../fuzz/corpus/content/parts-behind-their-end");
        let read = message(octets);
        assert!(read.is_none_or(|it| !it.parts.is_empty()));
        assert!(fields(octets).is_some());
    }
}
