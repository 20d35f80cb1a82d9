//! Promises of the spool as a whole, on real files.

mod compaction;
mod crash;
mod damage;
mod faults;
mod flips;
mod modes;
mod queries;
mod rebuild;
mod sample;

use std::path::Path;

use jiff::Timestamp;

use crate::clock::{Clock, Moment};
use crate::mail::{
    Body, Envelope, ForwardPath, Hold, HoldReason, Mailbox, Mailing, Notify, Origin, QueueId,
    Recipient, RecipientStatus, ReversePath, Rule, State,
};

use super::*;
use compaction::PATIENCE;

impl Spool {
    /// Begins a rebuild of the index that goes no further until this is dropped.
    pub(crate) fn stall_rebuild(&self) -> impl Sized + '_ {
        // It begins by opening the history.
        let stalled = self.0.history();
        let index = self.0.index().expect("it is complete");
        self.0.doubt_index(&index, "a test");
        stalled
    }
}

pub fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

/// A message from one address to some.
pub fn envelope(id: QueueId, from: &str, to: &[&str]) -> Envelope {
    Envelope {
        id,
        origin: Origin::Submission,
        accepted: Timestamp::from_millisecond((id.number() >> 20) as i64).unwrap(),
        reverse_path: ReversePath::Mailbox(mailbox(from)),
        from: mailbox(from),
        rule: Rule::Default,
        relay: "own".into(),
        mailing: Mailing {
            key: "subject:hello".into(),
            label: "hello".into(),
        },
        login: None,
        client: "127.0.0.1".into(),
        message_id: format!("{id}@example.org"),
        body: Body::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        size_bytes: 100,
        wire_bytes: 105,
        recipients: to
            .iter()
            .map(|it| Recipient {
                path: ForwardPath::parse(it).unwrap(),
                notify: Notify::Unspecified,
                orcpt: None,
                status: RecipientStatus::Waiting,
                last: None,
            })
            .collect(),
        state: State::Waiting { not_before: None },
        attempts: 0,
        first_failure: None,
        warned: false,
        past: Vec::new(),
    }
}

pub fn moment() -> Moment {
    Moment {
        uptime: std::time::Duration::new(3, 7),
        wall: "2026-11-21T20:00:00Z".parse().unwrap(),
        boot: u64::MAX,
    }
}

pub fn delivered(mut envelope: Envelope) -> Envelope {
    for recipient in &mut envelope.recipients {
        recipient.status = RecipientStatus::Delivered;
    }
    envelope
}

pub fn held(mut envelope: Envelope, reason: HoldReason) -> Envelope {
    envelope.state = State::Held(Hold {
        reason,
        by: "jan".into(),
        since: envelope.accepted,
        note: String::new(),
    });
    envelope
}

/// Small segments, and room whatever the disk says.
pub fn options(path: &Path) -> SpoolOptions {
    SpoolOptions {
        min_free: Reserve::Bytes(0),
        segment_bytes: 16 << 10,
        large_bytes: 8 << 10,
        ..SpoolOptions::at(path)
    }
}

/// Opens a spool, once its last user has let it go.
pub fn open(path: &Path) -> (Spool, Recovered) {
    let clock = Clock::system();
    let begun = clock.uptime();
    loop {
        match Spool::open(options(path), Clock::system()) {
            Err(SpoolError::InUse { .. }) if clock.uptime() < begun + PATIENCE => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

/// A content that tells whose it is.
pub fn content(id: QueueId, length: usize) -> Vec<u8> {
    let mut octets = format!("{id}\r\n").into_bytes();
    while octets.len() < length {
        octets.extend_from_slice(format!("{} {}\r\n", id, octets.len()).as_bytes());
    }
    octets.truncate(length.max(15));
    octets
}

impl Spool {
    /// Accepts a message of so many octets.
    pub async fn accept(&self, from: &str, length: usize) -> Envelope {
        let envelope = envelope(self.next_id(), from, &["bob@example.net"]);
        self.commit(envelope.clone(), content(envelope.id, length).into())
            .await
            .unwrap();
        envelope
    }

    /// Delivers a message.
    pub async fn finish(&self, envelope: &Envelope, grant: u64) {
        self.settle(Settled {
            envelope: delivered(envelope.clone()),
            grant,
            released: Released::Sent { at: moment() },
            reports: Vec::new(),
        })
        .await
        .unwrap();
    }

    /// Every message that waits.
    pub async fn all(&self) -> Vec<Envelope> {
        let everything = Filter::default();
        let page = self.list(&everything, QueueId::MIN, usize::MAX).await;
        page.unwrap().messages
    }

    /// The content of a message.
    pub async fn octets(&self, id: QueueId) -> Vec<u8> {
        let mut reader = self.content(id).await.unwrap().unwrap();
        reader.read(usize::MAX).await.unwrap()
    }

    /// The counts, by reading every entry.
    pub async fn counted(&self) -> Amount {
        let mut sum = Amount::default();
        for envelope in self.all().await {
            sum.add(Amount {
                messages: 1,
                recipients: envelope.waiting().count() as u64,
                wire_bytes: envelope.wire_bytes,
            });
        }
        sum
    }
}

/// Copies a spool as it is at this moment, as a kill would leave it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The segments of a log, oldest first.
pub fn segments(path: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<_> = std::fs::read_dir(path.join("log"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    segments.sort();
    segments
}

/// The segment that was written last.
pub fn last_segment(path: &Path) -> PathBuf {
    segments(path).pop().unwrap()
}

/// A copy without its index, as after another boot.
pub fn copy_log(from: &Path, to: &Path) {
    copy(from, to);
    std::fs::remove_dir_all(to.join("index")).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_found_again_after_a_close() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, recovered) = open(directory.path());
    assert!(!recovered.crashed);
    let small = spool.accept("ann@example.org", 500).await;
    let large = spool.accept("ann@example.org", 100_000).await;
    let gone = spool.accept("ann@example.org", 500).await;
    spool.finish(&gone, 1).await;
    let kept = held(
        spool.accept("eve@example.org", 20).await,
        HoldReason::Administrator,
    );
    let change = Change {
        envelope: kept.clone(),
        by: "jan".into(),
        reports: Vec::new(),
    };
    spool.change(vec![change]).await.unwrap();
    spool.close().await.unwrap();

    let (spool, recovered) = open(directory.path());
    assert!(!recovered.crashed);
    assert_eq!(
        spool.all().await,
        [small.clone(), large.clone(), kept.clone()]
    );
    assert_eq!(spool.octets(small.id).await, content(small.id, 500));
    assert_eq!(spool.octets(large.id).await, content(large.id, 100_000));
    assert_eq!(spool.envelope(kept.id).await.unwrap(), Some(kept));
    assert_eq!(spool.envelope(gone.id).await.unwrap(), None);
    assert!(spool.content(gone.id).await.unwrap().is_none());
    let history = spool.history(&Lookup::Id(gone.id), 10).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].envelope, delivered(gone));
    assert!(spool.next_id() > large.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_never_have_one_spool() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let second = Spool::open(options(directory.path()), Clock::system());
    assert!(matches!(second.err(), Some(SpoolError::InUse { .. })));
    spool.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_was_not_finished_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut writer = spool.new_content(None);
    for _ in 0..100 {
        writer.write(&[b'x'; 1000]).await.unwrap();
    }
    let large = || {
        std::fs::read_dir(directory.path().join("large"))
            .unwrap()
            .count()
    };
    assert_eq!(large(), 1);
    assert_eq!(writer.len(), 100_000);
    drop(writer);
    assert_eq!(large(), 0);
    let mut writer = spool.new_content(Some(1_000_000));
    writer.write(b"short after all").await.unwrap();
    let content = writer.finish().await.unwrap();
    assert_eq!(content.peek(6, 5).unwrap(), b"after");
    drop(content);
    assert_eq!(large(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_beyond_the_buffers_go_to_files_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions {
        buffer_bytes: 10_000,
        ..options(directory.path())
    };
    let (spool, _) = Spool::open(options, Clock::system()).unwrap();
    let mut writers = Vec::new();
    for _ in 0..5 {
        let id = spool.next_id();
        let mut writer = spool.new_content(None);
        for chunk in content(id, 4_000).chunks(700) {
            writer.write(chunk).await.unwrap();
        }
        writers.push((id, writer));
    }
    let large = || {
        std::fs::read_dir(directory.path().join("large"))
            .unwrap()
            .count()
    };
    assert_eq!(large(), 3);
    for (id, writer) in writers {
        let finished = writer.finish().await.unwrap();
        let envelope = envelope(id, "ann@example.org", &["bob@example.net"]);
        spool.commit(envelope.clone(), finished).await.unwrap();
        assert_eq!(spool.octets(id).await, content(id, 4_000));
        spool.finish(&envelope, 1).await;
    }
    spool.until_complete().await.unwrap();
    assert_eq!(large(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_short_while_much_passes_through() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let stays = spool.accept("ann@example.org", 700).await;
    let held_back = spool.accept("ann@example.org", 30_000).await;
    for number in 0..400 {
        let passes = spool.accept("ann@example.org", 1_000).await;
        spool.finish(&passes, number).await;
    }
    for _ in 0..1_500 {
        let status = spool.status().await;
        if status.log_bytes <= 2 * status.live_bytes + 4 * (16 << 10) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // A settlement is answered before the index, and so the counts, follow.
    spool.until_complete().await.unwrap();
    let status = spool.status().await;
    assert!(
        status.log_bytes <= 2 * status.live_bytes + 4 * (16 << 10),
        "{status:?}"
    );
    assert_eq!(status.ready.messages, 2);
    assert_eq!(spool.octets(stays.id).await, content(stays.id, 700));
    // No segment goes while they are copied.
    compaction::until_short(&spool).await;
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    let (again, recovered) = open(copied.path());
    assert!(recovered.crashed);
    assert_eq!(again.all().await, [stays.clone(), held_back.clone()]);
    assert_eq!(again.octets(stays.id).await, content(stays.id, 700));
    assert_eq!(
        again.octets(held_back.id).await,
        content(held_back.id, 30_000)
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopped_clock_stands_still_while_the_disk_works() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::following_tokio("2026-11-21T20:00:00Z".parse().unwrap());
    let (spool, _) = Spool::open(options(directory.path()), clock).unwrap();
    let start = tokio::time::Instant::now();
    let work = async {
        for _ in 0..50 {
            let envelope = spool.accept("ann@example.org", 10_000).await;
            spool.envelope(envelope.id).await.unwrap().unwrap();
            spool.finish(&envelope, 1).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_millis(1), work)
        .await
        .unwrap();
    assert_eq!(start.elapsed(), std::time::Duration::ZERO);
}
