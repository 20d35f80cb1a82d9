//! Puts a new text in the place of a file: the old or the new, never half of one.

use std::fs::{self, File, Metadata};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};

/// The mode of a file that may get secrets in it.
const SECRET_MODE: u32 = 0o640;
/// The group of the daemon, which reads the configuration.
const GROUP: &str = "penstock";

/// Writes `text` to `path`, with the mode and owner of what was `found` there; a new
/// file is for the owner and the group penstock only.
pub fn replace(path: &Path, text: &str, found: Option<&Metadata>) -> anyhow::Result<()> {
    // A link is followed: the file behind it is what is edited.
    let target = match found {
        Some(_) => {
            fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?
        }
        None => path.to_owned(),
    };
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if let Some(found) = found {
        let now =
            fs::metadata(&target).with_context(|| format!("cannot read {}", target.display()))?;
        let print = |it: &Metadata| (it.ino(), it.size(), it.mtime(), it.mtime_nsec());
        if print(&now) != print(found) {
            bail!(
                "{} was changed meanwhile: look at it and try again",
                path.display()
            );
        }
    }
    let cannot = || format!("cannot write in {}", directory.display());
    let mut temporary = tempfile::Builder::new()
        .prefix(".penstock-")
        .suffix(".new")
        .tempfile_in(directory)
        .with_context(cannot)?;
    temporary.write_all(text.as_bytes()).with_context(cannot)?;
    let file = temporary.as_file();
    match found {
        Some(found) => {
            let own = file.metadata().with_context(cannot)?;
            if (own.uid(), own.gid()) != (found.uid(), found.gid()) {
                std::os::unix::fs::fchown(file, Some(found.uid()), Some(found.gid()))
                    .with_context(|| format!("cannot keep the owner of {}", path.display()))?;
            }
        }
        None => {
            // Only root may; anybody else keeps the file to himself.
            if let Some(group) = crate::config::group_id(GROUP) {
                std::os::unix::fs::fchown(file, None, Some(group)).ok();
            }
        }
    }
    let mode = found.map_or(SECRET_MODE, |it| it.mode() & 0o7777);
    file.set_permissions(fs::Permissions::from_mode(mode))
        .with_context(cannot)?;
    file.sync_all().with_context(cannot)?;
    temporary.persist(&target).with_context(cannot)?;
    // The new name lives in the directory, and the directory is a file of its own.
    File::open(directory)
        .and_then(|it| it.sync_all())
        .with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_keeps_its_mode_and_the_link_to_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "new", Some(&fs::metadata(&link).unwrap())).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o604);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "nothing is left over"
        );
    }

    #[test]
    fn a_new_file_is_not_for_everybody() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        replace(&file, "new", None).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn what_somebody_else_changed_meanwhile_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        fs::write(&file, "old").unwrap();
        let found = fs::metadata(&file).unwrap();
        fs::write(&file, "other").unwrap();
        assert!(replace(&file, "new", Some(&found)).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "other");
    }
}
