//! Promise 4 and the intake: who may send what, and that a client finds plain SMTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use penstock::accept::{
    Assignment, Bound, CrowdLimits, Hooks, Live, ServeError, Shared, Verdict, serve,
};
use penstock::clock::Clock;
use penstock::config::Config;
use penstock::mail::{
    Body, Envelope, Hold, HoldReason, Mailing, QueueId, ReversePath, Rule, State,
};
use penstock::route::Directory;
use penstock::spool::{Spool, SpoolOptions};
use penstock::tls::ServerTls;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::certificates::Authority;
use crate::client::{Client, message, stuff};

/// An intake with a spool behind it, and nothing behind that.
struct Intake {
    address: SocketAddr,
    spool: Spool,
    shared: Arc<Shared>,
    live: watch::Sender<Arc<Live>>,
    stop: watch::Sender<bool>,
    served: JoinHandle<Result<(), ServeError>>,
    accepted: Arc<Mutex<Vec<Envelope>>>,
    authority: Authority,
    users: String,
    _folder: tempfile::TempDir,
}

/// What a test wants otherwise.
#[derive(Default)]
struct Wanted {
    listener: &'static str,
    top: &'static str,
    limits: CrowdLimits,
    verdict: Option<Verdict>,
}

fn users() -> String {
    let cheap = Params::new(64, 1, 1, None).unwrap();
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap)
        .hash_password(b"geheim")
        .unwrap();
    format!(
        "[[user]]\naddress = \"jan@example.nl\"\naliases = [\"j.jansen@example.nl\"]\n\
         relay = \"own\"\npassword-hash = \"{hash}\"\n\
         [[user]]\naddress = \"@example.nl\"\nrelay = \"own\"\n"
    )
}

fn live(listener: &str, top: &str, users: &str, tls: Option<ServerTls>) -> Arc<Live> {
    let text = format!(
        "hostname = \"app01.example.nl\"\n{top}\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [relays.own]\nserver = \"[192.0.2.1]:25\"\n"
    );
    let config = Config::parse(&text, users).unwrap();
    Arc::new(Live {
        directory: Arc::new(Directory::new(&config)),
        config: Arc::new(config),
        tls,
    })
}

impl Intake {
    async fn start(wanted: Wanted) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let files = penstock::config::TlsFiles {
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
        };
        authority
            .sign(&["localhost"])
            .write(&files.certificate, &files.key);
        let tls = ServerTls::from_files(&files).unwrap();
        let users = users();
        let (live, live_now) = watch::channel(live(wanted.listener, wanted.top, &users, Some(tls)));
        let clock = Clock::following_tokio("2026-11-21T12:00:00Z".parse().unwrap());
        let options = SpoolOptions::at(folder.path().join("spool"));
        let (spool, _) = Spool::open(options, clock.clone()).unwrap();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let seen = accepted.clone();
        let hooks = Hooks {
            assign: Arc::new(|it| Assignment {
                mailing: Mailing {
                    key: "m".into(),
                    label: it.header.subject.clone().unwrap_or_default(),
                },
                hold: None,
            }),
            content_check: wanted.verdict.map(|verdict| {
                let check = move |_: &_, _: &[u8]| verdict.clone();
                Arc::new(check) as Arc<penstock::accept::ContentCheck>
            }),
            is_active: Arc::new(|_| true),
            accepted: Arc::new(move |envelope, _| seen.lock().unwrap().push(envelope.clone())),
        };
        let shared = Shared::new(
            live_now,
            spool.clone(),
            clock,
            hooks,
            wanted.limits,
            Duration::from_secs(30),
        );
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let bound = Bound {
            socket,
            configured: "127.0.0.1:0".parse().unwrap(),
        };
        #[allow(clippy::disallowed_methods, reason = "the test is the lifecycle")]
        let served = tokio::spawn(serve(bound, shared.clone(), stopped));
        Self {
            address,
            spool,
            shared,
            live,
            stop,
            served,
            accepted,
            authority,
            users,
            _folder: folder,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    fn envelopes(&self) -> Vec<Envelope> {
        self.accepted.lock().unwrap().clone()
    }

    async fn content(&self, id: QueueId) -> String {
        let mut reader = self.spool.content(id).await.unwrap().unwrap();
        String::from_utf8(reader.read(usize::MAX).await.unwrap()).unwrap()
    }

    async fn only_content(&self) -> String {
        let envelopes = self.envelopes();
        assert_eq!(envelopes.len(), 1, "{envelopes:?}");
        self.content(envelopes[0].id).await
    }
}

fn plain() -> Wanted {
    Wanted::default()
}

fn with(listener: &'static str) -> Wanted {
    Wanted {
        listener,
        ..Wanted::default()
    }
}

#[tokio::test]
async fn what_comes_in_is_stored_byte_for_byte_behind_its_trace_fields() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let body = format!(
        "From: Erp <erp@example.nl>\r\nSubject: Factuur\r\n\r\n.stuffed\r\n..\r\n{}\r\n\r\n",
        "long".repeat(5000)
    );
    let answer = client
        .submit(
            "bounces@example.nl",
            &["a@example.net", "b@example.net"],
            body.as_bytes(),
        )
        .await;
    let id: QueueId = answer.queue_id().parse().unwrap();
    let envelope = intake.envelopes().remove(0);
    assert_eq!(envelope.id, id);
    assert_eq!(envelope.from.to_string(), "erp@example.nl");
    assert_eq!(envelope.rule, Rule::Domain("@example.nl".into()));
    assert_eq!(envelope.relay, "own");
    assert_eq!(envelope.mailing.label, "Factuur");
    assert_eq!(envelope.recipients.len(), 2);
    assert_eq!(envelope.client, "127.0.0.1");
    assert_eq!(envelope.body, Body::SevenBit);
    assert_eq!(envelope.state, State::Waiting { not_before: None });
    let content = intake.content(id).await;
    let own = content.find("From: Erp").unwrap();
    assert_eq!(&content[own..], body);
    let trace = &content[..own];
    assert!(
        trace.starts_with(
            "Received: from app.test ([127.0.0.1])\r\n\tby app01.example.nl with ESMTP id "
        ),
        "{trace}"
    );
    assert!(trace.contains(&format!("Message-ID: <{id}@app01.example.nl>\r\n")));
    assert!(trace.contains("\r\nDate: Sat, 21 Nov 2026 12:00:"));
    assert_eq!(envelope.message_id, format!("{id}@app01.example.nl"));
    assert_eq!(envelope.size_bytes, content.len() as u64);
    assert_eq!(envelope.wire_bytes, stuff(content.as_bytes()).len() as u64);
}

#[tokio::test]
async fn a_large_message_with_eight_bits_streams_through() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let mut content = message("erp@example.nl", "a@example.net", "x", "");
    content.extend("é regel\r\n".repeat(200_000).into_bytes());
    client
        .submit("", &["a@example.net"], &content)
        .await
        .expect_code(250);
    let envelope = intake.envelopes().remove(0);
    assert_eq!(envelope.body, Body::EightBitMime);
    assert_eq!(envelope.reverse_path, ReversePath::Null);
    assert!(intake.only_content().await.as_bytes().ends_with(&content));
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order_and_a_dialogue_goes_on_after_refusals() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let refused = "From: x@example.com\r\n\r\nx\r\n.\r\n";
    let taken = "From: x@example.nl\r\n\r\nx\r\n.\r\n";
    client
        .send(
            format!(
                "MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n{refused}\
                 MAIL FROM:<a@b.c> SIZE=99\r\nRCPT TO:<broken\r\nRCPT TO:<d@e.f>\r\nDATA\r\n{taken}QUIT\r\n"
            )
            .as_bytes(),
        )
        .await;
    for code in [250, 250, 354, 550, 250, 501, 250, 354, 250, 221] {
        let answer = client.reply().await.expect_code(code);
        if code == 550 {
            assert_eq!(
                answer.text(),
                "5.7.1 no relay for <x@example.com>; add it to users.toml"
            );
        }
    }
    assert_eq!(client.end().await, "");
    assert_eq!(intake.envelopes().len(), 1);
}

#[tokio::test]
async fn a_message_ends_at_one_place_only() {
    let start = "MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nFrom: x@example.nl\r\n\r\nx";
    let smuggled =
        "MAIL FROM:<evil@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nFrom: x@example.nl\r\n\r\ny\r\n.\r\n";
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r.\r",
        "\r\n.\n",
        "\r\n.\r",
        "\r\r\n.\r\r\n",
        "\r\n\0.\r\n",
        "\n\n.\r\n",
    ] {
        for (listener, code) in [("", 550), ("bare-lf = \"repair\"", 250)] {
            let intake = Intake::start(with(listener)).await;
            let mut client = intake.client().await;
            client
                .send(format!("{start}{end}{smuggled}QUIT\r\n").as_bytes())
                .await;
            // A NUL in the body is no bare line ending: it is content like any other.
            let code = if end.contains('\0') { 250 } else { code };
            for code in [250, 250, 354, code, 221] {
                let answer = client.reply().await;
                assert_eq!(answer.code, code, "{end:?} {answer:?}");
            }
            let envelopes = intake.envelopes();
            assert_eq!(envelopes.len(), usize::from(code == 250), "{end:?}");
            if code == 250 {
                let content = intake.only_content().await;
                assert!(content.contains("MAIL FROM:<evil@b.c>"), "{content}");
            }
        }
    }
}

#[tokio::test]
async fn chunks_are_put_together_and_checked_like_data() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let text = "From: x@example.nl\r\n\r\n.dot\r\n.\r\nmore\r\n";
    let (first, rest) = text.split_at(10);
    client
        .send(
            format!(
                "MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nBDAT {}\r\n{first}BDAT {} LAST\r\n{rest}\
                 MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nBDAT 4\r\nab\ncBDAT 1 LAST\r\nxRSET\r\nBDAT 5 LAST\r\nabcdeNOOP\r\n",
                first.len(),
                rest.len()
            )
            .as_bytes(),
        )
        .await;
    for code in [250, 250, 250, 250, 250, 250, 550, 503, 250, 503, 250] {
        let answer = client.reply().await;
        assert_eq!(answer.code, code, "{answer:?}");
    }
    let content = intake.only_content().await;
    assert!(content.ends_with(text), "{content}");
    let envelope = intake.envelopes().remove(0);
    assert_eq!(envelope.wire_bytes, stuff(content.as_bytes()).len() as u64);
}

#[tokio::test]
async fn logins_work_under_starttls_and_nothing_survives_it() {
    let intake = Intake::start(with("tls = \"starttls\"\nauth = \"required\"")).await;
    let mut client = intake.client().await;
    client
        .command("MAIL FROM:<jan@example.nl>")
        .await
        .expect_code(530);
    client.start_tls(intake.authority.client()).await;
    client
        .command("MAIL FROM:<jan@example.nl>")
        .await
        .expect_code(530);
    client
        .auth_plain("jan@example.nl", "raden")
        .await
        .expect_code(535);
    client
        .auth_login("JAN@example.nl", "geheim")
        .await
        .expect_code(235);
    let own = message("J.Jansen@example.nl", "a@example.net", "x", "x");
    client
        .submit("jan@example.nl", &["a@example.net"], &own)
        .await
        .expect_code(250);
    let others = message("erp@example.nl", "a@example.net", "x", "x");
    let refused = client
        .submit("jan@example.nl", &["a@example.net"], &others)
        .await;
    assert!(
        refused
            .expect_code(550)
            .text()
            .contains("is not an address of the login")
    );
    let refused = client
        .submit("erp@example.nl", &["a@example.net"], &own)
        .await;
    assert!(refused.expect_code(550).text().contains("reverse-path"));
    let envelope = intake.envelopes().remove(0);
    assert_eq!(envelope.login.as_deref(), Some("jan@example.nl"));
    let content = intake.only_content().await;
    assert!(
        content.contains(" with ESMTPSA\r\n\t(TLSv1.3 "),
        "{content}"
    );
}

#[tokio::test]
async fn implicit_tls_works_and_plain_clients_get_nowhere() {
    let intake = Intake::start(with("tls = \"implicit\"\nauth = \"optional\"")).await;
    let mut client = Client::connect_tls(intake.address, intake.authority.client()).await;
    let mail = message("erp@example.nl", "a@example.net", "x", "x");
    client
        .submit("a@b.c", &["a@example.net"], &mail)
        .await
        .expect_code(250);
    assert!(intake.only_content().await.contains(" with ESMTPS\r\n"));
    let mut plain = Client::dial(intake.address).await.unwrap();
    plain.send(b"EHLO x\r\nMAIL FROM:<a@b.c>\r\n").await;
    assert!(!plain.end().await.contains("250"));
}

#[tokio::test]
async fn commands_behind_starttls_are_an_injection() {
    let intake = Intake::start(with("tls = \"starttls\"")).await;
    let mut client = intake.client().await;
    client.send(b"STARTTLS\r\nMAIL FROM:<evil@b.c>\r\n").await;
    client.reply().await.expect_code(554);
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn a_user_with_a_password_is_protected_from_everybody_else() {
    let mail = message("jan@example.nl", "a@example.net", "x", "x");
    for (listener, code) in [
        ("auth = \"optional\"", 550),
        ("senders = [\"jan@example.nl\"]", 250),
        ("senders = [\"erp@example.nl\"]", 550),
    ] {
        let intake = Intake::start(with(listener)).await;
        let mut client = intake.client().await;
        client
            .submit("a@b.c", &["a@example.net"], &mail)
            .await
            .expect_code(code);
    }
}

#[tokio::test]
async fn a_header_that_two_programs_read_differently_is_refused() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    for header in [
        "From: <a@example.nl> <b@example.nl>\r\n",
        "From: a@example.nl\r\nFrom: b@example.nl\r\n",
        "From: a@example.nl\r\njunk\r\nFrom: b@example.nl\r\n",
        "Subject: a\0\r\nFrom: a@example.nl\r\n",
    ] {
        let content = format!("{header}\r\nx\r\n");
        let answer = client
            .submit("a@b.c", &["a@example.net"], content.as_bytes())
            .await;
        assert!(
            answer.expect_code(550).text().starts_with("5.6.0 "),
            "{header}"
        );
    }
    let mut endless = b"From: a@example.nl\r\nX-Filler: ".to_vec();
    endless.extend(b"filler ".repeat(80_000));
    let answer = client.submit("a@b.c", &["a@example.net"], &endless).await;
    answer.expect_code(552);
    let long = "x-filler: filler filler\r\n".repeat(8_000);
    let long = format!("{long}From: a@example.nl\r\n\r\nx\r\n");
    client
        .submit("a@b.c", &["a@example.net"], long.as_bytes())
        .await
        .expect_code(250);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_swallowed_and_refused() {
    let intake = Intake::start(Wanted {
        top: "[message]\nmax-size = \"100kB\"",
        ..plain()
    })
    .await;
    let mut client = intake.client().await;
    client
        .command("MAIL FROM:<a@b.c> SIZE=100001")
        .await
        .expect_code(552);
    let mut content = message("x@example.nl", "a@b.c", "x", "x");
    content.extend(b"0123456789\r\n".repeat(20_000));
    let answer = client.submit("a@b.c", &["a@example.net"], &content).await;
    assert!(answer.expect_code(552).text().starts_with("5.3.4"));
    client.command("NOOP").await.expect_code(250);
}

#[tokio::test]
async fn a_content_check_holds_or_refuses_before_the_250() {
    let hold = Hold {
        reason: HoldReason::Hint,
        by: "penstock".into(),
        since: "2026-11-21T12:00:00Z".parse().unwrap(),
        note: "no subject".into(),
    };
    let mail = message("x@example.nl", "a@b.c", "x", "x");
    let intake = Intake::start(Wanted {
        verdict: Some(Verdict::Hold(hold.clone())),
        ..plain()
    })
    .await;
    intake
        .client()
        .await
        .submit("a@b.c", &["a@b.c"], &mail)
        .await
        .expect_code(250);
    assert_eq!(intake.envelopes()[0].state, State::Held(hold));
    let intake = Intake::start(Wanted {
        verdict: Some(Verdict::Reject("no\nsubject".into())),
        ..plain()
    })
    .await;
    let answer = intake
        .client()
        .await
        .submit("a@b.c", &["a@b.c"], &mail)
        .await;
    assert_eq!(answer.expect_code(550).text(), "5.7.1 no\\u{a}subject");
}

#[tokio::test]
async fn a_reload_acts_on_the_next_transaction_and_closes_what_is_gone() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let mail = message("x@example.com", "a@b.c", "x", "x");
    client
        .submit("a@b.c", &["a@b.c"], &mail)
        .await
        .expect_code(550);
    let users = format!(
        "{}[[user]]\naddress = \"x@example.com\"\nrelay = \"own\"\n",
        intake.users
    );
    intake.live.send_replace(live("", "", &users, None));
    client
        .submit("a@b.c", &["a@b.c"], &mail)
        .await
        .expect_code(250);
    let mut gone = Config::clone(&intake.live.borrow().config);
    gone.listen.clear();
    intake.live.send_replace(Arc::new(Live {
        directory: Arc::new(Directory::new(&gone)),
        config: Arc::new(gone),
        tls: None,
    }));
    client.command("NOOP").await.expect_code(421);
    let mut late = Client::dial(intake.address).await.unwrap();
    late.reply().await.expect_code(421);
}

#[tokio::test]
async fn stopping_sends_idle_clients_away_and_lets_a_message_finish() {
    let mut intake = Intake::start(plain()).await;
    let mut idle = intake.client().await;
    let mut busy = intake.client().await;
    for command in ["MAIL FROM:<a@b.c>", "RCPT TO:<d@e.f>"] {
        busy.command(command).await.expect_code(250);
    }
    busy.command("DATA").await.expect_code(354);
    intake.stop.send_replace(true);
    assert!(idle.reply().await.expect_code(421).text().contains("4.3.2"));
    assert_eq!(idle.end().await, "");
    busy.send(b"From: x@example.nl\r\n\r\nx\r\n.\r\n").await;
    busy.reply().await.expect_code(250);
    busy.reply().await.expect_code(421);
    drop(busy);
    (&mut intake.served).await.unwrap().unwrap();
    assert!(Client::dial(intake.address).await.is_err());
    assert_eq!(intake.envelopes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_and_drips_end_at_their_time() {
    let intake = Intake::start(plain()).await;
    let start = tokio::time::Instant::now();
    let mut silent = intake.client().await;
    assert!(
        silent
            .reply()
            .await
            .expect_code(421)
            .text()
            .contains("4.4.2")
    );
    assert_eq!(start.elapsed().as_secs(), 300);

    // A command that drips has no more time than one that does not come.
    let mut drips = intake.client().await;
    let start = tokio::time::Instant::now();
    while drips.try_send(b"N").await.is_ok() && start.elapsed().as_secs() < 1000 {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(start.elapsed().as_secs() <= 320, "{:?}", start.elapsed());

    // Content that drips ends, too, though it is never silent.
    let mut drips = intake.client().await;
    for command in ["MAIL FROM:<a@b.c>", "RCPT TO:<d@e.f>", "DATA"] {
        drips.command(command).await;
    }
    let start = tokio::time::Instant::now();
    while drips.try_send(b"x").await.is_ok() && start.elapsed().as_secs() < 1000 {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(start.elapsed().as_secs() <= 320, "{:?}", start.elapsed());

    // Neither does small talk keep a connection for ever.
    let mut talker = intake.client().await;
    let start = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        if talker.try_send(b"NOOP\r\n").await.is_err() || talker.try_reply().await.is_err() {
            break;
        }
        assert!(start.elapsed().as_secs() < 4000);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(intake.shared.connections(), 0);
}

#[tokio::test]
async fn a_thousand_idle_clients_keep_nobody_out() {
    let intake = Intake::start(Wanted {
        limits: CrowdLimits {
            total: 400,
            per_friend: 300,
            per_stranger: 10,
        },
        ..plain()
    })
    .await;
    let mut idle = Vec::new();
    for number in 0..1_000 {
        let mut client = Client::dial(intake.address).await.unwrap();
        if number % 3 == 0 {
            client.send(b"EHL").await;
        }
        idle.push(client);
    }
    let mail = message("x@example.nl", "a@b.c", "x", "x");
    let mut client = intake.client().await;
    client
        .submit("a@b.c", &["a@b.c"], &mail)
        .await
        .expect_code(250);
    assert!(intake.shared.connections() <= 300);
    let mut first = idle.swap_remove(0);
    first.reply().await.expect_code(220);
    assert!(
        first
            .reply()
            .await
            .expect_code(421)
            .text()
            .contains("4.3.2")
    );
}

#[tokio::test]
async fn a_client_that_vanishes_before_its_250_has_its_message_accepted() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    client
        .send(
            b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nFrom: x@example.nl\r\n\r\nx\r\n.\r\n",
        )
        .await;
    drop(client);
    let mut half = intake.client().await;
    half.send(b"MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nFrom: x@example.nl\r\n\r\nx\r\n.")
        .await;
    drop(half);
    while intake.shared.connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        intake.envelopes().len(),
        1,
        "the whole one, not the half one"
    );
}

#[tokio::test]
async fn a_listener_that_would_be_an_open_relay_does_not_serve() {
    let intake = Intake::start(plain()).await;
    let socket = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let bound = Bound {
        socket,
        // The configuration says loopback; the socket knows better.
        configured: "127.0.0.1:0".parse().unwrap(),
    };
    let (_stop, stopped) = watch::channel(false);
    let served = serve(bound, intake.shared.clone(), stopped).await;
    assert!(
        matches!(served, Err(ServeError::OpenRelay(_))),
        "{served:?}"
    );
}
