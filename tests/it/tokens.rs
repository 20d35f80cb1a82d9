//! Access tokens: renewed in time, asked for once, and what happens when none is to be had.

use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::endpoint::{ENDLESS, Endpoint, SILENCE};
use crate::harness::{Harness, relay};
use crate::machine;
use crate::oauth::{LONG, MAILBOX, assert_no_secret, config, taking_tokens_of, words};
use crate::rude::Log;

#[tokio::test(start_paused = true)]
async fn one_token_serves_until_it_is_old_and_is_renewed_before_it_ends() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    penstock.login("out").await;
    let first = endpoint.asked().len();
    let mut asked = Vec::new();
    for minutes in [0, 30, 20, 30] {
        tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
        penstock
            .submit("jan@example.nl", &["bob@example.org"], "hello")
            .await
            .expect_code(250);
        penstock.until_idle().await;
        asked.push(endpoint.asked().len() - first);
    }
    // An hour's token is renewed after 48 minutes.
    assert_eq!(asked, [0, 0, 1, 1]);
    assert!(out.logins().iter().all(|it| it.accepted));
    assert_eq!(
        endpoint.asked().last().unwrap().field("scope"),
        "mail offline"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_renewed_yet_is_used_to_its_end() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    penstock.login("out").await;
    endpoint.manners(|it| it.trouble = Some((503, "busy".to_owned())));
    tokio::time::sleep(Duration::from_secs(50 * 60)).await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    let status = penstock.relay("out").await;
    assert_eq!(status["state"], "active");
    assert!(
        words(&status["oauth"]["trouble"]).contains("status 503"),
        "{status}"
    );
    // It is over, and nobody reads of it any more although there is no mail.
    endpoint.manners(|it| it.trouble = None);
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    let status = penstock.relay("out").await;
    assert_eq!(status["oauth"]["trouble"], Value::Null, "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_is_good_once_survives_every_restart() {
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| it.rotates = true);
    let out = taking_tokens_of(&endpoint).await;
    let mut penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    penstock.login("out").await;
    for round in 1..=3 {
        penstock.stop().await;
        penstock.run().await;
        penstock
            .submit("jan@example.nl", &["bob@example.org"], "hello")
            .await
            .expect_code(250);
        penstock.until_idle().await;
        let used = endpoint.asked_for("refresh_token");
        assert_eq!(used.len(), round);
        assert_eq!(out.accepted().len(), round);
    }
    use std::os::unix::fs::PermissionsExt;
    let file = penstock.path("state/tokens/out.token");
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(start_paused = true)]
async fn a_dead_login_pauses_the_relay_with_the_providers_words_and_a_new_one_heals_it() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let mut penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    penstock.login("out").await;
    endpoint.revoke_all();
    penstock.stop().await;
    penstock.run().await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    let paused = penstock.until_paused("out").await;
    let reason = words(&paused["reason"]);
    assert!(
        reason.contains("invalid_grant: AADSTS700082: The refresh token *** has expired."),
        "{reason}"
    );
    assert!(words(&paused["remedy"]).contains("penstock relay login out"));
    let told = penstock.all_that_is_told().await;
    assert!(told.contains("AADSTS700082") && told.contains("no access token"));
    assert_no_secret(&endpoint, &told);
    // For days it waits, and neither bounces nor expires.
    tokio::time::sleep(Duration::from_secs(5 * 86_400)).await;
    assert_eq!(
        penstock.queue().await.len(),
        2,
        "the mail and the warning of its delay"
    );

    penstock.login("out").await;
    penstock.until_idle().await;
    assert!(out.accepted().iter().any(|it| it.text().contains("hello")));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_out_of_reach_or_order_costs_delay_and_nobodys_work() {
    let endpoint = Endpoint::start_at(machine::free_address(), None).await;
    let out = taking_tokens_of(&endpoint).await;
    let config = config(&out, &endpoint, "");
    let at = endpoint.addr;
    let token = endpoint.refresh_token("mailer@example.nl");
    let mut penstock = Harness::start(&config, "").await;
    penstock.bring("out", &token).await.unwrap();
    penstock.stop().await;
    for (status, body) in [
        (503, "<html>busy</html>"),
        (500, r#"{"error":"server_error"}"#),
        (429, r#"{"error":"invalid_grant"}"#),
        (302, ""),
        (200, "hello"),
    ] {
        endpoint.manners(|it| it.trouble = Some((status, body.to_owned())));
        penstock.run().await;
        penstock
            .submit("jan@example.nl", &["bob@example.org"], "hello")
            .await
            .expect_code(250);
        let paused = penstock.until_paused("out").await;
        let reason = words(&paused["reason"]);
        assert!(
            reason.contains(&format!("status {status}")) || status == 200,
            "{reason}"
        );
        assert!(
            paused["next_probe"].is_string(),
            "it is tried again by itself"
        );
        endpoint.manners(|it| it.trouble = None);
        penstock.until_idle().await;
        penstock.stop().await;
    }
    drop(endpoint);
    penstock.run().await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    let paused = penstock.until_paused("out").await;
    assert!(
        words(&paused["reason"]).contains("connection refused"),
        "{paused}"
    );
    let again = Endpoint::start_at(at, None).await;
    // The new one knows nothing of the login: a definite no, in its words.
    machine::until("a definite no", Duration::from_secs(60), async || {
        words(&penstock.relay("out").await["reason"]).contains("invalid_grant")
    })
    .await;
    assert_eq!(out.accepted().len(), 5);
    drop(again);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once_and_the_servers_reason_is_told() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    penstock.login("out").await;
    // Revoked before its time: the next one is good.
    endpoint.distrust_all();
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    let logins = out.logins();
    let tried: Vec<bool> = logins.iter().map(|it| it.accepted).collect();
    assert_eq!(tried, [true, false, true]);
    assert_ne!(logins[1].password, logins[2].password);

    // Not this mailbox's: two tries, and no third.
    endpoint.manners(|it| it.person = "somebody@example.nl".into());
    let request = json!({"relay-login": {"relay": "out"}});
    let refused = penstock.try_ask(&request).await.unwrap_err();
    let text = words(&refused["message"]);
    assert!(
        text.contains("535 5.7.3 Authentication unsuccessful"),
        "{text}"
    );
    assert!(
        text.contains("(Penstock: the server refuses the access token: status 401, schemes Bearer, scope mail)"),
        "{text}"
    );
    assert!(text.contains("username"), "{text}");
    assert!(text.contains("The login there was before stays"), "{text}");
    assert_no_secret(&endpoint, &text);
    // And it is as good as before.
    tokio::time::sleep(LONG).await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "again")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    let tried: Vec<bool> = out.logins().iter().map(|it| it.accepted).collect();
    assert_eq!(tried, [true, false, true, false, true]);
    let told = penstock.all_that_is_told().await;
    assert!(told.contains("334 ***") || !told.contains("334 "), "{told}");
}

#[tokio::test(start_paused = true)]
async fn of_a_first_login_that_the_relay_refuses_nothing_is_kept() {
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| it.person = "somebody@example.nl".into());
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    let token = endpoint.refresh_token("somebody@example.nl");
    let request = json!({"relay-login": {"relay": "out"}});
    for refused in [
        penstock.try_ask(&request).await.unwrap_err(),
        penstock.bring("out", &token).await.unwrap_err(),
    ] {
        let text = words(&refused["message"]);
        assert!(text.contains("Nothing was kept"), "{text}");
        assert!(!penstock.path("state/tokens/out.token").exists());
    }
    // A relay that is out of reach says nothing about the login.
    drop(out);
    penstock.login("out").await;
    assert!(penstock.path("state/tokens/out.token").exists());
}

#[tokio::test(start_paused = true)]
async fn a_token_asked_for_before_a_reload_is_not_shown_to_the_server_after_it() {
    let endpoint = Endpoint::start().await;
    let (old, new) = (
        taking_tokens_of(&endpoint).await,
        taking_tokens_of(&endpoint).await,
    );
    let config = |out| {
        let grant = "grant = \"client-credentials\"\nclient-secret = \"app-s3cr3t\"";
        let table = endpoint.table("out", grant);
        format!(
            "default-relay = \"out\"\n{}{table}",
            relay("out", out, MAILBOX)
        )
    };
    let penstock = Harness::start(&config(&old), "").await;
    endpoint.manners(|it| it.held = true);
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    endpoint.until_asked(1).await;
    penstock.configure(&config(&new), "");
    penstock.ask(json!({"reload": {}})).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        penstock.relay("out").await;
    }
    endpoint.manners(|it| it.held = false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "again")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    assert!(!new.logins().is_empty());
    for login in new.logins() {
        let token = login.password;
        assert!(!token.starts_with("access-1-"), "the old server's: {token}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_for_what_the_relay_was_is_not_kept() {
    for change in ["another mailbox", "no relay"] {
        let endpoint = Endpoint::start().await;
        let out = taking_tokens_of(&endpoint).await;
        let own = config(&out, &endpoint, "");
        let penstock = Harness::start(&own, "").await;
        endpoint.manners(|it| it.held = true);
        let request = json!({"relay-login": {"relay": "out"}});
        let changing = async {
            endpoint.until_asked(1).await;
            endpoint.manners(|it| it.held = false);
            endpoint.until_asked(2).await;
            endpoint.manners(|it| it.held = true);
            endpoint.until_asked(3).await;
            let other = match change {
                "no relay" => String::new(),
                _ => own.replace("mailer@example.nl", "other@example.nl"),
            };
            penstock.configure(&other, "");
            penstock.ask(json!({"reload": {}})).await;
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                penstock.status().await;
            }
            endpoint.manners(|it| it.held = false);
        };
        endpoint.manners(|it| it.answers = ["authorization_pending"].into());
        let (refused, ()) = tokio::join!(penstock.try_ask(&request), changing);
        let text = words(&refused.unwrap_err()["message"]);
        assert!(text.contains("the relay was changed meanwhile"), "{text}");
        assert!(!penstock.path("state/tokens/out.token").exists());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_outlives_the_login_that_brought_it() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    penstock.login("out").await;
    endpoint.revoke_all();
    tokio::time::sleep(Duration::from_secs(50 * 60)).await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    let status = penstock.relay("out").await;
    assert_eq!(status["state"], "active");
    assert!(
        words(&status["oauth"]["trouble"]).contains("AADSTS700082"),
        "{status}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_log_has_a_token_in_it_whatever_goes_wrong() {
    let log = Log::default();
    let _listening = log.listen_to(tracing::Level::DEBUG);
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| it.client_secret = Some("app-s3cr3t".into()));
    let out = taking_tokens_of(&endpoint).await;
    let secret = "client-secret = \"app-s3cr3t\"";
    let penstock = Harness::start(&config(&out, &endpoint, secret), "").await;
    penstock.login("out").await;
    endpoint.distrust_all();
    for trouble in [
        None,
        Some((200, "access_token=s3cr3t".to_owned())),
        Some((500, "<p>token s3cr3t</p>".to_owned())),
    ] {
        endpoint.manners(|it| it.trouble = trouble);
        tokio::time::sleep(LONG).await;
        penstock
            .submit("jan@example.nl", &["bob@example.org"], "hello")
            .await
            .expect_code(250);
        tokio::time::sleep(LONG).await;
    }
    endpoint.manners(|it| it.trouble = None);
    endpoint.revoke_all();
    tokio::time::sleep(LONG).await;
    let text = log.text();
    for expected in [
        "logged in",
        "a new access token",
        "relay paused",
        "AADSTS700082",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_no_secret(&endpoint, &text);
}

#[tokio::test(start_paused = true)]
async fn two_mailboxes_on_one_host_are_never_mixed() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let mut config = String::new();
    for name in ["ann", "bob"] {
        let mailbox = format!("username = \"{name}@example.nl\"");
        config += &relay(name, &out, &mailbox);
        config += &endpoint.table(name, "");
    }
    let users = "[[user]]\naddress = \"ann@example.nl\"\nrelay = \"ann\"\n\
                 [[user]]\naddress = \"bob@example.nl\"\nrelay = \"bob\"\n";
    let mut penstock = Harness::start(&config, users).await;
    for name in ["ann", "bob"] {
        let token = endpoint.refresh_token(&format!("{name}@example.nl"));
        penstock.bring(name, &token).await.unwrap();
    }
    penstock.stop().await;
    penstock.run().await;
    for round in 0..10 {
        let from = if round % 3 == 0 {
            "ann@example.nl"
        } else {
            "bob@example.nl"
        };
        penstock
            .submit(from, &["x@example.org"], &format!("{round}"))
            .await
            .expect_code(250);
    }
    penstock.until_idle().await;
    let sent = out.accepted();
    assert_eq!(sent.len(), 10);
    for it in sent {
        assert_eq!(it.login.as_deref(), Some(it.reverse_path()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_application_logs_in_by_itself_until_its_secret_expires() {
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| it.client_secret = Some("app-s3cr3t".into()));
    let out = taking_tokens_of(&endpoint).await;
    let table = endpoint.table(
        "out",
        "grant = \"client-credentials\"\nclient-secret = \"app-s3cr3t\"",
    );
    let config = format!(
        "default-relay = \"out\"\n{}{table}",
        relay("out", &out, MAILBOX)
    );
    let penstock = Harness::start(&config, "").await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    assert_eq!(
        out.accepted()[0].login.as_deref(),
        Some("mailer@example.nl")
    );
    let asked = endpoint.asked();
    assert_eq!(asked[0].field("grant_type"), "client_credentials");
    assert_eq!(asked[0].field("refresh_token"), "");
    let refused = penstock
        .try_ask(&json!({"relay-login": {"relay": "out"}}))
        .await
        .unwrap_err();
    assert!(
        words(&refused["message"]).contains("penstock relay test out"),
        "{refused}"
    );

    endpoint.manners(|it| it.client_secret = Some("another".into()));
    tokio::time::sleep(LONG).await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "again")
        .await
        .expect_code(250);
    let paused = penstock.until_paused("out").await;
    assert!(
        words(&paused["remedy"]).contains("client secret has expired"),
        "{paused}"
    );
    assert_no_secret(&endpoint, &penstock.all_that_is_told().await);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_asked_for_under_tls_of_whom_the_certificate_proves() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let local = || std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    for (signer, good) in [(&authority, true), (&stranger, false)] {
        let pair = signer.sign(&["127.0.0.1"]);
        let endpoint = Endpoint::start_at(local(), Some(pair)).await;
        let out = taking_tokens_of(&endpoint).await;
        let token = endpoint.refresh_token("mailer@example.nl");
        let folder = tempfile::tempdir().unwrap();
        let roots = folder.path().join("roots.pem");
        authority.write(&roots);
        let config = config(
            &out,
            &endpoint,
            &format!("ca-file = \"{}\"", roots.display()),
        );
        let config = config.replace("http://", "https://");
        let penstock = Harness::start(&config, "").await;
        let brought = penstock.bring("out", &token).await;
        assert_eq!(brought.is_ok(), good, "{brought:?}");
        if let Err(refused) = brought {
            assert_eq!(refused["kind"], "try-again");
            assert!(words(&refused["message"]).contains("no TLS"), "{refused}");
            assert!(endpoint.asked().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn however_many_connections_want_a_token_it_is_asked_for_once() {
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| it.rotates = true);
    let out = taking_tokens_of(&endpoint).await;
    let config = config(&out, &endpoint, "");
    let config = config.replace(
        MAILBOX,
        &format!("{MAILBOX}\nlimits = {{ connections = 8 }}"),
    );
    let mut penstock = Harness::start(&config, "").await;
    penstock.login("out").await;
    penstock.ask(json!({"relay-pause": {"relay": "out"}})).await;
    for number in 0..24 {
        penstock
            .submit("jan@example.nl", &["bob@example.org"], &format!("{number}"))
            .await
            .expect_code(250);
    }
    penstock.stop().await;
    penstock.run().await;
    penstock
        .ask(json!({"relay-resume": {"relay": "out"}}))
        .await;
    penstock.until_idle().await;
    assert_eq!(out.accepted().len(), 24);
    assert!(
        out.most_connections() > 1,
        "several connections were logged in"
    );
    assert_eq!(endpoint.asked_for("refresh_token").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_cannot_be_written_down_is_not_lost_with_the_token_that_it_replaced() {
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| it.rotates = true);
    let out = taking_tokens_of(&endpoint).await;
    let mut penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    penstock.login("out").await;
    // Nothing can be made where a directory is.
    let obstacle = penstock.path("state/tokens/out.new");
    std::fs::create_dir(&obstacle).unwrap();
    tokio::time::sleep(LONG).await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    // The token is good, and the mail need not wait for the disk.
    penstock.until_idle().await;
    assert_eq!(out.accepted().len(), 1);
    let status = penstock.relay("out").await;
    assert!(
        words(&status["oauth"]["trouble"]).contains("cannot keep the login"),
        "{status}"
    );
    std::fs::remove_dir(&obstacle).unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let status = penstock.relay("out").await;
    assert_eq!(status["oauth"]["trouble"], Value::Null, "{status}");
    assert_eq!(endpoint.asked_for("refresh_token").len(), 1);
    // Nor is it lost when the disk is mended just before the end.
    std::fs::create_dir(&obstacle).unwrap();
    tokio::time::sleep(LONG).await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "again")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    std::fs::remove_dir(&obstacle).unwrap();
    penstock.stop().await;
    penstock.run().await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "and again")
        .await
        .expect_code(250);
    penstock.until_idle().await;
    assert_eq!(out.accepted().len(), 3);
    assert_eq!(endpoint.asked_for("refresh_token").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_while_the_daemon_stops_is_written_down() {
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| it.rotates = true);
    let out = taking_tokens_of(&endpoint).await;
    let mut penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    penstock.login("out").await;
    tokio::time::sleep(LONG).await;
    let before = endpoint.asked().len();
    endpoint.manners(|it| it.held = true);
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    endpoint.until_asked(before + 1).await;
    tokio::join!(penstock.stop(), async {
        tokio::time::sleep(Duration::from_secs(50)).await;
        endpoint.manners(|it| it.held = false);
    });
    penstock.run().await;
    penstock.until_idle().await;
    assert_eq!(out.accepted().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_rests_is_used_now_and_then_and_its_end_is_announced() {
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| it.refresh_life = Some(16 * 86_400));
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    penstock.login("out").await;
    assert_eq!(penstock.relay("out").await["oauth"]["trouble"], Value::Null);
    tokio::time::sleep(Duration::from_secs(8 * 86_400)).await;
    assert_eq!(endpoint.asked_for("refresh_token").len(), 1);
    let status = penstock.relay("out").await;
    assert!(
        words(&status["oauth"]["trouble"]).contains("the login ends on 2026-12-07"),
        "{status}"
    );
    assert_eq!(status["state"], "active");
    let problems = penstock.status().await["problems"].to_string();
    assert!(
        problems.contains("relay out: the login ends on"),
        "{problems}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_says_nothing_or_never_stops_is_given_up_within_a_minute() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    for (trouble, expected) in [(SILENCE, "no answer in time"), (ENDLESS, "limit")] {
        endpoint.manners(|it| it.trouble = Some((trouble, String::new())));
        let asked = tokio::time::Instant::now();
        let given_up = penstock.bring("out", "a-token").await.unwrap_err();
        assert_eq!(given_up["kind"], "try-again", "{given_up}");
        assert!(words(&given_up["message"]).contains(expected), "{given_up}");
        assert!(asked.elapsed() <= Duration::from_secs(61), "{given_up}");
    }
}
