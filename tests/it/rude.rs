//! Clients that never stop, drip, or hang up in the middle of anything: bounded work, a
//! clear last word, one line in the log.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing_subscriber::fmt::MakeWriter;

use crate::client::{Client, message};
use crate::intake::{Intake, Wanted, plain, with};
use crate::machine;

/// What is logged on this thread, for as long as the guard lives.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        self.listen_to(tracing::Level::INFO)
    }

    pub fn listen_to(&self, level: tracing::Level) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(self.clone())
            .finish();
        machine::hear_everything();
        tracing::subscriber::set_default(subscriber)
    }

    /// Everything until now.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines about clients since the last time.
    fn take(&self) -> Vec<String> {
        let octets = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(octets).unwrap();
        let about = text.lines().filter(|it| it.contains("client="));
        about.map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

async fn until_alone(intake: &Intake) {
    let pause = Duration::from_millis(10);
    machine::until("nobody is connected", pause, async || {
        intake.shared.connections() == 0
    })
    .await;
}

/// Says the same until the server has enough; how many octets that took, and its last line.
async fn pester(intake: &Intake, opening: &str, again: &[u8]) -> (usize, String) {
    let stream = TcpStream::connect(intake.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut heard = Vec::new();
    let listening = read.read_to_end(&mut heard);
    let talking = async {
        let piece = again.repeat((4_096 / again.len()).max(1));
        let mut said = 0;
        if write.write_all(opening.as_bytes()).await.is_err() {
            return said;
        }
        while said < 64 << 20 && write.write_all(&piece).await.is_ok() {
            said += piece.len();
        }
        said
    };
    let (_, said) = tokio::join!(listening, talking);
    let heard = String::from_utf8(heard).unwrap();
    let last = heard.trim_end().rsplit("\r\n").next().unwrap_or_default();
    (said, last.to_owned())
}

#[tokio::test(start_paused = true)]
async fn whatever_is_said_without_end_has_one_and_one_line_in_the_log() {
    let log = Log::default();
    let _guard = log.listen();
    let intake = Intake::start(with("auth = \"optional\"")).await;
    let hello = "EHLO rude.test\r\n";
    let started = "EHLO rude.test\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\n";
    let errors = "421 4.7.0 app01.example.nl too many errors";
    let idle = "421 4.7.0 app01.example.nl too many commands without a message";
    let cases: &[(&str, &[u8], &str)] = &[
        (hello, b"x", "500 5.5.2 line without end"),
        ("", b"\0\xff\x1b[2J junk\r\n", errors),
        ("", b"FOO\r\n", errors),
        ("", b"\r\n", errors),
        ("", b"NOOP\r\n", idle),
        (hello, b"RSET\r\n", idle),
        ("", b"EHLO rude.test\r\n", idle),
        (hello, b"VRFY root\r\n", idle),
        (hello, b"MAIL FROM:<a@b.c> SIZE=99999999999\r\n", idle),
        (hello, b"MAIL FROM:<a@b.c>\r\n", errors),
        (hello, b"MAIL FROM:<a@b.c>\r\nRSET\r\n", idle),
        (hello, b"RCPT TO:<a@b.c>\r\n", errors),
        (hello, b"AUTH PLAIN\r\n*\r\n", errors),
        (
            hello,
            b"AUTH PLAIN AGphbgB4\r\n",
            "421 4.7.0 app01.example.nl too many failed logins",
        ),
        (hello, b"STARTTLS\r\n", errors),
        (hello, b"BDAT 3\r\nabc", errors),
        (
            hello,
            b"BDAT 99999999999999999999999\r\n",
            "501 5.5.4 syntax: BDAT size [LAST]",
        ),
        (started, b"RCPT TO:<d@e.f>\r\n", idle),
        (started, b"RCPT TO:<@>\r\n", idle),
        (started, b"BDAT 0\r\n", idle),
        (
            started,
            b"RCPT TO:<z@e.f>\r\nRCPT TO:<y@e.f>\r\nRSET\r\nMAIL FROM:<a@b.c>\r\n",
            idle,
        ),
    ];
    for (opening, again, last) in cases {
        let what = again.escape_ascii().to_string();
        let (said, heard) = pester(&intake, opening, again).await;
        assert_eq!(heard, *last, "{what}");
        assert!(said < 16 << 20, "{what}: {said} octets were listened to");
        until_alone(&intake).await;
        let lines = log.take();
        let away = lines.iter().filter(|it| it.contains("sent away"));
        assert_eq!(away.count(), 1, "{what}: {lines:#?}");
        // A failed login has a line of its own, a refusal one for all of its kind.
        let most = if what.contains("AGphbgB4") { 4 } else { 2 };
        assert!(lines.len() <= most, "{what}: {lines:#?}");
    }
    assert_eq!(intake.envelopes().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_without_end_is_listened_to_for_twenty_times_the_limit() {
    let log = Log::default();
    let _guard = log.listen();
    let intake = Intake::start(Wanted {
        top: "[message]\nmax-size = \"100KB\"",
        ..plain()
    })
    .await;
    let begun = "EHLO rude.test\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n";
    let body = format!("{begun}From: x@example.nl\r\n\r\n");
    let cases: &[(&str, &[u8])] = &[
        (begun, b"x"),
        (begun, b"From: x@example.nl\r\n"),
        (begun, b"Subject: x\r\n x\r\n"),
        (begun, b"\r\n"),
        (begun, b"\r"),
        (&body, b"x\r\n"),
        (&body, b"..\r\n"),
        (&body, b"x\n.\n"),
    ];
    for (opening, again) in cases {
        let what = again.escape_ascii().to_string();
        let (said, heard) = pester(&intake, opening, again).await;
        assert_eq!(
            heard, "552 5.3.4 message too large; the limit is 100000 octets",
            "{what}"
        );
        assert!(said < 16 << 20, "{what}: {said} octets were listened to");
        until_alone(&intake).await;
        let lines = log.take();
        assert_eq!(lines.len(), 1, "{what}: {lines:#?}");
    }
    assert_eq!(intake.envelopes().len(), 0);
}

#[tokio::test]
async fn a_client_that_only_stops_sending_gets_its_replies_and_is_let_go() {
    let intake = Intake::start(plain()).await;
    let mail = "From: x@example.nl\r\n\r\nx\r\n.\r\n";
    let transaction = "EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n";
    let whole = format!("{transaction}{mail}");
    for (said, accepted) in [("", 0), ("EHLO x\r\n", 0), (transaction, 0), (&whole, 1)] {
        let mut stream = TcpStream::connect(intake.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        until_alone(&intake).await;
        assert_eq!(heard.matches(" queued\r\n").count(), accepted, "{heard}");
        assert_eq!(intake.envelopes().len(), accepted);
    }
}

#[tokio::test(start_paused = true)]
async fn five_hundred_that_drip_stop_nobody_and_are_cut_off_in_time() {
    machine::need_descriptors(2_500);
    let intake = Intake::start(plain()).await;
    let start = tokio::time::Instant::now();
    let mut dripping = Vec::new();
    for number in 0..500 {
        let mut client = intake.client().await;
        if number % 2 == 0 {
            for command in ["MAIL FROM:<a@b.c>", "RCPT TO:<d@e.f>", "DATA"] {
                client.command(command).await;
            }
        }
        dripping.push(client);
    }
    let mail = message("x@example.nl", "a@b.c", "x", "x");
    let mut second: u64 = 0;
    while !dripping.is_empty() {
        let mut left = Vec::new();
        for mut client in dripping {
            if client.try_send(b"N").await.is_ok() {
                left.push(client);
            }
        }
        dripping = left;
        if second.is_multiple_of(30) {
            let mut honest = intake.client().await;
            let answer = honest.submit("a@b.c", &["a@b.c"], &mail).await;
            answer.expect_code(250);
        }
        assert!(second < 330, "{} drip on", dripping.len());
        tokio::time::sleep(Duration::from_secs(1)).await;
        second += 1;
    }
    until_alone(&intake).await;
    assert!(start.elapsed() < Duration::from_secs(340));
    assert!(intake.envelopes().len() >= 10);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_never_comes_or_drips_ends_within_a_minute() {
    let log = Log::default();
    let _guard = log.listen();
    let intake = Intake::start(with("tls = \"starttls\"")).await;
    for drip in [false, true] {
        let mut client = intake.client().await;
        client.command("STARTTLS").await.expect_code(220);
        let start = tokio::time::Instant::now();
        // The beginning of a ClientHello that says it is long.
        let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        for octet in hello.iter().chain(&[0; 489]) {
            if drip && client.try_send(&[*octet]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            if intake.shared.connections() == 0 {
                break;
            }
        }
        assert_eq!(intake.shared.connections(), 0);
        let took = start.elapsed().as_secs();
        assert!((59..=65).contains(&took), "drip {drip}: {took} s");
        let lines = log.take();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("TLS handshake failed"), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_reset_in_any_state_leaves_nothing_behind() {
    let log = Log::default();
    let _guard = log.listen();
    let intake = Intake::start(with("tls = \"starttls\"\nauth = \"optional\"")).await;
    let begun = "EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\n";
    let header = "From: x@example.nl\r\n\r\n";
    let states = [
        String::new(),
        "EH".into(),
        "EHLO x\r\n".into(),
        "EHLO x\r\nAUTH LOGIN\r\n".into(),
        "EHLO x\r\nSTARTTLS\r\n".into(),
        "EHLO x\r\nMAIL FROM:<a@b.c>\r\n".into(),
        begun.to_owned(),
        format!("{begun}DATA\r\n"),
        format!("{begun}DATA\r\n{header}half a li"),
        format!("{begun}DATA\r\n{header}{}", "x".repeat(600_000)),
        format!("{begun}DATA\r\n{header}\r\n.\r"),
        format!("{begun}BDAT 100\r\n{header}"),
        format!("{begun}BDAT {}\r\n{header}", header.len()),
        "x".repeat(100_000),
    ];
    for said in &states {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(intake.address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            // At once, or after it was read and answered.
            tokio::task::yield_now().await;
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
        until_alone(&intake).await;
        let lines = log.take();
        assert!(lines.len() <= 20, "{said:.60?}: {lines:#?}");
    }
    assert_eq!(intake.envelopes().len(), 0);
    let mail = message("x@example.nl", "a@b.c", "x", "x");
    let mut client = Client::connect(intake.address).await;
    let answer = client.submit("a@b.c", &["a@b.c"], &mail).await;
    answer.expect_code(250);
}
