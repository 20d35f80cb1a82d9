//! Damage that must neither vanish nor take more with it than it hit.

use super::*;

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
