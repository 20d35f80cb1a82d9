//! The intake: clients, their SMTP sessions, and what becomes of a message they send.
//!
//! [`serve`] takes connections of one listener. Each is a task of its own: `connection`
//! moves octets and watches the time, [`session`] decides what to answer, `incoming`
//! brings the content into the spool, [`admission`] says as whom and by which relay.
//! A message is answered with 250 when the spool has it on the disk, not earlier.
//!
//! Nothing here knows what happens to a message afterwards: mailings, content checks and
//! the delivery are [`Hooks`].

mod acceptance;
pub mod admission;
pub mod auth;
mod connection;
pub mod crowd;
pub mod guard;
mod incoming;
mod purse;
mod receive;
mod room;
pub mod sasl;
mod seldom;
pub mod session;
#[cfg(test)]
mod session_tests;
mod transaction;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::config::{Config, Listener};
use crate::mail::header::Header;
use crate::mail::{Envelope, Hold, Mailbox, Mailing, Recipient, ReversePath};
use crate::route::Directory;
use crate::spool::Spool;
use crate::tls::ServerTls;

pub use auth::Gate;
pub use crowd::{Crowd, CrowdLimits};
pub use guard::OpenRelay;
use purse::Purse;

/// Octets of a header that each client may hold, and KiB for all beyond that.
const HEADERS: (usize, usize) = (16 * 1024, 16 * 1024);
/// The same for the recipients of a transaction.
const RECIPIENTS: (usize, usize) = (64 * 1024, 64 * 1024);
/// How long to wait before accepting again when the system refuses a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Content checks at once.
const CHECKS_AT_ONCE: usize = 4;

/// What a reload replaces, as one.
#[derive(Debug)]
pub struct Live {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its directory.
    pub directory: Arc<Directory>,
    /// The listeners' certificate; none: no TLS can be offered.
    pub tls: Option<ServerTls>,
}

/// What others do about a message.
pub struct Hooks {
    /// Which mailing it belongs to, and whether it is held from the start.
    pub assign: Arc<Assign>,
    /// Takes back what `assign` counted, because the message could not be stored.
    pub take_back: Arc<TakeBack>,
    /// Looks into the content before it is accepted, where the configuration wants mail
    /// held or refused for it; may block, and is cut off after a few seconds. It sees the
    /// first 256 KiB.
    pub content_check: Option<Arc<ContentCheck>>,
    /// Whether a relay that wants verification has it.
    pub is_active: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Told of every message that was accepted, after it is durable. Must not block.
    pub accepted: Arc<Accepted>,
}

/// Says which mailing a message belongs to.
pub type Assign = dyn Fn(&Candidate<'_>) -> Assignment + Send + Sync;

/// Forgets one message of a sender's mailing.
pub type TakeBack = dyn Fn(&Mailbox, &Mailing) + Send + Sync;

/// Hears of an accepted message.
pub type Accepted = dyn Fn(&Envelope, &Header) + Send + Sync;

/// Looks at a message's header and the beginning of its content.
pub type ContentCheck = dyn Fn(&Header, &[u8]) -> Verdict + Send + Sync;

/// A message that is about to be accepted, for `assign`.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Who it is from.
    pub from: &'a Mailbox,
    /// What its header says.
    pub header: &'a Header,
    /// The name of its relay.
    pub relay: &'a str,
    /// Its reverse-path as the client said it.
    pub reverse_path: &'a ReversePath,
    /// Whom it goes to.
    pub recipients: &'a [Recipient],
    /// When it is accepted.
    pub at: Timestamp,
}

/// Which mailing a message belongs to, and whether it is held from the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The mailing.
    pub mailing: Mailing,
    /// Why it is held; none: it is not.
    pub hold: Option<Hold>,
}

/// What a content check says.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Nothing against it.
    Pass,
    /// Accept and hold it.
    Hold(Hold),
    /// Refuse it, in these words.
    Reject(String),
}

/// What all connections share.
pub struct Shared {
    live: watch::Receiver<Arc<Live>>,
    spool: Spool,
    clock: Clock,
    hooks: Hooks,
    gate: Gate,
    crowd: Arc<Crowd>,
    header_purse: Purse,
    recipient_purse: Purse,
    checks: Arc<Semaphore>,
    room: room::Room,
    crowded: seldom::Seldom,
    counters: Counters,
    patience: Duration,
}

impl Shared {
    /// What connections need; `patience` is how long a client in the middle of a message
    /// may go on when the daemon stops.
    pub fn new(
        live: watch::Receiver<Arc<Live>>,
        spool: Spool,
        clock: Clock,
        hooks: Hooks,
        limits: CrowdLimits,
        patience: Duration,
    ) -> Arc<Self> {
        let limits = limits.within_descriptors();
        Arc::new(Self {
            live,
            spool,
            clock,
            hooks,
            gate: Gate::default(),
            crowd: Arc::new(Crowd::new(limits)),
            header_purse: Purse::new(HEADERS.0, HEADERS.1),
            recipient_purse: Purse::new(RECIPIENTS.0, RECIPIENTS.1),
            checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            room: room::Room::default(),
            crowded: seldom::Seldom::default(),
            counters: Counters::default(),
            patience,
        })
    }

    /// How many clients are connected.
    pub fn connections(&self) -> usize {
        self.crowd.len()
    }

    /// How many clients are connected to a listener, by its configured address.
    pub fn connections_at(&self, listener: SocketAddr) -> usize {
        self.crowd.len_at(listener)
    }

    /// What happened since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// What happened since the start, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections taken.
    pub connections: AtomicU64,
    /// Connections refused, or ended to make room.
    pub crowded_out: AtomicU64,
    /// Messages accepted.
    pub accepted: AtomicU64,
    /// Messages refused after their content came.
    pub refused: AtomicU64,
    /// Logins that failed.
    pub failed_logins: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A listener that is bound.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub socket: TcpListener,
    /// The `address` of its `[[listen]]`, by which the configuration is asked.
    pub configured: SocketAddr,
}

/// Why a listener cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It would be an open relay.
    #[error(transparent)]
    OpenRelay(#[from] OpenRelay),
    /// The socket does not tell where it is bound.
    #[error("cannot ask a listener for its address")]
    Address(#[source] io::Error),
}

/// Takes connections until `stop` turns true, then lets those that are in the middle of
/// a message finish; returns when all have ended.
///
/// Refuses to serve where that would be an open relay, judged by the address that the
/// socket is really bound to.
pub async fn serve(
    bound: Bound,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let address = bound.socket.local_addr().map_err(ServeError::Address)?;
    let configured = bound.configured;
    // One that a reload has removed meanwhile turns its clients away, one by one.
    if let Some(listener) = listener_of(&shared.live.borrow().config, configured) {
        guard::check(address, &listener)?;
    }
    let place = connection::Place {
        bound: address,
        configured,
    };
    let mut tasks = JoinSet::new();
    let asked_to_stop = stop.clone();
    loop {
        tokio::select! {
            biased;
            () = stopping(&mut stop) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            taken = bound.socket.accept() => match taken {
                Ok((stream, client)) => {
                    count(&shared.counters.connections);
                    if let Some(connection) = let_in(&shared, place, stream, client) {
                        tasks.spawn(connection::run(connection, asked_to_stop.clone()));
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely: others will close theirs.
                    warn!(%address, %error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(bound);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Finds a place for a new connection, or sends it away.
fn let_in(
    shared: &Arc<Shared>,
    place: connection::Place,
    stream: TcpStream,
    client: SocketAddr,
) -> Option<connection::Start> {
    let live = shared.live.borrow().clone();
    let refuse = |stream: TcpStream, reply: &str| {
        count(&shared.counters.crowded_out);
        connection::turn_away(stream, reply);
        None
    };
    let safe = listener_of(&live.config, place.configured)
        .filter(|it| guard::check(place.bound, it).is_ok());
    let Some(listener) = safe else {
        warn!(listener = %place.bound, client = %client.ip(), "a listener that is no longer configured, or would be an open relay, refuses a client");
        return refuse(stream, "421 4.3.2 not in service\r\n");
    };
    let trust = guard::trust(place.bound, client.ip(), &listener);
    match shared.crowd.enter(client.ip(), trust) {
        Ok(seat) => {
            seat.came_to(place.configured);
            Some(connection::Start {
                shared: shared.clone(),
                live,
                place,
                listener,
                stream,
                client: client.ip(),
                seat,
            })
        }
        Err(crowded) => {
            debug!(client = %client.ip(), ?crowded, "too many connections");
            if let Some(clients) = shared.crowded.tell() {
                warn!(clients, last = %client.ip(), "too many connections: clients were sent away");
            }
            let reply = match crowded {
                crowd::Crowded::Client => "421 4.7.0 too many connections from your address\r\n",
                crowd::Crowded::Total => "421 4.3.2 too many connections, try again later\r\n",
            };
            // Under implicit TLS the words would not be understood; they do no harm.
            refuse(stream, reply)
        }
    }
}

fn listener_of(config: &Config, configured: SocketAddr) -> Option<Arc<Listener>> {
    let listener = config.listen.iter().find(|it| it.address == configured);
    listener.cloned().map(Arc::new)
}

/// Resolves when it is time to stop.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|it| *it).await.is_err() {
        // Nobody is left who could ask: then nobody asks.
        std::future::pending::<()>().await;
    }
}
