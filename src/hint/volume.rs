//! Large amounts of mail where they do not belong: by a provider that forbids them, or by
//! the relay or address that also carries the domain's internal mail.
//!
//! What the large amounts do to the address's reputation, the colleagues' mail then pays.

use std::sync::Arc;

use super::finding::{Finding, Severity};
use super::pair::Pair;
use super::provider;
use super::same_domain::is_among;
use crate::config::{Config, HintName, Relay};
use crate::dns::{self, Dns, MailServers};

/// What makes mail of a pair a large amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bulk {
    /// Nothing.
    No,
    /// The relay is marked with `bulk = true`.
    Marked,
    /// A mailing: its label, and its messages so far.
    Mailing(String, u64),
}

impl Bulk {
    /// What the configuration says of a relay.
    pub fn configured(relay: &Relay) -> Self {
        match relay.bulk {
            true => Self::Marked,
            false => Self::No,
        }
    }

    fn words(&self, relay: &str) -> String {
        match self {
            Self::No => String::new(),
            Self::Marked => format!("relay {relay} is configured for large amounts (bulk)"),
            Self::Mailing(label, messages) => {
                format!("mailing \"{label}\": {messages} messages within the hour")
            }
        }
    }
}

/// Whether a large amount goes where it should not.
pub async fn findings(dns: &dyn Dns, config: &Config, pair: &Pair, bulk: &Bulk) -> Vec<Finding> {
    if *bulk == Bulk::No {
        return Vec::new();
    }
    let relay = &pair.relay;
    let mut findings = Vec::new();
    let evidence = bulk.words(&relay.name);
    if let Some(known) = provider::of(relay)
        && let Some(why) = known.forbids_bulk
    {
        findings.push(Finding {
            hint: HintName::BulkProvider,
            severity: Severity::Warning,
            subject: pair.from.to_string(),
            found: format!(
                "large amounts of mail from {} go by {}: {why}",
                pair.from, known.name
            ),
            evidence: vec![evidence.clone(), known.source.to_owned()],
            remedy: format!(
                "{} {}",
                better(config, relay),
                "Its limits keep the account until then."
            ),
            record: None,
        });
    }
    if let Some(why) = carries_internal(dns, config, pair).await {
        findings.push(Finding {
            hint: HintName::BulkInternal,
            severity: Severity::Warning,
            subject: pair.from.to_string(),
            found: format!(
                "large amounts of mail from {} go by {}, which also carries internal mail: when \
                 it gets a bad name, the colleagues' mail suffers",
                pair.from, relay.name
            ),
            evidence: vec![evidence, why],
            remedy: better(config, relay),
            record: None,
        });
    }
    findings
}

/// Where the mailings could go instead.
fn better(config: &Config, not: &Arc<Relay>) -> String {
    let fit = |it: &&Relay| {
        it.name != not.name
            && it.bulk
            && provider::of(it).is_none_or(|it| it.forbids_bulk.is_none())
    };
    match config.relays.values().find(fit) {
        Some(relay) => format!(
            "Give the mailing a From address of its own, and that one relay {}: penstock user \
             add ADDRESS --relay {}.",
            relay.name, relay.name
        ),
        None => "Send mailings through a relay that accepts large amounts, from an address of \
                 its own."
            .to_owned(),
    }
}

/// Why the relay counts as one that carries the domain's internal mail.
async fn carries_internal(dns: &dyn Dns, config: &Config, pair: &Pair) -> Option<String> {
    if let Ok(MailServers::Listed(servers)) = dns::mail_servers(dns, &pair.from).await {
        let names: Vec<String> = servers.into_iter().map(|it| it.name).collect();
        if is_among(dns, &pair.relay, &names).await {
            return Some(format!("{} MX {}", pair.from, names.join(", ")));
        }
    }
    // The same address behind a relay that is not for mailings.
    let shares = |other: &&Relay| {
        other.name != pair.relay.name
            && !other.bulk
            && other.outbound_ips.iter().any(|one| {
                pair.relay
                    .outbound_ips
                    .iter()
                    .any(|it| it.contains(one) || one.contains(it))
            })
    };
    let other = config.relays.values().find(shares)?;
    Some(format!(
        "relays {} and {} send from the same addresses (outbound-ips)",
        pair.relay.name, other.name
    ))
}
