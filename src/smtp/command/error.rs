//! Why a line is not a command, and what its client is told.

use crate::mail::AddressError;
use crate::smtp::reply::Reply;

/// Why a line is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nothing on it.
    #[error("empty command line")]
    Empty,
    /// A verb that we do not know.
    #[error("command not recognized: {0}")]
    Unknown(String),
    /// HTTP, not SMTP.
    #[error("this is an SMTP server")]
    Http,
    /// NUL, a bare CR, an escape.
    #[error("control character in a command")]
    ControlCharacter,
    /// Octets that are not UTF-8.
    #[error("a command is ASCII or UTF-8")]
    NotUtf8,
    /// The arguments are not as they should be.
    #[error("syntax: {0}")]
    Syntax(&'static str),
    /// The size of a chunk is not a number: nobody knows where commands go on.
    #[error("syntax: BDAT size [LAST]")]
    Chunk,
    /// MAIL with an address that is none.
    #[error("bad sender address: {0}")]
    ReversePath(#[source] AddressError),
    /// RCPT with an address that is none.
    #[error("bad recipient address: {0}")]
    ForwardPath(#[source] AddressError),
    /// An address beyond ASCII, in a transaction without SMTPUTF8. RCPT depends on the
    /// MAIL before it, so there the session decides.
    #[error("an address beyond ASCII needs SMTPUTF8")]
    NeedsSmtpUtf8,
    /// A parameter that we did not offer (RFC 5321 section 4.1.1.11).
    #[error("unknown parameter {0}")]
    UnknownParameter(String),
    /// The same parameter twice.
    #[error("parameter {0} given twice")]
    DuplicateParameter(String),
    /// A parameter whose value is wrong, missing or not allowed.
    #[error("bad value of parameter {0}")]
    Parameter(String),
}

impl CommandError {
    /// What the client is told.
    pub fn reply(&self) -> Reply {
        let text = self.to_string();
        match self {
            Self::Empty | Self::ControlCharacter | Self::NotUtf8 => {
                Reply::enhanced(500, 5, 2, text)
            }
            Self::Unknown(_) => Reply::enhanced(500, 5, 1, text),
            Self::Http => Reply::enhanced(421, 7, 0, text),
            Self::Syntax(_) | Self::DuplicateParameter(_) | Self::Parameter(_) | Self::Chunk => {
                Reply::enhanced(501, 5, 4, text)
            }
            Self::ReversePath(_) => Reply::enhanced(501, 1, 7, text),
            Self::ForwardPath(_) => Reply::enhanced(501, 1, 3, text),
            // RFC 6531 section 3.5.
            Self::NeedsSmtpUtf8 => Reply::enhanced(553, 6, 7, text),
            Self::UnknownParameter(_) => Reply::enhanced(555, 5, 4, text),
        }
    }

    /// Whether the connection must end: what follows the line cannot be told from commands.
    pub fn must_close(&self) -> bool {
        matches!(self, Self::Chunk | Self::Http)
    }
}
