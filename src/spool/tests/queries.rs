//! Questions and their answers.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn flows_count_what_waits_and_answer_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut ann = Vec::new();
    for _ in 0..30 {
        ann.push(spool.accept("Ann@example.org", 50).await);
    }
    let mut deferred = ann[3].clone();
    let later = deferred.accepted + jiff::SignedDuration::from_mins(10);
    deferred.state = State::Waiting {
        not_before: Some(later),
    };
    let change = |envelope| Change {
        envelope,
        by: "jan".into(),
        reports: Vec::new(),
    };
    spool
        .change(vec![
            change(deferred.clone()),
            change(held(ann[4].clone(), HoldReason::MailingLimit)),
        ])
        .await
        .unwrap();
    let flows = spool.flows().await.unwrap();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].key, FlowKey::of(&ann[0]));
    assert_eq!(flows[0].key.user, "ann@example.org");
    let counts = [flows[0].ready, flows[0].deferred, flows[0].held];
    assert_eq!(counts.map(|it| it.messages), [28, 1, 1]);
    assert_eq!(flows[0].accepted, 30);
    assert_eq!(flows[0].recent.len(), 21);

    let key = FlowKey::of(&ann[0]);
    let ready = spool.ready(&key, ann[1].id, 3).await.unwrap();
    let ids: Vec<_> = ready.iter().map(|it| it.id).collect();
    assert_eq!(ids, [ann[2].id, ann[5].id, ann[6].id]);
    assert_eq!(ready[0], Waiting::of(&ann[2]).unwrap());
    assert_eq!(spool.next_retry("own").await.unwrap(), Some(later));
    assert_eq!(spool.next_retry("other").await.unwrap(), None);
    let before = later - jiff::SignedDuration::from_millis(1);
    let due = spool.retries_due("own", before, None, 9, 9).await.unwrap();
    assert_eq!(due, (vec![], None));
    let due = spool.retries_due("own", later, None, 9, 9).await.unwrap();
    assert_eq!(due, (vec![Waiting::of(&deferred).unwrap()], None));

    // Another relay is another flow, and the old one loses it.
    let mut moved = deferred.clone();
    moved.relay = "other".into();
    spool.change(vec![change(moved)]).await.unwrap();
    assert_eq!(spool.next_retry("own").await.unwrap(), None);
    assert_eq!(spool.next_retry("other").await.unwrap(), Some(later));
    let status = spool.status().await;
    assert_eq!(status.relays["own"].deferred.messages, 0);
    assert_eq!(status.relays["other"].deferred.messages, 1);
    assert_eq!(status.held.messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_filters_mean_what_they_say() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut all = Vec::new();
    for number in 0..25 {
        let to = format!("user{number}@Example.{}", ["net", "com"][number % 2]);
        let mut envelope = envelope(spool.next_id(), "ann@example.org", &[&to]);
        envelope.size_bytes = number as u64;
        spool
            .commit(envelope.clone(), vec![b'x'; 10].into())
            .await
            .unwrap();
        all.push(envelope);
    }
    let mut after = QueueId::MIN;
    let mut paged = Vec::new();
    let mut pages = 0;
    loop {
        let page = spool.list(&Filter::default(), after, 10).await.unwrap();
        paged.extend(page.messages);
        pages += 1;
        let Some(next) = page.next else { break };
        after = next;
    }
    assert_eq!((paged, pages), (all.clone(), 3));
    let count = async |filter: Filter| {
        spool
            .list(&filter, QueueId::MIN, 100)
            .await
            .unwrap()
            .messages
            .len()
    };
    let filter = Filter::default;
    let user = mailbox("USER7@example.com");
    let to = Some(user.clone());
    assert_eq!(
        count(Filter {
            to: to.clone(),
            ..filter()
        })
        .await,
        1
    );
    let to_domain = Some("example.com".to_owned());
    assert_eq!(
        count(Filter {
            to_domain,
            ..filter()
        })
        .await,
        12
    );
    assert_eq!(
        count(Filter {
            larger_than: Some(20),
            ..filter()
        })
        .await,
        4
    );
    let relay = Some("other".to_owned());
    assert_eq!(count(Filter { relay, ..filter() }).await, 0);
    let state = Some(StateFilter::Ready);
    assert_eq!(count(Filter { state, ..filter() }).await, 25);
    let state = Some(StateFilter::HeldFor(HoldReason::Damaged));
    assert_eq!(count(Filter { state, ..filter() }).await, 0);
    let mailing = Some("HELLO".to_owned());
    assert_eq!(
        count(Filter {
            mailing,
            ..filter()
        })
        .await,
        25
    );

    let address = Lookup::Address(user);
    assert_eq!(spool.find(&address, 9).await.unwrap(), [all[7].clone()]);
    let message_id = Lookup::MessageId(all[9].message_id.clone());
    assert_eq!(spool.find(&message_id, 9).await.unwrap(), [all[9].clone()]);
    spool.finish(&all[7], 1).await;
    assert_eq!(spool.find(&address, 9).await.unwrap(), []);
    let history = spool.history(&address, 9).await.unwrap();
    assert_eq!(history[0].envelope.id, all[7].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_accepted_with_the_failure_it_tells_of() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let failed = spool.accept("ann@example.org", 50).await;
    let mut report = envelope(spool.next_id(), "ann@example.org", &["ann@example.org"]);
    report.origin = Origin::Report;
    report.reverse_path = ReversePath::Null;
    let words = vec![b'r'; 20_000];
    let mut now = failed.clone();
    now.recipients[0].status = RecipientStatus::Failed;
    let settled = Settled {
        envelope: now,
        grant: 1,
        released: Released::NotSent,
        reports: vec![(report.clone(), words.clone().into())],
    };
    spool.settle(settled).await.unwrap();
    assert_eq!(spool.all().await, [report.clone()]);
    assert_eq!(spool.octets(report.id).await, words);
    drop(spool);
    let (again, _) = open(directory.path());
    assert_eq!(again.all().await, [report]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_are_accepted_together() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let messages: Vec<_> = (0..300)
        .map(|_| envelope(spool.next_id(), "ann@example.org", &["bob@example.net"]))
        .collect();
    let with_content = messages
        .iter()
        .map(|it| (it.clone(), content(it.id, 100).into()));
    spool.commit_all(with_content.collect()).await.unwrap();
    assert_eq!(spool.all().await, messages);
    assert_eq!(
        spool.octets(messages[199].id).await,
        content(messages[199].id, 100)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_spool_is_read_and_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (spool, _) = open(path);
    assert!(matches!(Offline::open(path), Err(SpoolError::InUse { .. })));
    let mut left = Vec::new();
    for number in 0..40u64 {
        let envelope = spool.accept("ann@example.org", 900).await;
        match number % 4 {
            0 => spool.finish(&envelope, number).await,
            _ => left.push(envelope),
        }
    }
    let large = spool.accept("ann@example.org", 50_000).await;
    let gone = spool.accept("eve@example.org", 10).await;
    spool.finish(&gone, 99).await;
    left.push(large.clone());
    spool.close().await.unwrap();
    let names = || {
        let mut found = Vec::new();
        for directory in ["log", "large", "history", "corrupt", "index", "."] {
            for entry in std::fs::read_dir(path.join(directory)).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                found.push((entry.path(), metadata.len(), metadata.modified().unwrap()));
            }
        }
        found.sort();
        found
    };
    let before = names();
    let offline = Offline::open(path).unwrap();
    assert_eq!(offline.damaged_records(), 0);
    let listed: Result<Vec<_>, _> = offline.list(&Filter::default()).collect();
    assert_eq!(listed.unwrap(), left);
    assert_eq!(offline.envelope(gone.id).unwrap(), None);
    for envelope in [&left[0], &large] {
        let mut octets = Vec::new();
        let mut reader = offline.content(envelope.id).unwrap().unwrap();
        std::io::Read::read_to_end(&mut reader, &mut octets).unwrap();
        assert_eq!(octets, content(envelope.id, octets.len()));
    }
    let finished = offline.history(&Lookup::Address(mailbox("eve@example.org")), 9);
    assert_eq!(finished.unwrap().len(), 1);
    drop(offline);
    assert_eq!(names(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_spool_does_not_show_what_the_next_open_cuts_off() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let kept = spool.accept("ann@example.org", 900).await;
    spool.accept("eve@example.org", 900).await;
    let copied = tempfile::tempdir().unwrap();
    copy_log(directory.path(), copied.path());
    // The words of the last record are whole, its content is torn.
    let segment = last_segment(copied.path());
    let mut octets = std::fs::read(&segment).unwrap();
    let end = octets.len();
    octets[end - 100..].fill(0);
    std::fs::write(&segment, octets).unwrap();
    let offline = Offline::open(copied.path()).unwrap();
    let listed: Result<Vec<_>, _> = offline.list(&Filter::default()).collect();
    assert_eq!(listed.unwrap(), std::slice::from_ref(&kept));
    assert_eq!(offline.damaged_records(), 0);
    drop(offline);
    assert_eq!(open(copied.path()).0.all().await, [kept]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_nothing_that_its_mailing_has_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(spool.accept("ann@example.org", 50).await);
    }
    spool.finish(&all[0], 1).await;
    let mut deleted = all[1].clone();
    deleted.recipients[0].status = RecipientStatus::Deleted;
    let change = Change {
        envelope: deleted,
        by: "jan".into(),
        reports: Vec::new(),
    };
    spool.change(vec![change]).await.unwrap();
    let flows = spool.flows().await.unwrap();
    assert_eq!((flows[0].accepted, flows[0].ready.messages), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailing_that_failed_as_a_whole_does_not_hide_one_retry_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let due = moment().wall;
    let mut all = Vec::new();
    for (from, count) in [("ann@example.org", 60), ("eve@example.org", 1)] {
        for _ in 0..count {
            let mut deferred = spool.accept(from, 20).await;
            deferred.state = State::Waiting {
                not_before: Some(due + jiff::SignedDuration::from_millis(all.len() as i64)),
            };
            all.push(deferred);
        }
    }
    let changes = all.iter().map(|it| Change {
        envelope: it.clone(),
        by: "jan".into(),
        reports: Vec::new(),
    });
    spool.change(changes.collect()).await.unwrap();
    let late = due + jiff::SignedDuration::from_secs(9);
    let found = spool
        .retries_due("own", late, None, 20, 10)
        .await
        .unwrap()
        .0;
    let users: Vec<_> = found.iter().map(|it| it.flow.user.as_str()).collect();
    assert_eq!(found.len(), 11);
    assert_eq!(users.last(), Some(&"eve@example.org"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_behind_more_than_one_look_takes_in_is_found_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    let due = moment().wall;
    let mut all = Vec::new();
    // One look of a test takes in 100.
    for (from, count) in [("ann@example.org", 210), ("eve@example.org", 1)] {
        for _ in 0..count {
            let mut deferred = envelope(spool.next_id(), from, &["bob@example.net"]);
            deferred.state = State::Waiting {
                not_before: Some(due + jiff::SignedDuration::from_millis(all.len() as i64)),
            };
            all.push(deferred);
        }
    }
    let last = all.last().unwrap().id;
    let messages = all.into_iter().map(|it| (it, content(last, 20).into()));
    spool.commit_all(messages.collect()).await.unwrap();
    let late = due + jiff::SignedDuration::from_secs(9);
    let mut looks = Vec::new();
    let mut after = None;
    loop {
        let (found, next) = spool.retries_due("own", late, after, 50, 10).await.unwrap();
        looks.push(found.len());
        if found.iter().any(|it| it.id == last) {
            break;
        }
        after = Some(next.expect("there is more"));
    }
    assert_eq!(looks, [10, 10, 11]);

    // Those that were handed out already do not stand in the way of the others.
    let (first, place) = spool.retries_due("own", late, None, 5, 10).await.unwrap();
    let (second, _) = spool.retries_due("own", late, place, 5, 10).await.unwrap();
    assert!(first.iter().all(|it| !second.contains(it)));
}
