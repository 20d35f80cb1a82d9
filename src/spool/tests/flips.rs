//! What a flipped bit or a broken file leaves.

use super::*;

/// Every so many octets one is flipped; a long run says 1 (`PENSTOCK_FLIP_STEP`):
///
/// ```text
/// PENSTOCK_FLIP_STEP=1 cargo test --lib one_flipped_byte -- --nocapture
/// ```
fn flip_step() -> usize {
    std::env::var("PENSTOCK_FLIP_STEP").map_or(97, |it| it.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_byte_anywhere_costs_at_most_its_record_which_is_kept_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut left = Vec::new();
    for number in 0..12u64 {
        let envelope = spool.accept("ann@example.org", 200).await;
        if number % 4 == 0 {
            spool.finish(&envelope, number).await;
        } else {
            left.push(envelope);
        }
    }
    spool.close().await.unwrap();
    let segment = last_segment(directory.path());
    let octets = std::fs::read(&segment).unwrap();
    let name = segment.file_name().unwrap();
    let (mut hit, mut flips) = (0, 0);
    for place in (0..octets.len()).step_by(flip_step()) {
        // In memory where there is such a folder: there are many.
        let copied = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let copied = copied.unwrap();
        copy_log(directory.path(), copied.path());
        let mut flipped = octets.clone();
        flipped[place] ^= 1 << (place % 8);
        std::fs::write(copied.path().join("log").join(name), flipped).unwrap();
        let (again, _) = open(copied.path());
        let all = again.all().await;
        let missing = left.iter().filter(|it| !all.contains(it)).count();
        // A finished message whose end was damaged comes back; if the damage leaves
        // its name, it is held.
        let back = all.iter().filter(|it| !left.contains(it)).count();
        assert!(missing <= 1 && back <= 1, "{place}: {missing} {back}");
        let mut damaged = missing;
        for envelope in &all {
            match again.content(envelope.id).await {
                Ok(content_of) => {
                    let octets = content_of.unwrap().read(usize::MAX).await.unwrap();
                    assert_eq!(octets, content(envelope.id, 200));
                }
                Err(SpoolError::Damaged { .. }) => {
                    damaged += 1;
                    let now = again.envelope(envelope.id).await.unwrap().unwrap();
                    let held = matches!(&now.state, State::Held(hold) if hold.reason == HoldReason::Damaged);
                    assert!(held, "{place}: {now:?}");
                }
                Err(error) => panic!("{place}: {error}"),
            }
        }
        assert!(damaged <= 1, "{place}");
        let shown = again.status().await.damaged_records;
        let kept = std::fs::read_dir(copied.path().join("corrupt")).unwrap();
        assert_eq!(kept.count() as u64, shown, "{place}");
        assert!(shown <= 1, "{place}");
        if damaged + back > 0 {
            assert_eq!(shown, 1, "{place}: nobody is told");
        }
        hit += shown;
        flips += 1;
    }
    println!(
        "{flips} of {} octets flipped, {hit} damaged a record",
        octets.len()
    );
    assert!(hit > flips / 2, "{hit} of {flips}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_looks_like_a_log_is_no_log() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let forged = spool.accept("eve@example.org", 100).await;
    // Even the true octets of a segment, sent as a message.
    let octets = std::fs::read(last_segment(directory.path())).unwrap();
    let carrier = envelope(spool.next_id(), "eve@example.org", &["bob@example.net"]);
    spool
        .commit(carrier.clone(), octets.clone().into())
        .await
        .unwrap();
    let after = spool.accept("ann@example.org", 100).await;
    drop(spool);
    // The carrier's header is damaged: the search for the next frame goes through
    // its content.
    let segment = last_segment(directory.path());
    let mut damaged = std::fs::read(&segment).unwrap();
    damaged[octets.len() + 9] ^= 255;
    std::fs::write(&segment, damaged).unwrap();
    std::fs::remove_dir_all(directory.path().join("index")).unwrap();
    let (again, recovered) = open(directory.path());
    assert_eq!(again.all().await, [forged, after]);
    assert_eq!(recovered.damaged_records, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_index_is_read_from_the_log_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let envelope = spool.accept("ann@example.org", 300).await;
    spool.close().await.unwrap();
    for garbage in ["db", "conf"] {
        std::fs::write(directory.path().join("index").join(garbage), "garbage").unwrap();
        std::fs::write(directory.path().join("index/snap.0.generating"), "x").unwrap();
        let (again, _) = open(directory.path());
        assert_eq!(
            again.all().await,
            std::slice::from_ref(&envelope),
            "{garbage}"
        );
        again.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_whose_folder_was_replaced_under_it_harms_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut waiting = vec![spool.accept("ann@example.org", 300).await];
    std::fs::remove_dir_all(directory.path().join("index")).unwrap();
    std::fs::write(directory.path().join("index"), "no folder").unwrap();
    for number in 0..50 {
        waiting.push(spool.accept("ann@example.org", 300).await);
        let gone = spool.accept("ann@example.org", 300).await;
        spool.finish(&gone, number).await;
    }
    assert_eq!(spool.all().await, waiting);
    // Whether the close is in good order or not, the next open has everything.
    spool.close().await.unwrap();
    let (again, _) = open(directory.path());
    assert_eq!(again.all().await, waiting);
    assert_eq!(again.status().await.damaged_records, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_version_in_an_old_segment_ends_the_spool_and_is_not_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for _ in 0..30 {
        spool.accept("ann@example.org", 1_000).await;
    }
    // Opening reads the log from the ledger of the last segment on.
    spool.checkpoint_ledger(b"a ledger".to_vec());
    for _ in 0..30 {
        spool.accept("ann@example.org", 1_000).await;
    }
    spool.close().await.unwrap();
    std::fs::remove_dir_all(directory.path().join("index")).unwrap();
    make_newer(&segments(directory.path())[0]);
    let options = SpoolOptions {
        at_once_bytes: 0,
        ..options(directory.path())
    };
    let (spool, _) = Spool::open(options, Clock::system()).unwrap();
    assert!(matches!(spool.fatal().await, SpoolError::Newer { .. }));
    spool.close().await.ok();
}

/// Makes the first record of a segment one of a later version, checksum and all.
fn make_newer(segment: &Path) {
    let name = segment.file_name().unwrap().to_str().unwrap();
    let number = u64::from_str_radix(&name[..16], 16).unwrap();
    let mut octets = std::fs::read(segment).unwrap();
    octets[8] = 200;
    let sum = crc32c::crc32c(&number.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &0u64.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &octets[..40]);
    octets[40..44].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(segment, octets).unwrap();
}
