//! The files that a configuration names: where they are looked for, and whether they
//! are as secret as what they hold.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Secret;
use super::file::Table;

/// Longer than any configuration: a device or a mistaken path must not fill the memory.
const FILE_MAXIMUM: u64 = 64 * 1024 * 1024;
/// Longer than any password.
const PASSWORD_MAXIMUM: usize = 4_096;

/// Where relative paths begin, and who reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// The directory of the main file.
    pub directory: PathBuf,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts what `LoadCredential=` names.
    pub credentials: Option<PathBuf>,
    /// Somebody looks at the configuration who is not the daemon, and has no credentials.
    pub inspecting: bool,
    /// Whether files that others will open later must exist now.
    pub files_must_exist: bool,
}

impl Place {
    /// A path as the program can use it.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// The path under a key, checked to be readable.
    pub fn named_file(&self, table: Table, key: &str) -> Option<PathBuf> {
        let path = self.named(table, key)?;
        if self.files_must_exist
            && let Err(error) = File::open(&path).and_then(|file| is_file(&file))
        {
            table.wrong(
                key,
                &format!("cannot read {}: {}", path.display(), plain(&error)),
                "correct the path, or let root and the group penstock read the file",
            );
        }
        Some(path)
    }

    /// The path under a key, checked to be readable and secret.
    pub fn named_secret_file(&self, table: Table, key: &str) -> Option<PathBuf> {
        let path = self.named_file(table, key)?;
        if let (true, Ok(found)) = (self.files_must_exist, fs::metadata(&path))
            && let Some((what, remedy)) = exposed(&path, &found)
        {
            table.wrong(key, &what, &remedy);
        }
        Some(path)
    }

    fn named(&self, table: Table, key: &str) -> Option<PathBuf> {
        let text = table.text(key)?;
        if text.is_empty() {
            table.wrong(key, "names no file", "write the path, or delete the key");
            return None;
        }
        Some(self.resolve(text))
    }

    /// The password in the file under a key like `password-file`.
    pub fn password_file(&self, table: Table, key: &str) -> Option<Secret> {
        let path = self.named(table, key)?;
        let (text, found) = match read(&path) {
            Ok(read) => read,
            Err(error) => {
                table.wrong(
                    key,
                    &format!("cannot read {}: {}", path.display(), plain(&error)),
                    &format!("create it: {}", create_command(&path)),
                );
                return None;
            }
        };
        if let Some((what, remedy)) = exposed(&path, &found) {
            table.wrong(key, &what, &remedy);
        }
        self.password(table, key, &path, &text)
    }

    /// The password that systemd hands over under the name in a key like
    /// `password-credential`.
    pub fn password_credential(&self, table: Table, key: &str) -> Option<Secret> {
        let name = table.text(key)?;
        // What systemd takes as a credential's name; above all, it leads nowhere else.
        let odd = |it: char| it == '/' || it == ':' || it.is_control();
        if name.is_empty() || name == "." || name == ".." || name.contains(odd) {
            table.wrong(
                key,
                "is not the name of a credential",
                "write the name that stands in LoadCredential=NAME:PATH of the service",
            );
            return None;
        }
        let load = format!("LoadCredential={name}:PATH");
        let Some(directory) = &self.credentials else {
            let what = "is handed to the service by systemd and cannot be read here";
            let remedy = format!("the service must have {load} (systemctl edit penstock)");
            if self.inspecting {
                table.warn(key, what, &remedy);
                return Some(Secret::new(String::new()));
            }
            table.wrong(key, what, &remedy);
            return None;
        };
        let path = directory.join(name);
        match read(&path) {
            Ok((text, _)) => self.password(table, key, &path, &text),
            Err(error) => {
                table.wrong(
                    key,
                    &format!("cannot read {}: {}", path.display(), plain(&error)),
                    &format!("add {load} to the service (systemctl edit penstock)"),
                );
                None
            }
        }
    }

    fn password(&self, table: Table, key: &str, path: &Path, text: &str) -> Option<Secret> {
        // Editors end a file with a line break; it is no part of the password.
        let password = text.strip_suffix('\n').unwrap_or(text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.contains('\n') || password.len() > PASSWORD_MAXIMUM {
            table.wrong(
                key,
                &format!("{} holds more than a password", path.display()),
                "write the password alone on its first line",
            );
            return None;
        }
        Some(Secret::new(password.to_owned()))
    }
}

/// Reads a text file, and what is known of exactly the file that was read.
pub(super) fn read(path: &Path) -> std::io::Result<(String, Metadata)> {
    // Opening a pipe would wait for somebody to write.
    if !fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let file = File::open(path)?;
    is_file(&file)?;
    let found = file.metadata()?;
    // Half of a configuration must not be taken for a whole one.
    if found.len() > FILE_MAXIMUM {
        return Err(std::io::Error::other("it is larger than 64 MiB"));
    }
    let mut octets = Vec::new();
    file.take(FILE_MAXIMUM).read_to_end(&mut octets)?;
    let text = String::from_utf8(octets).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|it| **it == b'\n').count();
        std::io::Error::new(std::io::ErrorKind::InvalidData, NotUtf8 { line })
    })?;
    Ok((text, found))
}

/// A file in another encoding.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is not UTF-8")]
pub(super) struct NotUtf8 {
    /// The first line with a letter that cannot be read.
    pub line: usize,
}

fn is_file(file: &File) -> std::io::Result<()> {
    match file.metadata()?.is_file() {
        true => Ok(()),
        false => Err(std::io::Error::other("it is not a file")),
    }
}

/// What is wrong, and the remedy, if a file with secrets can be read or changed by
/// somebody it is none of the business of.
pub(super) fn exposed(path: &Path, found: &Metadata) -> Option<(String, String)> {
    let mode = found.permissions().mode() & 0o777;
    let owner = found.uid();
    let shown = path.display();
    if mode & 0o027 != 0 {
        return Some((
            format!("{shown} has secrets in it, and its mode is {mode:04o}"),
            format!("chown root:penstock {shown} && chmod 0640 {shown}"),
        ));
    }
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Some((
            format!("{shown} has secrets in it and belongs to user {owner}"),
            format!("chown root:penstock {shown} && chmod 0640 {shown}"),
        ));
    }
    let (own, daemons) = (rustix::process::getegid().as_raw(), group_id(DAEMON_GROUP));
    if mode & 0o070 != 0 && !may_read(found.gid(), own, daemons) {
        let remedy = match daemons {
            Some(_) => format!("chown root:penstock {shown}"),
            None => format!("chmod 0600 {shown}"),
        };
        let what = format!(
            "{shown} has secrets in it, and the group {} may read it",
            found.gid()
        );
        return Some((what, remedy));
    }
    None
}

/// The group that the daemon runs as.
const DAEMON_GROUP: &str = "penstock";

/// Whether a group that may read secrets is no wider than it must be: root's, the
/// daemon's, or that of whoever reads them here (without the package, the daemon's, too).
fn may_read(group: u32, own: u32, daemons: Option<u32>) -> bool {
    group == 0 || group == own || daemons == Some(group)
}

/// The number of a group of this machine.
pub fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// How a secret file is made.
pub(super) fn create_command(path: &Path) -> String {
    format!(
        "install -m 0640 -o root -g penstock /dev/null {}",
        path.display()
    )
}

/// An error of the system without its number.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_neither_ours_nor_the_daemons_may_read_no_secret() {
        for (group, own, daemons, expected) in [
            (998, 998, Some(998), true),
            (998, 0, Some(998), true),
            (0, 0, None, true),
            (1000, 1000, None, true),
            (100, 0, Some(998), false),
            (100, 998, Some(998), false),
            (100, 0, None, false),
        ] {
            assert_eq!(may_read(group, own, daemons), expected, "{group} {own}");
        }
    }
}
