//! Damage that must neither vanish nor take more with it than it hit.

use super::super::durable::{SegmentName, Step, Store};
use super::compaction::{until, until_short};
use super::*;

const EIO: i32 = 5;

fn files(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn last_segment(path: &Path) -> PathBuf {
    let name = files(&path.join("log")).pop().unwrap();
    path.join("log").join(name)
}

/// Flips a bit of the first place that says this.
fn flip(path: &Path, words: &str) {
    let mut octets = std::fs::read(path).unwrap();
    let found = octets.windows(words.len());
    let place = found.into_iter().position(|it| it == words.as_bytes());
    octets[place.unwrap()] ^= 1;
    std::fs::write(path, octets).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_segment_of_which_nothing_can_be_read_is_kept_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.accept("ann@example.org", 500).await;
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    let segment = last_segment(copied.path());
    let length = std::fs::metadata(&segment).unwrap().len();
    std::fs::write(&segment, vec![0; length as usize]).unwrap();
    let (again, recovered) = open(copied.path());
    assert_eq!(recovered.damaged_records, 1);
    assert_eq!(files(&copied.path().join("corrupt")).len(), 1);
    again.accept("ann@example.org", 500).await;
    drop(again);
    let (again, recovered) = open(copied.path());
    assert_eq!(recovered.damaged_records, 0, "it is said once");
    assert_eq!(again.all().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_was_only_begun_is_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let kept = spool.accept("ann@example.org", 500).await;
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    let begun = last_segment(copied.path()).with_extension("new");
    std::fs::write(&begun, b"half a checkpoint").unwrap();
    let (again, recovered) = open(copied.path());
    assert_eq!(recovered.damaged_records, 0);
    assert!(!begun.exists());
    assert_eq!(again.all().await, [kept]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_does_not_cost_the_large_content_that_it_named() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.accept("ann@example.org", 500).await;
    let large = spool.accept("eve@example.org", 100_000).await;
    // The very last record could as well be one that a power cut tore.
    spool.accept("ann@example.org", 500).await;
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    flip(&last_segment(copied.path()), "eve@example.org");
    let (again, _) = open(copied.path());
    assert_eq!(again.all().await.len(), 2);
    assert_eq!(files(&copied.path().join("large")), Vec::<String>::new());
    let corrupt = files(&copied.path().join("corrupt"));
    let kept = corrupt.iter().find(|it| it.starts_with("large-")).unwrap();
    let octets = std::fs::read(copied.path().join("corrupt").join(kept)).unwrap();
    assert_eq!(octets, content(large.id, 100_000));
    assert_eq!(corrupt.len(), 2, "and the record: {corrupt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_while_running_is_copied_before_its_segment_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let words_lost = spool.accept("eve@example.org", 500).await;
    let content_lost = spool.accept("ann@example.org", 500).await;
    let stays = spool.accept("ann@example.org", 500).await;
    spool.until_complete().await.unwrap();
    let first = last_segment(directory.path());
    flip(&first, "eve@example.org");
    flip(&first, &format!("{}\r\n", content_lost.id));
    for number in 0..400 {
        let passes = spool.accept("ann@example.org", 1_000).await;
        spool.finish(&passes, number).await;
        if !first.exists() {
            break;
        }
    }
    for _ in 0..1_500 {
        if !first.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!first.exists());
    // The one whose words are damaged, and the one whose content is.
    assert_eq!(files(&directory.path().join("corrupt")).len(), 2);
    let left = spool.all().await;
    assert!(left.iter().all(|it| it.id != words_lost.id));
    assert!(left.contains(&stays));
    let held = left.iter().find(|it| it.id == content_lost.id).unwrap();
    assert!(
        matches!(&held.state, State::Held(it) if it.reason == HoldReason::Damaged),
        "{held:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_goes_only_when_its_damage_could_be_copied() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.accept("eve@example.org", 500).await;
    spool.until_complete().await.unwrap();
    let first = last_segment(directory.path());
    flip(&first, "eve@example.org");
    let corrupt = directory.path().join("corrupt");
    std::fs::remove_dir(&corrupt).unwrap();
    for number in 0..200 {
        let passes = spool.accept("ann@example.org", 1_000).await;
        spool.finish(&passes, number).await;
    }
    assert!(first.exists());
    let octets = std::fs::read(&first).unwrap();
    std::fs::create_dir(&corrupt).unwrap();
    until("the segment is gone", async || {
        // The spool looks when something is written.
        spool.note("a", "b", None).await.unwrap();
        !first.exists()
    })
    .await;
    let copies = files(&corrupt);
    assert_eq!(copies.len(), 1, "{copies:?}");
    let copied = std::fs::read(corrupt.join(&copies[0])).unwrap();
    assert!(octets.windows(copied.len()).any(|it| it == copied));
}

#[test]
fn half_a_copy_of_damage_neither_passes_for_one_nor_blocks_it() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _lock) = Store::open(directory.path()).unwrap();
    let name = SegmentName { number: 7, mark: 9 };
    let octets: Vec<u8> = (0..200_000u32).map(|it| it as u8).collect();
    let file = directory.path().join("a file");
    std::fs::write(&file, &octets).unwrap();
    let file = std::fs::File::open(file).unwrap();
    let copy = directory.path().join("corrupt/0000000000000007-00000003");
    store.faults.fail(Step::SyncLarge, 0, 1, EIO);
    assert!(store.save_corrupt(name, &file, 3, 150_000).is_err());
    assert!(!copy.exists());
    assert!(store.save_corrupt(name, &file, 3, 150_000).unwrap());
    assert_eq!(std::fs::read(&copy).unwrap(), octets[3..150_003]);
    assert!(!store.save_corrupt(name, &file, 3, 150_000).unwrap());
    assert_eq!(files(&directory.path().join("corrupt")).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_does_not_read_ends_the_open_and_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut waiting = Vec::new();
    for _ in 0..30 {
        waiting.push(spool.accept("ann@example.org", 1_000).await);
    }
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    let log = copied.path().join("log");
    let before = files(&log);
    assert!(before.len() > 1);
    let mut reads = 0;
    loop {
        let (store, _lock) = Store::open(copied.path()).unwrap();
        let store = std::sync::Arc::new(store);
        store.faults.fail(Step::Read, reads, 1, EIO);
        match recover::open(&store) {
            Err(SpoolError::Unreadable { .. }) => assert_eq!(files(&log), before),
            Err(error) => panic!("{error}"),
            // That was one more than are read.
            Ok(_) => break,
        }
        reads += 1;
    }
    assert!(reads > 2, "{reads}");
    assert_eq!(files(&copied.path().join("corrupt")), Vec::<String>::new());
    let (again, recovered) = open(copied.path());
    assert_eq!(recovered.damaged_records, 0);
    assert_eq!(again.all().await, waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_does_not_read_while_running_is_neither_damaged_nor_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let stays = spool.accept("eve@example.org", 500).await;
    spool.close().await.unwrap();
    // Whoever looks into an index as it was left opens the segment, too.
    std::fs::remove_dir_all(directory.path().join("index")).unwrap();
    let (spool, _) = open(directory.path());
    let first = segments(directory.path()).remove(0);
    spool.0.store.faults.fail(Step::Read, 0, u32::MAX, EIO);
    let unread = spool.content(stays.id).await;
    assert!(matches!(unread, Err(SpoolError::Unreadable { .. })));
    for number in 0..200 {
        let passes = spool.accept("ann@example.org", 1_000).await;
        spool.finish(&passes, number).await;
    }
    assert!(first.exists());
    spool.close().await.unwrap();
    let (spool, _) = open(directory.path());
    until_short(&spool).await;
    assert_eq!(spool.all().await, std::slice::from_ref(&stays));
    assert_eq!(spool.octets(stays.id).await, content(stays.id, 500));
    assert_eq!(spool.status().await.damaged_records, 0);
    assert_eq!(
        files(&directory.path().join("corrupt")),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_words_go_bad_while_running_is_held_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let lost = spool.accept("eve@example.org", 500).await;
    let fine = spool.accept("ann@example.org", 500).await;
    spool.until_complete().await.unwrap();
    flip(&last_segment(directory.path()), "eve@example.org");
    let read = spool.envelope(lost.id).await;
    assert!(matches!(read, Err(SpoolError::Damaged { .. })), "{read:?}");
    let status = spool.status().await;
    assert_eq!(status.damaged_records, 1);
    assert_eq!((status.ready.messages, status.held.messages), (1, 1));
    assert_eq!(files(&directory.path().join("corrupt")).len(), 1);
    let flow = FlowKey::of(&lost);
    assert_eq!(spool.ready(&flow, QueueId::MIN, 9).await.unwrap(), []);
    let everything = Filter::default();
    let page = spool.list(&everything, QueueId::MIN, 9).await.unwrap();
    assert_eq!(page.messages, [fine]);
    let shown: Vec<_> = page.unreadable.iter().map(|it| (it.id, &it.flow)).collect();
    assert_eq!(shown, [(lost.id, &flow)]);

    // What can be read after all waits for a person, who may release it.
    flip(&last_segment(directory.path()), "dve@example.org");
    let back = spool.envelope(lost.id).await.unwrap().unwrap();
    assert_eq!(back.from, lost.from);
    assert!(matches!(&back.state, State::Held(it) if it.reason == HoldReason::Damaged));
    assert_eq!(spool.envelope(lost.id).await.unwrap(), Some(back));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_since_the_last_ledger_stays_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.checkpoint_ledger(b"one".to_vec());
    for number in 0..200 {
        let passes = spool.accept("ann@example.org", 1_000).await;
        spool.finish(&passes, number).await;
    }
    spool.until_complete().await.unwrap();
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    let (_, recovered) = open(copied.path());
    assert_eq!(recovered.ledger.as_deref(), Some(&b"one"[..]));
    assert_eq!(recovered.later.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_damaged_is_shown_and_called_lost_unless_the_log_has_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for grant in 0..60 {
        let waits = spool.accept("ann@example.org", 1_000).await;
        let lease = Lease {
            relay: "own".into(),
            at: moment(),
            items: vec![Leased {
                grant,
                id: waits.id,
                recipients: 1,
                wire_bytes: 105,
            }],
        };
        spool.lease(lease).await.unwrap();
        spool.checkpoint_ledger(b"the ledger".to_vec());
    }
    spool.until_complete().await.unwrap();
    let damaged = |first_segments: usize| {
        let copied = tempfile::tempdir().unwrap();
        copy_log(directory.path(), copied.path());
        let segments = segments(copied.path());
        for segment in &segments {
            let mut octets = std::fs::read(segment).unwrap();
            let found = octets.windows(10).position(|it| it == b"the ledger");
            if let Some(place) = found {
                octets[place] ^= 1;
                std::fs::write(segment, octets).unwrap();
            }
        }
        for segment in &segments[..first_segments] {
            std::fs::remove_file(segment).unwrap();
        }
        copied
    };
    let first = segments(directory.path()).remove(0);
    assert!(first.to_str().unwrap().contains("0000000000000001-"));
    for (first_segments, is_lost) in [(0, false), (1, true)] {
        let copied = damaged(first_segments);
        let (_, recovered) = open(copied.path());
        assert_eq!(recovered.ledger, None);
        assert_eq!(recovered.ledger_lost, is_lost);
        assert!(recovered.damaged_records > 0);
        assert_eq!(recovered.later.len() == 60, !is_lost);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_cannot_be_written_now_is_written_later() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let early = spool.accept("ann@example.org", 500).await;
    let now = Clock::system().now();
    let days = [now, now + jiff::SignedDuration::from_hours(24)].map(|it| {
        let date = it.to_zoned(jiff::tz::TimeZone::UTC).date();
        directory.path().join(format!("history/{date}.log"))
    });
    // Nothing can be appended to a folder.
    days.iter().for_each(|it| std::fs::create_dir(it).unwrap());
    spool.finish(&early, 1).await;
    spool.until_complete().await.unwrap();
    days.iter().for_each(|it| std::fs::remove_dir(it).unwrap());
    let late = spool.accept("ann@example.org", 500).await;
    spool.finish(&late, 2).await;
    spool.until_complete().await.unwrap();
    for envelope in [&early, &late] {
        let found = spool.history(&Lookup::Id(envelope.id), 9).await.unwrap();
        assert_eq!(found.len(), 1, "{}", envelope.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_does_not_use_up_the_reserve() {
    let directory = tempfile::tempdir().unwrap();
    let options = SpoolOptions {
        min_free: Reserve::Bytes(u64::MAX),
        ..options(directory.path())
    };
    let (spool, _) = Spool::open(options, Clock::system()).unwrap();
    let mut upload = spool.new_content(None);
    let refused = upload.write(&[b'x'; 100_000]).await;
    assert!(
        matches!(refused, Err(SpoolError::Full { .. })),
        "{refused:?}"
    );
    drop(upload);
    assert_eq!(files(&directory.path().join("large")), Vec::<String>::new());
}
