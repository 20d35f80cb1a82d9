//! Verification with the real programs: what the CLI prints and the log says, and that
//! SIGKILL takes neither a token nor a confirmation away.

use std::process::Output;
use std::time::Duration;

use crate::client::{Client, message};
use crate::daemon::{Home, free_address};
use crate::relay::{FakeRelay, Relay};

const SOON: Duration = crate::daemon::PATIENCE;

fn home(own: &Relay) -> (Home, std::net::SocketAddr) {
    let listen = free_address();
    let config = format!(
        "hostname = \"penstock.test\"\ndefault-relay = \"own\"\n[[listen]]\naddress = \"{listen}\"\n\
         [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n\
         [relays.own]\nserver = \"{}\"\ntls = \"required\"\nfingerprint = \"{}\"\n\
         login = \"mailer secretpassword\"\nsender = \"mailer@uwdomein.nl\"\nverify = true\n",
        own.addr, own.fingerprint
    );
    (Home::new(&config, ""), listen)
}

/// Exit code and everything that was printed.
fn said(output: &Output) -> (Option<i32>, String) {
    let words = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy);
    (output.status.code(), words.concat())
}

async fn token(own: &Relay, count: usize) -> String {
    let text = own.received(count, SOON).await.last().unwrap().text();
    let line = text
        .lines()
        .find(|it| it.contains("relay confirm"))
        .unwrap();
    line.trim().rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_knows_its_tokens_and_its_confirmations() {
    let own = FakeRelay::default().start().await;
    let (home, listen) = home(&own);
    let mut daemon = home.start().await;
    let token = token(&own, 1).await;
    home.logged("it waits to be confirmed").await;
    daemon.kill();
    let mut daemon = home.start().await;
    let (code, words) = said(&home.cli(&["relay", "list", "own"]));
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("nobody has confirmed it"), "{words}");
    let (code, words) = said(&home.cli(&["relay", "confirm", &token]));
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("own is active"), "{words}");
    // The answer was given: from here on it must hold.
    daemon.kill();
    std::fs::remove_dir_all(home.path("state/index")).unwrap();
    let _daemon = home.start().await;
    let (_, words) = said(&home.cli(&["relay", "list"]));
    assert!(words.contains("own (default)  active"), "{words}");
    let mail = message("jan@uwdomein.nl", "bob@example.net", "after", "hello");
    let mut client = Client::connect(listen).await;
    let answer = client.submit("jan@uwdomein.nl", &["bob@example.net"], &mail);
    answer.await.expect_code(250);
    let all = own.received(2, SOON).await;
    assert_eq!(all[1].forward_paths(), ["bob@example.net"]);
    let (code, words) = said(&home.cli(&["relay", "confirm", &token]));
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("confirmed already"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_and_list_and_verify_say_what_the_server_said_and_no_password() {
    let own = FakeRelay::default()
        .login("mailer", "another")
        .start()
        .await;
    let (home, _) = home(&own);
    let _daemon = home.start().await;
    home.logged("the test message of the relay was not taken")
        .await;
    let (code, verified) = said(&home.cli(&["relay", "verify", "own"]));
    assert_eq!(code, Some(1), "{verified}");
    assert!(verified.contains("> AUTH PLAIN ***"), "{verified}");
    assert!(verified.contains("< 535"), "{verified}");
    assert!(
        verified.contains("own does not take its test message"),
        "{verified}"
    );
    assert!(verified.contains("user name and password"), "{verified}");
    // Whoever only tries the relay is told the same.
    let told = |verb: &str| -> serde_json::Value {
        let output = home.cli(&["relay", verb, "own", "--json"]);
        let lines = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(lines.lines().last().unwrap()).unwrap()
    };
    let (by_test, by_mail) = (told("test"), told("verify"));
    for key in ["relay", "ok", "server", "stage", "text"] {
        assert_eq!(by_test[key], by_mail[key], "{key}");
    }
    assert!(by_test["text"].as_str().unwrap().starts_with("535 "));
    assert!(by_test["server"].is_string());
    let (_, tested) = said(&home.cli(&["relay", "test", "own"]));
    assert!(tested.contains("  at auth: 535"), "{tested}");
    let (_, table) = said(&home.cli(&["relay", "list"]));
    assert!(table.contains("own (default)  test failed"), "{table}");
    assert!(table.contains("failed at auth: 535"), "{table}");
    let (_, detail) = said(&home.cli(&["relay", "list", "own"]));
    assert!(detail.contains("> AUTH PLAIN ***"), "{detail}");
    let (_, status) = said(&home.cli(&["status"]));
    assert!(status.contains("failed at auth: 535"), "{status}");
    let (code, words) = said(&home.cli(&["relay", "confirm", &"0".repeat(40)]));
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("this token is not known"), "{words}");
    let log = home.log();
    let line = log.lines().find(|it| it.contains("was not taken")).unwrap();
    assert!(
        line.contains("535") && line.contains("user name and password"),
        "{line}"
    );
    let all = format!("{log}{verified}{table}{detail}{status}");
    for secret in ["secretpassword", "AG1haWxlcgBzZWNyZXRwYXNzd29yZA"] {
        assert!(!all.contains(secret), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impatient_admin_is_told_when_the_next_test_message_may_go() {
    let own = FakeRelay::default().start().await;
    let (home, _) = home(&own);
    let _daemon = home.start().await;
    home.logged("it waits to be confirmed").await;
    let (code, words) = said(&home.cli(&["relay", "verify", "own"]));
    assert_eq!(code, Some(75), "{words}");
    assert!(words.contains("5 min between two"), "{words}");
    assert_eq!(own.received(1, SOON).await.len(), 1);
}
