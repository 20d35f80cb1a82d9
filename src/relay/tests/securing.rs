//! TLS, logins, and what was said before them.

use super::*;

#[tokio::test(start_paused = true)]
async fn starttls_is_used_and_what_was_said_before_it_forgotten() {
    let mut script = Script::offering(&["STARTTLS", "AUTH LOGIN", "DSN"]);
    script.offers_tls = vec!["AUTH PLAIN", "PIPELINING"];
    let fake = Fake::start(script).await;
    let relay = with_login(&fake, RelayTls::Required);
    let pool = pool();
    let delivery = pool
        .deliver(&job(
            relay.clone(),
            envelope(&["a@x.example"], MESSAGE),
            MESSAGE,
        ))
        .await;
    assert_eq!(code(&delivery, 0), 250);
    assert!(!delivery.dsn_passed_on);
    let lines = fake.lines();
    assert_eq!(
        lines[..3],
        ["EHLO client.example", "STARTTLS", "EHLO client.example"]
    );
    assert!(lines[3].starts_with("AUTH PLAIN "));

    let report = pool
        .test(Arc::new(relay), timeouts(), "client.example")
        .await;
    assert_eq!(report.error, None);
    assert_eq!(report.login, Some(Mechanism::Plain));
    assert!(report.tls.unwrap().verified);
    assert_eq!(report.offered.unwrap().auth, ["PLAIN"]);
    let said = report.transcript.to_string();
    assert!(
        said.contains("> AUTH PLAIN ***\n< 235") && said.ends_with("< 221 bye\n"),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn implicit_tls_is_made_before_anything_is_said() {
    let mut script = Script::offering(&["AUTH LOGIN", "PIPELINING"]);
    script.implicit_tls = true;
    let fake = Fake::start(script).await;
    let relay = with_login(&fake, RelayTls::Implicit);
    let delivery = pool()
        .deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
        .await;
    assert_eq!(code(&delivery, 0), 250);
    assert_eq!(
        fake.lines()[1..4],
        ["AUTH LOGIN", "amFu", "czNjcjN0LXdvcmQ="]
    );
}

#[tokio::test(start_paused = true)]
async fn connections_under_tls_are_reused_and_missed_when_they_die() {
    for implicit in [true, false] {
        let mut script = Script::offering(&["STARTTLS", "AUTH PLAIN", "PIPELINING"]);
        script.implicit_tls = implicit;
        let fake = Fake::start(script.at_nth("MAIL", 4, Act::Close)).await;
        let tls = if implicit {
            RelayTls::Implicit
        } else {
            RelayTls::Required
        };
        let pool = pool();
        for number in 1..=5 {
            let relay = with_login(&fake, tls);
            let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
            assert_eq!(code(&pool.deliver(&job).await, 0), 250, "{number}");
        }
        assert_eq!(fake.connections(), 2);
        assert_eq!(fake.contents().len(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn replies_injected_before_the_handshake_are_refused() {
    let script = Script::offering(&["STARTTLS"])
        .at("STARTTLS", Act::Raw(b"220 go\r\n250 injected\r\n".to_vec()));
    let fake = Fake::start(script).await;
    let relay = with_login(&fake, RelayTls::Required);
    let delivery = pool()
        .deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
        .await;
    assert!(matches!(
        error(&delivery, 0),
        RelayError::Garbage {
            stage: Stage::StartTls,
            ..
        }
    ));
    assert!(!fake.lines().iter().any(|it| it.starts_with("AUTH")));
}

#[tokio::test(start_paused = true)]
async fn a_password_is_never_sent_to_the_wrong_one_or_in_clear() {
    let password_seen = |fake: &Fake| fake.lines().iter().any(|it| it.starts_with("AUTH"));
    // Not the pinned certificate.
    let fake = Fake::start(Script::offering(&["STARTTLS", "AUTH PLAIN"])).await;
    let mut relay = with_login(&fake, RelayTls::Required);
    relay.certificates.fingerprint = Some([7; 32]);
    let delivery = pool()
        .deliver(&job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE))
        .await;
    let failed = error(&delivery, 0).to_string();
    assert!(
        failed.contains(&crate::tls::fingerprint_text(&fake.fingerprint)),
        "{failed}"
    );
    assert!(!password_seen(&fake));
    // STARTTLS stripped off the offers, or refused; whatever the configuration came to.
    for tls in [RelayTls::Required, RelayTls::Opportunistic] {
        for script in [
            Script::offering(&["AUTH PLAIN"]),
            Script::offering(&["STARTTLS", "AUTH PLAIN"]).at("STARTTLS", Act::Say("454 not now")),
        ] {
            let fake = Fake::start(script).await;
            let relay = with_login(&fake, tls);
            let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
            let delivery = pool().deliver(&job).await;
            assert!(delivery.attempts[0].result.is_err());
            assert!(!password_seen(&fake), "{tls:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn opportunistic_tls_that_fails_is_done_without() {
    let script = Script::offering(&["STARTTLS"]).at("STARTTLS", Act::Say("220 but no TLS"));
    let fake = Fake::start(script).await;
    let mut job = simple(&fake, &["a@x.example"]);
    job.timeouts.connect = Duration::from_secs(5);
    let delivery = pool().deliver(&job).await;
    assert_eq!(code(&delivery, 0), 250);
    assert_eq!(fake.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn every_mechanism_logs_in_and_a_refused_login_is_told_as_such() {
    for (method, offer) in [
        (AuthMethod::Auto, "AUTH CRAM-MD5 LOGIN PLAIN"),
        (AuthMethod::Login, "AUTH LOGIN PLAIN"),
        (AuthMethod::CramMd5, "AUTH CRAM-MD5"),
        (AuthMethod::XOauth2, "AUTH XOAUTH2"),
    ] {
        let mut script = Script::offering(&[]);
        script.offers = vec![offer];
        let fake = Fake::start(script).await;
        let mut relay = with_login(&fake, RelayTls::Off);
        relay.auth = method;
        let report = pool()
            .test(Arc::new(relay), timeouts(), "client.example")
            .await;
        assert_eq!(report.error, None, "{method:?}");
        assert!(!report.transcript.to_string().contains("s3cr3t"));
    }
    let script = Script::offering(&["AUTH PLAIN"]).at(
        "AUTH",
        Act::Say("535 5.7.8 bad password s3cr3t-word for jan"),
    );
    let fake = Fake::start(script).await;
    let mut relay = with_login(&fake, RelayTls::Off);
    // A second server is not tried: it would count a second wrong password.
    relay.servers.push(relay.servers[0].clone());
    let report = pool()
        .test(Arc::new(relay), timeouts(), "client.example")
        .await;
    let failed = report.error.unwrap();
    assert!(
        matches!(&failed, RelayError::Refused { stage: Stage::Auth, reply } if reply.code == 535)
    );
    assert!(
        failed.to_string().contains("bad password *** for jan"),
        "{failed}"
    );
    assert!(!report.transcript.to_string().contains("s3cr3t"));
    assert_eq!(fake.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn whatever_of_a_login_is_echoed_shows_no_part_of_it() {
    for (method, offer, verb) in [
        (AuthMethod::Plain, "AUTH PLAIN", "AUTH"),
        (AuthMethod::XOauth2, "AUTH XOAUTH2", "AUTH"),
        (AuthMethod::Login, "AUTH LOGIN", "amFu"),
        (AuthMethod::Login, "AUTH LOGIN", "czNjcjN0LXdvcmQ="),
        (
            AuthMethod::CramMd5,
            "AUTH CRAM-MD5",
            "amFuIDIwYWMwM2ViYzE4NTMxMjQ3YjBlZDc1ODk0MjJiMjY5",
        ),
    ] {
        for (echo, octets) in [
            // No reply at all, whole and cut off behind the password's first letters.
            ("", 500),
            ("> ", 30),
            ("500 what is ", 500),
            ("500 what is ", 30),
            ("250-what\r\n500 is ", 500),
        ] {
            let mut script = Script::offering(&[]);
            script.offers = vec![offer];
            let fake = Fake::start(script.at(verb, Act::Echo(echo, octets))).await;
            let mut relay = with_login(&fake, RelayTls::Off);
            relay.auth = method;
            let report = pool()
                .test(Arc::new(relay.clone()), timeouts(), "client.example")
                .await;
            let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
            let delivery = pool().deliver(&job).await;
            let shown = [
                report.transcript.to_string(),
                report.error.unwrap().to_string(),
                error(&delivery, 0).to_string(),
                format!("{:?}", error(&delivery, 0)),
            ];
            let lines = fake.lines();
            let sent = lines.iter().filter_map(|it| it.split(' ').next_back());
            for word in sent.filter(|it| it.len() > 8 && !it.contains('.')) {
                for text in &shown {
                    assert!(!text.contains(&word[..9]), "{method:?} {echo}: {text}");
                }
            }
            for text in &shown {
                assert!(!text.contains("s3cr3t"), "{method:?} {echo}: {text}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_ehlo_is_heard() {
    for words in ["554 5.7.1 go away", "550 blocked", "571 no"] {
        let fake = Fake::start(Script::default().at("EHLO", Act::Say(words))).await;
        let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
        let found = error(&delivery, 0);
        assert_eq!(
            (found.stage(), found.severity()),
            (Stage::Ehlo, Severity::Relay)
        );
        assert_eq!(found.to_string(), format!("refused at ehlo: {words}"));
        assert_eq!(fake.lines(), ["EHLO client.example"]);
    }
    // It takes HELO, and offers no login there: its words say more than that.
    for (words, tls) in [
        ("502 5.5.1 not for you", RelayTls::Off),
        ("501 your name?", RelayTls::Required),
    ] {
        let fake = Fake::start(Script::default().at("EHLO", Act::Say(words))).await;
        let relay = with_login(&fake, tls);
        let job = job(relay, envelope(&["a@x.example"], MESSAGE), MESSAGE);
        let found = pool().deliver(&job).await;
        assert_eq!(
            error(&found, 0).to_string(),
            format!("refused at ehlo: {words}")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_after_helo_ends_no_message() {
    let fake = Fake::start(Script::default().at("EHLO", Act::Say("502 what?"))).await;
    let mut wishes = envelope(&["a@x.example"], b"caf\xe9\r\n");
    wishes.body = Body::EightBitMime;
    let job = job(relay(&fake), wishes, b"caf\xe9\r\n");
    let delivery = pool().deliver(&job).await;
    let found = error(&delivery, 0);
    assert_eq!(found.severity(), Severity::Transient);
    assert!(found.to_string().contains("502 what?"), "{found}");
}

#[tokio::test(start_paused = true)]
async fn the_old_greeting_is_good_enough_for_an_old_server() {
    let fake = Fake::start(Script::default().at("EHLO", Act::Say("500 what?"))).await;
    let delivery = pool().deliver(&simple(&fake, &["a@x.example"])).await;
    assert_eq!(code(&delivery, 0), 250);
    assert_eq!(fake.lines()[1], "HELO client.example");
}
