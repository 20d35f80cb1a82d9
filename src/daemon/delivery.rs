//! The delivery task: the one owner of what waits, what may leave, and how relays are.
//!
//! It is told of accepted mail and of ended transactions, asks [`Release`] what may leave
//! now, has that written down as a lease, and starts a task for each transaction. It
//! waits for nothing but its events, the clock and the disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::config::Limits;
use crate::mail::{Envelope, QueueId};
use crate::outcome::{self, Cause, Health};
use crate::release::{Grant, Ledger, Release};
use crate::spool::{FlowKey, Lease, Leased, Recovered, Released, SpoolError, Waiting};

use super::alarm::Alarm;
use super::desk::{Desk, Event};
use super::lifecycle::Phase;
use super::status::Facts;
use super::transaction::{End, Ended, Office};

/// Events that are handled before the next plan.
const EVENTS_TOGETHER: usize = 256;
/// How long nothing is planned after the spool refused a lease.
const DISK_PAUSE: Duration = Duration::from_secs(1);
/// How often retries that found no room are looked for again.
const RETRY_AGAIN: Duration = Duration::from_secs(5);
/// How often waiting is looked over for delay warnings, and the ledger is handed over.
const ROUND: Duration = Duration::from_secs(60);
/// While a probe is on its way no other one goes; this long at most.
const PROBE_PATIENCE: Duration = Duration::from_secs(20 * 60);
/// Alarms about one relay are mailed at least this far apart.
const ALARM_PAUSE: Duration = Duration::from_secs(60 * 60);
/// The kind of the spool's notes about a relay's health.
const HEALTH: &str = "health";

/// What is known of one relay besides its limits.
#[derive(Default)]
pub(super) struct RelayBook {
    /// Its trouble, past and present.
    pub health: Health,
    /// Transactions under way.
    pub sending: u64,
    /// When it last took a message.
    pub last_success: Option<Timestamp>,
    /// When it last refused something or was not reached, and the words.
    pub last_failure: Option<(Timestamp, String)>,
    /// When to look for due retries again.
    next_retry: Option<Timestamp>,
    /// When its trouble was last mailed to the administrator.
    last_alarm: Option<Timestamp>,
    /// Its delay warnings were given up to this message in the present round.
    warned_up_to: Option<QueueId>,
}

/// The delivery task.
pub struct Delivery {
    pub(super) office: Arc<Office>,
    pub(super) release: Release,
    pub(super) relays: BTreeMap<String, RelayBook>,
    pub(super) sending: HashMap<QueueId, Sending>,
    /// Flows whose route changed, and the relay that they follow.
    pub(super) moves: VecDeque<(FlowKey, String)>,
    desk: Desk,
    events: mpsc::Receiver<Event>,
    facts: Arc<Facts>,
    disk_pause: Option<Instant>,
    next_round: Instant,
    rebuilding: bool,
    ledger_lost: bool,
    /// What is to be mailed to the administrator.
    alarms: Vec<Alarm>,
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
        let now = office.clock.moment();
        let (ledger, ledger_lost) = match Ledger::recover(recovered, now) {
            Ok(ledger) => (ledger, false),
            Err(error) => {
                error!(%error, "the stored limit ledger cannot be read: every limit counts as used up now");
                (Ledger::new(), true)
            }
        };
        let relays = recovered
            .notes
            .iter()
            .filter(|((kind, _), _)| kind == HEALTH)
            .map(|((_, relay), value)| {
                let book = RelayBook {
                    health: Health::from_value(value),
                    ..RelayBook::default()
                };
                (relay.clone(), book)
            })
            .collect();
        Self {
            release: Release::new(ledger),
            relays,
            sending: HashMap::new(),
            moves: VecDeque::new(),
            desk,
            events,
            facts,
            disk_pause: None,
            next_round: Instant::now() + ROUND,
            rebuilding: false,
            ledger_lost,
            alarms: Vec::new(),
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
        for (relay, book) in &self.relays {
            if !book.health.is_well() {
                self.release.pause(relay);
            }
        }
        self.restore().await;
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
        self.hand_over_ledger();
    }

    /// Does all that can be done now.
    async fn pump(&mut self) {
        self.missed().await;
        self.mail_alarms().await;
        self.follow_directory().await;
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
            self.refill().await;
            let grants = self.release.plan(self.office.clock.moment());
            if grants.is_empty() {
                return;
            }
            if let Err(trouble) = self.start(grants).await {
                error!(%trouble, "cannot write down what is about to leave, so nothing leaves");
                self.disk_pause = Some(Instant::now() + DISK_PAUSE);
                return;
            }
        }
    }

    /// When there is something to do although nothing happens.
    fn wake_at(&self) -> Instant {
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
        if self.rebuilding {
            wake = wake.min(Instant::now() + DISK_PAUSE);
        }
        match self.disk_pause {
            Some(until) => wake.max(until),
            None if !self.moves.is_empty() => Instant::now(),
            None => wake,
        }
    }

    /// The flows that wait in the spool.
    async fn restore(&mut self) {
        let now = self.office.clock.moment();
        match self.office.spool.flows().await {
            Ok(flows) => {
                for flow in &flows {
                    self.release.restore(flow, now);
                    self.book(&flow.key.relay).next_retry = Some(now.wall);
                }
                self.sort_flows(flows.into_iter().map(|it| it.key).collect());
            }
            Err(trouble) => warn!(%trouble, "cannot read what waits yet"),
        }
        self.rebuilding = self.office.spool.status().await.rebuilding.is_some();
    }

    /// Finds the flows whose user has another relay in the directory by now.
    pub(super) fn sort_flows(&mut self, flows: Vec<FlowKey>) {
        let live = self.office.live.borrow().clone();
        for flow in flows {
            if let Ok(from) = flow.user.parse()
                && let Ok(route) = live.directory.route(&from, &|_| true)
                && route.relay != flow.relay
            {
                self.moves.push_back((flow, route.relay));
            }
        }
    }

    /// What the channel had no room for.
    async fn missed(&mut self) {
        for (flow, first) in self.desk.take_missed() {
            let mut after = QueueId::from_number(first.number().saturating_sub(1));
            loop {
                let Ok(items) = self.office.spool.ready(&flow, after, EVENTS_TOGETHER).await else {
                    return;
                };
                let now = self.office.clock.moment();
                for item in &items {
                    self.release.waiting(item, now);
                }
                match items.last() {
                    Some(last) if items.len() == EVENTS_TOGETHER => after = last.id,
                    _ => break,
                }
            }
        }
        if self.rebuilding && self.office.spool.status().await.rebuilding.is_none() {
            self.restore().await;
        }
    }

    /// Gives the release the messages that it has run out of.
    async fn refill(&mut self) {
        loop {
            let refills = self.release.refills();
            if refills.is_empty() {
                return;
            }
            for refill in refills {
                let read = self
                    .office
                    .spool
                    .ready(&refill.flow, refill.after, refill.limit)
                    .await;
                let items = read.unwrap_or_else(|trouble| {
                    warn!(%trouble, "cannot read what waits");
                    Vec::new()
                });
                self.release
                    .refilled(&refill, &items, self.office.clock.moment());
            }
        }
    }

    /// Tells the release of messages whose next attempt is due.
    async fn fetch_retries(&mut self) {
        let now = self.office.clock.moment();
        let due: Vec<String> = self
            .relays
            .iter()
            .filter(|(_, book)| book.next_retry.is_some_and(|at| at <= now.wall))
            .map(|(relay, _)| relay.clone())
            .collect();
        for relay in due {
            let room = self.release.retry_room(&relay);
            let spool = &self.office.spool;
            let items = match room {
                0 => Ok(Vec::new()),
                _ => spool.retries_due(&relay, now.wall, room).await,
            };
            let next = spool.next_retry(&relay).await;
            let again = now.wall.checked_add(RETRY_AGAIN).unwrap_or(Timestamp::MAX);
            match (items, next) {
                (Ok(items), Ok(next)) => {
                    for item in &items {
                        self.release.waiting(item, now);
                    }
                    self.book(&relay).next_retry = next.map(|at| match at <= now.wall {
                        true => again,
                        false => at,
                    });
                }
                (Err(trouble), _) | (_, Err(trouble)) => {
                    warn!(%trouble, relay, "cannot read which retries are due");
                    self.book(&relay).next_retry = Some(again);
                }
            }
        }
    }

    /// Has an alarm about a relay mailed, unless one was just now: a relay that comes and
    /// goes must not fill a mailbox.
    fn alarm(&mut self, relay: &str, alarm: Alarm) {
        let now = self.office.clock.now();
        let last = &mut self.book(relay).last_alarm;
        if last.is_some_and(|it| now.duration_since(it).unsigned_abs() < ALARM_PAUSE) {
            return;
        }
        *last = Some(now);
        self.alarms.push(alarm);
    }

    /// Mails what the administrator should know.
    async fn mail_alarms(&mut self) {
        for alarm in std::mem::take(&mut self.alarms) {
            match self.office.mail(&alarm).await {
                Ok(Some(envelope)) => self.waits_again(&envelope),
                Ok(None) => {}
                Err(trouble) => warn!(%trouble, alarm = alarm.subject, "cannot mail an alarm"),
            }
        }
    }

    /// Lets one message go to each paused relay whose probe is due.
    fn send_probes(&mut self) {
        let now = self.office.clock.now();
        for (relay, book) in &mut self.relays {
            if book.health.probe_due(now) && book.sending == 0 {
                self.release.probe(relay);
            }
        }
    }

    /// Writes grants down and starts their transactions.
    async fn start(&mut self, grants: Vec<Grant>) -> Result<(), SpoolError> {
        let live = self.office.live.borrow().clone();
        let at = self.office.clock.moment();
        let mut by_relay: BTreeMap<Arc<str>, Vec<Grant>> = BTreeMap::new();
        for grant in grants {
            by_relay.entry(grant.relay.clone()).or_default().push(grant);
        }
        // Together they wait for one sync.
        let mut leases = JoinSet::new();
        for (relay, grants) in &by_relay {
            let items = grants.iter().map(|grant| Leased {
                grant: grant.grant,
                id: grant.id,
                recipients: grant.recipients,
                wire_bytes: grant.wire_bytes,
            });
            let lease = Lease {
                relay: relay.to_string(),
                at,
                items: items.collect(),
            };
            let spool = self.office.spool.clone();
            leases.spawn(async move { spool.lease(lease).await });
        }
        let mut written = Ok(());
        for lease in leases.join_all().await {
            written = written.and(lease);
        }
        let mut unused = Vec::new();
        for grant in by_relay.into_values().flatten() {
            let relay = live.config.relays.get(&*grant.relay);
            let (Ok(()), Some(relay)) = (&written, relay) else {
                self.release.unstarted(grant.grant, at);
                unused.push(grant.grant);
                continue;
            };
            self.facts.began();
            self.sending.insert(grant.id, Sending { since: at.wall });
            let until = at
                .wall
                .checked_add(PROBE_PATIENCE)
                .unwrap_or(Timestamp::MAX);
            let book = self.book(&grant.relay);
            book.sending += 1;
            book.health.probing(until);
            let health = Arc::new(book.health.clone());
            let relay = Arc::new(relay.clone());
            let (office, desk) = (self.office.clone(), self.desk.clone());
            self.office.lifecycle.spawn(async move {
                let ended = office.carry_out(grant, relay, health).await;
                // The desk is gone only when the daemon has stopped.
                desk.tell(Event::Ended(Box::new(ended))).await.ok();
            });
        }
        self.give_back(unused).await;
        written
    }

    /// Has the log forget leases that were not used; one that stays in it counts as used
    /// after the next start, which is the safe mistake.
    async fn give_back(&self, grants: Vec<u64>) {
        if grants.is_empty() {
            return;
        }
        if let Err(trouble) = self.office.spool.unlease(grants).await {
            debug!(%trouble, "unused leases stay in the log");
        }
    }

    async fn handle(&mut self, event: Event) {
        let now = self.office.clock.moment();
        match event {
            Event::Accepted(item) => {
                let relay = item.flow.relay.clone();
                self.relays.entry(relay).or_default();
                self.release.waiting(&item, now);
            }
            Event::Ended(ended) => self.ended(*ended).await,
            Event::Reloaded => self.reloaded().await,
            Event::Change(change) => self.change(change).await,
            Event::Situations(messages, answer) => {
                let told = messages.iter().map(|it| self.situation(it)).collect();
                answer.send(told).ok();
            }
            Event::Relays(relay, answer) => {
                let told = self.pictures(relay.as_deref()).await;
                answer.send(told).ok();
            }
            Event::Limits(relay, answer) => {
                let told = self.limits(relay.as_deref()).await;
                answer.send(told).ok();
            }
            Event::Mailings(relay, answer) => {
                let told = self.mailings(relay.as_deref()).await;
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
            Event::Resume { relay, done } => {
                let change = self.book(&relay).health.resume(now.wall);
                self.health_changed(&relay, change).await;
                done.send(()).ok();
            }
        }
    }

    /// A transaction is over.
    async fn ended(&mut self, ended: Ended) {
        let now = self.office.clock.moment();
        let Ended { grant, end } = ended;
        self.facts.ended();
        self.sending.remove(&grant.id);
        let relay = grant.relay.to_string();
        let book = self.book(&relay);
        book.sending -= 1;
        match end {
            End::Unstarted { trouble } => {
                self.release.unstarted(grant.grant, now);
                self.give_back(vec![grant.grant]).await;
                if let Some(trouble) = trouble {
                    warn!(queue_id = %grant.id, %trouble, "cannot read a message");
                    self.disk_pause = Some(Instant::now() + DISK_PAUSE);
                }
            }
            End::Gone => {
                self.release.settled(grant.grant, Released::NotSent, now);
                self.give_back(vec![grant.grant]).await;
            }
            // The log knows what was begun; the next start counts it.
            End::CutOff => {}
            End::Settled(outcome) => {
                self.release.settled(grant.grant, outcome.released, now);
                self.facts.count(&outcome.before, &outcome.settlement);
                let retry = self.office.live.borrow().config.retry;
                let book = self.book(&relay);
                if outcome.settlement.delivered {
                    book.last_success = Some(outcome.at);
                } else if let Some(said) = last_words(&outcome.settlement.envelope) {
                    book.last_failure = Some((outcome.at, said));
                }
                let change =
                    book.health
                        .learn(&outcome.settlement, &retry, now.wall, rand::random());
                self.health_changed(&relay, change).await;
                self.waits_again(&outcome.settlement.envelope);
                for report in &outcome.reports {
                    self.waits_again(report);
                }
            }
        }
    }

    /// A message is in the spool in a new state: whatever is left of it waits.
    pub(super) fn waits_again(&mut self, envelope: &Envelope) {
        let Some(item) = Waiting::of(envelope) else {
            return;
        };
        match item.not_before {
            Some(at) => {
                let book = self.book(&envelope.relay);
                book.next_retry = Some(book.next_retry.map_or(at, |it| it.min(at)));
            }
            None => {
                self.relays.entry(envelope.relay.clone()).or_default();
                self.release.waiting(&item, self.office.clock.moment());
            }
        }
        let flow = FlowKey::of(envelope);
        self.sort_flows(vec![flow]);
    }

    /// A relay was paused, resumed, or its next probe moved: say so and remember it.
    pub(super) async fn health_changed(&mut self, relay: &str, change: outcome::Change) {
        let book = self.book(relay);
        let pause = book.health.pause().cloned();
        let value = book.health.to_value();
        match (change, pause) {
            (outcome::Change::None, _) => return,
            (outcome::Change::Paused, Some(pause)) => {
                self.release.pause(relay);
                let alarm = Alarm::paused(relay, &pause);
                let (class, remedy, words) = (pause.class, pause.remedy, pause.words);
                let next_probe = pause.next_probe.map(|it| it.to_string());
                match pause.cause {
                    Cause::Administrator => info!(relay, by = pause.by, words, "relay paused"),
                    Cause::Trouble | Cause::Rate => {
                        warn!(
                            relay,
                            class,
                            stage = pause.stage,
                            words,
                            remedy,
                            next_probe,
                            "relay paused: its mail waits"
                        );
                        if pause.cause == Cause::Trouble {
                            self.alarm(relay, alarm);
                        }
                    }
                }
            }
            (outcome::Change::Postponed, Some(pause)) => {
                self.release.pause(relay);
                debug!(relay, probes = pause.probes, "the relay still has trouble");
            }
            (_, _) => {
                self.release.resume(relay);
                self.book(relay).next_retry = Some(self.office.clock.now());
                info!(relay, "relay resumed");
            }
        }
        if let Err(trouble) = self.office.spool.note(HEALTH, relay, Some(value)).await {
            warn!(%trouble, relay, "cannot remember how the relay is");
        }
    }

    /// The limits of the configuration in use.
    fn configured(&mut self) {
        let live = self.office.live.borrow().clone();
        let limits: BTreeMap<String, Limits> = live
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
        let troubled: Vec<String> = self
            .relays
            .iter()
            .filter(|(_, it)| {
                it.health
                    .pause()
                    .is_some_and(|it| it.cause != Cause::Administrator)
            })
            .map(|(relay, _)| relay.clone())
            .collect();
        for relay in troubled {
            let change = self.book(&relay).health.resume(now);
            self.health_changed(&relay, change).await;
        }
        match self.office.spool.flows().await {
            Ok(flows) => self.sort_flows(flows.into_iter().map(|it| it.key).collect()),
            Err(trouble) => warn!(%trouble, "cannot read what waits; it keeps its relay"),
        }
    }

    /// What is done once a minute: delay warnings for what waits for a paused relay, and
    /// a fresh copy of the ledger for the next segment of the log.
    async fn round(&mut self) {
        self.hand_over_ledger();
        self.office.pool.tidy();
        let warn_after = self.office.live.borrow().config.retry.warn_after;
        let now = self.office.clock.now();
        let late: Vec<String> = self
            .relays
            .iter()
            .filter(|(_, book)| {
                book.health.pause().is_some_and(|pause| {
                    now.duration_since(pause.since).unsigned_abs() >= warn_after
                })
            })
            .map(|(relay, _)| relay.clone())
            .collect();
        for relay in late {
            self.warn_of_delay(&relay).await;
        }
    }

    fn hand_over_ledger(&self) {
        self.office
            .spool
            .checkpoint_ledger(self.release.ledger().to_bytes(self.office.clock.moment()));
    }

    pub(super) fn book(&mut self, relay: &str) -> &mut RelayBook {
        self.relays.entry(relay.to_owned()).or_default()
    }

    /// Where the warnings of a relay's round stopped.
    pub(super) fn warned_up_to(&mut self, relay: &str) -> &mut Option<QueueId> {
        &mut self.book(relay).warned_up_to
    }
}

/// What a relay last said about any recipient, on one line.
fn last_words(envelope: &Envelope) -> Option<String> {
    let said = envelope.recipients.iter().filter_map(|it| it.last.as_ref());
    said.max_by_key(|it| it.at)
        .map(|it| it.text.replace('\n', " / "))
}
