//! What is kept of damage, for a person to look at.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{CORRUPT, LARGE, LOG, SegmentName, Step, Store, is_large_name};
use crate::spool::error::SpoolError;
use crate::spool::scan::read_up_to;

/// Octets that are copied at once.
const BLOCK_BYTES: usize = 64 * 1024;

impl Store {
    /// Keeps a copy of a damaged region, durably: the original may go afterwards. Its name
    /// is its place, so that finding the same damage again does not make a second copy.
    /// Whether it was new.
    pub fn save_corrupt(
        &self,
        name: SegmentName,
        from: &File,
        offset: u64,
        length: u64,
    ) -> Result<bool, SpoolError> {
        let path = self.corrupt_path(&format!("{:016x}-{offset:08x}", name.number));
        if path.exists() {
            return Ok(false);
        }
        // What bears the name is whole: half a copy must not pass for one.
        let begun = path.with_extension("part");
        self.remove(&begun)?;
        let file = self.create(&begun)?;
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let wanted = (end - at).min(BLOCK_BYTES as u64) as usize;
            let octets = read_up_to(from, at, wanted)
                .map_err(|it| SpoolError::unreadable(&self.segment_path(name), it))?;
            if octets.is_empty() {
                break;
            }
            file.write_all_at(&octets, at - offset)
                .map_err(|it| SpoolError::io("write", &begun, it))?;
            at += octets.len() as u64;
        }
        // A failure here leaves the original where it is: it is an ordinary error.
        self.fault(Step::SyncLarge)
            .and_then(|()| file.sync_all())
            .map_err(|it| SpoolError::io("sync", &begun, it))?;
        rename(&begun, &path)?;
        self.sync_names(CORRUPT)?;
        Ok(true)
    }

    /// Takes a segment of which nothing can be read out of the log, whole.
    pub fn keep_segment(&self, name: SegmentName) -> Result<(), SpoolError> {
        let path = self.segment_path(name);
        let kept = format!("{:016x}-{:016x}.log", name.number, name.mark);
        rename(&path, &self.corrupt_path(&kept))?;
        self.sync_names(CORRUPT)?;
        self.sync_names(LOG)
    }

    /// Keeps a large content that no record names although a record is damaged: it may
    /// be what that one named.
    pub fn keep_large(&self, name: &str) -> Result<(), SpoolError> {
        if !is_large_name(name) {
            return Ok(());
        }
        rename(
            &self.large_path(name),
            &self.corrupt_path(&format!("large-{name}")),
        )?;
        self.sync_names(CORRUPT)?;
        self.sync_names(LARGE)
    }

    fn corrupt_path(&self, name: &str) -> PathBuf {
        self.root.join(CORRUPT).join(name)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "every caller syncs the directories behind it"
)]
fn rename(from: &Path, to: &Path) -> Result<(), SpoolError> {
    fs::rename(from, to).map_err(|it| SpoolError::io("rename", from, it))
}
