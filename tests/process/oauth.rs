//! A relay with tokens and the real programs, against a provider that is written in Python:
//! other HTTP, other TLS, other base64 than ours.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::Instant;

use crate::certificates::Authority;
use crate::client::{Client, message};
use crate::daemon::{Home, PATIENCE, free_address};

/// The provider; ends when it is dropped.
struct Provider {
    child: Child,
    _stdin: ChildStdin,
    told: Arc<Mutex<Vec<Value>>>,
    http: u64,
    smtp: u64,
    roots: String,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Provider {
    async fn start(folder: &Path) -> Self {
        let authority = Authority::new();
        let pair = authority.sign(&["127.0.0.1"]);
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/provider.py");
        let mut child = Command::new("python3")
            .args([
                script,
                &file("provider.crt", &pair.certificate),
                &file("provider.key", &pair.key),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told: Arc<Mutex<Vec<Value>>> = Arc::default();
        let heard = told.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let it = serde_json::from_str(&line).unwrap();
                heard.lock().unwrap().push(it);
            }
        });
        let mut it = Self {
            _stdin: child.stdin.take().unwrap(),
            child,
            told,
            http: 0,
            smtp: 0,
            roots: file("roots.pem", &authority.pem()),
        };
        let ports = it
            .until("its ports", |it| it.get("http").is_some(), 1)
            .await;
        it.http = ports["http"].as_u64().unwrap();
        it.smtp = ports["smtp"].as_u64().unwrap();
        it
    }

    /// Waits until so many such things have happened; the last of them.
    async fn until(&self, what: &str, is: impl Fn(&Value) -> bool, count: usize) -> Value {
        let began = Instant::now();
        loop {
            let found: Vec<Value> = {
                let told = self.told.lock().unwrap();
                told.iter().filter(|it| is(it)).cloned().collect()
            };
            if found.len() >= count {
                return found[count - 1].clone();
            }
            assert!(
                began.elapsed() < PATIENCE,
                "never: {what}: {:#?}",
                self.told.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn mail(&self, subject: &str) {
        let it = self.until(subject, |it| it["mail"] == subject, 1).await;
        assert_eq!(it["login"], "mailer@example.nl");
    }

    /// Has a person do something.
    fn person(&self, does: &str) {
        let url = format!("https://127.0.0.1:{}/{does}", self.http);
        let code = format!(
            "import ssl,sys,urllib.request as u;u.urlopen({url:?},context=ssl.create_default_context(cafile={:?}))",
            self.roots
        );
        assert!(
            Command::new("python3")
                .args(["-c", &code])
                .status()
                .unwrap()
                .success()
        );
    }
}

async fn submit(listen: std::net::SocketAddr, subject: &str) {
    let mail = message("jan@example.nl", "bob@example.org", subject, "hello");
    let mut client = Client::connect(listen).await;
    let answer = client.submit("jan@example.nl", &["bob@example.org"], &mail);
    answer.await.expect_code(250);
}

/// Kills it when this is not dropped in time: whoever reads from it gets the end.
fn ended_when_late(child: &Child) -> mpsc::Sender<()> {
    let pid = Pid::from_child(child);
    let (ended, until) = mpsc::channel();
    std::thread::spawn(move || {
        if until.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            kill_process(pid, Signal::KILL).ok();
        }
    });
    ended
}

/// A login that is under way: what it printed until it waits.
fn begin_login(home: &Home) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut login = home
        .cli_command()
        .args(["relay", "login", "out"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(login.stdout.take().unwrap());
    let mut text = String::new();
    let ended = ended_when_late(&login);
    while !text.contains("Ctrl-C") {
        if stdout.read_line(&mut text).unwrap() == 0 {
            panic!("it ended: {text}{:?}", login.wait_with_output());
        }
    }
    drop(ended);
    (login, stdout, text)
}

fn log_in(home: &Home, provider: &Provider) -> String {
    let (mut login, mut stdout, mut text) = begin_login(home);
    provider.person("approve");
    let ended = ended_when_late(&login);
    stdout.read_to_string(&mut text).unwrap();
    drop(ended);
    assert!(login.wait().unwrap().success(), "{text}");
    text
}

fn said(output: &std::process::Output) -> (Option<i32>, String) {
    let words = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy);
    (output.status.code(), words.concat())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python, and waits in real time"]
async fn a_person_logs_in_once_and_mail_flows_through_kills_until_the_login_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start(folder.path()).await;
    let (http, smtp, roots) = (provider.http, provider.smtp, &provider.roots);
    let listen = free_address();
    let config = format!(
        "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n[[listen]]\naddress = \"{listen}\"\n\
         [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n\
         [relays.out]\nserver = \"127.0.0.1:{smtp}\"\ntls = \"implicit\"\nca-file = \"{roots}\"\n\
         username = \"mailer@example.nl\"\n[relays.out.oauth]\n\
         token-url = \"https://127.0.0.1:{http}/token\"\n\
         device-url = \"https://127.0.0.1:{http}/device\"\nca-file = \"{roots}\"\n\
         client-id = \"app & 1\"\nclient-secret = \"app%s3cr3t\"\nscope = \"mail offline+access\"\n"
    );
    let home = Home::new(&config, "");
    let start = || {
        let mut command = home.command();
        command.args(["--log-level", "trace"]);
        home.start_with(command)
    };
    let mut daemon = start().await;
    let (_, list) = said(&home.cli(&["relay", "list"]));
    assert!(list.contains("no login"), "{list}");
    submit(listen, "first").await;
    home.logged("relay paused").await;
    let (code, tested) = said(&home.cli(&["relay", "test", "out"]));
    assert_eq!(code, Some(1), "{tested}");
    assert!(tested.contains("nobody has logged in yet"), "{tested}");
    assert!(tested.contains("Run penstock relay login out"), "{tested}");

    let mut told = log_in(&home, &provider);
    for words in [
        "https://login.example.nl/device",
        "WDJB-MJHT",
        "logged in for out as mailer@example.nl",
        "out takes the login",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
    provider.mail("first").await;

    // The tokens in memory die with it; the refresh token is good once.
    for subject in ["second", "third"] {
        daemon.kill();
        daemon = start().await;
        submit(listen, subject).await;
        provider.mail(subject).await;
    }

    provider.person("revoke");
    daemon.kill();
    daemon = start().await;
    submit(listen, "fourth").await;
    let revoked = |it: &Value| it["error"] == "invalid_grant";
    provider.until("a refused refresh token", revoked, 1).await;
    home.logged("AADSTS50173: *** was revoked.").await;
    let (_, list) = said(&home.cli(&["relay", "list", "out"]));
    assert!(list.contains("Run penstock relay login out"), "{list}");
    told += &list;

    // Ctrl-C gives up, and changes nothing.
    let (mut login, ..) = begin_login(&home);
    let pid = Pid::from_raw(i32::try_from(login.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert!(!login.wait().unwrap().success());
    // A wrong token from elsewhere is refused with the provider's words.
    std::fs::write(home.path("token"), "wrong-s3cr3t\n").unwrap();
    let file = home.path("token").display().to_string();
    let (code, refused) =
        said(&home.cli(&["relay", "login", "out", "--refresh-token-file", &file]));
    assert_eq!(code, Some(1), "{refused}");
    assert!(
        refused.contains("AADSTS50173: *** was revoked."),
        "{refused}"
    );
    told += &refused;

    told += &log_in(&home, &provider);
    provider.mail("fourth").await;
    drop(daemon);
    told += &home.log();
    assert!(!told.contains("s3cr3t"), "a secret was told");
}
