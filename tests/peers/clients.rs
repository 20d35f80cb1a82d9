//! Real clients: whatever one sends arrives as if Penstock had not been between.
//!
//! Each message goes twice, straight to a relay and through Penstock: a client may write
//! a message as it likes, but both must be the same octets, trace fields aside.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;

use crate::certificates::Authority;
use crate::daemon::{Daemon, Home, PATIENCE, free_address, output, relay_table};
use crate::programs;
use crate::relay::{FakeRelay, Relay, Tls, without_trace};

const FROM: &str = "jan@uwdomein.nl";
const TO: &str = "bob@example.net";
const USERNAME: &str = "jan@uwdomein.nl";
const PASSWORD: &str = "correct horse";

/// How a client reaches its server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Plain,
    StartTls,
    Implicit,
    /// STARTTLS, then a login.
    Auth,
}

const MODES: [Mode; 4] = [Mode::Plain, Mode::StartTls, Mode::Implicit, Mode::Auth];

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::StartTls => "starttls",
            Self::Implicit => "implicit",
            Self::Auth => "auth",
        }
    }

    fn has_starttls(self) -> bool {
        matches!(self, Self::StartTls | Self::Auth)
    }
}

/// One sending of one file.
struct Job<'a> {
    server: SocketAddr,
    mode: Mode,
    ca: &'a Path,
    file: &'a Path,
}

type Client = fn(&Job) -> Command;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs python3; .ci/run installs it"]
async fn what_python_smtplib_sends_arrives_unchanged() {
    unchanged_from(|job| script("/usr/bin/python3", "python.py", job)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs perl with IO::Socket::SSL and Authen::SASL; .ci/run installs them"]
async fn what_perl_net_smtp_sends_arrives_unchanged() {
    unchanged_from(|job| script("perl", "net-smtp.pl", job)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node and nodemailer; .ci/run installs them"]
async fn what_nodemailer_sends_arrives_unchanged() {
    unchanged_from(|job| {
        let mut command = script("node", "nodemailer.js", job);
        command.env("NODE_PATH", programs::node_modules());
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs swaks; .ci/run installs it"]
async fn what_swaks_sends_arrives_unchanged() {
    unchanged_from(|job| {
        let mut command = program("swaks");
        command
            .args([
                "--server",
                "localhost",
                "--port",
                &job.server.port().to_string(),
            ])
            .args(["--ehlo", "app.test", "--from", FROM, "--to", TO])
            .args(["--suppress-data", "--data"])
            .arg(format!("@{}", job.file.display()));
        match job.mode {
            Mode::Plain => {}
            Mode::StartTls => drop(command.arg("--tls")),
            Mode::Implicit => drop(command.arg("--tls-on-connect")),
            Mode::Auth => drop(command.args([
                "--tls",
                "--auth",
                "LOGIN",
                "--auth-user",
                USERNAME,
                "--auth-password",
                PASSWORD,
            ])),
        }
        if job.mode != Mode::Plain {
            command.arg("--tls-verify").arg("--tls-ca-path").arg(job.ca);
        }
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs msmtp; .ci/run installs it"]
async fn what_msmtp_sends_arrives_unchanged() {
    unchanged_from(|job| {
        let mut command = program("msmtp");
        command
            .args(["--host=localhost", &format!("--port={}", job.server.port())])
            .args([
                "--domain=app.test",
                &format!("--from={FROM}"),
                "--timeout=60",
            ])
            .args([
                "--set-from-header=off",
                "--set-date-header=off",
                "--set-msgid-header=off",
            ]);
        if job.mode == Mode::Plain {
            command.arg("--tls=off");
        } else {
            let start = if job.mode.has_starttls() { "on" } else { "off" };
            command
                .arg("--tls=on")
                .arg(format!("--tls-starttls={start}"))
                .arg(format!("--tls-trust-file={}", job.ca.display()));
        }
        if job.mode == Mode::Auth {
            command
                .args(["--auth=plain", &format!("--user={USERNAME}")])
                .arg(format!("--passwordeval=echo '{PASSWORD}'"));
        }
        command.args(["--", TO]);
        command.stdin(std::fs::File::open(job.file).unwrap());
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs curl; .ci/run installs it"]
async fn what_curl_sends_arrives_unchanged() {
    unchanged_from(|job| {
        let scheme = if job.mode == Mode::Implicit {
            "smtps"
        } else {
            "smtp"
        };
        let url = format!("{scheme}://localhost:{}/app.test", job.server.port());
        let mut command = program("curl");
        command
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "60",
                "--noproxy",
                "*",
                "--url",
                &url,
            ])
            .args(["--mail-from", FROM, "--mail-rcpt", TO, "--upload-file"])
            .arg(job.file)
            .arg("--cacert")
            .arg(job.ca);
        if job.mode.has_starttls() {
            command.arg("--ssl-reqd");
        }
        if job.mode == Mode::Auth {
            command.args(["--user", &format!("{USERNAME}:{PASSWORD}")]);
        }
        command
    })
    .await;
}

/// A program that finds nothing on its standard input, and ends.
fn program(name: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["100", name]).stdin(Stdio::null());
    command
}

/// A client in `tests/peers/clients`, all of which take the same arguments.
fn script(interpreter: &str, name: &str, job: &Job) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/clients");
    let mut command = program(interpreter);
    command
        .arg(folder.join(name))
        .args(["localhost", &job.server.port().to_string(), job.mode.word()])
        .arg(job.ca)
        .args([USERNAME, PASSWORD, FROM, TO])
        .arg(job.file);
    command
}

async fn unchanged_from(client: Client) {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    authority.write(&ca);
    let upstream = FakeRelay::default()
        .login("relayuser", "secret")
        .start()
        .await;
    let penstock = Penstock::start(&authority, &upstream).await;
    let files = messages(folder.path());
    let mut arrived = 0;
    for mode in MODES {
        let direct = direct(&authority, mode).await;
        for file in &files {
            let job = |server| Job {
                server,
                mode,
                ca: &ca,
                file,
            };
            send(client, job(direct.addr)).await;
            send(client, job(penstock.address(mode))).await;
            arrived += 1;
            let what = format!("{} over {}", file.display(), mode.word());
            let got = upstream.received(arrived, PATIENCE).await;
            let (got, sent) = (got.last().unwrap(), direct.transactions().pop().unwrap());
            assert!(
                got.without_trace() == sent.content,
                "{what}: {} octets were sent, {} arrived",
                sent.content.len(),
                got.without_trace().len()
            );
            // One trace field, ours.
            let trace = &got.content[..got.content.len() - got.without_trace().len()];
            let trace = String::from_utf8_lossy(trace).to_ascii_lowercase();
            assert_eq!(trace.matches("received:").count(), 1, "{what}: {trace}");
            assert_eq!(got.reverse_path(), FROM, "{what}");
            assert_eq!(got.forward_paths(), [TO], "{what}");
            assert_eq!(got.login.as_deref(), Some("relayuser"), "{what}");
            assert!(
                without_trace(&sent.content) == sent.content,
                "{what}: the test is its own relay"
            );
        }
    }
    assert_eq!(arrived, 16);
    assert_eq!(upstream.offences(), Vec::<String>::new());
}

/// A relay that the client reaches itself, in the same way as Penstock.
async fn direct(authority: &Authority, mode: Mode) -> Relay {
    let mut relay = FakeRelay::default()
        .certificate(authority.sign(&["localhost", "127.0.0.1"]))
        .tls(match mode {
            Mode::Plain => Tls::Off,
            Mode::StartTls | Mode::Auth => Tls::Command,
            Mode::Implicit => Tls::Implicit,
        })
        .mechanisms("PLAIN LOGIN");
    if mode == Mode::Auth {
        relay = relay.login(USERNAME, PASSWORD);
    } else {
        relay = relay.mechanisms("");
    }
    relay.start().await
}

async fn send(client: Client, job: Job<'_>) {
    let mut command = client(&job);
    let what = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || output(&mut command))
        .await
        .unwrap();
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(
        output.status.success(),
        "{what}\n{}",
        String::from_utf8_lossy(&said)
    );
}

/// The daemon with one listener for each mode.
struct Penstock {
    home: Home,
    addresses: [SocketAddr; 4],
    _daemon: Daemon,
}

impl Penstock {
    async fn start(authority: &Authority, upstream: &Relay) -> Self {
        let home = Home::new("", "");
        authority
            .sign(&["localhost", "127.0.0.1"])
            .write(&home.path("tls.crt"), &home.path("tls.key"));
        let addresses = MODES.map(|_| free_address());
        let mut config = "hostname = \"penstock.test\"\n[tls]\ncertificate = \"{dir}/tls.crt\"\nkey = \"{dir}/tls.key\"\n\
             [spool]\npath = \"{dir}/state\"\nmin-free = \"1MB\"\n"
            .to_owned();
        for (mode, address) in MODES.iter().zip(addresses) {
            let (tls, auth) = match mode {
                Mode::Plain => ("off", "off"),
                Mode::StartTls => ("starttls", "off"),
                Mode::Implicit => ("implicit", "off"),
                Mode::Auth => ("starttls", "required"),
            };
            // The user has a password: without a login only where the listener lists him.
            let senders = if auth == "off" {
                format!("senders = [\"{FROM}\"]\n")
            } else {
                String::new()
            };
            config.push_str(&format!(
                "[[listen]]\naddress = \"{address}\"\ntls = \"{tls}\"\nauth = \"{auth}\"\n{senders}"
            ));
        }
        config.push_str(&relay_table(
            "own",
            upstream,
            &home.path("upstream.pem"),
            Some(("relayuser", "secret")),
            "limits = { preset = \"unlimited\" }",
        ));
        let users = format!(
            "[[user]]\naddress = \"{FROM}\"\nrelay = \"own\"\npassword-hash = \"{}\"\n",
            password_hash()
        );
        home.configure(&config, &users);
        let daemon = home.start().await;
        Self {
            home,
            addresses,
            _daemon: daemon,
        }
    }

    fn address(&self, mode: Mode) -> SocketAddr {
        let place = MODES.iter().position(|it| *it == mode).unwrap();
        let _ = &self.home;
        self.addresses[place]
    }
}

fn password_hash() -> String {
    use argon2::PasswordHasher;
    argon2::Argon2::default()
        .hash_password(PASSWORD.as_bytes())
        .unwrap()
        .to_string()
}

/// Text, HTML with an attachment, 8-bit, 10 MB.
fn messages(folder: &Path) -> Vec<PathBuf> {
    let header = format!(
        "From: Jan <{FROM}>\r\nTo: {TO}\r\nSubject: a test\r\nDate: Sat, 21 Nov 2026 12:00:00 +0100\r\n\
         Message-ID: <1@uwdomein.nl>\r\nMIME-Version: 1.0\r\n"
    );
    let text = "Content-Type: text/plain; charset=us-ascii\r\n\r\nHello,\r\n.a dot\r\n..two\r\n\r\n.\tone\r\nBye\r\n";
    let attachment = base64_lines(30_000);
    let html = format!(
        "Content-Type: multipart/mixed; boundary=\"b1\"\r\n\r\nA preamble.\r\n--b1\r\n\
         Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         <p style=3D\"color:red\">Hello</p>\r\n--b1\r\nContent-Type: application/pdf; name=\"a.pdf\"\r\n\
         Content-Disposition: attachment; filename=\"a.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n\
         {attachment}--b1--\r\n"
    );
    let eight_bit = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße, 你好, žluťoučký\r\n";
    let large = format!(
        "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        base64_lines(7_500_000)
    );
    [
        ("text", text),
        ("html", &html),
        ("8bit", eight_bit),
        ("10MB", &large),
    ]
    .map(|(name, body)| {
        let path = folder.join(format!("{name}.eml"));
        std::fs::write(&path, format!("{header}{body}")).unwrap();
        path
    })
    .to_vec()
}

fn base64_lines(octets: usize) -> String {
    let data: Vec<u8> = (0..octets as u32)
        .map(|it| (it.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let text = base64::engine::general_purpose::STANDARD.encode(data);
    let lines = text.as_bytes().chunks(76);
    lines
        .map(|it| format!("{}\r\n", str::from_utf8(it).unwrap()))
        .collect()
}
