//! The test message: what it says to whoever reads it.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use lettre::address::{Address, AddressError};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};

use super::token::Token;
use crate::config::Relay;

/// Why a test message cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// The address cannot stand in a header field.
    #[error("the sender {sender} cannot be written in a message: {detail}")]
    Sender {
        /// The address.
        sender: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The message cannot be put together.
    #[error("the test message cannot be written: {0}")]
    Build(String),
}

/// All that a test message tells.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// The relay that it goes through, and to whose `sender`.
    pub relay: &'a Relay,
    /// This machine.
    pub hostname: &'a str,
    /// What links begin with; none: it carries the token only.
    pub base_url: Option<&'a str>,
    /// The secret that it carries.
    pub token: &'a Token,
    /// Until when that is good.
    pub expires: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// Its Message-ID, without brackets.
    pub message_id: &'a str,
}

impl Letter<'_> {
    /// The whole message, its lines ended by CRLF.
    pub fn compose(&self) -> Result<Vec<u8>, LetterError> {
        let relay = self.relay;
        let sender = relay.sender.as_ref().map(|it| {
            // The local part quoted where it must be; the domain in ASCII, because not
            // every relay on the way takes another one.
            let shown = it.to_string();
            let local = shown.rsplit_once('@').map_or("", |it| it.0);
            format!("{local}@{}", it.domain().ascii())
        });
        let sender = sender.unwrap_or_default();
        let address: Address = sender.parse().map_err(|detail: AddressError| {
            let detail = detail.to_string();
            LetterError::Sender {
                sender: sender.clone(),
                detail,
            }
        })?;
        let name = format!("Penstock on {}", self.hostname);
        let since = u64::try_from(self.now.as_second()).unwrap_or_default();
        let auto = HeaderName::new_from_ascii_str("Auto-Submitted");
        let message = Message::builder()
            .from(Mailbox::new(Some(name), address.clone()))
            .to(Mailbox::new(None, address))
            .subject(format!(
                "Confirm that the relay {} delivers (Penstock on {})",
                relay.name, self.hostname
            ))
            .date(SystemTime::UNIX_EPOCH + Duration::from_secs(since))
            .message_id(Some(format!("<{}>", self.message_id)))
            .raw_header(HeaderValue::new(auto, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN)
            .body(self.text())
            .map_err(|error| LetterError::Build(error.to_string()))?;
        Ok(message.formatted())
    }

    fn text(&self) -> String {
        let relay = self.relay;
        let host = self.hostname;
        let name = &relay.name;
        let token = self.token.expose();
        let servers: Vec<String> = relay.servers.iter().map(ToString::to_string).collect();
        let login = match &relay.credentials {
            Some(it) => format!("with the login {}", it.username),
            None => "without a login".to_owned(),
        };
        let ways = match self.base_url {
            Some(base) => format!(
                "If that is right, open this page and press its button:\n\n  {base}/confirm/{token}\n\n\
                 Or run this on {host}:\n\n  penstock relay confirm {token}\n"
            ),
            None => format!(
                "If that is right, run this on {host}:\n\n  penstock relay confirm {token}\n"
            ),
        };
        let until = self.expires.strftime("%Y-%m-%d %H:%M UTC");
        format!(
            "This is the test message of the relay {name}. That you read it proves that the\n\
             relay delivers.\n\n\
             Penstock on {host} is about to send mail through it:\n\n\
             \x20 server  {}\n  login   {login}\n  sender  {}\n\n\
             {ways}\n\
             Either works once, until {until}. If you know nothing of this, do nothing:\n\
             the relay stays unused.\n",
            servers.join(", "),
            relay
                .sender
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::relay;
    use super::*;
    use crate::mail::header::{HEADER_MAXIMUM, Header};

    fn letter(relay: &Relay, base_url: Option<&str>) -> (String, Token) {
        let token = Token::random();
        let octets = Letter {
            relay,
            hostname: "app01.example.nl",
            base_url,
            token: &token,
            expires: "2026-11-28T12:00:00Z".parse().unwrap(),
            now: "2026-11-21T12:00:00Z".parse().unwrap(),
            message_id: "1k9@app01.example.nl",
        };
        (String::from_utf8(octets.compose().unwrap()).unwrap(), token)
    }

    #[test]
    fn a_test_message_says_what_it_is_for_and_how_to_confirm() {
        let (text, token) = letter(&relay(""), Some("https://mail.example.nl"));
        let token = token.expose();
        for words in [
            "To: mailer@a.example\r\n",
            "Subject: Confirm that the relay own delivers (Penstock on app01.example.nl)\r\n",
            "Date: Sat, 21 Nov 2026 12:00:00 +0000\r\n",
            "Message-ID: <1k9@app01.example.nl>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "\r\n  server  [a.example]:587\r\n",
            &format!("\r\n  https://mail.example.nl/confirm/{token}\r\n"),
            &format!("\r\n  penstock relay confirm {token}\r\n"),
            "until 2026-11-28 12:00 UTC.",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(!text.contains("secret"), "{text}");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
        assert!(text.lines().all(|it| it.len() < 998), "{text}");
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.len() < HEADER_MAXIMUM);
        let header = Header::scan(format!("{head}\r\n\r\n").as_bytes());
        assert!(header.is_ok(), "our own strict reader takes it");
    }

    #[test]
    fn without_a_page_there_is_no_link() {
        let (text, _) = letter(&relay(""), None);
        assert!(!text.contains("http"), "{text}");
        assert!(text.contains("penstock relay confirm "), "{text}");
    }

    #[test]
    fn odd_senders_are_written_or_refused_and_never_break_the_header() {
        for (sender, written) in [
            (
                "info@b\u{fc}cher.example",
                "To: info@xn--bcher-kva.example\r\n",
            ),
            ("o'neil+x@a.example", "To: o'neil+x@a.example\r\n"),
        ] {
            let own = relay(&format!("sender = \"{sender}\""));
            let (text, _) = letter(&own, None);
            assert!(text.contains(written), "{text}");
        }
    }
}
