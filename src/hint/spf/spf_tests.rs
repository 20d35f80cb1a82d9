//! SPF hints against names in memory: what is found, how bad it is, what to publish.

use std::sync::Arc;

use super::*;
use crate::config::Config;
use crate::dns::Zone;
use crate::mail::Mailbox;

fn pair(relay: &str) -> Pair {
    let config = Config::parse(
        &format!("[relays.own]\nserver = \"[smtp.relay.example]:587\"\n{relay}\n"),
        "",
    )
    .unwrap();
    let from = Mailbox::parse("jan@a.example").unwrap();
    Pair::new(&from, Arc::new(config.relays["own"].clone()), None)
}

/// Name, severity, and the record to publish.
async fn found(zone: &Zone, relay: &str) -> Vec<(&'static str, Severity, Option<String>)> {
    let pair = pair(relay);
    let examined = examine(zone, &pair.from, &pair.relay).await;
    findings(zone, &pair, &examined)
        .await
        .into_iter()
        .map(|it| (it.hint.name(), it.severity, it.record.map(|it| it.text)))
        .collect()
}

const INCLUDE: &str = "spf-include = \"spf.relay.example\"";

fn zone(text: &str) -> Zone {
    Zone::default()
        .text("a.example", text)
        .text("a.example", "something else")
        .mx("a.example", 1, "mx.a.example")
        .address("mx.a.example", "192.0.2.25")
        .text("spf.relay.example", "v=spf1 ip4:198.51.100.0/24 -all")
}

#[tokio::test]
async fn a_record_that_lets_the_relay_send_has_nothing_against_it() {
    for (text, relay) in [
        ("v=spf1 include:spf.relay.example -all", INCLUDE),
        ("v=spf1 mx redirect=spf.relay.example", INCLUDE),
        (
            "v=spf1 ip4:198.51.100.7 -all",
            "outbound-ips = [\"198.51.100.7\"]",
        ),
        ("v=spf1 mx -all", "outbound-ips = [\"192.0.2.25\"]"),
    ] {
        assert_eq!(found(&zone(text), relay).await, [], "{text}");
    }
    let nested = zone("v=spf1 include:b.example ~all")
        .text("b.example", "v=spf1 include:SPF.Relay.Example ?all");
    assert_eq!(found(&nested, INCLUDE).await, []);
    let examined = examine(&nested, &pair(INCLUDE).from, &pair(INCLUDE).relay).await;
    assert_eq!(
        examined.standing,
        Standing::Authorised("a.example → b.example → spf.relay.example".to_owned())
    );
}

#[tokio::test]
async fn a_record_without_the_relay_is_shown_with_it() {
    let text = |it: &str| Some(it.to_owned());
    assert_eq!(
        found(&zone("v=spf1 mx -all"), INCLUDE).await,
        [(
            "spf-relay-missing",
            Severity::Serious,
            text("v=spf1 mx include:spf.relay.example -all")
        )]
    );
    // By address: the term is an address, and what is included counts by what it says.
    assert_eq!(
        found(
            &zone("v=spf1 mx -all"),
            "outbound-ips = [\"203.0.113.0/31\"]"
        )
        .await,
        [(
            "spf-relay-missing",
            Severity::Serious,
            text("v=spf1 mx ip4:203.0.113.0/31 -all")
        )]
    );
    // The include stands there, and does not have the address.
    assert_eq!(
        found(
            &zone("v=spf1  include:spf.relay.example -all"),
            &format!("{INCLUDE}\noutbound-ips = [\"203.0.113.9\"]")
        )
        .await,
        [(
            "spf-relay-missing",
            Severity::Serious,
            text("v=spf1 include:spf.relay.example ip4:203.0.113.9 -all")
        )]
    );
    // There, but not to pass.
    assert_eq!(
        found(&zone("v=spf1 ?include:spf.relay.example -all"), INCLUDE).await,
        [(
            "spf-relay-missing",
            Severity::Serious,
            text("v=spf1 include:spf.relay.example -all")
        )]
    );
    // Nobody said what the relay needs: that is not known, and not guessed.
    let unknown = found(&zone("v=spf1 mx -all"), "").await;
    assert_eq!(unknown, [("spf-relay-missing", Severity::Unknown, None)]);
}

#[tokio::test]
async fn no_record_several_and_a_wrong_one_have_a_remedy_that_is_right() {
    let none = Zone::default()
        .mx("a.example", 1, "mx.a.example")
        .text("spf.relay.example", "v=spf1 -all");
    let several = zone("v=spf1 mx -all").text("a.example", "v=spf1 ip4:192.0.2.1 ~all");
    let cases = [
        (
            none,
            "spf-missing",
            "v=spf1 mx include:spf.relay.example ~all",
        ),
        (
            several,
            "spf-several",
            "v=spf1 mx ip4:192.0.2.1 include:spf.relay.example ~all",
        ),
        (
            zone("v=spf1 ip:192.0.2.1 mx -all"),
            "spf-syntax",
            "v=spf1 ip4:192.0.2.1 mx include:spf.relay.example -all",
        ),
    ];
    for (zone, hint, record) in cases {
        let meant = (hint, Severity::Serious, Some(record.to_owned()));
        assert_eq!(found(&zone, INCLUDE).await, [meant]);
        // What is proposed has nothing against it any more.
        let published = Zone::default()
            .text("a.example", record)
            .mx("a.example", 1, "mx.a.example")
            .address("mx.a.example", "192.0.2.25")
            .text("spf.relay.example", "v=spf1 -all");
        assert_eq!(found(&published, INCLUDE).await, []);
    }
}

#[tokio::test]
async fn several_records_together_still_stay_within_ten_look_ups() {
    let mut zone = zone("v=spf1 mx a:gone.example -all");
    let mut second = "v=spf1".to_owned();
    for number in 0..8 {
        second.push_str(&format!(" include:i{number}.example"));
        zone = zone.text(&format!("i{number}.example"), "v=spf1 ip4:192.0.2.7 -all");
    }
    let zone = zone.text("a.example", &format!("{second} ~all"));
    let found = found(&zone, INCLUDE).await;
    assert_eq!(found.len(), 1);
    let text = found[0].2.as_deref().unwrap();
    let walk = walk::walk_text(&zone, "a.example", text).await.unwrap();
    assert!(walk.lookups <= 10, "{text}");
    assert!(walk.includes("spf.relay.example").unwrap().passes, "{text}");
    assert!(
        !text.contains("gone.example") && text.ends_with(" ~all"),
        "{text}"
    );
}

#[tokio::test]
async fn more_than_ten_look_ups_are_counted_along_all_includes() {
    let mut text = "v=spf1 include:spf.relay.example".to_owned();
    let mut chain = zone("");
    for number in 0..5 {
        text.push_str(&format!(" include:i{number}.example"));
        chain = chain
            .text(
                &format!("i{number}.example"),
                &format!("v=spf1 a:h{number}.example -all"),
            )
            .address(&format!("h{number}.example"), "192.0.2.7");
    }
    let exactly = chain.clone().text("a.example", &format!("{text} -all"));
    // The first text of a.example is empty, and no SPF record.
    let walked = walk(&exactly, "a.example").await;
    let Published::One(walked) = walked else {
        panic!("{walked:?}")
    };
    assert_eq!(walked.lookups, 11);
    let found = found(&exactly, INCLUDE).await;
    assert_eq!(found[0].0, "spf-lookups");
    assert_eq!(found[0].1, Severity::Serious);
    // Its owner has to decide what goes: no term of it is ours to write otherwise.
    assert_eq!(found[0].2, None);

    let fits = chain.text(
        "a.example",
        &format!("{} mx -all", text.replace(" include:i4.example", "")),
    );
    assert_eq!(super::spf_tests::found(&fits, INCLUDE).await, []);
}

#[tokio::test]
async fn void_look_ups_everybody_and_loops_are_found_wherever_they_stand() {
    let names = async |text: &str| -> Vec<&'static str> {
        let zone = zone(text)
            .text("loop.example", "v=spf1 include:loop.example -all")
            .text("open.example", "v=spf1 ip4:0.0.0.0/0 -all")
            .text("empty.example", "nothing");
        found(&zone, INCLUDE)
            .await
            .into_iter()
            .map(|it| it.0)
            .collect()
    };
    let with = |terms: &str| format!("v=spf1 include:spf.relay.example {terms}");
    assert_eq!(
        names(&with("a:x.example a:y.example -all")).await,
        Vec::<&str>::new()
    );
    assert_eq!(
        names(&with("a:x.example mx:y.example exists:z.example -all")).await,
        ["spf-void-lookups"]
    );
    assert_eq!(names(&with("+all")).await, ["spf-pass-all"]);
    assert_eq!(
        names(&with("include:open.example -all")).await,
        ["spf-pass-all"]
    );
    // Behind a qualifier that does not pass it harms nobody.
    assert_eq!(
        names(&with("?include:open.example -all")).await,
        Vec::<&str>::new()
    );
    assert_eq!(
        names(&with("include:loop.example -all")).await,
        ["spf-syntax"]
    );
    assert_eq!(
        names(&with("include:empty.example -all")).await,
        ["spf-syntax"]
    );
}

#[tokio::test]
async fn trouble_in_dns_is_unknown_and_no_finding() {
    let slow = Zone::default().trouble("a.example");
    assert_eq!(
        found(&slow, INCLUDE).await,
        [("spf-missing", Severity::Unknown, None)]
    );
    let half = zone("v=spf1 include:slow.example -all").trouble("slow.example");
    assert_eq!(
        found(&half, INCLUDE).await,
        [("spf-relay-missing", Severity::Unknown, None)]
    );
    let found = found(&half, "outbound-ips = [\"203.0.113.1\"]").await;
    assert_eq!(found, [("spf-relay-missing", Severity::Unknown, None)]);
}

#[tokio::test]
async fn what_only_a_receiver_can_follow_is_unknown_and_not_missing() {
    let unknown = [("spf-relay-missing", Severity::Unknown, None)];
    for text in [
        "v=spf1 include:%{ir}.%{v}.%{d}.spf.has.gateway.example ~all",
        "v=spf1 mx redirect=%{d}.spf.gateway.example",
    ] {
        assert_eq!(found(&zone(text), INCLUDE).await, unknown, "{text}");
    }
    // Behind a qualifier that does not pass it authorises nobody.
    let missing = found(&zone("v=spf1 ?include:%{d}.x.example ~all"), INCLUDE).await;
    assert_eq!(
        (missing[0].0, missing[0].1),
        ("spf-relay-missing", Severity::Serious)
    );
    // Beside one that passes it does not matter.
    let both = zone("v=spf1 include:%{d}.x.example include:spf.relay.example ~all");
    assert_eq!(found(&both, INCLUDE).await, []);
    // By address it is followed as receivers do.
    let by_address = zone("v=spf1 exists:%{i}.ok.example include:%{d}.x.example ~all")
        .address("203.0.113.9.ok.example", "127.0.0.2");
    let relay = "outbound-ips = [\"203.0.113.9\"]";
    assert_eq!(found(&by_address, relay).await, []);
    // A tree that is too large.
    let mut wide = "v=spf1".to_owned();
    let mut large = zone("");
    for number in 0..70 {
        wide.push_str(&format!(" include:i{number}.example"));
        large = large.text(&format!("i{number}.example"), "v=spf1 -all");
    }
    let large = large.text("a.example", &format!("{wide} -all"));
    let standing = examine(&large, &pair(INCLUDE).from, &pair(INCLUDE).relay)
        .await
        .standing;
    assert!(matches!(standing, Standing::Untold(_)), "{standing:?}");
}

#[test]
fn a_reverse_path_elsewhere_is_told() {
    assert_eq!(alignment(&pair("reverse-path = \"from\"")), None);
    assert_eq!(
        alignment(&pair("reverse-path = \"x@bounce.a.example\"")),
        None
    );
    let elsewhere = alignment(&pair("reverse-path = \"x@relay.example\"")).unwrap();
    assert_eq!(elsewhere.hint, HintName::SpfAlignment);
    assert!(elsewhere.found.contains("reverse-path at relay.example"));
}

#[test]
fn of_a_large_network_its_ends_and_some_between_are_evaluated() {
    let samples = |text: &str| samples(&[text.parse().unwrap()]);
    assert_eq!(samples("192.0.2.0/28").len(), 16);
    assert_eq!(samples("192.0.2.1/32").len(), 1);
    let large = samples("10.0.0.0/8");
    assert_eq!(large.len(), 64);
    assert!(large.contains(&"10.255.255.255".parse().unwrap()));
    assert_eq!(samples("2001:db8::/32").len(), 64);
}

/// A zone whose a.example has a record of its own, and the relay's one.
fn only(text: &str) -> Zone {
    Zone::default()
        .text("a.example", text)
        .text("spf.relay.example", "v=spf1 ip4:198.51.100.0/24 -all")
}

#[tokio::test]
async fn all_findings_about_a_record_offer_one_record_and_it_has_nothing_against_it() {
    let by_address = "outbound-ips = [\"198.51.100.7\"]";
    let voids = "v=spf1 a:x.example a:y.example a:z.example";
    let both = format!("{INCLUDE}\n{by_address}");
    for (text, relay, hints, record) in [
        (
            format!("{voids} -all"),
            INCLUDE,
            &["spf-void-lookups", "spf-relay-missing"][..],
            "v=spf1 include:spf.relay.example -all",
        ),
        (
            format!("{voids} -all"),
            by_address,
            &["spf-void-lookups", "spf-relay-missing"],
            "v=spf1 ip4:198.51.100.7 -all",
        ),
        // The relay stands there, behind more than receivers follow.
        (
            format!("{voids} include:spf.relay.example -all"),
            &both,
            &["spf-void-lookups", "spf-relay-missing"],
            "v=spf1 include:spf.relay.example -all",
        ),
        (
            "v=spf1 include:a.example -all".to_owned(),
            INCLUDE,
            &["spf-syntax", "spf-relay-missing"],
            "v=spf1 include:spf.relay.example -all",
        ),
        (
            "v=spf1 ip4:192.0.2.1 redirect=A.example.".to_owned(),
            INCLUDE,
            &["spf-syntax", "spf-relay-missing"],
            "v=spf1 ip4:192.0.2.1 include:spf.relay.example",
        ),
        // Nobody ever asks for what stands behind all.
        (
            "v=spf1 -all include:a.example".to_owned(),
            by_address,
            &["spf-relay-missing"],
            "v=spf1 ip4:198.51.100.7 -all",
        ),
        // Everybody may send, and so may the relay.
        (
            "v=spf1 +all".to_owned(),
            INCLUDE,
            &["spf-pass-all"],
            "v=spf1 include:spf.relay.example ~all",
        ),
        (
            "v=spf1 all".to_owned(),
            by_address,
            &["spf-pass-all"],
            "v=spf1 ip4:198.51.100.7 ~all",
        ),
    ] {
        let found = found(&only(&text), relay).await;
        let names: Vec<&str> = found.iter().map(|it| it.0).collect();
        assert_eq!(names, hints, "{text}");
        for (name, _, offered) in &found {
            assert_eq!(offered.as_deref(), Some(record), "{text}: {name}");
        }
        assert_eq!(super::spf_tests::found(&only(record), relay).await, []);
    }
}

#[tokio::test]
async fn without_the_relays_part_no_record_is_offered_whatever_is_wrong() {
    for text in [
        "v=spf1 a:x.example a:y.example a:z.example -all",
        "v=spf1 include:a.example -all",
        "v=spf1 +all",
    ] {
        for (name, _, record) in found(&only(text), "").await {
            assert_eq!(record, None, "{text}: {name}");
        }
    }
}

#[tokio::test]
async fn a_record_that_would_still_be_wrong_is_not_offered() {
    let cases = [
        // An include that is its owner's to repair.
        only("v=spf1 include:gone.example -all"),
        only("v=spf1 include:ring.example -all")
            .text("ring.example", "v=spf1 include:a.example -all"),
        // The relay's own part is missing.
        Zone::default().text("a.example", "v=spf1 -all"),
        Zone::default().mx("a.example", 1, "mx.a.example"),
        Zone::default().text("a.example", "v=spf1 ip:192.0.2.1 -all"),
        // Two that would be one, without the relay.
        Zone::default()
            .text("a.example", "v=spf1 -all")
            .text("a.example", "v=spf1 ~all"),
    ];
    for zone in cases {
        let found = found(&zone, INCLUDE).await;
        assert!(!found.is_empty());
        for (name, _, record) in found {
            assert_eq!(record, None, "{name}");
        }
    }
    let pair = pair(INCLUDE);
    let zone = only("v=spf1 include:gone.example -all");
    let examined = examine(&zone, &pair.from, &pair.relay).await;
    let said = findings(&zone, &pair, &examined).await;
    assert!(
        said[1].remedy.contains("gone.example: no SPF record"),
        "{:?}",
        said[1]
    );
}

#[tokio::test]
async fn terms_of_an_include_that_find_nothing_are_left_to_its_owner() {
    let zone = only("v=spf1 include:spf.relay.example include:o.example -all").text(
        "o.example",
        "v=spf1 a:x.example a:y.example a:z.example -all",
    );
    assert_eq!(
        found(&zone, INCLUDE).await,
        [("spf-void-lookups", Severity::Warning, None)]
    );
}
