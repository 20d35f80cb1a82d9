//! The control socket of the real daemon, as strangers and clumsy programs use it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crate::client::{Client, message};
use crate::daemon::machine::need_descriptors;
use crate::daemon::{Daemon, Home, free_address, output, relay_table};
use crate::relay::FakeRelay;

const SOON: Duration = Duration::from_secs(120);
/// Clients that stop reading: nearly all that are served at once.
const STUCK: usize = 60;

/// A daemon whose relay takes nothing yet, so that what is submitted waits.
async fn setting() -> (Home, Daemon, SocketAddr) {
    let relay = FakeRelay::default()
        .answering("MAIL", "451 4.3.0 not now")
        .start()
        .await;
    let listen = free_address();
    let home = Home::new("", "");
    let table = relay_table("out", &relay, &home.path("ca.pem"), None, "");
    let config = format!(
        "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n[[listen]]\naddress = \"{listen}\"\n\
         [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n{table}"
    );
    home.configure(&config, "");
    let daemon = home.start().await;
    (home, daemon, listen)
}

async fn submit(listen: SocketAddr, text: &str) -> String {
    let mut client = Client::connect(listen).await;
    let mail = message("a@app.test", "b@example.net", "waits", text);
    let answer = client.submit("a@app.test", &["b@example.net"], &mail).await;
    answer.queue_id()
}

fn connect(home: &Home) -> UnixStream {
    let socket = UnixStream::connect(home.path("run/control.sock")).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.set_write_timeout(Some(SOON)).unwrap();
    socket
}

/// What is answered to one line, the greeting left out.
fn answer(home: &Home, line: &[u8]) -> String {
    let mut socket = connect(home);
    // A daemon that has heard enough may close before all is written.
    socket.write_all(line).ok();
    let mut text = String::new();
    socket.read_to_string(&mut text).ok();
    let (greeting, rest) = text.split_once('\n').unwrap();
    assert!(greeting.contains("\"protocol\":1"), "{greeting}");
    rest.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_gets_an_error_line_and_harms_nobody() {
    let (home, _daemon, _) = setting().await;
    let long = [b'x'; 100_000];
    let deep = "[".repeat(60_000) + "\n";
    for line in [
        &b"{\"quack\":{}}\n"[..],
        b"{\"queue\":{\"filter\":{\"colour\":\"red\"}}}\n",
        b"GET / HTTP/1.1\r\n",
        b"\n",
        b"\xff\xfe\0\n",
        b"{\"show\":{\"id\":\"../../etc/passwd\"}}\n",
        &long,
        deep.as_bytes(),
    ] {
        let said = answer(&home, line);
        let error: serde_json::Value = serde_json::from_str(said.trim_end()).expect(&said);
        assert_eq!(error["error"]["kind"], "bad-request", "{said}");
        assert!(!error["error"]["message"].as_str().unwrap().is_empty());
    }
    assert!(home.cli(&["status"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_and_readers_that_stop_hold_up_neither_mail_nor_administrators() {
    need_descriptors(2_500);
    let (home, daemon, listen) = setting().await;
    let id = submit(listen, &"0123456789abcdef\r\n".repeat(300_000)).await;
    let before = resident_kilobytes(daemon.pid());
    // These asked for 5 MB each and stop reading at the first of it.
    let mut stuck: Vec<UnixStream> = (0..STUCK).map(|_| connect(&home)).collect();
    for socket in &mut stuck {
        writeln!(socket, "{{\"cat\":{{\"id\":\"{id}\"}}}}").unwrap();
        let mut greeting = [0];
        while greeting != *b"\n" {
            socket.read_exact(&mut greeting).unwrap();
        }
        socket.read_exact(&mut [0; 20]).unwrap();
    }
    // Mail and one administrator pass them.
    submit(listen, "hello").await;
    let shown = home.cli(&["queue", "--json"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout).lines().count(), 2);

    let crowd: Vec<UnixStream> = (0..1_000).map(|_| connect(&home)).collect();
    // Whoever asks for nothing makes room, and is told so; whoever asks is answered.
    let mut first = String::new();
    let mut reader = BufReader::new(crowd.first().unwrap());
    while reader.read_line(&mut first).unwrap() > 0 {}
    assert!(first.contains("too many control connections"), "{first}");
    let told = home.cli(&["status"]);
    assert!(told.status.success(), "{told:?}");
    submit(listen, "hello again").await;
    // Nothing comes any more for whoever does not read.
    let mut grown = 0;
    for _ in 0..100 {
        let now = resident_kilobytes(daemon.pid()).saturating_sub(before);
        if now <= grown {
            break;
        }
        grown = now;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // A megabyte for each that is stuck, and 30 for all the others.
    let bound = 30_000 + STUCK as u64 * 1_100;
    println!("{grown} kB more, at most {bound}");
    assert!(grown < bound, "{grown} kB more");
    drop(reader);
    drop(crowd);
    drop(stuck);
    // Room again as soon as they are gone.
    let mut patience = 600;
    while !home.cli(&["status"]).status.success() {
        patience -= 1;
        assert!(patience > 0, "no room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Copies the program to where everybody may run it.
fn copy_program(home: &Home) {
    // Not in this process: a child that is started meanwhile would have the copy open for
    // writing, and nobody could run it.
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_penstock"))
        .arg(home.path("penstock"));
    assert!(output(&mut copy).status.success());
}

fn resident_kilobytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs to be root, to be somebody else; .ci/run is"]
async fn somebody_outside_the_group_is_refused_and_told_the_remedy() {
    let (home, _daemon, listen) = setting().await;
    submit(listen, "secret").await;
    // Everything on the way may be entered: only the socket itself is not for everybody.
    for folder in ["", "run"] {
        fs::set_permissions(home.path(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy_program(&home);
    for verb in [&["queue"][..], &["reload"], &["delete", "--all", "--yes"]] {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(home.path("penstock"))
            .arg("--socket")
            .arg(home.path("run/control.sock"))
            .args(verb);
        let output = output(&mut command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("group penstock-admin"), "{said}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    assert_eq!(
        home.cli(&["queue", "--json"])
            .stdout
            .iter()
            .filter(|it| **it == b'\n')
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_what_is_in_the_log_and_a_token_is_not() {
    let (home, _daemon, listen) = setting().await;
    let id = submit(listen, "hello").await;
    // What is just being sent cannot be held.
    home.logged("status=\"deferred\"").await;
    let token = "abcdefghijklmnopqrstuvwxyz234567";
    let uid = rustix::process::getuid().as_raw();
    for (words, logged) in [
        (&["hold", &id, "--yes"][..], "{\\\"change\\\":"),
        (&["reload"], "{\\\"reload\\\":"),
        (&["show", &id], "{\\\"show\\\":"),
        (&["cat", &id], "{\\\"cat\\\":"),
        (&["trace", &id], "{\\\"trace\\\":"),
        (&["relay", "confirm", token], "{\\\"relay-confirm\\\":"),
    ] {
        let mut command = home.cli_command();
        command.args(words).stdout(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let pid = child.id();
        let status = child.wait().unwrap();
        // Nobody gave such a token.
        assert_eq!(status.success(), words[0] != "relay", "{words:?}: {status}");
        home.logged(logged).await;
        let log = home.log();
        let line = log.lines().find(|it| it.contains(logged)).unwrap();
        for field in [format!("uid={uid}"), format!("pid={pid}")] {
            assert!(line.contains(&field), "{words:?}: {line}");
        }
    }
    assert!(!home.log().contains(token), "{}", home.log());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs to be root, to be somebody else; .ci/run is"]
async fn sendmail_finds_the_daemon_for_a_user_who_may_not_read_the_configuration() {
    let (home, _daemon, _) = setting().await;
    fs::set_permissions(home.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&home);
    // A /run of its own, as a machine with the package has it.
    let script = "mount -t tmpfs none /run && mkdir /run/penstock && \
         mount --bind \"$RUN\" /run/penstock && \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(home.path("penstock"))
        .args(["sendmail", "-f", "a@app.test", "b@example.net"])
        .env("RUN", home.path("run"))
        .stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"Subject: from cron\n\nhello\n").unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let queue = home.cli(&["queue", "--json"]);
    let listed = String::from_utf8_lossy(&queue.stdout).into_owned();
    assert_eq!(listed.lines().count(), 1, "{listed}");
}
