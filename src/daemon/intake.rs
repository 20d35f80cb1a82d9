//! The intake half as the daemon runs it: its listeners, and what it asks of others.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener as TcpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::accept::{self, Assignment, Bound, CrowdLimits, Hooks, Live, Shared};
use crate::clock::Clock;
use crate::config::{Config, Listener, ListenerTls};
use crate::mail::count::count;
use crate::mail::{Hold, HoldReason};
use crate::release::mailing::{Labels, Mailings};
use crate::route::Directory;
use crate::spool::{Spool, Waiting};
use crate::tls::{ServerTls, TlsError};

use super::StartError;
use super::desk::Desk;
use super::hinting::{self, Coming, Hints};
use super::lifecycle::Lifecycle;
use super::sockets::{self, Inherited, SocketError};
use super::status::Facts;
use super::transaction::Office;

/// What connections need of a configuration; reads the certificate files.
pub fn live(config: Arc<Config>, state_directory: &Path) -> Result<Live, TlsError> {
    let wants_tls = config.listen.iter().any(|it| it.tls != ListenerTls::Off);
    let tls = match (&config.tls, wants_tls) {
        (Some(files), _) => Some(ServerTls::from_files(files)?),
        (None, true) => {
            warn!(
                "no [tls] is configured: listeners use a self-signed certificate, which clients must be told to trust"
            );
            Some(ServerTls::self_signed(state_directory, &config.hostname)?)
        }
        (None, false) => None,
    };
    Ok(Live {
        directory: Arc::new(Directory::new(&config)),
        tls,
        config,
    })
}

/// The mailings of the last hour: at once, or as soon as the spool's index is complete.
/// Mail is accepted meanwhile.
async fn recall(
    mailings: &Arc<Mutex<Mailings>>,
    spool: &Spool,
    clock: &Clock,
    lifecycle: &Lifecycle,
) {
    let (mailings, asked, clock) = (mailings.clone(), spool.clone(), clock.clone());
    let recalled = async move {
        match asked.flows().await {
            Ok(flows) => {
                let mut known = mailings.lock().unwrap_or_else(PoisonError::into_inner);
                let since = std::mem::take(&mut *known);
                for flow in &flows {
                    known.recall(flow, clock.moment());
                }
                known.overlay(since);
            }
            Err(trouble) => {
                warn!(%trouble, "the mailings of the last hour are not known any more");
            }
        }
    };
    if spool.is_complete() {
        return recalled.await;
    }
    let draining = lifecycle.draining();
    lifecycle.spawn(async move {
        tokio::select! {
            () = recalled => {}
            () = draining.cancelled() => {}
        }
    });
}

/// What all connections share, with everything they ask of others.
pub async fn shared(
    office: &Office,
    (desk, hints): (&Desk, &Hints),
    facts: &Arc<Facts>,
    limits: CrowdLimits,
    patience: Duration,
    lifecycle: &Lifecycle,
) -> Arc<Shared> {
    let Office {
        live,
        spool,
        clock,
        confirmations,
        ..
    } = office;
    let mailings = Arc::new(Mutex::new(Mailings::new()));
    recall(&mailings, spool, clock, lifecycle).await;
    let (seen, time) = (live.clone(), clock.clone());
    let (told, facts) = (desk.clone(), facts.clone());
    let (routed, confirmations) = (live.clone(), confirmations.clone());
    let (known, looking) = (hints.clone(), hints.clone());
    let counted = mailings.clone();
    let hooks = Hooks {
        assign: Arc::new(move |candidate| {
            let config = seen.borrow().config.clone();
            let limit = config
                .relays
                .get(candidate.relay)
                .and_then(|relay| relay.limits.mailing_limit);
            let moment = time.moment();
            let assigned = mailings
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .assign(candidate.from, &Labels::of(candidate.header), limit, moment);
            let hold = assigned.is_excess.then(|| Hold {
                reason: HoldReason::MailingLimit,
                by: "penstock".to_owned(),
                since: moment.wall,
                note: format!(
                    "a mailing may have {}",
                    count(u64::from(limit.unwrap_or(0)), "message", "messages")
                ),
            });
            Assignment {
                mailing: assigned.mailing,
                hold: hold.or_else(|| known.hold(&config, &coming(candidate), moment.wall)),
            }
        }),
        take_back: Arc::new(move |from, mailing| {
            counted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take_back(from, mailing);
        }),
        content_check: Some(hinting::content_check(live.clone(), clock.clone())),
        is_active: Arc::new(move |relay| {
            let live = routed.borrow();
            let relay = live.config.relays.get(relay);
            relay.is_some_and(|it| confirmations.is_active(it))
        }),
        accepted: Arc::new(move |envelope, _| {
            facts.relays.accepted(envelope);
            if let Some(item) = Waiting::of(envelope) {
                told.accepted(item);
            }
            looking.accepted(envelope);
        }),
    };
    Shared::new(
        live.clone(),
        spool.clone(),
        clock.clone(),
        hooks,
        limits,
        patience,
    )
}

fn coming<'a>(candidate: &accept::Candidate<'a>) -> Coming<'a> {
    Coming {
        from: candidate.from,
        relay: candidate.relay,
        reverse_path: candidate.reverse_path,
        to: candidate.recipients,
    }
}

/// The listeners that run.
pub struct Intake {
    shared: Arc<Shared>,
    lifecycle: Lifecycle,
    inherited: Inherited,
    running: BTreeMap<SocketAddr, Running>,
    order: Vec<SocketAddr>,
}

struct Running {
    bound: SocketAddr,
    stop: watch::Sender<bool>,
    socket: Held,
}

/// Who closes a listening socket.
enum Held {
    /// We do; a second descriptor of it.
    Ours(OwnedFd),
    /// systemd, which keeps it open whatever we do.
    Inherited,
}

/// Listeners that are bound and do not serve yet.
pub struct Ready(Vec<(Listener, TcpSocket, Held)>);

impl Intake {
    /// No listener yet.
    pub fn new(shared: Arc<Shared>, inherited: Inherited) -> Self {
        Self {
            shared,
            lifecycle: Lifecycle::default(),
            inherited,
            running: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    /// Binds those of the wanted listeners that do not run yet.
    pub fn prepare(&mut self, wanted: &[Listener]) -> Result<Ready, StartError> {
        let mut ready = Vec::new();
        for listener in wanted {
            if self.running.contains_key(&listener.address) {
                continue;
            }
            let failed = |source| SocketError::Bind {
                address: listener.address,
                source,
            };
            let (socket, held) = match self.inherited.take(listener.address) {
                Some(socket) => (socket, Held::Inherited),
                None => {
                    let socket = self.bind(listener.address, wanted)?;
                    let second = socket.try_clone().map_err(failed)?;
                    (socket, Held::Ours(second.into()))
                }
            };
            let bound = socket.local_addr().map_err(failed)?;
            accept::guard::check(bound, listener).map_err(accept::ServeError::from)?;
            socket.set_nonblocking(true).map_err(failed)?;
            ready.push((listener.clone(), socket, held));
        }
        Ok(Ready(ready))
    }

    /// Binds an address, also where a listener of ours that is no longer wanted has it.
    fn bind(&self, address: SocketAddr, wanted: &[Listener]) -> Result<TcpSocket, SocketError> {
        let in_use = match sockets::bind(address) {
            Err(error) if error.is_in_use() => error,
            other => return other,
        };
        let mut leaving = self.running.iter().filter_map(|(configured, running)| {
            let goes = !wanted.iter().any(|it| it.address == *configured);
            match &running.socket {
                Held::Ours(socket) if goes && running.bound.port() == address.port() => {
                    Some(socket)
                }
                _ => None,
            }
        });
        leaving
            .find_map(|it| sockets::bind_over(it, address).ok())
            .ok_or(in_use)
    }

    /// Has the prepared listeners serve, and closes those that are not wanted any more.
    pub fn change(&mut self, wanted: &[Listener], ready: Ready) -> Result<(), StartError> {
        self.running.retain(|address, running| {
            if wanted.iter().any(|it| it.address == *address) {
                return true;
            }
            if matches!(running.socket, Held::Inherited) {
                // Not served, its clients would hang in a queue that nobody reads.
                warn!(%address, "no [[listen]] has this address any more: clients there are told so; remove it from penstock.socket");
                return true;
            }
            info!(%address, "listener closed");
            running.stop.send_replace(true);
            false
        });
        for (listener, socket, held) in ready.0 {
            let failed = |source| SocketError::Bind {
                address: listener.address,
                source,
            };
            let socket = TcpListener::from_std(socket).map_err(failed)?;
            let bound = socket.local_addr().map_err(failed)?;
            let (stop, stopping) = watch::channel(false);
            let shared = self.shared.clone();
            let configured = listener.address;
            info!(address = %bound, tls = ?listener.tls, auth = ?listener.auth, "listening");
            let name = format!("the listener on {configured}");
            self.lifecycle.spawn_vital(name, async move {
                let bound = Bound { socket, configured };
                let served = accept::serve(bound, shared, stopping).await;
                served.map_err(|error| format!("ended: {error}"))
            });
            let running = Running {
                bound,
                stop,
                socket: held,
            };
            self.running.insert(configured, running);
        }
        self.order = wanted.iter().map(|it| it.address).collect();
        Ok(())
    }

    /// Refuses sockets from systemd that no listener took.
    pub fn refuse_unknown(&self) -> Result<(), SocketError> {
        self.inherited.refuse_rest()
    }

    /// The control socket, if systemd handed one over.
    pub fn take_control(&mut self) -> Option<UnixListener> {
        self.inherited.control.take()
    }

    /// The tasks of the listeners.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// The addresses that are really bound, in the order of `[[listen]]`.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.order
            .iter()
            .filter_map(|it| self.running.get(it))
            .map(|it| it.bound)
            .collect()
    }

    /// Closes all listeners and waits for their clients; whether all ended by themselves.
    pub async fn stop(&mut self, patience: Duration) -> bool {
        // Dropped with it: our second descriptors, or the ports would stay open.
        for running in std::mem::take(&mut self.running).into_values() {
            running.stop.send_replace(true);
        }
        self.lifecycle.stop(patience).await
    }
}
