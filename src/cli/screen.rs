//! What is written to standard output, for people or for programs.

use std::io::{self, IsTerminal, Write};

use jiff::tz::TimeZone;
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::words::Words;
use crate::clock::Clock;
use crate::mail::text::printable;

/// Narrower than this no table can be read.
const NARROWEST: usize = 60;
/// When it is not known how wide the reader's screen is.
const USUAL_WIDTH: usize = 80;
/// More than one person reads at once; the rest is in `--json`.
const WORDS_MAXIMUM: usize = 2_000;

/// Standard output, and how its reader wants it.
pub struct Screen {
    out: Box<dyn Write>,
    /// How it looks.
    pub look: Look,
}

/// How output looks.
#[derive(Debug, Clone)]
pub struct Look {
    /// For programs: one JSON object a line.
    pub json: bool,
    /// Columns of the screen.
    pub width: usize,
    /// Colours may be used, never alone in meaning.
    pub colour: bool,
    /// More than ASCII may be used for decoration.
    pub unicode: bool,
    /// Now, and the reader's time zone.
    pub words: Words,
}

/// What a piece of text is, for readers who see colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// A heading.
    Strong,
    /// All is well.
    Good,
    /// Somebody might look.
    Warning,
    /// Somebody must look.
    Bad,
    /// Said for completeness.
    Faint,
}

impl Screen {
    /// Standard output as it is.
    pub fn standard(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|it| !it.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|it| it == "dumb");
        Self {
            out: Box::new(io::BufWriter::with_capacity(32 * 1024, stdout)),
            look: Look {
                json,
                width: width(terminal),
                colour: terminal && !dumb && !is_set("NO_COLOR"),
                unicode: speaks_utf8(),
                words: Words {
                    now: Clock::system().now(),
                    zone: TimeZone::system(),
                },
            },
        }
    }

    /// One line for people. What it was made of is fit for a terminal: everything that
    /// strangers said came through [`printable`](crate::mail::text::printable).
    pub fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        let out = &mut self.out;
        out.write_all(text.as_ref().trim_end().as_bytes())?;
        out.write_all(b"\n")
    }

    /// Sentences for people, over as many lines as they take.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        let lines = self.look.wrap(text, 0);
        lines.iter().try_for_each(|it| self.line(it))
    }

    /// The same in colour.
    pub fn say_in(&mut self, tone: Tone, text: &str) -> io::Result<()> {
        for line in self.look.wrap(text, 0) {
            self.line(self.look.tone(tone, &line))?;
        }
        Ok(())
    }

    /// One line for programs.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n")
    }

    /// Octets as they are.
    pub fn raw(&mut self, octets: &[u8]) -> io::Result<()> {
        self.out.write_all(octets)
    }

    /// Shows what was written so far.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The width of the screen: what the reader says, what the terminal says, the usual.
fn width(terminal: bool) -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|it| it.parse().ok());
    let known = || match terminal {
        true => ratatui::crossterm::terminal::size().ok(),
        false => None,
    };
    said.or_else(|| known().map(|(columns, _)| usize::from(columns)))
        .filter(|it| *it > 0)
        .unwrap_or(USUAL_WIDTH)
        .max(NARROWEST)
}

/// Whether the reader's locale can show more than ASCII.
fn speaks_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|it| !it.is_empty()))
        .unwrap_or_default()
        .to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

impl Look {
    /// The text in its colour.
    pub fn tone(&self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// What stands for a part that was left out.
    pub fn gap(&self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }

    /// Text in at most `width` columns, cut in the middle: of an address, both ends tell.
    pub fn fit(&self, text: &str, width: usize) -> String {
        let text = printable(text.as_bytes(), WORDS_MAXIMUM);
        if text.width() <= width {
            return text;
        }
        let gap = self.gap();
        let room = width.saturating_sub(gap.width());
        let head = take(text.chars(), room.div_ceil(2));
        let tail: String = take(text.chars().rev(), room / 2).chars().rev().collect();
        format!("{head}{gap}{tail}")
    }

    /// The same, padded to `width`.
    pub fn cell(&self, text: &str, width: usize) -> String {
        let shown = self.fit(text, width);
        let pad = width.saturating_sub(shown.width());
        shown + &" ".repeat(pad)
    }

    /// The same, padded on the left.
    pub fn right(&self, text: &str, width: usize) -> String {
        let shown = self.fit(text, width);
        " ".repeat(width.saturating_sub(shown.width())) + &shown
    }

    /// Words over several lines, each beginning with `indent` spaces.
    pub fn wrap(&self, text: &str, indent: usize) -> Vec<String> {
        let width = self.width.saturating_sub(indent).max(20);
        let mut lines = Vec::new();
        for paragraph in text.lines() {
            let mut line = String::new();
            for word in printable(paragraph.as_bytes(), WORDS_MAXIMUM).split_whitespace() {
                if !line.is_empty() && line.width() + 1 + word.width() > width {
                    lines.push(std::mem::take(&mut line));
                }
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            lines.push(line);
        }
        let indent = " ".repeat(indent);
        lines.iter().map(|it| format!("{indent}{it}")).collect()
    }

    /// Words over several lines behind a mark, the later lines below the words of the
    /// first: `! relay own is paused`.
    pub fn marked(&self, mark: &str, text: &str) -> Vec<String> {
        let mut lines = self.wrap(text, mark.width() + 1);
        if let Some(first) = lines.first_mut() {
            *first = format!("{mark} {}", first.trim_start());
        }
        lines
    }

    /// A bar of `width` columns, filled as far as `part` of `whole`.
    pub fn bar(&self, part: u64, whole: u64, width: usize) -> String {
        let (full, empty) = if self.unicode {
            ("█", "░")
        } else {
            ("#", "-")
        };
        let share = part.min(whole) as u128 * width as u128;
        // What is used at all is seen; what is not used up is not shown as full.
        let mut filled = share
            .checked_div(u128::from(whole))
            .unwrap_or(width as u128) as usize;
        if filled == 0 && part > 0 && whole > 0 {
            filled = 1;
        }
        full.repeat(filled) + &empty.repeat(width - filled)
    }
}

/// As many of the letters as fit `width` columns.
fn take(letters: impl Iterator<Item = char>, width: usize) -> String {
    let mut taken = 0;
    letters
        .take_while(|it| {
            taken += it.width().unwrap_or(0);
            taken <= width
        })
        .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A screen of 80 columns at 14:02 in a zone an hour east of Greenwich.
    pub fn look() -> Look {
        Look {
            json: false,
            width: 80,
            colour: false,
            unicode: true,
            words: Words {
                now: "2026-11-21T13:02:00Z".parse().unwrap(),
                zone: TimeZone::fixed(jiff::tz::offset(1)),
            },
        }
    }

    #[test]
    fn long_text_is_cut_in_the_middle_and_never_wider_than_its_cell() {
        let look = look();
        assert_eq!(look.fit("jan@uwdomein.nl", 15), "jan@uwdomein.nl");
        assert_eq!(look.fit("jan.jansen@uwdomein.nl", 15), "jan.jan…mein.nl");
        assert_eq!(look.fit("你好你好你好", 7), "你…好");
        assert_eq!(look.fit("abc", 1), "…");
        assert_eq!(look.cell("ab", 4), "ab  ");
        assert_eq!(look.right("ab", 4), "  ab");
        let ascii = Look {
            unicode: false,
            ..look
        };
        assert_eq!(ascii.fit("jan.jansen@uwdomein.nl", 15), "jan.ja...ein.nl");
    }

    #[test]
    fn what_steers_a_terminal_never_reaches_it() {
        assert_eq!(look().fit("\x1b[2J", 20), "\\u{1b}[2J");
        assert_eq!(look().wrap("a\u{202e}b", 2), ["  a\\u{202e}b"]);
    }

    #[test]
    fn colour_is_left_out_where_it_is_not_wanted() {
        let mut look = look();
        assert_eq!(look.tone(Tone::Bad, "paused"), "paused");
        look.colour = true;
        assert_eq!(look.tone(Tone::Bad, "paused"), "\x1b[31mpaused\x1b[0m");
    }

    #[test]
    fn words_wrap_at_the_edge() {
        let look = Look {
            width: 22,
            ..look()
        };
        assert_eq!(
            look.wrap("one two three four five six", 2),
            ["  one two three four", "  five six"]
        );
        assert_eq!(look.wrap("a\nb", 0), ["a", "b"]);
        assert_eq!(
            look.marked("!", "one two three four five six"),
            ["! one two three four", "  five six"]
        );
    }

    #[test]
    fn a_bar_shows_something_for_something_and_full_only_when_full() {
        let look = Look {
            unicode: false,
            ..look()
        };
        assert_eq!(look.bar(0, 500, 10), "----------");
        assert_eq!(look.bar(1, 500, 10), "#---------");
        assert_eq!(look.bar(499, 500, 10), "#########-");
        assert_eq!(look.bar(500, 500, 10), "##########");
        assert_eq!(look.bar(900, 500, 10), "##########");
        assert_eq!(look.bar(0, 0, 10), "##########");
    }
}
