//! The mail that the demonstration sends: its own, or out of files.

use std::path::Path;

use anyhow::Context as _;
use mail_parser::MessageParser;

/// One message and its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// MAIL FROM, and who decides the relay.
    pub from: String,
    /// RCPT TO.
    pub to: Vec<String>,
    /// The message.
    pub content: Vec<u8>,
}

impl Letter {
    /// A short message of our own.
    pub fn new(from: &str, to: &str, subject: &str, more: &str) -> Self {
        let content = format!(
            "From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n{more}\r\nHello,\r\n\r\n\
             this is a message of the demonstration of Penstock.\r\n"
        );
        Self {
            from: from.to_owned(),
            to: vec![to.to_owned()],
            content: content.into_bytes(),
        }
    }

    /// All messages of a file: one, or those of an mbox.
    pub fn read(path: &Path) -> anyhow::Result<Vec<Self>> {
        let octets =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let letters: Vec<Self> = split(&octets)
            .into_iter()
            .filter_map(|it| Self::parse(&it))
            .collect();
        anyhow::ensure!(
            !letters.is_empty(),
            "{} has no message with a From and a recipient",
            path.display()
        );
        Ok(letters)
    }

    /// The envelope is what the header says; without recipients there is no letter.
    fn parse(content: &[u8]) -> Option<Self> {
        let message = MessageParser::default().parse_headers(content)?;
        let addresses = |field: Option<&mail_parser::Address<'_>>| -> Vec<String> {
            let all = field.map(|it| it.iter().filter_map(|one| one.address()));
            all.map(|it| it.map(str::to_owned).collect())
                .unwrap_or_default()
        };
        let from = addresses(message.from()).into_iter().next()?;
        let fields = [message.to(), message.cc(), message.bcc()];
        let to: Vec<String> = fields.into_iter().flat_map(addresses).collect();
        (!to.is_empty()).then(|| Self {
            from,
            to,
            content: with_crlf(content),
        })
    }
}

/// The messages of an mbox, or the file as one message.
fn split(octets: &[u8]) -> Vec<Vec<u8>> {
    if !octets.starts_with(b"From ") {
        return vec![octets.to_vec()];
    }
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut after_blank = true;
    for line in octets.split_inclusive(|it| *it == b'\n') {
        let quoted = line.iter().position(|it| *it != b'>').unwrap_or(0);
        if after_blank && line.starts_with(b"From ") {
            messages.push(Vec::new());
        } else if let Some(message) = messages.last_mut() {
            // `>From ` was `From ` before it came into the mbox.
            let quote = usize::from(quoted > 0 && line[quoted..].starts_with(b"From "));
            message.extend(&line[quote..]);
        }
        after_blank = line.trim_ascii().is_empty();
    }
    messages
}

fn with_crlf(content: &[u8]) -> Vec<u8> {
    let mut converted = Vec::with_capacity(content.len() + content.len() / 32);
    for line in content.split_inclusive(|it| *it == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        converted.extend(text.strip_suffix(b"\r").unwrap_or(text));
        converted.extend(b"\r\n");
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mbox_gives_its_messages_with_their_own_recipients() {
        let mbox = b"From a Sat\nFrom: A <a@x.nl>\nTo: b@y.nl\nCc: c@y.nl\n\n>From here\n.\n\nFrom b Sun\nFrom: d@x.nl\nTo: e@y.nl\n\nFrom x\n";
        let letters: Vec<Letter> = split(mbox)
            .iter()
            .filter_map(|it| Letter::parse(it))
            .collect();
        assert_eq!(letters.len(), 2);
        assert_eq!(
            (letters[0].from.as_str(), letters[0].to.len()),
            ("a@x.nl", 2)
        );
        assert!(
            letters[0]
                .content
                .ends_with(b"\r\n\r\nFrom here\r\n.\r\n\r\n")
        );
        assert_eq!(letters[1].to, ["e@y.nl"]);
    }

    #[test]
    fn a_message_without_recipients_is_no_letter() {
        assert_eq!(Letter::parse(b"From: a@x.nl\n\nhello\n"), None);
        let letter = Letter::parse(&Letter::new("a@x.nl", "b@y.nl", "s", "").content).unwrap();
        assert_eq!(letter, Letter::new("a@x.nl", "b@y.nl", "s", ""));
    }
}
