//! Taking a new configuration while mail flows.
//!
//! The files are read and checked whole, new listeners are bound, the certificate is
//! read; then the new configuration replaces the old one in one step. Whatever goes wrong
//! before that leaves the old one in use, and is shown.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::config::changes;
use crate::control::protocol::ReloadReport;
use crate::outcome::Rules;

use super::desk::Event;
use super::systemd::tell_systemd;
use super::{Daemon, intake, read, reserve, say_where};

/// Asks for reloads; cloned freely.
#[derive(Clone)]
pub struct Reloader(mpsc::Sender<Taken>);

/// Where to tell what came of a reload.
type Taken = oneshot::Sender<Result<ReloadReport, String>>;

/// Reloads that are asked for.
pub type Requests = mpsc::Receiver<Taken>;

/// A way to ask for reloads, and where they arrive.
pub fn channel() -> (Reloader, Requests) {
    let (sender, receiver) = mpsc::channel(4);
    (Reloader(sender), receiver)
}

impl Reloader {
    /// Has the configuration read again; resolves when it is in use, or refused.
    pub async fn reload(&self) -> Result<ReloadReport, String> {
        let stopping = || "penstockd is stopping".to_owned();
        let (taken, result) = oneshot::channel();
        self.0.send(taken).await.map_err(|_| stopping())?;
        result.await.map_err(|_| stopping())?
    }
}

impl Daemon {
    /// Takes the configuration on disk, or says why not.
    pub(super) async fn reload(&mut self) -> Result<ReloadReport, String> {
        // systemctl reload waits until READY=1, whichever way the reload was asked for.
        if let Ok(since) = sd_notify::NotifyState::monotonic_usec_now() {
            tell_systemd(&[sd_notify::NotifyState::Reloading, since]);
        }
        let taken = self.take_new().await;
        tell_systemd(&[sd_notify::NotifyState::Ready]);
        let mut shown = self
            .facts
            .configuration_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &taken {
            Ok(report) => {
                info!(changes = report.changes.len(), "configuration reloaded");
                for change in &report.changes {
                    info!("changed: {change}");
                }
                for warning in &report.warnings {
                    warn!("{warning}");
                }
                *shown = None;
            }
            Err(words) => {
                error!("the configuration was not reloaded, the old one stays in use: {words}");
                *shown = Some(words.clone());
            }
        }
        taken
    }

    async fn take_new(&mut self) -> Result<ReloadReport, String> {
        let Some(path) = self.path.clone() else {
            return Err("this daemon was started without a configuration file".to_owned());
        };
        let rules = rules(Some(&path))?;
        let checked = read(path).await.map_err(|problems| problems.to_string())?;
        let old = self.live.borrow().config.clone();
        let new = Arc::new(checked.config);
        let ready = self
            .intake
            .prepare(&new.listen)
            .map_err(|error| error.to_string())?;
        let pages = self.pages.prepare(&new.http).await;
        let pages = pages.map_err(|error| error.to_string())?;
        let next =
            intake::live(new.clone(), self.spool.path()).map_err(|error| error.to_string())?;
        // Everything that the system could refuse was asked of it.
        self.tokens.configured(new.relays.values());
        self.spool.set_reserve(reserve(new.spool.min_free));
        self.live.send_replace(Arc::new(next));
        self.rules.send_replace(Arc::new(rules));
        self.facts.configured(self.clock.now());
        self.intake
            .change(&new.listen, ready)
            .map_err(|error| error.to_string())?;
        say_where(&self.control, &self.intake, &new);
        self.pages.change(&new.http, pages);
        self.desk.tell(Event::Reloaded).await.ok();
        Ok(ReloadReport {
            at: self.clock.now(),
            changes: changes(&old, &new),
            needs_restart: needs_restart(&old, &new),
            warnings: checked.warnings.iter().map(ToString::to_string).collect(),
        })
    }
}

/// The rules for refusals: an administrator's own, beside the configuration file, before
/// those compiled in.
pub(super) fn rules(configuration: Option<&Path>) -> Result<Rules, String> {
    match configuration {
        Some(path) => Rules::beside(path).map_err(|error| error.to_string()),
        None => Ok(Rules::compiled_in().clone()),
    }
}

/// What a running daemon cannot change.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut needed = Vec::new();
    if old.spool.path != new.spool.path {
        needed.push("spool: the spool stays where it is until penstockd is restarted".to_owned());
    }
    needed
}
