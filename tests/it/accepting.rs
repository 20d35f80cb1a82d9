//! A client finds plain SMTP: what it sends is stored as it is, or refused in plain words.

use penstock::accept::Verdict;
use penstock::mail::{Body, Hold, HoldReason, Notify, QueueId, Ret, ReversePath, Rule, State};

use crate::client::{Client, message, stuff};
use crate::intake::{Intake, Wanted, plain, with};

#[tokio::test]
async fn what_comes_in_is_stored_byte_for_byte_behind_its_trace_fields() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let body = format!(
        "From: Erp <erp@example.nl>\r\nSubject: Factuur\r\n\r\n.stuffed\r\n..\r\n{}\r\n\r\n",
        "long".repeat(5000)
    );
    let answer = client
        .submit(
            "bounces@example.nl",
            &["a@example.net", "b@example.net"],
            body.as_bytes(),
        )
        .await;
    let id: QueueId = answer.queue_id().parse().unwrap();
    let envelope = intake.envelopes().remove(0);
    assert_eq!(envelope.id, id);
    assert_eq!(envelope.from.to_string(), "erp@example.nl");
    assert_eq!(envelope.rule, Rule::Domain("@example.nl".into()));
    assert_eq!(envelope.relay, "own");
    assert_eq!(envelope.mailing.label, "Factuur");
    assert_eq!(envelope.recipients.len(), 2);
    assert_eq!(envelope.client, "127.0.0.1");
    assert_eq!(envelope.body, Body::SevenBit);
    assert_eq!(envelope.state, State::Waiting { not_before: None });
    let content = intake.content(id).await;
    let own = content.find("From: Erp").unwrap();
    assert_eq!(&content[own..], body);
    let trace = &content[..own];
    assert!(
        trace.starts_with(
            "Received: from app.test ([127.0.0.1])\r\n\tby app01.example.nl with ESMTP id "
        ),
        "{trace}"
    );
    assert!(trace.contains(&format!("Message-ID: <{id}@app01.example.nl>\r\n")));
    assert!(trace.contains("\r\nDate: Sat, 21 Nov 2026 12:00:"));
    assert_eq!(envelope.message_id, format!("{id}@app01.example.nl"));
    assert_eq!(envelope.size_bytes, content.len() as u64);
    assert_eq!(envelope.wire_bytes, stuff(content.as_bytes()).len() as u64);
}

#[tokio::test]
async fn a_large_message_with_eight_bits_streams_through() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let mut content = message("erp@example.nl", "a@example.net", "x", "");
    content.extend("é regel\r\n".repeat(200_000).into_bytes());
    client
        .submit("", &["a@example.net"], &content)
        .await
        .expect_code(250);
    let envelope = intake.envelopes().remove(0);
    assert_eq!(envelope.body, Body::EightBitMime);
    assert_eq!(envelope.reverse_path, ReversePath::Null);
    assert!(intake.only_content().await.as_bytes().ends_with(&content));
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order_and_a_dialogue_goes_on_after_refusals() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let refused = "From: x@example.com\r\n\r\nx\r\n.\r\n";
    let taken = "From: x@example.nl\r\n\r\nx\r\n.\r\n";
    client
        .send(
            format!(
                "MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n{refused}\
                 MAIL FROM:<a@b.c> SIZE=99\r\nRCPT TO:<broken\r\nRCPT TO:<d@e.f>\r\nDATA\r\n{taken}QUIT\r\n"
            )
            .as_bytes(),
        )
        .await;
    for code in [250, 250, 354, 550, 250, 501, 250, 354, 250, 221] {
        let answer = client.reply().await.expect_code(code);
        if code == 550 {
            assert_eq!(
                answer.text(),
                "5.7.1 no relay for <x@example.com>; add it to users.toml"
            );
        }
    }
    assert_eq!(client.end().await, "");
    assert_eq!(intake.envelopes().len(), 1);
}

#[tokio::test]
async fn a_message_ends_at_one_place_only() {
    let start = "MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nFrom: x@example.nl\r\n\r\nx";
    let smuggled =
        "MAIL FROM:<evil@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nFrom: x@example.nl\r\n\r\ny\r\n.\r\n";
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r.\r",
        "\r\n.\n",
        "\r\n.\r",
        "\r\r\n.\r\r\n",
        "\r\n\0.\r\n",
        "\n\n.\r\n",
    ] {
        for (listener, code) in [("", 550), ("bare-lf = \"repair\"", 250)] {
            let intake = Intake::start(with(listener)).await;
            let mut client = intake.client().await;
            client
                .send(format!("{start}{end}{smuggled}QUIT\r\n").as_bytes())
                .await;
            // A NUL in the body is no bare line ending: it is content like any other.
            let code = if end.contains('\0') { 250 } else { code };
            for code in [250, 250, 354, code, 221] {
                let answer = client.reply().await;
                assert_eq!(answer.code, code, "{end:?} {answer:?}");
            }
            let envelopes = intake.envelopes();
            assert_eq!(envelopes.len(), usize::from(code == 250), "{end:?}");
            if code == 250 {
                let content = intake.only_content().await;
                assert!(content.contains("MAIL FROM:<evil@b.c>"), "{content}");
            }
        }
    }
}

#[tokio::test]
async fn chunks_are_put_together_and_checked_like_data() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    let text = "From: x@example.nl\r\n\r\n.dot\r\n.\r\nmore\r\n";
    let (first, rest) = text.split_at(10);
    client
        .send(
            format!(
                "MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nBDAT {}\r\n{first}BDAT {} LAST\r\n{rest}\
                 MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nBDAT 4\r\nab\ncBDAT 1 LAST\r\nxRSET\r\nBDAT 5 LAST\r\nabcdeNOOP\r\n",
                first.len(),
                rest.len()
            )
            .as_bytes(),
        )
        .await;
    for code in [250, 250, 250, 250, 250, 250, 550, 503, 250, 503, 250] {
        let answer = client.reply().await;
        assert_eq!(answer.code, code, "{answer:?}");
    }
    let content = intake.only_content().await;
    assert!(content.ends_with(text), "{content}");
    let envelope = intake.envelopes().remove(0);
    assert_eq!(envelope.wire_bytes, stuff(content.as_bytes()).len() as u64);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_swallowed_and_refused() {
    let intake = Intake::start(Wanted {
        top: "[message]\nmax-size = \"100kB\"",
        ..plain()
    })
    .await;
    let mut client = intake.client().await;
    client
        .command("MAIL FROM:<a@b.c> SIZE=100001")
        .await
        .expect_code(552);
    let mut content = message("x@example.nl", "a@b.c", "x", "x");
    content.extend(b"0123456789\r\n".repeat(20_000));
    let answer = client.submit("a@b.c", &["a@example.net"], &content).await;
    assert!(answer.expect_code(552).text().starts_with("5.3.4"));
    client.command("NOOP").await.expect_code(250);
}

#[tokio::test]
async fn a_content_check_holds_or_refuses_before_the_250() {
    let hold = Hold {
        reason: HoldReason::Hint,
        by: "penstock".into(),
        since: "2026-11-21T12:00:00Z".parse().unwrap(),
        note: "no subject".into(),
    };
    let mail = message("x@example.nl", "a@b.c", "x", "x");
    let intake = Intake::start(Wanted {
        verdict: Some(Verdict::Hold(hold.clone())),
        top: "hints = { no-subject = { action = \"hold\" } }",
        ..plain()
    })
    .await;
    intake
        .client()
        .await
        .submit("a@b.c", &["a@b.c"], &mail)
        .await
        .expect_code(250);
    assert_eq!(intake.envelopes()[0].state, State::Held(hold));
    let intake = Intake::start(Wanted {
        verdict: Some(Verdict::Reject("no\nsubject".into())),
        top: "hints = { no-subject = { action = \"hold\" } }",
        ..plain()
    })
    .await;
    let answer = intake
        .client()
        .await
        .submit("a@b.c", &["a@b.c"], &mail)
        .await;
    assert_eq!(answer.expect_code(550).text(), "5.7.1 no\\u{a}subject");
}

#[tokio::test]
async fn what_the_client_wants_to_be_told_is_kept() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    for command in [
        "MAIL FROM:<jürgen@example.nl> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=QQ+2B1",
        "RCPT TO:<δοκιμή@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@example.net",
        "RCPT TO:<b@example.net> NOTIFY=NEVER",
    ] {
        client.command(command).await.expect_code(250);
    }
    client.command("DATA").await.expect_code(354);
    client.send("Subject: ü\r\n\r\nx\r\n.\r\n".as_bytes()).await;
    client.reply().await.expect_code(250);
    let envelope = intake.envelopes().remove(0);
    assert_eq!(envelope.from.to_string(), "jürgen@example.nl");
    assert!(envelope.smtputf8);
    assert_eq!(envelope.body, Body::EightBitMime);
    assert_eq!(envelope.ret, Some(Ret::Headers));
    assert_eq!(envelope.envid.as_deref(), Some("QQ+1"));
    let first = &envelope.recipients[0];
    assert_eq!(
        first.notify,
        Notify::On {
            success: true,
            failure: false,
            delay: true
        }
    );
    assert_eq!(first.orcpt.as_deref(), Some("rfc822;x+y@example.net"));
    assert_eq!(envelope.recipients[1].notify, Notify::Never);
    assert!(intake.only_content().await.contains(" with UTF8SMTP id "));
}

#[tokio::test]
async fn a_sloppy_old_client_is_understood() {
    let intake = Intake::start(plain()).await;
    let mut client = Client::dial(intake.address).await.unwrap();
    client.reply().await.expect_code(220);
    for (command, code) in [
        ("helo", 250),
        ("mail from: erp@example.nl", 250),
        ("rcpt to: a@example.net  ", 250),
        ("RCPT TO:postmaster", 250),
        ("data", 354),
    ] {
        client.command(command).await.expect_code(code);
    }
    client.send(b"just text\r\n.\r\n").await;
    client.reply().await.expect_code(250);
    let content = intake.only_content().await;
    assert!(content.contains(" with SMTP id ") && content.ends_with(">\r\n\r\njust text\r\n"));
}

#[tokio::test]
async fn lines_of_a_text_that_look_like_fields_stay_text() {
    let intake = Intake::start(plain()).await;
    let text = "Job report\r\nDate: 2026-11-22\r\nMessage-ID: 5\r\nFrom: jan@example.nl\r\n";
    let mut client = intake.client().await;
    client
        .submit("erp@example.nl", &["a@example.net"], text.as_bytes())
        .await
        .expect_code(250);
    let content = intake.only_content().await;
    let (header, body) = content.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, text);
    for field in ["\r\nDate: ", "\r\nMessage-ID: <"] {
        assert_eq!(header.matches(field).count(), 1, "{header}");
    }
    assert!(!header.contains("From:"), "{header}");
}

#[tokio::test]
async fn a_full_spool_says_so_at_mail() {
    let intake = Intake::start(Wanted {
        min_free: Some(u64::MAX),
        ..plain()
    })
    .await;
    let mut client = intake.client().await;
    let answer = client.command("MAIL FROM:<a@b.c>").await;
    assert!(answer.expect_code(452).text().starts_with("4.3.1 "));
}
