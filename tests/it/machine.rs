//! What tests ask of the machine they run on: ports, descriptors, programs that end.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

/// How long anything may take on a slow machine before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The first port that is handed out.
const FIRST: u16 = 10_240;

/// A port of loopback where nobody listens, over TCP or UDP.
///
/// The system gives it to nobody who leaves the choice to it, so that it is still free
/// when it is used, and used again.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let chosen = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let end = chosen.and_then(|it| it.split_whitespace().next()?.parse().ok());
    let end: u16 = end.unwrap_or(32_768);
    let span = end.saturating_sub(FIRST);
    // Two test programs at once begin far from each other.
    let begin = (std::process::id() % u32::from(u16::MAX)) as u16;
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = (u32::from(begin) * 61 + u32::from(step)) % u32::from(span);
        let address = SocketAddr::from(([127, 0, 0, 1], FIRST + place as u16));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    // A machine that chooses from all ports.
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Takes care that so many files and sockets may be open; a shell usually allows 1,024.
pub fn need_descriptors(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(
        limit.maximum.is_none_or(|it| it >= needed),
        "this test needs {needed} open files, and no more than {:?} are allowed here: \
         raise the hard limit (ulimit -Hn)",
        limit.maximum
    );
}

/// Runs a program to its end, with the standard input that it was given.
pub fn output(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    ended(child.unwrap_or_else(|error| panic!("{command:?}: {error}; .ci/run installs it")))
}

/// Waits for a program's end and all that it says, and ends it when that never comes.
pub fn ended(child: Child) -> Output {
    let pid = Pid::from_child(&child);
    let (done, until) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = until.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            kill_process(pid, Signal::KILL).ok();
        }
        late
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    let late = watch.join().unwrap();
    assert!(!late, "never ended: {output:?}");
    output
}

/// Waits until something is so that nobody tells of; the test's own clock may be stopped.
#[allow(
    clippy::disallowed_methods,
    reason = "real time, whatever the test's clock shows"
)]
pub async fn until(what: &str, pause: Duration, mut is_so: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(pause).await;
    }
}

/// Lets a log that one thread listens to miss nothing.
///
/// While a program has one listener, tracing asks the thread that comes to a line of the
/// program first whether anybody wants it, and remembers the answer for all threads. With a
/// second one, which wants nothing, it asks both.
pub fn hear_everything() {
    static SECOND: LazyLock<tracing::Dispatch> =
        LazyLock::new(|| tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new()));
    LazyLock::force(&SECOND);
}
