//! Hints against a real name server, by the library and by the daemon: what DNS can do to
//! them, what is done about them, and that mail waits for none of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock::config::Config;
use penstock::dns::Resolver;
use penstock::hint::{self, Bulk, Finding, Pair, Seen, Severity};
use penstock::mail::Mailbox;
use serde_json::{Value, json};

use crate::dns::Zone;
use crate::harness::{Harness, relay};
use crate::machine;
use crate::relay::FakeRelay;

const OWN: &str = "[relays.own]\nserver = \"[smtp.relay.test]:587\"\n\
                   spf-include = \"spf.relay.test\"\nreverse-path = \"from\"\n";

/// A domain with nothing against it.
fn zone() -> Zone {
    Zone::default()
        .txt("a.test", "v=spf1 mx include:spf.relay.test -all")
        .txt("_dmarc.a.test", "v=DMARC1; p=reject")
        .mx("a.test", 10, "mx.a.test")
        .address("mx.a.test", "192.0.2.25")
        .txt("spf.relay.test", "v=spf1 ip4:198.51.100.0/24 -all")
}

/// What is found for mail from `from` to itself, asked of a real name server.
async fn found(server: SocketAddr, config: &str, from: &str) -> Vec<Finding> {
    let config = Config::parse(config, "").unwrap();
    let resolver = Resolver::with_server(server).unwrap();
    let relay = Arc::new(config.relays["own"].clone());
    let bulk = Bulk::configured(&relay);
    let pair = Pair::new(&Mailbox::parse(from).unwrap(), relay, None);
    let looked = hint::by_dns(&resolver, &config, &pair, Seen::Yes, &bulk).await;
    looked.findings
}

fn names(found: &[Finding]) -> Vec<(&'static str, Severity)> {
    found
        .iter()
        .map(|it| (it.hint.name(), it.severity))
        .collect()
}

#[tokio::test]
async fn a_domain_in_good_order_has_nothing_against_it() {
    let dns = zone().start().await;
    assert_eq!(names(&found(dns.address, OWN, "jan@a.test").await), []);
}

#[tokio::test]
async fn each_case_of_dns_is_found_with_its_answer_as_evidence() {
    let mut many = "v=spf1 include:spf.relay.test".to_owned();
    let mut zone = zone();
    for number in 0..10 {
        many.push_str(&format!(" include:i{number}.test"));
        zone = zone.txt(&format!("i{number}.test"), "v=spf1 ip4:192.0.2.7 -all");
    }
    // Longer than a datagram: the answer is truncated and asked for again by TCP.
    let long = format!(
        "v=spf1{} include:spf.relay.test -all",
        " ip4:203.0.113.77".repeat(11)
    );
    let zone = zone
        .txt("none.test", "something else")
        .txt("two.test", "v=spf1 mx -all")
        .txt("two.test", "v=spf1 a -all")
        .txt("many.test", &format!("{many} -all"))
        .txt(
            "loop.test",
            "v=spf1 include:spf.relay.test include:loop.test -all",
        )
        .txt("missing.test", "v=spf1 ip4:192.0.2.1 -all")
        .txt("open.test", "v=spf1 include:spf.relay.test +all")
        .record("alias.test", "CNAME b.test.")
        .record("b.test", "CNAME a.test.")
        .record("ring.test", "CNAME gnir.test.")
        .record("gnir.test", "CNAME ring.test.");
    let zone = (0..20).fold(zone.txt("long.test", &long), |zone, number| {
        zone.txt(
            "long.test",
            &format!("padding {number} {}", "x".repeat(100)),
        )
    });
    let zone = [
        "none", "two", "many", "loop", "missing", "open", "long", "ring",
    ]
    .iter()
    .fold(zone, |zone, name| {
        zone.txt(&format!("_dmarc.{name}.test"), "v=DMARC1; p=none")
    });
    let dns = zone.start().await;
    let found = async |name: &str| {
        let config = format!(
            "[hints.same-domain]\naction = \"off\"\n[hints.dmarc-alignment]\naction = \"off\"\n{OWN}"
        );
        found(dns.address, &config, &format!("jan@{name}.test")).await
    };
    for (name, hint) in [
        ("none", "spf-missing"),
        ("two", "spf-several"),
        ("many", "spf-lookups"),
        ("loop", "spf-syntax"),
        ("missing", "spf-relay-missing"),
    ] {
        assert_eq!(
            names(&found(name).await),
            [(hint, Severity::Serious)],
            "{name}"
        );
    }
    assert_eq!(
        names(&found("open").await),
        [("spf-pass-all", Severity::Warning)]
    );
    assert_eq!(names(&found("long").await), [], "an answer by TCP");
    let ring = found("ring").await;
    assert!(
        ring.iter()
            .all(|it| it.severity == Severity::Unknown || it.hint.name() == "spf-missing"),
        "{ring:?}"
    );
    let missing = &found("missing").await[0];
    assert_eq!(
        missing.evidence,
        ["missing.test TXT \"v=spf1 ip4:192.0.2.1 -all\""]
    );
    assert_eq!(
        missing.record.as_ref().unwrap().to_string(),
        "missing.test. IN TXT \"v=spf1 ip4:192.0.2.1 include:spf.relay.test -all\""
    );
    // An alias of an alias is followed; DMARC then stands nowhere.
    assert_eq!(
        names(&found("alias").await),
        [("dmarc-missing", Severity::Notice)]
    );
}

#[tokio::test]
async fn the_record_of_the_reverse_paths_domain_counts_and_no_other() {
    let dns = zone().txt("b.test", "v=spf1 -all").start().await;
    let with = |reverse_path: &str| OWN.replace("\"from\"", &format!("\"{reverse_path}\""));
    let spf = |found: Vec<Finding>| -> Vec<(String, String)> {
        let spf = found
            .into_iter()
            .filter(|it| it.hint.name().starts_with("spf-"));
        spf.map(|it| (it.hint.name().to_owned(), it.subject))
            .collect()
    };
    let told = |hint: &str, subject: &str| (hint.to_owned(), subject.to_owned());
    // That of the From domain has nothing about the relay, and no receiver asks it.
    let found_b = found(dns.address, &with("bounces@a.test"), "jan@b.test").await;
    assert_eq!(spf(found_b), [told("spf-alignment", "b.test")]);
    let found_a = found(dns.address, &with("bounces@b.test"), "jan@a.test").await;
    assert_eq!(
        spf(found_a),
        [
            told("spf-relay-missing", "b.test"),
            told("spf-alignment", "a.test")
        ]
    );
}

#[tokio::test]
async fn the_domains_own_server_is_no_stranger_whatever_name_it_is_called_by() {
    let dns = zone()
        .txt("c.test", "v=spf1 mx -all")
        .mx("c.test", 10, "mx.c.test")
        .address("mx.c.test", "192.0.2.77")
        .address("smtp.c.test", "192.0.2.77")
        .address("smtp.relay.test", "198.51.100.7")
        .start()
        .await;
    for (server, warned) in [
        ("[mx.c.test]:587", false),
        ("c.test:587", false),
        ("[smtp.c.test]:587", false),
        ("[192.0.2.77]:587", false),
        ("[smtp.relay.test]:587", true),
        ("a.test:587", true),
    ] {
        let config = OWN.replace("[smtp.relay.test]:587", server);
        let found = found(dns.address, &config, "jan@c.test").await;
        let same = names(&found).iter().any(|it| it.0 == "same-domain");
        assert_eq!(same, warned, "{server}: {found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_says_nothing_is_unknown_and_never_a_finding() {
    let silent = Zone::default().silent().start().await;
    let found = found(silent.address, OWN, "jan@a.test").await;
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|it| it.severity == Severity::Unknown),
        "{found:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_fails_or_refuses_is_unknown_and_never_a_finding() {
    for code in [1, 2, 4, 5] {
        let failing = Zone::default().failing(code).start().await;
        let found = found(failing.address, OWN, "jan@a.test").await;
        assert!(!found.is_empty());
        assert!(
            found.iter().all(|it| it.severity == Severity::Unknown),
            "{code}: {found:?}"
        );
    }
}

#[tokio::test]
async fn mail_to_ones_own_domain_by_a_stranger_names_the_relay_that_may() {
    let zone = zone()
        .txt("b.test", "v=spf1 mx -all")
        .mx("b.test", 10, "mx.b.test")
        .address("mx.b.test", "192.0.2.26")
        .txt(
            "_dmarc.b.test",
            "v=DMARC1; p=quarantine; rua=mailto:x@b.test",
        );
    let dns = zone.start().await;
    let config = format!("{OWN}[relays.theirs]\nserver = \"[mx.b.test]:587\"\n");
    let found = found(dns.address, &config, "jan@b.test").await;
    assert_eq!(
        names(&found),
        [
            ("spf-relay-missing", Severity::Serious),
            ("dmarc-alignment", Severity::Serious),
            ("same-domain", Severity::Warning),
        ]
    );
    assert!(
        found[1].found.contains("spam folder (p=quarantine)"),
        "{}",
        found[1].found
    );
    assert!(
        found[2].remedy.contains("by theirs, which is authorised"),
        "{}",
        found[2].remedy
    );
}

#[tokio::test]
async fn blacklists_are_asked_when_they_are_named_and_say_why() {
    let zone = zone()
        .address("7.100.51.198.bl.test", "127.0.0.2")
        .txt("7.100.51.198.bl.test", "spam, see bl.test/7")
        .address("a.test.dbl.test", "127.255.255.254");
    let dns = zone.start().await;
    let relay = format!("{OWN}outbound-ips = [\"198.51.100.7\"]\n");
    assert_eq!(names(&found(dns.address, &relay, "jan@a.test").await), []);
    let lists = format!("[hints]\ndnsbl = [\"bl.test\"]\nrhsbl = [\"dbl.test\"]\n{relay}");
    let found = found(dns.address, &lists, "jan@a.test").await;
    assert_eq!(
        names(&found),
        [
            ("blacklisted-address", Severity::Serious),
            ("blacklisted-domain", Severity::Unknown),
        ]
    );
    assert!(
        found[0].found.ends_with("spam, see bl.test/7"),
        "{}",
        found[0].found
    );
}

#[tokio::test]
async fn large_amounts_are_told_where_they_do_harm() {
    let dns = zone().start().await;
    let provider = "[relays.own]\nserver = \"smtp.gmail.com:587\"\nbulk = true\nreverse-path = \"from\"\n\
                    spf-include = \"spf.relay.test\"\n";
    let told = found(dns.address, provider, "jan@a.test").await;
    assert_eq!(names(&told), [("bulk-provider", Severity::Warning)]);
    let internal = format!(
        "{}bulk = true\n",
        OWN.replace("smtp.relay.test", "mx.a.test")
    );
    let told = found(dns.address, &internal, "jan@a.test").await;
    assert_eq!(names(&told), [("bulk-internal", Severity::Warning)]);
    assert!(
        told[0]
            .evidence
            .iter()
            .any(|it| it == "a.test MX mx.a.test"),
        "{told:?}"
    );
}

/// The findings that the daemon shows, once they are so.
async fn until(penstock: &Harness, so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut found = Vec::new();
    machine::until("such hints", Duration::from_millis(20), async || {
        let items = penstock.ask(json!({"hints": {}})).await;
        found = items.into_iter().map(|it| it["hint"].clone()).collect();
        so(&found)
    })
    .await;
    found
}

fn find<'a>(found: &'a [Value], hint: &str) -> Option<&'a Value> {
    found.iter().find(|it| it["hint"] == hint)
}

#[tokio::test]
async fn the_daemon_finds_after_the_250_and_again_after_a_reload() {
    let out = FakeRelay::default().start().await;
    let dns = zone().txt("b.test", "v=spf1 -all").start().await;
    let config = |include: &str| {
        format!(
            "default-relay = \"out\"\n{}",
            relay("out", &out, &format!("spf-include = \"{include}\""))
        )
    };
    let mut penstock = Harness::start_with_dns(&config("spf.relay.test"), "", dns.address).await;
    let sent = penstock
        .submit("jan@b.test", &["bob@example.net"], "")
        .await;
    sent.expect_code(250);
    let known = until(&penstock, |it| {
        find(it, "spf-relay-missing").is_some() && find(it, "no-subject").is_some()
    })
    .await;
    let missing = find(&known, "spf-relay-missing").unwrap();
    assert_eq!(missing["severity"], "serious");
    assert_eq!(
        missing["record"],
        "b.test. IN TXT \"v=spf1 include:spf.relay.test -all\""
    );
    assert_eq!(missing["messages"], 1);
    assert_eq!(missing["relay"], "out");
    assert!(
        find(&known, "same-domain").is_none(),
        "nobody of b.test got it"
    );
    let problems = penstock.status().await["problems"].to_string();
    assert!(problems.contains("penstock hints"), "{problems}");
    penstock.until_idle().await;
    assert_eq!(out.count(), 1, "it was delivered all the same");
    // Another truth about the relay: it needs nothing in that record.
    penstock.configure(&config("b.test"), "");
    penstock.ask(json!({"reload": {}})).await;
    until(&penstock, |it| find(it, "spf-relay-missing").is_none()).await;
    penstock.stop().await;
}

#[tokio::test]
async fn what_is_found_by_dns_holds_the_mail_that_comes_after() {
    let out = FakeRelay::default().start().await;
    let dns = zone().txt("b.test", "v=spf1 -all").start().await;
    let config = format!(
        "default-relay = \"out\"\n[hints.same-domain]\naction = \"hold\"\n{}",
        relay("out", &out, "spf-include = \"spf.relay.test\"")
    );
    let mut penstock = Harness::start_with_dns(&config, "", dns.address).await;
    // The very first one may leave or be held; it makes the pair known.
    penstock
        .submit("jan@b.test", &["piet@b.test"], "one")
        .await
        .expect_code(250);
    until(&penstock, |it| find(it, "same-domain").is_some()).await;
    let held = penstock.submit("jan@b.test", &["piet@b.test"], "two").await;
    let held = held.expect_code(250).queue_id();
    penstock
        .submit("jan@b.test", &["x@example.net"], "three")
        .await
        .expect_code(250);
    penstock
        .until("the third left", |queue| {
            queue.iter().all(|it| it["state"] == "held")
        })
        .await;
    let shown = penstock.ask(json!({"show": {"id": held}})).await.remove(0);
    let hold = &shown["detail"]["hold"];
    assert_eq!(hold["reason"], "hint", "{shown:#}");
    assert!(
        hold["note"].as_str().unwrap().starts_with("same-domain: "),
        "{hold}"
    );
    // Released by hand it goes, and no later look holds it again.
    let all = json!({"change": {"action": "release", "filter": {}, "all": true}});
    penstock.ask(all).await;
    penstock.until_idle().await;
    assert_eq!(out.count(), 3);
    // It is told afterwards that it was held, and for what.
    let told = penstock.ask(json!({"trace": {"id": held}})).await;
    let events: Vec<&str> = told
        .iter()
        .map(|it| it["event"]["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        events,
        ["accepted", "held", "released", "delivered"],
        "{told:#?}"
    );
    let why = told[1]["event"]["text"].as_str().unwrap();
    assert!(why.starts_with("hint by penstock same-domain: "), "{why}");
    penstock.stop().await;
}

#[tokio::test]
async fn what_a_look_holds_afterwards_is_counted_as_held() {
    let out = FakeRelay::default().start().await;
    let dns = zone().txt("b.test", "v=spf1 -all").start().await;
    let config = format!(
        "default-relay = \"out\"\n[hints.same-domain]\naction = \"hold\"\n{}",
        relay("out", &out, "spf-include = \"spf.relay.test\"")
    );
    let mut penstock = Harness::start_with_dns(&config, "", dns.address).await;
    // So that it cannot leave before anybody looked.
    penstock.ask(json!({"relay-pause": {"relay": "out"}})).await;
    penstock
        .submit("jan@b.test", &["piet@b.test"], "one")
        .await
        .expect_code(250);
    penstock
        .until("it is held", |queue| queue[0]["state"] == "held")
        .await;
    let told = penstock.ask(json!({"metrics": {}})).await.remove(0);
    assert_eq!(told["metrics"]["relays"][0]["held"], 1, "{told:#}");
    penstock.stop().await;
}

#[tokio::test]
async fn content_is_refused_or_held_before_the_250_where_that_is_wanted() {
    let out = FakeRelay::default().start().await;
    let config = format!(
        "default-relay = \"out\"\n[hints.dangerous-attachment]\naction = \"reject\"\n\
         [hints.no-subject]\naction = \"hold\"\n{}",
        relay("out", &out, "")
    );
    let mut penstock = Harness::start(&config, "").await;
    let attached = |name: &str| {
        format!(
            "From: a@b.test\r\nTo: x@example.net\r\nSubject: bill\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x\r\n\
             Content-Type: application/octet-stream\r\n\
             Content-Disposition: attachment; filename=\"{name}\"\r\n\r\nhello\r\n--x--\r\n"
        )
    };
    let mut client = penstock.client().await;
    let sent = async |client: &mut crate::client::Client, content: &str| {
        client
            .submit("a@b.test", &["x@example.net"], content.as_bytes())
            .await
    };
    let refused = sent(&mut client, &attached("invoice.pdf.exe"))
        .await
        .expect_code(550);
    let words = refused.text();
    assert!(words.contains("5.7.1 dangerous-attachment"), "{words}");
    assert!(
        words.contains("invoice.pdf.exe") && words.contains("Send a link"),
        "{words}"
    );
    sent(&mut client, &attached("invoice.pdf"))
        .await
        .expect_code(250);
    let held = penstock.submit("a@b.test", &["x@example.net"], "").await;
    let held = held.expect_code(250).queue_id();
    penstock.until("one left", |queue| queue.len() == 1).await;
    let shown = penstock.ask(json!({"show": {"id": held}})).await.remove(0);
    assert_eq!(shown["detail"]["hold"]["reason"], "hint", "{shown:#}");
    assert_eq!(out.count(), 1);
    penstock.stop().await;
}

#[tokio::test]
async fn a_name_server_that_says_nothing_delays_no_mail() {
    let out = FakeRelay::default().start().await;
    let silent = Zone::default().silent().start().await;
    let config = format!(
        "default-relay = \"out\"\n[hints.spf-missing]\naction = \"hold\"\n{}",
        relay("out", &out, "")
    );
    let mut penstock = Harness::start_with_dns(&config, "", silent.address).await;
    for number in 0..20 {
        let from = format!("jan@d{number}.test");
        penstock
            .submit(&from, &["x@example.net"], "hi")
            .await
            .expect_code(250);
    }
    penstock.until_idle().await;
    assert_eq!(out.count(), 20);
    let known = penstock.ask(json!({"hints": {}})).await;
    let none = known.iter().all(|it| it["hint"]["severity"] != "serious");
    assert!(none, "{known:?}");
    penstock.stop().await;
}
