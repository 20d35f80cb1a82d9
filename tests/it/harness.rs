//! The daemon's real code in this process: real listeners, a real spool in a temporary
//! folder, a clock that the test may stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock::clock::Clock;
use penstock::config;
use penstock::daemon::{Daemon, Ended, Setup};
use penstock::dns::{Dns, Resolver, Zone};
use penstock::spool::Reserve;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client, message};
use crate::relay::Relay;

/// Real time after which a wait is lost, whatever the test's own clock shows.
const REAL_PATIENCE: Duration = Duration::from_secs(600);

/// A disk that a test looks into, and how the daemon uses it.
#[derive(Debug, Clone, Copy)]
pub struct Disk<'a> {
    /// The state directory.
    pub state: &'a Path,
    /// A segment of the log is closed when it has grown to this.
    pub segment_bytes: u64,
    /// Names the boot of the machine.
    pub boot: &'a str,
}

/// A daemon and its files.
pub struct Harness {
    folder: tempfile::TempDir,
    state: PathBuf,
    clock: Clock,
    dns: Option<SocketAddr>,
    segment_bytes: Option<u64>,
    is_full: bool,
    running: Option<Running>,
}

struct Running {
    addresses: Vec<SocketAddr>,
    confirm: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Ended>,
}

/// A `[relays.NAME]` for a fake relay, its certificate pinned.
pub fn relay(name: &str, relay: &Relay, rest: &str) -> String {
    let tls = match relay.tls {
        crate::relay::Tls::Off => "off",
        crate::relay::Tls::Command => "required",
        crate::relay::Tls::Implicit => "implicit",
    };
    let pin = match tls {
        "off" => String::new(),
        _ => format!("fingerprint = \"{}\"\n", relay.fingerprint),
    };
    format!(
        "[relays.{name}]\nserver = \"{}\"\ntls = \"{tls}\"\n{pin}{rest}\n",
        relay.addr
    )
}

impl Harness {
    /// One listener on loopback, and `out` as everybody's relay.
    pub async fn relaying_to(out: &Relay, rest: &str) -> Self {
        let config = format!("default-relay = \"out\"\n{}", relay("out", out, rest));
        Self::start(&config, "").await
    }

    /// A listener is added where the configuration has none.
    pub async fn start(config: &str, users: &str) -> Self {
        let mut it = Self::new(None);
        it.configure(config, users);
        it.run().await;
        it
    }

    /// The same with names answered by an authority of the test's.
    pub async fn start_with_dns(config: &str, users: &str, dns: SocketAddr) -> Self {
        let mut it = Self::new(None);
        it.dns = Some(dns);
        it.configure(config, users);
        it.run().await;
        it
    }

    /// The same on a disk of the test's.
    pub async fn start_on(disk: Disk<'_>, config: &str, users: &str) -> Self {
        let mut it = Self::new(Some(disk.state));
        it.clock = it.clock.on_boot(disk.boot);
        it.segment_bytes = Some(disk.segment_bytes);
        it.configure(config, users);
        it.run().await;
        it
    }

    fn new(state: Option<&Path>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("penstock-")
            .tempdir()
            .unwrap();
        let start = "2026-11-21T12:00:00Z".parse().unwrap();
        Self {
            state: state.map_or(folder.path().join("state"), Path::to_path_buf),
            folder,
            clock: Clock::following_tokio(start),
            dns: None,
            segment_bytes: None,
            is_full: false,
            running: None,
        }
    }

    /// Writes the files; a running daemon has to be told.
    pub fn configure(&self, config: &str, users: &str) {
        use std::os::unix::fs::PermissionsExt;
        // Keys without a table come first in TOML.
        let (top, tables) = match config.find('[') {
            Some(at) => config.split_at(at),
            None => (config, ""),
        };
        let listen = match config.contains("[[listen]]") {
            true => "",
            false => "[[listen]]\naddress = \"127.0.0.1:0\"\n",
        };
        let text = format!(
            "hostname = \"penstock.test\"\n{top}\n{listen}\n[spool]\npath = \"{}\"\nmin-free = \"1MB\"\n{tables}",
            self.state.display()
        );
        for (name, text) in [("penstock.toml", text.as_str()), ("users.toml", users)] {
            std::fs::write(self.path(name), text).unwrap();
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(self.path(name), private).unwrap();
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// From the next start on: as if clients held all the memory that they may, and no more
    /// were free on the disk than is kept in reserve.
    pub fn take_all_room(&mut self) {
        self.is_full = true;
    }

    /// Starts the daemon on what is configured and what the spool has.
    #[allow(clippy::disallowed_methods, reason = "the test waits for it itself")]
    pub async fn run(&mut self) {
        let path = self.path("penstock.toml");
        let checked = config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        let mut setup = Setup::new(checked, Some(path)).unwrap();
        setup.clock = self.clock.clone();
        setup.control = self.path("control.sock");
        // Hints ask DNS for every domain of a test: nothing may leave this machine.
        setup.dns = Arc::new(Zone::default());
        if let Some(bytes) = self.segment_bytes {
            setup.spool.segment_bytes = bytes;
        }
        if self.is_full {
            setup.spool.buffer_bytes = 0;
            setup.spool.min_free = Reserve::Bytes(u64::MAX);
        }
        if let Some(server) = self.dns {
            let resolver: Arc<dyn Dns> = Arc::new(Resolver::with_server(server).unwrap());
            setup.dns = resolver;
        }
        let daemon = Daemon::start(setup).await.unwrap();
        let (addresses, confirm) = (daemon.addresses(), daemon.confirm_address());
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(daemon.run_until(async {
            stopped.await.ok();
        }));
        self.running = Some(Running {
            addresses,
            confirm,
            stop,
            ended,
        });
    }

    /// Stops it in good order; it can run again.
    pub async fn stop(&mut self) -> Ended {
        let running = self.running.take().expect("it runs");
        running.stop.send(()).ok();
        running.ended.await.unwrap()
    }

    /// The first listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.running.as_ref().expect("it runs").addresses
    }

    /// Where the confirmation page is.
    pub fn confirm_address(&self) -> SocketAddr {
        let running = self.running.as_ref().expect("it runs");
        running.confirm.expect("http.confirm is configured")
    }

    /// A client of the first listener.
    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// One small message from its From address.
    pub async fn submit(&self, from: &str, to: &[&str], subject: &str) -> Answer {
        let content = message(from, to[0], subject, "hello");
        self.client().await.submit(from, to, &content).await
    }

    /// Asks on the control socket; gives the items, panics on an error.
    pub async fn ask(&self, request: Value) -> Vec<Value> {
        match self.try_ask(&request).await {
            Ok(items) => items,
            Err(error) => panic!("{request}: {error}"),
        }
    }

    /// Asks; gives what `error` said.
    pub async fn try_ask(&self, request: &Value) -> Result<Vec<Value>, Value> {
        let stream = UnixStream::connect(self.path("control.sock"))
            .await
            .unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let greeting = lines.next_line().await.unwrap().unwrap();
        assert!(greeting.contains("penstock"), "{greeting}");
        write
            .write_all(format!("{request}\n").as_bytes())
            .await
            .unwrap();
        let mut items = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            let item: Value = serde_json::from_str(&line).unwrap();
            if item.get("done").is_some() {
                return Ok(items);
            }
            if let Some(error) = item.get("error") {
                return Err(error.clone());
            }
            items.push(item);
        }
        panic!("{request}: the answer has no end: {items:?}");
    }

    /// `penstock status`.
    pub async fn status(&self) -> Value {
        self.ask(json!({"status": {}})).await.remove(0)["status"].clone()
    }

    /// `penstock queue`: what waits, with the reasons.
    pub async fn queue(&self) -> Vec<Value> {
        let items = self.ask(json!({"queue": {}})).await;
        let queue: Vec<Value> = items.into_iter().map(|it| it["message"].clone()).collect();
        for message in &queue {
            for reason in ["why", "why_text"] {
                let said = message[reason].as_str().unwrap_or_default();
                assert!(!said.is_empty(), "waits without a reason: {message:#}");
            }
        }
        queue
    }

    /// Waits until nothing waits.
    pub async fn until_idle(&self) {
        self.until("nothing waits", |queue| queue.is_empty()).await;
    }

    /// Waits until nothing waits, for days: with fewer questions on the way.
    pub async fn until_idle_after_days(&self) {
        let longest = Duration::from_secs(1_800);
        self.ask_until("nothing waits", longest, |queue| queue.is_empty())
            .await;
    }

    /// Waits until the queue looks so.
    pub async fn until(&self, what: &str, done: impl Fn(&[Value]) -> bool) {
        self.ask_until(what, Duration::from_secs(30), done).await;
    }

    #[allow(clippy::disallowed_methods, reason = "the test's clock may be stopped")]
    async fn ask_until(&self, what: &str, longest: Duration, done: impl Fn(&[Value]) -> bool) {
        let began = std::time::Instant::now();
        let mut pause = Duration::from_millis(10);
        loop {
            let queue = self.queue().await;
            if done(&queue) {
                return;
            }
            assert!(
                began.elapsed() < REAL_PATIENCE,
                "not so: {what}: {queue:#?}"
            );
            tokio::time::sleep(pause).await;
            // Few questions over virtual days, many within a second.
            pause = (pause * 3 / 2).min(longest);
        }
    }
}
