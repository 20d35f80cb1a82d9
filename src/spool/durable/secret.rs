//! Small secrets, each in a file of its own that is replaced whole: a crash leaves the
//! old one or the new one, and never half of one or none.
//!
//! Not records of the log: what the log holds stays there until its segment is compacted,
//! and may be copied to `corrupt/`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::{Store, make_directory, names, sync_directory};
use crate::spool::SpoolError;

const SECRETS: &str = "tokens";
/// Behind the name, so that no name is `.` or `..`.
const ENDING: &str = ".token";
/// Longer than any secret that is kept.
const SECRET_MAXIMUM: u64 = 256 * 1024;

impl Store {
    /// The secret of this name, if there is one.
    pub fn read_secret(&self, name: &str) -> Result<Option<Vec<u8>>, SpoolError> {
        let path = self.secret_path(name)?;
        let mut octets = Vec::new();
        let read =
            File::open(&path).and_then(|it| it.take(SECRET_MAXIMUM).read_to_end(&mut octets));
        match read {
            Ok(_) => Ok(Some(octets)),
            Err(it) if it.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(it) => Err(SpoolError::io("read", &path, it)),
        }
    }

    /// Keeps a secret, durably when this returns.
    pub fn replace_secret(&self, name: &str, octets: &[u8]) -> Result<(), SpoolError> {
        let path = self.secret_path(name)?;
        let folder = self.root.join(SECRETS);
        if !folder.exists() {
            make_directory(&folder)?;
            sync_directory(&self.root)?;
        }
        let begun = path.with_extension("new");
        // Left by somebody who died over it.
        self.remove(&begun)?;
        let file = self.create(&begun)?;
        file.write_all_at(octets, 0)
            .and_then(|()| file.sync_all())
            .map_err(|it| SpoolError::io("write", &begun, it))?;
        #[allow(
            clippy::disallowed_methods,
            reason = "the directory is synced behind it"
        )]
        fs::rename(&begun, &path).map_err(|it| SpoolError::io("rename", &begun, it))?;
        sync_directory(&folder)
    }

    /// Removes a secret, durably; one that is gone already is no error.
    pub fn remove_secret(&self, name: &str) -> Result<(), SpoolError> {
        let path = self.secret_path(name)?;
        let begun = path.with_extension("new");
        if path.exists() || begun.exists() {
            self.remove(&begun)?;
            self.remove(&path)?;
            sync_directory(&self.root.join(SECRETS))?;
        }
        Ok(())
    }

    /// Removes what somebody died over before it had its name.
    pub(super) fn remove_begun_secrets(&self) -> Result<(), SpoolError> {
        let folder = self.root.join(SECRETS);
        if folder.exists() {
            for name in names(&folder)?.iter().filter(|it| it.ends_with(".new")) {
                self.remove(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// The names of the secrets there are.
    pub fn secret_names(&self) -> Result<Vec<String>, SpoolError> {
        let folder = self.root.join(SECRETS);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let found = names(&folder)?;
        let found = found.iter().filter_map(|it| it.strip_suffix(ENDING));
        Ok(found.map(str::to_owned).collect())
    }

    fn secret_path(&self, name: &str) -> Result<PathBuf, SpoolError> {
        let path = self.root.join(SECRETS).join(format!("{name}{ENDING}"));
        match name.contains(['/', '\0']) {
            true => Err(SpoolError::io(
                "name",
                &path,
                io::ErrorKind::InvalidInput.into(),
            )),
            false => Ok(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::spool::durable::Step;

    #[test]
    fn a_secret_is_replaced_whole_or_not_at_all_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _lock) = Store::open(folder.path()).unwrap();
        assert_eq!(store.read_secret("own").unwrap(), None);
        assert_eq!(store.secret_names().unwrap(), Vec::<String>::new());
        store.replace_secret("own", b"first").unwrap();
        // Half of one that somebody died over.
        std::fs::write(folder.path().join("tokens/own.new"), "ha").unwrap();
        store.replace_secret("own", b"second").unwrap();
        store.replace_secret("..", b"third").unwrap();
        assert_eq!(store.read_secret("own").unwrap().unwrap(), b"second");
        assert_eq!(store.read_secret("..").unwrap().unwrap(), b"third");
        let path = folder.path().join("tokens/own.token");
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(store.replace_secret("../own", b"x").is_err());

        store.faults.fail(Step::Create, 0, 1, 28);
        assert!(store.replace_secret("own", b"never").is_err());
        assert_eq!(store.read_secret("own").unwrap().unwrap(), b"second");

        store.remove_secret("own").unwrap();
        store.remove_secret("own").unwrap();
        assert_eq!(store.read_secret("own").unwrap(), None);
        assert_eq!(store.secret_names().unwrap(), [".."]);
    }

    #[test]
    fn half_of_a_secret_does_not_outlive_the_next_start_or_its_removal() {
        let folder = tempfile::tempdir().unwrap();
        let (store, lock) = Store::open(folder.path()).unwrap();
        store.replace_secret("own", b"first").unwrap();
        let begun = folder.path().join("tokens/own.new");
        std::fs::write(&begun, "ha").unwrap();
        store.remove_secret("own").unwrap();
        assert!(!begun.exists());
        std::fs::write(&begun, "ha").unwrap();
        drop((store, lock));
        let (_store, _lock) = Store::open(folder.path()).unwrap();
        assert!(!begun.exists());
    }
}
