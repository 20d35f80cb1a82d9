//! The JSON of every request and item, letter for letter: scripts depend on it.

use jiff::Timestamp;

use super::*;

fn at(time: &str) -> Timestamp {
    format!("2026-11-21T{time}Z").parse().unwrap()
}

/// The JSON says this value, and this value says the JSON.
#[track_caller]
fn pinned<T>(value: T, json: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    // Written over several lines to be read; without the breaks it is what is sent.
    let json: String = json.lines().map(str::trim).collect();
    assert_eq!(serde_json::to_string(&value).unwrap(), json);
    assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
}

#[test]
fn the_first_line_names_the_program_and_the_protocol() {
    pinned(
        Greeting {
            penstock: "0.1.0".into(),
            protocol: 1,
        },
        r#"{"penstock":"0.1.0","protocol":1}"#,
    );
}

#[test]
fn requests_are_short_enough_to_be_typed() {
    let own = || Some("own".to_owned());
    let id = || "1k9xw3q5g0000".to_owned();
    pinned(Request::Status {}, r#"{"status":{}}"#);
    pinned(
        Request::Queue {
            filter: Filter::default(),
            after: None,
            limit: None,
        },
        r#"{"queue":{}}"#,
    );
    pinned(
        Request::Show { id: id() },
        r#"{"show":{"id":"1k9xw3q5g0000"}}"#,
    );
    pinned(
        Request::Cat { id: id() },
        r#"{"cat":{"id":"1k9xw3q5g0000"}}"#,
    );
    pinned(
        Request::Trace(TraceRequest {
            address: Some("a@b.nl".into()),
            ..Default::default()
        }),
        r#"{"trace":{"address":"a@b.nl"}}"#,
    );
    pinned(
        Request::Limits { relay: own() },
        r#"{"limits":{"relay":"own"}}"#,
    );
    pinned(Request::Mailings { relay: None }, r#"{"mailings":{}}"#);
    pinned(
        Request::Top {
            interval_seconds: 1,
        },
        r#"{"top":{}}"#,
    );
    pinned(Request::RelayList { relay: None }, r#"{"relay-list":{}}"#);
    pinned(
        Request::RelayPause {
            relay: "own".into(),
            note: Some("moving".into()),
        },
        r#"{"relay-pause":{"relay":"own","note":"moving"}}"#,
    );
    pinned(
        Request::RelayResume {
            relay: "own".into(),
        },
        r#"{"relay-resume":{"relay":"own"}}"#,
    );
    pinned(
        Request::RelayTest {
            relay: "own".into(),
        },
        r#"{"relay-test":{"relay":"own"}}"#,
    );
    pinned(
        Request::RelayVerify {
            relay: "own".into(),
        },
        r#"{"relay-verify":{"relay":"own"}}"#,
    );
    pinned(
        Request::RelayLogin {
            relay: "own".into(),
            refresh_token: None,
        },
        r#"{"relay-login":{"relay":"own"}}"#,
    );
    pinned(
        Request::RelayConfirm {
            token: "t".into(),
            dry_run: false,
        },
        r#"{"relay-confirm":{"token":"t"}}"#,
    );
    pinned(
        Request::RelayConfirm {
            token: "t".into(),
            dry_run: true,
        },
        r#"{"relay-confirm":{"token":"t","dry_run":true}}"#,
    );
    pinned(
        Request::Route {
            address: "a@b.nl".into(),
        },
        r#"{"route":{"address":"a@b.nl"}}"#,
    );
    pinned(
        Request::Hints { relay: own() },
        r#"{"hints":{"relay":"own"}}"#,
    );
    pinned(Request::Metrics {}, r#"{"metrics":{}}"#);
    pinned(Request::Reload {}, r#"{"reload":{}}"#);
}

#[test]
fn a_filter_and_a_change_are_spelt_like_this() {
    pinned(
        Request::Queue {
            filter: Filter {
                ids: vec!["1k9xw3q5g0000".into()],
                user: Some("@uwdomein.nl".into()),
                from: Some("jan@uwdomein.nl".into()),
                to: Some("@example.net".into()),
                relay: Some("own".into()),
                mailing: Some("Vacatures*".into()),
                state: Some(MessageState::Held),
                older_than_seconds: Some(3600),
                larger_than_bytes: Some(1_000_000),
                error: Some("5.7.1".into()),
            },
            after: Some("1k9xw3q5g0000".into()),
            limit: Some(10),
        },
        r#"{"queue":{"filter":{"ids":["1k9xw3q5g0000"],"user":"@uwdomein.nl",
           "from":"jan@uwdomein.nl","to":"@example.net","relay":"own","mailing":"Vacatures*",
           "state":"held","older_than_seconds":3600,"larger_than_bytes":1000000,"error":"5.7.1"},
           "after":"1k9xw3q5g0000","limit":10}}"#,
    );
    let change = |action| ChangeRequest {
        action,
        filter: Filter::default(),
        all: false,
        dry_run: false,
        up_to: None,
        note: None,
    };
    pinned(
        Request::Change(ChangeRequest {
            all: true,
            dry_run: true,
            ..change(Action::Hold)
        }),
        r#"{"change":{"action":"hold","all":true,"dry_run":true}}"#,
    );
    pinned(
        Request::Change(ChangeRequest {
            filter: Filter {
                relay: Some("old".into()),
                ..Default::default()
            },
            up_to: Some("1k9xw3q5g0000".into()),
            note: Some("moved".into()),
            ..change(Action::Reroute { to: "own".into() })
        }),
        r#"{"change":{"action":{"reroute":{"to":"own"}},"filter":{"relay":"old"},
           "up_to":"1k9xw3q5g0000","note":"moved"}}"#,
    );
    for (action, word) in [
        (Action::Release, "release"),
        (Action::Retry, "retry"),
        (Action::Delete, "delete"),
        (Action::Fail, "fail"),
    ] {
        assert_eq!(action.verb(), word);
        pinned(action, &format!("\"{word}\""));
    }
}

#[test]
fn a_misspelt_request_is_refused_not_ignored() {
    for wrong in [
        r#"{"queue":{"filter":{"form":"jan@uwdomein.nl"}}}"#,
        r#"{"queue":{"limits":3}}"#,
        r#"{"change":{"action":"delete","filters":{}}}"#,
        r#"{"change":{"action":"destroy"}}"#,
        r#"{"trace":{"adress":"a@b.nl"}}"#,
        r#"{"status":{},"queue":{}}"#,
        r#"{"stop":{}}"#,
        r#""queue""#,
        "QUIT",
        "",
    ] {
        assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_answer_may_gain_members() {
    let line = r#"{"change":{"action":"hold","dry_run":true,"messages":1,"recipients":1,
        "size_bytes":1,"sending":0,"unchanged":0,"first_ids":[],"senders":[],"up_to":null,
        "invented_later":[1]}}"#;
    let line: Line = serde_json::from_str(line).unwrap();
    assert!(matches!(line, Line::Item(Item::Change(_))));
}

#[test]
fn the_last_line_says_whether_the_answer_is_whole() {
    pinned(Line::Done {}, r#"{"done":{}}"#);
    pinned(
        Line::Error(Failure::new(
            FailureKind::NotFound,
            "no message 1k9xw3q5g0000 waits",
        )),
        r#"{"error":{"kind":"not-found","message":"no message 1k9xw3q5g0000 waits"}}"#,
    );
    for (kind, word) in [
        (FailureKind::BadRequest, "bad-request"),
        (FailureKind::Failed, "failed"),
        (FailureKind::TryAgain, "try-again"),
        (FailureKind::BadConfiguration, "bad-configuration"),
    ] {
        pinned(kind, &format!("\"{word}\""));
    }
}

fn message() -> MessageSummary {
    MessageSummary {
        id: "1k9xw3q5g0000".into(),
        accepted: at("12:00:00.5"),
        from: "jan@uwdomein.nl".into(),
        to: "bob@example.net".into(),
        recipients: 2,
        size_bytes: 4096,
        user: Some("@uwdomein.nl".into()),
        relay: "own".into(),
        mailing: "Vacatures".into(),
        mailing_key: "s-1".into(),
        state: MessageState::Deferred,
        why: "retry".into(),
        why_text: "the last attempt failed for the time being".into(),
        next: Some(at("12:05:00")),
        attempts: 1,
        error: Some("450 4.7.1 greylisted".into()),
    }
}

const MESSAGE: &str = r#""id":"1k9xw3q5g0000","accepted":"2026-11-21T12:00:00.5Z",
    "from":"jan@uwdomein.nl","to":"bob@example.net","recipients":2,"size_bytes":4096,
    "user":"@uwdomein.nl","relay":"own","mailing":"Vacatures","mailing_key":"s-1",
    "state":"deferred","why":"retry","why_text":"the last attempt failed for the time being",
    "next":"2026-11-21T12:05:00Z","attempts":1,"error":"450 4.7.1 greylisted""#;

#[test]
fn a_row_of_the_queue_is_flat() {
    pinned(
        Line::Item(Item::Message(Box::new(message()))),
        &format!(r#"{{"message":{{{MESSAGE}}}}}"#),
    );
}

#[test]
fn a_detail_begins_like_the_row() {
    let detail = MessageDetail {
        summary: message(),
        reverse_path: String::new(),
        message_id: "m@uwdomein.nl".into(),
        origin: "submission".into(),
        rule: "user @uwdomein.nl".into(),
        login: None,
        client: "127.0.0.1".into(),
        wire_bytes: 4100,
        body: "8bitmime".into(),
        smtputf8: false,
        ret: Some("headers".into()),
        envid: None,
        first_failure: Some(at("12:00:01")),
        expires: Some(at("13:00:01")),
        warned: false,
        hold: Some(HoldDetail {
            reason: "administrator".into(),
            by: "jan".into(),
            since: at("12:00:02"),
            note: String::new(),
        }),
        recipient_list: vec![RecipientDetail {
            address: "bob@example.net".into(),
            status: "waiting".into(),
            notify: Some("failure,delay".into()),
            orcpt: Some("rfc822;bob@example.net".into()),
            said: Some(Said {
                at: at("12:00:01"),
                stage: "recipient".into(),
                server: "smtp.uwdomein.nl".into(),
                code: Some(450),
                enhanced: Some("4.7.1".into()),
                text: "greylisted".into(),
                in_doubt: false,
                class: Some("temporary".into()),
                remedy: None,
            }),
        }],
    };
    pinned(
        Item::Detail(Box::new(detail)),
        &format!(
            r#"{{"detail":{{{MESSAGE},"reverse_path":"","message_id":"m@uwdomein.nl",
            "origin":"submission","rule":"user @uwdomein.nl","login":null,"client":"127.0.0.1",
            "wire_bytes":4100,"body":"8bitmime","smtputf8":false,"ret":"headers","envid":null,
            "first_failure":"2026-11-21T12:00:01Z","expires":"2026-11-21T13:00:01Z",
            "warned":false,"hold":{{"reason":"administrator","by":"jan",
            "since":"2026-11-21T12:00:02Z","note":""}},"recipient_list":[{{
            "address":"bob@example.net","status":"waiting","notify":"failure,delay",
            "orcpt":"rfc822;bob@example.net","said":{{"at":"2026-11-21T12:00:01Z",
            "stage":"recipient","server":"smtp.uwdomein.nl","code":450,"enhanced":"4.7.1",
            "text":"greylisted","in_doubt":false,"class":"temporary","remedy":null}}}}]}}}}"#
        ),
    );
}

#[test]
fn content_events_changes_and_mailings_are_spelt_like_this() {
    pinned(
        Item::Content(Content {
            base64: "SGk=".into(),
        }),
        r#"{"content":{"base64":"SGk="}}"#,
    );
    pinned(
        Item::Event(Box::new(TraceEvent {
            id: "1k9xw3q5g0000".into(),
            at: at("12:00:00"),
            event: "delivered".into(),
            from: "jan@uwdomein.nl".into(),
            to: Some("bob@example.net".into()),
            relay: "own".into(),
            server: Some("smtp.uwdomein.nl".into()),
            code: Some(250),
            enhanced: Some("2.0.0".into()),
            text: "ok".into(),
            size_bytes: 4096,
            message_id: "m@uwdomein.nl".into(),
        })),
        r#"{"event":{"id":"1k9xw3q5g0000","at":"2026-11-21T12:00:00Z","event":"delivered",
           "from":"jan@uwdomein.nl","to":"bob@example.net","relay":"own",
           "server":"smtp.uwdomein.nl","code":250,"enhanced":"2.0.0","text":"ok",
           "size_bytes":4096,"message_id":"m@uwdomein.nl"}}"#,
    );
    pinned(
        Item::Change(ChangeReport {
            action: "hold".into(),
            dry_run: true,
            messages: 312,
            recipients: 320,
            size_bytes: 3_100_000,
            sending: 1,
            unchanged: 2,
            held: 3,
            paused: vec!["own".into()],
            first_ids: vec!["1k9xw3q5g0000".into()],
            senders: vec!["jan@uwdomein.nl".into()],
            up_to: Some("1k9xw3q5g0000".into()),
        }),
        r#"{"change":{"action":"hold","dry_run":true,"messages":312,"recipients":320,
           "size_bytes":3100000,"sending":1,"unchanged":2,"held":3,"paused":["own"],"first_ids":["1k9xw3q5g0000"],
           "senders":["jan@uwdomein.nl"],"up_to":"1k9xw3q5g0000"}}"#,
    );
    pinned(
        Item::Mailing(Box::new(mailing())),
        &format!(r#"{{"mailing":{MAILING}}}"#),
    );
}

fn mailing() -> MailingReport {
    MailingReport {
        key: "s-1".into(),
        mailing: "Vacatures".into(),
        from: "jan@uwdomein.nl".into(),
        relay: "own".into(),
        accepted: 11_000,
        done: 500,
        waiting: 9_500,
        held: 1_000,
        limit: Some(10_000),
        last_accepted: at("12:00:00"),
        interactive: false,
        finished_at: Some(at("13:35:00")),
    }
}

const MAILING: &str = r#"{"key":"s-1","mailing":"Vacatures","from":"jan@uwdomein.nl","relay":"own",
    "accepted":11000,"done":500,"waiting":9500,"held":1000,"limit":10000,
    "last_accepted":"2026-11-21T12:00:00Z","interactive":false,
    "finished_at":"2026-11-21T13:35:00Z"}"#;

fn relay() -> RelayStatus {
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

const RELAY: &str = r#"{"relay":"own","servers":["[smtp.uwdomein.nl]:465"],"state":"paused",
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

fn limits() -> LimitsReport {
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

const LIMITS: &str = r#"{"relay":"own","preset":"standard","state":"active","windows":[{
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
