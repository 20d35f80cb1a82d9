//! Finding what a server said in what a person has: a line of a log, the words of an
//! error, or a whole bounce message.

mod plain;

use mail_parser::PartType;
use mail_parser::decoders::html::html_to_text;

use crate::mail::{EnhancedStatus, Stage, mime};

use super::finding::Refusal;

/// More of a bounce than this is not read: what a server said stands near its top.
const BOUNCE_MAXIMUM_BYTES: usize = 1 << 20;
/// A bounce has three parts, a few more with pictures.
const PARTS_MAXIMUM: usize = 20;
/// No reply without a code has more lines.
const REPLY_MAXIMUM_LINES: usize = 20;
/// A bounce that speaks of more recipients than this is cut short.
const RECIPIENTS_MAXIMUM: usize = 100;

/// What a server said, as far as the text tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// At which point, where the words around it tell (`in reply to RCPT TO command`).
    pub stage: Option<Stage>,
    /// The reply code.
    pub code: Option<u16>,
    /// The enhanced status.
    pub enhanced: Option<EnhancedStatus>,
    /// The words.
    pub text: String,
    /// Who said it; empty when it is not told.
    pub server: String,
    /// About whom; empty when it is not told.
    pub recipient: String,
}

impl Said {
    /// Finds code and status in a reply or in a line that quotes one.
    pub fn read(text: &str) -> Self {
        let text = text.trim();
        let code = code_in(text);
        Self {
            stage: stage_in(text),
            code: code.map(|(it, _)| it),
            enhanced: code
                .and_then(|(_, place)| EnhancedStatus::find_in(&text[place..]))
                .or_else(|| EnhancedStatus::find_in(text)),
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// As the classifier wants it.
    pub fn refusal(&self) -> Refusal<'_> {
        Refusal {
            stage: self.stage,
            code: self.code,
            enhanced: self.enhanced,
            text: &self.text,
            server: &self.server,
        }
    }
}

/// Finds what servers said in a file or text: each recipient of a delivery status
/// notification (RFC 3464), the quoted reply of a bounce in plain words, or the text
/// itself.
pub fn read(octets: &[u8]) -> Vec<Said> {
    let octets = &octets[..octets.len().min(BOUNCE_MAXIMUM_BYTES)];
    let text = String::from_utf8_lossy(octets);
    let from_status = per_recipient(&text);
    if !from_status.is_empty() {
        return from_status;
    }
    if !looks_like_a_message(&text) {
        let listed = match text.trim().contains('\n') {
            true => plain::recipients(&text),
            false => Vec::new(),
        };
        // Lists of addresses stand in many a file.
        let is_bounce = |it: &Said| it.code.is_some() || it.enhanced.is_some();
        return match listed.iter().any(is_bounce) {
            true => listed,
            false => vec![words(&text)],
        };
    }
    let decoded = decoded(octets);
    let from_status = per_recipient(&decoded);
    if !from_status.is_empty() {
        return from_status;
    }
    let bodies = [body(&decoded), body(&text)];
    let listed = bodies.iter().map(|it| plain::recipients(it));
    if let Some(listed) = listed.into_iter().find(|it| !it.is_empty()) {
        return listed;
    }
    let said = bodies.iter().find_map(|it| quoted(it));
    vec![said.unwrap_or_else(|| Said::read(&text))]
}

/// A text that is no bounce. One that is long and has neither code nor status is no reply
/// (a file that was named by mistake): a word in the midst of it would tell nothing.
fn words(text: &str) -> Said {
    let said = Said::read(text);
    let is_reply = said.code.is_some()
        || said.enhanced.is_some()
        || text.lines().nth(REPLY_MAXIMUM_LINES).is_none();
    match is_reply {
        true => said,
        false => Said::read(text.trim().lines().next().unwrap_or_default()),
    }
}

/// What stands behind the header.
fn body(text: &str) -> &str {
    text.find("\n\n")
        .or_else(|| text.find("\r\n\r\n"))
        .map_or("", |it| &text[it..])
}

/// The texts of a message without their transfer encodings, HTML as plain words.
fn decoded(octets: &[u8]) -> String {
    let Some(message) = mime::message(octets) else {
        return String::new();
    };
    let mut text = String::new();
    for part in message.parts.iter().take(PARTS_MAXIMUM) {
        let words = match &part.body {
            PartType::Text(words) => words.clone(),
            PartType::Html(html) => html_to_text(html).into(),
            PartType::Binary(octets) | PartType::InlineBinary(octets) => {
                String::from_utf8_lossy(octets)
            }
            PartType::Message(_) | PartType::Multipart(_) => continue,
        };
        text.push_str("\n\n");
        text.push_str(&words);
        if text.len() > BOUNCE_MAXIMUM_BYTES {
            break;
        }
    }
    text
}

/// Whether it begins with header fields.
fn looks_like_a_message(text: &str) -> bool {
    let fields = text
        .lines()
        .take_while(|it| !it.trim().is_empty())
        .filter(|line| {
            line.split_once(':').is_some_and(|(name, _)| {
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|it| it.is_ascii_alphanumeric() || it == b'-')
            })
        })
        .count();
    fields >= 3
}

/// The groups of fields of a `message/delivery-status`, wherever they stand.
fn per_recipient(text: &str) -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    let mut group = Group::default();
    for (name, value) in fields(text) {
        match name.as_str() {
            // Each of them may open a group; a second one of the same name does.
            "final-recipient" | "original-recipient" => {
                if group.has(&name) || !group.diagnostic.is_empty() || !group.status.is_empty() {
                    group.close(&mut all);
                }
                group.names.push(name);
                group.recipient = after_type(&value).to_owned();
            }
            "status" if group.status.is_empty() => group.status = value,
            "remote-mta" => group.server = after_type(&value).to_owned(),
            "diagnostic-code" if group.diagnostic.is_empty() => {
                group.diagnostic = after_type(&value).to_owned();
            }
            _ => {}
        }
        if all.len() >= RECIPIENTS_MAXIMUM {
            return all;
        }
    }
    group.close(&mut all);
    all
}

#[derive(Default)]
struct Group {
    names: Vec<String>,
    recipient: String,
    status: String,
    server: String,
    diagnostic: String,
}

impl Group {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|it| it == name)
    }

    fn close(&mut self, all: &mut Vec<Said>) {
        let group = std::mem::take(self);
        if group.recipient.is_empty() || (group.diagnostic.is_empty() && group.status.is_empty()) {
            return;
        }
        let mut said = Said::read(&group.diagnostic);
        if said.enhanced.is_none() {
            let status = group.status.split_whitespace().next().unwrap_or_default();
            said.enhanced = status.parse().ok();
        }
        if said.text.is_empty() {
            said.text = group.status;
        }
        said.server = group.server;
        said.recipient = group.recipient;
        all.push(said);
    }
}

/// Header-like fields of any part, unfolded, names in lower case.
fn fields(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let mut lines = text.lines().peekable();
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || it == b'-')
            {
                continue;
            }
            let mut value = value.trim().to_owned();
            while let Some(more) = lines.next_if(|it| {
                it.starts_with([' ', '\t']) && !it.trim().is_empty() && value.len() < 8192
            }) {
                value.push(' ');
                value.push_str(more.trim());
            }
            return Some((name.to_ascii_lowercase(), value));
        }
    })
}

/// `smtp; 550 ...` without `smtp;`.
fn after_type(value: &str) -> &str {
    match value.split_once(';') {
        Some((kind, rest)) if !kind.contains(' ') => rest.trim(),
        _ => value,
    }
}

/// The paragraph of a bounce without addresses in which a reply code stands (sendmail's
/// transcript, Exchange's words for people).
fn quoted(body: &str) -> Option<Said> {
    let lines: Vec<&str> = body.lines().collect();
    let place = lines.iter().position(|it| code_in(it).is_some())?;
    let mut words = lines[place].trim_start_matches(['<', ' ', '>']).to_owned();
    for more in lines[place + 1..].iter().take(8) {
        if more.trim().is_empty() || more.starts_with("--") {
            break;
        }
        words.push('\n');
        words.push_str(more.trim());
    }
    let mut said = Said::read(&words);
    if said.stage.is_none() {
        // The command stands on the line before.
        said.stage = place.checked_sub(1).and_then(|it| stage_in(lines[it]));
    }
    Some(said)
}

/// The first reply code and where it stands: at the front of the text, of a line, or
/// behind words like `said:`.
fn code_in(text: &str) -> Option<(u16, usize)> {
    let octets = text.as_bytes();
    let place = (0..octets.len().min(8192)).find(|&place| {
        let digits = octets.get(place..place + 3);
        digits.is_some_and(|it| {
            // 465 and 587 are ports, of a server that was not reached.
            matches!(it[0], b'4' | b'5')
                && it[1..].iter().all(u8::is_ascii_digit)
                && !matches!(it, b"465" | b"587")
        }) && matches!(
            octets.get(place + 3),
            None | Some(b' ' | b'-' | b'\r' | b'\n' | b'#')
        ) && opens_a_reply(text[..place].trim_end_matches(' '), place)
    })?;
    Some((text[place..place + 3].parse().ok()?, place))
}

fn opens_a_reply(before: &str, place: usize) -> bool {
    place == 0
        || before.is_empty()
        || before.ends_with(['\n', ':', ';', '"', '\'', '<', '(', '[', '>', ',', '#'])
        || [
            "said", "error", "code", "reply", "response", "returned", "smtp",
        ]
        .iter()
        .any(|it| {
            before
                .get(before.len().saturating_sub(it.len())..)
                .is_some_and(|end| end.eq_ignore_ascii_case(it))
        })
}

/// The stage, from the words that Postfix, Exim and others put beside a reply.
fn stage_in(text: &str) -> Option<Stage> {
    // Bounces fold their lines anywhere.
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ").to_ascii_lowercase();
    // As `relay test` and a report word it.
    if let Some(said) = text.split("refused at ").nth(1) {
        let name = said.split(':').next().unwrap_or_default();
        if let Some(stage) = Stage::from_name(name) {
            return Some(stage);
        }
    }
    let told = [
        ("end of data", Stage::FinalDot),
        ("in reply to rcpt to", Stage::Recipient),
        ("after rcpt to", Stage::Recipient),
        ("in reply to mail from", Stage::Mail),
        ("after mail from", Stage::Mail),
        ("in reply to data", Stage::Data),
        ("in reply to auth", Stage::Auth),
        ("in reply to ehlo", Stage::Ehlo),
        ("in reply to helo", Stage::Ehlo),
        ("after ehlo", Stage::Ehlo),
        ("after helo", Stage::Ehlo),
        ("in reply to starttls", Stage::StartTls),
        ("after initial connection", Stage::Greeting),
    ];
    // sendmail's transcript: `>>> RCPT To:<...>` and then `<<< 550 ...`.
    let transcript = [
        (">>> rcpt", Stage::Recipient),
        (">>> mail", Stage::Mail),
        (">>> data", Stage::FinalDot),
    ];
    told.iter()
        .chain(&transcript)
        .find(|(words, _)| text.contains(words))
        .map(|(_, stage)| *stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_status_and_stage_are_found_in_one_line() {
        for (text, code, status, stage) in [
            (
                "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
                Some(553),
                "5.7.1",
                None,
            ),
            ("5.7.1 Unable to relay", None, "5.7.1", None),
            ("550 High probability of spam", Some(550), "", None),
            (
                "host mx.example.nl[192.0.2.1] said: 550 5.1.1 <a@example.nl>: Recipient address rejected: User unknown (in reply to RCPT TO command)",
                Some(550),
                "5.1.1",
                Some(Stage::Recipient),
            ),
            (
                "SMTP error from remote mail server after end of data: 552-5.7.0 This message was blocked",
                Some(552),
                "5.7.0",
                Some(Stage::FinalDot),
            ),
            ("sent 550 messages", None, "", None),
            (
                "cannot connect to smtp.example.nl:587 in time",
                None,
                "",
                None,
            ),
            (
                "refused at auth: 535 5.7.8 authentication failed",
                Some(535),
                "5.7.8",
                Some(Stage::Auth),
            ),
        ] {
            let said = Said::read(text);
            assert_eq!(said.code, code, "{text}");
            assert_eq!(said.enhanced, status.parse().ok(), "{text}");
            assert_eq!(said.stage, stage, "{text}");
        }
    }

    #[test]
    fn each_recipient_of_a_report_is_found() {
        let report = "From: MAILER-DAEMON@mx.example\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n\r\n\
            Reporting-MTA: dns; mx.example\r\n\r\n\
            Final-Recipient: rfc822; a@example.nl\r\nOriginal-Recipient: rfc822;a@example.nl\r\nAction: failed\r\nStatus: 5.1.1\r\n\
            Remote-MTA: dns; mx.example.nl\r\nDiagnostic-Code: smtp; 550 5.1.1 <a@example.nl>: Recipient address\r\n    rejected: User unknown\r\n\r\n\
            Final-Recipient: rfc822; b@example.nl\r\nAction: failed\r\nStatus: 4.4.1\r\nDiagnostic-Code: X-Postfix; connect to mx: timed out\r\n";
        let said = read(report.as_bytes());
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(said[0].recipient, "a@example.nl");
        assert_eq!(said[0].server, "mx.example.nl");
        assert_eq!(said[0].code, Some(550));
        assert!(said[0].text.ends_with("rejected: User unknown"));
        assert_eq!(said[1].enhanced, "4.4.1".parse().ok());
    }

    #[test]
    fn the_reply_in_a_plain_bounce_is_found() {
        let bounce = "From: MAILER-DAEMON@qmail.example\nTo: x@example.nl\nSubject: failure notice\nDate: now\n\n\
            Hi. This is the qmail-send program at qmail.example.\n\n\
            <a@example.org>:\n192.0.2.5 does not like recipient.\n\
            Remote host said: 553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)\n\
            Giving up on 192.0.2.5.\n\n--- Below this line is a copy of the message.\n";
        let said = read(bounce.as_bytes());
        assert_eq!(said[0].code, Some(553));
        assert!(said[0].text.contains("rcpthosts"), "{said:?}");
        assert_eq!(said[0].recipient, "a@example.org");
    }

    #[test]
    fn a_file_that_is_no_bounce_is_not_taken_for_one() {
        let configuration = include_str!("../../conf/penstock.toml");
        let said = read(configuration.as_bytes());
        let it = super::super::classify(super::super::Rules::compiled_in(), &said[0].refusal());
        assert_eq!(said.len(), 1);
        assert!(!it.is_known(), "{said:?} {it:?}");
        let users = "users:\n  a@example.nl:\n    relay: own\n  b@example.nl:\n    relay: own\n";
        let said = read(users.as_bytes());
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].recipient, "");
    }

    #[test]
    fn the_paragraphs_of_a_bounce_are_found_without_its_header_too() {
        let pasted = "<a@example.org>:\n192.0.2.5 does not like recipient.\n\
            Remote host said: 550 no such user\n\n\
            <b@example.org>:\nSorry, no mailbox here by that name. (#5.1.1)\n";
        let said = read(pasted.as_bytes());
        let recipients: Vec<_> = said.iter().map(|it| it.recipient.as_str()).collect();
        assert_eq!(recipients, ["a@example.org", "b@example.org"]);
    }

    #[test]
    fn an_encoded_bounce_is_decoded() {
        let bounce = "From: postmaster@x.nl\nTo: x@example.nl\nSubject: Undeliverable\nMIME-Version: 1.0\n\
            Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n\
            <p>Remote Server returned '550 5.1.8 <b>Access</b> denied,=\n bad outbound sender'</p>\n";
        let said = read(bounce.as_bytes());
        assert_eq!(said[0].code, Some(550), "{said:?}");
        assert!(said[0].text.contains("bad outbound sender"), "{said:?}");
    }

    #[test]
    fn a_bounce_of_exim_tells_the_stage() {
        let bounce = "From: Mail Delivery System <Mailer-Daemon@x.nl>\nTo: x@example.nl\nSubject: Mail delivery failed\nDate: now\n\n\
            This message was created automatically by mail delivery software.\n\n\
            \u{20} b@example.org\n    SMTP error from remote mail server after RCPT TO:<b@example.org>:\n\
            \u{20}   host mx.example.org [192.0.2.1]: 550 relay not permitted\n\n------ This is a copy\n";
        let said = read(bounce.as_bytes());
        assert_eq!(
            (said[0].code, said[0].stage),
            (Some(550), Some(Stage::Recipient))
        );
    }
}
