//! The confirmation page in headless Chromium: the real button, pressed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Home, free_address};
use crate::relay::FakeRelay;

const SOON: Duration = Duration::from_secs(60);

/// What Chromium shows after these steps.
async fn browse(steps: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/clients/browser.py");
    let profile = tempfile::tempdir().unwrap();
    // It starts others, which hold its output open: all of them end in time.
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", "110", "python3"])
        .arg(script)
        .arg(free_address().port().to_string())
        .arg(profile.path())
        .args(steps)
        // Chromium writes elsewhere than its profile, too.
        .env("HOME", profile.path());
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = ended.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&said).unwrap()
}

/// How the relay is, asked once.
fn state(home: &Home) -> String {
    let output = home.cli(&["relay", "list", "own", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["state"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs chromium and chromium-driver; .ci/run installs them"]
async fn the_button_in_a_browser_makes_the_relay_active_and_opening_the_page_does_not() {
    let own = FakeRelay::default().start().await;
    let (listen, page) = (free_address(), free_address());
    let home = Home::new(
        &format!(
            "hostname = \"penstock.test\"\ndefault-relay = \"own\"\n[[listen]]\naddress = \"{listen}\"\n\
             [spool]\npath = \"{{dir}}/state\"\nmin-free = \"1MB\"\n\
             [http]\nconfirm = \"{page}\"\nbase-url = \"http://{page}\"\n\
             [relays.own]\nserver = \"{}\"\ntls = \"required\"\nfingerprint = \"{}\"\n\
             sender = \"mailer@uwdomein.nl\"\nverify = true\n",
            own.addr, own.fingerprint
        ),
        "",
    );
    let _daemon = home.start().await;
    let test = own.received(1, SOON).await.remove(0).text();
    let link = test.lines().find(|it| it.contains("/confirm/")).unwrap();
    let link = link.trim().to_owned();

    let seen = browse(&[&link]).await;
    assert_eq!(seen["h1"], "Does the relay own deliver?", "{seen}");
    assert_eq!(seen["buttons"], 1, "{seen}");
    assert_eq!(seen["scripts"], 0, "{seen}");
    assert_eq!(seen["room"], 320, "{seen}");
    assert!(seen["width"].as_u64() <= seen["room"].as_u64(), "{seen}");
    assert_eq!(seen["background"], "rgb(22, 22, 22)", "dark: {seen}");
    assert_eq!(state(&home), "unverified", "a GET confirms nothing");

    let wrong = format!("http://{page}/confirm/{}", "0".repeat(40));
    let seen = browse(&[&wrong]).await;
    assert_eq!(seen["h1"], "Nothing was confirmed", "{seen}");
    let said = seen["said"].as_str().unwrap();
    assert!(said.contains("not known"), "{seen}");
    assert_eq!(seen["buttons"], 0, "{seen}");

    let seen = browse(&[&link, "press"]).await;
    assert_eq!(seen["h1"], "The relay own is active", "{seen}");
    assert_eq!(state(&home), "active", "asked once, without waiting");
    println!("from the click to the next page: {} ms", seen["took_ms"]);

    let seen = browse(&[&link]).await;
    assert!(
        seen["said"].as_str().unwrap().contains("confirmed already"),
        "{seen}"
    );
    assert_eq!(seen["buttons"], 0, "{seen}");
    let log = home.log();
    let token = link.rsplit('/').next().unwrap();
    assert!(log.contains("relay confirmed: it is active"), "{log}");
    assert!(!log.contains(token), "the token is in the log");
}
