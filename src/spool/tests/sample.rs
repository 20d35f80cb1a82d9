//! Spools that earlier versions wrote, kept in `tests/data`: they must stay readable.
//!
//! A new record version gets a sample of its own, and the old ones stay:
//!
//! ```text
//! PENSTOCK_WRITE_SAMPLE=tests/data/spool-1 cargo test --lib spool::tests::sample
//! ```

use std::collections::BTreeSet;

use super::super::record::Kind;
use super::super::scan::{Found, Scan};
use super::*;

/// The day of the samples, so that their history is not over.
fn clock(boot: &str) -> Clock {
    Clock::following_tokio("2026-11-21T20:00:00Z".parse().unwrap()).on_boot(boot)
}

fn open_sample(path: &Path, boot: &str) -> (Spool, Recovered) {
    let options = SpoolOptions {
        segment_bytes: 2 << 10,
        ..options(path)
    };
    Spool::open(options, clock(boot)).unwrap()
}

/// Writes one: a message of every state, each named by its From, and every kind of record.
async fn write(path: &Path) {
    let (spool, _) = open_sample(path, "writer");
    let waits = spool.accept("waits@example.org", 300).await;
    spool.accept("large@example.org", 9_000).await;
    let mut later = spool.accept("later@example.org", 100).await;
    later.state = State::Waiting {
        not_before: Some("2026-11-21T21:00:00Z".parse().unwrap()),
    };
    let settled = |envelope, grant, released, reports| Settled {
        envelope,
        grant,
        released,
        reports,
    };
    spool
        .settle(settled(later, 1, Released::NotSent, Vec::new()))
        .await
        .unwrap();
    let mut failed = spool.accept("failed@example.org", 100).await;
    failed.recipients[0].status = RecipientStatus::Failed;
    let report = envelope(
        spool.next_id(),
        "report@example.org",
        &["failed@example.org"],
    );
    let words = content(report.id, 50);
    let sent = Released::Sent { at: moment() };
    spool
        .settle(settled(failed, 2, sent, vec![(report, words.into())]))
        .await
        .unwrap();
    spool.checkpoint_ledger(b"a ledger".to_vec());
    // Until the first segments are removed, and what waits was moved.
    let mut number = 10;
    while segments(path)[0]
        .to_str()
        .unwrap()
        .contains("/0000000000000001-")
    {
        let gone = spool.accept("gone@example.org", 400).await;
        spool.finish(&gone, number).await;
        spool.until_complete().await.unwrap();
        number += 1;
        assert!(number < 1_000, "no segment goes");
    }
    spool
        .note("relay", "own", Some(serde_json::json!({"since": 1})))
        .await
        .unwrap();
    let held = spool.accept("held@example.org", 100).await;
    let change = Change {
        envelope: self::held(held, HoldReason::Administrator),
        by: "jan".into(),
        reports: Vec::new(),
    };
    spool.change(vec![change]).await.unwrap();
    let doubtful = spool.accept("doubtful@example.org", 100).await;
    for (grant, id) in [(5_000, waits.id), (5_001, doubtful.id)] {
        let item = Leased {
            grant,
            id,
            recipients: 1,
            wire_bytes: 105,
        };
        let lease = Lease {
            relay: "own".into(),
            at: moment(),
            items: vec![item],
        };
        spool.lease(lease).await.unwrap();
    }
    spool.unlease(vec![5_000]).await.unwrap();
    spool.final_dot(doubtful.id, vec![0]).await.unwrap();
    spool.close().await.unwrap();
    std::fs::remove_dir_all(path.join("index")).unwrap();
    std::fs::remove_file(path.join("lock")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_of_version_1_is_read() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/spool-1");
    if let Some(path) = std::env::var_os("PENSTOCK_WRITE_SAMPLE") {
        assert!(!kept.exists(), "a sample is never written again");
        write(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    copy(&kept, directory.path());
    assert_eq!(kinds(directory.path()), kinds_written());

    let (spool, recovered) = open_sample(directory.path(), "reader");
    assert!(!recovered.crashed);
    assert_eq!(recovered.damaged_records, 0);
    assert_eq!(recovered.ledger.as_deref(), Some(&b"a ledger"[..]));
    assert_eq!(recovered.last_grant, 5_001);
    assert_eq!(recovered.open_leases.len(), 1);
    assert_eq!(recovered.notes.len(), 1);
    let all = spool.all().await;
    let mut names: Vec<&str> = all.iter().map(|it| it.from.local()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["doubtful", "held", "large", "later", "report", "waits"]
    );
    for envelope in &all {
        let octets = spool.octets(envelope.id).await;
        assert_eq!(octets, content(envelope.id, octets.len()));
        let expected = match envelope.from.local() {
            "held" => matches!(&envelope.state, State::Held(it) if it.by == "jan"),
            "later" => matches!(
                &envelope.state,
                State::Waiting {
                    not_before: Some(_)
                }
            ),
            _ => envelope.state == State::Waiting { not_before: None },
        };
        assert!(expected, "{envelope:?}");
        let in_doubt = envelope.recipients[0]
            .last
            .as_ref()
            .is_some_and(|it| it.in_doubt);
        assert_eq!(in_doubt, envelope.from.local() == "doubtful");
        assert_eq!(octets.len() > 8_000, envelope.from.local() == "large");
    }
    let failed = Lookup::Address(mailbox("failed@example.org"));
    let history = spool.history(&failed, 9).await.unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(
        history[0].envelope.recipients[0].status,
        RecipientStatus::Failed
    );
}

/// The kinds of records in a log, by their octets.
fn kinds(path: &Path) -> BTreeSet<u8> {
    let (store, _lock) = super::super::durable::Store::open(path).unwrap();
    let mut kinds = BTreeSet::new();
    for name in store.segments().unwrap() {
        let mut scan = Scan::new(&store, name, 0, None).unwrap();
        while let Some(found) = scan.next().unwrap() {
            let Found::Frame { header, .. } = found else {
                panic!("damaged: {found:?}");
            };
            assert_eq!(header.version, 1);
            kinds.insert(header.kind.octet());
        }
    }
    kinds
}

/// All but `Void`, which only recovery writes.
fn kinds_written() -> BTreeSet<u8> {
    (Kind::Accepted.octet()..=Kind::Closed.octet()).collect()
}
