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
use std::path::{Path, PathBuf};

use anyhow::Context;

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
    /// What would be written.
    pub after: String,
    /// None: there is no such file yet.
    found: Option<Metadata>,
}

impl Draft {
    /// Reads both files; a missing users.toml would be created.
    pub fn open(config: &Path) -> anyhow::Result<Self> {
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
                replace::replace(&file.path, &file.after, file.found.as_ref())?;
            }
        }
        Ok(())
    }
}

impl Text {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let found = match fs::metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let before = match found {
            Some(_) => fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?,
            None => String::new(),
        };
        Ok(Self {
            path: path.to_owned(),
            after: before.clone(),
            before,
            found,
        })
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
