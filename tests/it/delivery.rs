//! What becomes of accepted mail: delivered, tried again, reported; never lost.

use std::time::Duration;

use serde_json::json;

use crate::client::message;
use crate::harness::{Harness, relay};
use crate::relay::{Answer, FakeRelay};

/// Virtual or real, nobody waits longer.
const LONG: Duration = Duration::from_secs(10 * 24 * 3600);

#[tokio::test(start_paused = true)]
async fn a_greylisted_message_goes_out_at_the_second_attempt() {
    let out = FakeRelay::default()
        .answering_once("RCPT", "450 4.7.1 greylisted")
        .start()
        .await;
    let penstock = Harness::relaying_to(&out, "").await;
    penstock
        .submit("ann@example.org", &["bob@example.net"], "hello")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    let minutes = out.attempts_after_minutes();
    assert_eq!(minutes.len(), 2, "{minutes:?}");
    assert!((0..=2).contains(&minutes[1]), "{minutes:?}");
    assert_eq!(out.only().forward_paths(), ["bob@example.net"]);
}

#[tokio::test(start_paused = true)]
async fn every_part_of_a_greylisted_message_goes_out_at_the_second_attempt() {
    let out = FakeRelay::default()
        .answering_times("RCPT", 7, "450 4.7.1 greylisted")
        .start()
        .await;
    let limits = "limits = { recipients-per-message = 2 }";
    let penstock = Harness::relaying_to(&out, limits).await;
    let to: Vec<String> = (0..7).map(|it| format!("r{it}@example.net")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    penstock
        .submit("ann@example.org", &to, "hello")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    let asked = |from: &(Duration, usize, String)| from.2.starts_with("RCPT").then_some(from.0);
    let asked: Vec<u64> = out
        .commands()
        .iter()
        .filter_map(asked)
        .map(|it| it.as_secs())
        .collect();
    assert_eq!(asked.len(), 14, "twice each: {asked:?}");
    assert!(asked[6] - asked[0] < 10, "{asked:?}");
    assert!((50..=130).contains(&(asked[7] - asked[6])), "{asked:?}");
    assert!(asked[13] - asked[7] < 10, "{asked:?}");
    assert_eq!(out.accepted().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_reply_to_a_final_dot_and_for_nothing_else_so_long() {
    let minutes = |it: u64| Duration::from_secs(60 * it);
    let out = FakeRelay::default()
        .answering_once(".", Answer::from("250 2.0.0 taken").after(minutes(9)))
        .answering(
            "RCPT TO:<slow@",
            Answer::from("250 2.1.5 ok").after(minutes(4)),
        )
        .start()
        .await;
    let mut penstock = Harness::relaying_to(&out, "").await;
    for to in ["bob@example.net", "slow@example.net"] {
        penstock
            .submit("ann@example.org", &[to], "hello")
            .await
            .expect_code(250);
        out.commanded(&format!("RCPT TO:<{to}"), 1, LONG).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    penstock.stop().await;
    let got = out.accepted();
    assert_eq!(got.len(), 1, "{got:?}");
    assert_eq!(got[0].forward_paths(), ["bob@example.net"]);
    penstock.run().await;
    penstock.until_idle().await;
    // Not in doubt: what was taken is not sent again.
    assert_eq!(out.accepted().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_kept_for_the_next_message_counts_as_open() {
    let out = FakeRelay::default().start().await;
    let mut penstock = Harness::relaying_to(&out, "").await;
    let open = async |penstock: &Harness| {
        let told = penstock.ask(json!({"relay-list": {}})).await.remove(0);
        told["relay"]["connections"].clone()
    };
    assert_eq!(open(&penstock).await, 0);
    penstock
        .submit("ann@example.org", &["bob@example.net"], "hello")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    assert_eq!(open(&penstock).await, 1);
    out.hang_up();
    penstock.stop().await;
}

#[tokio::test(start_paused = true)]
async fn when_a_message_is_given_up_is_told_but_not_while_its_relay_is_paused() {
    let out = FakeRelay::default()
        .answering("RCPT", "450 4.2.1 mailbox busy")
        .start()
        .await;
    let mut penstock = Harness::relaying_to(&out, "").await;
    let answer = penstock
        .submit("ann@example.org", &["bob@example.net"], "hello")
        .await;
    let id = answer.expect_code(250).queue_id();
    penstock
        .until("it failed once", |queue| queue[0]["attempts"] == 1)
        .await;
    let expires = async |penstock: &Harness| -> Option<jiff::Timestamp> {
        let told = penstock.ask(json!({"show": {"id": id}})).await.remove(0);
        let expires = told["detail"]["expires"].as_str()?;
        Some(expires.parse().unwrap())
    };
    let before = expires(&penstock).await.unwrap();
    penstock.ask(json!({"relay-pause": {"relay": "out"}})).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(expires(&penstock).await, None);
    penstock
        .ask(json!({"relay-resume": {"relay": "out"}}))
        .await;
    let after = expires(&penstock).await.unwrap();
    let hour = Duration::from_secs(3600);
    let moved = Duration::try_from(after.duration_since(before)).unwrap();
    assert!(moved >= hour && moved < hour * 2, "{moved:?}");
    penstock.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_recipient_has_its_own_result_and_the_failed_one_is_reported() {
    let out = FakeRelay::default()
        .answering("RCPT TO:<gone@", "550 5.1.1 no such user")
        .answering_once("RCPT TO:<later@", "451 4.3.0 later")
        .start()
        .await;
    let penstock = Harness::relaying_to(&out, "").await;
    let to = ["fine@example.net", "gone@example.net", "later@example.net"];
    penstock
        .submit("ann@example.org", &to, "three")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    let all = out.accepted();
    let reached: Vec<Vec<&str>> = all.iter().map(|it| it.forward_paths()).collect();
    assert!(reached.contains(&vec!["fine@example.net"]), "{reached:?}");
    assert!(reached.contains(&vec!["later@example.net"]), "{reached:?}");
    let report = all
        .iter()
        .find(|it| it.reverse_path().is_empty())
        .expect("a report");
    assert_eq!(report.forward_paths(), ["ann@example.org"]);
    let text = report.text();
    assert!(
        text.contains("multipart/report") && text.contains("no such user"),
        "{text}"
    );
    assert!(
        text.contains("gone@example.net") && !text.contains("Final-Recipient: rfc822;fine@"),
        "{text}"
    );
    assert_eq!(all.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_relays_own_trouble_costs_delay_and_no_mail() {
    for (at, answer) in [
        ("connect", Answer::from("554 5.3.2 closed for today")),
        ("connect", Answer::Close),
        ("connect", Answer::Silence),
        ("connect", Answer::garbage()),
        ("EHLO", Answer::endless(250, 200_000)),
        ("STARTTLS", Answer::from("454 4.7.0 no TLS now")),
        (
            "STARTTLS",
            Answer::Raw(b"220 go\r\n250 injected\r\n".to_vec()),
        ),
        ("TLS", Answer::RawThenClose(b"not a handshake".to_vec())),
        ("AUTH", Answer::from("535 5.7.8 wrong password")),
        ("AUTH", Answer::from("535 5.7.139 account suspended")),
        ("MAIL", Answer::from("421 4.3.0 too busy")),
        ("MAIL", Answer::Silence),
        (
            "MAIL",
            Answer::from("550 5.4.5 daily user sending limit exceeded"),
        ),
        ("DATA", Answer::Close),
        ("content", Answer::Close),
        (".", Answer::from("451 4.3.0 try again")),
        (".", Answer::garbage()),
    ] {
        let what = format!("{at}: {answer:?}");
        let what = what.get(..80).unwrap_or(&what).to_owned();
        let mut out = FakeRelay::default().answering(at, answer);
        if ["DATA", "content"].contains(&at) {
            out = out.without("CHUNKING");
        }
        let out = out.start().await;
        let penstock = Harness::relaying_to(&out, "login = \"user secret\"").await;
        penstock
            .submit("ann@example.org", &["bob@example.net"], "hello")
            .await
            .expect_code(250);
        // Hours of trouble; at the end the message is there, with a reason, and no report.
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
        let queue = penstock.queue().await;
        assert_eq!(queue.len(), 1, "{what}: {queue:?}");
        // Before MAIL nothing was said about the message. Some troubles take minutes to
        // become one: then it is just being tried.
        let reasons: &[&str] = match at {
            "MAIL" | "DATA" | "content" | "." => &["relay-paused", "retry", "sending"],
            _ => &["relay-paused", "sending"],
        };
        let why = queue[0]["why"].as_str().unwrap();
        assert!(reasons.contains(&why), "{what}: {queue:?}");
        out.mend();
        penstock.until_idle().await;
        let got = out.accepted();
        assert_eq!(got.len(), 1, "{what}: {got:?}");
        assert_eq!(got[0].reverse_path(), "ann@example.org", "{what}");
        assert_eq!(got[0].login.as_deref(), Some("user"), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_poison_message_does_not_stop_the_mail_of_others_nor_its_own_senders() {
    let out = FakeRelay::default()
        .answering(
            "RCPT TO:<poison@",
            "451 4.7.1 Recipient rate limit exceeded",
        )
        .start()
        .await;
    let penstock = Harness::relaying_to(&out, "").await;
    for (from, to) in [
        ("ann@example.org", "poison@example.net"),
        ("ann@example.org", "one@example.net"),
        ("eve@example.org", "two@example.net"),
        ("ann@example.org", "three@example.net"),
    ] {
        let accepted = penstock.submit(from, &[to], "hello").await;
        accepted.expect_code(250);
    }
    penstock.until_idle_after_days().await;
    let accepted = out.accepted();
    let reached: Vec<_> = accepted.iter().map(|it| it.forward_paths()[0]).collect();
    for to in ["one@example.net", "two@example.net", "three@example.net"] {
        assert!(reached.contains(&to), "{reached:?}");
    }
    // In the end its sender is told, as about any message that is refused for days.
    let report = accepted
        .iter()
        .find(|it| it.reverse_path().is_empty() && it.text().contains("Action: failed"));
    let report = report.expect("a report");
    assert_eq!(report.forward_paths(), ["ann@example.org"]);
    assert!(report.text().contains("rate limit exceeded"));
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_goes_out_octet_for_octet() {
    let out = FakeRelay::default().start().await;
    let penstock = Harness::relaying_to(&out, "").await;
    let head = "From: ann@example.org\r\nDate: Sat, 21 Nov 2026 12:00:00 +0100\r\nMessage-ID: <a@b>\r\n\r\n";
    let mut contents = vec![
        format!("{head}.\r\n..\r\n...\r\n.x\r\n").into_bytes(),
        format!("{head}no line end at the end").into_bytes(),
        format!("{head}{}\r\n", "x".repeat(100_000)).into_bytes(),
        format!("{head}\r\n\r\n\r\n").into_bytes(),
        [head.as_bytes(), &[0xff, 0xfe, 0x00, 0x80, b'\r', b'\n']].concat(),
        head.as_bytes().to_vec(),
    ];
    contents.push([head.as_bytes(), &b".line\r\n".repeat(60_000)].concat());
    for (place, content) in contents.iter().enumerate() {
        let mut client = penstock.client().await;
        client
            .submit("ann@example.org", &["bob@example.net"], content)
            .await
            .expect_code(250);
        let got = out.received(place + 1, LONG).await.pop().unwrap();
        let mut expected = content.clone();
        if !expected.ends_with(b"\r\n") {
            expected.extend(b"\r\n");
        }
        assert!(got.without_trace() == expected, "message {place}");
        assert!(got.content.len() > expected.len(), "a Received field");
    }
    assert_eq!(out.offences(), Vec::<String>::new());
}

/// Changes every place in the files below a folder where the mark stands.
fn damage(folder: &std::path::Path, mark: &[u8]) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found += damage(&path, mark);
            continue;
        }
        let mut octets = std::fs::read(&path).unwrap_or_default();
        let places: Vec<_> = octets
            .windows(mark.len())
            .enumerate()
            .filter_map(|(place, it)| (it == mark).then_some(place))
            .collect();
        if let Some(last) = places.last() {
            octets[*last] ^= 1;
            std::fs::write(&path, &octets).unwrap();
            found += 1;
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_content_damaged_on_the_disk_is_held_with_that_reason_and_never_sent() {
    for lines in [10, 40_000] {
        let out = FakeRelay::default()
            .answering_once("MAIL", "451 4.3.0 later")
            .start()
            .await;
        let penstock = Harness::relaying_to(&out, "").await;
        let body = "some-words-to-damage\r\n".repeat(lines);
        let content = format!("From: ann@example.org\r\n\r\n{body}");
        let mut client = penstock.client().await;
        client
            .submit("ann@example.org", &["bob@example.net"], content.as_bytes())
            .await
            .expect_code(250);
        let said = |queue: &[serde_json::Value], words: &str| {
            queue.iter().any(|it| it.to_string().contains(words))
        };
        penstock.until("refused once", |it| said(it, "4.3.0")).await;
        assert_eq!(damage(&penstock.path("state"), b"some-words-to-damage"), 1);
        penstock
            .until("held", |it| said(it, "content is damaged"))
            .await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(said(&penstock.queue().await, "content is damaged"));
        assert!(out.attempts_after_minutes().len() <= 2);
        assert_eq!(out.accepted().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_date_and_message_id_are_added_and_nothing_else() {
    let out = FakeRelay::default().start().await;
    let penstock = Harness::relaying_to(&out, "").await;
    let content = b"From: ann@example.org\r\nSubject: bare\r\n\r\nhello\r\n";
    penstock
        .client()
        .await
        .submit("ann@example.org", &["bob@example.net"], content)
        .await
        .expect_code(250);
    let got = out.received(1, LONG).await.remove(0);
    let text = got.text();
    assert!(
        text.ends_with("From: ann@example.org\r\nSubject: bare\r\n\r\nhello\r\n"),
        "{text}"
    );
    for field in ["Received: ", "Date: ", "Message-ID: "] {
        assert_eq!(text.matches(field).count(), 1, "{field} {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_message_is_sent_with_another_users_login() {
    let server = FakeRelay::default()
        .login("one", "first")
        .login("two", "second")
        .start()
        .await;
    let config = relay("a", &server, "login = \"one first\"")
        + &relay("b", &server, "login = \"two second\"");
    let users = "[[user]]\naddress = \"one@x.nl\"\nrelay = \"a\"\n[[user]]\naddress = \"two@x.nl\"\nrelay = \"b\"\n";
    let penstock = Harness::start(&config, users).await;
    for round in 0..20 {
        let from = if round % 2 == 0 {
            "one@x.nl"
        } else {
            "two@x.nl"
        };
        penstock
            .submit(from, &["bob@example.net"], "mine")
            .await
            .expect_code(250);
    }
    let content = message("nobody@x.nl", "bob@example.net", "not mine", "x");
    penstock
        .client()
        .await
        .submit("one@x.nl", &["bob@example.net"], &content)
        .await
        .expect_code(550);
    penstock.until_idle().await;
    let got = server.accepted();
    assert_eq!(got.len(), 20);
    for it in got {
        let expected = if it.reverse_path() == "one@x.nl" {
            "one"
        } else {
            "two"
        };
        assert_eq!(it.login.as_deref(), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn the_report_of_mail_whose_relay_is_gone_leaves_by_another() {
    let old = FakeRelay::default()
        .answering("MAIL", "451 4.3.0 later")
        .start()
        .await;
    let new = FakeRelay::default().start().await;
    let with = |default: &str, relays: &[String]| {
        format!("default-relay = \"{default}\"\n{}", relays.concat())
    };
    let both = [relay("old", &old, ""), relay("new", &new, "")];
    let penstock = Harness::start(&with("old", &both), "").await;
    penstock
        .submit("ann@example.org", &["bob@example.net"], "hello")
        .await
        .expect_code(250);
    let words = |queue: &[serde_json::Value], words: &str| {
        queue.iter().any(|it| it.to_string().contains(words))
    };
    penstock
        .until("refused once", |it| words(it, "4.3.0"))
        .await;
    // It stays with its relay, whatever the directory says.
    let change = |action: serde_json::Value| serde_json::json!({"change": {"filter": {"from": "ann@example.org"}, "action": action}});
    let reroute = serde_json::json!({"reroute": {"to": "old"}});
    penstock.ask(change(reroute)).await;
    penstock.configure(&with("new", &both[1..]), "");
    penstock.ask(serde_json::json!({"reload": {}})).await;
    // What is on its way cannot be given up.
    penstock
        .until("its relay is gone", |it| words(it, "relay-missing"))
        .await;
    penstock.ask(change(serde_json::json!("fail"))).await;
    penstock.until_idle().await;
    let accepted = new.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0].forward_paths(), ["ann@example.org"]);
    assert!(accepted[0].text().contains("given up by an administrator"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_reported_whatever_clients_hold_and_however_full_the_disk_is() {
    let out = FakeRelay::default()
        .answering("connect", "421 4.3.2 not now")
        .start()
        .await;
    let mut penstock = Harness::relaying_to(&out, "").await;
    penstock
        .submit("ann@example.org", &["gone@example.net"], "hello")
        .await
        .expect_code(250);
    penstock.stop().await;
    out.mend();
    let refused = Answer::from("550 5.1.1 no such user");
    out.answer("RCPT TO:<gone@", None, refused);
    penstock.take_all_room();
    penstock.run().await;
    penstock.until_idle().await;
    assert_eq!(out.only().forward_paths(), ["ann@example.org"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_mail_leaves_after_a_restart() {
    let out = FakeRelay::default()
        .answering("connect", "421 4.3.2 not now")
        .start()
        .await;
    let mut penstock = Harness::relaying_to(&out, "").await;
    for place in 0..30 {
        penstock
            .submit(
                "ann@example.org",
                &["bob@example.net"],
                &format!("n{place}"),
            )
            .await
            .expect_code(250);
    }
    penstock.stop().await;
    out.mend();
    penstock.run().await;
    penstock.until_idle().await;
    assert_eq!(out.accepted().len(), 30);
}

#[tokio::test]
async fn mail_whose_upload_spans_a_reload_follows_the_new_directory() {
    let out = FakeRelay::default().start().await;
    let users = |relay: &str| format!("[[user]]\naddress = \"ann@x.nl\"\nrelay = \"{relay}\"\n");
    let penstock = Harness::start(&relay("old", &out, ""), &users("old")).await;
    let mut client = penstock.client().await;
    for command in ["MAIL FROM:<ann@x.nl>", "RCPT TO:<bob@example.net>"] {
        client.command(command).await.expect_code(250);
    }
    client.command("DATA").await.expect_code(354);
    penstock.configure(&relay("new", &out, ""), &users("new"));
    penstock.ask(json!({"reload": {}})).await;
    client.send(b"From: ann@x.nl\r\n\r\nx\r\n.\r\n").await;
    client.reply().await.expect_code(250);
    penstock.until_idle().await;
    assert_eq!(out.accepted().len(), 1);
}

#[tokio::test]
async fn a_relay_may_go_in_a_reload_while_its_mail_leaves() {
    let out = FakeRelay::default().start().await;
    let both = relay("stays", &out, "") + &relay("goes", &out, "");
    let users = "[[user]]\naddress = \"ann@x.nl\"\nrelay = \"goes\"\n";
    let config = |relays: &str| format!("default-relay = \"stays\"\n{relays}");
    let penstock = Harness::start(&config(&both), users).await;
    let feed = async {
        for number in 0..100 {
            let subject = format!("n{number}");
            penstock
                .submit("ann@x.nl", &["bob@example.net"], &subject)
                .await
                .expect_code(250);
        }
    };
    let reload = async {
        for _ in 0..10 {
            penstock.configure(&config(&relay("stays", &out, "")), "");
            penstock.ask(json!({"reload": {}})).await;
            penstock.configure(&config(&both), users);
            penstock.ask(json!({"reload": {}})).await;
        }
    };
    tokio::join!(feed, reload);
    penstock.until_idle().await;
    assert_eq!(out.accepted().len(), 100);
}
