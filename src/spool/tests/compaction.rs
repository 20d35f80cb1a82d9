//! Giving disk space back while messages settle, change and come.

use std::collections::HashSet;
use std::time::Duration;

use super::super::durable::Step;
use super::super::frame::Frame;
use super::super::record::{ContentAt, Item, Messages};
use super::*;

const EIO: i32 = 5;

/// How long anything may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a condition that the spool reaches by itself.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..12_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Waits until the log is as short as it is kept.
pub async fn until_short(spool: &Spool) {
    until("the log is short", async || {
        // After a failure the spool tries again when something is written.
        spool.note("a", "b", None).await.unwrap();
        let status = spool.status().await;
        status.log_bytes <= 2 * status.live_bytes + 4 * (16 << 10)
    })
    .await;
    // Nothing is written any more: the last compaction ends, and no other begins.
    until("no compaction", async || {
        drop(spool.0.log());
        !spool.0.compacting.load(Ordering::Acquire)
    })
    .await;
}

/// A message as a compaction rewrites it that has just read this envelope.
fn moved(envelope: &Envelope, octets: &[u8]) -> Write {
    let record = Record::Messages(Messages {
        kind: Kind::Moved,
        at: envelope.accepted,
        by: String::new(),
        released: None,
        items: vec![Item {
            envelope: envelope.clone(),
            content: Some(ContentAt {
                file: None,
                offset: 0,
                length: octets.len() as u64,
                checksum: crc32c::crc32c(octets),
            }),
        }],
    });
    let frame = Frame::new(&record, &[octets]);
    Write::of(Urgency::Move, vec![(frame, record)], Vec::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_settles_while_it_is_moved_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let leaving = spool.accept("ann@example.org", 100).await;
    let kept = spool.accept("ann@example.org", 100).await;
    spool.until_complete().await.unwrap();
    let engine = spool.0.clone();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        // A compaction has read both as waiting.
        let mut log = engine.log();
        log.touched = Some(HashSet::new());
        let wait = |queued| {
            let begun = engine.clock.uptime();
            while engine.queued() != queued {
                assert!(engine.clock.uptime() < begun + PATIENCE, "never {queued:?}");
                std::thread::yield_now();
            }
        };
        wait(None);
        // A group of its own, taken already, so that the next writes share theirs.
        let first = spool.clone();
        let first = runtime.spawn(async move { first.note("a", "b", None).await });
        wait(Some(0));
        let (settling, gone) = (spool.clone(), leaving.clone());
        let settling = runtime.spawn(async move { settling.finish(&gone, 1).await });
        wait(Some(1));
        let hold = Change {
            envelope: held(kept.clone(), HoldReason::Administrator),
            by: "jan".into(),
            reports: Vec::new(),
        };
        let holding = spool.clone();
        let holding = runtime.spawn(async move { holding.change(vec![hold]).await });
        wait(Some(2));
        let mut moves = Vec::new();
        for envelope in [&leaving, &kept] {
            let (engine, write) = (engine.clone(), moved(envelope, b"content"));
            moves.push(runtime.spawn_blocking(move || engine.write_blocking(write)));
            wait(Some(2 + moves.len()));
        }
        drop(log);
        runtime.block_on(async {
            first.await.unwrap().unwrap();
            settling.await.unwrap();
            holding.await.unwrap().unwrap();
            for write in moves {
                write.await.unwrap().unwrap();
            }
        });
    });
    let kept = held(kept, HoldReason::Administrator);
    assert_eq!(spool.all().await, std::slice::from_ref(&kept));
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    assert_eq!(open(copied.path()).0.all().await, [kept]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_settles_is_held_or_deleted_under_compaction_stays_so() {
    let directory = tempfile::tempdir().unwrap();
    let small = SpoolOptions {
        segment_bytes: 4 << 10,
        ..options(directory.path())
    };
    let (spool, _) = Spool::open(small, Clock::system()).unwrap();
    let clients = (0..8).map(|client| {
        let spool = spool.clone();
        tokio::runtime::Handle::current().spawn(async move {
            let mut left = Vec::new();
            for number in 0..100 {
                let length = if number % 10 == 0 { 9_000 } else { 400 };
                let one = spool.accept("ann@example.org", length).await;
                if number % 4 > 0 {
                    spool.finish(&one, client * 1_000 + number).await;
                    continue;
                }
                let change = |envelope| Change {
                    envelope,
                    by: "jan".into(),
                    reports: Vec::new(),
                };
                let kept = held(one, HoldReason::Administrator);
                spool.change(vec![change(kept.clone())]).await.unwrap();
                left.push(kept);
                // Later, when its first segment is the oldest.
                if left.len() > 6 {
                    let gone = delivered(left.remove(0));
                    spool.change(vec![change(gone)]).await.unwrap();
                }
            }
            left
        })
    });
    let mut left = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        left.extend(client.await.unwrap());
    }
    left.sort_by_key(|it| it.id);
    until_short(&spool).await;
    assert!(spool.0.library.segments(0)[0].0.number > 20, "it compacted");
    assert_eq!(spool.all().await, left);
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    assert_eq!(open(copied.path()).0.all().await, left);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_any_more_once_a_spool_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let stays = spool.accept("ann@example.org", 500).await;
    let first = last_segment(directory.path());
    let (reached, go_on) = spool.0.store.faults.stall(Step::Remove);
    for number in 0..200 {
        let passes = spool.accept("ann@example.org", 1_000).await;
        spool.finish(&passes, number).await;
    }
    tokio::task::block_in_place(|| reached.recv_timeout(PATIENCE).unwrap());
    // A compaction is about to remove the oldest segment.
    let mut progress = spool.0.progress.subscribe();
    let closing = tokio::runtime::Handle::current().spawn(spool.close());
    progress.wait_for(|it| it.closed).await.unwrap();
    // Nobody else gets it before that is done; a close that did not wait would be long over.
    for _ in 0..20 {
        let opened = Spool::open(options(directory.path()), Clock::system());
        assert!(matches!(opened.err(), Some(SpoolError::InUse { .. })));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    go_on.send(()).unwrap();
    closing.await.unwrap().unwrap();
    assert!(!first.exists());
    let (again, recovered) = open(directory.path());
    assert!(!recovered.crashed);
    assert_eq!(again.all().await, [stays]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_cannot_be_removed_keeps_what_buries_its_messages() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let stays = spool.accept("ann@example.org", 500).await;
    let first = last_segment(directory.path());
    spool.0.store.faults.fail(Step::Remove, 0, 2, EIO);
    for number in 0..200 {
        let passes = spool.accept("ann@example.org", 1_000).await;
        spool.finish(&passes, number).await;
    }
    until_short(&spool).await;
    assert!(!first.exists(), "it went when it could");
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    assert_eq!(open(copied.path()).0.all().await, [stays]);
}
