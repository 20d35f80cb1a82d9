//! What is wrong with a configuration, told so that it can be put right: the file, the
//! line, the key, what is wrong, and the remedy.

use std::fmt;
use std::path::PathBuf;

use crate::mail::text::printable;

/// Wide enough for a terminal that nobody resized.
const COLUMNS: usize = 80;

/// One thing that is wrong, or (as a warning) that will surprise somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file it stands in.
    pub file: PathBuf,
    /// The line, from 1; none: the file as a whole.
    pub line: Option<usize>,
    /// The path of the key, like `relays.own.limits.per-hour`; empty: the file as a whole.
    pub key: String,
    /// What is wrong, never with a secret in it.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        for (mark, words) in [("", &self.what), ("remedy: ", &self.remedy)] {
            if !words.is_empty() {
                write!(f, "\n{}", wrapped(&format!("{mark}{words}"), "  "))?;
            }
        }
        Ok(())
    }
}

/// Why a configuration cannot be used: never without at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Everything that was found, by file and line.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.problems.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Breaks words into indented lines of at most 80 columns; a longer word stands alone.
pub(crate) fn wrapped(words: &str, indent: &str) -> String {
    let mut text = String::from(indent);
    let mut column = indent.len();
    let mut fresh = true;
    for word in words.split(' ') {
        let length = word.chars().count();
        if !fresh && column + 1 + length > COLUMNS {
            text.push('\n');
            text.push_str(indent);
            column = indent.len();
            fresh = true;
        }
        if !fresh {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
        fresh = false;
    }
    text
}

/// A value from a file, in quotes and fit to be shown.
pub(crate) fn quoted(value: &str) -> String {
    format!("\"{}\"", printable(value.as_bytes(), 60))
}

/// The known word nearest to one that is not known; none if nothing is near.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|it| (distance(word, it), it))
        .filter(|(far, it)| *far <= allowed || it.starts_with(word) && word.len() >= 3)
        .min_by_key(|(far, _)| *far)
        .map(|(_, it)| it)
}

/// How many letters must be changed, added, taken away or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let fold = |word: &str| -> Vec<char> {
        word.chars()
            .take(64)
            .map(|it| match it.to_ascii_lowercase() {
                '_' => '-',
                it => it,
            })
            .collect()
    };
    let (one, other) = (fold(one), fold(other));
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(a != b))
                .min(rows[i][j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_word_is_named() {
        let known = ["server", "sender", "per-hour", "per-day", "preset"];
        assert_eq!(nearest("sevrer", known), Some("server"));
        assert_eq!(nearest("per_hour", known), Some("per-hour"));
        assert_eq!(nearest("Sender", known), Some("sender"));
        assert_eq!(nearest("colour", known), None);
    }

    #[test]
    fn a_problem_fits_80_columns_and_says_where_what_and_how() {
        let problem = Problem {
            file: "/etc/penstock/penstock.toml".into(),
            line: Some(12),
            key: "relays.own.tls".into(),
            what: format!("\"sure\" {}", "is not one of the words ".repeat(6)),
            remedy: "leave the key out".into(),
        };
        let text = problem.to_string();
        assert!(text.starts_with("/etc/penstock/penstock.toml:12: relays.own.tls\n  \"sure\" is"));
        assert!(text.ends_with("\n  remedy: leave the key out"));
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
