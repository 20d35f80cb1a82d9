//! Answers to what is asked on the control socket.

mod change;
mod chosen;
mod login;
mod message;
mod relays;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::accept::{Live, Shared};
use crate::clock::Clock;
use crate::control::protocol::{FailureKind, Item, LimitsReport, Request, TopSnapshot};
use crate::control::{Gone, Responder};
use crate::mail::{Mailbox, QueueId};
use crate::spool::{Spool, SpoolError};

use super::desk::{Desk, Stopping};
use super::hinting::Hints;
use super::lifecycle::Lifecycle;
use super::reload::Reloader;
use super::status;
use super::transaction::Office;

/// All that answers need; one for the whole daemon.
pub struct Answers {
    /// The waiting mail.
    pub spool: Spool,
    /// The delivery task.
    pub desk: Desk,
    /// The configuration in use.
    pub live: watch::Receiver<Arc<Live>>,
    /// What the time is.
    pub clock: Clock,
    /// Takes a new configuration.
    pub reloader: Reloader,
    /// What is counted and known of the process.
    pub facts: Arc<status::Facts>,
    /// The clients.
    pub shared: Arc<Shared>,
    /// The way to relays.
    pub office: Arc<Office>,
    /// What hurts delivery.
    pub hints: Hints,
}

/// Why a request was not answered; the client is told.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{1}")]
    Failure(FailureKind, String),
    #[error("{}", chain(.0))]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Stopping(#[from] Stopping),
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// An error and what caused it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

/// Answers requests, each in a task of its own, until the control socket closes.
pub async fn serve(
    answers: Arc<Answers>,
    mut requests: mpsc::Receiver<(Request, Responder)>,
    lifecycle: Lifecycle,
) {
    let stopping = lifecycle.draining();
    loop {
        let next = tokio::select! {
            biased;
            next = requests.recv() => next,
            // Who could still ask may live longer: what is asked until now is answered.
            () = stopping.cancelled() => {
                requests.close();
                requests.recv().await
            }
        };
        let Some((request, responder)) = next else {
            return;
        };
        let answers = answers.clone();
        let stopping = stopping.clone();
        lifecycle.spawn(async move {
            match answers.answer(request, &responder, &stopping).await {
                Ok(()) => responder.done().await,
                Err(Trouble::Gone(_)) => {}
                Err(Trouble::Failure(kind, words)) => responder.fail(kind, words).await,
                Err(Trouble::Stopping(words)) => {
                    responder
                        .fail(FailureKind::TryAgain, words.to_string())
                        .await;
                }
                Err(trouble @ Trouble::Spool(_)) => {
                    warn!(%trouble, "a control request failed");
                    responder
                        .fail(FailureKind::Failed, trouble.to_string())
                        .await;
                }
            }
        });
    }
}

fn not_found(words: String) -> Trouble {
    Trouble::Failure(FailureKind::NotFound, words)
}

fn bad_request(words: impl Into<String>) -> Trouble {
    Trouble::Failure(FailureKind::BadRequest, words.into())
}

impl Answers {
    async fn answer(
        &self,
        request: Request,
        to: &Responder,
        stopping: &CancellationToken,
    ) -> Result<(), Trouble> {
        match request {
            Request::Status {} => {
                let report = status::report(self).await?;
                to.item(Item::Status(Box::new(report))).await?;
            }
            Request::Queue {
                filter,
                after,
                limit,
            } => self.queue(&filter, after, limit, to).await?,
            Request::Show { id } => self.show(&id, to).await?,
            Request::Cat { id } => self.cat(&id, to).await?,
            Request::Trace(request) => self.trace(&request, to).await?,
            Request::Change(request) => {
                let report = self.change(request, &to.peer().user).await?;
                to.item(Item::Change(report)).await?;
            }
            Request::Limits { relay } => {
                let reports = self.limits(relay.clone()).await?;
                if let (Some(relay), true) = (relay, reports.is_empty()) {
                    return Err(no_such_relay(&relay));
                }
                for report in reports {
                    to.item(Item::Limits(Box::new(report))).await?;
                }
            }
            Request::Mailings { relay } => {
                let flows = self.spool.flows().await?;
                for report in self.desk.mailings(relay, flows).await? {
                    to.item(Item::Mailing(Box::new(report))).await?;
                }
            }
            Request::Metrics {} => {
                let report = status::metrics(self).await?;
                to.item(Item::Metrics(Box::new(report))).await?;
            }
            Request::Top { interval_seconds } => self.top(interval_seconds, to, stopping).await?,
            Request::RelayTest { relay } => self.relay_test(&relay, to).await?,
            Request::RelayVerify { relay } => self.relay_verify(&relay, to).await?,
            Request::RelayLogin {
                relay,
                refresh_token,
            } => {
                self.relay_login(&relay, refresh_token, to, stopping)
                    .await?;
            }
            Request::RelayConfirm { token, dry_run } => {
                let by = (!dry_run).then(|| to.peer().user.clone());
                let confirmed = self.relay_confirm(&token, by).await?;
                to.item(Item::Verified(confirmed)).await?;
            }
            Request::Hints { relay } => {
                if let Some(relay) = &relay {
                    self.known_relay(relay)?;
                }
                let config = self.live.borrow().config.clone();
                for report in self.hints.reports(&config, relay.as_deref()) {
                    to.item(Item::Hint(Box::new(report))).await?;
                }
            }
            Request::RelayList { relay } => self.relays(relay, to).await?,
            Request::RelayPause { relay, note } => {
                self.known_relay(&relay)?;
                let by = to.peer().user.clone();
                self.desk
                    .pause(relay.clone(), by, note.unwrap_or_default())
                    .await?;
                self.relays(Some(relay), to).await?;
            }
            Request::RelayResume { relay } => {
                self.known_relay(&relay)?;
                self.desk.resume(relay.clone()).await?;
                self.relays(Some(relay), to).await?;
            }
            Request::Route { address } => self.route(&address, to).await?,
            Request::Reload {} => match self.reloader.reload().await {
                Ok(report) => to.item(Item::Reload(report)).await?,
                Err(words) => return Err(Trouble::Failure(FailureKind::BadConfiguration, words)),
            },
        }
        Ok(())
    }

    /// What is used and left of the limits; without mailings while the index is read from
    /// the log, for nobody who wants to know how things are should wait for that.
    pub(super) async fn limits(
        &self,
        relay: Option<String>,
    ) -> Result<Vec<LimitsReport>, Stopping> {
        let flows = self.spool.impatient().flows().await;
        self.desk.limits(relay, flows.unwrap_or_default()).await
    }

    async fn top(
        &self,
        interval_seconds: u64,
        to: &Responder,
        stopping: &CancellationToken,
    ) -> Result<(), Trouble> {
        let interval = Duration::from_secs(interval_seconds.clamp(1, 3600));
        loop {
            let report = status::report(self).await?;
            let snapshot = TopSnapshot {
                at: self.clock.now(),
                clients: self.shared.connections() as u64,
                queue: report.queue,
                traffic: report.traffic,
                relays: report.relays,
                limits: self.limits(None).await?,
            };
            to.item(Item::Top(Box::new(snapshot))).await?;
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = to.gone() => return Err(Gone.into()),
                () = stopping.cancelled() => return Err(Stopping.into()),
            }
        }
    }
}

fn parse_id(text: &str) -> Result<QueueId, Trouble> {
    text.parse()
        .map_err(|error| bad_request(format!("{text}: {error}")))
}

fn parse_address(text: &str) -> Result<Mailbox, Trouble> {
    text.parse()
        .map_err(|error| bad_request(format!("{text}: {error}")))
}

fn no_such_relay(relay: &str) -> Trouble {
    not_found(format!(
        "no relay is called {relay}; penstock relay list shows their names"
    ))
}
