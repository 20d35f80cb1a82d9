//! Connections that are kept, replaced, closed and never too many.

use super::*;

#[tokio::test(start_paused = true)]
async fn connections_are_reused_and_a_dead_one_is_replaced_unnoticed() {
    let fake = Fake::start(Script::offering(ALL)).await;
    let pool = pool();
    for _ in 0..3 {
        let delivery = pool.deliver(&simple(&fake, &["a@x.example"])).await;
        assert_eq!(code(&delivery, 0), 250);
    }
    assert_eq!(fake.connections(), 1);
    for act in [
        Act::Close,
        Act::SayAndClose("421 4.4.2 idle for too long"),
        Act::Raw(b"503 5.5.1 sender already specified\r\n".to_vec()),
        Act::Raw(b"nonsense\r\n".to_vec()),
    ] {
        for offers in [&[][..], &["PIPELINING"]] {
            let script = Script::offering(offers).at_nth("MAIL", 2, act.clone());
            let fake = Fake::start(script).await;
            let pool = pool_with(Zone::default());
            for _ in 0..2 {
                let delivery = pool.deliver(&simple(&fake, &["a@x.example"])).await;
                assert_eq!(code(&delivery, 0), 250, "{act:?}");
            }
            assert_eq!(fake.connections(), 2);
            assert_eq!(fake.contents().len(), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_connection_that_dies_at_mail_is_not_tried_again() {
    let fake = Fake::start(Script::offering(ALL).at("MAIL", Act::Close)).await;
    let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
    assert!(matches!(
        error(&delivery, 0),
        RelayError::Closed {
            stage: Stage::Mail,
            ..
        }
    ));
    assert_eq!(fake.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_politely() {
    let fake = Fake::start(Script::offering(ALL)).await;
    let pool = pool();
    pool.deliver(&simple(&fake, &["a@x.example"])).await;
    pool.tidy();
    assert_eq!(pool.connections("up"), 1);
    tokio::time::advance(Duration::from_secs(31)).await;
    pool.tidy();
    pool.close().await;
    assert_eq!(pool.connections("up"), 0);
    assert_eq!(fake.lines().last().unwrap(), "QUIT");
}

#[tokio::test(start_paused = true)]
async fn no_connection_carries_more_messages_than_it_may() {
    for (configured, offer, connections) in [
        (Some(2), "8BITMIME", 3),
        (None, "LIMITS MAILMAX=3", 2),
        (Some(1), "LIMITS MAILMAX=3", 5),
    ] {
        let fake = Fake::start(Script::offering(&[offer])).await;
        let pool = pool();
        for _ in 0..5 {
            let mut relay = relay(&fake);
            relay.limits.messages_per_connection = configured;
            let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
            assert_eq!(code(&pool.deliver(&job).await, 0), 250);
        }
        assert_eq!(fake.connections(), connections, "{configured:?} {offer}");
        pool.close().await;
        assert_eq!(
            fake.lines().iter().filter(|it| *it == "QUIT").count(),
            connections
        );
    }
}

#[tokio::test(start_paused = true)]
async fn no_transaction_names_more_recipients_or_domains_than_the_server_takes() {
    let to = ["a@x.example", "b@y.example", "c@X.example", "d@z.example"];
    for (offer, named) in [
        ("LIMITS RCPTMAX=3", vec![0, 1, 2]),
        ("LIMITS RCPTDOMAINMAX=1", vec![0, 2]),
        ("LIMITS RCPTDOMAINMAX=2", vec![0, 1, 2]),
        ("LIMITS RCPTDOMAINMAX=2 RCPTMAX=2", vec![0, 1]),
    ] {
        let fake = Fake::start(Script::offering(&[offer])).await;
        let delivery = pool().deliver(&simple(&fake, &to)).await;
        for recipient in 0..to.len() {
            if named.contains(&recipient) {
                assert_eq!(code(&delivery, recipient), 250, "{offer} {recipient}");
            } else {
                assert_eq!(
                    error(&delivery, recipient),
                    &RelayError::Cancelled,
                    "{offer}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn never_more_connections_than_allowed() {
    let fake = Fake::start(Script::offering(ALL)).await;
    let pool = pool();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let mut relay = relay(&fake);
        relay.limits.connections = 3;
        // Two logins make two kinds of connections; the limit is for both together.
        relay.certificates.tls_name = (number % 2 == 0).then(|| "x.example".into());
        let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
        let pool = pool.clone();
        tasks.spawn(async move { code(&pool.deliver(&job).await, 0) });
    }
    while let Some(code) = tasks.join_next().await {
        assert_eq!(code.unwrap(), 250);
    }
    let most = fake.heard.lock().unwrap().most_open;
    assert!(most <= 3, "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_changed_password_never_travels_on_an_old_connection() {
    let script = Script::offering(&["AUTH PLAIN"]);
    let fake = Fake::start(script).await;
    let pool = pool();
    for password in ["one-password", "two-password", "two-password"] {
        let mut relay = with_login(&fake, RelayTls::Off);
        relay.credentials.as_mut().unwrap().proof = Proof::Password(Secret::new(password.into()));
        let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
        assert_eq!(code(&pool.deliver(&job).await, 0), 250);
    }
    let logins = fake
        .lines()
        .iter()
        .filter(|it| it.starts_with("AUTH"))
        .count();
    assert_eq!(logins, 2);
}

#[tokio::test]
async fn dropping_a_delivery_gives_its_connection_back() {
    let fake = Fake::start(Script::offering(ALL).at("DOT", Act::Silent)).await;
    let pool = pool();
    let job = simple(&fake, &["a@x.example"]);
    let cut = tokio::time::timeout(Duration::from_millis(200), pool.deliver(&job)).await;
    assert!(cut.is_err());
    assert_eq!(pool.connections("up"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_turn_passes_while_it_waits_for_a_connection_is_not_begun() {
    let script = Script::offering(ALL).at_nth("DOT", 1, Act::Silent);
    let fake = Fake::start(script).await;
    let clock = Clock::following_tokio(Timestamp::UNIX_EPOCH);
    let pool = pool_at(Zone::default(), clock.clone());
    let mut relay = relay(&fake);
    relay.limits.connections = 1;
    let first = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
    let mut second = first.clone();
    second.start_before = Some(clock.uptime() + Duration::from_secs(60));
    let started = tokio::time::Instant::now();
    let (first, (second, waited)) = tokio::join!(pool.deliver(&first), async {
        let delivery = pool.deliver(&second).await;
        (delivery, started.elapsed())
    });
    assert!(first.in_doubt);
    assert!(second.is_unstarted() && !second.content_sent);
    assert!(waited < Duration::from_secs(61), "{waited:?}");
    assert_eq!(pool.connections("up"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_took_too_long_serves_the_next_turn() {
    let script = Script::offering(ALL).at_nth("GREETING", 1, Act::Drip("220 slow\r\n"));
    let fake = Fake::start(script).await;
    let clock = Clock::following_tokio(Timestamp::UNIX_EPOCH);
    let pool = pool_at(Zone::default(), clock.clone());
    let mut job = simple(&fake, &["a@x.example"]);
    job.start_before = Some(clock.uptime() + Duration::from_secs(3));
    assert!(pool.deliver(&job).await.is_unstarted());
    assert!(!fake.lines().iter().any(|it| it.starts_with("MAIL")));
    job.start_before = None;
    assert_eq!(code(&pool.deliver(&job).await, 0), 250);
    assert_eq!(fake.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_took_longer_than_a_batch_is_there_at_the_next_probe() {
    for recorded in [false, true] {
        let script = Script::offering(ALL).at_nth("GREETING", 1, Act::Drip("220 slow\r\n"));
        let fake = Fake::start(script).await;
        let clock = Clock::following_tokio(Timestamp::UNIX_EPOCH);
        let pool = pool_at(Zone::default(), clock.clone());
        let mut job = simple(&fake, &["a@x.example"]);
        let window = Duration::from_secs(3);
        job.start_before = Some(clock.uptime() + window);
        let deliver = async |job: &Job| match recorded {
            true => pool.deliver_recorded(job).await,
            false => (pool.deliver(job).await, Default::default()),
        };
        assert!(deliver(&job).await.0.is_unstarted());
        for _ in 0..25 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            pool.tidy();
        }
        if recorded {
            // Nothing else gets onto it, or the record would not be of the test alone.
            assert_eq!(
                code(&pool.deliver(&simple(&fake, &["b@x.example"])).await, 0),
                250
            );
            assert_eq!(fake.connections(), 2);
        }
        job.start_before = Some(clock.uptime() + window);
        let (delivery, said) = deliver(&job).await;
        assert_eq!(code(&delivery, 0), 250);
        assert_eq!(fake.connections(), 1 + usize::from(recorded));
        let said = said.to_string();
        assert_eq!(said.contains("< 220 slow"), recorded, "{said}");
        assert_eq!(said.contains("> MAIL FROM"), recorded, "{said}");
        // Without a turn it does not stay for ever.
        pool.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_gets_a_turn_is_closed_after_minutes() {
    let script = Script::offering(ALL).at_nth("GREETING", 1, Act::Drip("220 slow\r\n"));
    let fake = Fake::start(script).await;
    let clock = Clock::following_tokio(Timestamp::UNIX_EPOCH);
    let pool = pool_at(Zone::default(), clock.clone());
    let mut job = simple(&fake, &["a@x.example"]);
    job.start_before = Some(clock.uptime() + Duration::from_secs(3));
    assert!(pool.deliver(&job).await.is_unstarted());
    assert_eq!(pool.connections("up"), 1);
    tokio::time::sleep(Duration::from_secs(301)).await;
    pool.tidy();
    pool.close().await;
    assert_eq!(pool.connections("up"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_offers_chunking_and_does_not_know_bdat_gets_data_from_then_on() {
    for words in ["502 5.5.1 unknown command", "500 what?", "554 5.5.1 no"] {
        let script =
            Script::offering(&["CHUNKING", "PIPELINING"]).at("BDAT", Act::SayAndClose(words));
        let fake = Fake::start(script).await;
        let pool = pool();
        let job = simple(&fake, &["a@x.example"]);
        let delivery = pool.deliver(&job).await;
        let found = error(&delivery, 0);
        assert_eq!(found.severity(), Severity::Transient, "{found}");
        assert!(found.to_string().contains(words), "{found}");
        assert!(delivery.content_sent && !delivery.in_doubt);
        for _ in 0..2 {
            assert_eq!(code(&pool.deliver(&job).await, 0), 250);
        }
        let bdats = fake
            .lines()
            .iter()
            .filter(|it| it.starts_with("BDAT"))
            .count();
        assert_eq!(bdats, 1);
    }
    // A refusal of the message is none of BDAT.
    let script = Script::offering(&["CHUNKING"]).at("BDAT", Act::SayAndClose("554 5.7.1 spam"));
    let fake = Fake::start(script).await;
    let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
    assert_eq!(error(&delivery, 0).severity(), Severity::Permanent);
}
