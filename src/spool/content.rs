//! Contents of messages: coming in piece by piece, and going out block by block.
//!
//! A small content stays in memory until it is committed, within a bound for all
//! clients together; beyond either limit it goes to a file of its own at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mail::QueueId;

use super::durable::Store;
use super::error::SpoolError;
use super::reserve::CurrentReserve;

/// Octets that a content read from a file comes in, at most.
const BLOCK_BYTES: usize = 64 * 1024;
/// Octets that are gathered before they are written to a file: a thousand clients that
/// drip into files must not hold much.
const GATHER_BYTES: usize = 32 * 1024;

/// Memory that all contents which are being received may use together.
#[derive(Debug)]
pub(super) struct Buffers {
    used: AtomicU64,
    limit: u64,
}

impl Buffers {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            limit,
        })
    }

    fn take(&self, wanted: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(wanted).filter(|it| *it <= self.limit)
            })
            .is_ok()
    }

    fn give_back(&self, octets: u64) {
        self.used.fetch_sub(octets, Ordering::Relaxed);
    }
}

/// A content that arrives; dropping it unfinished leaves nothing behind.
#[derive(Debug)]
pub struct ContentWriter {
    store: Arc<Store>,
    reserve: CurrentReserve,
    runtime: tokio::runtime::Handle,
    large_bytes: u64,
    held: Held,
    file: Option<LargeFile>,
}

/// Octets in memory, and their share of the [`Buffers`].
#[derive(Debug)]
pub(super) struct Held {
    pub(super) octets: Vec<u8>,
    buffers: Option<Arc<Buffers>>,
    taken: u64,
}

impl Held {
    fn release(&mut self) {
        if let Some(buffers) = &self.buffers {
            buffers.give_back(std::mem::take(&mut self.taken));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// A content in a file of its own. Removed when it is dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct LargeFile {
    store: Arc<Store>,
    pub(super) name: String,
    pub(super) file: Arc<File>,
    pub(super) length: u64,
    pub(super) checksum: u32,
    kept: bool,
}

impl LargeFile {
    fn create(store: Arc<Store>) -> Result<Self, SpoolError> {
        let (name, file) = store.create_large()?;
        Ok(Self {
            store,
            name,
            file: Arc::new(file),
            length: 0,
            checksum: 0,
            kept: false,
        })
    }

    fn append(mut self, octets: &[u8]) -> Result<Self, SpoolError> {
        self.store
            .write_large(&self.file, &self.name, octets, self.length)?;
        self.length += octets.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, octets);
        Ok(self)
    }

    /// From now on a record names it.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }

    /// Makes it durable, its name included.
    pub(super) fn sync(&self) -> Result<(), SpoolError> {
        self.store.sync_large(&self.name, &self.file)
    }
}

impl Drop for LargeFile {
    fn drop(&mut self) {
        if !self.kept {
            self.store.remove_large(&self.name).ok();
        }
    }
}

impl ContentWriter {
    pub(super) fn new(
        store: Arc<Store>,
        reserve: CurrentReserve,
        buffers: Arc<Buffers>,
        runtime: tokio::runtime::Handle,
        large_bytes: u64,
        expected: Option<u64>,
    ) -> Self {
        Self {
            store,
            reserve,
            runtime,
            // One that was announced as large goes to a file from its first octet.
            large_bytes: if expected.is_some_and(|it| it > large_bytes) {
                0
            } else {
                large_bytes
            },
            held: Held {
                octets: Vec::new(),
                buffers: Some(buffers),
                taken: 0,
            },
            file: None,
        }
    }

    /// Takes the next octets.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), SpoolError> {
        if self.file.is_none() {
            let wanted = octets.len() as u64;
            let fits = self.held.taken + wanted <= self.large_bytes
                && self.held.buffers.as_ref().is_some_and(|it| it.take(wanted));
            if fits {
                self.held.taken += wanted;
                self.held.octets.extend_from_slice(octets);
                return Ok(());
            }
        }
        self.held.octets.extend_from_slice(octets);
        if self.file.is_none() || self.held.octets.len() >= GATHER_BYTES {
            self.spill().await?;
        }
        Ok(())
    }

    /// Octets taken so far.
    pub fn len(&self) -> u64 {
        self.file.as_ref().map_or(0, |it| it.length) + self.held.octets.len() as u64
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// That was all.
    pub async fn finish(mut self) -> Result<Content, SpoolError> {
        if self.file.is_some() {
            self.spill().await?;
        }
        Ok(Content(match self.file.take() {
            Some(file) => Kind::File(file),
            None => Kind::Memory(self.held),
        }))
    }

    async fn spill(&mut self) -> Result<(), SpoolError> {
        let octets = std::mem::take(&mut self.held.octets);
        self.held.release();
        let (store, file, reserve) = (self.store.clone(), self.file.take(), self.reserve.get());
        let written = self.runtime.spawn_blocking(move || {
            // The reserve is for what happens to mail that is here already: whoever only
            // uploads must not use it up.
            store.room()?.check(reserve)?;
            let file = match file {
                Some(file) => file,
                None => LargeFile::create(store)?,
            };
            file.append(&octets)
        });
        self.file = Some(written.await.map_err(|_| SpoolError::Closed)??);
        Ok(())
    }
}

/// A content that is complete, and not yet part of the spool.
#[derive(Debug)]
pub struct Content(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Memory(Held),
    File(LargeFile),
}

impl From<Vec<u8>> for Content {
    /// What Penstock wrote itself: it does not count against the clients' buffers.
    fn from(octets: Vec<u8>) -> Self {
        Self(Kind::Memory(Held {
            octets,
            buffers: None,
            taken: 0,
        }))
    }
}

impl Content {
    /// Octets of it.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Kind::Memory(held) => held.octets.len() as u64,
            Kind::File(file) => file.length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads at a place, at most `limit` octets: for looking at a message before it is
    /// accepted. Blocks on a large one.
    pub fn peek(&self, offset: u64, limit: usize) -> Result<Vec<u8>, SpoolError> {
        let length = self.len();
        let start = offset.min(length);
        let end = start.saturating_add(limit as u64).min(length);
        match &self.0 {
            Kind::Memory(held) => Ok(held.octets[start as usize..end as usize].to_vec()),
            Kind::File(file) => {
                let mut octets = vec![0; (end - start) as usize];
                file.file
                    .read_exact_at(&mut octets, start)
                    .map_err(|it| SpoolError::io("read", &file.store.large_path(&file.name), it))?;
                Ok(octets)
            }
        }
    }
}

/// A content where it will stay: in memory for the record, or in a synced file.
#[derive(Debug)]
pub(super) struct ContentAtRest(Kind);

impl Content {
    /// As it is, if it may follow its record; a large one has to become a synced file.
    pub(super) fn at_rest(self, large_bytes: u64) -> Result<ContentAtRest, Self> {
        match self.0 {
            Kind::Memory(_) if self.len() <= large_bytes => Ok(ContentAtRest(self.0)),
            Kind::Memory(_) | Kind::File(_) => Err(self),
        }
    }

    /// Makes it a synced file. Blocks.
    pub(super) fn into_file(self, store: Arc<Store>) -> Result<ContentAtRest, SpoolError> {
        let file = match self.0 {
            Kind::File(file) => file,
            Kind::Memory(held) => LargeFile::create(store)?.append(&held.octets)?,
        };
        file.sync()?;
        Ok(ContentAtRest(Kind::File(file)))
    }
}

impl ContentAtRest {
    /// The name of its file.
    pub(super) fn file_name(&self) -> Option<String> {
        match &self.0 {
            Kind::Memory(_) => None,
            Kind::File(file) => Some(file.name.clone()),
        }
    }

    /// The octets that follow its record.
    pub(super) fn inline(&self) -> &[u8] {
        match &self.0 {
            Kind::Memory(held) => &held.octets,
            Kind::File(_) => &[],
        }
    }

    /// How many octets follow its record.
    pub(super) fn inline_bytes(&self) -> u64 {
        self.inline().len() as u64
    }

    /// Octets of it.
    pub(super) fn length(&self) -> u64 {
        match &self.0 {
            Kind::Memory(held) => held.octets.len() as u64,
            Kind::File(file) => file.length,
        }
    }

    /// CRC-32C of it.
    pub(super) fn checksum(&self) -> u32 {
        match &self.0 {
            Kind::Memory(held) => crc32c::crc32c(&held.octets),
            Kind::File(file) => file.checksum,
        }
    }

    /// Its file.
    pub(super) fn into_large(self) -> Option<LargeFile> {
        match self.0 {
            Kind::Memory(_) => None,
            Kind::File(file) => Some(file),
        }
    }
}

/// The content of a message in the spool, read block by block, as often as needed.
#[derive(Debug)]
pub struct ContentReader {
    id: QueueId,
    source: Source,
    length: u64,
    checksum: u32,
    offset: u64,
    sum: u32,
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Arc<[u8]>),
    File(Arc<File>, PathBuf),
}

impl ContentReader {
    /// Over octets that were verified already.
    pub(super) fn memory(id: QueueId, octets: Vec<u8>) -> Self {
        Self {
            id,
            length: octets.len() as u64,
            source: Source::Memory(octets.into()),
            checksum: 0,
            offset: 0,
            sum: 0,
        }
    }

    /// Over a file, verified while it is read.
    pub(super) fn file(id: QueueId, file: File, path: PathBuf, length: u64, checksum: u32) -> Self {
        Self {
            id,
            length,
            source: Source::File(Arc::new(file), path),
            checksum,
            offset: 0,
            sum: 0,
        }
    }

    /// The next octets; none at the end.
    ///
    /// The last block of a damaged content is never handed out: whoever sends a message
    /// finds out before the final dot.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, SpoolError> {
        let left = self.length - self.offset;
        if left == 0 {
            return Ok(None);
        }
        let wanted = left.min(BLOCK_BYTES as u64) as usize;
        let (offset, id) = (self.offset, self.id);
        let damaged = SpoolError::Damaged {
            id,
            what: "content",
        };
        let block = match &self.source {
            Source::Memory(octets) => octets[offset as usize..offset as usize + wanted].to_vec(),
            Source::File(file, path) => {
                let file = file.clone();
                let block = tokio::task::spawn_blocking(move || {
                    let mut block = vec![0; wanted];
                    file.read_exact_at(&mut block, offset).map(|()| block)
                });
                let block = block.await.map_err(|_| SpoolError::Closed)?;
                let block = block.map_err(|it| match it.kind() {
                    io::ErrorKind::UnexpectedEof => damaged.clone(),
                    _ => SpoolError::unreadable(path, it),
                })?;
                self.sum = crc32c::crc32c_append(self.sum, &block);
                if wanted as u64 == left && self.sum != self.checksum {
                    return Err(damaged);
                }
                block
            }
        };
        self.offset += wanted as u64;
        Ok(Some(block))
    }

    /// Octets in all.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Starts again from the first octet.
    pub fn rewind(&mut self) {
        self.offset = 0;
        self.sum = 0;
    }

    /// The rest of it, at most `limit` octets.
    pub async fn read(&mut self, limit: usize) -> Result<Vec<u8>, SpoolError> {
        let mut octets = Vec::new();
        while octets.len() < limit {
            let Some(block) = self.next().await? else {
                break;
            };
            octets.extend_from_slice(&block);
        }
        octets.truncate(limit);
        Ok(octets)
    }
}
