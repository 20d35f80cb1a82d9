//! Messages, and what is done to them.

use super::*;

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
