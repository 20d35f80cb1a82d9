//! The fields that Penstock puts before a message: Received, and Date and Message-ID
//! where they are missing (RFC 6409 section 8). Nothing else in a message ever changes.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Header;
use crate::mail::text::steers;
use crate::mail::{Domain, QueueId};

/// What a client may call itself in a Received field, in characters.
const GREETING_MAXIMUM: usize = 100;

/// What a Received field tells (RFC 5321 section 4.4).
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// What the client called itself in EHLO or HELO.
    pub greeting: &'a str,
    /// The address it connected from.
    pub client: IpAddr,
    /// This host.
    pub hostname: &'a str,
    /// How the message came.
    pub protocol: Protocol,
    /// What TLS agreed on, like `TLSv1.3 TLS_AES_256_GCM_SHA384`; none in clear.
    pub tls: Option<&'a str>,
    /// The message's name here.
    pub id: QueueId,
    /// When it was accepted.
    pub at: Timestamp,
}

/// How a message came, for the `with` clause (RFC 3848, RFC 6531 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocol {
    /// The client said EHLO.
    pub extended: bool,
    /// Under TLS.
    pub tls: bool,
    /// After a login.
    pub login: bool,
    /// With SMTPUTF8.
    pub utf8: bool,
}

impl Protocol {
    /// The registered name, like `ESMTPSA`.
    ///
    /// There is none for HELO under TLS: the `S` is left out then, the TLS comment says it.
    pub fn name(self) -> String {
        if !self.extended {
            return "SMTP".into();
        }
        let mut name = String::from(if self.utf8 { "UTF8SMTP" } else { "ESMTP" });
        if self.tls {
            name.push('S');
        }
        if self.login {
            name.push('A');
        }
        name
    }
}

/// Everything that is put before a message: its own lines, each ended by CRLF, and an
/// empty line where the message has no header of its own.
pub fn trace_fields(received: &Received<'_>, header: &Header) -> String {
    let mut text = received_field(received);
    if !header.has_date {
        let _ = write!(text, "Date: {}\r\n", date(received.at));
    }
    if !header.has_message_id {
        let _ = write!(text, "Message-ID: <{}>\r\n", made_message_id(received));
    }
    if header.is_absent {
        text.push_str("\r\n");
    }
    text
}

/// The Message-ID of a message that came without one; no angle brackets.
pub fn made_message_id(received: &Received<'_>) -> String {
    format!("{}@{}", received.id, received.hostname)
}

/// A date as RFC 5322 section 3.3 writes it, in UTC.
pub fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC)
        .strftime("%a, %d %b %Y %H:%M:%S +0000")
        .to_string()
}

fn received_field(received: &Received<'_>) -> String {
    let client = match received.client.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    };
    let mut text = match Domain::parse(received.greeting) {
        Ok(domain) if is_shown_as_written(&domain, received.protocol.utf8) => {
            format!("Received: from {domain} ({client})")
        }
        Ok(domain) => format!("Received: from {} ({client})", domain.ascii()),
        // What is no domain must not stand where one belongs, but tells who it was.
        Err(_) => {
            let said: String = received
                .greeting
                .chars()
                .take(GREETING_MAXIMUM)
                .map(|it| {
                    let plain = it.is_ascii_alphanumeric() || "-_.:[]".contains(it);
                    if plain { it } else { '?' }
                })
                .collect();
            format!("Received: from {client} (helo {said})")
        }
    };
    let _ = write!(text, "\r\n\tby {}", received.hostname);
    let _ = write!(text, " with {}", received.protocol.name());
    if let Some(tls) = received.tls {
        let _ = write!(text, "\r\n\t({tls})");
    }
    let _ = write!(text, " id {};\r\n\t{}\r\n", received.id, date(received.at));
    text
}

/// Whether a field may hold a name beyond ASCII, and it is what it looks like: U+200B in
/// a name is dropped by IDNA and would be seen by nobody.
fn is_shown_as_written(domain: &Domain, utf8: bool) -> bool {
    let name = domain.as_written();
    name.is_ascii() || (utf8 && !name.chars().any(steers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn received(greeting: &str) -> Received<'_> {
        Received {
            greeting,
            client: "::ffff:192.0.2.7".parse().unwrap(),
            hostname: "app01.example.nl",
            protocol: Protocol {
                extended: true,
                ..Protocol::default()
            },
            tls: None,
            id: QueueId::from_number(1_795_000_000_000 << 20),
            at: "2026-11-21T20:10:05.123Z".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_missing_is_added_and_nothing_else() {
        let header = Header::scan(b"From: a@b.c\r\n\r\nx").unwrap();
        let id = received("").id;
        assert_eq!(
            trace_fields(&received("erp.example.nl"), &header),
            format!(
                "Received: from erp.example.nl ([192.0.2.7])\r\n\tby app01.example.nl with ESMTP id {id};\r\n\
                 \tSat, 21 Nov 2026 20:10:05 +0000\r\n\
                 Date: Sat, 21 Nov 2026 20:10:05 +0000\r\n\
                 Message-ID: <{id}@app01.example.nl>\r\n"
            )
        );
        let header = Header::scan(b"Date: x\r\nMessage-ID: y\r\n\r\nx").unwrap();
        let mut secure = received("[192.0.2.7]");
        secure.protocol.tls = true;
        secure.protocol.login = true;
        secure.tls = Some("TLSv1.3 TLS_AES_256_GCM_SHA384");
        assert_eq!(
            trace_fields(&secure, &header),
            format!(
                "Received: from [192.0.2.7] ([192.0.2.7])\r\n\tby app01.example.nl with ESMTPSA\r\n\
                 \t(TLSv1.3 TLS_AES_256_GCM_SHA384) id {id};\r\n\tSat, 21 Nov 2026 20:10:05 +0000\r\n"
            )
        );
    }

    #[test]
    fn a_message_that_is_all_body_gets_an_empty_line() {
        let header = Header::scan(b"just text\r\n").unwrap();
        assert!(trace_fields(&received("a"), &header).ends_with(">\r\n\r\n"));
    }

    #[test]
    fn protocols_have_their_registered_names() {
        for (extended, tls, login, utf8, name) in [
            (false, false, false, false, "SMTP"),
            (false, true, false, false, "SMTP"),
            (true, false, false, false, "ESMTP"),
            (true, true, false, false, "ESMTPS"),
            (true, false, true, false, "ESMTPA"),
            (true, true, true, false, "ESMTPSA"),
            (true, false, false, true, "UTF8SMTP"),
            (true, true, true, true, "UTF8SMTPSA"),
        ] {
            let protocol = Protocol {
                extended,
                tls,
                login,
                utf8,
            };
            assert_eq!(protocol.name(), name);
        }
    }

    #[test]
    fn a_greeting_with_invisible_characters_is_written_as_the_name_that_it_means() {
        let from = |greeting| {
            let mut received = received(greeting);
            received.protocol.utf8 = true;
            let field = received_field(&received);
            field.split(' ').nth(2).unwrap().to_owned()
        };
        assert_eq!(from("bücher.example"), "bücher.example");
        for invisible in [
            "ex\u{200b}ample.nl",
            "ex\u{2060}ample.nl",
            "\u{feff}example.nl",
        ] {
            assert_eq!(from(invisible), "example.nl", "{invisible:?}");
        }
    }

    proptest! {
        #[test]
        fn no_greeting_breaks_the_field(greeting in "\\PC{0,300}|[()\\\\\r\n:;a]{0,20}") {
            let text = received_field(&received(&greeting));
            prop_assert!(text.is_ascii());
            prop_assert!(text.lines().all(|it| it.len() < 400));
            prop_assert_eq!(text.matches("\r\n").count(), 3);
            prop_assert_eq!(text.matches('\n').count(), 3);
            prop_assert_eq!(text.matches(';').count(), 1);
            prop_assert_eq!((text.matches('(').count(), text.matches(')').count()), (1, 1));
        }
    }
}
