//! What is said to a server in good order, and what becomes of each recipient.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_message_arrives_byte_for_byte_with_and_without_every_extension() {
    for offers in [
        &[][..],
        &["PIPELINING"],
        ALL,
        &["CHUNKING"],
        &["CHUNKING", "PIPELINING"],
    ] {
        let fake = Fake::start(Script::offering(offers)).await;
        let job = simple(&fake, &["bob@example.net", "eve@example.com"]);
        let delivery = pool().deliver(&job).await;
        assert_eq!((code(&delivery, 0), code(&delivery, 1)), (250, 250));
        assert!(delivery.content_sent && !delivery.in_doubt);
        assert!(delivery.final_reply_at.is_some());
        assert_eq!(delivery.attempts.len(), 2);
        assert!(delivery.server.starts_with("127.0.0.1 [127.0.0.1]:"));
        let expected = if offers.contains(&"CHUNKING") {
            MESSAGE.to_vec()
        } else {
            b"Subject: hello\r\n\r\n..dot\r\nlast line\r\n.\r\n".to_vec()
        };
        assert_eq!(fake.contents(), [expected], "{offers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_message_arrives_whole() {
    let line = [&[b'.'; 70_000][..], b"\r\n"].concat();
    let message = line.repeat(40);
    for offers in [&["PIPELINING"][..], &["CHUNKING"]] {
        let fake = Fake::start(Script::offering(offers)).await;
        let mut envelope = envelope(&["bob@example.net"], &message);
        envelope.size_bytes = message.len() as u64;
        let delivery = pool().deliver(&job(relay(&fake), envelope, &message)).await;
        assert_eq!(code(&delivery, 0), 250);
        let extra = if offers[0] == "CHUNKING" { 0 } else { 40 + 3 };
        assert_eq!(fake.contents()[0].len(), message.len() + extra);
    }
}

#[tokio::test(start_paused = true)]
async fn every_recipient_has_its_own_result() {
    for offers in [&[][..], &["PIPELINING"], &["CHUNKING", "PIPELINING"]] {
        let script = Script::offering(offers)
            .at_nth("RCPT", 2, Act::Say("550 5.1.1 no such user"))
            .at_nth("RCPT", 3, Act::Say("450 4.2.1 later"));
        let fake = Fake::start(script).await;
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let mut job = simple(
            &fake,
            &["a@x.example", "b@x.example", "c@x.example", "d@x.example"],
        );
        let told = Arc::clone(&accepted);
        job.before_dot = Arc::new(move |places| {
            told.lock().unwrap().extend(places);
            Box::pin(async { Ok(()) })
        });
        let delivery = pool().deliver(&job).await;
        let codes: Vec<_> = (0..4).map(|it| code(&delivery, it)).collect();
        assert_eq!(codes, [250, 550, 450, 250]);
        assert_eq!(*accepted.lock().unwrap(), [0, 3]);
        assert_eq!(fake.contents().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_when_nobody_is_left_to_send_to() {
    for offers in [&[][..], &["PIPELINING"], &["CHUNKING"]] {
        for (verb, act) in [
            ("RCPT", Act::Say("550 5.1.1 no such user")),
            ("MAIL", Act::Say("550 5.7.60 not as this sender")),
        ] {
            let fake = Fake::start(Script::offering(offers).at(verb, act)).await;
            let pool = pool();
            let delivery = pool
                .deliver(&simple(&fake, &["a@x.example", "b@x.example"]))
                .await;
            assert_eq!((code(&delivery, 0), code(&delivery, 1)), (550, 550));
            assert!(!delivery.content_sent);
            // A lone dot at most, where DATA went along and was taken all the same.
            assert!(
                fake.contents().iter().all(|it| it == b".\r\n"),
                "{offers:?} {verb}"
            );
            // And the connection goes on, cleaned up.
            let _ = pool.deliver(&simple(&fake, &["a@x.example"])).await;
            assert_eq!(fake.connections(), 1, "{offers:?} {verb}");
            assert!(fake.lines().contains(&"RSET".to_owned()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn data_may_be_refused() {
    for offers in [&[][..], &["PIPELINING"]] {
        let script = Script::offering(offers).at("DATA", Act::Say("554 5.2.0 quota"));
        let fake = Fake::start(script).await;
        let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
        assert_eq!(delivery.attempts[0].stage, Stage::Data);
        assert_eq!(code(&delivery, 0), 554);
        assert!(!delivery.content_sent);
    }
}

#[tokio::test(start_paused = true)]
async fn the_final_dot_may_be_refused() {
    for offers in [&[][..], &["CHUNKING"]] {
        let script = Script::offering(offers).at("DOT", Act::Say("550 High probability of spam"));
        let fake = Fake::start(script).await;
        let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
        assert_eq!(delivery.attempts[0].stage, Stage::FinalDot);
        assert_eq!(code(&delivery, 0), 550);
        assert!(delivery.content_sent && !delivery.in_doubt);
        assert!(delivery.final_reply_at.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_the_middle_of_the_content_is_quoted() {
    let message = b"0123456789abcdef0123456789abcd\r\n".repeat(20_000);
    for (offers, closes) in [
        ("X", false),
        ("CHUNKING", false),
        ("X", true),
        ("CHUNKING", true),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut peer = tokio::task::JoinSet::new();
        peer.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Otherwise the kernel's real clock decides when the second line goes.
            stream.set_nodelay(true).unwrap();
            let greeting =
                format!("220 x\r\n250-x\r\n250 {offers}\r\n250 m\r\n250 r\r\n354 go\r\n");
            let mut space = vec![0; 65_536];
            for line in greeting.split_inclusive("\r\n") {
                stream.write_all(line.as_bytes()).await.unwrap();
                if !line.starts_with("250-") && !line.starts_with("354") {
                    let _ = stream.read(&mut space).await.unwrap();
                }
                if offers == "CHUNKING" && line == "250 r\r\n" {
                    break;
                }
            }
            stream.read_exact(&mut space).await.unwrap();
            stream.write_all(b"552 5.3.4 too much\r\n").await.unwrap();
            if closes {
                stream.shutdown().await.unwrap();
            }
            while stream.read(&mut space).await.is_ok_and(|it| it > 0) {}
        });
        let fake = Fake::start(Script::default()).await;
        let mut relay = relay(&fake);
        relay.servers[0].port = port;
        let mut job = job(relay, envelope(&["a@x.example"], &message), &message);
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        job.before_dot = Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        });
        let blocks = message.chunks(50_000).map(<[u8]>::to_vec).collect();
        job.content = Arc::new(Pieces(blocks));
        let delivery = pool().deliver(&job).await;
        assert_eq!(code(&delivery, 0), 552, "{offers}");
        assert_eq!(delivery.attempts[0].stage, Stage::Content);
        assert!(delivery.content_sent && !delivery.in_doubt);
        assert_eq!(told.load(Ordering::Relaxed), 0);
    }
}

/// A content in many blocks.
struct Pieces(Vec<Vec<u8>>);

impl Content for Pieces {
    fn size_bytes(&self) -> u64 {
        self.0.iter().map(|it| it.len() as u64).sum()
    }

    fn open(&self) -> Boxed<'_, Result<Box<dyn Blocks>, String>> {
        let reading: Box<dyn Blocks> = Box::new(Reading(self.0.clone().into_iter()));
        Box::pin(async { Ok(reading) })
    }
}

struct Reading(std::vec::IntoIter<Vec<u8>>);

impl Blocks for Reading {
    fn next(&mut self) -> Boxed<'_, Result<Option<Vec<u8>>, String>> {
        let block = self.0.next();
        Box::pin(async {
            // As from a disk: meanwhile the peer has its turn.
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(block)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_was_offered_is_used() {
    let mut wishes = envelope(&["a@x.example"], MESSAGE);
    wishes.body = Body::EightBitMime;
    wishes.ret = Some(Ret::Headers);
    wishes.envid = Some("QQ+1".into());
    wishes.recipients[0].notify = Notify::Never;
    wishes.recipients[0].orcpt = Some("rfc822;a@y.example".into());
    let eight_bit = "Subject: ü\r\n".as_bytes();
    wishes.size_bytes = eight_bit.len() as u64;

    let fake = Fake::start(Script::offering(&["8BITMIME"])).await;
    let delivery = pool()
        .deliver(&job(relay(&fake), wishes.clone(), eight_bit))
        .await;
    assert_eq!(code(&delivery, 0), 250);
    assert!(!delivery.dsn_passed_on);
    assert_eq!(
        fake.lines()[1..3],
        [
            "MAIL FROM:<bounce@example.org> BODY=8BITMIME",
            "RCPT TO:<a@x.example>"
        ]
    );

    let fake = Fake::start(Script::offering(ALL)).await;
    let delivery = pool()
        .deliver(&job(relay(&fake), wishes.clone(), eight_bit))
        .await;
    assert!(delivery.dsn_passed_on);
    assert_eq!(
        fake.lines()[1..3],
        [
            "MAIL FROM:<bounce@example.org> SIZE=13 BODY=8BITMIME RET=HDRS ENVID=QQ+2B1",
            "RCPT TO:<a@x.example> NOTIFY=NEVER ORCPT=rfc822;a@y.example",
        ]
    );

    let fake = Fake::start(Script::default()).await;
    let delivery = pool()
        .deliver(&job(relay(&fake), wishes.clone(), eight_bit))
        .await;
    assert_eq!(
        *error(&delivery, 0),
        RelayError::Unsupported { what: "8BITMIME" }
    );
    assert!(!delivery.content_sent);

    // Declared and not so: nothing is lost by sending it.
    wishes.size_bytes = MESSAGE.len() as u64;
    let delivery = pool().deliver(&job(relay(&fake), wishes, MESSAGE)).await;
    assert_eq!(code(&delivery, 0), 250);
}

#[tokio::test(start_paused = true)]
async fn addresses_beyond_ascii_go_as_far_as_the_relay_can_take_them() {
    let mut international = envelope(
        &[
            "jürgen@bücher.example",
            "jan@bücher.example",
            "eve@x.example",
        ],
        MESSAGE,
    );
    international.smtputf8 = true;
    let fake = Fake::start(Script::offering(&["8BITMIME"])).await;
    let delivery = pool()
        .deliver(&job(relay(&fake), international.clone(), MESSAGE))
        .await;
    assert_eq!(
        *error(&delivery, 0),
        RelayError::Unsupported { what: "SMTPUTF8" }
    );
    assert_eq!((code(&delivery, 1), code(&delivery, 2)), (250, 250));
    assert!(
        fake.lines()
            .contains(&"RCPT TO:<jan@xn--bcher-kva.example>".to_owned())
    );

    let fake = Fake::start(Script::offering(ALL)).await;
    let delivery = pool()
        .deliver(&job(relay(&fake), international, MESSAGE))
        .await;
    assert_eq!(code(&delivery, 0), 250);
    assert!(fake.lines()[1].ends_with(" SMTPUTF8"));
    assert_eq!(fake.lines()[2], "RCPT TO:<jürgen@bücher.example>");
}

#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_the_relay_is_not_offered_to_it() {
    let fake = Fake::start(Script::offering(&["SIZE 20"])).await;
    let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
    let size_bytes = MESSAGE.len() as u64;
    assert_eq!(
        *error(&delivery, 0),
        RelayError::TooLarge {
            size_bytes,
            limit_bytes: 20
        }
    );
    assert!(!fake.lines().iter().any(|it| it.starts_with("MAIL")));
}

#[tokio::test(start_paused = true)]
async fn recipients_beyond_the_declared_limit_wait_for_another_time() {
    let fake = Fake::start(Script::offering(&["LIMITS RCPTMAX=2"])).await;
    let job = simple(&fake, &["a@x.example", "b@x.example", "c@x.example"]);
    let delivery = pool().deliver(&job).await;
    assert_eq!((code(&delivery, 0), code(&delivery, 1)), (250, 250));
    assert_eq!(error(&delivery, 2).severity(), Severity::Untried);
    assert_eq!(delivery.attempts.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn more_recipients_than_a_group_holds_are_all_told() {
    let addresses: Vec<_> = (0..250).map(|it| format!("r{it}@x.example")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    for offers in [&[][..], &["PIPELINING"], &["PIPELINING", "CHUNKING"]] {
        let script = Script::offering(offers).at_nth("RCPT", 150, Act::Say("550 no"));
        let fake = Fake::start(script).await;
        let delivery = pool().deliver(&simple(&fake, &addresses)).await;
        assert_eq!(delivery.attempts.len(), 250);
        let refused: Vec<_> = (0..250).filter(|it| code(&delivery, *it) == 550).collect();
        assert_eq!(refused, [149]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_reverse_path_follows_its_rule_and_null_stays_null() {
    let fixed = ReversePathRule::Fixed(Mailbox::parse("mailer@own.example").unwrap());
    for (rule, null, said) in [
        (
            ReversePathRule::Keep,
            false,
            "MAIL FROM:<bounce@example.org>",
        ),
        (ReversePathRule::From, false, "MAIL FROM:<ann@example.org>"),
        (fixed.clone(), false, "MAIL FROM:<mailer@own.example>"),
        (ReversePathRule::From, true, "MAIL FROM:<>"),
        (fixed, true, "MAIL FROM:<>"),
    ] {
        let fake = Fake::start(Script::default()).await;
        let mut relay = relay(&fake);
        relay.reverse_path = rule;
        let mut envelope = envelope(&["a@x.example"], MESSAGE);
        if null {
            envelope.reverse_path = ReversePath::Null;
        }
        pool().deliver(&job(relay, envelope, MESSAGE)).await;
        assert_eq!(fake.lines()[1], said);
    }
}

#[tokio::test(start_paused = true)]
async fn the_dot_is_kept_back_when_it_cannot_be_written_down() {
    for offers in [ALL, &["CHUNKING"]] {
        let fake = Fake::start(Script::offering(offers)).await;
        let mut job = simple(&fake, &["a@x.example"]);
        job.before_dot = Arc::new(|_| Box::pin(async { Err("disk full".to_owned()) }));
        let delivery = pool().deliver(&job).await;
        assert!(matches!(error(&delivery, 0), RelayError::Ours { .. }));
        assert!(!delivery.in_doubt && !delivery.content_sent);
        assert_eq!(fake.contents().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_content_shorter_or_longer_than_it_should_be_is_never_ended() {
    struct Wrong(u64);
    impl Content for Wrong {
        fn size_bytes(&self) -> u64 {
            self.0
        }
        fn open(&self) -> Boxed<'_, Result<Box<dyn Blocks>, String>> {
            Box::pin(async { MESSAGE.to_vec().open().await })
        }
    }
    for size in [1, 1_000] {
        for offers in [ALL, &["CHUNKING"]] {
            let fake = Fake::start(Script::offering(offers)).await;
            let mut job = simple(&fake, &["a@x.example"]);
            job.content = Arc::new(Wrong(size));
            let delivery = pool().deliver(&job).await;
            assert!(matches!(error(&delivery, 0), RelayError::Ours { .. }));
            assert_eq!(fake.contents().len(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_sends_nothing() {
    let fake = Fake::start(Script::default().at("GREETING", Act::Silent)).await;
    let job = simple(&fake, &["a@x.example"]);
    let cancel = job.cancel.clone();
    let pool = pool();
    let (delivery, ()) = tokio::join!(pool.deliver(&job), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cancel.cancel();
    });
    assert_eq!(*error(&delivery, 0), RelayError::Cancelled);
    assert_eq!(pool.connections("up"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_recorded_delivery_shows_the_dialogue_but_not_the_content() {
    let fake = Fake::start(Script::offering(ALL)).await;
    let (delivery, transcript) = pool()
        .deliver_recorded(&simple(&fake, &["a@x.example"]))
        .await;
    assert_eq!(code(&delivery, 0), 250);
    let said = transcript.to_string();
    assert!(said.contains("> RCPT TO:<a@x.example>\n"), "{said}");
    assert!(said.contains("* content, 35 octets"), "{said}");
    assert!(!said.contains("last line"), "{said}");
}
