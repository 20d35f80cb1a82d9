//! The real `penstockd` as a child process, with files of its own in a temporary folder.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

#[path = "../it/machine.rs"]
pub mod machine;

pub use machine::{PATIENCE, free_address, output};

/// A configuration and a state directory that outlive every start of the daemon.
pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// `{dir}` in the texts stands for the folder.
    pub fn new(config: &str, users: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("penstock-")
            .tempdir()
            .unwrap();
        let it = Self { dir };
        for folder in ["state", "run"] {
            fs::create_dir(it.path(folder)).unwrap();
        }
        it.configure(config, users);
        it
    }

    /// The file or folder of this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn configure(&self, config: &str, users: &str) {
        use std::os::unix::fs::PermissionsExt;
        let place = self.dir.path().display().to_string();
        // Hints would ask the world about every domain of a test.
        let config = match config.contains("[hints]") {
            true => config.to_owned(),
            false => format!("{config}\n[hints]\ndns = false\n"),
        };
        for (name, text) in [("penstock.toml", config.as_str()), ("users.toml", users)] {
            fs::write(self.path(name), text.replace("{dir}", &place)).unwrap();
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
    }

    /// What the daemon logged so far, over all starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until the daemon logged this.
    pub async fn logged(&self, words: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.log().contains(words) {
            assert!(
                Instant::now() < until,
                "never logged: {words}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The daemon's command line, not started: for more environment.
    pub fn command(&self) -> Command {
        // Another build can be put to the test, the release build for one.
        let daemon = std::env::var_os("PENSTOCK_DAEMON").map(PathBuf::from);
        let built = || program("penstockd", env!("CARGO_BIN_EXE_penstockd"));
        let mut command = Command::new(daemon.unwrap_or_else(built));
        command
            .arg("--config")
            .arg(self.path("penstock.toml"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until it says that it is ready.
    pub async fn start(&self) -> Daemon {
        self.start_with(self.command()).await
    }

    pub async fn start_with(&self, mut command: Command) -> Daemon {
        let notify = Notify::open(self.path("notify"));
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.path("log"))
            .unwrap();
        command
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        let mut daemon = Daemon { child, notify };
        let ready = daemon.told("READY=1", PATIENCE).await;
        assert!(ready, "the daemon did not get ready:\n{}", self.log());
        daemon
    }

    /// Runs the daemon to its own end: for configurations that do not start.
    pub fn run(&self) -> Output {
        output(&mut self.command())
    }

    /// Runs the companion program against this daemon.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        output(self.cli_command().args(arguments))
    }

    /// The companion program's command line, not started.
    pub fn cli_command(&self) -> Command {
        let mut command = Command::new(program("penstock", env!("CARGO_BIN_EXE_penstock")));
        command
            .arg("--config")
            .arg(self.path("penstock.toml"))
            .env("RUNTIME_DIRECTORY", self.path("run"))
            .stdin(Stdio::null());
        command
    }
}

/// The program that was built beside the tests, or the one of another build
/// (`PENSTOCK_PROGRAMS` names its folder): an installed package, a release.
fn program(name: &str, built: &str) -> PathBuf {
    std::env::var_os("PENSTOCK_PROGRAMS")
        .map_or_else(|| built.into(), |folder| Path::new(&folder).join(name))
}

/// The daemon's messages to systemd (sd_notify).
struct Notify {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Notify {
    fn open(path: PathBuf) -> Self {
        fs::remove_file(&path).ok();
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            heard: Vec::new(),
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }
}

/// A running daemon; killed when it is dropped.
pub struct Daemon {
    child: Child,
    notify: Notify,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end.
    pub async fn end(&mut self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() > until {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGTERM, and the exit status.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let status = self.end(PATIENCE).await;
        status.expect("the daemon did not stop")
    }

    /// Whether it told systemd this, now or within `patience`.
    pub async fn told(&mut self, line: &str, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            self.notify.read();
            if self.notify.heard.iter().any(|it| it == line) {
                return true;
            }
            if Instant::now() > until || self.child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that it told systemd.
    pub fn heard(&mut self) -> Vec<String> {
        self.notify.read();
        self.notify.heard.clone()
    }

    /// Forgets what it told.
    pub fn forget(&mut self) {
        self.notify.read();
        self.notify.heard.clear();
    }
}

/// A `[relays.NAME]` for a fake relay whose authority stands in `ca`.
pub fn relay_table(
    name: &str,
    relay: &crate::relay::Relay,
    ca: &Path,
    login: Option<(&str, &str)>,
    rest: &str,
) -> String {
    fs::write(ca, &relay.authority_pem).unwrap();
    let login = login.map_or(String::new(), |(username, password)| {
        format!("username = \"{username}\"\npassword = \"{password}\"\n")
    });
    format!(
        "[relays.{name}]\nserver = \"{}\"\ntls = \"required\"\nca-file = \"{}\"\n{login}{rest}\n",
        relay.addr,
        ca.display()
    )
}
