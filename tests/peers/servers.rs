//! Real servers as relays: Exim, Postfix's smtp-sink, and `mailin` as a weak one.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::certificates::Authority;
use crate::client::{Client, message};
use crate::daemon::{Daemon, Home, free_address};
use crate::programs;
use crate::relay::{FakeRelay, Tls, without_trace};

const SOON: Duration = crate::daemon::PATIENCE;

/// A child process that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + SOON;
    while !done() {
        assert!(
            tokio::time::Instant::now() < end,
            "{what}: not within {SOON:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn listening(address: SocketAddr) {
    until("listening", || TcpStream::connect(address).is_ok()).await;
}

/// A daemon whose default relay is `relay`, the rest of a `[relays.out]` table.
async fn penstock(relay: &str) -> (Home, Daemon, SocketAddr) {
    let listen = free_address();
    let config = format!(
        "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n[[listen]]\naddress = \"{listen}\"\n\
         [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n[relays.out]\n{relay}\nlimits = {{ preset = \"unlimited\" }}\n"
    );
    let home = Home::new(&config, "");
    let daemon = home.start().await;
    (home, daemon, listen)
}

fn contents() -> Vec<Vec<u8>> {
    let plain = message(
        "jan@uwdomein.nl",
        "bob@example.net",
        "one",
        ".a dot\r\n..two\r\n.\tthree",
    );
    let long = message(
        "jan@uwdomein.nl",
        "bob@example.net",
        "two",
        &"0123456789abcdef\r\n".repeat(30_000),
    );
    vec![plain, long]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs exim4; .ci/run installs it"]
async fn exim_takes_mail_over_starttls_and_a_login_and_passes_it_on_unchanged() {
    let authority = Authority::new();
    for mechanism in ["plain", "login", "cram-md5"] {
        // Exim hands on to a relay of ours: what it made of the mail can be read there.
        let end = FakeRelay::default().tls(Tls::Off).start().await;
        let exim = Exim::start(&authority, end.addr, mechanism).await;
        let ca = exim.folder.path().join("ca.pem");
        authority.write(&ca);
        let (home, _daemon, listen) = penstock(&format!(
            "server = \"{}\"\ntls = \"required\"\nauth = \"auto\"\nca-file = \"{}\"\nlogin = \"relayuser geheim woord\"",
            exim.address,
            ca.display()
        ))
        .await;
        let mut client = Client::connect(listen).await;
        for (place, content) in contents().iter().enumerate() {
            client
                .submit(
                    "jan@uwdomein.nl",
                    &["bob@example.net", "ann@example.net"],
                    content,
                )
                .await
                .expect_code(250);
            until("at the end", || {
                let got: usize = end.accepted().iter().map(|it| it.recipients.len()).sum();
                got == (place + 1) * 2
            })
            .await;
            let got = end.accepted().pop().unwrap();
            assert!(
                got.without_trace() == *content,
                "changed:\n{}\n{}",
                got.text(),
                home.log()
            );
            assert!(got.text().contains("with esmtpsa"), "{}", got.text());
        }
    }
}

/// An Exim with a configuration, a spool and logs of its own, in the foreground.
struct Exim {
    address: SocketAddr,
    folder: tempfile::TempDir,
    _program: Program,
}

impl Exim {
    async fn start(authority: &Authority, next: SocketAddr, mechanism: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::Builder::new()
            .prefix("penstock-exim-")
            .tempdir()
            .unwrap();
        let place = folder.path().to_path_buf();
        authority
            .sign(&["localhost", "127.0.0.1"])
            .write(&place.join("tls.crt"), &place.join("tls.key"));
        let address = free_address();
        let authenticator = match mechanism {
            "plain" => {
                "plain:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n  \
                 server_condition = ${if and{{eq{$auth2}{relayuser}}{eq{$auth3}{geheim woord}}}}\n  server_set_id = $auth2\n"
            }
            "login" => {
                "login:\n  driver = plaintext\n  public_name = LOGIN\n  server_prompts = Username:: : Password::\n  \
                 server_condition = ${if and{{eq{$auth1}{relayuser}}{eq{$auth2}{geheim woord}}}}\n  server_set_id = $auth1\n"
            }
            _ => {
                "cram:\n  driver = cram_md5\n  public_name = CRAM-MD5\n  server_secret = ${if eq{$auth1}{relayuser}{geheim woord}fail}\n  \
                 server_set_id = $auth1\n"
            }
        };
        let config = format!(
            "primary_hostname = exim.test\nspool_directory = {dir}/spool\nlog_file_path = {dir}/log/%slog\n\
             pid_file_path = {dir}/exim.pid\nlocal_interfaces = 127.0.0.1\ndaemon_smtp_ports = {port}\n\
             tls_certificate = {dir}/tls.crt\ntls_privatekey = {dir}/tls.key\ntls_advertise_hosts = *\n\
             auth_advertise_hosts = ${{if def:tls_in_cipher{{*}}}}\nacl_smtp_rcpt = rcpt\nqualify_domain = exim.test\n\
             host_lookup =\nrfc1413_hosts =\nrfc1413_query_timeout = 0s\nkeep_environment =\nmessage_size_limit = 60M\n\
             begin acl\nrcpt:\n  accept authenticated = *\n  deny message = relay not permitted\n\
             begin routers\nnext:\n  driver = manualroute\n  route_list = * 127.0.0.1\n  self = send\n  transport = smtp\n\
             begin transports\nsmtp:\n  driver = smtp\n  port = {next}\n  allow_localhost\n  hosts_avoid_tls = *\n  hosts_try_prdr =\n\
             begin authenticators\n{authenticator}",
            dir = place.display(),
            port = address.port(),
            next = next.port(),
        );
        for name in ["spool", "log"] {
            std::fs::create_dir(place.join(name)).unwrap();
        }
        std::fs::write(place.join("exim.conf"), config).unwrap();
        // Started by root, Exim becomes its own user; its files must be that user's.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&place, open).unwrap();
        if rustix::process::geteuid().is_root() {
            let owner = Command::new("chown")
                .args(["-R", "Debian-exim:Debian-exim"])
                .args(["spool", "log", "tls.crt", "tls.key"].map(|it| place.join(it)))
                .status();
            assert!(owner.unwrap().success());
        }
        let child = Command::new(programs::exim())
            .args(["-bdf", "-C"])
            .arg(place.join("exim.conf"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let program = Program(child);
        listening(address).await;
        Self {
            address,
            folder,
            _program: program,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs smtp-sink of postfix; .ci/run unpacks it"]
async fn smtp_sink_gets_the_same_octets_with_and_without_extensions() {
    for options in [&[][..], &["-e"], &["-p"], &["-8", "-w", "1"]] {
        let sink = Sink::start(options).await;
        let (home, _daemon, listen) =
            penstock(&format!("server = \"{}\"\ntls = \"off\"", sink.address)).await;
        let mut client = Client::connect(listen).await;
        for (place, content) in contents().iter().enumerate() {
            client
                .submit("jan@uwdomein.nl", &["bob@example.net"], content)
                .await
                .expect_code(250);
            until("a dump", || sink.dumps().len() == place + 1).await;
            let expected = String::from_utf8(content.clone())
                .unwrap()
                .replace("\r\n", "\n");
            // The file is there before it is whole.
            until(&format!("the message, {options:?}, {}", home.log()), || {
                sink.dumps().iter().any(|it| sink.content(it) == expected)
            })
            .await;
        }
    }
}

/// Postfix's own test server.
struct Sink {
    address: SocketAddr,
    folder: tempfile::TempDir,
    _program: Program,
}

impl Sink {
    async fn start(options: &[&str]) -> Self {
        let postfix = programs::postfix();
        let folder = tempfile::Builder::new()
            .prefix("penstock-sink-")
            .tempdir()
            .unwrap();
        let address = free_address();
        let mut command = Command::new(postfix.join("usr/sbin/smtp-sink"));
        if rustix::process::geteuid().is_root() {
            // As root it wants a user to become.
            command.args(["-u", "root"]);
        }
        let child = command
            .env("LD_LIBRARY_PATH", postfix.join("usr/lib/postfix"))
            .args(options)
            .arg("-d")
            .arg(folder.path().join("%M."))
            .arg(address.to_string())
            .arg("100")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let program = Program(child);
        listening(address).await;
        Self {
            address,
            folder,
            _program: program,
        }
    }

    fn dumps(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|it| it.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The message without what the sink and Penstock put on top.
    fn content(&self, dump: &Path) -> String {
        let text = std::fs::read_to_string(dump).unwrap();
        let own = |line: &&str| {
            line.starts_with("X-")
                || line.starts_with("Received: from ") && line.contains("smtp-sink")
        };
        let mut lines = text.split_inclusive('\n').peekable();
        while lines.next_if(own).is_some() {}
        let rest: String = lines.collect();
        let crlf = rest.replace('\n', "\r\n");
        // The sink writes a Received field of its own, too.
        let content = without_trace(crlf.as_bytes());
        let content = String::from_utf8_lossy(content).replace("\r\n", "\n");
        content
            .strip_suffix('\n')
            .filter(|it| it.ends_with("\n"))
            .map_or(content.clone(), str::to_owned)
    }
}

/// Keeps what it gets.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

impl mailin::Handler for Kept {
    fn data_start(&mut self, _: &str, _: &str, _: bool, _: &[String]) -> mailin::Response {
        self.0.lock().unwrap().push(Vec::new());
        mailin::response::OK
    }

    fn data(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.0.lock().unwrap().last_mut().unwrap().extend(octets);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_server_without_any_extension_gets_the_same_octets() {
    let kept = Kept::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handler = kept.clone();
    // Ends with the process: it waits for connections only.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let handler = handler.clone();
            std::thread::spawn(move || serve_mailin(stream.unwrap(), handler));
        }
    });
    let (home, _daemon, listen) = penstock(&format!("server = \"{address}\"\ntls = \"off\"")).await;
    let mut client = Client::connect(listen).await;
    for (place, content) in contents().iter().enumerate() {
        client
            .submit("jan@uwdomein.nl", &["bob@example.net"], content)
            .await
            .expect_code(250);
        until(&format!("the message\n{}", home.log()), || {
            let got = kept.0.lock().unwrap();
            got.get(place)
                .is_some_and(|it| without_trace(it) == content)
        })
        .await;
    }
}

fn serve_mailin(stream: TcpStream, handler: Kept) -> std::io::Result<()> {
    let mut session =
        mailin::SessionBuilder::new("weak.test").build(IpAddr::V4(Ipv4Addr::LOCALHOST), handler);
    let mut output = stream.try_clone()?;
    session.greeting().write_to(&mut output)?;
    let mut input = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let response = session.process(&line);
        match response.action {
            mailin::Action::NoReply => {}
            mailin::Action::Close => return response.write_to(&mut output),
            _ => response.write_to(&mut output)?,
        }
        output.flush()?;
    }
}
