//! Relays that take tokens instead of a password: how somebody logs in for one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::endpoint::Endpoint;
use crate::harness::{Harness, relay};
use crate::machine;
use crate::relay::{FakeRelay, Relay, Tls};

/// Virtual or real, nobody waits longer.
pub const LONG: Duration = Duration::from_secs(3600);
pub const MAILBOX: &str = "username = \"mailer@example.nl\"";

/// A relay that takes the tokens of this endpoint only.
pub async fn taking_tokens_of(endpoint: &Endpoint) -> Relay {
    let relay = FakeRelay::default().tls(Tls::Off).tokens(endpoint.judge());
    relay.start().await
}

/// One relay `out` for everybody.
pub fn config(out: &Relay, endpoint: &Endpoint, oauth: &str) -> String {
    let device = format!("device-url = \"http://{}/device\"\n{oauth}", endpoint.addr);
    let table = endpoint.table("out", &device);
    format!(
        "default-relay = \"out\"\n{}{table}",
        relay("out", out, MAILBOX)
    )
}

pub fn words(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Harness {
    pub async fn login(&self, relay: &str) -> Vec<Value> {
        self.ask(json!({"relay-login": {"relay": relay}})).await
    }

    pub async fn bring(&self, relay: &str, token: &str) -> Result<Vec<Value>, Value> {
        let request = json!({"relay-login": {"relay": relay, "refresh_token": token}});
        self.try_ask(&request).await
    }

    /// Waits until the relay is paused, and says why.
    pub async fn until_paused(&self, relay: &str) -> Value {
        for _ in 0..10_000 {
            let status = self.relay(relay).await;
            if status["state"] == "paused" {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never paused: {}", self.relay(relay).await);
    }

    /// Everything that is told of relays and mail.
    pub async fn all_that_is_told(&self) -> String {
        let mut told = String::new();
        for request in [
            json!({"status": {}}),
            json!({"relay-list": {}}),
            json!({"queue": {}}),
            json!({"relay-test": {"relay": "out"}}),
        ] {
            for item in self.ask(request).await {
                told.push_str(&item.to_string());
            }
        }
        for message in self.queue().await {
            let id = message["id"].clone();
            for item in self.ask(json!({"show": {"id": id}})).await {
                told.push_str(&item.to_string());
            }
        }
        told
    }
}

pub fn assert_no_secret(endpoint: &Endpoint, told: &str) {
    assert!(!told.is_empty());
    for secret in endpoint.secrets() {
        assert!(!told.contains(&secret), "{secret} in {told}");
    }
    assert!(!told.contains("s3cr3t"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn mail_waits_until_somebody_logs_in_and_leaves_at_once_then() {
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| {
        it.answers = [
            "authorization_pending",
            "slow_down",
            "authorization_pending",
        ]
        .into();
        it.refresh_life = Some(90 * 86_400);
    });
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    let before = penstock.relay("out").await;
    assert_eq!(before["oauth"]["since"], Value::Null, "{before}");
    assert!(words(&before["oauth"]["remedy"]).contains("penstock relay login out"));

    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    let paused = penstock.until_paused("out").await;
    assert!(words(&paused["reason"]).contains("nobody has logged in yet"));
    assert!(words(&paused["remedy"]).contains("penstock relay login out"));
    assert!(out.transactions().is_empty() && out.logins().is_empty());

    let said = penstock.login("out").await;
    assert_eq!(said[0]["login"]["code"], "ABCD-EFGH");
    assert_eq!(said[0]["login"]["page"], "https://login.example/device");
    assert_eq!(said[0]["login"]["username"], "mailer@example.nl");
    assert_eq!(said[1]["logged-in"]["username"], "mailer@example.nl");
    assert_eq!(said[2]["relay-test"]["ok"], true, "{said:?}");
    // Every five seconds, and five more after slow_down.
    let polls = endpoint.asked_for("device_code");
    let waits: Vec<u64> = polls
        .windows(2)
        .map(|it| (it[1].at - it[0].at).as_secs())
        .collect();
    assert_eq!(waits, [5, 10, 10]);
    assert_eq!(polls[0].field("client_id"), "app-1");

    penstock.until_idle().await;
    assert_eq!(out.accepted().len(), 1);
    let after = penstock.relay("out").await;
    assert_eq!(after["state"], "active");
    assert_eq!(after["oauth"]["trouble"], Value::Null, "{after}");
    assert!(
        words(&after["oauth"]["expires"]).starts_with("2027-02-19"),
        "{after}"
    );
    let told = format!("{said:?}{}", penstock.all_that_is_told().await);
    assert_no_secret(&endpoint, &told);
}

#[tokio::test(start_paused = true)]
async fn an_application_with_a_secret_shows_it_when_somebody_logs_in() {
    let endpoint = Endpoint::start().await;
    endpoint.manners(|it| it.client_secret = Some("app-s3cr3t".into()));
    let out = taking_tokens_of(&endpoint).await;
    let secret = "client-secret = \"app-s3cr3t\"";
    let penstock = Harness::start(&config(&out, &endpoint, secret), "").await;
    let said = penstock.login("out").await;
    assert_eq!(said[2]["relay-test"]["ok"], true, "{said:?}");
    assert_no_secret(&endpoint, &format!("{said:?}"));
}

#[tokio::test(start_paused = true)]
async fn a_login_is_for_the_account_it_was_made_for_and_goes_with_its_relay() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let own = config(&out, &endpoint, "");
    let penstock = Harness::start(&own, "").await;
    penstock.login("out").await;
    let other = own.replace("mailer@example.nl", "other@example.nl");
    penstock.configure(&other, "");
    penstock.ask(json!({"reload": {}})).await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    let paused = penstock.until_paused("out").await;
    let reason = words(&paused["reason"]);
    assert!(
        reason.contains("username changed from mailer@example.nl to other@example.nl"),
        "{reason}"
    );
    assert_eq!(endpoint.asked_for("refresh_token").len(), 0);
    // Back, and it is good again.
    penstock.configure(&own, "");
    penstock.ask(json!({"reload": {}})).await;
    penstock.until_idle().await;
    // Without its relay it is not kept.
    let file = penstock.path("state/tokens/out.token");
    assert!(file.exists());
    penstock.configure("", "");
    penstock.ask(json!({"reload": {}})).await;
    penstock.status().await;
    let pause = Duration::from_millis(10);
    machine::until("the tokens are gone", pause, async || !file.exists()).await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_from_elsewhere_is_kept_only_when_it_is_good() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    let refused = penstock
        .bring("out", "wrong-s3cr3t-token")
        .await
        .unwrap_err();
    assert_eq!(refused["kind"], "failed");
    assert!(
        words(&refused["message"]).contains("invalid_grant"),
        "{refused}"
    );
    assert!(!refused.to_string().contains("s3cr3t"), "{refused}");
    assert!(!penstock.path("state/tokens/out.token").exists());
    let token = endpoint.refresh_token("mailer@example.nl");
    let said = penstock.bring("out", &format!("{token}\n")).await.unwrap();
    assert_eq!(said[0]["logged-in"]["relay"], "out");
    assert_eq!(said[1]["relay-test"]["ok"], true);
    assert_no_secret(&endpoint, &format!("{said:?}"));
    // What follows it was refused leaves the good one alone.
    penstock
        .bring("out", "wrong-s3cr3t-token")
        .await
        .unwrap_err();
    tokio::time::sleep(LONG).await;
    penstock
        .submit("jan@example.nl", &["bob@example.org"], "hello")
        .await
        .expect_code(250);
    penstock.until_idle().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_declines_or_is_late_is_told_so_and_nothing_is_kept() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    let request = json!({"relay-login": {"relay": "out"}});
    endpoint.manners(|it| it.answers = ["authorization_pending", "access_denied"].into());
    let declined = penstock.try_ask(&request).await.unwrap_err();
    assert!(
        words(&declined["message"]).contains("chose not to allow"),
        "{declined}"
    );
    endpoint
        .manners(|it| it.answers = std::iter::repeat_n("authorization_pending", 1_000).collect());
    let late = penstock.try_ask(&request).await.unwrap_err();
    assert!(words(&late["message"]).contains("in time"), "{late}");
    assert!(endpoint.asked_for("device_code").len() < 200);
    endpoint.manners(|it| it.answers = ["expired_token"].into());
    let expired = penstock.try_ask(&request).await.unwrap_err();
    assert!(
        words(&expired["message"]).contains("penstock relay login out"),
        "{expired}"
    );
    assert!(!penstock.path("state/tokens/out.token").exists());
    let other = json!({"relay-login": {"relay": "nobody"}});
    assert_eq!(
        penstock.try_ask(&other).await.unwrap_err()["kind"],
        "not-found"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_any_more_for_whoever_gave_up() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let endpoint = Endpoint::start().await;
    endpoint
        .manners(|it| it.answers = std::iter::repeat_n("authorization_pending", 1_000).collect());
    let out = taking_tokens_of(&endpoint).await;
    let penstock = Harness::start(&config(&out, &endpoint, ""), "").await;
    let socket = penstock.path("control.sock");
    let mut stream = BufReader::new(tokio::net::UnixStream::connect(socket).await.unwrap());
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let request = b"{\"relay-login\":{\"relay\":\"out\"}}\n";
    stream.write_all(request).await.unwrap();
    line.clear();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.contains("ABCD-EFGH"), "{line}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = endpoint.asked_for("device_code").len();
    assert!((10..=12).contains(&asked), "{asked}");
    drop(stream);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(endpoint.asked_for("device_code").len() <= asked + 2);
    assert!(!penstock.path("state/tokens/out.token").exists());
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_must_be_verified_gets_its_test_message_once_somebody_has_logged_in() {
    let endpoint = Endpoint::start().await;
    let out = taking_tokens_of(&endpoint).await;
    let config = config(&out, &endpoint, "");
    let verified = format!("{MAILBOX}\nsender = \"mailer@example.nl\"\nverify = true");
    let penstock = Harness::start(&config.replace(MAILBOX, &verified), "").await;
    machine::until("no test message", Duration::from_millis(10), async || {
        penstock.relay("out").await["verification"]["state"] == "failed"
    })
    .await;
    penstock.login("out").await;
    let test = out.received(1, LONG).await;
    assert_eq!(test[0].forward_paths(), ["mailer@example.nl"]);
    assert!(test[0].text().contains("penstock relay confirm"));
}
