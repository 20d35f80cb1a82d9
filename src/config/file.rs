//! The TOML files as written: keys with their lines, read into plain values.
//!
//! Not a serde structure: serde stops at the first mistake and knows neither the line
//! nor the path of a key, and an administrator deserves all mistakes at once, each with
//! its place. A value that is wrong is reported and then treated as missing; the caller
//! discards what it made as soon as anything was reported.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::problem::{ConfigError, Problem, nearest, quoted};
use super::value::{
    read_duration, read_percent, read_size, write_duration, write_percent, write_size,
};

/// One file while it is read: its text, and what is wrong with it.
pub(super) struct Source<'a> {
    file: PathBuf,
    text: &'a str,
    /// Where each line ends: counted once, because every entry of a large directory asks.
    line_ends: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl<'a> Source<'a> {
    pub fn new(file: &Path, text: &'a str) -> Self {
        Self {
            file: file.to_owned(),
            text,
            line_ends: text.match_indices('\n').map(|(place, _)| place).collect(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// The tree of the file. What is not TOML is reported alone: half a tree would only
    /// make more mistakes up.
    pub fn parse(&self) -> Result<DeTable<'a>, ConfigError> {
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        let mut problems: Vec<Problem> = errors
            .iter()
            .map(|error| {
                let line = error.span().and_then(|span| self.line(span.start));
                // Not the error's own Display: it shows the line, and a password may
                // stand there.
                let what = format!("this is not TOML: {}", error.message().replace('\n', ", "));
                let remedy = match error.message().contains("duplicate") {
                    true => "delete one of the two",
                    false => {
                        "correct it here, or in the line before: key = \"text in quotes\", \
                         key = 5, key = true, [table]"
                    }
                };
                self.problem(line, "", &what, remedy)
            })
            .collect();
        problems.sort_by_key(|it| it.line);
        match problems.is_empty() {
            true => Ok(tree.into_inner()),
            false => Err(ConfigError { problems }),
        }
    }

    /// The line, from 1, of an offset into the text.
    pub fn line(&self, offset: usize) -> Option<usize> {
        let is_known = offset <= self.text.len();
        is_known.then(|| 1 + self.line_ends.partition_point(|end| *end < offset))
    }

    /// Reports a mistake.
    pub fn wrong(&self, line: Option<usize>, key: &str, what: &str, remedy: &str) {
        self.problems
            .borrow_mut()
            .push(self.problem(line, key, what, remedy));
    }

    /// Reports what will surprise somebody.
    pub fn warn(&self, line: Option<usize>, key: &str, what: &str, remedy: &str) {
        self.warnings
            .borrow_mut()
            .push(self.problem(line, key, what, remedy));
    }

    fn problem(&self, line: Option<usize>, key: &str, what: &str, remedy: &str) -> Problem {
        Problem {
            file: self.file.clone(),
            line,
            key: key.to_owned(),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    /// Everything that was reported, problems and warnings, in the order of the file.
    pub fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let sorted = |it: RefCell<Vec<Problem>>| {
            let mut it = it.into_inner();
            it.sort_by_key(|problem| problem.line);
            it
        };
        (sorted(self.problems), sorted(self.warnings))
    }
}

/// One table of a file.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub source: &'a Source<'a>,
    entries: &'a DeTable<'a>,
    path: &'a str,
    line: Option<usize>,
}

impl<'a> Table<'a> {
    /// The file as a whole.
    pub fn root(source: &'a Source<'a>, entries: &'a DeTable<'a>) -> Self {
        Self {
            source,
            entries,
            path: "",
            line: None,
        }
    }

    /// The tree below.
    pub fn entries(&self) -> &'a DeTable<'a> {
        self.entries
    }

    /// Whether the key is written, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether a list is not written, or written with nothing in it.
    pub fn is_empty(&self, key: &str) -> bool {
        self.value(key)
            .is_none_or(|it| it.as_array().is_some_and(|list| list.is_empty()))
    }

    /// The path of a key in this table; of the table itself if `key` is empty.
    pub fn path(&self, key: &str) -> String {
        match (self.path, key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// The line of a key; of the table if it is not written.
    pub fn line(&self, key: &str) -> Option<usize> {
        match self.entries.get_key_value(key) {
            Some((key, _)) => self.source.line(key.span().start),
            None => self.line,
        }
    }

    /// Reports a mistake at a key.
    pub fn wrong(&self, key: &str, what: &str, remedy: &str) {
        self.source
            .wrong(self.line(key), &self.path(key), what, remedy);
    }

    /// Reports at a key what will surprise somebody.
    pub fn warn(&self, key: &str, what: &str, remedy: &str) {
        self.source
            .warn(self.line(key), &self.path(key), what, remedy);
    }

    fn value(&self, key: &str) -> Option<&'a DeValue<'a>> {
        self.entries.get(key).map(toml::Spanned::get_ref)
    }

    /// The table below a key. That it is a table was checked with the known keys.
    pub fn table<T>(&self, key: &str, read: impl FnOnce(Table) -> T) -> Option<T> {
        let entries = self.value(key)?.as_table()?;
        let path = self.path(key);
        Some(read(Table {
            source: self.source,
            entries,
            path: &path,
            line: self.line(key),
        }))
    }

    /// The tables of an array of tables, in order.
    pub fn tables<T>(&self, key: &str, mut read: impl FnMut(Table) -> Option<T>) -> Vec<T> {
        let Some(array) = self.value(key).and_then(DeValue::as_array) else {
            return Vec::new();
        };
        let path = self.path(key);
        array
            .iter()
            .filter_map(|it| {
                read(Table {
                    source: self.source,
                    entries: it.get_ref().as_table()?,
                    path: &path,
                    line: self.source.line(it.span().start),
                })
            })
            .collect()
    }

    /// The keys written in this table.
    pub fn keys(&self) -> Vec<&'a str> {
        self.entries
            .keys()
            .map(|key| key.get_ref().as_ref())
            .collect()
    }

    /// The text that is written, if it is text; nothing is reported.
    pub fn written(&self, key: &str) -> Option<&'a str> {
        self.value(key)?.as_str()
    }

    /// Text, as it stands.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        match self.value(key)? {
            DeValue::String(text) => Some(text.as_ref()),
            other => {
                let example = match other {
                    DeValue::Integer(number) => format!("write {key} = \"{number}\""),
                    _ => format!("write {key} = \"...\""),
                };
                self.wrong(key, "must be text in quotes", &example);
                None
            }
        }
    }

    /// Text that means something; `read` says why it does not, and `remedy` what would.
    pub fn parsed<T, E: std::fmt::Display>(
        &self,
        key: &str,
        remedy: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(key)?;
        read(text)
            .map_err(|error| self.wrong(key, &format!("{}: {error}", quoted(text)), remedy))
            .ok()
    }

    /// A list of texts that each mean something.
    pub fn list<T, E: std::fmt::Display>(
        &self,
        key: &str,
        remedy: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let Some(array) = self.value(key)?.as_array() else {
            self.wrong(
                key,
                "must be a list of texts",
                &format!("write {key} = [\"...\", \"...\"]"),
            );
            return None;
        };
        let mut all = Vec::new();
        for item in array.iter() {
            let line = self.source.line(item.span().start);
            let Some(text) = item.get_ref().as_str() else {
                self.source
                    .wrong(line, &self.path(key), "must hold texts in quotes", remedy);
                continue;
            };
            match read(text) {
                Ok(value) => all.push(value),
                Err(error) => self.source.wrong(
                    line,
                    &self.path(key),
                    &format!("{}: {error}", quoted(text)),
                    remedy,
                ),
            }
        }
        Some(all)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let remedy = match nearest(text, known.iter().copied()) {
            Some(near) => format!("write {key} = \"{near}\""),
            None => "choose one of these, or leave the key out for the default".into(),
        };
        let what = format!("{} is not one of: {}", quoted(text), known.join(", "));
        self.wrong(key, &what, &remedy);
        None
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong(
                    key,
                    "must be true or false, without quotes",
                    &format!("write {key} = true"),
                );
                None
            }
        }
    }

    /// A whole number within a range.
    pub fn number(&self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let (low, high) = (*range.start(), *range.end());
        let DeValue::Integer(written) = self.value(key)? else {
            self.wrong(
                key,
                "must be a whole number, without quotes",
                &format!("write a number from {low} to {high}"),
            );
            return None;
        };
        let number = u32::from_str_radix(written.as_str(), written.radix())
            .ok()
            .filter(|it| range.contains(it));
        if number.is_none() {
            self.wrong(
                key,
                &format!("{written} is not a number from {low} to {high}"),
                "write a number in that range",
            );
        }
        number
    }

    /// A duration within a range.
    pub fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.measure(
            key,
            ("a duration", "\"5m\" or \"1h30m\""),
            range,
            read_duration,
            |it| write_duration(*it),
        )
    }

    /// A size within a range, in octets.
    pub fn size(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.measure(
            key,
            ("a size", "\"80MB\" or \"64KiB\""),
            range,
            read_size,
            |it| write_size(*it),
        )
    }

    /// A share within a range, in percent.
    pub fn percent(&self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        self.measure(key, ("a share", "\"5%\""), range, read_percent, |it| {
            write_percent(*it)
        })
    }

    fn measure<T: PartialOrd>(
        &self,
        key: &str,
        (noun, example): (&str, &str),
        range: RangeInclusive<T>,
        read: fn(&str) -> Option<T>,
        write: impl Fn(&T) -> String,
    ) -> Option<T> {
        let written = match self.value(key)? {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            _ => "this".to_owned(),
        };
        let (low, high) = (write(range.start()), write(range.end()));
        let Some(value) = self.value(key)?.as_str().and_then(read) else {
            self.wrong(
                key,
                &format!("{written} is not {noun} like {example}"),
                &format!("write the number with its unit, in quotes, from \"{low}\" to \"{high}\""),
            );
            return None;
        };
        if !range.contains(&value) {
            self.wrong(
                key,
                &format!("{written} is out of range"),
                &format!("write {noun} from \"{low}\" to \"{high}\""),
            );
            return None;
        }
        Some(value)
    }
}
