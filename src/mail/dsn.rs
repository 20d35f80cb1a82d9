//! Writing delivery status notifications (RFC 3464), internationalized ones included
//! (RFC 6533). Whether one is sent, and what it says, is decided elsewhere.

mod out;

use std::net::IpAddr;

use jiff::Timestamp;

use super::header::trace::date;
use super::text::printable;
use super::{Body, EnhancedStatus, Mailbox};
use out::{LINE_MAXIMUM, Out, address_field};

/// Diagnostics longer than this are cut.
const DIAGNOSTIC_MAXIMUM: usize = 2_000;

/// All that stands in a notification.
#[derive(Debug, Clone)]
pub struct Notification<'a> {
    /// Without angle brackets.
    pub message_id: String,
    /// When it is written.
    pub date: Timestamp,
    /// The address in From.
    pub author: Mailbox,
    /// Whom it tells: the reverse-path of the message.
    pub to: &'a Mailbox,
    /// ASCII.
    pub subject: &'a str,
    /// The Message-ID of the message without angle brackets; empty when it has none.
    pub in_reply_to: &'a str,
    /// The part for people.
    pub words: &'a str,
    /// The host that writes it.
    pub reporting_mta: &'a str,
    /// ENVID as the client gave it.
    pub envelope_id: Option<&'a str>,
    /// When the message was accepted.
    pub arrival: Timestamp,
    /// The name of the message in logs.
    pub log_id: String,
    /// The recipients it is about.
    pub groups: &'a [Group<'a>],
    /// What is returned of the message.
    pub returned: Part<'a>,
    /// The message was submitted with SMTPUTF8, so its sender reads it.
    pub smtputf8: bool,
}

/// The fields about one recipient (RFC 3464 section 2.3).
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// ORCPT, `type;address`.
    pub original: Option<&'a str>,
    /// The address as sent to the relay.
    pub recipient: String,
    /// `failed`, `delayed`, `delivered`, `relayed` or `expanded`.
    pub action: &'a str,
    /// The status.
    pub status: EnhancedStatus,
    /// The host that said it, its name first; empty when there was none.
    pub remote_mta: &'a str,
    /// The reply; none when there was none.
    pub diagnostic: Option<String>,
    /// When it was last tried.
    pub last_attempt: Option<Timestamp>,
    /// Until when it is tried.
    pub will_retry_until: Option<Timestamp>,
}

/// What is returned of a message.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Its header.
    Header(&'a [u8]),
    /// All of it.
    Message(&'a [u8]),
}

/// A written notification.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The content, every line ended by CRLF.
    pub octets: Vec<u8>,
    /// Whether 8BITMIME is needed to send it.
    pub body: Body,
    /// Whether SMTPUTF8 is needed to send it.
    pub smtputf8: bool,
}

impl Notification<'_> {
    /// Writes it.
    ///
    /// It is plain ASCII wherever it can be, so that any relay can carry it: only a
    /// sender who used SMTPUTF8 himself, and has an address beyond ASCII, gets a `message/global` form (RFC 6533 section 5).
    pub fn write(&self) -> Written {
        let returned = match self.returned {
            Part::Message(octets) if longest_line(octets) > LINE_MAXIMUM => {
                Part::Header(header_of(octets, octets.len()))
            }
            other => other,
        };
        // Any relay must be able to carry it where it can be written so: without SMTPUTF8
        // at the relay the message itself may have failed for just that.
        let global = self.smtputf8 && !self.to.local().is_ascii();
        // Inside message/rfc822 a header beyond ASCII has no place.
        let returned = match returned {
            Part::Message(octets) if !global && !header_of(octets, octets.len()).is_ascii() => {
                Part::Header(header_of(octets, octets.len()))
            }
            other => other,
        };
        let shown = |it: &Mailbox| match global {
            true => it.to_string(),
            false => it.with_a_labels(),
        };
        let boundary = boundary(&self.message_id, returned);

        let mut out = Out::default();
        let id = without_line_ends(&self.message_id);
        out.line(&format!(
            "From: Mail Delivery System <{}>",
            without_line_ends(&shown(&self.author))
        ));
        out.line(&format!("To: <{}>", without_line_ends(&shown(self.to))));
        out.line(&format!("Subject: {}", self.subject));
        out.line(&format!("Date: {}", date(self.date)));
        out.line(&format!("Message-ID: <{id}>"));
        let original = without_line_ends(self.in_reply_to);
        if !original.is_empty()
            && original.is_ascii()
            && original.len() < 900
            && !original.contains(['<', '>', ' '])
        {
            out.line(&format!("In-Reply-To: <{original}>"));
            out.line(&format!("References: <{original}>"));
        }
        // RFC 3834 section 5: nobody's out-of-office answers this.
        out.line("Auto-Submitted: auto-replied");
        out.line("MIME-Version: 1.0");
        out.line("Content-Type: multipart/report; report-type=delivery-status;");
        out.line(&format!("\tboundary=\"{boundary}\""));

        let mut parts = Out::default();
        parts.line("This is a delivery status notification in MIME format (RFC 3464).");
        parts.line("");
        parts.line(&format!("--{boundary}"));
        self.human_part(&mut parts);
        parts.line(&format!("--{boundary}"));
        self.status_part(&mut parts, global);
        parts.line(&format!("--{boundary}"));
        let eight_bit = returned_part(&mut parts, returned, global) || global;
        parts.line("");
        parts.line(&format!("--{boundary}--"));

        // A part may not have more bits than the whole says (RFC 2045 section 6.4).
        if eight_bit {
            out.line("Content-Transfer-Encoding: 8bit");
        }
        out.line("");
        out.octets.append(&mut parts.octets);
        Written {
            octets: out.octets,
            body: if eight_bit {
                Body::EightBitMime
            } else {
                Body::SevenBit
            },
            smtputf8: global,
        }
    }

    fn human_part(&self, out: &mut Out) {
        out.line("Content-Description: Explanation");
        out.line("Content-Type: text/plain; charset=utf-8");
        let plain = self.words.is_ascii() && longest_line(self.words.as_bytes()) <= 78;
        if plain {
            out.line("");
            for line in self.words.lines() {
                out.line(line);
            }
        } else {
            out.line("Content-Transfer-Encoding: quoted-printable");
            out.line("");
            for line in self.words.lines() {
                out.quoted_printable(line.as_bytes());
            }
        }
        out.line("");
    }

    fn status_part(&self, out: &mut Out, global: bool) {
        out.line("Content-Description: Delivery report");
        if global {
            out.line("Content-Type: message/global-delivery-status");
            out.line("Content-Transfer-Encoding: 8bit");
        } else {
            out.line("Content-Type: message/delivery-status");
        }
        out.line("");
        out.field(
            "Reporting-MTA",
            &format!("dns; {}", self.reporting_mta),
            global,
        );
        if let Some(id) = self.envelope_id {
            out.verbatim("Original-Envelope-Id", id, global);
        }
        out.field("Arrival-Date", &date(self.arrival), global);
        for group in self.groups {
            out.line("");
            if let Some(original) = group.original {
                let (kind, address) = original.split_once(';').unwrap_or(("rfc822", original));
                out.verbatim(
                    "Original-Recipient",
                    &address_field(kind.trim(), address.trim(), global),
                    global,
                );
            }
            let kind = if group.recipient.is_ascii() {
                "rfc822"
            } else {
                "utf-8"
            };
            out.verbatim(
                "Final-Recipient",
                &address_field(kind, &group.recipient, global),
                global,
            );
            out.field("Action", group.action, global);
            out.field("Status", &group.status.to_string(), global);
            if let Some(name) = group.remote_mta.split_whitespace().next() {
                out.field("Remote-MTA", &format!("dns; {}", host(name)), global);
            }
            if let Some(said) = &group.diagnostic {
                let said = said.replace(['\r', '\n'], " ");
                let said = printable(said.as_bytes(), DIAGNOSTIC_MAXIMUM);
                out.field("Diagnostic-Code", &format!("smtp; {said}"), global);
            }
            if let Some(at) = group.last_attempt {
                out.field("Last-Attempt-Date", &date(at), global);
            }
            out.field("Final-Log-Id", &self.log_id, global);
            if let Some(until) = group.will_retry_until {
                out.field("Will-Retry-Until", &date(until), global);
            }
        }
        out.line("");
    }
}

/// Writes the third part; tells whether it needs 8BITMIME.
fn returned_part(out: &mut Out, returned: Part<'_>, global: bool) -> bool {
    match returned {
        Part::Message(octets) => {
            let ascii = octets.is_ascii();
            out.line("Content-Description: Your message");
            out.line(if global {
                "Content-Type: message/global"
            } else {
                "Content-Type: message/rfc822"
            });
            // A message inside a message may not be encoded again (RFC 2046 section 5.2.1).
            if !ascii {
                out.line("Content-Transfer-Encoding: 8bit");
            }
            out.line("");
            out.octets.extend_from_slice(octets);
            if !octets.ends_with(b"\r\n") {
                out.line("");
            }
            !ascii
        }
        Part::Header(octets) => {
            let plain = octets.is_ascii() && longest_line(octets) <= LINE_MAXIMUM;
            out.line("Content-Description: The header of your message");
            if global {
                out.line("Content-Type: message/global-headers");
                out.line("Content-Transfer-Encoding: 8bit");
            } else {
                out.line("Content-Type: text/rfc822-headers");
                if !plain {
                    // RFC 6522 section 4 allows it where the header is not ASCII.
                    out.line("Content-Transfer-Encoding: quoted-printable");
                }
            }
            out.line("");
            if plain || global {
                out.octets.extend_from_slice(octets);
                if !octets.is_empty() && !octets.ends_with(b"\r\n") {
                    out.line("");
                }
            } else {
                let text = octets.strip_suffix(b"\r\n").unwrap_or(octets);
                for line in text.split(|it| *it == b'\n') {
                    out.quoted_printable(line.strip_suffix(b"\r").unwrap_or(line));
                }
            }
            false
        }
    }
}

/// The header of a content: up to the empty line, at most `limit` octets, whole lines.
pub fn header_of(content: &[u8], limit: usize) -> &[u8] {
    let end = content
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .map(|it| it + 2);
    if content.starts_with(b"\r\n") {
        return &[];
    }
    if let Some(end) = end.filter(|it| *it <= limit) {
        return &content[..end];
    }
    // It goes on, or it is all there was to read: half a line, or half of a line's end,
    // is nothing to show.
    let cut = content[..limit.min(content.len())]
        .windows(2)
        .rposition(|it| it == b"\r\n")
        .map_or(0, |it| it + 2);
    &content[..cut]
}

/// A boundary that does not occur in what is returned.
fn boundary(message_id: &str, returned: Part<'_>) -> String {
    let octets = match returned {
        Part::Header(octets) | Part::Message(octets) => octets,
    };
    let id: String = message_id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(40)
        .collect();
    let mut number = 0u32;
    loop {
        let boundary = format!("=_{id}.{number}");
        let line = format!("--{boundary}");
        if !octets.windows(line.len()).any(|it| it == line.as_bytes()) {
            return boundary;
        }
        number += 1;
    }
}

fn longest_line(octets: &[u8]) -> usize {
    octets
        .split(|it| *it == b'\n')
        .map(|it| it.strip_suffix(b"\r").unwrap_or(it).len())
        .max()
        .unwrap_or(0)
}

/// What came from a client and stands in a header field must not end it.
fn without_line_ends(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).collect()
}

/// A name as the type `dns` of Remote-MTA has it; an address stands in brackets there
/// (RFC 3464 section 2.1.2).
fn host(name: &str) -> String {
    match name.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(address)) => format!("[{address}]"),
        Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;

    static JAN: LazyLock<Mailbox> = LazyLock::new(|| Mailbox::parse("jan@example.nl").unwrap());

    fn notification<'a>(groups: &'a [Group<'a>], returned: Part<'a>) -> Notification<'a> {
        Notification {
            message_id: "1k9xw3q5g0000@app01.example.nl".into(),
            date: Timestamp::from_second(1_795_000_000).unwrap(),
            author: Mailbox::parse("postmaster@app01.example.nl").unwrap(),
            to: &JAN,
            subject: "Your message could not be delivered",
            in_reply_to: "abc@example.nl",
            words: "Not delivered.\n",
            reporting_mta: "app01.example.nl",
            envelope_id: Some("QQ314159"),
            arrival: Timestamp::from_second(1_795_000_000).unwrap(),
            log_id: "1k9xw3q5g0000".into(),
            groups,
            returned,
            smtputf8: false,
        }
    }

    fn group(recipient: &str) -> Group<'static> {
        Group {
            original: Some("rfc822;info@example.org"),
            recipient: recipient.to_owned(),
            action: "failed",
            status: EnhancedStatus::new(5, 1, 1),
            remote_mta: "mx.example.org [192.0.2.1]:25",
            diagnostic: Some("550 5.1.1 <info@example.org>: Recipient address rejected: User unknown in virtual mailbox table\nsee https://example.org".into()),
            last_attempt: Some(Timestamp::from_second(1_795_000_000).unwrap()),
            will_retry_until: None,
        }
    }

    #[test]
    fn a_notification_has_the_three_parts_and_reads_back() {
        let content = b"Subject: hello\r\nFrom: jan@example.nl\r\n\r\nbody\r\n";
        let groups = [group("info@example.org")];
        let written = notification(&groups, Part::Message(content)).write();
        let text = String::from_utf8(written.octets.clone()).unwrap();
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
        assert!(text.lines().all(|it| it.len() <= 80), "{text}");
        let parsed = mail_parser::MessageParser::default()
            .parse(&written.octets)
            .unwrap();
        let kinds: Vec<_> = parsed
            .parts
            .iter()
            .filter_map(|it| {
                use mail_parser::MimeHeaders;
                it.content_type()
                    .map(|it| format!("{}/{}", it.ctype(), it.subtype().unwrap_or("")))
            })
            .collect();
        assert_eq!(
            kinds,
            [
                "multipart/report",
                "text/plain",
                "message/delivery-status",
                "message/rfc822"
            ]
        );
        for field in [
            "Original-Envelope-Id: QQ314159",
            "Original-Recipient: rfc822; info@example.org",
            "Final-Recipient: rfc822; info@example.org",
            "Action: failed",
            "Status: 5.1.1",
            "Remote-MTA: dns; mx.example.org\r\n",
            "Auto-Submitted: auto-replied",
        ] {
            assert!(text.contains(field), "{field} in {text}");
        }
        assert_eq!(written.body, Body::SevenBit);
    }

    #[test]
    fn a_relay_without_a_name_is_told_by_its_address_in_brackets() {
        assert_eq!(host("mx.example.org"), "mx.example.org");
        assert_eq!(host("192.0.2.1"), "[192.0.2.1]");
        assert_eq!(host("2001:db8::1"), "[IPv6:2001:db8::1]");
        assert_eq!(host("[192.0.2.1]"), "[192.0.2.1]");
    }

    #[test]
    fn a_header_beyond_ascii_still_makes_an_ascii_notification() {
        let content = "Subject: Grüße\r\nX: y\r\n\r\nbody\r\n".as_bytes();
        let groups = [group("jürgen@bücher.example")];
        let written = notification(&groups, Part::Header(header_of(content, 1000))).write();
        assert!(written.octets.is_ascii());
        assert!(!written.smtputf8);
        let text = String::from_utf8(written.octets).unwrap();
        assert!(
            text.contains("Final-Recipient: utf-8; j\\x{FC}rgen@b\\x{FC}cher.example"),
            "{text}"
        );
        assert!(text.contains("Subject: Gr=C3=BC=C3=9Fe"), "{text}");
        assert!(!text.contains("body"));
    }

    #[test]
    fn a_sender_beyond_ascii_gets_the_global_form() {
        let content = "Subject: Grüße\r\n\r\nbody\r\n".as_bytes();
        let groups = [group("jürgen@bücher.example")];
        let mut notification = notification(&groups, Part::Header(header_of(content, 1000)));
        let jürgen = Mailbox::parse("jürgen@example.nl").unwrap();
        notification.to = &jürgen;
        notification.smtputf8 = true;
        let written = notification.write();
        assert!(written.smtputf8);
        assert_eq!(written.body, Body::EightBitMime);
        let header = header_of(&written.octets, 10_000);
        let header = String::from_utf8_lossy(header);
        assert!(
            header.contains("\r\nContent-Transfer-Encoding: 8bit\r\n"),
            "{header}"
        );
        let text = String::from_utf8(written.octets).unwrap();
        assert!(text.contains("message/global-delivery-status"));
        assert!(text.contains("Final-Recipient: utf-8; jürgen@bücher.example"));
    }

    #[test]
    fn a_sender_in_ascii_gets_a_notification_that_any_relay_can_carry() {
        let content = "Subject: Grüße\r\n\r\nbödy\r\n".as_bytes();
        let groups = [group("jürgen@bücher.example")];
        for part in [
            Part::Header(header_of(content, 1000)),
            Part::Message(content),
        ] {
            let mut notification = notification(&groups, part);
            let to = Mailbox::parse("jan@bücher.example").unwrap();
            notification.to = &to;
            notification.author = Mailbox::parse("mailer@grüße.example").unwrap();
            notification.smtputf8 = true;
            let written = notification.write();
            assert!(written.octets.is_ascii());
            assert_eq!((written.smtputf8, written.body), (false, Body::SevenBit));
            let text = String::from_utf8(written.octets).unwrap();
            assert!(
                text.contains("To: <jan@xn--bcher-kva.example>\r\n"),
                "{text}"
            );
            assert!(
                text.contains(" <mailer@xn--gre-6ka8l.example>\r\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_header_ends_at_the_empty_line_or_the_limit() {
        assert_eq!(
            header_of(b"a: b\r\nc: d\r\n\r\nx", 100),
            b"a: b\r\nc: d\r\n"
        );
        assert_eq!(header_of(b"a: b\r\nc: d\r\n\r\nx", 9), b"a: b\r\n");
        assert_eq!(header_of(b"\r\nx", 9), b"");
        assert_eq!(header_of(b"aaaaaaaaaaaaaaaaa", 3), b"");
        assert_eq!(header_of(b"", 3), b"");
        // No more was read of it than this: nobody knows how the last line goes on.
        for cut in ["a: b\r\nc: d\r", "a: b\r\nc: d", "a: b\r\n"] {
            assert_eq!(header_of(cut.as_bytes(), cut.len()), b"a: b\r\n");
        }
    }

    #[test]
    fn a_name_and_an_address_are_reported_as_they_were_given() {
        let mut one = group("\"jan  jansen\"@example.org");
        one.original = Some("utf-8;a+b=c\\d@example.org");
        let groups = [one];
        let mut it = notification(&groups, Part::Header(b""));
        it.envelope_id = Some("a  b");
        let text = String::from_utf8(it.write().octets).unwrap();
        for line in [
            "Original-Envelope-Id: a  b\r\n",
            "Final-Recipient: rfc822; \"jan  jansen\"@example.org\r\n",
            "Original-Recipient: utf-8; a\\x{2B}b\\x{3D}c\\x{5C}d@example.org\r\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        // The same in the form that may hold any letter.
        let field = address_field("utf-8", "j\u{fc}r+gen@example.org", true);
        assert_eq!(field, "utf-8; j\u{fc}r\\x{2B}gen@example.org");
    }

    #[test]
    fn no_line_of_a_report_is_longer_than_any_may_be() {
        let long = format!("{}@example.org", "\u{fc}".repeat(250));
        let text = notification(&[group(&long)], Part::Header(b"")).write();
        let text = String::from_utf8(text.octets).unwrap();
        assert!(text.contains("Final-Recipient:\r\n utf-8; "), "{text}");
        assert!(text.lines().all(|it| it.len() <= LINE_MAXIMUM));
    }

    #[test]
    fn words_that_end_in_colons_are_folded_like_others() {
        let mut one = group("a@example.org");
        one.diagnostic = Some("reason: ".repeat(300));
        let written = notification(&[one], Part::Header(b"")).write();
        let text = String::from_utf8(written.octets).unwrap();
        assert!(text.lines().all(|it| it.len() <= 78), "{text}");
    }

    proptest! {
        #[test]
        fn whatever_is_said_no_line_is_forged(said in "\\PC{0,40}[\r\n]{0,3}(Action: delivered)?\\PC{0,2000}", id in "[ -~\r\n]{0,80}", header in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut one = group("a@example.org");
            one.diagnostic = Some(said);
            let groups = [one];
            let mut it = notification(&groups, Part::Header(header_of(&header, 300)));
            it.in_reply_to = &id;
            it.envelope_id = Some(&id);
            let written = it.write();
            let text = String::from_utf8_lossy(&written.octets);
            prop_assert_eq!(text.matches("\r\nAction: ").count(), 1 + String::from_utf8_lossy(header_of(&header, 300)).matches("\r\nAction: ").count());
            prop_assert!(text.split("\r\n").take(30).all(|it| it.len() <= 998));
        }
    }
}
