//! Listening on the control socket.
//!
//! Everything a client can do is bounded: how many there are, how long a request is and
//! may take to arrive, how long an answer may stand unread. A client that stops reading
//! stops its own answer and nothing else; one that asks for nothing makes room for the next.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::crowd::{Crowd, Doing, Place};
use super::protocol::{Failure, FailureKind, Greeting, Line, REQUEST_MAXIMUM, Request};
use super::{Peer, Responder, peer};

/// Whose members may use the socket.
const ADMIN_GROUP: &str = "penstock-admin";
/// For a request to arrive, a person typing it into `nc` included.
const REQUEST_PATIENCE: Duration = Duration::from_secs(120);
/// For the daemon to take a request from us.
const DAEMON_PATIENCE: Duration = Duration::from_secs(10);
/// For a client to read a little of its answer: a pager may stand open for a while.
const READER_PATIENCE: Duration = Duration::from_secs(300);
/// For running answers to end after `stop`.
const STOPPING_PATIENCE: Duration = Duration::from_secs(5);
/// How often a client whose answer pauses is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Lines that are written together.
const LINES_TOGETHER: usize = 128;

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another daemon listens there.
    #[error("another penstockd listens on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something stands there that is no socket.
    #[error("{} is in the way: it is not a socket", path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A control socket that is open, and not served yet.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    /// Removed at the end; none for a socket that systemd made and keeps.
    path: Option<PathBuf>,
}

impl Bound {
    /// Opens the socket at `path`; see [`open`].
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        Ok(Self {
            listener: open(path)?,
            path: Some(path.into()),
        })
    }

    /// Takes over a socket that systemd listens on for us; its mode and group are systemd's.
    ///
    /// Needs a tokio runtime.
    pub fn adopt(socket: OwnedFd) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Io {
            action: "take over",
            path: "the control socket from systemd".into(),
            source,
        };
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener: UnixListener::from_std(listener).map_err(failed)?,
            path: None,
        })
    }
}

/// Opens a socket at `path`, mode 0660, for the group `penstock-admin` where it exists.
///
/// A socket that a killed daemon left behind is replaced. Needs a tokio runtime.
pub fn open(path: &Path) -> Result<UnixListener, ControlError> {
    make_way(path)?;
    let failed = |action| {
        move |source: io::Error| ControlError::Io {
            action,
            path: path.into(),
            source,
        }
    };
    let address = SocketAddrUnix::new(path).map_err(|it| failed("name")(it.into()))?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|it| failed("make")(it.into()))?;
    rustix::net::bind(&socket, &address).map_err(|it| failed("bind")(it.into()))?;
    // Nobody can connect before `listen`, so nobody slips in before the mode is set.
    if let Some(group) = peer::group(ADMIN_GROUP)
        && let Err(source) = std::os::unix::fs::chown(path, None, Some(group))
    {
        // Only a member may give a file to a group: SupplementaryGroups= in the unit.
        warn!(path = %path.display(), %source, "cannot give the socket to the group {ADMIN_GROUP}");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .map_err(failed("set the mode of"))?;
    rustix::net::listen(&socket, 128).map_err(|it| failed("listen on")(it.into()))?;
    UnixListener::from_std(socket.into()).map_err(failed("watch"))
}

/// Removes a socket that nobody listens on.
fn make_way(path: &Path) -> Result<(), ControlError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(ControlError::Io {
                action: "look at",
                path: path.into(),
                source,
            });
        }
    };
    if !kind.is_socket() {
        return Err(ControlError::NotASocket { path: path.into() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(source) if source.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| ControlError::Io {
                action: "remove the old",
                path: path.into(),
                source,
            }),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(ControlError::InUse { path: path.into() }),
    }
}

/// Serves the socket until `stop` turns true: every request goes to `requests`, with the
/// responder that answers it.
///
/// Ends when running answers ended, or five seconds later.
pub async fn serve(
    bound: Bound,
    requests: mpsc::Sender<(Request, Responder)>,
    mut stop: watch::Receiver<bool>,
) {
    let crowd = Arc::new(Crowd::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = bound.listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) => match enter(&crowd, &stream) {
                Some((place, who)) => {
                    let requests = requests.clone();
                    connections.spawn(attend(stream, place, who, requests));
                }
                None => say(&stream, true, "too many control connections; try again"),
            },
            Err(source) => {
                // Out of descriptors, mostly: it passes, and until then asking at once
                // again would only burn the processor.
                warn!(%source, "cannot take a control connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    if let Some(path) = &bound.path {
        fs::remove_file(path).ok();
    }
    drop(bound);
    let ended = async { while connections.join_next().await.is_some() {} };
    timeout(STOPPING_PATIENCE, ended).await.ok();
}

/// A place for whoever is at the other end; none: there is none, or nobody is there.
fn enter(crowd: &Arc<Crowd>, stream: &UnixStream) -> Option<(Place, UCred)> {
    let who = stream.peer_cred().ok()?;
    Some((crowd.enter(who.uid())?, who))
}

/// Says why this is the end, without waiting for the client to listen.
fn say(stream: &UnixStream, greet: bool, why: &str) {
    let mut text = Vec::new();
    if greet {
        push_line(&mut text, &Greeting::ours());
    }
    let failure = Failure::new(FailureKind::TryAgain, why);
    push_line(&mut text, &Line::Error(failure));
    // A new socket's buffer is empty: this fits, or nobody is there.
    stream.try_write(&text).ok();
}

/// One connection, until it ends or another one needs its place.
async fn attend(
    mut stream: UnixStream,
    place: Place,
    who: UCred,
    requests: mpsc::Sender<(Request, Responder)>,
) {
    let mut asked = false;
    let ended = tokio::select! {
        // Nobody is sent away without a greeting.
        biased;
        ended = converse(&mut stream, &place, who, requests, &mut asked) => Some(ended),
        () = place.asked_to_leave() => None,
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(source)) => debug!(%source, "a control connection ended early"),
        // Whoever stopped reading would not read this either, and stands in the middle of
        // a line.
        None if asked => debug!("a control connection that was not read made room"),
        None => say(
            &stream,
            false,
            "no request came, and there are too many control connections; try again",
        ),
    }
}

/// One connection, from its greeting to its last line.
async fn converse(
    stream: &mut UnixStream,
    place: &Place,
    who: UCred,
    requests: mpsc::Sender<(Request, Responder)>,
    asked: &mut bool,
) -> io::Result<()> {
    let mut text = Vec::new();
    push_line(&mut text, &Greeting::ours());
    write(stream, &text).await?;

    let request = match timeout(REQUEST_PATIENCE, read_request(stream)).await {
        Ok(request) => request?,
        Err(_) => Err(Failure::new(FailureKind::TryAgain, "no request came")),
    };
    let request = match request {
        Ok(request) => request,
        Err(failure) => return last_line(stream, failure).await,
    };
    // What a client was sent away with is not carried out: nobody would tell it.
    if !place.now(Doing::Waiting) {
        return std::future::pending().await;
    }
    *asked = true;
    let peer = Peer::new(who.uid(), who.gid(), who.pid());
    log(&request, &peer);
    let (responder, mut lines) = Responder::new(peer);
    if requests
        .send_timeout((request, responder), DAEMON_PATIENCE)
        .await
        .is_err()
    {
        let failure = Failure::new(
            FailureKind::TryAgain,
            "penstockd is busy or stopping; try again",
        );
        return last_line(stream, failure).await;
    }
    let mut page = Vec::with_capacity(LINES_TOGETHER);
    loop {
        let more = lines.recv_many(&mut page, LINES_TOGETHER);
        match timeout(LOOK_AGAIN, more).await {
            Ok(0) => break,
            Ok(_) => {}
            // An answer may pause for an hour: nobody keeps a place by having left.
            Err(_) if is_gone(stream) => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => continue,
        }
        text.clear();
        let ended = page.iter().any(|line| !matches!(line, Line::Item(_)));
        for line in page.drain(..) {
            push_line(&mut text, &line);
        }
        place.now(Doing::Reading(Instant::now()));
        write(stream, &text).await?;
        place.now(Doing::Waiting);
        if ended {
            return stream.shutdown().await;
        }
    }
    let failure = Failure::new(
        FailureKind::Failed,
        "penstockd ended its answer early; see its log",
    );
    last_line(stream, failure).await
}

/// Whether the client has closed its socket; one that only stopped writing has not.
fn is_gone(stream: &UnixStream) -> bool {
    // Nothing is sent, but the kernel says whether it could be.
    rustix::net::send(stream, &[], rustix::net::SendFlags::NOSIGNAL) == Err(Errno::PIPE)
}

/// Reads the one request of a connection.
async fn read_request(stream: &mut UnixStream) -> io::Result<Result<Request, Failure>> {
    let mut line = Vec::new();
    BufReader::new(stream)
        .take(REQUEST_MAXIMUM as u64)
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.len() == REQUEST_MAXIMUM && !line.ends_with(b"\n") {
        let words = format!("the request is longer than {REQUEST_MAXIMUM} octets");
        return Ok(Err(Failure::new(FailureKind::BadRequest, words)));
    }
    Ok(serde_json::from_slice(&line).map_err(|source| {
        Failure::new(FailureKind::BadRequest, format!("not a request: {source}"))
    }))
}

/// A request as it may be read by whoever reads the log.
fn shown(request: &Request) -> String {
    let hidden = || "***".to_owned();
    let shown = match request.clone() {
        // A token in the log would confirm a relay for whoever reads it first.
        Request::RelayConfirm { dry_run, .. } => Request::RelayConfirm {
            token: hidden(),
            dry_run,
        },
        // And this one sends mail in a mailbox's name.
        Request::RelayLogin {
            relay,
            refresh_token,
        } => Request::RelayLogin {
            relay,
            refresh_token: refresh_token.map(|_| hidden()),
        },
        other => other,
    };
    serde_json::to_string(&shown).unwrap_or_default()
}

/// Every change and every look into somebody's mail leaves a line behind.
fn log(request: &Request, peer: &Peer) {
    let (user, uid, gid, pid) = (peer.user.as_str(), peer.uid, peer.gid, peer.pid);
    if !request.is_logged() {
        debug!(
            verb = request.verb(),
            user, uid, gid, pid, "control request"
        );
        return;
    }
    let request = shown(request);
    info!(request, user, uid, gid, pid, "control request");
}

async fn last_line(stream: &mut UnixStream, failure: Failure) -> io::Result<()> {
    let mut text = Vec::new();
    push_line(&mut text, &Line::Error(failure));
    write(stream, &text).await?;
    stream.shutdown().await
}

/// Writes all of `text`, as long as the client reads a little now and then.
async fn write(stream: &mut UnixStream, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        let written = timeout(READER_PATIENCE, stream.write(text))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        text = &text[written..];
    }
    Ok(())
}

/// Appends one line of JSON.
fn push_line(text: &mut Vec<u8>, line: &impl serde::Serialize) {
    serde_json::to_writer(&mut *text, line).expect("our types serialise and memory does not fail");
    text.push(b'\n');
}

#[cfg(test)]
mod tests;
