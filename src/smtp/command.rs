//! Command lines (RFC 5321 section 4.1): read with tolerance where that is safe, printed exactly.
//!
//! Old clients are sloppy: a space after the colon, no angle brackets, any case, trailing
//! spaces. That is read as it was meant. What could be read in two ways is refused.

mod error;
mod parameter;
mod path;
mod print;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use crate::mail::text::printable;
use crate::mail::{Body, ForwardPath, Mailbox, Notify, Ret, ReversePath};

pub use error::CommandError;
use parameter::{SIZE_DIGITS_MAXIMUM, body, envid, for_each_parameter, notify, orcpt, ret, size};
use path::{path, without_route};

/// One command of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The old greeting; the name is whatever the client said, even nothing.
    Helo(String),
    /// The greeting that asks for extensions.
    Ehlo(String),
    /// MAIL FROM.
    Mail(MailCommand),
    /// RCPT TO.
    Recipient(RecipientCommand),
    /// DATA.
    Data,
    /// BDAT (RFC 3030): so many octets of content follow at once, whatever we answer.
    Bdat {
        /// Octets.
        size: u64,
        /// The message ends with them.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, with or without words.
    Noop,
    /// QUIT.
    Quit,
    /// HELP, with or without words.
    Help,
    /// VRFY.
    Verify(String),
    /// EXPN.
    Expand(String),
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954).
    Auth {
        /// In capitals.
        mechanism: String,
        /// The initial response in base64; empty for `=`, which stands for one of no octets.
        initial: Option<Masked>,
    },
}

/// A word of an authentication; prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Masked(pub String);

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The argument and parameters of MAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailCommand {
    /// The argument.
    pub reverse_path: ReversePath,
    /// SIZE= (RFC 1870), as far as 64 bits go.
    pub size: Option<u64>,
    /// BODY= (RFC 6152).
    pub body: Option<Body>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET= (RFC 3461 section 4.3).
    pub ret: Option<Ret>,
    /// ENVID= (RFC 3461 section 4.4), decoded.
    pub envid: Option<String>,
}

impl MailCommand {
    /// A command without parameters.
    pub fn new(reverse_path: ReversePath) -> Self {
        Self {
            reverse_path,
            size: None,
            body: None,
            smtputf8: false,
            ret: None,
            envid: None,
        }
    }
}

/// The argument and parameters of RCPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientCommand {
    /// The argument.
    pub forward_path: ForwardPath,
    /// NOTIFY= (RFC 3461 section 4.1).
    pub notify: Notify,
    /// ORCPT= (RFC 3461 section 4.2) as `type;address`, decoded.
    pub orcpt: Option<String>,
}

impl RecipientCommand {
    /// A command without parameters.
    pub fn new(forward_path: ForwardPath) -> Self {
        Self {
            forward_path,
            notify: Notify::Unspecified,
            orcpt: None,
        }
    }
}

impl Command {
    /// Reads one line, its CRLF already taken off.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        // A CR or LF that did not end the line, NUL and their like belong in no command.
        // The tab is white space to many an old client.
        if line.iter().any(|it| it.is_ascii_control() && *it != b'\t') {
            return Err(CommandError::ControlCharacter);
        }
        // Windows machines greet with names in their own character set; the name decides
        // nothing, so it is taken as far as it can be read.
        let greets = line
            .get(..4)
            .is_some_and(|it| it.eq_ignore_ascii_case(b"HELO") || it.eq_ignore_ascii_case(b"EHLO"));
        let line = match String::from_utf8_lossy(line) {
            Cow::Owned(_) if !greets => return Err(CommandError::NotUtf8),
            line => line,
        };
        let line = line.trim_matches(is_space);
        let (verb, rest) = line.split_once(is_space).unwrap_or((line, ""));
        let rest = rest.trim_matches(is_space);
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => Ok(Self::Helo(rest.to_owned())),
            "EHLO" => Ok(Self::Ehlo(rest.to_owned())),
            "MAIL" => mail(rest).map(Self::Mail),
            "RCPT" => recipient(rest).map(Self::Recipient),
            "DATA" => alone(rest, Self::Data),
            "BDAT" => chunk(rest),
            "RSET" => alone(rest, Self::Rset),
            "NOOP" => Ok(Self::Noop),
            "QUIT" => alone(rest, Self::Quit),
            "HELP" => Ok(Self::Help),
            "VRFY" => Ok(Self::Verify(rest.to_owned())),
            "EXPN" => Ok(Self::Expand(rest.to_owned())),
            "STARTTLS" => alone(rest, Self::StartTls),
            "AUTH" => authentication(rest),
            "" => Err(CommandError::Empty),
            // A browser that was lured to our port: what follows is another's choice of octets.
            "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "CONNECT" | "HOST:" | "USER-AGENT:" => {
                Err(CommandError::Http)
            }
            _ => Err(CommandError::Unknown(printable(verb.as_bytes(), 20))),
        }
    }
}

fn is_space(letter: char) -> bool {
    letter == ' ' || letter == '\t'
}

/// A command that takes no argument.
fn alone(rest: &str, command: Command) -> Result<Command, CommandError> {
    if rest.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Syntax("this command takes no argument"))
    }
}

fn chunk(rest: &str) -> Result<Command, CommandError> {
    let mut words = rest.split(is_space).filter(|it| !it.is_empty());
    let size = words.next().and_then(decimal).ok_or(CommandError::Chunk)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(CommandError::Chunk),
    };
    match words.next() {
        None => Ok(Command::Bdat { size, last }),
        Some(_) => Err(CommandError::Chunk),
    }
}

/// Digits and nothing else; none if they are no number of 64 bits.
///
/// `BDAT 99999999999999999999999` must not wrap round to a small number: the octets
/// behind it would then be read as commands.
fn decimal(digits: &str) -> Option<u64> {
    let right = !digits.is_empty()
        && digits.len() <= SIZE_DIGITS_MAXIMUM
        && digits.bytes().all(|it| it.is_ascii_digit());
    right.then(|| digits.parse().ok()).flatten()
}

fn authentication(rest: &str) -> Result<Command, CommandError> {
    let mut words = rest.split(is_space).filter(|it| !it.is_empty());
    let mechanism = words
        .next()
        .filter(|it| it.len() <= 20)
        .ok_or(CommandError::Syntax("AUTH needs a mechanism"))?
        .to_ascii_uppercase();
    let initial = words
        .next()
        .map(|it| Masked(if it == "=" { "" } else { it }.to_owned()));
    match words.next() {
        None => Ok(Command::Auth { mechanism, initial }),
        Some(_) => Err(CommandError::Syntax(
            "AUTH takes a mechanism and one response",
        )),
    }
}

fn mail(rest: &str) -> Result<MailCommand, CommandError> {
    let (path, parameters) =
        path(rest, "FROM").ok_or(CommandError::Syntax("MAIL FROM:<address>"))?;
    let reverse_path =
        ReversePath::parse(without_route(path)).map_err(CommandError::ReversePath)?;
    let mut command = MailCommand::new(reverse_path);
    for_each_parameter(parameters, |keyword, value| {
        match (keyword, value) {
            ("SIZE", Some(value)) => command.size = Some(size(value)?),
            ("BODY", Some(value)) => command.body = Some(body(value)?),
            ("SMTPUTF8", None) => command.smtputf8 = true,
            ("RET", Some(value)) => command.ret = Some(ret(value)?),
            ("ENVID", Some(value)) => command.envid = Some(envid(value)?),
            // Who first submitted it (RFC 4954 section 5): we trust nobody's word for
            // that, and so may drop it.
            ("AUTH", Some(_)) => {}
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH", _) => {
                return Err(CommandError::Parameter(keyword.to_owned()));
            }
            _ => {
                return Err(CommandError::UnknownParameter(printable(
                    keyword.as_bytes(),
                    20,
                )));
            }
        }
        Ok(())
    })?;
    let is_ascii = command.reverse_path.mailbox().is_none_or(Mailbox::is_ascii);
    if !is_ascii && !command.smtputf8 {
        return Err(CommandError::NeedsSmtpUtf8);
    }
    Ok(command)
}

fn recipient(rest: &str) -> Result<RecipientCommand, CommandError> {
    let (path, parameters) = path(rest, "TO").ok_or(CommandError::Syntax("RCPT TO:<address>"))?;
    let forward_path =
        ForwardPath::parse(without_route(path)).map_err(CommandError::ForwardPath)?;
    let mut command = RecipientCommand::new(forward_path);
    for_each_parameter(parameters, |keyword, value| {
        match (keyword, value) {
            ("NOTIFY", Some(value)) => command.notify = notify(value)?,
            ("ORCPT", Some(value)) => command.orcpt = Some(orcpt(value)?),
            ("NOTIFY" | "ORCPT", None) => {
                return Err(CommandError::Parameter(keyword.to_owned()));
            }
            _ => {
                return Err(CommandError::UnknownParameter(printable(
                    keyword.as_bytes(),
                    20,
                )));
            }
        }
        Ok(())
    })?;
    Ok(command)
}
