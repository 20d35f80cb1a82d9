//! How the daemon behaves as a service: readiness, watchdog, sockets handed over,
//! reload, stopping, exit codes.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Client, message};
use crate::daemon::{Home, PATIENCE, free_address, output, relay_table};
use crate::relay::{Answer, FakeRelay};

const SOON: Duration = PATIENCE;

/// One listener, one relay as the default.
struct Setting {
    home: Home,
    relay: crate::relay::Relay,
    listen: std::net::SocketAddr,
}

async fn setting(relay: FakeRelay) -> Setting {
    let relay = relay.start().await;
    let listen = free_address();
    let home = Home::new("", "");
    let it = Setting {
        home,
        relay,
        listen,
    };
    it.home.configure(&it.config(""), "");
    it
}

impl Setting {
    fn config(&self, more: &str) -> String {
        let relay = relay_table("out", &self.relay, &self.home.path("ca.pem"), None, "");
        format!(
            "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n{more}\n[[listen]]\naddress = \"{}\"\n\
             [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n{relay}",
            self.listen
        )
    }

    async fn submit(&self, subject: &str) -> String {
        let mut client = Client::connect(self.listen).await;
        let mail = message("a@app.test", "b@example.net", subject, "hello");
        let answer = client.submit("a@app.test", &["b@example.net"], &mail).await;
        answer.queue_id()
    }
}

#[tokio::test]
async fn ready_is_said_when_mail_is_accepted_and_stopping_when_it_ends() {
    let it = setting(FakeRelay::default()).await;
    let mut daemon = it.home.start().await;
    let id = it.submit("one").await;
    it.relay.received(1, SOON).await;
    assert!(daemon.stop().await.success());
    assert!(
        daemon.heard().contains(&"STOPPING=1".to_owned()),
        "{:?}",
        daemon.heard()
    );
    assert!(it.home.log().contains(&id), "the queue id is in the log");
    std::net::TcpStream::connect(it.listen).unwrap_err();
}

#[tokio::test]
async fn the_watchdog_is_fed_at_least_twice_in_its_time() {
    let it = setting(FakeRelay::default()).await;
    let mut command = it.home.command();
    command.env("WATCHDOG_USEC", "30000000");
    let mut daemon = it.home.start_with(command).await;
    for _ in 0..2 {
        daemon.forget();
        // At half of the time, and five seconds more for a machine that is busy.
        assert!(daemon.told("WATCHDOG=1", Duration::from_secs(20)).await);
    }
}

#[tokio::test]
async fn a_listening_socket_handed_over_by_systemd_is_served() {
    let it = setting(FakeRelay::default()).await;
    let socket = TcpListener::bind(it.listen).unwrap();
    // A connection from before the start waits in the socket: nothing is refused.
    let early = std::net::TcpStream::connect(it.listen).unwrap();
    let mut daemon = it.home.start_with(activated(&it.home, &socket)).await;
    drop(socket);
    it.submit("handed over").await;
    it.relay.received(1, SOON).await;
    use std::io::Read;
    let mut greeting = [0; 3];
    early.set_read_timeout(Some(SOON)).unwrap();
    (&early).read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_socket_that_no_listener_names_is_refused() {
    let it = setting(FakeRelay::default()).await;
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = output(&mut activated(&it.home, &stranger));
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let address = stranger.local_addr().unwrap().to_string();
    assert!(said.contains(&address), "{said}");
}

/// A daemon that gets `socket` as systemd would give it: descriptor 3, LISTEN_FDS=1,
/// LISTEN_PID its own. `exec` in a shell keeps the process id.
fn activated(home: &Home, socket: &TcpListener) -> std::process::Command {
    let plain = home.command();
    let mut command = std::process::Command::new("/bin/sh");
    command
        .arg("-c")
        .arg("LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"")
        .arg(plain.get_program())
        .args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let from = socket.as_raw_fd();
    // SAFETY: only dup2 and fcntl, which are async-signal-safe, between fork and exec.
    unsafe {
        command.pre_exec(move || {
            if libc_dup2(from, 3) != 3 {
                return Err(std::io::Error::last_os_error());
            }
            // Where it was 3 already nothing was done, and it would be closed.
            let handed = BorrowedFd::borrow_raw(3);
            rustix::io::fcntl_setfd(handed, rustix::io::FdFlags::empty())?;
            Ok(())
        });
    }
    command
}

unsafe extern "C" {
    #[link_name = "dup2"]
    fn libc_dup2(from: i32, to: i32) -> i32;
}

#[tokio::test]
async fn sighup_takes_a_new_configuration_and_keeps_the_old_one_when_it_is_wrong() {
    let it = setting(FakeRelay::default()).await;
    let second = FakeRelay::default().start().await;
    let mut daemon = it.home.start().await;

    it.home.configure(&it.config("no-such-key = 1"), "");
    daemon.forget();
    daemon.signal(Signal::HUP);
    it.home.logged("no-such-key").await;
    // Ready again, although with the old one: systemd must not wait for ever.
    assert!(daemon.told("READY=1", SOON).await);
    let heard = daemon.heard();
    let since = heard.iter().find(|it| it.starts_with("MONOTONIC_USEC="));
    assert_eq!(
        heard.first().map(String::as_str),
        Some("RELOADING=1"),
        "{heard:?}"
    );
    assert!(since.is_some(), "{heard:?}");
    it.submit("old configuration").await;
    it.relay.received(1, SOON).await;

    let table = relay_table("two", &second, &it.home.path("ca2.pem"), None, "");
    let users = "[[user]]\naddress = \"a@app.test\"\nrelay = \"two\"\n";
    it.home.configure(&(it.config("") + &table), users);
    daemon.signal(Signal::HUP);
    it.home.logged("configuration reloaded").await;
    it.submit("new configuration").await;
    second.received(1, SOON).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn stopping_lets_a_client_in_data_and_a_running_delivery_finish() {
    let relay = FakeRelay::default().answering(
        ".",
        Answer::from("250 2.0.0 taken").after(Duration::from_secs(2)),
    );
    let it = setting(relay).await;
    let mut daemon = it.home.start().await;
    it.submit("running").await;
    it.relay.commanded("MAIL", 1, SOON).await;

    let mut idle = Client::connect(it.listen).await;
    let mut client = Client::connect(it.listen).await;
    client
        .command("MAIL FROM:<a@app.test>")
        .await
        .expect_code(250);
    client
        .command("RCPT TO:<b@example.net>")
        .await
        .expect_code(250);
    client.command("DATA").await.expect_code(354);
    client.send(b"From: a@app.test\r\n\r\n").await;
    daemon.signal(Signal::TERM);
    assert!(idle.end().await.starts_with("421 "));
    client.send(b"the rest\r\n.\r\n").await;
    client.reply().await.expect_code(250);
    let status = daemon.end(SOON).await.expect("an end");
    assert!(status.success());
    assert!(it.relay.transactions()[0].accepted());

    // What was accepted while stopping leaves after the next start, and nothing twice.
    let mut daemon = it.home.start().await;
    it.relay.received(2, SOON).await;
    assert!(daemon.stop().await.success());
    assert_eq!(it.relay.count(), 2);
}

#[tokio::test]
async fn two_daemons_do_not_share_a_spool() {
    let it = setting(FakeRelay::default()).await;
    let mut daemon = it.home.start().await;
    let output = it.home.run();
    assert!(!output.status.success());
    it.submit("the first lives").await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_wrong_configuration_ends_with_78_and_says_where() {
    let it = setting(FakeRelay::default()).await;
    for (config, words) in [
        (it.config("defualt-relay = \"x\""), "default-relay"),
        (it.config("bounces-via = \"nobody\""), "nobody"),
        (
            "[[listen]]\naddress = \"0.0.0.0:2525\"\n".to_owned(),
            "0.0.0.0:2525",
        ),
        ("[[listen\n".to_owned(), "penstock.toml"),
    ] {
        it.home.configure(&config, "");
        let output = it.home.run();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn an_unknown_argument_ends_with_64() {
    let home = Home::new("", "");
    let output = output(home.command().arg("--no-such-flag"));
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert_eq!(home.cli(&["no-such-verb"]).status.code(), Some(64));
}

#[tokio::test]
async fn without_a_daemon_a_live_verb_ends_with_69_and_the_queue_is_read_from_the_log() {
    let relay = FakeRelay::default().answering("MAIL", "451 4.3.0 not now");
    let it = setting(relay).await;
    let mut daemon = it.home.start().await;
    let id = it.submit("waits").await;
    assert!(daemon.stop().await.success());
    assert_eq!(it.home.cli(&["limits"]).status.code(), Some(69));
    let queue = it.home.cli(&["queue", "--json"]);
    let listed = String::from_utf8_lossy(&queue.stdout).into_owned();
    assert!(queue.status.success() && listed.contains(&id), "{queue:?}");
    let content = it.home.cli(&["cat", &id]);
    assert!(
        String::from_utf8_lossy(&content.stdout).contains("Subject: waits"),
        "{content:?}"
    );
}

/// The daemon in a mount namespace of its own, where the journal's socket is `journal`.
fn in_front_of(journal: &std::path::Path, home: &Home) -> std::process::Command {
    let plain = home.command();
    let mut command = std::process::Command::new("unshare");
    // Standard error is what systemd would have made of it: that is how it is recognised.
    let script = "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/journal && \
         touch /run/systemd/journal/socket && mount --bind \"$JOURNAL\" /run/systemd/journal/socket && \
         export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) && exec \"$0\" \"$@\"";
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env("JOURNAL", journal);
    for (name, value) in plain.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

#[tokio::test]
#[ignore = "needs to be root, for a journal of its own; .ci/run is"]
async fn the_journal_gets_an_entry_an_event_with_fields_to_look_for() {
    let it = setting(FakeRelay::default()).await;
    it.home.configure(
        &it.config(""),
        "[[user]]\naddress = \"@app.test\"\nrelay = \"out\"\n",
    );
    let path = it.home.path("journal.sock");
    let journal = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(SOON)).unwrap();
    let mut daemon = it.home.start_with(in_front_of(&path, &it.home)).await;
    let id = it.submit("to the journal").await;
    it.relay.received(1, SOON).await;
    let entry = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = journal.recv(&mut buffer).expect("no entry says delivered");
            let fields = fields(&buffer[..length]);
            if fields.contains(&("MESSAGE".into(), "delivered".into())) {
                return fields;
            }
        }
    })
    .await
    .unwrap();
    for (name, value) in [
        ("PENSTOCK_QUEUE_ID", id.as_str()),
        ("PENSTOCK_USER", "@app.test"),
        ("PENSTOCK_FROM", "a@app.test"),
        ("PENSTOCK_RELAY", "out"),
        ("PENSTOCK_RECIPIENT", "b@example.net"),
        ("PENSTOCK_STATUS", "delivered"),
        ("PENSTOCK_CODE", "250"),
        // tracing's info is the journal's notice.
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "penstockd"),
    ] {
        assert!(
            entry.contains(&(name.into(), value.into())),
            "{name}={value}: {entry:#?}"
        );
    }
    assert!(daemon.stop().await.success());
}

/// The fields of an entry in the journal's own format: `NAME=value`, or the name alone, the
/// length in eight octets, and the value.
fn fields(mut entry: &[u8]) -> Vec<(String, String)> {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    let mut fields = Vec::new();
    while let Some(end) = entry.iter().position(|it| *it == b'\n') {
        let line = &entry[..end];
        entry = &entry[end + 1..];
        if let Some(equals) = line.iter().position(|it| *it == b'=') {
            fields.push((text(&line[..equals]), text(&line[equals + 1..])));
            continue;
        }
        let length = u64::from_le_bytes(entry[..8].try_into().unwrap()) as usize;
        fields.push((text(line), text(&entry[8..8 + length])));
        entry = &entry[8 + length + 1..];
    }
    fields
}

#[tokio::test]
async fn an_event_is_one_line_of_text_or_one_json_object() {
    let it = setting(FakeRelay::default().answering("RCPT", "550 5.1.1 no \x1b[2Juser")).await;
    for format in ["plain", "json"] {
        std::fs::remove_file(it.home.path("log")).ok();
        let mut command = it.home.command();
        command.args(["--log", format]);
        let mut daemon = it.home.start_with(command).await;
        let id = it.submit("one line").await;
        // Not just "550": a report of the run before is refused in the same words.
        let ours = |line: &str| line.contains(&id) && line.contains("550");
        let end = tokio::time::Instant::now() + SOON;
        while !it.home.log().lines().any(ours) {
            assert!(tokio::time::Instant::now() < end, "{}", it.home.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(daemon.stop().await.success());
        let log = it.home.log();
        let said: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&id) && line.contains("550"))
            .collect();
        assert_eq!(said.len(), 1, "{log}");
        assert!(!log.contains('\x1b'), "{log}");
        if format == "json" {
            for line in log.lines() {
                let event: serde_json::Value = serde_json::from_str(line).expect(line);
                assert!(
                    event["level"].is_string() && event["message"].is_string(),
                    "{line}"
                );
            }
            let event: serde_json::Value = serde_json::from_str(said[0]).unwrap();
            assert_eq!(event["queue_id"], id.as_str());
            assert_eq!(event["status"], "failed");
        }
    }
}
