//! Relays, their limits and tests, and routes.

use super::*;

pub fn relay() -> RelayStatus {
    RelayStatus {
        relay: "own".into(),
        servers: vec!["[smtp.uwdomein.nl]:465".into()],
        state: RelayState::Paused,
        reason: Some("535 5.7.8 bad credentials".into()),
        remedy: Some("Set the password.".into()),
        by: Some("penstock".into()),
        since: Some(at("11:00:00")),
        next_probe: Some(at("12:30:00")),
        username: Some("relayuser".into()),
        sender: None,
        tls: Some("implicit".into()),
        preset: Some("bulk".into()),
        default: false,
        connections: 0,
        waiting: 12,
        waiting_bytes: 50_000,
        held: 1,
        last_success: None,
        last_failure: Some(at("11:59:00")),
        last_error: Some("535 5.7.8 bad credentials".into()),
        verification: Some(VerificationReport {
            state: VerificationState::Failed,
            at: Some(at("11:59:00")),
            by: None,
            expires: Some(at("12:00:00")),
            conversation: vec![Dialogue {
                side: Side::Theirs,
                text: "535 5.7.8 bad credentials".into(),
            }],
        }),
        oauth: Some(OAuthReport {
            grant: "login".into(),
            since: Some(at("10:00:00")),
            by: Some("jan".into()),
            used: Some(at("11:00:00")),
            expires: None,
            trouble: Some("login.example gives no token".into()),
            remedy: None,
        }),
    }
}

pub const RELAY: &str = r#"{"relay":"own","servers":["[smtp.uwdomein.nl]:465"],"state":"paused",
    "reason":"535 5.7.8 bad credentials","remedy":"Set the password.","by":"penstock",
    "since":"2026-11-21T11:00:00Z","next_probe":"2026-11-21T12:30:00Z","username":"relayuser",
    "sender":null,"tls":"implicit","preset":"bulk","default":false,"connections":0,"waiting":12,
    "waiting_bytes":50000,"held":1,"last_success":null,"last_failure":"2026-11-21T11:59:00Z",
    "last_error":"535 5.7.8 bad credentials","verification":{"state":"failed",
    "at":"2026-11-21T11:59:00Z","by":null,"expires":"2026-11-21T12:00:00Z","conversation":[
    {"side":"theirs","text":"535 5.7.8 bad credentials"}]},
    "oauth":{"grant":"login","since":"2026-11-21T10:00:00Z","by":"jan",
    "used":"2026-11-21T11:00:00Z","expires":null,"trouble":"login.example gives no token",
    "remedy":null}}"#;

pub fn limits() -> LimitsReport {
    LimitsReport {
        relay: "own".into(),
        preset: "standard".into(),
        state: RelayState::Active,
        windows: vec![WindowReport {
            limit: "batch-messages".into(),
            window_seconds: 300,
            allowed: 500,
            used: 120,
            left: 380,
            room_at: Some(at("12:03:00")),
        }],
        min_interval_ms: 0,
        connections: 1,
        connections_limit: 4,
        waiting: 900,
        waiting_bytes: 9_000_000,
        batch_open: false,
        why: Some("the next batch has not opened yet".into()),
        until: Some(at("12:05:00")),
        next_batch: Some(at("12:05:00")),
        empty_at: None,
        interactive_share: 0.05,
        users: vec![UserShare {
            from: "jan@uwdomein.nl".into(),
            waiting: 900,
            waiting_bytes: 9_000_000,
        }],
        mailings: Vec::new(),
    }
}

pub const LIMITS: &str = r#"{"relay":"own","preset":"standard","state":"active","windows":[{
    "limit":"batch-messages","window_seconds":300,"allowed":500,"used":120,
    "left":380,"room_at":"2026-11-21T12:03:00Z"}],"min_interval_ms":0,"connections":1,
    "connections_limit":4,"waiting":900,"waiting_bytes":9000000,"batch_open":false,
    "why":"the next batch has not opened yet","until":"2026-11-21T12:05:00Z",
    "next_batch":"2026-11-21T12:05:00Z","empty_at":null,"interactive_share":0.05,
    "users":[{"from":"jan@uwdomein.nl","waiting":900,"waiting_bytes":9000000}],"mailings":[]}"#;

#[test]
fn relays_limits_tests_and_routes_are_spelt_like_this() {
    pinned(
        Item::Relay(Box::new(relay())),
        &format!(r#"{{"relay":{RELAY}}}"#),
    );
    pinned(
        Item::Limits(Box::new(limits())),
        &format!(r#"{{"limits":{LIMITS}}}"#),
    );
    pinned(
        Item::Dialogue(Dialogue {
            side: Side::Theirs,
            text: "220 smtp ESMTP".into(),
        }),
        r#"{"dialogue":{"side":"theirs","text":"220 smtp ESMTP"}}"#,
    );
    pinned(
        Item::RelayTest(RelayTestReport {
            relay: "own".into(),
            ok: false,
            server: Some("smtp.uwdomein.nl:465".into()),
            stage: "auth".into(),
            text: "535 5.7.8 bad credentials".into(),
            remedy: None,
        }),
        r#"{"relay-test":{"relay":"own","ok":false,"server":"smtp.uwdomein.nl:465",
           "stage":"auth","text":"535 5.7.8 bad credentials","remedy":null}}"#,
    );
    pinned(
        Item::Verified(Verified {
            relay: "own".into(),
            servers: vec!["[smtp.uwdomein.nl]:465".into()],
            sender: "mailer@uwdomein.nl".into(),
            at: Some(at("12:00:00")),
        }),
        r#"{"verified":{"relay":"own","servers":["[smtp.uwdomein.nl]:465"],
           "sender":"mailer@uwdomein.nl","at":"2026-11-21T12:00:00Z"}}"#,
    );
    pinned(
        Item::Login(LoginPrompt {
            relay: "own".into(),
            username: "m@uwdomein.nl".into(),
            page: "https://login.example/device".into(),
            whole_page: None,
            code: "ABCD-EFGH".into(),
            expires: at("12:15:00"),
        }),
        r#"{"login":{"relay":"own","username":"m@uwdomein.nl",
           "page":"https://login.example/device","whole_page":null,"code":"ABCD-EFGH",
           "expires":"2026-11-21T12:15:00Z"}}"#,
    );
    pinned(
        Item::LoggedIn(LoggedIn {
            relay: "own".into(),
            username: "m@uwdomein.nl".into(),
            at: at("12:00:00"),
            expires: None,
        }),
        r#"{"logged-in":{"relay":"own","username":"m@uwdomein.nl",
           "at":"2026-11-21T12:00:00Z","expires":null}}"#,
    );
    pinned(
        Item::Route(RouteReport {
            address: "jan@uwdomein.nl".into(),
            relay: "own".into(),
            user: Some("jan@uwdomein.nl".into()),
            rule: "user jan@uwdomein.nl".into(),
            state: None,
        }),
        r#"{"route":{"address":"jan@uwdomein.nl","relay":"own","user":"jan@uwdomein.nl",
           "rule":"user jan@uwdomein.nl","state":null}}"#,
    );
}
