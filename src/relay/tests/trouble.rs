//! Servers that fall silent, close, talk nonsense or say too much.

use super::*;

/// What each stage is named when it fails, and the script's verb for it.
const STAGES: &[(&str, Stage)] = &[
    ("GREETING", Stage::Greeting),
    ("EHLO", Stage::Ehlo),
    ("MAIL", Stage::Mail),
    ("RCPT", Stage::Recipient),
    ("DATA", Stage::Data),
    ("DOT", Stage::FinalDot),
];

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_anywhere_costs_its_time_limit_and_no_more() {
    for offers in [&[][..], &["PIPELINING"]] {
        for (verb, stage) in STAGES {
            for act in [
                Act::Silent,
                Act::Drip("250-x\r\n250-this goes on and on and on"),
            ] {
                let dripping = matches!(act, Act::Drip(_));
                let fake = Fake::start(Script::offering(offers).at(verb, act)).await;
                let mut job = simple(&fake, &["a@x.example"]);
                job.timeouts.command = Duration::from_secs(20);
                job.timeouts.connect = Duration::from_secs(10);
                job.timeouts.final_dot = Duration::from_secs(30);
                let started = tokio::time::Instant::now();
                let delivery = pool().deliver(&job).await;
                let took = started.elapsed();
                let failed = error(&delivery, 0);
                assert!(
                    matches!(failed, RelayError::Silent { stage: it, .. } if it == stage),
                    "{verb} {offers:?} dripping {dripping}: {failed:?}"
                );
                assert!(took <= Duration::from_secs(31), "{verb}: {took:?}");
                assert_eq!(delivery.in_doubt, *stage == Stage::FinalDot);
                assert_eq!(delivery.attempts[0].stage, *stage);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_or_talks_nonsense_is_told_from_one_that_refuses() {
    let garbage: &[&[u8]] = &[
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"999 what\r\n",
        b"250-a\r\n550 b\r\n",
        b"250 ok\n",
        &[b'x'; 10_000],
    ];
    for offers in [&[][..], &["PIPELINING"]] {
        for (verb, stage) in STAGES {
            let fake = Fake::start(Script::offering(offers).at(verb, Act::Close)).await;
            let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
            let failed = error(&delivery, 0);
            assert!(
                matches!(failed, RelayError::Closed { stage: it, .. } if it == stage),
                "{verb}: {failed:?}"
            );
            assert_eq!(delivery.in_doubt, *stage == Stage::FinalDot);
            for said in garbage {
                if *verb == "GREETING" && said.starts_with(b"250 ok") {
                    continue;
                }
                let script = Script::offering(offers).at(verb, Act::Raw(said.to_vec()));
                let fake = Fake::start(script).await;
                let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
                let failed = error(&delivery, 0);
                assert!(
                    matches!(failed, RelayError::Garbage { stage: it, .. } if it == stage),
                    "{verb} {said:?}: {failed:?}"
                );
                assert_eq!(delivery.in_doubt, *stage == Stage::FinalDot);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn replies_to_questions_not_asked_end_the_connection() {
    for (verb, said) in [
        ("GREETING", &b"220 a\r\n220 b\r\n"[..]),
        ("EHLO", b"250 a\r\n250 b\r\n"),
        ("MAIL", b"250 ok\r\n250 ok\r\n"),
        ("RCPT", b"250 ok\r\n250 ok\r\n"),
        ("DATA", b"354 go\r\n250 taken already\r\n"),
    ] {
        for offers in [&[][..], &["PIPELINING"]] {
            let script = Script::offering(offers).at(verb, Act::Raw(said.to_vec()));
            let fake = Fake::start(script).await;
            let delivery = pool()
                .deliver(&simple(&fake, &["a@x.example", "b@x.example"]))
                .await;
            for attempt in &delivery.attempts {
                let failed = attempt.result.as_ref().expect_err(verb);
                assert!(
                    !matches!(failed, RelayError::Refused { .. }),
                    "{verb}: {failed:?}"
                );
            }
            assert_eq!(fake.contents().len(), 0, "{verb} {offers:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_why_it_closes_is_quoted() {
    let script = Script::offering(&["PIPELINING"]).at_nth(
        "RCPT",
        2,
        Act::SayAndClose("421 4.7.0 too many connections"),
    );
    let fake = Fake::start(script).await;
    let job = simple(&fake, &["a@x.example", "b@x.example", "c@x.example"]);
    let delivery = pool().deliver(&job).await;
    assert_eq!(delivery.attempts.len(), 3);
    assert_eq!(
        (0..3).map(|it| code(&delivery, it)).collect::<Vec<_>>(),
        [421, 421, 421]
    );
}

/// Answers every line with the next of these octets, whatever was said; notes what came.
async fn erratic(mut stream: tokio::net::TcpStream, answers: Vec<&'static str>) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut space = [0; 4_096];
    for answer in answers {
        if answer == "close" {
            return heard;
        }
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return heard;
        }
        let read = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut space));
        match read.await {
            Ok(Ok(0) | Err(_)) => return heard,
            Ok(Ok(some)) => heard.extend_from_slice(&space[..some]),
            Err(_) => {}
        }
    }
    // Silent from here on, but listening.
    while let Ok(some) = stream.read(&mut space).await {
        if some == 0 {
            break;
        }
        heard.extend_from_slice(&space[..some]);
    }
    heard
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_a_server_does_every_recipient_has_one_true_result(
        sensible in proptest::collection::vec(proptest::bool::weighted(0.85), 12),
        odd in proptest::collection::vec(proptest::sample::select(vec![
            "", "250 ok\r\n", "250-half\r\n", "250 ok\r\n250 ok\r\n", "354 go\r\n", "550 5.1.1 no\r\n",
            "450 later\r\n", "421 bye\r\n", "250 bare\n", "2", "close", "close", "HTTP/1.1 200 OK\r\n", "220 hello\r\n",
            "250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n", "250 ok\r\n550 no\r\n354 go\r\n",
        ]), 12),
        pipelining: bool,
        chunking: bool,
    ) {
        let ehlo = match (pipelining, chunking) {
            (true, true) => "250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
            (true, false) => "250-x\r\n250 PIPELINING\r\n",
            (false, true) => "250-x\r\n250 CHUNKING\r\n",
            (false, false) => "250 x\r\n",
        };
        let usual: &[&str] = match (pipelining, chunking) {
            (true, true) => &["250 m\r\n250 r\r\n250 r\r\n", "250 taken\r\n"],
            (true, false) => &["250 m\r\n250 r\r\n250 r\r\n354 go\r\n", "250 taken\r\n"],
            (false, true) => &["250 m\r\n", "250 r\r\n", "250 r\r\n", "250 taken\r\n"],
            (false, false) => &["250 m\r\n", "250 r\r\n", "250 r\r\n", "354 go\r\n", "250 taken\r\n"],
        };
        let script = ["220 x\r\n", ehlo].into_iter().chain(usual.iter().copied());
        let answers: Vec<_> = script
            .zip(sensible.iter().zip(&odd))
            .map(|(usual, (sensible, odd))| if *sensible { usual } else { *odd })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut peer = tokio::task::JoinSet::new();
            peer.spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                drop(listener);
                erratic(stream, answers).await
            });
            let fake = Fake::start(Script::default()).await;
            let mut relay = relay(&fake);
            relay.servers[0].port = address.port();
            let mut job = job(relay, envelope(&["a@x.example", "b@x.example"], MESSAGE), MESSAGE);
            let told = Arc::new(Mutex::new(None));
            let note = Arc::clone(&told);
            job.before_dot = Arc::new(move |places| {
                *note.lock().unwrap() = Some(places);
                Box::pin(async { Ok(()) })
            });
            let pool = pool();
            let delivery = pool.deliver(&job).await;
            pool.close().await;
            drop(pool);
            let heard = peer.join_next().await.unwrap().unwrap();
            let whole = heard.windows(13).any(|it| it == b"last line\r\n.\r" || it == b"\r\nlast line\r\n");
            let mut places: Vec<_> = delivery.attempts.iter().map(|it| it.recipient).collect();
            places.sort_unstable();
            assert_eq!(places, [0, 1]);
            let told = told.lock().unwrap().take();
            let sent: Vec<_> = delivery.attempts.iter().filter(|it| it.result.is_ok()).map(|it| it.recipient).collect();
            if !sent.is_empty() {
                assert!(delivery.content_sent && whole && delivery.final_reply_at.is_some());
                assert_eq!(told.as_ref(), Some(&sent), "who got it was written down before the dot");
            }
            if delivery.in_doubt {
                assert!(delivery.content_sent && told.is_some() && sent.is_empty());
            }
            if !delivery.content_sent {
                assert!(!whole, "content that left is said to have left");
            }
        });
    }
}
