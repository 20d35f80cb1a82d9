//! An index that is missing, behind, or fails while the spool is used.

use std::sync::atomic::Ordering;

use super::super::durable::Step;
use super::super::index::{Consequences, Index};
use super::super::record::Position;
use super::super::recover::decode;
use super::super::scan::{Found, Scan};
use super::*;

/// A spool that reads its log in the background, however short it is.
fn open_at_once(path: &Path) -> (Spool, Recovered) {
    let options = SpoolOptions {
        at_once_bytes: 0,
        ..options(path)
    };
    Spool::open(options, Clock::system()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_accepted_while_the_index_is_read_and_the_status_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(spool.accept("ann@example.org", 60_000).await);
    }
    let gone = waiting.remove(7);
    spool.finish(&gone, 1).await;
    spool.close().await.unwrap();
    std::fs::remove_dir_all(directory.path().join("index")).unwrap();

    let (spool, recovered) = open_at_once(directory.path());
    assert_eq!(recovered.damaged_records, 0);
    spool.until_complete().await.unwrap();
    let stalled = spool.stall_rebuild();
    let handle = tokio::runtime::Handle::current();
    let (accepting, asking) = (spool.clone(), spool.clone());
    let accepted = handle.spawn(async move { accepting.accept("ann@example.org", 300).await });
    let status = handle.spawn(async move { asking.status().await });
    let (accepted, status) =
        tokio::task::block_in_place(|| handle.block_on(async { (accepted.await, status.await) }));
    waiting.push(accepted.unwrap());
    let rebuilding = status.unwrap().rebuilding.expect("it is being rebuilt");
    assert!(rebuilding.done_bytes <= rebuilding.all_bytes);
    assert!(!spool.is_complete());
    drop(stalled);

    // Who asks waits, and is answered in full.
    assert_eq!(spool.all().await, waiting);
    assert_eq!(spool.status().await.rebuilding, None);
    assert_eq!(spool.status().await.ready, spool.counted().await);
    let history = spool.history(&Lookup::Id(gone.id), 9).await.unwrap();
    assert_eq!(history.len(), 1, "it is not told twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_written_any_more_is_read_from_the_log_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut waiting = vec![spool.accept("ann@example.org", 300).await];
    let failing = spool.0.index().unwrap();
    failing.broken.store(true, Ordering::Relaxed);
    drop(failing);
    for _ in 0..20 {
        waiting.push(spool.accept("ann@example.org", 300).await);
    }
    assert_eq!(spool.all().await, waiting);
    assert_eq!(spool.status().await.ready, spool.counted().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_lost_an_entry_in_a_kill_is_read_from_the_log_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(spool.accept("ann@example.org", 300).await);
    }
    let gone = waiting.pop().unwrap();
    spool.finish(&gone, 1).await;
    spool.until_complete().await.unwrap();
    spool.0.index().unwrap().flush().unwrap();
    for is_lost in [false, true] {
        let copied = tempfile::tempdir().unwrap();
        copy(directory.path(), copied.path());
        {
            let db = sled::open(copied.path().join("index")).unwrap();
            assert_eq!(db.scan_prefix(b"m").count(), 19);
            let mut key = b"m".to_vec();
            key.extend_from_slice(&waiting[7].id.number().to_be_bytes());
            if is_lost {
                assert!(db.remove(&key).unwrap().is_some());
            }
            db.flush().unwrap();
        }
        let (again, _) = open(copied.path());
        let read = again.0.rebuilt.1.load(Ordering::Relaxed);
        assert_eq!(read > 1_000, is_lost, "{read} octets of the log were read");
        assert_eq!(again.all().await, waiting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kill_left_to_do_is_done_by_the_next_index_when_one_fails_before() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let doubtful = spool.accept("ann@example.org", 300).await;
    spool.until_complete().await.unwrap();
    // As if the index had failed before it came to this.
    let left = (doubtful.id, vec![0]);
    spool.0.afterwards.lock().unwrap().in_doubt.push(left);
    spool
        .0
        .index()
        .unwrap()
        .broken
        .store(true, Ordering::Relaxed);
    spool.accept("ann@example.org", 300).await;
    spool.until_complete().await.unwrap();
    let found = spool.envelope(doubtful.id).await.unwrap().unwrap();
    assert!(found.recipients[0].last.as_ref().unwrap().in_doubt);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_opens_and_accepts_though_no_index_can_be_made() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.accept("ann@example.org", 300).await;
    spool.until_complete().await.unwrap();
    drop(spool.0.set_index(None));
    // It belongs to somebody else, say.
    spool.0.store.faults.fail(Step::RemoveIndex, 0, 2, 1);
    let engine = spool.0.clone();
    let opened = tokio::task::spawn_blocking(move || {
        engine.open_index(false, Afterwards::default());
    });
    opened.await.unwrap();
    assert!(!spool.is_complete());
    spool.accept("ann@example.org", 300).await;
    spool.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_read_any_more_is_read_from_the_log_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let waiting = vec![spool.accept("ann@example.org", 300).await];
    spool.until_complete().await.unwrap();
    let failing = spool.0.index().unwrap();
    failing.broken.store(true, Ordering::Relaxed);
    drop(failing);
    let everything = Filter::default();
    let refused = spool.list(&everything, QueueId::MIN, 9).await;
    assert!(matches!(refused, Err(SpoolError::Index(_))), "{refused:?}");
    // Who asks again is answered, once there is another one.
    assert_eq!(spool.all().await, waiting);
    assert_eq!(spool.status().await.ready, spool.counted().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_made_in_a_hurry_is_nobodys_until_it_is_written_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for number in 0..200 {
        let from = format!("user{number}@example.org");
        let message = spool.accept(&from, 300).await;
        if number % 3 == 0 {
            spool.finish(&message, number).await;
        }
    }
    spool.until_complete().await.unwrap();
    let counted = spool.counted().await;
    let engine = &spool.0;
    let path = directory.path().join("another");
    let another = || Index::open(&path, 1 << 20, "boot".into()).unwrap();
    // What came of it, after so many messages.
    let made = |messages: usize, whole: bool| {
        std::fs::remove_dir_all(&path).ok();
        let index = another();
        index.hurry(true);
        let mut consequences = Consequences::default();
        let mut left = messages;
        'log: for (name, end) in engine.library.segments(0) {
            let mut scan = Scan::new(&engine.store, name, 0, end).unwrap();
            while let Some(Found::Frame {
                offset,
                header,
                words,
            }) = scan.next().unwrap()
            {
                let record = decode(&engine.store, name, &header, &words).unwrap();
                let place = |offset| Position {
                    segment: name.number,
                    offset,
                };
                let bytes = header.frame_bytes();
                let (at, next) = (place(offset), place(offset + bytes));
                let record = record.unwrap();
                let followed = index.follow(at, next, bytes, &record, &mut consequences);
                followed.unwrap();
                left -= 1;
                if left == 0 {
                    break 'log;
                }
            }
        }
        if whole {
            index.write().unwrap();
        }
        drop(index);
        another()
    };
    let cut_off = made(150, false);
    assert_eq!(cut_off.position(), None);
    assert_eq!(cut_off.written_in(), None);
    drop(cut_off);
    let whole = made(usize::MAX, true);
    assert!(whole.position().is_some() && whole.is_whole().unwrap());
    assert_eq!(whole.messages(), counted.messages);
}
