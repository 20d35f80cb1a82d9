//! The only place that names files, and the only one that makes them durable.
//!
//! ```text
//! lock                              held by the one process that has the spool open
//! log/NUMBER-MARK.log               segments of the log, oldest first
//! log/NUMBER-MARK.new               a segment whose checkpoint is not synced yet
//! large/NAME                        contents too large for the log
//! index/                            sled; may be deleted at any time while stopped
//! history/DAY.log                   finished mail
//! tokens/RELAY.token                a relay's login
//! corrupt/SEGMENT-OFFSET            copies of damaged records
//! corrupt/NUMBER-MARK.log           segments of which nothing could be read
//! corrupt/large-NAME                contents that a damaged record may have named
//! ```
//!
//! A file exists for certain only when its directory was synced after it was made, and
//! is gone for certain only when its directory was synced after it was removed. Every
//! function here that makes or removes a name says which of the two it promises.

mod secret;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::SpoolError;

mod corrupt;
#[cfg(test)]
pub mod faults;

const LOG: &str = "log";
const LARGE: &str = "large";
const INDEX: &str = "index";
const HISTORY: &str = "history";
const CORRUPT: &str = "corrupt";
const LOCK: &str = "lock";

/// The files of one spool.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    #[cfg(test)]
    pub faults: faults::Faults,
}

/// Names a segment: its place in the log, and the random mark that each of its frames
/// begins with, so that no content of a message can pass for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Segments are read in the order of their numbers.
    pub number: u64,
    /// What its frames begin with.
    pub mark: u64,
}

/// Held as long as the spool is open; the system gives it back when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it gives the lock back")] File);

/// Room on the file system of the spool.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// What is left for us.
    pub free_bytes: u64,
    /// Its size.
    pub total_bytes: u64,
}

/// What can be made to fail in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Every read of a segment that is opened now.
    Read,
    Write,
    WriteLarge,
    Sync,
    SyncLarge,
    Create,
    Truncate,
    Remove,
    RemoveIndex,
}

impl Store {
    /// Makes the directories where they are missing, durably, and takes the lock.
    pub fn open(root: &Path) -> Result<(Self, Lock), SpoolError> {
        let store = Self::at(root);
        let missing = !root.exists();
        make_directory(root)?;
        if is_ours_alone(root) {
            // Administrators may reach a control socket in it, and see nothing else.
            close_to_others(root, 0o711)?;
        }
        if missing && let Some(parent) = root.parent() {
            // Best effort: the parent is not ours, and may not even be readable.
            sync_directory(parent).ok();
        }
        for name in [LOG, LARGE, HISTORY, CORRUPT] {
            make_directory(&root.join(name))?;
            close_to_others(&root.join(name), 0o700)?;
        }
        // sled would make it, and its files, for everybody to read.
        if root.join(INDEX).is_dir() {
            close_to_others(&root.join(INDEX), 0o700)?;
        }
        sync_directory(root)?;
        let path = root.join(LOCK);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|it| SpoolError::io("open", &path, it))?;
        let lock = lock(file, &path, root, File::try_lock)?;
        store.remove_begun_secrets()?;
        Ok((store, lock))
    }

    /// Opens nothing but the lock, shared, and changes nothing.
    pub fn open_offline(root: &Path) -> Result<(Self, Lock), SpoolError> {
        let path = root.join(LOCK);
        let file = File::open(&path).map_err(|it| SpoolError::io("open", &path, it))?;
        let lock = lock(file, &path, root, File::try_lock_shared)?;
        Ok((Self::at(root), lock))
    }

    fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            #[cfg(test)]
            faults: faults::Faults::default(),
        }
    }

    /// Free and total octets of the file system.
    pub fn room(&self) -> Result<Room, SpoolError> {
        let read = rustix::fs::statvfs(&self.root)
            .map_err(|it| SpoolError::io("measure", &self.root, it.into()))?;
        Ok(Room {
            free_bytes: read.f_bavail.saturating_mul(read.f_frsize),
            total_bytes: read.f_blocks.saturating_mul(read.f_frsize),
        })
    }

    // --- the log ---

    /// Where a segment is.
    pub fn segment_path(&self, name: SegmentName) -> PathBuf {
        let SegmentName { number, mark } = name;
        self.root
            .join(LOG)
            .join(format!("{number:016x}-{mark:016x}.log"))
    }

    /// The segments there are, oldest first.
    pub fn segments(&self) -> Result<Vec<SegmentName>, SpoolError> {
        let mut found: Vec<SegmentName> = names(&self.root.join(LOG))?
            .iter()
            .filter_map(|name| {
                let (number, mark) = name.strip_suffix(".log")?.split_once('-')?;
                Some(SegmentName {
                    number: hexadecimal(number)?,
                    mark: hexadecimal(mark)?,
                })
            })
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Makes an empty segment, which is none for any reader until it has its
    /// [name](Self::name_segment).
    pub fn create_segment(&self, name: SegmentName) -> Result<File, SpoolError> {
        self.create(&self.begun_path(name))
    }

    /// Gives a segment whose checkpoint is synced its name, durably. So whatever bears
    /// such a name and has no good frame is damaged, and not just begun.
    pub fn name_segment(&self, name: SegmentName) -> Result<(), SpoolError> {
        let path = self.begun_path(name);
        #[allow(
            clippy::disallowed_methods,
            reason = "the directory is synced behind it"
        )]
        fs::rename(&path, self.segment_path(name))
            .map_err(|it| SpoolError::io("rename", &path, it))?;
        self.sync_names(LOG)
    }

    /// Removes a segment that has no name yet: nothing in it was ever answered.
    pub fn remove_begun(&self, name: SegmentName) -> Result<(), SpoolError> {
        self.remove(&self.begun_path(name))
    }

    /// Removes every segment that somebody died over before it had its name.
    pub fn remove_all_begun(&self) -> Result<(), SpoolError> {
        let folder = self.root.join(LOG);
        for name in names(&folder)?.iter().filter(|it| it.ends_with(".new")) {
            self.remove(&folder.join(name))?;
        }
        Ok(())
    }

    fn begun_path(&self, name: SegmentName) -> PathBuf {
        self.segment_path(name).with_extension("new")
    }

    /// Opens a segment for reading.
    pub fn open_segment(&self, name: SegmentName) -> Result<File, SpoolError> {
        let path = self.segment_path(name);
        // In tests: a file that is open only for writing fails every read.
        let fails = self.fault(Step::Read).is_err();
        OpenOptions::new()
            .read(!fails)
            .write(fails)
            .open(&path)
            .map_err(|it| SpoolError::io("open", &path, it))
    }

    /// Removes a segment, durably: one that came back after its successor had gone would
    /// bring back what the successor buried.
    pub fn remove_segment(&self, name: SegmentName) -> Result<(), SpoolError> {
        self.remove(&self.segment_path(name))?;
        self.sync_names(LOG)
    }

    /// Writes at a place of a segment; durable after [`sync`](Self::sync).
    pub fn write_at(
        &self,
        file: &File,
        name: SegmentName,
        octets: &[u8],
        offset: u64,
    ) -> Result<(), SpoolError> {
        let written = self.fault(Step::Write).and_then(|()| {
            #[cfg(test)]
            let octets = &octets[..octets.len().min(self.faults.write_room(octets.len()))];
            file.write_all_at(octets, offset)
        });
        #[cfg(test)]
        let written = written.and_then(|()| self.faults.short_write());
        written.map_err(|it| SpoolError::io("write", &self.segment_path(name), it))
    }

    /// Cuts off what a failed write left, without a sync.
    pub fn cut_back(&self, file: &File, name: SegmentName, length: u64) -> Result<(), SpoolError> {
        self.fault(Step::Truncate)
            .and_then(|()| file.set_len(length))
            .map_err(|it| SpoolError::io("truncate", &self.segment_path(name), it))
    }

    /// Makes the content of a file durable, and its size.
    pub fn sync(&self, file: &File, path: &Path) -> Result<(), SpoolError> {
        self.fault(Step::Sync)
            .and_then(|()| file.sync_data())
            .map_err(|source| SpoolError::SyncFailed {
                path: path.to_owned(),
                source: source.into(),
            })
    }

    // --- large contents ---

    /// Makes a file for one large content; its name is durable after
    /// [`sync_large`](Self::sync_large).
    pub fn create_large(&self) -> Result<(String, File), SpoolError> {
        let name = format!("{:016x}", rand::random::<u64>());
        let file = self.create(&self.large_path(&name))?;
        Ok((name, file))
    }

    /// Writes at a place of a large content.
    pub fn write_large(
        &self,
        file: &File,
        name: &str,
        octets: &[u8],
        offset: u64,
    ) -> Result<(), SpoolError> {
        self.fault(Step::WriteLarge)
            .and_then(|()| file.write_all_at(octets, offset))
            .map_err(|it| SpoolError::io("write", &self.large_path(name), it))
    }

    /// Makes one large content durable, its name included.
    ///
    /// A failure here concerns this message alone, which was promised to nobody yet:
    /// it is an ordinary error.
    pub fn sync_large(&self, name: &str, file: &File) -> Result<(), SpoolError> {
        let path = self.large_path(name);
        self.fault(Step::SyncLarge)
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(self.root.join(LARGE))?.sync_all())
            .map_err(|it| SpoolError::io("sync", &path, it))
    }

    /// Where a large content is.
    pub fn large_path(&self, name: &str) -> PathBuf {
        self.root.join(LARGE).join(name)
    }

    /// Opens a large content for reading.
    pub fn open_large(&self, name: &str) -> Result<File, SpoolError> {
        let path = self.large_path(name);
        if !is_large_name(name) {
            return Err(SpoolError::io(
                "open",
                &path,
                io::ErrorKind::InvalidInput.into(),
            ));
        }
        File::open(&path).map_err(|it| SpoolError::io("open", &path, it))
    }

    /// Removes a large content; one that is gone already is no error. A removal that is
    /// lost in a power cut leaves a file that the next open removes again.
    pub fn remove_large(&self, name: &str) -> Result<(), SpoolError> {
        if !is_large_name(name) {
            return Ok(());
        }
        self.remove(&self.large_path(name))
    }

    /// The large contents there are.
    pub fn large_names(&self) -> Result<Vec<String>, SpoolError> {
        let mut found = names(&self.root.join(LARGE))?;
        found.retain(|it| is_large_name(it));
        Ok(found)
    }

    // --- history ---

    /// The days of history there are, as their names, oldest first.
    pub fn history_days(&self) -> Result<Vec<String>, SpoolError> {
        let mut days: Vec<String> = names(&self.root.join(HISTORY))?
            .iter()
            .filter_map(|it| it.strip_suffix(".log"))
            .filter(|it| it.len() == 10)
            .map(str::to_owned)
            .collect();
        days.sort_unstable();
        Ok(days)
    }

    /// Opens the history of a day for appending; durable only when it is synced.
    pub fn append_history(&self, day: &str) -> Result<File, SpoolError> {
        let path = self.history_path(day);
        let fresh = !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|it| SpoolError::io("open", &path, it))?;
        if fresh {
            self.sync_names(HISTORY)?;
        }
        Ok(file)
    }

    /// Opens the history of a day for reading.
    pub fn open_history(&self, day: &str) -> Result<File, SpoolError> {
        let path = self.history_path(day);
        File::open(&path).map_err(|it| SpoolError::io("open", &path, it))
    }

    /// Removes the history of a day.
    pub fn remove_history(&self, day: &str) -> Result<(), SpoolError> {
        self.remove(&self.history_path(day))
    }

    /// Where the history of a day is.
    pub fn history_path(&self, day: &str) -> PathBuf {
        self.root.join(HISTORY).join(format!("{day}.log"))
    }

    // --- the index ---

    /// Where sled lives.
    pub fn index_path(&self) -> PathBuf {
        self.root.join(INDEX)
    }

    /// Whether there is an index to open, after what would stop sled from opening was
    /// taken away: a snapshot that it had not finished writing when it was killed makes
    /// every later open fail.
    pub fn prepare_index(&self) -> Result<bool, SpoolError> {
        let path = self.index_path();
        if !path.exists() {
            return Ok(false);
        }
        for name in names(&path)? {
            if name.starts_with("snap.") && name.ends_with(".generating") {
                self.remove(&path.join(name))?;
            }
        }
        Ok(true)
    }

    /// Makes the directory that sled lives in, for nobody else: its files, which sled makes
    /// for everybody to read, have addresses and subjects.
    pub fn make_index(&self) -> Result<(), SpoolError> {
        make_directory(&self.index_path())
    }

    /// Deletes the index.
    pub fn remove_index(&self) -> Result<(), SpoolError> {
        let path = self.index_path();
        let removed =
            self.fault(Step::RemoveIndex)
                .and_then(|()| match fs::remove_dir_all(&path) {
                    Err(it) if it.kind() == io::ErrorKind::NotADirectory => fs::remove_file(&path),
                    removed => removed,
                });
        match removed {
            Err(it) if it.kind() != io::ErrorKind::NotFound => {
                Err(SpoolError::io("remove", &path, it))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Makes the closed index durable: sled itself never syncs its files.
    pub fn sync_index(&self) -> Result<(), SpoolError> {
        let path = self.index_path();
        if path.exists() {
            sync_tree(&path)?;
            sync_directory(&self.root)?;
        }
        Ok(())
    }

    // --- steps ---

    fn create(&self, path: &Path) -> Result<File, SpoolError> {
        self.fault(Step::Create)
            .and_then(|()| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
            })
            .map_err(|it| SpoolError::io("create", path, it))
    }

    fn remove(&self, path: &Path) -> Result<(), SpoolError> {
        match self
            .fault(Step::Remove)
            .and_then(|()| fs::remove_file(path))
        {
            Err(it) if it.kind() != io::ErrorKind::NotFound => {
                Err(SpoolError::io("remove", path, it))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn sync_names(&self, directory: &str) -> Result<(), SpoolError> {
        let path = self.root.join(directory);
        self.fault(Step::Sync)
            .and_then(|()| File::open(&path)?.sync_all())
            .map_err(|source| SpoolError::SyncFailed {
                path: path.clone(),
                source: source.into(),
            })
    }

    #[cfg(test)]
    fn fault(&self, step: Step) -> io::Result<()> {
        self.faults.take(step)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "only tests make steps fail")]
    fn fault(&self, _step: Step) -> io::Result<()> {
        Ok(())
    }
}

fn lock(
    file: File,
    path: &Path,
    root: &Path,
    take: fn(&File) -> Result<(), TryLockError>,
) -> Result<Lock, SpoolError> {
    match take(&file) {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse {
            path: root.to_owned(),
        }),
        Err(TryLockError::Error(it)) => Err(SpoolError::io("lock", path, it)),
    }
}

fn make_directory(path: &Path) -> Result<(), SpoolError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|it| SpoolError::io("make", path, it))
}

/// Whether a state directory is a spool or empty: of one that has other things in it, as
/// `/srv` or `/tmp`, only what is ours is closed.
fn is_ours_alone(root: &Path) -> bool {
    (root.join(LOG).is_dir() && root.join(LOCK).is_file())
        || fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none())
}

/// Leaves a directory that exists with those of the rights that are allowed.
fn close_to_others(path: &Path, allowed: u32) -> Result<(), SpoolError> {
    let facts = fs::metadata(path).map_err(|it| SpoolError::io("look at", path, it))?;
    if facts.mode() & 0o777 & !allowed == 0 {
        return Ok(());
    }
    let mode = format!("{:04o}", facts.mode() & 0o7777);
    let less = facts.mode() & allowed;
    match fs::set_permissions(path, Permissions::from_mode(less)) {
        Ok(()) => {
            tracing::warn!(path = %path.display(), mode, now = format!("{less:04o}"), "others could look into this directory of the spool");
        }
        // It belongs to somebody else; what stands in it is in directories of our own.
        Err(error) => {
            tracing::warn!(path = %path.display(), mode, %error, "others can look into this directory of the spool: give it to the user that penstockd runs as, with mode 0700");
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), SpoolError> {
    File::open(path)
        .and_then(|it| it.sync_all())
        .map_err(|it| SpoolError::io("sync", path, it))
}

fn sync_tree(path: &Path) -> Result<(), SpoolError> {
    let io = |it| SpoolError::io("sync", path, it);
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())
                .and_then(|it| it.sync_all())
                .map_err(io)?;
        }
    }
    sync_directory(path)
}

fn names(directory: &Path) -> Result<Vec<String>, SpoolError> {
    let io = |it| SpoolError::io("list", directory, it);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        if let Ok(name) = entry.map_err(io)?.file_name().into_string() {
            found.push(name);
        }
    }
    Ok(found)
}

/// A name from a record is used in a path only when it is one that we make.
fn is_large_name(name: &str) -> bool {
    hexadecimal(name).is_some()
}

fn hexadecimal(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(|it| it.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}
