//! Changing the configuration from the command line: `relay add|set|remove`,
//! `user add|set|remove|import`, `import postfix --write`.
//!
//! A [`Draft`] holds both files as they would be. It is checked as a whole before
//! anything is written, so a mistake changes nothing.

pub mod apply;
pub mod difference;
pub mod password;
pub mod relay;
mod replace;
pub mod text;
pub mod user;
pub mod user_list;

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::exit::Trouble;
use crate::config::{self, Checked, ConfigError};

/// What a missing users.toml begins with: the daemon wants the file to be there.
const NEW_USERS: &str = "# Who sends through which relay; see: penstock user add --help\n";

/// Both files as they are and as they would be.
#[derive(Debug)]
pub struct Draft {
    config: PathBuf,
    /// `penstock.toml`.
    pub main: Text,
    /// `users.toml`.
    pub users: Text,
}

/// One file as it is and as it would be.
#[derive(Debug)]
pub struct Text {
    path: PathBuf,
    before: String,
    /// What would be written; its lines end with a line feed alone, as in `before`.
    pub after: String,
    /// On the disk they end as on Windows.
    carriage_returns: bool,
    /// None: there is no such file yet.
    found: Option<Metadata>,
}

impl Draft {
    /// Reads both files; a missing users.toml would be created.
    pub fn open(config: &Path) -> Result<Self, Trouble> {
        let main = Text::open(config)?;
        let mut users = Text::open(&config::users_path(config, &main.before))?;
        if users.found.is_none() {
            users.after = NEW_USERS.to_owned();
        }
        Ok(Self {
            config: config.to_owned(),
            main,
            users,
        })
    }

    /// What the files would mean.
    pub fn check(&self) -> Result<Checked, ConfigError> {
        config::inspect_as(
            &self.config,
            &[
                (&self.main.path, &self.main.after),
                (&self.users.path, &self.users.after),
            ],
        )
    }

    /// The lines that would change, by file, secrets left out.
    pub fn difference(&self) -> Vec<(&Path, Vec<String>)> {
        [&self.main, &self.users]
            .into_iter()
            .filter(|it| it.is_changed())
            .map(|it| {
                let lines = difference::difference(&it.before, &it.after);
                (it.path.as_path(), lines)
            })
            .collect()
    }

    /// Writes what changed. The main file goes first: users name relays, and a reload
    /// in between must not meet a user without his relay.
    pub fn write(&self) -> anyhow::Result<()> {
        for file in [&self.main, &self.users] {
            if file.is_changed() {
                replace::replace(&file.path, &file.written(), file.found.as_ref())?;
            }
        }
        Ok(())
    }
}

impl Text {
    fn open(path: &Path) -> Result<Self, Trouble> {
        let unread = |error| unread(path, error);
        let found = match fs::metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(unread(error)),
        };
        let read = match found {
            Some(_) => fs::read(path).map_err(unread)?,
            None => Vec::new(),
        };
        let before = utf8(path, read).map_err(Trouble::configuration)?;
        // The editor knows line feeds alone: without this one change would be all lines.
        let (returns, lines) = (before.matches("\r\n").count(), before.matches('\n').count());
        let carriage_returns = returns * 2 > lines;
        let before = match carriage_returns {
            true => before.replace("\r\n", "\n"),
            false => before,
        };
        Ok(Self {
            path: path.to_owned(),
            after: before.clone(),
            before,
            carriage_returns,
            found,
        })
    }

    /// What stands in the file afterwards.
    fn written(&self) -> String {
        match self.carriage_returns {
            true => self.after.replace('\n', "\r\n"),
            false => self.after.clone(),
        }
    }

    /// Whether something would be written.
    pub fn is_changed(&self) -> bool {
        self.after != self.before
    }

    /// Changes what would be written.
    pub fn change(
        &mut self,
        change: impl FnOnce(&str) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        self.after =
            change(&self.after).with_context(|| format!("cannot edit {}", self.path.display()))?;
        Ok(())
    }
}

fn unread(path: &Path, error: io::Error) -> Trouble {
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => "run this as root, or as a member of the group penstock",
        _ => "correct the path or the file",
    };
    Trouble::configuration(format!("cannot read {}: {error}", path.display())).and(remedy)
}

/// The text of a file that people write; else the line that is not UTF-8, and what to do.
pub fn utf8(path: &Path, octets: Vec<u8>) -> Result<String, String> {
    String::from_utf8(octets).map_err(|wrong| {
        let before = &wrong.as_bytes()[..wrong.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|it| **it == b'\n').count();
        format!(
            "{}, line {line}: a letter here is not UTF-8\nsave the file as UTF-8 (in Excel: CSV \
             UTF-8), and try again",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(main: &str, change: impl FnOnce(&str) -> String) -> (Draft, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("penstock.toml");
        fs::write(&path, main).unwrap();
        let mut draft = Draft::open(&path).unwrap();
        draft.main.change(|text| Ok(change(text))).unwrap();
        draft.write().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        (draft, text)
    }

    #[test]
    fn a_file_keeps_the_ends_of_its_lines() {
        let main = "# words\nadmin = \"a@b.example\"\n\n[relays.a]\nserver = \"a\"\n";
        let change = |text: &str| text::put_top(text, "admin", "c@b.example").unwrap();
        let (_, plain) = written(main, change);
        assert_eq!(plain, main.replace("a@b", "c@b"));
        let (draft, text) = written(&main.replace('\n', "\r\n"), change);
        assert_eq!(text, plain.replace('\n', "\r\n"));
        let difference = draft.difference();
        assert_eq!(
            difference[0].1,
            [r#"- admin = "a@b.example""#, r#"+ admin = "c@b.example""#]
        );
    }

    #[test]
    fn what_is_not_utf_8_is_told_with_its_line() {
        let wrong = utf8(
            Path::new("list.csv"),
            b"address\na@b.example\nJos\xe9\n".to_vec(),
        );
        let wrong = wrong.unwrap_err();
        assert!(wrong.starts_with("list.csv, line 3: "), "{wrong}");
        assert!(wrong.contains("save the file as UTF-8"), "{wrong}");
    }
}
