//! Metrics in the text format of Prometheus (OpenMetrics).
//!
//! No address and no message is ever a label: the number of series depends on the
//! configuration alone.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::control::protocol::{LimitsReport, RelayState, StatusReport};

/// What the text is served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RelayLabel {
    relay: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RelayStateLabel {
    relay: Word,
    state: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    relay: Word,
    limit: Word,
}

/// A label's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Word(String);

impl Word {
    fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_str().encode(encoder)
    }
}

/// Everything, as text.
pub fn text(status: &StatusReport, limits: &[LimitsReport]) -> String {
    let mut registry = Registry::with_prefix("penstock");
    traffic(&mut registry, status);
    queue(&mut registry, status);
    relays(&mut registry, status);
    budgets(&mut registry, limits);
    let mut text = String::new();
    // A String takes whatever is written to it.
    encode(&mut text, &registry).ok();
    text
}

fn traffic(registry: &mut Registry, status: &StatusReport) {
    for (name, help, count) in [
        (
            "accepted_messages",
            "Messages accepted",
            status.traffic.accepted,
        ),
        (
            "refused_messages",
            "Messages refused at the door",
            status.traffic.refused,
        ),
        (
            "delivered_recipients",
            "Recipients that a relay took",
            status.traffic.delivered,
        ),
        (
            "deferred_attempts",
            "Attempts that failed for the time being",
            status.traffic.deferred,
        ),
        (
            "failed_recipients",
            "Recipients that failed or expired",
            status.traffic.failed,
        ),
        (
            "in_doubt_messages",
            "Final dots without a reply",
            status.spool.in_doubt,
        ),
        (
            "damaged_records",
            "Records of the spool that were put aside",
            status.spool.damaged_records,
        ),
    ] {
        registry.register(name, help, ConstCounter::new(count));
    }
}

fn queue(registry: &mut Registry, status: &StatusReport) {
    let waiting = Family::<StateLabel, Gauge>::default();
    let queue = &status.queue;
    for (state, count) in [
        ("waiting", queue.waiting),
        ("deferred", queue.deferred),
        ("sending", queue.sending),
        ("paused", queue.paused),
        ("held", queue.held),
    ] {
        waiting
            .get_or_create(&StateLabel {
                state: Word::of(state),
            })
            .set(whole(count));
    }
    registry.register("queue_messages", "Messages in the spool by state", waiting);
    let gauge = |count| {
        let gauge: Gauge = Gauge::default();
        gauge.set(whole(count));
        gauge
    };
    let clients = status.listeners.iter().map(|it| it.clients).sum();
    registry.register("clients", "Clients connected", gauge(clients));
    registry.register_with_unit(
        "spool_used",
        "Octets of the spool",
        Unit::Bytes,
        gauge(status.spool.used_bytes),
    );
    registry.register_with_unit(
        "spool_free",
        "Octets free on its file system",
        Unit::Bytes,
        gauge(status.spool.free_bytes),
    );
    registry.register(
        "accepting",
        "1: new mail is taken",
        gauge(u64::from(status.spool.accepting)),
    );
    registry.register(
        "problems",
        "What penstock status warns of",
        gauge(status.problems.len() as u64),
    );
    let oldest = status.queue.oldest.map_or(0, jiff::Timestamp::as_second);
    let accepted: Gauge = Gauge::default();
    accepted.set(oldest);
    registry.register_with_unit(
        "oldest_accepted_timestamp",
        "When the oldest message in the spool was accepted; 0: it is empty",
        Unit::Seconds,
        accepted,
    );
}

fn relays(registry: &mut Registry, status: &StatusReport) {
    let state = Family::<RelayStateLabel, Gauge>::default();
    let waiting = Family::<RelayLabel, Gauge>::default();
    let held = Family::<RelayLabel, Gauge>::default();
    for relay in &status.relays {
        let label = || RelayLabel {
            relay: Word::of(&relay.relay),
        };
        for it in [
            RelayState::Active,
            RelayState::Paused,
            RelayState::Unverified,
            RelayState::Missing,
        ] {
            let label = RelayStateLabel {
                relay: Word::of(&relay.relay),
                state: Word::of(it.name()),
            };
            state
                .get_or_create(&label)
                .set(i64::from(it == relay.state));
        }
        waiting.get_or_create(&label()).set(whole(relay.waiting));
        held.get_or_create(&label()).set(whole(relay.held));
    }
    registry.register("relay_state", "1 for the state that the relay is in", state);
    registry.register(
        "relay_waiting_messages",
        "Messages that wait for the relay",
        waiting,
    );
    registry.register(
        "relay_held_messages",
        "Messages for the relay that are held",
        held,
    );
}

fn budgets(registry: &mut Registry, limits: &[LimitsReport]) {
    let allowed = Family::<LimitLabel, Gauge>::default();
    let used = Family::<LimitLabel, Gauge>::default();
    for report in limits {
        for window in &report.windows {
            let label = LimitLabel {
                relay: Word::of(&report.relay),
                limit: Word::of(&window.limit),
            };
            allowed.get_or_create(&label).set(whole(window.allowed));
            used.get_or_create(&label).set(whole(window.used));
        }
    }
    registry.register(
        "limit_allowed",
        "What a limit allows in its window",
        allowed,
    );
    registry.register("limit_used", "What is used of it now", used);
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
