//! Penstock beside Postfix, in one run on one machine: how many messages a second are
//! accepted, and how many a second arrive at the relay.
//!
//! ```text
//! .ci/run packages          # unpacks Postfix; it is not installed
//! cargo bench --bench neighbours
//! ```
//!
//! Absolute figures move with the machine's load; only those of one run compare. Both
//! sync each message before they answer, both have the same relay, in this process.
//! Needs root: Postfix changes to users of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

#[allow(dead_code)]
#[path = "../tests/it/certificates.rs"]
mod certificates;
#[allow(dead_code)]
#[path = "../tests/it/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "../tests/process/daemon.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "../tests/peers/programs.rs"]
mod programs;
#[allow(dead_code)]
#[path = "../tests/it/relay.rs"]
mod relay;

use client::{Client, message};
use daemon::{Home, free_address};
use relay::{FakeRelay, Relay, Tls};

const ROUNDS: usize = 5;
const MESSAGES: usize = 3_000;
const CLIENTS: [usize; 2] = [16, 64];

/// Messages a second.
#[derive(Clone, Copy)]
struct Rates {
    accepted: f64,
    arrived: f64,
}

fn main() {
    // `cargo test --benches` starts this, too.
    if !std::env::args().any(|it| it == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(compare());
}

async fn compare() {
    println!("{MESSAGES} messages of 10 KiB, medians of {ROUNDS} rounds\n");
    println!(
        "{:>8} {:>10} {:>12} {:>12}",
        "clients", "server", "accepts/s", "arrivals/s"
    );
    for clients in CLIENTS {
        let (mut penstock, mut postfix) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            penstock.push(measure_penstock(clients).await);
            postfix.push(measure_postfix(clients).await);
        }
        for (name, rates) in [("penstock", penstock), ("postfix", postfix)] {
            println!(
                "{clients:>8} {name:>10} {:>12.0} {:>12.0}",
                median(&rates, |it| it.accepted),
                median(&rates, |it| it.arrived)
            );
        }
    }
}

fn median(rates: &[Rates], of: impl Fn(&Rates) -> f64) -> f64 {
    let mut values: Vec<f64> = rates.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn sink() -> Relay {
    FakeRelay::default()
        .tls(Tls::Off)
        .forgetting_content()
        .start()
        .await
}

async fn measure_penstock(clients: usize) -> Rates {
    let sink = sink().await;
    let listen = free_address();
    let config = format!(
        "hostname = \"penstock.test\"\ndefault-relay = \"out\"\n[[listen]]\naddress = \"{listen}\"\n\
         [hints]\ndns = false\n[spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n\
         [relays.out]\nserver = \"{}\"\ntls = \"off\"\nlimits = {{ preset = \"unlimited\", connections = 20 }}\n",
        sink.addr
    );
    let home = Home::new(&config, "");
    let mut daemon = home.start().await;
    let rates = load(listen, clients, &sink).await;
    daemon.stop().await;
    rates
}

async fn measure_postfix(clients: usize) -> Rates {
    let sink = sink().await;
    let postfix = Postfix::start(sink.addr).await;
    load(postfix.address, clients, &sink).await
}

async fn load(server: SocketAddr, clients: usize, sink: &Relay) -> Rates {
    let content = message(
        "app@app.test",
        "bob@example.net",
        "a letter",
        &"0123456789abcdef\r\n".repeat(560),
    );
    let began = Instant::now();
    let mut set = JoinSet::new();
    for number in 0..clients {
        let content = content.clone();
        let share = MESSAGES / clients + usize::from(number < MESSAGES % clients);
        set.spawn(async move {
            let mut client = Client::connect(server).await;
            for _ in 0..share {
                client
                    .submit("app@app.test", &["bob@example.net"], &content)
                    .await
                    .expect_code(250);
            }
        });
    }
    while let Some(done) = set.join_next().await {
        done.unwrap();
    }
    let accepted = began.elapsed();
    sink.received(MESSAGES, Duration::from_secs(300)).await;
    let arrived = began.elapsed();
    let rate = |took: Duration| MESSAGES as f64 / took.as_secs_f64();
    Rates {
        accepted: rate(accepted),
        arrived: rate(arrived),
    }
}

/// A Postfix from an unpacked package, with a configuration and a queue of its own.
struct Postfix {
    master: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Its own end, so that it ends its children.
        let pid = i32::try_from(self.master.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        self.master.wait().ok();
    }
}

impl Postfix {
    async fn start(relay: SocketAddr) -> Self {
        let package = programs::postfix().canonicalize().unwrap();
        let folder = tempfile::Builder::new()
            .prefix("penstock-postfix-")
            .tempdir()
            .unwrap();
        let place = folder.path().to_path_buf();
        queue(&place);
        let address = free_address();
        std::fs::write(place.join("etc/main.cf"), main_cf(&package, &place, relay)).unwrap();
        std::fs::write(place.join("etc/master.cf"), master_cf(address)).unwrap();
        let master = Command::new(package.join("usr/lib/postfix/sbin/master"))
            .arg("-c")
            .arg(place.join("etc"))
            .env("LD_LIBRARY_PATH", package.join("usr/lib/postfix"))
            .env("MAIL_CONFIG", place.join("etc"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let it = Self {
            master,
            address,
            _folder: folder,
        };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "postfix does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        it
    }
}

/// The folders that its installation would make, and to whom they belong: users that
/// every Debian has and nobody else here uses.
fn queue(place: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let set = |path: PathBuf, mode: u32, owner: &str| {
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let status = Command::new("chown")
            .arg(owner)
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success(), "chown needs root");
    };
    set(place.to_path_buf(), 0o755, "root");
    set(place.join("etc"), 0o755, "root");
    set(place.join("data"), 0o700, "games");
    set(place.join("spool"), 0o755, "root");
    for name in [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
        "saved", "trace",
    ] {
        set(place.join("spool").join(name), 0o700, "games");
    }
    set(place.join("spool/maildrop"), 0o730, "games:dialout");
    set(place.join("spool/public"), 0o710, "games:dialout");
    set(place.join("spool/pid"), 0o755, "root");
}

fn main_cf(package: &Path, place: &Path, relay: SocketAddr) -> String {
    format!(
        "compatibility_level = 3.6\nqueue_directory = {place}/spool\ncommand_directory = {package}/usr/sbin\n\
         daemon_directory = {package}/usr/lib/postfix/sbin\ndata_directory = {place}/data\n\
         shlib_directory = {package}/usr/lib/postfix\nmeta_directory = {package}/etc/postfix\n\
         mail_owner = games\nsetgid_group = dialout\ndefault_privs = nobody\n\
         import_environment = MAIL_CONFIG TZ LANG=C LD_LIBRARY_PATH={package}/usr/lib/postfix\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = postfix.test\nmydestination =\n\
         mynetworks = 127.0.0.0/8\nrelayhost = [{}]:{}\nsmtp_tls_security_level = none\nalias_maps =\n\
         alias_database =\nlocal_recipient_maps =\nmaillog_file = {place}/log\nmaillog_file_prefixes = {place}\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\nsmtpd_peername_lookup = no\n\
         smtpd_client_connection_count_limit = 0\n",
        relay.ip(),
        relay.port(),
        package = package.display(),
        place = place.display(),
    )
}

fn master_cf(address: SocketAddr) -> String {
    let mut text =
        format!("{address} inet n - n - 100 smtpd\npostlog unix-dgram n - n - 1 postlogd\n");
    for (name, private, limit, program) in [
        ("pickup", "n", "60 1", "pickup"),
        ("cleanup", "n", "- 0", "cleanup"),
        ("qmgr", "n", "300 1", "qmgr"),
        ("rewrite", "-", "- -", "trivial-rewrite"),
        ("bounce", "-", "- 0", "bounce"),
        ("defer", "-", "- 0", "bounce"),
        ("trace", "-", "- 0", "bounce"),
        ("flush", "n", "1000? 0", "flush"),
        ("smtp", "-", "- -", "smtp"),
        ("relay", "-", "- -", "smtp"),
        ("error", "-", "- -", "error"),
        ("retry", "-", "- -", "error"),
        ("anvil", "-", "- 1", "anvil"),
        ("scache", "-", "- 1", "scache"),
        ("tlsmgr", "-", "1000? 1", "tlsmgr"),
        ("proxymap", "-", "- -", "proxymap"),
    ] {
        text.push_str(&format!("{name} unix {private} - n {limit} {program}\n"));
    }
    text
}
