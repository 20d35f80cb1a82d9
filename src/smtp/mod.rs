//! The wire: SMTP commands, replies, framing and extensions, shared by both sides.
//!
//! Sans I/O: octets in, values out, and back. Nothing here knows a socket, a clock, a
//! configuration or what a session allows. Everything that grows with what a peer sends
//! has a bound in this module, and nothing here panics whatever a peer sends.

pub mod command;
pub mod extension;
pub mod framing;
pub mod reply;

#[cfg(test)]
mod oracle;

pub use command::{Command, CommandError, MailCommand, Masked, RecipientCommand};
pub use extension::{Extensions, SessionLimits};
pub use framing::{
    AUTH_LINE_MAXIMUM, BareEndings, COMMAND_LINE_MAXIMUM, CommandLines, DataDecoder, DataEncoder,
    Line, TextDecoder, WireSize,
};
pub use reply::{Reply, ReplyError, ReplyParser};
