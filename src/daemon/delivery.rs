//! The delivery task: the one owner of what waits, what may leave, and how relays are.
//!
//! It is told of accepted mail and of ended transactions, asks [`Release`] what may leave
//! now, has that written down as a lease, and starts a task for each transaction. It
//! waits for nothing but its events, the clock and the disk: not even for the index, which
//! may be read from the log for minutes. What it cannot ask then is done [`later`].

mod book;
mod dispatch;
mod later;
mod supply;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::error;

use crate::config::Limits;
use crate::mail::QueueId;
use crate::outcome::{Cause, Health};
use crate::release::{Ledger, Release};
use crate::spool::{FlowKey, Recovered, Spool};
use crate::verify::Verification;

use super::alarm::Alarm;
use super::alarms::Kind;
use super::desk::{Desk, Event};
use super::following::Following;
use super::lifecycle::Phase;
use super::status::Facts;
use super::transaction::Office;
use super::verifying::VERIFICATION;
use crate::accept::Live;

pub(super) use book::RelayBook;

use book::HEALTH;
use later::Later;

/// Events that are handled before the next plan.
const EVENTS_TOGETHER: usize = 256;
/// How long nothing is planned after the spool refused a lease.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// How often retries that found no room are looked for again.
const RETRY_AGAIN: Duration = Duration::from_secs(5);
/// How often waiting is looked over for delay warnings, and the ledger is handed over.
const ROUND: Duration = Duration::from_secs(60);

/// The delivery task.
pub struct Delivery {
    pub(super) office: Arc<Office>,
    /// Everything that this task asks the spool is asked here, for it waits for no index.
    pub(super) spool: Spool,
    pub(super) release: Release,
    pub(super) relays: BTreeMap<String, RelayBook>,
    pub(super) sending: HashMap<QueueId, Sending>,
    /// Flows whose route changed.
    pub(super) moves: BTreeSet<FlowKey>,
    /// Those whose messages are being moved.
    pub(super) following: Option<Following>,
    /// No others are moved before.
    pub(super) follow_from: Instant,
    /// The configuration that everything here goes by: plans and transactions never mix
    /// two of them.
    pub(super) live: Arc<Live>,
    pub(super) desk: Desk,
    events: mpsc::Receiver<Event>,
    pub(super) facts: Arc<Facts>,
    disk_pause: Option<Instant>,
    pub(super) next_round: Instant,
    pub(super) rebuilding: bool,
    ledger_lost: bool,
    /// What is to be mailed to the administrator.
    alarms: Vec<Alarm>,
    /// What the spool had no room for: mailed with the next round.
    unmailed: Vec<Alarm>,
    /// What is done once the index answers.
    pub(super) later: Later,
}

/// A transaction under way.
pub(super) struct Sending {
    /// Since when.
    pub since: Timestamp,
}

impl Delivery {
    /// A delivery task over what the spool recovered; it starts with [`run`](Self::run).
    pub fn new(
        office: Arc<Office>,
        desk: Desk,
        events: mpsc::Receiver<Event>,
        facts: Arc<Facts>,
        recovered: &Recovered,
    ) -> Self {
        let live = office.live.borrow().clone();
        let now = office.clock.moment();
        let (ledger, ledger_lost) = match Ledger::recover(recovered, now) {
            Ok(ledger) if recovered.ledger_lost => {
                error!("the stored limit ledger is damaged: every limit counts as used up now");
                (ledger, true)
            }
            Ok(ledger) => (ledger, false),
            Err(error) => {
                error!(%error, "the stored limit ledger cannot be read: every limit counts as used up now");
                (Ledger::new(), true)
            }
        };
        let mut relays: BTreeMap<String, RelayBook> = BTreeMap::new();
        for ((kind, relay), value) in &recovered.notes {
            let book = relays.entry(relay.clone()).or_default();
            match kind.as_str() {
                HEALTH => book.health = Health::from_value(value, now.wall),
                VERIFICATION => book.verification = Verification::from_value(value),
                _ => {}
            }
            let confirmed = book.verification.confirmed().cloned();
            office.confirmations.set(relay, confirmed);
        }
        Self {
            release: Release::new(ledger),
            relays,
            sending: HashMap::new(),
            moves: BTreeSet::new(),
            following: None,
            follow_from: Instant::now(),
            live,
            desk,
            events,
            facts,
            disk_pause: None,
            next_round: Instant::now() + ROUND,
            rebuilding: false,
            ledger_lost,
            alarms: Vec::new(),
            unmailed: Vec::new(),
            later: Later::default(),
            spool: office.spool.impatient(),
            office,
        }
    }

    /// Delivers until the daemon stops and nothing is under way any more.
    pub async fn run(mut self) {
        self.configured();
        if self.ledger_lost {
            let now = self.office.clock.moment();
            for relay in self.relays.keys() {
                self.release.assume_spent(relay, now);
            }
        }
        // The first reading of the clocks of this boot: whatever is done to the wall clock
        // from here on changes nothing.
        self.hand_over_ledger();
        for (relay, book) in &self.relays {
            if let Some(pause) = book.health.pause() {
                self.release.pause(relay);
                if pause.cause == Cause::Trouble {
                    let (kind, text) = (Kind::RelayPaused, watch::paused_for(relay, pause));
                    self.facts.alarms().recall(kind, relay, text, pause.since);
                }
            }
        }
        self.forget_logins().await;
        // From here on a start reads no more of the log than what comes after this.
        self.hand_over_ledger();
        self.restore().await;
        if !self.rebuilding {
            self.verify_relays().await;
        }
        // A disk that is full already is told of at once.
        self.watch().await;
        // The next checkpoint must not have to fall back to what an earlier process left.
        self.hand_over_ledger();
        let lifecycle = self.office.lifecycle.clone();
        loop {
            let stopping = lifecycle.is_stopping();
            if stopping && self.sending.is_empty() {
                break;
            }
            if !stopping {
                self.pump().await;
            }
            let wake = self.wake_at();
            tokio::select! {
                event = self.events.recv() => {
                    let Some(event) = event else { break };
                    self.handle(event).await;
                    for _ in 0..EVENTS_TOGETHER {
                        let Ok(event) = self.events.try_recv() else { break };
                        self.handle(event).await;
                    }
                }
                () = tokio::time::sleep_until(wake), if !stopping => {}
                () = lifecycle.reached(Phase::Draining), if !stopping => {}
                () = lifecycle.reached(Phase::Stopped) => break,
            }
        }
        self.office.pool.close().await;
        self.office.tokens.close().await;
        self.hand_over_ledger();
    }

    /// Does all that can be done now.
    async fn pump(&mut self) {
        // Questions to the spool would wait, and everybody who asks this task with them.
        if !self.spool.is_complete() {
            return;
        }
        if self.rebuilding {
            self.restore().await;
            if self.rebuilding {
                return;
            }
            self.verify_relays().await;
        }
        self.catch_up().await;
        if !Arc::ptr_eq(&self.live, &self.office.live.borrow()) {
            self.reloaded().await;
        }
        self.missed().await;
        self.mail_alarms().await;
        self.follow_directory();
        self.fetch_retries().await;
        if Instant::now() >= self.next_round {
            self.next_round = Instant::now() + ROUND;
            self.round().await;
        }
        if self.disk_pause.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.disk_pause = None;
        self.send_probes();
        loop {
            if !self.refill().await {
                return;
            }
            let grants = self.release.plan(self.office.clock.moment());
            if grants.is_empty() {
                return;
            }
            match self.start(grants).await {
                // What could not begin now cannot a moment later either.
                Ok(0) => return,
                Ok(_) => {}
                Err(trouble) => {
                    error!(%trouble, "cannot write down what is about to leave, so nothing leaves");
                    self.disk_pause = Some(Instant::now() + DISK_PAUSE);
                    return;
                }
            }
        }
    }

    /// When there is something to do although nothing happens.
    fn wake_at(&self) -> Instant {
        // Until the index answers nothing is done, and no round of it: what is due stays due.
        if self.rebuilding || !self.spool.is_complete() {
            return Instant::now() + DISK_PAUSE;
        }
        let now = self.office.clock.moment();
        let mut wake = self.next_round;
        if let Some(uptime) = self.release.wake_at() {
            wake = wake.min(Instant::now() + uptime.saturating_sub(now.uptime));
        }
        let times = self
            .relays
            .values()
            .flat_map(|book| [book.next_retry, book.health.wake_at()]);
        // What is past was looked at already: a probe that is due and has no message to
        // go with waits for one, not for the clock.
        for at in times.flatten().filter(|at| *at > now.wall) {
            let left = Duration::try_from(at.duration_since(now.wall)).unwrap_or(Duration::ZERO);
            wake = wake.min(Instant::now() + left);
        }
        match self.disk_pause {
            Some(until) => wake.max(until),
            None => wake,
        }
    }

    async fn handle(&mut self, event: Event) {
        let now = self.office.clock.moment();
        match event {
            Event::Accepted(item) => {
                let relay = item.flow.relay.clone();
                self.relays.entry(relay).or_default();
                self.release.waiting(&item, now);
                // It was routed when its transaction began, perhaps by another directory.
                self.sort_flows([item.flow]);
            }
            Event::Ended(ended) => self.ended(*ended).await,
            // Noticed before the next plan.
            Event::Reloaded | Event::Looked => {}
            Event::Found(found, done) => {
                if self.found(found).await {
                    // It ends when we stop.
                    done.send(()).ok();
                }
            }
            Event::Change(change) => self.change(change).await,
            Event::HoldForHint(messages) => self.hold_for_hint(messages).await,
            Event::Situations(messages, answer) => {
                let told = messages.iter().map(|it| self.situation(it)).collect();
                answer.send(told).ok();
            }
            Event::Relays(relay, answer) => {
                let told = self.pictures(relay.as_deref()).await;
                answer.send(told).ok();
            }
            Event::Limits(relay, flows, answer) => {
                let told = self.limits(relay.as_deref(), flows);
                answer.send(told).ok();
            }
            Event::MayLeave(answer) => {
                let names: Vec<String> = self.relays.keys().cloned().collect();
                let may = names.into_iter().filter(|it| self.may_leave(it)).collect();
                answer.send(may).ok();
            }
            Event::Mailings(relay, flows, answer) => {
                let told = self.mailings(relay.as_deref(), flows);
                answer.send(told).ok();
            }
            Event::Pause {
                relay,
                by,
                note,
                done,
            } => {
                let change = self.book(&relay).health.pause_by(&by, &note, now.wall);
                self.health_changed(&relay, change).await;
                done.send(()).ok();
            }
            Event::Verify { relay, done } => {
                done.send(self.verify(&relay).await).ok();
            }
            Event::Confirm { token, by, done } => {
                done.send(self.confirm(&token, by).await).ok();
            }
            Event::Mended { relay, done } => {
                self.mended(&relay, now.wall).await;
                done.send(()).ok();
            }
            Event::Resume { relay, done } => {
                let change = self.book(&relay).health.resume(now.wall);
                self.health_changed(&relay, change).await;
                done.send(()).ok();
            }
        }
    }

    /// The limits of the configuration in use.
    fn configured(&mut self) {
        self.live = self.office.live.borrow().clone();
        let limits: BTreeMap<String, Limits> = self
            .live
            .config
            .relays
            .iter()
            .map(|(name, relay)| (name.clone(), relay.limits.clone()))
            .collect();
        self.release.configure(&limits, self.office.clock.moment());
        for name in limits.into_keys() {
            self.relays.entry(name).or_default();
        }
    }

    /// Another configuration is in use.
    async fn reloaded(&mut self) {
        self.configured();
        self.office.pool.reloaded();
        // Whoever reloads has mended something: relays in trouble are tried at once.
        let now = self.office.clock.now();
        let relays: Vec<String> = self.relays.keys().cloned().collect();
        for relay in relays {
            self.mended(&relay, now).await;
        }
        self.forget_logins().await;
        self.verify_relays().await;
        self.sort_all_flows().await;
    }

    /// A relay that had trouble is tried at once, unless an administrator paused it.
    async fn mended(&mut self, relay: &str, now: Timestamp) {
        let health = &mut self.book(relay).health;
        let troubled = health
            .pause()
            .is_some_and(|it| it.cause != Cause::Administrator);
        if troubled {
            let change = health.resume(now);
            self.health_changed(relay, change).await;
        }
    }

    /// A relay that is gone, or whose application needs nobody now, has no use for a
    /// login.
    async fn forget_logins(&self) {
        self.office.tokens.retain().await;
    }

    /// What is done once a minute: delay warnings for what waits for a paused relay, and
    /// a fresh copy of the ledger for the next segment of the log.
    async fn round(&mut self) {
        self.hand_over_ledger();
        self.alarms.append(&mut self.unmailed);
        self.office.pool.tidy();
        for relay in self.live.config.relays.values() {
            let timeouts = &self.live.config.timeouts;
            self.office.tokens.tend(relay, timeouts).await;
        }
        self.watch().await;
        self.fetch_left_behind().await;
        let warn_after = self.live.config.retry.warn_after;
        let now = self.office.clock.now();
        let late: Vec<String> = self
            .relays
            .iter()
            // Short pauses add up: what is overdue is decided for each message.
            .filter(|(_, book)| book.health.paused_lately(warn_after, now))
            .map(|(relay, _)| relay.clone())
            .collect();
        for relay in late {
            self.warn_of_delay(&relay);
        }
    }

    fn hand_over_ledger(&self) {
        self.spool
            .checkpoint_ledger(self.release.ledger().to_bytes(self.office.clock.moment()));
    }
}
