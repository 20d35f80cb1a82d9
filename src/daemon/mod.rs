//! The daemon: wires all the other modules together, and nothing else does.
//!
//! [`Daemon::start`] opens the spool, binds the listeners and starts the two halves of the
//! program; [`Daemon::run`] then waits for signals, reloads and the end. Stopping goes
//! from the outside in: listeners and their clients, the delivery task and its
//! transactions, the control socket, the spool.

mod alarm;
mod alarms;
mod answers;
mod change;
pub mod delivery;
mod desk;
mod following;
mod hinting;
mod intake;
mod lifecycle;
pub mod log;
mod look;
mod overdue;
mod own_mail;
mod pages;
mod picture;
mod relay_test;
mod reload;
mod sockets;
mod status;
mod systemd;
mod traffic;
mod transaction;
mod verifying;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use crate::accept::{self, CrowdLimits, Live};
use crate::clock::Clock;
use crate::config::{Checked, Config, ConfigError, ListenerAuth, ListenerTls, MinFree};
use crate::control;
use crate::dns::{Dns, SystemResolver};
use crate::oauth::{Keeper, Tokens};
use crate::outcome::Rules;
use crate::relay::Pool;
use crate::spool::{Reserve, Spool, SpoolError, SpoolOptions};
use crate::tls::TlsError;
use crate::verify::Confirmations;

use answers::Answers;
use delivery::Delivery;
use desk::Desk;
use hinting::{Hinting, Hints};
use intake::Intake;
use lifecycle::Lifecycle;
use pages::Pages;
use reload::{Reloader, Requests};
use sockets::{Inherited, SocketError};
use status::Facts;
use systemd::{tell_systemd, telling_that_we_live};
use transaction::Office;

/// How long clients in the middle of a message may go on after we were asked to stop.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long transactions with relays may go on after we were asked to stop. Those that
/// wait for the reply to a final dot then get `timeouts.final-dot`, because without that
/// reply the message is in doubt.
const RELAY_PATIENCE: Duration = Duration::from_secs(60);
/// How long answers on the control socket may go on after that.
const CONTROL_PATIENCE: Duration = Duration::from_secs(5);

/// What a daemon is started with.
pub struct Setup {
    /// The configuration to begin with.
    pub checked: Checked,
    /// Where it came from, to read it again; none: it cannot be reloaded.
    pub path: Option<PathBuf>,
    /// The clock.
    pub clock: Clock,
    /// The resolver.
    pub dns: Arc<dyn Dns>,
    /// Where the control socket stands.
    pub control: PathBuf,
    /// How the spool is opened; its path and reserve are the configuration's.
    pub spool: SpoolOptions,
    /// Sockets that systemd handed over.
    pub inherited: Inherited,
}

impl Setup {
    /// The usual setup for a configuration: the machine's clock and resolver.
    pub fn new(checked: Checked, path: Option<PathBuf>) -> Result<Self, StartError> {
        let config = &checked.config;
        let mut spool = SpoolOptions::at(&config.spool.path);
        spool.min_free = reserve(config.spool.min_free);
        Ok(Self {
            control: control::listening_path(&config.spool.path),
            spool,
            clock: Clock::system(),
            dns: Arc::new(
                SystemResolver::new().map_err(|error| StartError::Dns(error.to_string()))?,
            ),
            inherited: Inherited::default(),
            checked,
            path,
        })
    }
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The spool cannot be opened.
    #[error("cannot open the spool: {}{}", answers::chain(.0), remedy(.0))]
    Spool(#[from] SpoolError),
    /// A listener has no socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A listener cannot serve.
    #[error(transparent)]
    Serve(#[from] accept::ServeError),
    /// The certificate for listeners is missing or wrong.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The administrator's own rules for refusals are wrong.
    #[error("{0}")]
    Rules(String),
    /// The system's resolver configuration cannot be read.
    #[error("cannot use the system's DNS resolver: {0}")]
    Dns(String),
    /// The control socket cannot be opened.
    #[error(transparent)]
    Control(#[from] control::server::ControlError),
    /// No runtime, no signal handlers.
    #[error("cannot {action}: {source}")]
    System {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What to do about a spool that the system does not let us have; nothing where the words
/// of the error say it.
fn remedy(error: &SpoolError) -> &'static str {
    let (SpoolError::Io { source, .. } | SpoolError::Unreadable { source, .. }) = error else {
        return "";
    };
    match source.kind() {
        ErrorKind::PermissionDenied => {
            "; the directory of spool.path must belong to the user that penstockd runs as"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "; spool.path must be on a file system that can be written to (and within \
             ReadWritePaths, if a systemd unit sets them)"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "; a file is where spool.path wants a directory: move it away, or set spool.path"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room on that disk",
        _ => "",
    }
}

impl StartError {
    /// The exit status that tells a service manager whether starting again could help.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::Rules(_)
            | Self::Serve(_)
            | Self::Tls(_)
            | Self::Spool(SpoolError::Newer { .. })
            | Self::Socket(SocketError::Unknown { .. }) => 78,
            Self::Socket(_)
            | Self::Spool(_)
            | Self::Dns(_)
            | Self::Control(_)
            | Self::System { .. } => 1,
        }
    }
}

/// Why the daemon ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, and nothing was cut off.
    InGoodOrder,
    /// It was asked to, and something was cut off.
    CutOff,
    /// A sync failed: what the disk holds is no longer known.
    DiskFailed,
    /// A part of it ended unasked: the rest was stopped, so that a service manager
    /// starts all of it again.
    PartFailed,
}

/// Asks for as many descriptors as the system lets it have: where few are given, clients
/// would have less room than they need not.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        debug!(%error, "the limit of descriptors stays as it is");
    }
}

/// The whole of `penstockd` after its arguments.
pub fn main(config: &Path) -> ExitCode {
    let failed = |error: &StartError| {
        // A configuration error has many lines: for people, not for fields.
        match error {
            StartError::Config(problems) => {
                writeln!(std::io::stderr(), "{problems}").ok();
            }
            other => error!("{other}"),
        }
        ExitCode::from(error.exit_code())
    };
    let checked = match crate::config::load(config) {
        Ok(checked) => checked,
        Err(problems) => return failed(&problems.into()),
    };
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(source) => {
            return failed(&StartError::System {
                action: "start a runtime",
                source,
            });
        }
    };
    let ended = runtime.block_on(async {
        let mut setup = Setup::new(checked, Some(config.to_owned()))?;
        setup.inherited = Inherited::from_systemd()?;
        Ok::<_, StartError>(Daemon::start(setup).await?.run().await)
    });
    // Threads that still wait for a dead disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(Ended::InGoodOrder | Ended::CutOff) => ExitCode::SUCCESS,
        Ok(Ended::DiskFailed | Ended::PartFailed) => ExitCode::from(1),
        Err(error) => failed(&error),
    }
}

/// A daemon that runs.
pub struct Daemon {
    spool: Spool,
    intake: Intake,
    looking: Lifecycle,
    deliveries: Lifecycle,
    controls: Lifecycle,
    pages: Pages,
    stop_control: watch::Sender<bool>,
    reloads: Requests,
    reloader: Reloader,
    live: watch::Sender<Arc<Live>>,
    rules: watch::Sender<Arc<Rules>>,
    desk: Desk,
    tokens: Tokens,
    facts: Arc<Facts>,
    clock: Clock,
    path: Option<PathBuf>,
    control: PathBuf,
}

impl Daemon {
    /// Starts everything: when it returns, mail is accepted.
    pub async fn start(setup: Setup) -> Result<Self, StartError> {
        let Setup {
            checked,
            path,
            clock,
            dns,
            control,
            spool: options,
            inherited,
        } = setup;
        for warning in &checked.warnings {
            warn!("{warning}");
        }
        let config = Arc::new(checked.config);
        let (spool, recovered) = Spool::open(options, clock.clone())?;
        let now = clock.now();
        let facts = Arc::new(Facts::new(now));
        if recovered.crashed {
            warn!(
                open_leases = recovered.open_leases.len(),
                in_doubt = recovered.in_doubt.len(),
                "the last run did not end in good order; the log was read again"
            );
        }
        facts.doubted(recovered.in_doubt.len() as u64);
        for queue_id in &recovered.in_doubt {
            warn!(%queue_id, "in doubt: the final dot was on its way when the last run ended; it is sent again");
        }
        let live = intake::live(config, spool.path())?;
        let (live, seen) = watch::channel(Arc::new(live));
        let rules = reload::rules(path.as_deref()).map_err(StartError::Rules)?;
        let (rules, refusal_rules) = watch::channel(Arc::new(rules));
        let (desk, events) = Desk::new();

        let deliveries = Lifecycle::default();
        let tokens = Tokens::new(dns.clone(), clock.clone(), Keeper::Spool(spool.clone()));
        tokens.configured(live.borrow().config.relays.values());
        let office = Arc::new(Office {
            spool: spool.clone(),
            pool: Pool::new(dns.clone(), clock.clone(), tokens.clone()),
            tokens: tokens.clone(),
            live: seen.clone(),
            rules: refusal_rules,
            clock: clock.clone(),
            lifecycle: deliveries.clone(),
            confirmations: Confirmations::default(),
        });
        let delivery = Delivery::new(
            office.clone(),
            desk.clone(),
            events,
            facts.clone(),
            &recovered,
        );
        let (hints, accepted) = Hints::new();
        let looking = Lifecycle::default();
        let hinting = Hinting {
            hints: hints.clone(),
            accepted,
            live: seen.clone(),
            spool: spool.clone(),
            desk: desk.clone(),
            dns,
            clock: clock.clone(),
            lifecycle: looking.clone(),
        };
        let shared = intake::shared(
            &office,
            (&desk, &hints),
            &facts,
            CrowdLimits::default(),
            CLIENT_PATIENCE,
            &deliveries,
        )
        .await;
        let mut intake = Intake::new(shared.clone(), inherited);
        let listeners = intake.prepare(&seen.borrow().config.listen)?;
        intake.refuse_unknown()?;

        let (reloader, reloads) = reload::channel();
        let answers = Arc::new(Answers {
            spool: spool.clone(),
            desk: desk.clone(),
            live: seen,
            clock: clock.clone(),
            reloader: reloader.clone(),
            facts: facts.clone(),
            shared,
            office: office.clone(),
            hints,
        });
        let bound = match intake.take_control() {
            Some(socket) => control::server::Bound::adopt(socket.into())?,
            None => control::server::Bound::open(&control)?,
        };
        let configured = answers.live.borrow().config.clone();
        let controls = Lifecycle::default();
        let (requests, asked) = mpsc::channel(16);
        let mut pages = Pages::new(requests.clone(), controls.clone());
        let ready = pages.prepare(&configured.http).await?;

        // Whatever the system could refuse is ours now. Only from here on does anything
        // run: a start that fails must not cut transactions off, every two seconds.
        let phase = deliveries.clone();
        deliveries.spawn_vital("the delivery task", async move {
            delivery.run().await;
            match phase.is_stopping() {
                true => Ok(()),
                false => Err("ended".to_owned()),
            }
        });
        // Mail flows without hints: the end of this one is told and nothing more.
        looking.spawn_vital("the task that looks for hints", async move {
            hinting.run().await;
            Ok(())
        });
        intake.change(&configured.listen, listeners)?;
        let (stop_control, stopping) = watch::channel(false);
        pages.change(&configured.http, ready);
        controls.spawn_vital("the server of the control socket", async move {
            control::server::serve(bound, requests, stopping).await;
            Ok(())
        });
        let answering = answers::serve(answers, asked, controls.clone());
        controls.spawn_vital("the task that answers requests", async move {
            answering.await;
            Ok(())
        });

        say_where(&control, &intake, &configured);
        info!(version = crate::VERSION_AND_COMMIT, spool = %spool.path().display(), control = %control.display(), "penstockd is ready");
        Ok(Self {
            spool,
            intake,
            looking,
            deliveries,
            controls,
            pages,
            stop_control,
            reloads,
            reloader,
            live,
            rules,
            desk,
            tokens,
            facts,
            clock,
            path,
            control,
        })
    }

    /// The addresses that are really bound, in the order of `[[listen]]`.
    pub fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.intake.addresses()
    }

    /// Where the confirmation page is really served.
    pub fn confirm_address(&self) -> Option<std::net::SocketAddr> {
        self.pages.confirm_address()
    }

    /// Where the control socket stands.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// Runs until a signal asks it to stop.
    pub async fn run(self) -> Ended {
        let mut terminate = match signal(SignalKind::terminate()) {
            Ok(signal) => signal,
            Err(error) => {
                error!(%error, "cannot watch for SIGTERM");
                return self.stop().await;
            }
        };
        let stop = async move {
            let mut interrupt = signal(SignalKind::interrupt()).ok();
            let interrupted = async {
                match &mut interrupt {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = terminate.recv() => info!("SIGTERM: stopping"),
                _ = interrupted => info!("SIGINT: stopping"),
            }
        };
        self.run_until(stop).await
    }

    /// Runs until `stop` resolves, or a sync fails.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Ended {
        tell_systemd(&[sd_notify::NotifyState::Ready]);
        let watchdog = sd_notify::watchdog_enabled().map(|it| it / 2);
        let mut hang_up = signal(SignalKind::hangup()).ok();
        let mut stop = std::pin::pin!(stop);
        let spool = self.spool.clone();
        let mut fatal = std::pin::pin!(spool.fatal());
        let halves = [
            self.intake.lifecycle().clone(),
            self.deliveries.clone(),
            self.controls.clone(),
        ];
        let mut failed = std::pin::pin!(lifecycle::any_failed(&halves));
        loop {
            let barked = async {
                match watchdog {
                    Some(interval) => tokio::time::sleep(interval).await,
                    None => std::future::pending().await,
                }
            };
            let hung_up = async {
                match &mut hang_up {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut stop => return self.stop().await,
                trouble = &mut fatal => {
                    explain_the_end(&trouble);
                    return Ended::DiskFailed;
                }
                which = &mut failed => {
                    error!("stopping, to be started again: {which}");
                    self.stop().await;
                    return Ended::PartFailed;
                }
                () = barked => {
                    // Whoever answers has a delivery task that turns and a runtime that runs.
                    if self.desk.is_alive().await {
                        tell_systemd(&[sd_notify::NotifyState::Watchdog]);
                    }
                }
                _ = hung_up => {
                    let _ = self.reload().await;
                }
                Some(taken) = self.reloads.recv() => {
                    let result = self.reload().await;
                    taken.send(result).ok();
                }
            }
        }
    }

    /// Stops from the outside in.
    pub async fn stop(mut self) -> Ended {
        tell_systemd(&[sd_notify::NotifyState::Stopping]);
        let clients = self.intake.stop(CLIENT_PATIENCE + CONTROL_PATIENCE).await;
        self.looking.stop(CONTROL_PATIENCE).await;
        let replies = self.live.borrow().config.timeouts.final_dot;
        let stopped = self.deliveries.stop_after_replies(RELAY_PATIENCE, replies);
        let deliveries = telling_that_we_live(stopped).await;
        self.pages.stop();
        self.stop_control.send_replace(true);
        self.controls.stop(CONTROL_PATIENCE).await;
        drop(self.reloader);
        if let Err(trouble) = self.spool.close().await {
            warn!(%trouble, "the spool was not closed in good order; the next start reads the log again");
        }
        info!("penstockd has stopped");
        match clients && deliveries {
            true => Ended::InGoodOrder,
            false => Ended::CutOff,
        }
    }
}

/// The reserve of the spool, as it is configured.
fn reserve(min_free: MinFree) -> Reserve {
    match min_free {
        MinFree::Percent(percent) => Reserve::Percent(percent),
        MinFree::Bytes(bytes) => Reserve::Bytes(bytes),
    }
}

/// Says why the daemon ends by itself, and what to do about it.
fn explain_the_end(trouble: &SpoolError) {
    let error = trouble as &dyn std::error::Error;
    match trouble {
        SpoolError::SyncFailed { .. } => error!(
            error,
            "a sync failed, so nothing can be promised any more: exiting, to read at the next start what the disk really has. What was answered with 250 is not lost by this. Check the disk (dmesg, smartctl) and its file system if it happens again"
        ),
        _ => error!(
            error,
            "the spool cannot go on: exiting. What was answered with 250 is not lost by this"
        ),
    }
}

/// Tells programs on this machine where they can hand in mail.
fn say_where(control: &Path, intake: &Intake, config: &Config) {
    let bound = config.listen.iter().zip(intake.addresses());
    let plain = bound.filter(|(listener, _)| {
        listener.tls != ListenerTls::Implicit && listener.auth != ListenerAuth::Required
    });
    let plain: Vec<_> = plain.map(|(_, bound)| bound).collect();
    let path = control::submission::path_beside(control);
    if let Err(error) = control::submission::write(&path, control::submission::choice(&plain)) {
        warn!(%error, path = %path.display(), "cannot tell sendmail where to hand in mail");
    }
}

/// Reads the files again.
async fn read(path: PathBuf) -> Result<Checked, ConfigError> {
    let read = tokio::task::spawn_blocking(move || crate::config::load(&path));
    read.await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The configuration without what it was read from, for tests.
impl From<Config> for Checked {
    fn from(config: Config) -> Self {
        Self {
            config,
            warnings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
