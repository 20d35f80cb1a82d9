//! What a new administrator gets wrong: from the first message alone it must be clear
//! what to change, whichever of them is read first.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::harness::Harness;
use crate::relay::{Answer, FakeRelay, Relay, Tls};

/// What was got wrong.
struct Mistake {
    /// In the test's own words.
    what: &'static str,
    relay: Relay,
    /// Of `[relays.out]`, besides server, sender and login.
    lines: String,
    /// What every message must say.
    said: &'static str,
    /// What the remedy must say.
    remedy: &'static str,
}

async fn mistakes(folder: &Path) -> Vec<Mistake> {
    let authority = Authority::new();
    let ca = folder.join("ca.pem");
    authority.write(&ca);
    let ca = format!("ca-file = \"{}\"\n", ca.display());
    let pin = |it: &Relay| format!("fingerprint = \"{}\"\n", it.fingerprint);

    let wrong_password = FakeRelay::default().login("user", "other").start().await;
    let starts_with_tls = FakeRelay::default().tls(Tls::Implicit).start().await;
    let speaks_plainly = FakeRelay::default().start().await;
    let other_name = FakeRelay::default()
        .certificate(authority.sign(&["mail.other.example"]))
        .start()
        .await;
    let expired = FakeRelay::default()
        .certificate(authority.sign_expired(&["127.0.0.1"]))
        .start()
        .await;
    let unknown = FakeRelay::default().start().await;
    let without_starttls = FakeRelay::default().tls(Tls::Off).start().await;
    let no_smtp = FakeRelay::default()
        .answering("connect", Answer::garbage())
        .start()
        .await;
    let mut all = vec![
        Mistake {
            what: "wrong password",
            lines: pin(&wrong_password) + "tls = \"required\"",
            relay: wrong_password,
            said: "535",
            remedy: "user name and password",
        },
        Mistake {
            what: "a port that starts with TLS, taken for one with STARTTLS",
            lines: pin(&starts_with_tls) + "tls = \"required\"",
            relay: starts_with_tls,
            said: "no reply at greeting within 30 s",
            remedy: "check the port (465 starts with TLS, 587 and 25 do not)",
        },
        Mistake {
            what: "a port with STARTTLS, taken for one that starts with TLS",
            lines: pin(&speaks_plainly) + "tls = \"implicit\"",
            relay: speaks_plainly,
            said: "does not answer with TLS",
            remedy: "On port 465 TLS starts at once, on 587 after STARTTLS",
        },
        Mistake {
            what: "a certificate of another name",
            lines: ca.clone() + "tls = \"required\"",
            relay: other_name,
            said: "the certificate is not for 127.0.0.1 but for mail.other.example",
            remedy: "tls-name",
        },
        Mistake {
            what: "an expired certificate",
            lines: ca + "tls = \"required\"",
            relay: expired,
            said: "the certificate has expired: have the server's operator renew it",
            remedy: "certificate",
        },
        Mistake {
            what: "a certificate that nobody known signed",
            lines: "tls = \"required\"".to_owned(),
            relay: unknown,
            said: "signed by nobody who is trusted here (set ca-file",
            remedy: "ca-file or fingerprint",
        },
        Mistake {
            what: "no STARTTLS",
            lines: "tls = \"required\"".to_owned(),
            relay: without_starttls,
            said: "offers no TLS, and the password is not sent in clear",
            remedy: "use port 587 or 465",
        },
        Mistake {
            what: "a web server",
            lines: "tls = \"required\"".to_owned(),
            relay: no_smtp,
            said: "not an SMTP reply at greeting",
            remedy: "does not talk SMTP: check the port",
        },
    ];
    let address = crate::machine::free_address();
    // A relay that nothing is expected of: its port is the closed one.
    let nobody = FakeRelay::default().start().await;
    all.push(Mistake {
        what: "a closed port",
        lines: format!("tls = \"required\"\n#{address}"),
        relay: nobody,
        said: "connection refused",
        remedy: "Check server name and port",
    });
    all
}

#[tokio::test(start_paused = true)]
async fn from_the_first_message_alone_it_is_clear_what_to_change() {
    let folder = tempfile::tempdir().unwrap();
    for mistake in mistakes(folder.path()).await {
        let Mistake {
            what,
            relay,
            lines,
            said,
            remedy,
        } = mistake;
        let (lines, address) = match lines.split_once('#') {
            Some((lines, address)) => (lines.to_owned(), address.to_owned()),
            None => (lines, relay.addr.to_string()),
        };
        for verify in [false, true] {
            let config = format!(
                "default-relay = \"out\"\n[relays.out]\nserver = \"{address}\"\nsender = \"a@b.example\"\n\
                 login = \"user secretword\"\nverify = {verify}\n{lines}\n"
            );
            let penstock = Harness::start(&config, "").await;
            let request = if verify { "relay-verify" } else { "relay-test" };
            let items = penstock.ask(json!({request: {"relay": "out"}})).await;
            let report = &items.last().unwrap()["relay-test"];
            assert_eq!(report["ok"], false, "{what}: {report}");
            says(what, &report["text"], said);
            says(what, &report["remedy"], remedy);

            penstock
                .submit("jan@example.org", &["bob@example.net"], "hello")
                .await
                .expect_code(250);
            penstock
                .until(what, |queue| {
                    queue.iter().any(|it| {
                        it["from"] == "jan@example.org"
                            && it["why_text"].as_str().is_some_and(|it| it.contains(said))
                    })
                })
                .await;
            let status = penstock.status().await;
            says(what, &status["problems"][0], said);
            says(what, &status["relays"][0]["reason"], said);
            says(what, &status["relays"][0]["remedy"], remedy);
            let all = format!("{status}{items:?}{:?}", penstock.queue().await);
            assert!(!all.contains("secretword"), "{what}: {all}");
        }
    }
}

#[track_caller]
fn says(what: &str, text: &Value, wanted: &str) {
    let text = text.as_str().unwrap_or_default();
    assert!(
        text.contains(wanted),
        "{what}: \"{wanted}\" is not in: {text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_refuses_relaying_is_found_by_its_test_message() {
    let out = FakeRelay::default()
        .answering("RCPT", "550 5.7.1 Unable to relay")
        .start()
        .await;
    let config = format!(
        "default-relay = \"out\"\n{}",
        crate::harness::relay(
            "out",
            &out,
            "sender = \"a@b.example\"\nlogin = \"user secret\"\nverify = true"
        )
    );
    let penstock = Harness::start(&config, "").await;
    let verified = tokio::time::timeout(
        Duration::from_secs(600),
        penstock.ask(json!({"relay-verify": {"relay": "out"}})),
    );
    let items = verified.await.unwrap();
    let report = &items.last().unwrap()["relay-test"];
    says(
        "refuses relaying",
        &report["text"],
        "550 5.7.1 Unable to relay",
    );
    assert_eq!(report["stage"], "recipient");
    assert!(
        report["remedy"].as_str().is_some_and(|it| it.len() > 20),
        "{report}"
    );
    let said: Vec<&str> = items
        .iter()
        .filter_map(|it| it["dialogue"]["text"].as_str())
        .collect();
    assert!(said.contains(&"550 5.7.1 Unable to relay"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_without_a_relay_says_what_to_do_about_it() {
    let penstock = Harness::start("", "").await;
    let status = penstock.status().await;
    let problems = status["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].as_str().unwrap().contains("penstock relay add"),
        "{problems:?}"
    );
}
