//! How the daemon is, in one report.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::accept::Counters;
use crate::config::{ListenerAuth, ListenerTls};
use crate::control::protocol::{
    AlarmReport, ListenerStatus, MetricsReport, QueueCounts, RelayState, SpoolReport, StatusReport,
    Traffic,
};
use crate::mail::count::count;
use crate::mail::{Envelope, QueueId};
use crate::outcome::{Released, Settlement};
use crate::spool::{Amount, Filter, RelayCounts, SpoolStatus};

use super::alarm::Room;
use super::alarms::{Alarms, Kind};
use super::answers::Answers;
use super::desk::Stopping;
use super::traffic::{self, ByRelay, Outcome, outcomes};

/// Flows whose first message is looked at for the metrics: a bound on what a scrape costs.
const FLOWS_LOOKED_AT: usize = 1_000;

/// What is counted since the daemon started, and what is known of it.
#[derive(Debug)]
pub struct Facts {
    /// When it started.
    pub started: Timestamp,
    /// Recipients delivered.
    pub delivered: AtomicU64,
    /// Attempts that failed for the time being.
    pub deferred: AtomicU64,
    /// Recipients that failed or expired.
    pub failed: AtomicU64,
    /// What went through each relay.
    pub relays: ByRelay,
    alarms: Mutex<Alarms>,
    /// Final dots without a reply, those of earlier runs included.
    pub in_doubt: AtomicU64,
    /// Transactions under way.
    in_flight: AtomicU64,
    /// When the configuration in use was taken, in milliseconds since 1970.
    configured_ms: AtomicI64,
    /// Why the latest configuration was not taken.
    pub configuration_error: Mutex<Option<String>>,
}

impl Facts {
    /// Nothing counted yet.
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            delivered: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            relays: ByRelay::default(),
            alarms: Mutex::default(),
            in_doubt: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            configured_ms: AtomicI64::new(started.as_millisecond()),
            configuration_error: Mutex::new(None),
        }
    }

    /// A transaction began.
    pub fn began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A transaction is over.
    pub fn ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Transactions under way.
    pub fn sending(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Final dots whose reply is not known.
    pub fn doubted(&self, messages: u64) {
        self.in_doubt.fetch_add(messages, Ordering::Relaxed);
    }

    /// Another configuration is in use.
    pub fn configured(&self, at: Timestamp) {
        self.configured_ms
            .store(at.as_millisecond(), Ordering::Relaxed);
    }

    fn configured_at(&self) -> Timestamp {
        let at = self.configured_ms.load(Ordering::Relaxed);
        Timestamp::from_millisecond(at).unwrap_or(self.started)
    }

    /// The alarms that stand.
    pub fn alarms(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a transaction came to.
    pub fn count(&self, before: &Envelope, settlement: &Settlement, octets: u64, took: Duration) {
        self.relays.ended(before, settlement, octets, took);
        for outcome in outcomes(before, settlement) {
            let counter = match outcome {
                Outcome::Delivered => &self.delivered,
                Outcome::Failed => &self.failed,
                Outcome::Deferred => &self.deferred,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(settlement.released, Released::InDoubt { .. }) {
            self.doubted(1);
        }
    }

    /// The counters as the protocol names them.
    pub fn traffic(&self, clients: &Counters) -> Traffic {
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        Traffic {
            accepted: read(&clients.accepted),
            refused: read(&clients.refused),
            delivered: read(&self.delivered),
            deferred: read(&self.deferred),
            failed: read(&self.failed),
        }
    }
}

/// Everything at a glance.
pub(super) async fn report(answers: &Answers) -> Result<StatusReport, Stopping> {
    let live = answers.live.borrow().clone();
    let config = &live.config;
    let spool = answers.spool.status().await;
    let relays = answers.desk.relays(None).await?;
    let paused: Vec<&str> = relays
        .iter()
        .filter(|it| it.state != RelayState::Active)
        .map(|it| it.relay.as_str())
        .collect();
    let facts = &answers.facts;
    // While the index is read from the log there is no list.
    let everything = Filter::default();
    let impatient = answers.spool.impatient();
    let first = impatient.list(&everything, QueueId::MIN, 1).await;
    let first = first.ok().and_then(|it| it.messages.into_iter().next());
    let oldest = first.map(|it| it.accepted);
    let configuration_error = facts
        .configuration_error
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let mut problems = Vec::new();
    if let Some(error) = &configuration_error {
        problems.push(format!(
            "the configuration on disk is wrong, the one before stays in use: {error}"
        ));
    }
    if let Some(error) = &spool.failing {
        problems.push(format!("new mail is refused: {error}"));
    }
    let room = Room {
        free: spool.free_bytes,
        refused_below: spool.reserve_bytes,
    };
    let alarms = standing(facts.alarms().report(), room);
    if room.is_low() {
        problems.push(room.to_string());
    }
    // What is told here in words of this moment: a paused relay below, a full disk above.
    let said = |it: &&AlarmReport| {
        ![Kind::RelayPaused, Kind::DiskLow]
            .map(Kind::name)
            .contains(&&*it.alarm)
    };
    problems.extend(alarms.iter().filter(said).map(|it| it.text.clone()));
    if spool.damaged_records > 0 {
        let damaged = count(
            spool.damaged_records,
            "damaged record of the spool was",
            "damaged records of the spool were",
        );
        problems.push(format!("{damaged} put aside in corrupt/"));
    }
    if config.relays.is_empty() {
        problems.push(
            "there is no relay, every message is refused: \
             penstock relay add NAME --server [smtp.example.nl]:587"
                .to_owned(),
        );
    }
    for relay in relays.iter().filter(|it| it.state != RelayState::Active) {
        let waiting = match relay.waiting {
            0 => String::new(),
            some => format!(", {} for it", count(some, "message waits", "messages wait")),
        };
        problems.push(format!(
            "relay {} is {}{waiting}: {}",
            relay.relay,
            relay.state.name(),
            relay.reason.as_deref().unwrap_or("no reason is known"),
        ));
    }
    // The next message would pause it.
    for relay in relays.iter().filter(|it| it.state == RelayState::Active) {
        if let Some(trouble) = relay.oauth.as_ref().and_then(|it| it.trouble.as_ref()) {
            problems.push(format!("relay {}: {trouble}", relay.relay));
        }
    }
    let serious = answers.hints.serious();
    if serious > 0 {
        let serious = count(serious as u64, "serious hint", "serious hints");
        problems.push(format!("{serious}: penstock hints"));
    }
    if let Some(rebuilding) = spool.rebuilding {
        problems.push(format!(
            "the index is being read from the log ({} of {} octets): counts are partial, lists and deliveries wait for the end of it",
            rebuilding.done_bytes, rebuilding.all_bytes
        ));
    }
    let listeners = config
        .listen
        .iter()
        .map(|listener| ListenerStatus {
            address: listener.address.to_string(),
            tls: match listener.tls {
                ListenerTls::Off => "off",
                ListenerTls::StartTls => "starttls",
                ListenerTls::Implicit => "implicit",
            }
            .into(),
            auth: match listener.auth {
                ListenerAuth::Off => "off",
                ListenerAuth::Optional => "optional",
                ListenerAuth::Required => "required",
            }
            .into(),
            clients: answers.shared.connections_at(listener.address) as u64,
        })
        .collect();
    Ok(StatusReport {
        version: crate::VERSION.into(),
        hostname: config.hostname.clone(),
        pid: std::process::id(),
        started: facts.started,
        configured: facts.configured_at(),
        configuration_error,
        listeners,
        queue: counts(&spool, &paused, facts.sending(), oldest),
        traffic: facts.traffic(answers.shared.counters()),
        spool: SpoolReport {
            path: config.spool.path.display().to_string(),
            used_bytes: spool.log_bytes,
            free_bytes: spool.free_bytes,
            min_free_bytes: spool.reserve_bytes,
            accepting: spool.failing.is_none() && !room.is_refused(),
            damaged_records: spool.damaged_records,
            in_doubt: facts.in_doubt.load(Ordering::Relaxed),
        },
        relays,
        alarms,
        problems,
    })
}

/// The alarms as they are now: the room on the disk is looked over once a minute, and may
/// be another one since.
fn standing(mut alarms: Vec<AlarmReport>, room: Room) -> Vec<AlarmReport> {
    let of_disk = |it: &AlarmReport| it.alarm == Kind::DiskLow.name();
    alarms.retain(|it| !of_disk(it) || room.is_low());
    for alarm in alarms.iter_mut().filter(|it| of_disk(it)) {
        alarm.text = room.to_string();
    }
    alarms
}

/// Everything that is counted.
pub(super) async fn metrics(answers: &Answers) -> Result<MetricsReport, Stopping> {
    let status = report(answers).await?;
    let names: Vec<String> = status.relays.iter().map(|it| it.relay.clone()).collect();
    Ok(MetricsReport {
        limits: answers.limits(None).await?,
        relays: answers.facts.relays.report(names.into_iter()),
        commit: traffic::latency(&answers.spool.commit_times()),
        oldest_sendable_seconds: oldest_sendable(answers).await?,
        hints: answers.hints.counts(),
        status,
    })
}

/// How long the oldest message that may leave now has been in the spool.
async fn oldest_sendable(answers: &Answers) -> Result<Option<u64>, Stopping> {
    let relays = answers.desk.may_leave().await?;
    // While the index is read from the log nothing leaves.
    let spool = answers.spool.impatient();
    let flows = spool.flows().await.unwrap_or_default();
    let mut oldest: Option<Timestamp> = None;
    let flows = flows
        .into_iter()
        .filter(|it| it.ready.messages > 0 && relays.contains(&it.key.relay))
        .take(FLOWS_LOOKED_AT);
    for flow in flows {
        let first = spool.ready(&flow.key, QueueId::MIN, 1).await;
        if let Some(first) = first.ok().and_then(|it| it.into_iter().next()) {
            oldest = Some(oldest.map_or(first.accepted, |it| it.min(first.accepted)));
        }
    }
    let age = |at| answers.clock.now().duration_since(at).as_secs();
    Ok(oldest.map(|it| u64::try_from(age(it)).unwrap_or(0)))
}

/// How many messages are in which state; those of a relay that is not active are paused.
fn counts(
    spool: &SpoolStatus,
    paused: &[&str],
    sending: u64,
    oldest: Option<Timestamp>,
) -> QueueCounts {
    let of_paused = |pick: fn(&RelayCounts) -> Amount| -> u64 {
        let relays = paused.iter().filter_map(|it| spool.relays.get(*it));
        relays.map(|it| pick(it).messages).sum()
    };
    let (paused_ready, paused_deferred) = (of_paused(|it| it.ready), of_paused(|it| it.deferred));
    let all = [spool.ready, spool.deferred, spool.held];
    QueueCounts {
        messages: all.iter().map(|it| it.messages).sum(),
        recipients: all.iter().map(|it| it.recipients).sum(),
        size_bytes: all.iter().map(|it| it.wire_bytes).sum(),
        waiting: spool.ready.messages.saturating_sub(paused_ready + sending),
        deferred: spool.deferred.messages.saturating_sub(paused_deferred),
        sending,
        paused: paused_ready + paused_deferred,
        held: spool.held.messages,
        oldest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(messages: u64) -> Amount {
        Amount {
            messages,
            ..Amount::default()
        }
    }

    #[test]
    fn a_disk_that_has_room_again_is_not_called_full_until_it_is_looked_at() {
        let alarms = |free| {
            let mut standing_alarms = Alarms::default();
            let now = Timestamp::UNIX_EPOCH;
            for (kind, relay) in [(Kind::DiskLow, None), (Kind::RelayPaused, Some("own"))] {
                standing_alarms.raise(kind, relay, "new mail is refused (452)".into(), now);
            }
            let room = Room {
                free,
                refused_below: 1_000,
            };
            let told = standing(standing_alarms.report(), room).into_iter();
            told.map(|it| it.text).collect::<Vec<_>>()
        };
        assert_eq!(alarms(5_000).len(), 1, "only the relay's");
        assert!(alarms(1_500)[0].starts_with("new mail will be refused soon"));
        assert!(alarms(500)[0].starts_with("new mail is refused"));
    }

    #[test]
    fn what_waits_for_a_paused_relay_is_paused_and_nothing_else_is() {
        let own = RelayCounts {
            ready: amount(2),
            ..RelayCounts::default()
        };
        let down = RelayCounts {
            ready: amount(1),
            deferred: amount(4),
            held: amount(1),
        };
        let spool = SpoolStatus {
            ready: amount(3),
            deferred: amount(4),
            held: amount(1),
            relays: [("own".to_owned(), own), ("down".to_owned(), down)].into(),
            ..SpoolStatus::default()
        };
        let told = counts(&spool, &["down", "gone"], 1, None);
        assert_eq!(
            (
                told.waiting,
                told.sending,
                told.deferred,
                told.paused,
                told.held
            ),
            (1, 1, 0, 5, 1)
        );
    }
}
