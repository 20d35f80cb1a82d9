//! The daemon as a whole.

use super::relay::{LIMITS, RELAY, limits, relay};
use super::*;

fn queue() -> QueueCounts {
    QueueCounts {
        messages: 3,
        oldest: Some(at("11:00:00")),
        ..Default::default()
    }
}

const QUEUE: &str = r#"{"messages":3,"recipients":0,"size_bytes":0,"waiting":0,"deferred":0,
    "sending":0,"paused":0,"held":0,"oldest":"2026-11-21T11:00:00Z"}"#;

const TRAFFIC: &str = r#"{"accepted":0,"refused":0,"delivered":0,"deferred":0,"failed":0}"#;

fn status() -> StatusReport {
    StatusReport {
        version: "0.1.0".into(),
        hostname: "app01.example.nl".into(),
        pid: 42,
        started: at("10:00:00"),
        configured: at("10:30:00"),
        configuration_error: None,
        listeners: vec![ListenerStatus {
            address: "127.0.0.1:2525".into(),
            tls: "off".into(),
            auth: "off".into(),
            clients: 2,
        }],
        queue: queue(),
        traffic: Traffic::default(),
        spool: SpoolReport {
            path: "/var/lib/penstock".into(),
            used_bytes: 1,
            free_bytes: 2,
            min_free_bytes: 3,
            accepting: true,
            damaged_records: 0,
            in_doubt: 0,
        },
        relays: vec![relay()],
        alarms: vec![AlarmReport {
            alarm: "relay-paused".into(),
            relay: Some("own".into()),
            since: at("11:00:00"),
            text: "the relay own is paused: 535".into(),
        }],
        problems: vec!["relay own is paused".into()],
    }
}

fn status_json() -> String {
    format!(
        r#"{{"version":"0.1.0","hostname":"app01.example.nl","pid":42,
        "started":"2026-11-21T10:00:00Z","configured":"2026-11-21T10:30:00Z",
        "configuration_error":null,"listeners":[{{"address":"127.0.0.1:2525","tls":"off",
        "auth":"off","clients":2}}],"queue":{QUEUE},"traffic":{TRAFFIC},
        "spool":{{"path":"/var/lib/penstock","used_bytes":1,"free_bytes":2,
        "min_free_bytes":3,"accepting":true,"damaged_records":0,"in_doubt":0}},
        "relays":[{RELAY}],"alarms":[{{"alarm":"relay-paused","relay":"own",
        "since":"2026-11-21T11:00:00Z","text":"the relay own is paused: 535"}}],
        "problems":["relay own is paused"]}}"#
    )
}

#[test]
fn everything_that_is_counted_is_spelt_like_this() {
    let latency = || Latency {
        bounds_seconds: vec![0.25, 0.5],
        counts: vec![2, 1, 4],
        sum_seconds: 9.5,
    };
    let latency_json = r#"{"bounds_seconds":[0.25,0.5],"counts":[2,1,4],"sum_seconds":9.5}"#;
    pinned(
        Item::Metrics(Box::new(MetricsReport {
            status: status(),
            limits: vec![limits()],
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
            oldest_sendable_seconds: None,
            hints: vec![HintCount {
                hint: "spf-missing".into(),
                severity: "serious".into(),
                findings: 2,
            }],
        })),
        &format!(
            r#"{{"metrics":{{"status":{},"limits":[{LIMITS}],"relays":[{{"relay":"own",
            "accepted":7,"accepted_bytes":700,"released":5,"released_bytes":600,"held":1,
            "in_doubt":0,"delivered":6,"deferred":2,"failed":1,"latency":{latency_json}}}],
            "commit":{latency_json},"oldest_sendable_seconds":null,
            "hints":[{{"hint":"spf-missing","severity":"serious","findings":2}}]}}}}"#,
            status_json()
        ),
    );
}

#[test]
fn status_top_hints_and_reload_are_spelt_like_this() {
    pinned(
        Item::Status(Box::new(status())),
        &format!(r#"{{"status":{}}}"#, status_json()),
    );
    pinned(
        Item::Top(Box::new(TopSnapshot {
            at: at("12:00:00"),
            clients: 2,
            queue: queue(),
            traffic: Traffic::default(),
            relays: vec![],
            limits: vec![limits()],
        })),
        &format!(
            r#"{{"top":{{"at":"2026-11-21T12:00:00Z","clients":2,"queue":{QUEUE},
            "traffic":{TRAFFIC},"relays":[],"limits":[{LIMITS}]}}}}"#
        ),
    );
    pinned(
        Item::Hint(Box::new(HintReport {
            hint: "spf-relay-missing".into(),
            severity: "serious".into(),
            subject: "uwdomein.nl".into(),
            relay: Some("own".into()),
            found: "SPF does not include the relay".into(),
            evidence: vec!["uwdomein.nl TXT \"v=spf1 mx -all\"".into()],
            remedy: "Publish instead:".into(),
            record: Some("uwdomein.nl. IN TXT \"v=spf1 mx include:s.nl -all\"".into()),
            action: "log".into(),
            messages: 9,
            last_seen: at("12:00:00"),
        })),
        r#"{"hint":{"hint":"spf-relay-missing","severity":"serious","subject":"uwdomein.nl",
           "relay":"own","found":"SPF does not include the relay",
           "evidence":["uwdomein.nl TXT \"v=spf1 mx -all\""],"remedy":"Publish instead:",
           "record":"uwdomein.nl. IN TXT \"v=spf1 mx include:s.nl -all\"","action":"log",
           "messages":9,"last_seen":"2026-11-21T12:00:00Z"}}"#,
    );
    pinned(
        Item::Reload(ReloadReport {
            at: at("12:00:00"),
            changes: vec!["relay own: connections 2, was 4".into()],
            needs_restart: vec![],
            warnings: vec![],
        }),
        r#"{"reload":{"at":"2026-11-21T12:00:00Z",
           "changes":["relay own: connections 2, was 4"],"needs_restart":[],"warnings":[]}}"#,
    );
}
