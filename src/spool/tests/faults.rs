//! Disks that are full or broken.

use super::super::durable::Step;
use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

async fn try_accept(spool: &Spool, length: usize) -> Result<Envelope, SpoolError> {
    let envelope = envelope(spool.next_id(), "ann@example.org", &["bob@example.net"]);
    let content = content(envelope.id, length).into();
    spool.commit(envelope.clone(), content).await?;
    Ok(envelope)
}

/// What the log says to another process.
async fn reread(path: &Path) -> Vec<Envelope> {
    let copied = tempfile::tempdir().unwrap();
    copy_log(path, copied.path());
    let (again, recovered) = open(copied.path());
    assert_eq!(recovered.damaged_records, 0);
    again.all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_mail_keeps_nothing_and_heals_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let faults = &spool.0.store.faults;
    let mut accepted = vec![spool.accept("ann@example.org", 500).await];
    for cut_back_fails in [false, true] {
        faults.disk_room(Some(700));
        if cut_back_fails {
            faults.fail(Step::Truncate, 0, 1, EIO);
        }
        assert!(try_accept(&spool, 600).await.is_err());
        assert!(spool.status().await.failing.is_some());
        assert!(try_accept(&spool, 600).await.is_err());
        assert_eq!(reread(directory.path()).await, accepted);
        faults.disk_room(None);
        accepted.push(try_accept(&spool, 600).await.unwrap());
        assert_eq!(spool.status().await.failing, None);
        assert_eq!(reread(directory.path()).await, accepted);
    }
    assert_eq!(spool.all().await, accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_a_segment_still_takes_what_the_old_one_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.0.store.faults.fail(Step::Create, 0, u32::MAX, ENOSPC);
    let mut accepted = Vec::new();
    for _ in 0..20 {
        accepted.push(spool.accept("ann@example.org", 2_000).await);
    }
    assert_eq!(reread(directory.path()).await, accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_opens_on_a_disk_without_one_free_block_and_heals_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (spool, _) = open(path);
    let mut waiting = vec![spool.accept("ann@example.org", 500).await];
    spool.close().await.unwrap();
    for closes in [true, false] {
        let (store, lock) = Store::open(path).unwrap();
        store.faults.fail(Step::Create, 0, 3, ENOSPC);
        let opened = Spool::over(Arc::new(store), lock, options(path), Clock::system());
        let (spool, _) = opened.unwrap();
        assert_eq!(spool.all().await, waiting);
        assert!(try_accept(&spool, 500).await.is_err());
        if closes {
            spool.close().await.unwrap();
            continue;
        }
        assert!(spool.note("a", "b", None).await.is_err());
        waiting.push(try_accept(&spool, 500).await.unwrap());
        assert_eq!(spool.all().await, waiting);
        assert_eq!(reread(path).await, waiting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_every_promise() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let kept = spool.accept("ann@example.org", 100).await;
    spool.0.store.faults.fail(Step::Sync, 0, 1, EIO);
    let refused = try_accept(&spool, 100).await;
    assert!(refused.as_ref().is_err_and(SpoolError::is_fatal));
    assert!(spool.fatal().await.is_fatal());
    // The second sync would succeed, and mean nothing.
    assert!(try_accept(&spool, 100).await.is_err());
    assert!(spool.final_dot(kept.id, vec![0]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_content_that_cannot_be_written_is_refused_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let faults = &spool.0.store.faults;
    for step in [Step::Create, Step::WriteLarge, Step::SyncLarge, Step::Write] {
        faults.fail(step, 0, 1, ENOSPC);
        assert!(try_accept(&spool, 50_000).await.is_err(), "{step:?}");
        let large = std::fs::read_dir(directory.path().join("large")).unwrap();
        assert_eq!(large.count(), 0, "{step:?}");
    }
    let accepted = try_accept(&spool, 50_000).await.unwrap();
    assert_eq!(reread(directory.path()).await, [accepted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_kept_for_what_must_leave() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let waiting = spool.accept("ann@example.org", 100).await;
    spool.close().await.unwrap();
    let full = SpoolOptions {
        min_free: Reserve::Percent(100.0),
        ..options(directory.path())
    };
    let (spool, _) = Spool::open(full, Clock::system()).unwrap();
    let refused = try_accept(&spool, 100).await;
    assert!(matches!(refused, Err(SpoolError::Full { .. })));
    spool.finish(&waiting, 1).await;
    assert_eq!(spool.all().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_short_of_room_gets_back_what_finished_mail_used() {
    let directory = tempfile::tempdir().unwrap();
    // Far from two segments; short of room whatever is free.
    let options = SpoolOptions {
        segment_bytes: 64 << 20,
        ..options(directory.path())
    };
    let (spool, _) = Spool::open(options.clone(), Clock::system()).unwrap();
    let stays = spool.accept("ann@example.org", 500).await;
    for number in 0..300 {
        let passes = spool.accept("ann@example.org", 2_000).await;
        spool.finish(&passes, number).await;
    }
    // Once it is open again, the compaction may be faster than this test.
    let long = spool.status().await.log_bytes;
    spool.close().await.unwrap();
    let options = SpoolOptions {
        min_free: Reserve::Bytes(u64::MAX),
        ..options
    };
    let (spool, _) = Spool::open(options, Clock::system()).unwrap();
    assert!(long > 600_000, "{long}");
    assert!(try_accept(&spool, 10).await.is_err());
    for _ in 0..1_500 {
        if spool.status().await.log_bytes < 300_000 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let short = spool.status().await.log_bytes;
    assert!(short < 300_000, "{short} of {long}");
    assert_eq!(spool.all().await, [stays]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_not_all_fits_what_left_is_written_before_what_comes() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let leaving = spool.accept("ann@example.org", 100).await;
    // Both in one group: neither may be written while the log is held.
    let held_log = spool.0.log();
    let runtime = tokio::runtime::Handle::current();
    let (one, two) = (spool.clone(), spool.clone());
    let coming = runtime.spawn(async move { try_accept(&one, 6_000).await });
    let gone = leaving.clone();
    let going = runtime.spawn(async move { two.finish(&gone, 1).await });
    std::thread::sleep(std::time::Duration::from_millis(100));
    spool.0.store.faults.disk_room(Some(3_000));
    drop(held_log);
    assert!(coming.await.unwrap().is_err());
    going.await.unwrap();
    assert_eq!(reread(directory.path()).await, []);
}
