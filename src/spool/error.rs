//! What can go wrong between an envelope in memory and one on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mail::QueueId;

/// Why the spool could not do what it was asked.
///
/// Clones are cheap: everybody who waited for one group of writes gets the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, as a verb: `write`.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The system does not read a file of the spool. Nobody knows what stands there: it
    /// counts neither as damaged nor as empty, and nothing is removed for it.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Less room is left on the file system than `spool.min-free` keeps back.
    #[error("{free_bytes} octets are free, and {reserve_bytes} are kept in reserve")]
    Full {
        /// What is free.
        free_bytes: u64,
        /// What `min-free` asks for.
        reserve_bytes: u64,
    },
    /// Another process has the spool open.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The spool.
        path: PathBuf,
    },
    /// The spool was closed, or a failed sync ended it.
    #[error("the spool is closed")]
    Closed,
    /// A sync failed: what was written before it may be gone, and a second sync would
    /// not say so. Nothing may be promised any more; the daemon must exit.
    #[error("cannot make {} durable", path.display())]
    SyncFailed {
        /// What was being synced.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The stored content of a message fails its checksum; the message is now held.
    #[error("{id}: the stored {what} is damaged")]
    Damaged {
        /// Whose.
        id: QueueId,
        /// `content` or `envelope`.
        what: &'static str,
    },
    /// The envelope would not read back as it was written: it is refused, not lost later.
    #[error("{id}: the envelope does not read back as it was written")]
    Unwritable {
        /// Whose.
        id: QueueId,
    },
    /// A record that this version must not ignore was written by a newer one.
    #[error(
        "{} was written by a newer version of Penstock (record version {version}): start that version again, it has all mail",
        path.display()
    )]
    Newer {
        /// The segment.
        path: PathBuf,
        /// The version of the record.
        version: u8,
    },
    /// The index cannot answer just now; it is being rebuilt from the log.
    #[error("the index is not available: {0}")]
    Index(String),
}

impl SpoolError {
    /// Whether the process has to end: nothing it says about durability holds any more.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::SyncFailed { .. })
    }

    /// Whether only the index did not answer: it may when it is asked later.
    pub fn is_of_index(&self) -> bool {
        matches!(self, Self::Index(_))
    }

    /// Whether it concerns one message, and no other.
    pub(super) fn is_about_one(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Unreadable { .. })
    }

    /// An error of the operating system while reading `path`.
    pub(super) fn unreadable(path: &Path, source: io::Error) -> Self {
        Self::Unreadable {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    /// An error of the operating system while doing `action` to `path`.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}
