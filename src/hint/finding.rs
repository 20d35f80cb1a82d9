//! What a hint says: what was found, in what, how bad it is, and what to do.

use std::fmt;

use crate::config::HintName;
use crate::mail::text::printable;

/// Something that will hurt delivery, or may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which hint it is.
    pub hint: HintName,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a domain, an address, a message.
    pub subject: String,
    /// In a sentence or two.
    pub found: String,
    /// What it was seen in: the DNS answer, the figures; a line each.
    pub evidence: Vec<String>,
    /// What to do, in words.
    pub remedy: String,
    /// What to publish, where that is the remedy.
    pub record: Option<TxtRecord>,
}

/// Letters of one piece of text, and pieces of evidence, that a finding keeps: they come
/// from strangers' records and messages.
const LETTERS_MAXIMUM: usize = 1_000;
const EVIDENCE_MAXIMUM: usize = 12;

impl Finding {
    /// Shortened, and fit for a log and a terminal.
    pub(super) fn make_printable(&mut self) {
        let printable = |text: &mut String| *text = printable(text.as_bytes(), LETTERS_MAXIMUM);
        let more = self.evidence.len().saturating_sub(EVIDENCE_MAXIMUM);
        self.evidence.truncate(EVIDENCE_MAXIMUM);
        if more > 0 {
            self.evidence.push(format!("and {more} more"));
        }
        self.evidence.iter_mut().for_each(printable);
        for text in [&mut self.subject, &mut self.found, &mut self.remedy] {
            printable(text);
        }
    }
}

/// How bad a finding is; the worst comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Mail is refused or taken for spam because of it.
    Serious,
    /// Some receivers will mind.
    Warning,
    /// Worth knowing.
    Notice,
    /// It could not be looked into: DNS did not answer, or the configuration does not say
    /// enough.
    Unknown,
}

impl Severity {
    /// The word for it in tables, in JSON and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serious => "serious",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Unknown => "unknown",
        }
    }
}

/// A TXT record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxtRecord {
    /// The name it stands at, without a dot at its end.
    pub name: String,
    /// Its text, whole.
    pub text: String,
}

/// Octets of one string of a TXT record (RFC 1035 section 3.3).
const STRING_MAXIMUM: usize = 255;

impl TxtRecord {
    /// The strings that the text is published in.
    pub fn strings(&self) -> Vec<&str> {
        let mut strings = Vec::new();
        let mut rest = self.text.as_str();
        while rest.len() > STRING_MAXIMUM {
            // Between two terms, so that people can read it; the space stays.
            let end = rest[..STRING_MAXIMUM]
                .rfind(' ')
                .map_or(STRING_MAXIMUM, |it| it + 1);
            let (string, behind) = rest.split_at(end);
            strings.push(string);
            rest = behind;
        }
        strings.push(rest);
        strings
    }
}

impl fmt::Display for TxtRecord {
    /// As in a zone file, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. IN TXT", self.name)?;
        for string in self.strings() {
            let escaped = string.replace('\\', "\\\\").replace('"', "\\\"");
            write!(f, " \"{escaped}\"")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_publish_is_shown_and_not_obeyed() {
        let mut finding = Finding {
            hint: HintName::SpfSyntax,
            severity: Severity::Serious,
            subject: "a.example".into(),
            found: "\"\u{1b}[2J\" is not a mechanism".into(),
            evidence: vec!["x\r\n".repeat(1_000); 20],
            remedy: "Do.".into(),
            record: None,
        };
        finding.make_printable();
        assert_eq!(finding.found, "\"\\u{1b}[2J\" is not a mechanism");
        assert_eq!(finding.evidence.len(), 13);
        assert_eq!(finding.evidence[12], "and 8 more");
        assert!(finding.evidence[0].chars().count() <= 1_000);
    }

    #[test]
    fn a_long_text_is_published_in_strings_of_at_most_255_octets() {
        let text = format!("v=spf1{} -all", " ip4:192.0.2.101".repeat(40));
        let record = TxtRecord {
            name: "example.nl".into(),
            text: text.clone(),
        };
        let strings = record.strings();
        assert_eq!(strings.len(), 3);
        assert!(strings.iter().all(|it| it.len() <= 255));
        assert_eq!(strings.concat(), text);
        let shown = record.to_string();
        assert!(shown.starts_with("example.nl. IN TXT \"v=spf1 ip4:"));
        assert_eq!(shown.matches("\" \"").count(), 2);
    }
}
