//! What was said with a server, for an administrator to read.

use crate::mail::text::printable;

/// Lines kept; a dialogue without content has some thirty.
const LINES_MAXIMUM: usize = 300;
/// Characters of one line.
const LINE_MAXIMUM: usize = 500;

/// Who said a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// We, to the server.
    Ours,
    /// The server.
    Theirs,
    /// Nobody: what was done between the lines.
    Note,
}

/// A dialogue: bounded, printable, passwords masked, content left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    lines: Vec<(Said, String)>,
    cut: bool,
}

impl Transcript {
    /// The lines in order.
    pub fn lines(&self) -> &[(Said, String)] {
        &self.lines
    }

    /// Adds what was said; words of several lines become several lines.
    pub fn add(&mut self, said: Said, words: &str) {
        for line in words.lines() {
            if self.lines.len() < LINES_MAXIMUM {
                self.lines
                    .push((said, printable(line.as_bytes(), LINE_MAXIMUM)));
            } else if !self.cut {
                self.cut = true;
                self.lines
                    .push((Said::Note, "(the rest is not shown)".to_owned()));
            }
        }
    }
}

impl std::fmt::Display for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (said, line) in &self.lines {
            let mark = match said {
                Said::Ours => '>',
                Said::Theirs => '<',
                Said::Note => '*',
            };
            writeln!(f, "{mark} {line}")?;
        }
        Ok(())
    }
}
