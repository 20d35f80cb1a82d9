//! The companion CLI as a program: exit codes, what is printed, what is asked of the
//! daemon. The daemon is a script behind the real control socket.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use penstock::clock::Clock;
use penstock::control::protocol::{
    Action, ChangeReport, FailureKind, Item, MessageState, MessageSummary, Request,
};
use penstock::control::{Responder, server};
use penstock::mail::{
    Body, Envelope, ForwardPath, Hold, HoldReason, Mailbox, Mailing, Notify, Origin, QueueId,
    Recipient, RecipientStatus, ReversePath, Rule, State,
};
use penstock::spool::{Reserve, Spool, SpoolOptions};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use crate::relay::FakeRelay;

/// What the scripted daemon does with a request.
enum Say {
    Items(Vec<Item>),
    /// So many messages.
    Messages(u64),
    Fail(FailureKind, &'static str),
}

struct Scripted {
    directory: TempDir,
    heard: Arc<Mutex<Vec<Request>>>,
    _stop: watch::Sender<bool>,
}

#[allow(clippy::disallowed_methods, reason = "a test's own tasks")]
fn daemon(answer: impl Fn(&Request) -> Say + Send + 'static) -> Scripted {
    let directory = TempDir::new().unwrap();
    let bound = server::Bound::open(&directory.path().join("control.sock")).unwrap();
    let (sender, mut requests) = mpsc::channel::<(Request, Responder)>(4);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(server::serve(bound, sender, stopped));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    tokio::spawn(async move {
        while let Some((request, responder)) = requests.recv().await {
            let said = answer(&request);
            hears.lock().unwrap().push(request);
            match said {
                Say::Fail(kind, words) => responder.fail(kind, words).await,
                Say::Items(items) => {
                    for item in items {
                        responder.item(item).await.ok();
                    }
                    responder.done().await;
                }
                Say::Messages(number) => {
                    for place in 0..number {
                        let item = Item::Message(Box::new(message(place)));
                        if responder.item(item).await.is_err() {
                            break;
                        }
                    }
                    responder.done().await;
                }
            }
        }
    });
    Scripted {
        directory,
        heard,
        _stop: stop,
    }
}

fn message(place: u64) -> MessageSummary {
    MessageSummary {
        id: QueueId::from_number(place).to_string(),
        accepted: "2026-11-21T12:00:00Z".parse().unwrap(),
        from: "jan@uwdomein.nl".into(),
        to: "bob@example.net".into(),
        recipients: 1,
        size_bytes: 4096,
        user: None,
        relay: "own".into(),
        mailing: "Vacatures".into(),
        mailing_key: "s-1".into(),
        state: MessageState::Waiting,
        why: "limit".into(),
        why_text: "the batch of its relay is full".into(),
        next: None,
        attempts: 0,
        error: None,
    }
}

/// A spool that takes mail however full the disk of this machine is.
fn options(state: &Path) -> SpoolOptions {
    SpoolOptions {
        min_free: Reserve::Bytes(0),
        ..SpoolOptions::at(state)
    }
}

/// `penstock` with these words, its surroundings cleaned.
fn penstock(socket: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command
        .args(words)
        .env_clear()
        .env("PENSTOCK_SOCKET", socket)
        .env("PENSTOCK_CONFIG", "/nonexistent/penstock.toml")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Scripted {
    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    async fn run(&self, words: &[&str]) -> Output {
        finished(penstock(&self.socket(), words)).await
    }

    fn heard(&self) -> Vec<Request> {
        self.heard.lock().unwrap().clone()
    }
}

async fn finished(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || crate::daemon::output(&mut command))
        .await
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn exit_codes_tell_programs_what_happened() {
    let nowhere = TempDir::new().unwrap();
    let socket = nowhere.path().join("control.sock");
    for (words, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["queue", "--help"], 0),
        (&["trace", "-n", "0", "jan@example.nl"], 64),
        (&[], 64),
        (&["quack"], 64),
        (&["show", "not-an-id"], 64),
        (&["queue", "--state", "sleeping"], 64),
        (&["hold"], 64),
        (&["hold", "--all", "--relay", "own"], 64),
        (&["status"], 69),
        (&["completions", "bash"], 0),
        (&["man"], 0),
        (&["explain", "550 5.1.1 user unknown"], 0),
        (&["config", "check"], 78),
    ] {
        let output = finished(penstock(&socket, words)).await;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}",
            err(&output)
        );
    }
    let output = finished(penstock(&socket, &["status"])).await;
    assert!(
        err(&output).contains("systemctl start penstock"),
        "{}",
        err(&output)
    );

    for (kind, code) in [
        (FailureKind::NotFound, 1),
        (FailureKind::Failed, 1),
        (FailureKind::BadRequest, 64),
        (FailureKind::TryAgain, 75),
        (FailureKind::BadConfiguration, 78),
    ] {
        let daemon = daemon(move |_| Say::Fail(kind, "in so many words"));
        let output = daemon.run(&["reload"]).await;
        assert_eq!(output.status.code(), Some(code), "{kind:?}");
        assert_eq!(err(&output), "penstock: in so many words\n");
    }
}

#[tokio::test]
async fn the_queue_is_a_table_for_people_and_whole_objects_for_programs() {
    let daemon = daemon(|_| Say::Messages(2));
    let table = daemon.run(&["queue"]).await;
    let lines: Vec<String> = out(&table).lines().map(Into::into).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("ID             AGE   SIZE  FROM"));
    assert!(lines[1].starts_with("0000000000000 "));
    assert_eq!(lines[3], "2 messages, 2 recipients, 8.1 kB");
    assert!(lines.iter().all(|it| it.len() <= 80));

    let json = daemon.run(&["queue", "--json"]).await;
    let messages: Vec<MessageSummary> = out(&json)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(messages, [message(0), message(1)]);
}

#[tokio::test]
async fn a_filter_is_said_once_and_reaches_the_daemon() {
    let daemon = daemon(|_| Say::Messages(0));
    let words = "queue 1K9XW3Q5G0000 --user erp --from @uwdomein.nl --to bob@example.net \
                 --relay own --mailing Vac* --state held --older-than 2h --larger-than 1MB \
                 --error 5.7.1 -n 5";
    let output = daemon
        .run(&words.split_whitespace().collect::<Vec<_>>())
        .await;
    assert_eq!(out(&output), "no message matches\n");
    assert_eq!(
        serde_json::to_string(&daemon.heard()[0]).unwrap(),
        r#"{"queue":{"filter":{"ids":["1k9xw3q5g0000"],"user":"erp","from":"@uwdomein.nl","to":"bob@example.net","relay":"own","mailing":"Vac*","state":"held","older_than_seconds":7200,"larger_than_bytes":1000000,"error":"5.7.1"},"limit":5}}"#
    );
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let daemon = daemon(|_| Say::Messages(1_000_000));
    let mut child = penstock(&daemon.socket(), &["queue"]).spawn().unwrap();
    let (line, status, said) = tokio::task::spawn_blocking(move || {
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        drop(reader);
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        (line, child.wait().unwrap(), said)
    })
    .await
    .unwrap();
    assert!(line.starts_with("ID "));
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_long_queue_is_listed_in_little_memory() {
    // A million takes a minute; the memory is the same.
    let rows = std::env::var("PENSTOCK_QUEUE_ROWS").ok();
    let rows = rows.map_or(100_000, |it| it.parse().unwrap());
    let daemon = daemon(move |_| Say::Messages(rows));
    for words in [&["queue"][..], &["queue", "--json"]] {
        let mut child = penstock(&daemon.socket(), words)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", child.id());
        let (lines, peak) = tokio::task::spawn_blocking(move || {
            let mut lines = 0;
            let mut peak = 0;
            let reader = BufReader::new(child.stdout.take().unwrap());
            for line in reader.lines() {
                line.unwrap();
                lines += 1;
                // The last picture before it ends tells its highest.
                if lines % 10_000 == 0 {
                    peak = peak.max(peak_kilobytes(&status));
                }
            }
            child.wait().unwrap();
            (lines, peak)
        })
        .await
        .unwrap();
        assert!(lines >= rows);
        assert!(peak > 0 && peak < 30_000, "{peak} kB");
    }
}

fn peak_kilobytes(status: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find(|it| it.starts_with("VmHWM:"));
    line.and_then(|it| it.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

fn report(dry_run: bool, messages: u64) -> Item {
    Item::Change(ChangeReport {
        action: "hold".into(),
        dry_run,
        messages,
        recipients: messages,
        size_bytes: messages * 10_000,
        sending: 0,
        unchanged: 0,
        held: 0,
        paused: vec![],
        first_ids: vec![],
        senders: vec!["jan@uwdomein.nl".into()],
        up_to: Some("1k9xw3q5g0000".into()),
    })
}

fn changing(messages: u64) -> Scripted {
    daemon(move |request| match request {
        Request::Change(change) => Say::Items(vec![report(change.dry_run, messages)]),
        _ => Say::Fail(FailureKind::BadRequest, "what?"),
    })
}

#[tokio::test]
async fn a_change_says_first_what_it_would_do_and_touches_just_that() {
    let daemon = changing(312);
    // Nobody to ask, and not told to go ahead.
    let output = daemon.run(&["hold", "--from", "jan@uwdomein.nl"]).await;
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        err(&output),
        "penstock: hold 312 messages of jan@uwdomein.nl, 3.1 MB\nnothing done; say --yes to do it\n"
    );
    // Only asked.
    let output = daemon.run(&["delete", "--all", "--dry-run"]).await;
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (
            Some(0),
            "delete 312 messages of jan@uwdomein.nl, 3.1 MB; nobody is told\n"
        )
    );
    assert!(
        daemon
            .heard()
            .iter()
            .all(|it| matches!(it, Request::Change(it) if it.dry_run))
    );

    let words = [
        "hold",
        "--from",
        "jan@uwdomein.nl",
        "--yes",
        "--note",
        "until Monday",
    ];
    let output = daemon.run(&words).await;
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (Some(0), "held 312 messages of jan@uwdomein.nl, 3.1 MB\n")
    );
    let heard = daemon.heard();
    let Some(Request::Change(change)) = heard.last() else {
        panic!()
    };
    assert_eq!(change.action, Action::Hold);
    assert!(!change.dry_run);
    // What came in after the preview stays as it is.
    assert_eq!(change.up_to.as_deref(), Some("1k9xw3q5g0000"));
    assert_eq!(change.note.as_deref(), Some("until Monday"));
}

#[tokio::test]
async fn naming_a_message_that_is_being_sent_ends_with_75_and_a_filter_does_not() {
    let sending = daemon(|request| match request {
        Request::Change(change) => {
            let Item::Change(report) = report(change.dry_run, 0) else {
                panic!()
            };
            Say::Items(vec![Item::Change(ChangeReport {
                sending: 1,
                ..report
            })])
        }
        _ => Say::Fail(FailureKind::BadRequest, "what?"),
    });
    let output = sending.run(&["delete", "1k9xw3q5g0000", "--yes"]).await;
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (
            Some(75),
            "nothing done: 1 message is being sent just now: try again\n"
        )
    );
    let output = sending.run(&["delete", "--relay", "own", "--yes"]).await;
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn naming_a_message_that_is_not_there_fails_and_an_empty_filter_does_not() {
    let daemon = changing(0);
    let output = daemon.run(&["release", "1k9xw3q5g0000", "--yes"]).await;
    assert_eq!(
        (output.status.code(), out(&output).as_str()),
        (Some(1), "no message matches\n")
    );
    let output = daemon.run(&["release", "--relay", "own", "--yes"]).await;
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn it_works_as_sendmail_by_that_name_and_by_that_verb() {
    let relay = FakeRelay::default().start().await;
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("penstock.toml");
    let text = format!(
        "hostname = \"app01.example.nl\"\n[[listen]]\naddress = \"{}\"\n",
        relay.addr
    );
    std::fs::write(&config, text).unwrap();
    for (name, words) in [
        (
            "/usr/sbin/sendmail",
            &["-t", "-i", "-fbounce@uwdomein.nl"][..],
        ),
        (
            "penstock",
            &["sendmail", "-t", "-i", "-fbounce@uwdomein.nl"],
        ),
    ] {
        let mut command = penstock(Path::new("/nonexistent"), words);
        command.arg0(name).env("PENSTOCK_CONFIG", &config);
        let text = "To: Bob <bob@example.net>\nBcc: ann@example.org\nSubject: hi\n\n.\nbody\n";
        let output = fed(command, text).await;
        assert_eq!(
            (output.status.code(), err(&output).as_str()),
            (Some(0), ""),
            "{name}"
        );
    }
    let taken = relay.accepted();
    assert_eq!(taken.len(), 2);
    for message in taken {
        assert_eq!(message.reverse_path(), "bounce@uwdomein.nl");
        assert_eq!(
            message.forward_paths(),
            ["bob@example.net", "ann@example.org"]
        );
        let text = message.text();
        assert!(text.contains("<bounce@uwdomein.nl>\r\nDate: "), "{text}");
        assert!(!text.contains("Bcc"), "{text}");
        assert!(text.ends_with("\r\n\r\n.\r\nbody\r\n"), "{text}");
    }
}

#[tokio::test]
async fn sendmail_without_a_daemon_lets_the_caller_write_and_says_try_again() {
    let address = crate::daemon::free_address().to_string();
    let words = ["sendmail", "--server", &address, "bob@example.net"];
    let command = penstock(Path::new("/nonexistent"), &words);
    // More than a pipe holds: a caller that is cut off never sees the exit code.
    let output = fed(command, &"x\n".repeat(500_000)).await;
    assert_eq!(output.status.code(), Some(75));
    assert!(err(&output).contains("is it running?"), "{}", err(&output));
}

#[tokio::test]
async fn sendmail_says_why_it_was_refused() {
    let relay = FakeRelay::default()
        .answering(
            "MAIL",
            "550 5.7.1 no relay for <x@y.nl>; add it to users.toml",
        )
        .start()
        .await;
    let address = relay.addr.to_string();
    let words = ["sendmail", "--server", &address, "bob@example.net"];
    let output = fed(penstock(Path::new("/nonexistent"), &words), "hello\n").await;
    assert_eq!(output.status.code(), Some(77));
    assert!(
        err(&output).contains("5.7.1 no relay for <x@y.nl>; add it"),
        "{}",
        err(&output)
    );
}

#[tokio::test]
async fn whoever_does_not_listen_gets_the_same_exit_code() {
    let full = || std::fs::File::options().write(true).open("/dev/full");
    let deaf = |mut command: Command| {
        command.stderr(full().unwrap());
        command
    };
    let folder = TempDir::new().unwrap();
    let nowhere = folder.path().join("control.sock");
    let config = folder.path().join("penstock.toml");
    let text = "default-relay = \"own\"\n[spool]\npath = \"state\"\n\
                [relays.own]\nserver = \"a.example\"\n";
    std::fs::write(&config, text).unwrap();
    std::fs::write(folder.path().join("users.toml"), "").unwrap();
    let config = config.to_str().unwrap();
    let state = options(&folder.path().join("state"));
    drop(Spool::open(state, Clock::system()).unwrap());
    let closed = crate::daemon::free_address().to_string();
    for (words, code) in [
        (&["sendmail", "--help"][..], 0),
        (&["sendmail", "--version"], 0),
        (&["sendmail", "-i"], 64),
        (&["sendmail", "--server", &closed, "bob@example.net"], 75),
        (&["sendmail", "--server", &closed, "-bs"], 75),
        (&["--help"], 0),
        (&["nonsense"], 64),
        (&["status"], 69),
        (&["config", "check"], 78),
        (&["queue", "--config", config], 0),
        (&["trace", "nobody@example.net", "--config", config], 1),
        (&["route", "jan@example.nl", "--config", config], 0),
    ] {
        let mut command = deaf(penstock(&nowhere, words));
        if matches!(words, ["sendmail", ..]) {
            command.stdout(full().unwrap());
        }
        let output = fed(command, "").await;
        assert_eq!(output.status.code(), Some(code), "{words:?}");
    }
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_penstockd"));
    daemon.env_clear().args(["--config", "/nonexistent"]);
    let output = fed(deaf(daemon), "").await;
    assert_eq!(output.status.code(), Some(78));

    // In the middle of a transaction the message still counts.
    let relay = FakeRelay::default().start().await;
    let address = relay.addr.to_string();
    let words = [
        "sendmail",
        "-v",
        "-f",
        "jan@example.nl",
        "--server",
        &address,
        "bob@example.net",
    ];
    let output = fed(deaf(penstock(&nowhere, &words)), "hello\n").await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(relay.accepted().len(), 1);
}

#[tokio::test]
async fn what_is_printed_into_a_file_fits_in_80_columns() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let config = path("penstock.toml");
    std::fs::write(&config, "").unwrap();
    std::fs::write(path("users.toml"), "").unwrap();
    std::fs::write(
        path("main.cf"),
        "relayhost = [smtp.office365.com]:587\nsmtp_destination_rate_delay = 1s\n\
         smtp_destination_concurrency_limit = 4\nsmtp_destination_recipient_limit = 50\n",
    )
    .unwrap();
    let import = ["import", "postfix", &path(""), "--config", &config].map(str::to_owned);
    let mut calls = vec![import.to_vec()];
    for verb in verbs(&[]) {
        calls.push(vec![verb.clone(), "--help".to_owned()]);
        if matches!(verb.as_str(), "relay" | "user" | "import" | "config") {
            for below in verbs(&[&verb]) {
                calls.push(vec![verb.clone(), below, "--help".to_owned()]);
            }
        }
    }
    assert!(calls.len() > 30, "{calls:?}");
    for call in calls {
        let words: Vec<&str> = call.iter().map(String::as_str).collect();
        let output = finished(penstock(Path::new("/nonexistent"), &words)).await;
        assert_eq!(output.status.code(), Some(0), "{call:?}: {}", err(&output));
        for line in out(&output).lines() {
            assert!(line.chars().count() <= 80, "{call:?}: {line}");
        }
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_is_told_with_its_remedy_by_every_verb() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("penstock.toml");
    std::fs::create_dir(&config).unwrap();
    let other = folder.path().join("other.toml");
    std::fs::write(&other, "users = \"penstock.toml\"\n").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o640)).unwrap();
    for file in [&config, &other] {
        for words in [
            &["relay", "set", "own", "--default"][..],
            &["user", "add", "jan@example.nl"],
            &["config", "check"],
        ] {
            let mut command = penstock(Path::new("/nonexistent"), words);
            command.arg("--config").arg(file);
            let output = finished(command).await;
            let said = err(&output) + &out(&output);
            let said: Vec<&str> = said.split_whitespace().collect();
            let said = said.join(" ");
            assert_eq!(output.status.code(), Some(78), "{words:?}: {said}");
            assert!(
                said.contains("cannot read") && said.contains("correct the path or the file"),
                "{words:?}: {said}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_daemon_stopped_the_spool_is_read_and_not_changed() {
    let directory = TempDir::new().unwrap();
    let state = directory.path().join("state");
    let config = directory.path().join("penstock.toml");
    std::fs::write(&config, "[spool]\npath = \"state\"\n").unwrap();
    let (spool, _) = Spool::open(options(&state), Clock::system()).unwrap();
    let mut ids = Vec::new();
    for (from, held) in [("jan@uwdomein.nl", false), ("piet@uwdomein.nl", true)] {
        let envelope = waiting(spool.next_id(), from, held);
        ids.push(envelope.id.to_string());
        let mut content = spool.new_content(None);
        content.write(b"Subject: hi\r\n\r\nbody\r\n").await.unwrap();
        let content = content.finish().await.unwrap();
        spool.commit(envelope, content).await.unwrap();
    }
    let run = |words: Vec<String>| {
        let mut command = penstock(&directory.path().join("control.sock"), &[]);
        command.args(words).env("PENSTOCK_CONFIG", &config);
        finished(command)
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();

    // While somebody has it open, it is left alone.
    let output = run(words("queue")).await;
    assert_eq!(output.status.code(), Some(69), "{}", err(&output));
    assert!(err(&output).contains("is in use"), "{}", err(&output));
    spool.close().await.unwrap();

    // A child that another test started just then has the lock until it becomes its program.
    let mut output = run(words("queue")).await;
    for _ in 0..50 {
        if output.status.code() != Some(69) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        output = run(words("queue")).await;
    }
    assert!(err(&output).starts_with("penstock: penstockd does not run; this is what"));
    assert_eq!(out(&output).lines().count(), 4, "{}", out(&output));
    let output = run(words("queue --state held --json")).await;
    let held: MessageSummary = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(
        (held.id.as_str(), held.why.as_str()),
        (ids[1].as_str(), "administrator")
    );
    let output = run(words(&format!("show {}", ids[0]))).await;
    assert!(
        out(&output).contains("penstockd is stopped"),
        "{}",
        out(&output)
    );
    let output = run(words(&format!("cat {}", ids[0]))).await;
    assert_eq!(out(&output), "Subject: hi\r\n\r\nbody\r\n");
    let output = run(words("trace bob@example.net")).await;
    assert_eq!(
        out(&output).matches("accepted").count(),
        2,
        "{}",
        out(&output)
    );
    let output = run(words("show 1k9xw3q5g0000")).await;
    assert_eq!(output.status.code(), Some(1));
    // What would change it needs the daemon.
    let output = run(words("delete --all --yes")).await;
    assert_eq!(output.status.code(), Some(69));
}

fn waiting(id: QueueId, from: &str, held: bool) -> Envelope {
    let from = Mailbox::parse(from).unwrap();
    let accepted = "2026-11-21T12:00:00Z".parse().unwrap();
    Envelope {
        id,
        origin: Origin::Submission,
        accepted,
        reverse_path: ReversePath::Mailbox(from.clone()),
        from,
        rule: Rule::Default,
        relay: "own".into(),
        mailing: Mailing {
            key: "s-1".into(),
            label: "hi".into(),
        },
        login: None,
        client: "127.0.0.1".into(),
        message_id: "m@uwdomein.nl".into(),
        body: Body::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        size_bytes: 21,
        wire_bytes: 24,
        recipients: vec![Recipient {
            path: ForwardPath::parse("bob@example.net").unwrap(),
            notify: Notify::Unspecified,
            orcpt: None,
            status: RecipientStatus::Waiting,
            last: None,
        }],
        state: match held {
            false => State::Waiting { not_before: None },
            true => State::Held(Hold {
                reason: HoldReason::Administrator,
                by: "jan".into(),
                since: accepted,
                note: String::new(),
            }),
        },
        attempts: 0,
        first_failure: None,
        warned: false,
        past: Vec::new(),
    }
}

/// Runs it with this on standard input, as a caller that writes before it reads.
async fn fed(mut command: Command, text: &str) -> Output {
    let text = text.to_owned();
    tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        crate::daemon::machine::ended(child)
    })
    .await
    .unwrap()
}

/// The words below "Commands:" in the help of `penstock` or of one of its verbs.
fn verbs(words: &[&str]) -> Vec<String> {
    let asked = [words, &["--help"]].concat();
    let output = penstock(Path::new("/nonexistent"), &asked)
        .output()
        .unwrap();
    let help = out(&output);
    let Some((_, list)) = help.split_once("\nCommands:\n") else {
        return Vec::new();
    };
    list.lines()
        .take_while(|it| !it.is_empty())
        .filter_map(|it| it.strip_prefix("  ")?.split(' ').next())
        .filter(|it| !it.is_empty() && *it != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_verb_has_a_call_on_the_page_of_verbs() {
    let page = include_str!("../../docs/verbs.md");
    let mut leaves = Vec::new();
    for verb in verbs(&[]) {
        let below = verbs(&[&verb]);
        match below.is_empty() {
            true => leaves.push(verb),
            false => leaves.extend(below.iter().map(|it| format!("{verb} {it}"))),
        }
    }
    assert!(leaves.len() > 35, "{leaves:?}");
    let missing: Vec<&String> = leaves
        .iter()
        .filter(|it| {
            let section = page.split_once(&format!("\n## {it}\n"));
            let section = section.map_or("", |(_, rest)| rest);
            let section = section.split("\n## ").next().unwrap();
            !section.contains(&format!("penstock {it}"))
        })
        .collect();
    assert!(
        missing.is_empty(),
        "docs/verbs.md has no call of {missing:?}: show them in docs/make-verbs, and run it"
    );
}

#[test]
fn what_verbs_print_is_at_most_80_columns_wide() {
    let page = include_str!("../../docs/verbs.md");
    let mut blocks = page.split("```");
    blocks.next();
    for block in blocks.step_by(2) {
        for line in block.lines().filter(|it| !it.starts_with("$ ")) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

#[test]
fn every_call_on_the_page_of_verbs_is_one_that_exists() {
    let page = include_str!("../../docs/verbs.md");
    let mut verbs = 0;
    for line in page.lines() {
        let Some(call) = line.strip_prefix("$ penstock ") else {
            continue;
        };
        let words: Vec<&str> = call.split_whitespace().collect();
        let deep = matches!(words[0], "relay" | "user" | "config" | "import");
        let mut asked = words[..1 + usize::from(deep)].to_vec();
        asked.push("--help");
        let output = penstock(Path::new("/nonexistent"), &asked)
            .output()
            .unwrap();
        assert!(output.status.success(), "{call}");
        verbs += 1;
    }
    assert!(verbs > 35, "{verbs}");
}
