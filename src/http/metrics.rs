//! Metrics in the text format of Prometheus (OpenMetrics).
//!
//! No address and no message is ever a label: the number of series depends on the
//! configuration alone.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::control::protocol::{
    AlarmReport, HintCount, Latency, LimitsReport, MetricsReport, RelayState, RelayTraffic,
    StatusReport,
};

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    relay: Word,
    outcome: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlarmLabel {
    alarm: Word,
    relay: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HintLabel {
    hint: Word,
    severity: Word,
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
pub fn text(report: &MetricsReport) -> String {
    let mut registry = Registry::with_prefix("penstock");
    let status = &report.status;
    totals(&mut registry, status);
    traffic(&mut registry, &report.relays);
    latencies(&mut registry, report);
    queue(&mut registry, status);
    relays(&mut registry, status);
    budgets(&mut registry, &report.limits);
    alarms(&mut registry, &status.alarms);
    hints(&mut registry, &report.hints);
    let sendable: Gauge = Gauge::default();
    sendable.set(whole(report.oldest_sendable_seconds.unwrap_or(0)));
    registry.register_with_unit(
        "oldest_sendable_age",
        "How long the oldest message that may leave now has been in the spool; 0: none may",
        Unit::Seconds,
        sendable,
    );
    let mut text = String::new();
    // A String takes whatever is written to it.
    encode(&mut text, &registry).ok();
    text
}

fn totals(registry: &mut Registry, status: &StatusReport) {
    for (name, help, count) in [
        (
            "refused_messages",
            "Messages refused at the door",
            status.traffic.refused,
        ),
        (
            "in_doubt_messages",
            "Final dots without a reply, those of the last run included",
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

fn traffic(registry: &mut Registry, relays: &[RelayTraffic]) {
    let messages = Family::<OutcomeLabel, Counter>::default();
    let octets = Family::<OutcomeLabel, Counter>::default();
    let recipients = Family::<OutcomeLabel, Counter>::default();
    for relay in relays {
        let count = |family: &Family<OutcomeLabel, Counter>, outcome: &str, count| {
            let label = OutcomeLabel {
                relay: Word::of(&relay.relay),
                outcome: Word::of(outcome),
            };
            family.get_or_create(&label).inc_by(count);
        };
        count(&messages, "accepted", relay.accepted);
        count(&messages, "released", relay.released);
        count(&messages, "held", relay.held);
        count(&messages, "in-doubt", relay.in_doubt);
        count(&octets, "accepted", relay.accepted_bytes);
        count(&octets, "released", relay.released_bytes);
        count(&recipients, "delivered", relay.delivered);
        count(&recipients, "deferred", relay.deferred);
        count(&recipients, "failed", relay.failed);
    }
    registry.register(
        "messages",
        "Messages: accepted from clients, released to the relay, held, in doubt",
        messages,
    );
    registry.register_with_unit(
        "message",
        "Octets accepted from clients, and released to the relay as they are on the wire",
        Unit::Bytes,
        octets,
    );
    registry.register(
        "recipients",
        "Recipients: delivered, failed for good, or deferred (once for each attempt)",
        recipients,
    );
}

fn latencies(registry: &mut Registry, report: &MetricsReport) {
    registry.register_with_unit(
        "commit_duration",
        "From the last octet of a message to its being durable",
        Unit::Seconds,
        Durations(vec![(None, report.commit.clone())]),
    );
    let relays = report.relays.iter().map(|it| {
        let label = RelayLabel {
            relay: Word::of(&it.relay),
        };
        (Some(label), it.latency.clone())
    });
    registry.register_with_unit(
        "relay_duration",
        "From the start of a transaction with the relay to its end, connecting included",
        Unit::Seconds,
        Durations(relays.collect()),
    );
}

/// Histograms that were counted elsewhere.
#[derive(Debug)]
struct Durations(Vec<(Option<RelayLabel>, Latency)>);

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        for (label, latency) in &self.0 {
            let bounds = latency.bounds_seconds.iter().copied();
            let counts = latency.counts.iter().copied();
            // The library adds them up.
            let buckets: Vec<(f64, u64)> = bounds
                .chain(std::iter::once(f64::INFINITY))
                .zip(counts)
                .collect();
            let count = latency.counts.iter().sum();
            let sum = latency.sum_seconds;
            match label {
                None => encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?,
                Some(label) => encoder
                    .encode_family(label)?
                    .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?,
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn alarms(registry: &mut Registry, standing: &[AlarmReport]) {
    let alarms = Family::<AlarmLabel, Gauge>::default();
    for alarm in standing {
        let label = AlarmLabel {
            alarm: Word::of(&alarm.alarm),
            relay: Word::of(alarm.relay.as_deref().unwrap_or("")),
        };
        alarms.get_or_create(&label).set(1);
    }
    registry.register(
        "alarm",
        "1 for each alarm that stands: disk-low, nothing-leaves, relay-paused",
        alarms,
    );
}

fn hints(registry: &mut Registry, counts: &[HintCount]) {
    let hints = Family::<HintLabel, Gauge>::default();
    for count in counts {
        let label = HintLabel {
            hint: Word::of(&count.hint),
            severity: Word::of(&count.severity),
        };
        hints.get_or_create(&label).set(whole(count.findings));
    }
    registry.register(
        "hints",
        "What will hurt delivery: for how many domains and addresses each hint stands now",
        hints,
    );
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
    let paused = status
        .relays
        .iter()
        .filter(|it| it.state == RelayState::Paused)
        .count();
    let gauge: Gauge = Gauge::default();
    gauge.set(whole(paused as u64));
    registry.register("paused_relays", "Relays that are paused", gauge);
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
    let left = Family::<LimitLabel, Gauge>::default();
    for report in limits {
        for window in &report.windows {
            let label = LimitLabel {
                relay: Word::of(&report.relay),
                limit: Word::of(&window.limit),
            };
            allowed.get_or_create(&label).set(whole(window.allowed));
            used.get_or_create(&label).set(whole(window.used));
            let more = window.allowed.saturating_sub(window.used);
            left.get_or_create(&label).set(whole(more));
        }
    }
    registry.register(
        "limit_allowed",
        "What a limit allows in its window",
        allowed,
    );
    registry.register("limit_used", "What is used of it now", used);
    registry.register("limit_left", "What is left of it now", left);
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{QueueCounts, SpoolReport, Traffic};

    fn latency() -> Latency {
        Latency {
            bounds_seconds: vec![0.001, 0.5],
            counts: vec![2, 1, 4],
            sum_seconds: 9.5,
        }
    }

    fn report() -> MetricsReport {
        let at = "2026-11-21T12:00:00Z".parse().unwrap();
        MetricsReport {
            status: StatusReport {
                version: "0.1.0".into(),
                hostname: "app01.example.nl".into(),
                pid: 1,
                started: at,
                configured: at,
                configuration_error: None,
                listeners: vec![],
                queue: QueueCounts::default(),
                traffic: Traffic::default(),
                spool: SpoolReport {
                    path: "/var/lib/penstock".into(),
                    used_bytes: 0,
                    free_bytes: 5,
                    min_free_bytes: 4,
                    accepting: true,
                    damaged_records: 0,
                    in_doubt: 0,
                },
                relays: vec![],
                alarms: vec![AlarmReport {
                    alarm: "disk-low".into(),
                    relay: None,
                    since: at,
                    text: "jan@uwdomein.nl filled it".into(),
                }],
                problems: vec![],
            },
            limits: vec![],
            relays: vec![RelayTraffic {
                relay: "own".into(),
                accepted: 7,
                accepted_bytes: 700,
                released: 5,
                released_bytes: 600,
                held: 1,
                in_doubt: 0,
                delivered: 6,
                deferred: 2,
                failed: 1,
                latency: latency(),
            }],
            commit: latency(),
            oldest_sendable_seconds: Some(61),
            hints: vec![HintCount {
                hint: "spf-missing".into(),
                severity: "serious".into(),
                findings: 2,
            }],
        }
    }

    #[test]
    fn counters_are_by_relay_and_outcome_and_histograms_add_up() {
        let text = text(&report());
        for line in [
            "penstock_messages_total{relay=\"own\",outcome=\"released\"} 5",
            "penstock_message_bytes_total{relay=\"own\",outcome=\"accepted\"} 700",
            "penstock_commit_duration_seconds_bucket{le=\"0.001\"} 2",
            "penstock_commit_duration_seconds_bucket{le=\"0.5\"} 3",
            "penstock_commit_duration_seconds_bucket{le=\"+Inf\"} 7",
            "penstock_commit_duration_seconds_count 7",
            "penstock_commit_duration_seconds_sum 9.5",
            "penstock_alarm{alarm=\"disk-low\",relay=\"\"} 1",
            "penstock_oldest_sendable_age_seconds 61",
            "penstock_hints{hint=\"spf-missing\",severity=\"serious\"} 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn no_address_is_shown() {
        assert!(!text(&report()).contains('@'));
    }
}
