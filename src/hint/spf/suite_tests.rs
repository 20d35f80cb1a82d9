//! The public test suite of RFC 7208, every case of it.

use serde::Deserialize;
use serde_json::Value;

use super::evaluate::{Client, check_host};
use crate::dns::Zone;

#[derive(Deserialize)]
struct Suite {
    scenarios: Vec<Scenario>,
}

#[derive(Deserialize)]
struct Scenario {
    scenario: String,
    tests: Vec<Case>,
    zone: Vec<(String, Vec<Vec<Value>>)>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    helo: String,
    host: String,
    mailfrom: String,
    result: Vec<String>,
}

fn zone(scenario: &Scenario) -> Zone {
    let mut zone = Zone::default();
    for (name, records) in &scenario.zone {
        for record in records {
            let text = |place: usize| match &record[place] {
                Value::String(text) => text.clone(),
                Value::Array(strings) => strings.iter().filter_map(Value::as_str).collect(),
                other => panic!("{name}: {other}"),
            };
            zone = match record[0].as_str().unwrap() {
                "TIMEOUT" => zone.trouble(name),
                "TXT" => zone.text(name, &text(1)),
                "A" | "AAAA" => zone.address(name, &text(1)),
                "CNAME" => zone.alias(name, &text(1)),
                "PTR" => zone.name(name, &text(1)),
                "MX" => {
                    let preference = record[1][0].as_u64().unwrap();
                    let exchange = record[1][1].as_str().unwrap();
                    let exchange = if exchange.is_empty() { "." } else { exchange };
                    zone.mx(name, u16::try_from(preference).unwrap(), exchange)
                }
                other => panic!("{name}: {other}"),
            };
        }
    }
    zone
}

/// What `check_host` makes of a case.
async fn evaluate(zone: &Zone, case: &Case) -> super::evaluate::Evaluation {
    let (local, domain) = match case.mailfrom.rsplit_once('@') {
        Some((local, domain)) => (local, domain),
        None if case.mailfrom.is_empty() => ("postmaster", case.helo.as_str()),
        None => ("postmaster", case.mailfrom.as_str()),
    };
    let client = Client {
        address: case.host.parse().unwrap(),
        local,
        domain,
        helo: &case.helo,
    };
    check_host(zone, domain, client).await
}

#[tokio::test]
async fn every_case_of_the_public_test_suite_has_the_result_it_asks_for() {
    let text = include_str!("../../../tests/data/rfc7208/tests.json");
    let suite: Suite = serde_json::from_str(text).unwrap();
    let mut different = Vec::new();
    let mut cases = 0;
    for scenario in &suite.scenarios {
        let zone = zone(scenario);
        for case in &scenario.tests {
            cases += 1;
            let found = evaluate(&zone, case).await;
            if !case.result.iter().any(|it| it == found.outcome.name()) {
                different.push(format!(
                    "{}: {}: {} instead of {:?} ({})",
                    scenario.scenario,
                    case.name,
                    found.outcome.name(),
                    case.result,
                    found.because
                ));
            }
        }
    }
    assert_eq!(cases, 203);
    assert!(different.is_empty(), "\n{}", different.join("\n"));
}
