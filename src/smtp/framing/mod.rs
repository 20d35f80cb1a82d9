//! Framing: command lines with a limit, mail data with one end.
//!
//! Mail data ends at `<CRLF>.<CRLF>` and nowhere else. A server that also ends it at
//! `<LF>.<LF>` and the like lets one message smuggle in another; so here no repair of
//! line endings, and no split of reads, can ever end a message.

mod decode;
mod encode;
mod lines;

pub use decode::{DataDecoder, TextDecoder};
pub use encode::{DataEncoder, WireSize};
pub use lines::{AUTH_LINE_MAXIMUM, COMMAND_LINE_MAXIMUM, CommandLines, Line};

/// What to do about a CR or LF that is not part of a CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareEndings {
    /// The line, or the message, is refused (RFC 5321 section 2.3.8).
    Refuse,
    /// It becomes CRLF; it never ends a message.
    Repair,
}
