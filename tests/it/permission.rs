//! Promise 4: nobody outside the allowed networks and logins can send anything, nor as
//! somebody else.

use penstock::accept::{Bound, ServeError, serve};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::client::{Client, message};
use crate::intake::{Intake, plain, with};

#[tokio::test]
async fn logins_work_under_starttls_and_nothing_survives_it() {
    let intake = Intake::start(with("tls = \"starttls\"\nauth = \"required\"")).await;
    let mut client = intake.client().await;
    client
        .command("MAIL FROM:<jan@example.nl>")
        .await
        .expect_code(530);
    client.start_tls(intake.authority.client()).await;
    client
        .command("MAIL FROM:<jan@example.nl>")
        .await
        .expect_code(530);
    client
        .auth_plain("jan@example.nl", "raden")
        .await
        .expect_code(535);
    client
        .auth_login("JAN@example.nl", "geheim")
        .await
        .expect_code(235);
    let own = message("J.Jansen@example.nl", "a@example.net", "x", "x");
    client
        .submit("jan@example.nl", &["a@example.net"], &own)
        .await
        .expect_code(250);
    let others = message("erp@example.nl", "a@example.net", "x", "x");
    let refused = client
        .submit("jan@example.nl", &["a@example.net"], &others)
        .await;
    assert!(
        refused
            .expect_code(550)
            .text()
            .contains("is not an address of the login")
    );
    let refused = client
        .submit("erp@example.nl", &["a@example.net"], &own)
        .await;
    assert!(refused.expect_code(550).text().contains("reverse-path"));
    let envelope = intake.envelopes().remove(0);
    assert_eq!(envelope.login.as_deref(), Some("jan@example.nl"));
    let content = intake.only_content().await;
    assert!(
        content.contains(" with ESMTPSA\r\n\t(TLSv1.3 "),
        "{content}"
    );
}

#[tokio::test]
async fn a_login_that_wants_to_act_for_another_is_told_so_once_its_password_is_right() {
    let intake = Intake::start(with("auth = \"optional\"")).await;
    for (identity, password, code, words) in [
        ("erp@example.nl", "geheim", 535, "may not act for another"),
        ("erp@example.nl", "raden", 535, "name or password is wrong"),
        ("J.Jansen@example.nl", "geheim", 235, "logged in"),
    ] {
        let mut client = intake.client().await;
        let answer = client
            .auth_plain_as(identity, "jan@example.nl", password)
            .await;
        assert!(answer.expect_code(code).text().contains(words));
    }
}

#[tokio::test]
async fn a_protected_address_is_protected_however_its_accents_were_typed() {
    let intake = Intake::start(plain()).await;
    let users = intake
        .users
        .replace("\"jan@example.nl\"", "\"j\u{fc}rgen@example.nl\"");
    let live = crate::intake::live("", "default-relay = \"own\"", &users, None);
    intake.live.send_replace(live);
    for from in ["j\u{fc}rgen", "ju\u{308}rgen", "JU\u{308}RGEN+x"] {
        let mut client = intake.client().await;
        let message = format!("From: {from}@example.nl\r\n\r\nx\r\n");
        let answer = client
            .submit("erp@example.nl", &["a@example.net"], message.as_bytes())
            .await;
        assert!(answer.expect_code(550).text().contains("needs a login"));
    }
}

#[tokio::test]
async fn implicit_tls_works_and_plain_clients_get_nowhere() {
    let intake = Intake::start(with("tls = \"implicit\"\nauth = \"optional\"")).await;
    let mut client = Client::connect_tls(intake.address, intake.authority.client()).await;
    let mail = message("erp@example.nl", "a@example.net", "x", "x");
    client
        .submit("a@b.c", &["a@example.net"], &mail)
        .await
        .expect_code(250);
    assert!(intake.only_content().await.contains(" with ESMTPS\r\n"));
    let mut plain = Client::dial(intake.address).await.unwrap();
    plain.send(b"EHLO x\r\nMAIL FROM:<a@b.c>\r\n").await;
    assert!(!plain.end().await.contains("250"));
}

#[tokio::test]
async fn commands_behind_starttls_are_an_injection() {
    let intake = Intake::start(with("tls = \"starttls\"")).await;
    let mut client = intake.client().await;
    client.send(b"STARTTLS\r\nMAIL FROM:<evil@b.c>\r\n").await;
    client.reply().await.expect_code(554);
    assert_eq!(client.end().await, "");
}

#[tokio::test]
async fn a_user_with_a_password_is_protected_from_everybody_else() {
    let mail = message("jan@example.nl", "a@example.net", "x", "x");
    for (listener, code) in [
        ("auth = \"optional\"", 550),
        ("senders = [\"jan@example.nl\"]", 250),
        ("senders = [\"erp@example.nl\"]", 550),
    ] {
        let intake = Intake::start(with(listener)).await;
        let mut client = intake.client().await;
        client
            .submit("a@b.c", &["a@example.net"], &mail)
            .await
            .expect_code(code);
    }
}

#[tokio::test]
async fn a_header_that_two_programs_read_differently_is_refused() {
    let intake = Intake::start(plain()).await;
    let mut client = intake.client().await;
    for header in [
        "From: <a@example.nl> <b@example.nl>\r\n",
        "From: a@example.nl\r\nFrom: b@example.nl\r\n",
        "From: a@example.nl\r\njunk\r\nFrom: b@example.nl\r\n",
        "Subject: a\0\r\nFrom: a@example.nl\r\n",
    ] {
        let content = format!("{header}\r\nx\r\n");
        let answer = client
            .submit("a@b.c", &["a@example.net"], content.as_bytes())
            .await;
        assert!(
            answer.expect_code(550).text().starts_with("5.6.0 "),
            "{header}"
        );
    }
    let mut endless = b"From: a@example.nl\r\nX-Filler: ".to_vec();
    endless.extend(b"filler ".repeat(80_000));
    let answer = client.submit("a@b.c", &["a@example.net"], &endless).await;
    answer.expect_code(552);
    let long = "x-filler: filler filler\r\n".repeat(8_000);
    let long = format!("{long}From: a@example.nl\r\n\r\nx\r\n");
    client
        .submit("a@b.c", &["a@example.net"], long.as_bytes())
        .await
        .expect_code(250);
}

#[tokio::test]
async fn a_listener_that_would_be_an_open_relay_does_not_serve() {
    let intake = Intake::start(plain()).await;
    let socket = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let bound = Bound {
        socket,
        // The configuration says loopback; the socket knows better.
        configured: "127.0.0.1:0".parse().unwrap(),
    };
    let (_stop, stopped) = watch::channel(false);
    let served = serve(bound, intake.shared.clone(), stopped).await;
    assert!(
        matches!(served, Err(ServeError::OpenRelay(_))),
        "{served:?}"
    );
}
