//! The recipients of a bounce in plain words, each with what was said about it: of qmail,
//! Exim, Postfix, sendmail and Exchange, which put the address before the words.

use super::{RECIPIENTS_MAXIMUM, Said};

/// More lines than this are not about one recipient.
const LINES_MAXIMUM: usize = 12;
/// Nor are longer ones read to their end.
const LINE_MAXIMUM_BYTES: usize = 1024;

/// Each recipient that the text names, and the words below.
pub fn recipients(text: &str) -> Vec<Said> {
    let mut all = Vec::new();
    let mut open = Paragraph::default();
    for line in text.lines() {
        if ends_the_report(line) || all.len() >= RECIPIENTS_MAXIMUM {
            break;
        }
        if let Some(opening) = Opening::read(line) {
            if !open.words.is_empty() {
                std::mem::take(&mut open).close(&mut all);
            }
            open.begin(opening);
        } else if !open.go_on(line) {
            std::mem::take(&mut open).close(&mut all);
        }
    }
    open.close(&mut all);
    all.truncate(RECIPIENTS_MAXIMUM);
    all
}

/// Whether the message itself begins here: whose words are nobody's refusal.
fn ends_the_report(line: &str) -> bool {
    let line = line.trim().to_ascii_lowercase();
    let begins = [
        "copy of",
        "original message",
        "forwarded message",
        "unsent message",
        "message header",
    ];
    (line.starts_with("--") && begins.iter().any(|it| line.contains(it)))
        || line == "original message headers:"
}

/// A line that names a recipient.
#[derive(Debug, PartialEq)]
struct Opening<'a> {
    address: &'a str,
    /// What stands behind it on the same line.
    words: &'a str,
    indent: usize,
    /// Nothing but such a line has `<address>:`.
    certain: bool,
}

impl<'a> Opening<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let trimmed = line.trim();
        let (address, behind) = match trimmed.strip_prefix('<') {
            Some(rest) => rest.split_once('>')?,
            None => match trimmed.strip_suffix(':') {
                Some(address) => (address, ":"),
                None => (trimmed, ""),
            },
        };
        let (local, domain) = address.rsplit_once('@')?;
        let is_domain = !domain.is_empty()
            && domain
                .chars()
                .all(|it| it.is_alphanumeric() || it == '.' || it == '-');
        let is_local =
            !local.is_empty() && !local.contains(|it: char| it.is_whitespace() || it == '<');
        if !is_domain || !is_local {
            return None;
        }
        // Postfix: `<a@b> (expanded from <c@d>): host ... said: 550 ...`.
        let behind = match behind.strip_prefix(" (") {
            Some(rest) => rest.split_once(')')?.1,
            None => behind,
        };
        let words = match behind {
            "" => "",
            _ => behind.strip_prefix(':')?.trim(),
        };
        Some(Self {
            address,
            words,
            indent: line.len() - line.trim_start().len(),
            certain: trimmed.starts_with('<') && behind.starts_with(':'),
        })
    }
}

/// The recipients that were named, and what follows.
#[derive(Debug, Default)]
struct Paragraph {
    recipients: Vec<String>,
    words: Vec<String>,
    /// Empty ones included.
    lines: usize,
    indent: usize,
    /// The words belong to the address by their form, not only because they carry a code.
    certain: bool,
    /// An empty line stood between.
    apart: bool,
}

impl Paragraph {
    fn begin(&mut self, opening: Opening<'_>) {
        if self.recipients.len() < RECIPIENTS_MAXIMUM {
            self.recipients.push(opening.address.to_owned());
        }
        self.lines = 0;
        self.indent = opening.indent;
        self.certain = opening.certain;
        self.apart = false;
        if !opening.words.is_empty() {
            self.words.push(cut(opening.words).to_owned());
        }
    }

    /// Takes a line; false when it ends the paragraph.
    fn go_on(&mut self, line: &str) -> bool {
        let trimmed = line.trim();
        if self.recipients.is_empty() || trimmed.starts_with("--") {
            return false;
        }
        self.lines += 1;
        if self.lines > LINES_MAXIMUM {
            return false;
        }
        if trimmed.is_empty() {
            self.apart |= self.words.is_empty();
            return self.words.is_empty() || !(self.certain || self.said().is_some());
        }
        if self.words.is_empty() && !self.apart {
            let indent = line.len() - line.trim_start().len();
            self.certain |= indent > self.indent;
        }
        self.words.push(cut(trimmed).to_owned());
        true
    }

    /// What was said, if a code or status tells that something was.
    fn said(&self) -> Option<Said> {
        let said = Said::read(&self.words.join("\n"));
        (said.code.is_some() || said.enhanced.is_some()).then_some(said)
    }

    fn close(self, all: &mut Vec<Said>) {
        let certain = self.certain && !self.apart && !self.words.is_empty();
        let said = match self.said() {
            Some(said) => said,
            None if certain => Said::read(&self.words.join("\n")),
            None => return,
        };
        all.extend(self.recipients.into_iter().map(|recipient| Said {
            recipient,
            ..said.clone()
        }));
    }
}

fn cut(line: &str) -> &str {
    &line[..line.floor_char_boundary(LINE_MAXIMUM_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Stage;

    fn found(text: &str) -> Vec<(String, Option<u16>, String)> {
        recipients(text)
            .into_iter()
            .map(|it| (it.recipient, it.code, it.text))
            .collect()
    }

    #[test]
    fn each_paragraph_of_a_bounce_of_qmail_is_about_its_own_recipient() {
        let all = found(
            "Hi. This is the qmail-send program at qmail.example.\n\
             I'm afraid I wasn't able to deliver your message to the following addresses.\n\n\
             <a@example.org>:\n192.0.2.5 does not like recipient.\n\
             Remote host said: 553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)\n\
             Giving up on 192.0.2.5.\n\n\
             <b@example.org>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n\
             --- Below this line is a copy of the message.\n\n\
             Return-Path: <x@example.nl>\n<c@example.org>:\n550 not this\n",
        );
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!((all[0].0.as_str(), all[0].1), ("a@example.org", Some(553)));
        assert_eq!(
            all[1],
            (
                "b@example.org".into(),
                None,
                "Sorry, no mailbox here by that name. (#5.1.1)".into()
            )
        );
    }

    #[test]
    fn in_a_bounce_of_exim_no_address_is_dropped_because_it_has_no_code() {
        let text = "This message was created automatically by mail delivery software.\n\n\
             A message that you sent could not be delivered to one or more of its\n\
             recipients. This is a permanent error. The following address(es) failed:\n\n\
             \u{20} a@example.org\n\
             \u{20}   SMTP error from remote mail server after RCPT TO:<a@example.org>:\n\
             \u{20}   host mx.example.org [192.0.2.1]: 550 relay not permitted\n\
             \u{20} b@example.net\n\
             \u{20}   all relevant MX records point to non-existent hosts\n\n\
             ------ This is a copy of the message, including all the headers. ------\n";
        let all = recipients(text);
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!(
            (all[0].recipient.as_str(), all[0].code, all[0].stage),
            ("a@example.org", Some(550), Some(Stage::Recipient))
        );
        assert_eq!(
            (all[1].recipient.as_str(), all[1].text.as_str()),
            (
                "b@example.net",
                "all relevant MX records point to non-existent hosts"
            )
        );
    }

    #[test]
    fn the_folded_lines_of_postfix_tell_the_stage() {
        let all = recipients(
            "<a@example.org> (expanded from <all@example.nl>): host mx.example.org[192.0.2.1]\n\
             \u{20}   said: 550 5.1.1 <a@example.org>: Recipient address rejected: User unknown (in\n\
             \u{20}   reply to RCPT TO command)\n\n\
             <b@example.org>: host mx.example.org[192.0.2.1] said: 552 5.3.4 Message size\n\
             \u{20}   exceeds fixed limit (in reply to MAIL FROM command)\n",
        );
        let all: Vec<_> = all
            .iter()
            .map(|it| (it.recipient.as_str(), it.code, it.stage))
            .collect();
        assert_eq!(
            all,
            [
                ("a@example.org", Some(550), Some(Stage::Recipient)),
                ("b@example.org", Some(552), Some(Stage::Mail)),
            ]
        );
    }

    #[test]
    fn sendmail_and_exchange_name_the_address_on_the_line_before() {
        let all = found(
            "   ----- The following addresses had permanent fatal errors -----\n\
             <a@example.org>\n    (reason: 550 5.1.1 <a@example.org>... User unknown)\n\n\
             \u{20}  ----- Transcript of session follows -----\n\
             ... while talking to mx.example.org.:\n>>> DATA\n<<< 550 5.1.1 User unknown\n",
        );
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!((all[0].0.as_str(), all[0].1), ("a@example.org", Some(550)));
        let all = found(
            "Diagnostic information for administrators:\n\nGenerating server: mx.example.net\n\n\
             b@example.org\n\nRemote Server returned '550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup'\n\n\
             Original message headers:\n\nc@example.org\n550 5.1.1 not this\n",
        );
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!((all[0].0.as_str(), all[0].1), ("b@example.org", Some(550)));
    }

    #[test]
    fn a_text_made_to_be_expensive_is_cut() {
        let many = format!(
            "{}550 {}\n",
            "<a@example.org>\n".repeat(50_000),
            "no ".repeat(50_000)
        );
        let all = recipients(&many);
        assert_eq!(all.len(), RECIPIENTS_MAXIMUM);
        assert!(all[0].text.len() <= LINE_MAXIMUM_BYTES);
        let far = format!("a@example.org\nwords\n{}550 no\n", "\n".repeat(500_000));
        assert!(recipients(&far).is_empty());
    }

    #[test]
    fn addresses_with_one_reason_share_it_and_a_signature_is_no_recipient() {
        let all = found("<a@example.org>\n<b@example.org>\n    (reason: 550 no)\n");
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all.iter().all(|it| it.1 == Some(550)));
        for text in [
            "For help write to\npostmaster@example.org\nor call.\n",
            "<a@example.org>\n\n   ----- Transcript of session follows -----\n550 no\n",
            "550 5.1.1 <a@example.org>: Recipient address rejected\n",
            "From: Someone <a@example.org>\nTo: b@example.org\n",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
