//! Dialogues with servers of every temper, over real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::fake::{Act, Fake, Script};
use super::*;
use crate::clock::Clock;
use crate::config::{
    AuthMethod, Certificates, Credentials, Host, Limits, Preset, Relay, RelayTls, ReversePathRule,
    Secret, Server, Timeouts,
};
use crate::dns::Zone;
use crate::mail::{
    Body, Domain, Envelope, ForwardPath, Mailbox, Mailing, Notify, Origin, QueueId, Recipient,
    RecipientStatus, Ret, ReversePath, Rule, Stage, State,
};

const MESSAGE: &[u8] = b"Subject: hello\r\n\r\n.dot\r\nlast line\r\n";
const ALL: &[&str] = &["PIPELINING", "SIZE 1000000", "8BITMIME", "DSN", "SMTPUTF8"];

fn limits() -> Limits {
    Limits {
        connections: 4,
        ..Preset::Unlimited.limits()
    }
}

fn server(fake: &Fake, tls: RelayTls) -> Server {
    Server {
        host: Host::Address(fake.address.ip()),
        port: fake.address.port(),
        tls,
    }
}

fn relay(fake: &Fake) -> Relay {
    Relay {
        name: "up".into(),
        servers: vec![server(fake, RelayTls::Opportunistic)],
        sender: None,
        credentials: None,
        auth: AuthMethod::Auto,
        certificates: Certificates::default(),
        reverse_path: ReversePathRule::Keep,
        bulk: false,
        spf_include: None,
        outbound_ips: Vec::new(),
        verify: false,
        limits: limits(),
    }
}

/// With a login, and the certificate pinned.
fn with_login(fake: &Fake, tls: RelayTls) -> Relay {
    let mut relay = relay(fake);
    relay.servers[0].tls = tls;
    relay.credentials = Some(Credentials {
        username: "jan".into(),
        password: Secret::new("s3cr3t-word".into()),
    });
    relay.certificates.fingerprint = Some(fake.fingerprint);
    relay
}

fn timeouts() -> Timeouts {
    Timeouts {
        idle: Duration::from_secs(300),
        connect: Duration::from_secs(30),
        command: Duration::from_secs(300),
        data: Duration::from_secs(180),
        final_dot: Duration::from_secs(600),
    }
}

fn recipient(address: &str) -> Recipient {
    Recipient {
        path: ForwardPath::parse(address).unwrap(),
        notify: Notify::Unspecified,
        orcpt: None,
        status: RecipientStatus::Waiting,
        last: None,
    }
}

fn envelope(recipients: &[&str], content: &[u8]) -> Envelope {
    Envelope {
        id: QueueId::MIN,
        origin: Origin::Submission,
        accepted: Timestamp::UNIX_EPOCH,
        reverse_path: ReversePath::parse("bounce@example.org").unwrap(),
        from: Mailbox::parse("ann@example.org").unwrap(),
        rule: Rule::Default,
        relay: "up".into(),
        mailing: Mailing {
            key: String::new(),
            label: String::new(),
        },
        login: None,
        client: "127.0.0.1".into(),
        message_id: String::new(),
        body: Body::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        size_bytes: content.len() as u64,
        wire_bytes: content.len() as u64 + 3,
        recipients: recipients.iter().map(|it| recipient(it)).collect(),
        state: State::Waiting { not_before: None },
        attempts: 0,
        first_failure: None,
        warned: false,
        past: Vec::new(),
    }
}

fn job(relay: Relay, envelope: Envelope, content: &[u8]) -> Job {
    Job {
        relay: Arc::new(relay),
        timeouts: timeouts(),
        hostname: "client.example".into(),
        recipients: (0..envelope.recipients.len()).collect(),
        envelope: Arc::new(envelope),
        content: Arc::new(content.to_vec()),
        before_dot: Arc::new(|_| Box::pin(async { Ok(()) })),
        cancel: CancellationToken::new(),
    }
}

fn simple(fake: &Fake, recipients: &[&str]) -> Job {
    job(relay(fake), envelope(recipients, MESSAGE), MESSAGE)
}

fn pool() -> Pool {
    pool_with(Zone::default())
}

fn pool_with(zone: Zone) -> Pool {
    let clock = Clock::following_tokio(Timestamp::UNIX_EPOCH);
    Pool::new(Arc::new(zone), clock)
}

fn error(delivery: &Delivery, place: usize) -> &RelayError {
    let found = delivery.attempts.iter().find(|it| it.recipient == place);
    found.unwrap().result.as_ref().unwrap_err()
}

fn code(delivery: &Delivery, place: usize) -> u16 {
    let found = delivery.attempts.iter().find(|it| it.recipient == place);
    match &found.unwrap().result {
        Ok(reply) | Err(RelayError::Refused { reply, .. }) => reply.code,
        Err(error) => panic!("{error:?}"),
    }
}

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
        ("EHLO", &b"250 a\r\n250 b\r\n"[..]),
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
        relay.credentials.as_mut().unwrap().password = Secret::new(password.into());
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
async fn starttls_is_used_and_what_was_said_before_it_forgotten() {
    let mut script = Script::offering(&["STARTTLS", "AUTH LOGIN", "DSN"]);
    script.offers_tls = vec!["AUTH PLAIN", "PIPELINING"];
    let fake = Fake::start(script).await;
    let relay = with_login(&fake, RelayTls::Required);
    let pool = pool();
    let delivery = pool
        .deliver(&job(
            relay.clone(),
            envelope(&["a@x.example"], MESSAGE),
            MESSAGE,
        ))
        .await;
    assert_eq!(code(&delivery, 0), 250);
    assert!(!delivery.dsn_passed_on);
    let lines = fake.lines();
    assert_eq!(
        lines[..3],
        ["EHLO client.example", "STARTTLS", "EHLO client.example"]
    );
    assert!(lines[3].starts_with("AUTH PLAIN "));

    let report = pool
        .test(Arc::new(relay), timeouts(), "client.example")
        .await;
    assert_eq!(report.error, None);
    assert_eq!(report.login, Some(Mechanism::Plain));
    assert!(report.tls.unwrap().verified);
    assert_eq!(report.offered.unwrap().auth, ["PLAIN"]);
    let said = report.transcript.to_string();
    assert!(
        said.contains("> AUTH PLAIN ***\n< 235") && said.ends_with("< 221 bye\n"),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn implicit_tls_is_made_before_anything_is_said() {
    let mut script = Script::offering(&["AUTH LOGIN", "PIPELINING"]);
    script.implicit_tls = true;
    let fake = Fake::start(script).await;
    let relay = with_login(&fake, RelayTls::Implicit);
    let delivery = pool()
        .deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
        .await;
    assert_eq!(code(&delivery, 0), 250);
    assert_eq!(
        fake.lines()[1..4],
        ["AUTH LOGIN", "amFu", "czNjcjN0LXdvcmQ="]
    );
}

#[tokio::test(start_paused = true)]
async fn connections_under_tls_are_reused_and_missed_when_they_die() {
    for implicit in [true, false] {
        let mut script = Script::offering(&["STARTTLS", "AUTH PLAIN", "PIPELINING"]);
        script.implicit_tls = implicit;
        let fake = Fake::start(script.at_nth("MAIL", 4, Act::Close)).await;
        let tls = if implicit {
            RelayTls::Implicit
        } else {
            RelayTls::Required
        };
        let pool = pool();
        for number in 1..=5 {
            let relay = with_login(&fake, tls);
            let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
            assert_eq!(code(&pool.deliver(&job).await, 0), 250, "{number}");
        }
        assert_eq!(fake.connections(), 2);
        assert_eq!(fake.contents().len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn replies_injected_before_the_handshake_are_refused() {
    let script = Script::offering(&["STARTTLS"])
        .at("STARTTLS", Act::Raw(b"220 go\r\n250 injected\r\n".to_vec()));
    let fake = Fake::start(script).await;
    let relay = with_login(&fake, RelayTls::Required);
    let delivery = pool()
        .deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
        .await;
    assert!(matches!(
        error(&delivery, 0),
        RelayError::Garbage {
            stage: Stage::StartTls,
            ..
        }
    ));
    assert!(!fake.lines().iter().any(|it| it.starts_with("AUTH")));
}

#[tokio::test(start_paused = true)]
async fn a_password_is_never_sent_to_the_wrong_one_or_in_clear() {
    let password_seen = |fake: &Fake| fake.lines().iter().any(|it| it.starts_with("AUTH"));
    // Not the pinned certificate.
    let fake = Fake::start(Script::offering(&["STARTTLS", "AUTH PLAIN"])).await;
    let mut relay = with_login(&fake, RelayTls::Required);
    relay.certificates.fingerprint = Some([7; 32]);
    let delivery = pool()
        .deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
        .await;
    let failed = error(&delivery, 0).to_string();
    assert!(
        failed.contains(&crate::tls::fingerprint_text(&fake.fingerprint)),
        "{failed}"
    );
    assert!(!password_seen(&fake));
    // STARTTLS stripped off the offers, or refused; whatever the configuration came to.
    for tls in [RelayTls::Required, RelayTls::Opportunistic] {
        for script in [
            Script::offering(&["AUTH PLAIN"]),
            Script::offering(&["STARTTLS", "AUTH PLAIN"]).at("STARTTLS", Act::Say("454 not now")),
        ] {
            let fake = Fake::start(script).await;
            let relay = with_login(&fake, tls);
            let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
            let delivery = pool().deliver(&job).await;
            assert!(delivery.attempts[0].result.is_err());
            assert!(!password_seen(&fake), "{tls:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn opportunistic_tls_that_fails_is_done_without() {
    let script = Script::offering(&["STARTTLS"]).at("STARTTLS", Act::Say("220 but no TLS"));
    let fake = Fake::start(script).await;
    let mut job = simple(&fake, &["a@x.example"]);
    job.timeouts.connect = Duration::from_secs(5);
    let delivery = pool().deliver(&job).await;
    assert_eq!(code(&delivery, 0), 250);
    assert_eq!(fake.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn every_mechanism_logs_in_and_a_refused_login_is_told_as_such() {
    for (method, offer) in [
        (AuthMethod::Auto, "AUTH CRAM-MD5 LOGIN PLAIN"),
        (AuthMethod::Login, "AUTH LOGIN PLAIN"),
        (AuthMethod::CramMd5, "AUTH CRAM-MD5"),
        (AuthMethod::XOauth2, "AUTH XOAUTH2"),
    ] {
        let mut script = Script::offering(&[]);
        script.offers = vec![offer];
        let fake = Fake::start(script).await;
        let mut relay = with_login(&fake, RelayTls::Off);
        relay.auth = method;
        let report = pool()
            .test(Arc::new(relay), timeouts(), "client.example")
            .await;
        assert_eq!(report.error, None, "{method:?}");
        assert!(!report.transcript.to_string().contains("s3cr3t"));
    }
    let script = Script::offering(&["AUTH PLAIN"]).at(
        "AUTH",
        Act::Say("535 5.7.8 bad password s3cr3t-word for jan"),
    );
    let fake = Fake::start(script).await;
    let mut relay = with_login(&fake, RelayTls::Off);
    // A second server is not tried: it would count a second wrong password.
    relay.servers.push(relay.servers[0].clone());
    let report = pool()
        .test(Arc::new(relay), timeouts(), "client.example")
        .await;
    let failed = report.error.unwrap();
    assert!(
        matches!(&failed, RelayError::Refused { stage: Stage::Auth, reply } if reply.code == 535)
    );
    assert!(
        failed.to_string().contains("bad password *** for jan"),
        "{failed}"
    );
    assert!(!report.transcript.to_string().contains("s3cr3t"));
    assert_eq!(fake.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_old_greeting_is_good_enough_for_an_old_server() {
    let fake = Fake::start(Script::default().at("EHLO", Act::Say("500 what?"))).await;
    let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
    assert_eq!(code(&delivery, 0), 250);
    assert_eq!(fake.lines()[1], "HELO client.example");
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_as_they_are_written() {
    let fake = Fake::start(Script::offering(ALL)).await;
    let port = fake.address.port();
    let name = |it: &str| Domain::parse(it).unwrap();
    let zone = Zone::default()
        .mx("mail.example", 10, "mx1.example")
        .mx("mail.example", 20, "mx2.example")
        // Nobody listens on the first.
        .address("mx1.example", "127.0.0.99")
        .address("mx2.example", "127.0.0.1")
        .address("mail.example", "127.0.0.98")
        .address("plain.example", "127.0.0.1")
        .mx("null.example", 0, ".")
        .mx("lost.example", 0, "gone.example")
        .trouble("slow.example");
    let pool = pool_with(zone);
    let outcome = async |host: Host| {
        let mut relay = relay(&fake);
        relay.servers = vec![Server {
            host,
            port,
            tls: RelayTls::Opportunistic,
        }];
        pool.deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
            .await
    };
    let found = outcome(Host::Mx(name("mail.example"))).await;
    assert!(
        found.server.starts_with("mx2.example [127.0.0.1]:"),
        "{}",
        found.server
    );
    let found = outcome(Host::Mx(name("plain.example"))).await;
    assert!(
        found.server.starts_with("plain.example ["),
        "{}",
        found.server
    );
    let found = outcome(Host::Name(name("mail.example"))).await;
    assert!(
        matches!(error(&found, 0), RelayError::Connect { .. }),
        "no MX for brackets"
    );
    for (host, temporary) in [
        ("null.example", false),
        ("lost.example", false),
        ("none.example", false),
        ("slow.example", true),
    ] {
        let found = outcome(Host::Mx(name(host))).await;
        assert_eq!(
            matches!(error(&found, 0), RelayError::Dns { .. }),
            temporary,
            "{host}"
        );
        assert_eq!(error(&found, 0).severity(), Severity::Relay);
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_server_is_tried_when_one_cannot_be_reached() {
    let busy = Fake::start(Script::default().at("GREETING", Act::Say("554 5.3.2 not today"))).await;
    let good = Fake::start(Script::offering(ALL)).await;
    let mut relay = relay(&busy);
    let mut nobody = relay.servers[0].clone();
    nobody.host = Host::Address("127.0.0.97".parse().unwrap());
    relay.servers = vec![
        nobody,
        server(&busy, RelayTls::Off),
        server(&good, RelayTls::Off),
    ];
    let pool = pool();
    let delivery = pool
        .deliver(&job(
            relay.clone(),
            envelope(&["a@x.example"], MESSAGE),
            MESSAGE,
        ))
        .await;
    assert_eq!(code(&delivery, 0), 250);
    relay.servers.pop();
    let delivery = pool
        .deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
        .await;
    assert!(matches!(
        error(&delivery, 0),
        RelayError::Refused {
            stage: Stage::Greeting,
            ..
        }
    ));
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

#[tokio::test]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture messages_a_second"]
async fn messages_a_second() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    for offers in [ALL, &["PIPELINING", "CHUNKING"], &[]] {
        let fake = Fake::start(Script::offering(offers)).await;
        let pool = pool();
        let job = simple(&fake, &["a@x.example"]);
        let started = tokio::time::Instant::now();
        for _ in 0..5_000 {
            assert_eq!(code(&pool.deliver(&job).await, 0), 250);
            SENT.fetch_add(1, Ordering::Relaxed);
        }
        println!(
            "{offers:?}: {:.0} messages/s",
            5_000.0 / started.elapsed().as_secs_f64()
        );
    }
}
