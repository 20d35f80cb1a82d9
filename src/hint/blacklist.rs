//! Blacklists in DNS (RFC 5782): only those that the administrator names.
//!
//! Lists answer in 127.0.0.0/8. Some of those answers are error codes (127.255.255.x:
//! asked by a public resolver, too often, wrongly), and an answer from elsewhere is a
//! domain that was sold: neither is a listing.

use std::net::IpAddr;

use super::finding::{Finding, Severity};
use super::pair::Pair;
use super::spf;
use crate::config::{Config, HintName};
use crate::dns::{self, Dns, DnsError, Kind, Record, reverse_name};
use crate::mail::Domain;

/// Addresses of one relay that are asked for; lists do not like being asked for all.
const ADDRESSES_MAXIMUM: usize = 16;

/// What a list says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    NotListed,
    /// The code, and the list's own words.
    Listed(IpAddr, String),
    /// No answer, or one that is no listing.
    Unknown(String),
}

/// What the lists say about a relay's addresses and a From domain.
pub async fn findings(dns: &dyn Dns, config: &Config, pair: &Pair) -> Vec<Finding> {
    let mut findings = Vec::new();
    let addresses = spf::samples(&pair.relay.outbound_ips);
    for list in &config.hints.dnsbl {
        for address in addresses.iter().take(ADDRESSES_MAXIMUM) {
            let whole = reverse_name(*address);
            let reversed = whole
                .trim_end_matches(".in-addr.arpa")
                .trim_end_matches(".ip6.arpa");
            let name = format!("{reversed}.{}", list.ascii());
            let answer = ask(dns, &name).await;
            let about = (HintName::BlacklistedAddress, address.to_string());
            findings.extend(finding(about, list, &name, answer));
        }
    }
    for list in &config.hints.rhsbl {
        let name = format!("{}.{}", pair.from.ascii(), list.ascii());
        let answer = ask(dns, &name).await;
        let about = (HintName::BlacklistedDomain, pair.from.to_string());
        findings.extend(finding(about, list, &name, answer));
    }
    findings
}

async fn ask(dns: &dyn Dns, name: &str) -> Answer {
    let records = match dns.look_up(name, Kind::A).await {
        Ok(records) => records,
        Err(DnsError::NoSuchName | DnsError::NoData) => return Answer::NotListed,
        Err(error @ DnsError::Trouble(_)) => return Answer::Unknown(error.to_string()),
    };
    let codes: Vec<IpAddr> = records
        .into_iter()
        .filter_map(|it| match it {
            Record::Address(address) => Some(address),
            _ => None,
        })
        .collect();
    let words = dns::texts(dns, name).await.unwrap_or_default().join(" ");
    let refused =
        |it: &&IpAddr| matches!(it, IpAddr::V4(it) if it.octets()[..3] == [127, 255, 255]);
    if let Some(code) = codes.iter().find(refused) {
        return Answer::Unknown(format!("{code}: the list refuses to answer. {words}"));
    }
    // 127.0.0.1 must never be used for a listing (RFC 5782 section 2.1).
    let listing = |it: &&IpAddr| matches!(it, IpAddr::V4(it) if it.octets()[0] == 127 && it.octets() != [127, 0, 0, 1]);
    match codes.iter().find(listing) {
        Some(code) => Answer::Listed(*code, words),
        None => Answer::Unknown(format!("{codes:?} is no answer of a list")),
    }
}

fn finding(
    (hint, subject): (HintName, String),
    list: &Domain,
    name: &str,
    answer: Answer,
) -> Option<Finding> {
    let (severity, found, evidence, remedy) = match answer {
        Answer::NotListed => return None,
        Answer::Listed(code, words) => (
            Severity::Serious,
            format!(
                "{subject} is on the blacklist {list}: {}",
                match words.as_str() {
                    "" => "it says no more",
                    words => words,
                }
            ),
            vec![
                format!("{name} A {code}"),
                format!("{name} TXT \"{words}\""),
            ],
            format!("Stop what got it there, then have it taken off where {list} says how."),
        ),
        Answer::Unknown(words) => (
            Severity::Unknown,
            format!("the blacklist {list} did not say whether {subject} is on it"),
            vec![format!("{name}: {words}")],
            format!(
                "Many lists answer no public resolver: ask {list} by a resolver of your own, \
                 or take it out of [hints]."
            ),
        ),
    };
    Some(Finding {
        hint,
        severity,
        subject,
        found,
        evidence,
        remedy,
        record: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Zone;

    #[tokio::test]
    async fn error_codes_and_foreign_answers_are_no_listings() {
        let zone = Zone::default()
            .address("2.0.0.127.bl.example", "127.0.0.2")
            .text("2.0.0.127.bl.example", "see https://bl.example/2")
            .address("3.0.0.127.bl.example", "127.255.255.254")
            .address("4.0.0.127.bl.example", "198.51.100.1")
            .address("5.0.0.127.bl.example", "127.0.0.1")
            .trouble("6.0.0.127.bl.example");
        let asked = async |number: u8| ask(&zone, &format!("{number}.0.0.127.bl.example")).await;
        let Answer::Listed(code, words) = asked(2).await else {
            panic!("listed");
        };
        assert_eq!(code.to_string(), "127.0.0.2");
        assert_eq!(words, "see https://bl.example/2");
        for number in 3..=6 {
            assert!(
                matches!(asked(number).await, Answer::Unknown(_)),
                "{number}"
            );
        }
        assert_eq!(asked(7).await, Answer::NotListed);
    }
}
