//! Command lines (RFC 5321 section 4.1): read with tolerance where that is safe, printed exactly.
//!
//! Old clients are sloppy: a space after the colon, no angle brackets, any case, trailing
//! spaces. That is read as it was meant. What could be read in two ways is refused.

use std::borrow::Cow;
use std::fmt;

use crate::mail::text::printable;
use crate::mail::{AddressError, Body, ForwardPath, Mailbox, Notify, Ret, ReversePath};

use super::reply::Reply;
use super::xtext;

/// RFC 1870 section 3: `SIZE` has at most 20 digits.
const SIZE_DIGITS_MAXIMUM: usize = 20;
/// RFC 3461 section 4.4.
const ENVID_MAXIMUM: usize = 100;
/// RFC 3461 section 4.2.
const ORCPT_MAXIMUM: usize = 500;

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
            _ => return Err(CommandError::UnknownParameter(keyword.to_owned())),
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
            _ => return Err(CommandError::UnknownParameter(keyword.to_owned())),
        }
        Ok(())
    })?;
    Ok(command)
}

/// Splits `FROM:<path> parameters`: what stands between the brackets, and what is behind.
///
/// The `>` that ends the path is the first one outside quotes: `<"a>b"@c>` is one path.
/// Without brackets the path ends at the first space outside quotes.
fn path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let head = rest.get(..keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = rest[keyword.len()..].trim_start_matches(is_space);
    let rest = rest.strip_prefix(':')?.trim_start_matches(is_space);
    match rest.strip_prefix('<') {
        Some(inside) => {
            let end = outside_quotes(inside, |it| it == '>')?;
            let behind = &inside[end + 1..];
            let apart = behind.is_empty() || behind.starts_with(is_space);
            apart.then(|| (inside[..end].trim_matches(is_space), behind))
        }
        None => {
            let end = outside_quotes(rest, is_space).unwrap_or(rest.len());
            // Only `<>` is the null reverse-path; nothing at all is a mistake. A stray
            // bracket would have to be guessed at.
            let bracket = outside_quotes(&rest[..end], |it| it == '>' || it == '<').is_some();
            (end > 0 && !bracket).then(|| (&rest[..end], &rest[end..]))
        }
    }
}

/// Where the first letter of this kind stands that is not inside a quoted string.
fn outside_quotes(text: &str, wanted: impl Fn(char) -> bool) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (place, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted && wanted(letter) => return Some(place),
            _ => {}
        }
    }
    None
}

/// A source route (`@a,@b:c@d`) is accepted and ignored (RFC 5321 appendix C).
fn without_route(path: &str) -> &str {
    if !path.starts_with('@') {
        return path;
    }
    let mut bracket = false;
    for (place, letter) in path.char_indices() {
        match letter {
            '[' => bracket = true,
            ']' => bracket = false,
            ':' if !bracket => return &path[place + 1..],
            _ => {}
        }
    }
    path
}

/// Hands each `KEYWORD` or `KEYWORD=value` on, the keyword in capitals; refuses doubles.
fn for_each_parameter(
    parameters: &str,
    mut take: impl FnMut(&str, Option<&str>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut seen: Vec<String> = Vec::new();
    for word in parameters.split(is_space).filter(|it| !it.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let right = keyword
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'-')
            && !keyword.is_empty()
            && !keyword.starts_with('-');
        if !right {
            return Err(CommandError::Syntax(
                "a parameter is KEYWORD or KEYWORD=value",
            ));
        }
        let keyword = keyword.to_ascii_uppercase();
        if value == Some("") {
            return Err(CommandError::Parameter(printable(keyword.as_bytes(), 20)));
        }
        if seen.contains(&keyword) {
            return Err(CommandError::DuplicateParameter(printable(
                keyword.as_bytes(),
                20,
            )));
        }
        take(&keyword, value)?;
        seen.push(keyword);
    }
    Ok(())
}

/// More than 64 bits is a size all the same, and too large for anybody.
fn size(value: &str) -> Result<u64, CommandError> {
    let right = value.len() <= SIZE_DIGITS_MAXIMUM && value.bytes().all(|it| it.is_ascii_digit());
    if !right {
        return Err(CommandError::Parameter("SIZE".to_owned()));
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn body(value: &str) -> Result<Body, CommandError> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        // BINARYMIME is not offered: lines would lose their meaning.
        _ => Err(CommandError::Parameter("BODY".to_owned())),
    }
}

fn ret(value: &str) -> Result<Ret, CommandError> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Ok(Ret::Full),
        "HDRS" => Ok(Ret::Headers),
        _ => Err(CommandError::Parameter("RET".to_owned())),
    }
}

fn envid(value: &str) -> Result<String, CommandError> {
    Some(value)
        .filter(|it| it.len() <= ENVID_MAXIMUM)
        .and_then(xtext::decode)
        .ok_or_else(|| CommandError::Parameter("ENVID".to_owned()))
}

fn notify(value: &str) -> Result<Notify, CommandError> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => success = true,
            "FAILURE" => failure = true,
            "DELAY" => delay = true,
            // NEVER stands alone (RFC 3461 section 4.1).
            _ => return Err(CommandError::Parameter("NOTIFY".to_owned())),
        }
    }
    Ok(Notify::On {
        success,
        failure,
        delay,
    })
}

fn orcpt(value: &str) -> Result<String, CommandError> {
    let bad = || CommandError::Parameter("ORCPT".to_owned());
    let (kind, address) = value.split_once(';').ok_or_else(bad)?;
    let kind_right = !kind.is_empty()
        && kind.len() <= 40
        && kind
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || it == b'-');
    if !kind_right || address.is_empty() || value.len() > ORCPT_MAXIMUM {
        return Err(bad());
    }
    let address = if kind.eq_ignore_ascii_case("utf-8") {
        xtext::decode_utf8_address(address)
    } else {
        xtext::decode(address)
    };
    Ok(format!("{kind};{}", address.ok_or_else(bad)?))
}

impl fmt::Display for MailCommand {
    /// As it goes over the wire, without CRLF.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MAIL FROM:<{}>", self.reverse_path)?;
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        match self.body {
            Some(Body::SevenBit) => f.write_str(" BODY=7BIT")?,
            Some(Body::EightBitMime) => f.write_str(" BODY=8BITMIME")?,
            None => {}
        }
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        match self.ret {
            Some(Ret::Full) => f.write_str(" RET=FULL")?,
            Some(Ret::Headers) => f.write_str(" RET=HDRS")?,
            None => {}
        }
        if let Some(envid) = &self.envid {
            write!(f, " ENVID={}", xtext::encode(envid))?;
        }
        Ok(())
    }
}

impl fmt::Display for RecipientCommand {
    /// As it goes over the wire, without CRLF.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RCPT TO:<{}>", self.forward_path)?;
        match self.notify {
            Notify::Unspecified => {}
            Notify::Never => f.write_str(" NOTIFY=NEVER")?,
            Notify::On {
                success,
                failure,
                delay,
            } => {
                let words: Vec<_> = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")]
                    .into_iter()
                    .filter_map(|(wanted, word)| wanted.then_some(word))
                    .collect();
                if !words.is_empty() {
                    write!(f, " NOTIFY={}", words.join(","))?;
                }
            }
        }
        match self.orcpt.as_deref().and_then(|it| it.split_once(';')) {
            // ASCII in either encoding, so that it fits a server with or without SMTPUTF8.
            Some((kind, address)) if kind.eq_ignore_ascii_case("utf-8") => {
                write!(f, " ORCPT={kind};{}", xtext::encode_utf8_address(address))
            }
            Some((kind, address)) => write!(f, " ORCPT={kind};{}", xtext::encode(address)),
            None => Ok(()),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Command, CommandError> {
        Command::parse(line.as_bytes())
    }

    fn mail_from(line: &str) -> MailCommand {
        match parse(line) {
            Ok(Command::Mail(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn rcpt_to(line: &str) -> RecipientCommand {
        match parse(line) {
            Ok(Command::Recipient(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_are_read_in_any_case_with_any_spaces() {
        assert_eq!(
            parse("ehlo  a.example "),
            Ok(Command::Ehlo("a.example".into()))
        );
        assert_eq!(parse("HELO"), Ok(Command::Helo(String::new())));
        assert_eq!(
            Command::parse(b"HELO M\xdcLLER-PC"),
            Ok(Command::Helo("M\u{fffd}LLER-PC".into()))
        );
        assert_eq!(parse("Data "), Ok(Command::Data));
        assert_eq!(parse(" rset\t"), Ok(Command::Rset));
        assert_eq!(parse("NOOP what ever"), Ok(Command::Noop));
        assert_eq!(parse("quit"), Ok(Command::Quit));
        assert_eq!(parse("help mail"), Ok(Command::Help));
        assert_eq!(parse("StartTLS"), Ok(Command::StartTls));
        assert_eq!(parse("vrfy jan"), Ok(Command::Verify("jan".into())));
        assert_eq!(parse("EXPN staff"), Ok(Command::Expand("staff".into())));
        assert_eq!(
            parse("BDAT 12"),
            Ok(Command::Bdat {
                size: 12,
                last: false
            })
        );
        assert_eq!(
            parse("bdat 0 last"),
            Ok(Command::Bdat {
                size: 0,
                last: true
            })
        );
        assert_eq!(
            parse("auth plain AGEAYg=="),
            Ok(Command::Auth {
                mechanism: "PLAIN".into(),
                initial: Some(Masked("AGEAYg==".into()))
            })
        );
        assert_eq!(
            parse("AUTH LOGIN ="),
            Ok(Command::Auth {
                mechanism: "LOGIN".into(),
                initial: Some(Masked(String::new()))
            })
        );
    }

    #[test]
    fn sloppy_addresses_are_read_as_meant() {
        for line in [
            "MAIL FROM:<jan@example.nl>",
            "mail from: <jan@example.nl>",
            "MAIL FROM:jan@example.nl",
            "MAIL FROM : jan@example.nl ",
            "MAIL  FROM:\t< jan@example.nl >",
            "MAIL FROM:<@a.example,@[IPv6:::1]:jan@example.nl>",
        ] {
            assert_eq!(
                mail_from(line).reverse_path.to_string(),
                "jan@example.nl",
                "{line}"
            );
        }
        assert_eq!(
            mail_from("MAIL FROM: <> SIZE=1").reverse_path,
            ReversePath::Null
        );
        assert_eq!(mail_from("MAIL FROM:jan@example.nl SIZE=5").size, Some(5));
        assert_eq!(
            rcpt_to("RCPT TO:<Postmaster>").forward_path,
            ForwardPath::Postmaster
        );
        assert_eq!(
            rcpt_to("rcpt to: postmaster").forward_path,
            ForwardPath::Postmaster
        );
        assert_eq!(
            rcpt_to("RCPT TO:<jan@[192.0.2.1]>")
                .forward_path
                .to_string(),
            "jan@[192.0.2.1]"
        );
    }

    #[test]
    fn quotes_hide_brackets_and_spaces() {
        for (line, local) in [
            (r#"RCPT TO:<"a>b"@example.nl> NOTIFY=NEVER"#, "a>b"),
            (
                r#"RCPT TO:<"a> NOTIFY=NEVER"@example.nl> NOTIFY=NEVER"#,
                "a> NOTIFY=NEVER",
            ),
            (
                r#"RCPT TO:<"jan \" > jansen"@example.nl> NOTIFY=NEVER"#,
                r#"jan " > jansen"#,
            ),
            (
                r#"RCPT TO:"jan jansen"@example.nl NOTIFY=NEVER"#,
                "jan jansen",
            ),
        ] {
            let command = rcpt_to(line);
            assert_eq!(
                command.forward_path.mailbox().unwrap().local(),
                local,
                "{line}"
            );
            assert_eq!(command.notify, Notify::Never, "{line}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for line in [
            "MAIL",
            "MAIL FROM",
            "MAIL FROM:",
            "MAIL FROM: ",
            "MAIL TO:<a@b>",
            "MAIL FROM<a@b>",
            "MAIL FROM:<a@b",
            "MAIL FROM:a@b>",
            "MAIL FROM:<a@b>SIZE=1",
            "MAIL FROM:<a@b> <c@d>",
            "MAIL FROM:Jan <jan@example.nl>",
            "MAIL FROM:<a@b>>",
            "MAIL FROM:<<a@b>>",
            "MAIL FROM:<a@b> =1",
            "MAIL FROM:<a@b> SIZE=",
            "DATA now",
            "QUIT now",
            "STARTTLS x",
            "AUTH",
            "AUTH PLAIN a b",
            r#"MAIL FROM:<"a@b>"#,
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.reply().code, 501, "{line}: {error}");
        }
        assert!(matches!(
            parse("MAIL FROM:<jan>"),
            Err(CommandError::ReversePath(_))
        ));
        assert_eq!(
            parse("RCPT TO:<>").unwrap_err().reply().to_string(),
            "501 5.1.3 bad recipient address: an address needs an @, like jan@example.nl"
        );
    }

    #[test]
    fn parameters_are_read_and_printed() {
        let command = mail_from(
            "MAIL FROM:<a@b.example> SIZE=1000 body=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B1 AUTH=<>",
        );
        assert_eq!(command.envid.as_deref(), Some("QQ+1"));
        assert_eq!(
            command.to_string(),
            "MAIL FROM:<a@b.example> SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B1"
        );
        let command =
            rcpt_to("RCPT TO:<a@b.example> NOTIFY=success,DELAY ORCPT=rfc822;Bob+2Bx@b.example");
        assert_eq!(command.orcpt.as_deref(), Some("rfc822;Bob+x@b.example"));
        assert_eq!(
            command.to_string(),
            "RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@b.example"
        );
        let command = rcpt_to(r"RCPT TO:<a@b.example> ORCPT=utf-8;j\x{FC}rgen@b.example");
        assert_eq!(command.orcpt.as_deref(), Some("utf-8;jürgen@b.example"));
        assert!(
            command
                .to_string()
                .ends_with(r"ORCPT=utf-8;j\x{FC}rgen@b.example")
        );
    }

    #[test]
    fn wrong_parameters_are_refused() {
        for (parameters, code) in [
            ("SIZE=x", 501),
            ("SIZE=-1", 501),
            ("SIZE", 501),
            ("SIZE=1 size=2", 501),
            ("BODY=BINARYMIME", 501),
            ("SMTPUTF8=yes", 501),
            ("RET=SOME", 501),
            ("ENVID=a=b", 501),
            ("ENVID=+0A", 501),
            ("SIZE=123456789012345678901", 501),
            ("BY=120;R", 555),
            ("XVERP", 555),
            ("NOTIFY=NEVER", 555),
        ] {
            let line = format!("MAIL FROM:<a@b.example> {parameters}");
            assert_eq!(parse(&line).unwrap_err().reply().code, code, "{parameters}");
        }
        for (parameters, code) in [
            ("NOTIFY=NEVER,DELAY", 501),
            ("NOTIFY=", 501),
            ("NOTIFY=SUCCESS,", 501),
            ("NOTIFY=NEVER NOTIFY=NEVER", 501),
            ("ORCPT=rfc822", 501),
            ("ORCPT=;a", 501),
            ("ORCPT=rfc822;", 501),
            ("ORCPT=rfc822;a+0D+0Ab", 501),
            ("ORCPT=rf c;a", 501),
            ("SIZE=1", 555),
            ("FOO=1", 555),
        ] {
            let line = format!("RCPT TO:<a@b.example> {parameters}");
            assert_eq!(parse(&line).unwrap_err().reply().code, code, "{parameters}");
        }
        assert_eq!(
            mail_from("MAIL FROM:<> SIZE=99999999999999999999").size,
            Some(u64::MAX)
        );
    }

    #[test]
    fn chunk_sizes_never_wrap_and_bad_ones_end_the_connection() {
        for line in [
            "BDAT",
            "BDAT x",
            "BDAT -1",
            "BDAT 1 FIRST",
            "BDAT 1 LAST x",
            "BDAT 99999999999999999999999",
            "BDAT 18446744073709551616",
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.must_close(), "{line}");
        }
        assert_eq!(
            parse("BDAT 18446744073709551615"),
            Ok(Command::Bdat {
                size: u64::MAX,
                last: false
            })
        );
    }

    #[test]
    fn what_is_no_command_gets_the_right_reply() {
        for (line, code) in [
            (&b""[..], 500),
            (b"   ", 500),
            (b"FOO", 500),
            (b"MAIL\0", 500),
            (b"NOOP\r", 500),
            (b"VRFY \xff", 500),
            (b"GET / HTTP/1.1", 421),
            ("MAIL FROM:<jürgen@b.example>".as_bytes(), 553),
        ] {
            assert_eq!(
                Command::parse(line).unwrap_err().reply().code,
                code,
                "{line:?}"
            );
        }
        assert!(mail_from("MAIL FROM:<jürgen@b.example> SMTPUTF8").smtputf8);
    }

    #[test]
    fn a_password_is_never_shown() {
        let command = parse("AUTH PLAIN c2VjcmV0").unwrap();
        assert!(!format!("{command:?}").contains("c2Vj"), "{command:?}");
    }

    fn mailbox() -> impl Strategy<Value = Mailbox> {
        prop_oneof!["[a-z][a-z0-9.+=-]{0,8}", "[ -~]{1,12}"].prop_filter_map("a mailbox", |local| {
            Mailbox::new(&local, "b.example".parse_domain()).ok()
        })
    }

    trait ParseDomain {
        fn parse_domain(&self) -> crate::mail::Domain;
    }

    impl ParseDomain for str {
        fn parse_domain(&self) -> crate::mail::Domain {
            crate::mail::Domain::parse(self).unwrap()
        }
    }

    proptest! {
        #[test]
        fn mail_reads_back_as_printed(
            sender in proptest::option::of(mailbox()),
            size in proptest::option::of(any::<u64>()),
            body in proptest::sample::select(vec![None, Some(Body::SevenBit), Some(Body::EightBitMime)]),
            smtputf8: bool,
            ret in proptest::sample::select(vec![None, Some(Ret::Full), Some(Ret::Headers)]),
            envid in proptest::option::of("[ -~]{1,30}"),
        ) {
            let reverse_path = sender.map_or(ReversePath::Null, ReversePath::Mailbox);
            let command = MailCommand { reverse_path, size, body, smtputf8, ret, envid };
            prop_assert_eq!(parse(&command.to_string()), Ok(Command::Mail(command)));
        }

        #[test]
        fn rcpt_reads_back_as_printed(
            recipient in mailbox(),
            notify in prop_oneof![
                Just(Notify::Unspecified), Just(Notify::Never),
                any::<[bool; 3]>().prop_filter_map("one at least", |[success, failure, delay]|
                    (success || failure || delay).then_some(Notify::On { success, failure, delay })),
            ],
            orcpt in proptest::option::of(prop_oneof!["rfc822;[ -~]{1,30}", "utf-8;[a-zäöü€😀]{1,9}@b"]),
        ) {
            let command = RecipientCommand { forward_path: ForwardPath::Mailbox(recipient), notify, orcpt };
            prop_assert_eq!(parse(&command.to_string()), Ok(Command::Recipient(command)));
        }

        #[test]
        fn parsing_never_panics(line in proptest::collection::vec(any::<u8>(), 0..80), text in "(MAIL FROM:|RCPT TO:|BDAT |AUTH )[<>@\"\\\\a-c=:; \\[\\]ü]{0,30}") {
            let _ = Command::parse(&line);
            let _ = parse(&text);
        }
    }
}
