//! What a client may ask.

use super::*;

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
