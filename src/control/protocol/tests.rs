//! The JSON of every request and item, letter for letter: scripts depend on it.

mod message;
mod relay;
mod request;
mod status;

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
