//! What a kill leaves.

use super::*;

/// A leased message whose final dot went out.
async fn with_a_dot(spool: &Spool) -> Envelope {
    let envelope = spool.accept("ann@example.org", 300).await;
    spool.lease(lease(7, envelope.id)).await.unwrap();
    spool.final_dot(envelope.id, vec![0]).await.unwrap();
    envelope
}

fn lease(grant: u64, id: QueueId) -> Lease {
    Lease {
        relay: "own".into(),
        at: moment(),
        items: vec![Leased {
            grant,
            id,
            recipients: 1,
            wire_bytes: 105,
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_found_again_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut left = Vec::new();
    for number in 0..200 {
        let envelope = spool.accept("ann@example.org", 50 * number).await;
        if number % 3 == 0 {
            spool.finish(&envelope, number as u64).await;
        } else {
            left.push(envelope);
        }
    }
    spool.until_complete().await.unwrap();
    for with_index in [true, false] {
        let copied = tempfile::tempdir().unwrap();
        match with_index {
            true => copy(directory.path(), copied.path()),
            false => copy_log(directory.path(), copied.path()),
        }
        for _ in 0..2 {
            let (again, recovered) = open(copied.path());
            assert!(recovered.crashed);
            assert_eq!(recovered.damaged_records, 0);
            assert_eq!(again.all().await, left);
            assert_eq!(again.status().await.ready, again.counted().await);
            for envelope in left.iter().step_by(17) {
                let octets = again.octets(envelope.id).await;
                assert_eq!(octets, content(envelope.id, octets.len()));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dot_without_a_reply_is_in_doubt_and_waits() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let doubtful = with_a_dot(&spool).await;
    let clear = with_a_dot(&spool).await;
    spool.finish(&clear, 7).await;
    // The dot must be remembered over any number of segments.
    for _ in 0..50 {
        spool.accept("eve@example.org", 1_000).await;
    }
    spool.until_complete().await.unwrap();
    let copied = tempfile::tempdir().unwrap();
    copy(directory.path(), copied.path());
    let (again, recovered) = open(copied.path());
    assert_eq!(recovered.in_doubt, [doubtful.id]);
    let found = again.envelope(doubtful.id).await.unwrap().unwrap();
    assert_eq!(found.state, State::Waiting { not_before: None });
    assert!(found.recipients[0].last.as_ref().unwrap().in_doubt);
    drop(again);
    let (_, recovered) = open(copied.path());
    assert_eq!(recovered.in_doubt, [], "it is marked once");
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_and_notes_and_the_ledger_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let one = spool.accept("ann@example.org", 300).await;
    let two = spool.accept("ann@example.org", 300).await;
    spool.lease(lease(1, one.id)).await.unwrap();
    spool.checkpoint_ledger(b"one".to_vec());
    spool.lease(lease(2, two.id)).await.unwrap();
    spool.finish(&one, 1).await;
    let paused = serde_json::json!({"since": 1, "words": "535 no"});
    spool
        .note("relay", "own", Some(paused.clone()))
        .await
        .unwrap();
    spool.note("relay", "other", Some(1.into())).await.unwrap();
    spool.note("relay", "other", None).await.unwrap();
    for _ in 0..50 {
        spool.accept("eve@example.org", 1_000).await;
    }
    let copied = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let (again, recovered) = match round {
            0 => {
                copy(directory.path(), copied.path());
                open(copied.path())
            }
            _ => open(copied.path()),
        };
        assert_eq!(recovered.ledger.as_deref(), Some(&b"one"[..]), "{round}");
        assert_eq!(
            recovered.later,
            [
                LedgerEvent::Leased(lease(2, two.id)),
                LedgerEvent::Released {
                    grant: 1,
                    released: Released::Sent { at: moment() }
                }
            ]
        );
        assert_eq!(recovered.open_leases, [lease(2, two.id)]);
        assert_eq!(recovered.last_grant, 2);
        assert_eq!(
            recovered.notes.into_iter().collect::<Vec<_>>(),
            [(("relay".into(), "own".into()), paused.clone())]
        );
        if round == 1 {
            again.close().await.unwrap();
        }
    }
    let (again, _) = open(copied.path());
    again.checkpoint_ledger(b"two".to_vec());
    again.close().await.unwrap();
    let (_, recovered) = open(copied.path());
    assert_eq!(recovered.ledger.as_deref(), Some(&b"two"[..]));
    assert_eq!((recovered.later, recovered.open_leases), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_of_any_length_costs_only_what_it_held() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let first = spool.accept("ann@example.org", 300).await;
    let second = spool.accept("ann@example.org", 300).await;
    let segment = last_segment(directory.path());
    let length = std::fs::metadata(&segment).unwrap().len();
    for (kept, zeros) in (1..1_500)
        .step_by(97)
        .flat_map(|it| [(it, false), (it, true)])
    {
        let copied = tempfile::tempdir().unwrap();
        copy_log(directory.path(), copied.path());
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(last_segment(copied.path()))
            .unwrap();
        file.set_len(length - kept).unwrap();
        if zeros {
            file.set_len(length).unwrap();
        }
        let (again, recovered) = open(copied.path());
        assert_eq!(recovered.damaged_records, 0);
        let all = again.all().await;
        assert!(all.is_empty() || all[0] == first, "{kept}");
        assert!(all.len() < 2, "{kept} {all:?}");
        let third = again.accept("ann@example.org", 10).await;
        drop(again);
        let (again, recovered) = open(copied.path());
        assert_eq!(recovered.damaged_records, 0);
        assert_eq!(again.all().await.len(), all.len() + 1);
        assert_eq!(again.octets(third.id).await, content(third.id, 10));
    }
    drop(second);
}

fn last_segment(path: &Path) -> PathBuf {
    let mut segments: Vec<_> = std::fs::read_dir(path.join("log"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    segments.sort();
    segments.pop().unwrap()
}
