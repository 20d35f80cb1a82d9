//! Large amounts of mail where they do not belong: by a provider that forbids them, or by
//! the relay or address that also carries the domain's internal mail.
//!
//! What the large amounts do to the address's reputation, the colleagues' mail then pays.

use std::sync::Arc;

use super::finding::{Finding, Severity};
use super::pair::Pair;
use super::provider;
use super::same_domain::{is_among, names};
use crate::config::{Config, HintName, Preset, Relay};
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
            remedy: format!("{}{}", better(config, relay), until_then(relay)),
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

/// What keeps the account until then: the provider's own limits, where they are known.
fn until_then(relay: &Relay) -> String {
    let known = |it: &crate::config::Server| Preset::of_provider(&it.host);
    match relay.servers.iter().find_map(known) {
        None => String::new(),
        Some(preset) if relay.limits.preset != preset => format!(
            " Until then limits = {{ preset = \"{preset}\" }} in [relays.{}] keeps the account.",
            relay.name
        ),
        Some(_) if relay.limits.overridden.is_empty() => {
            " Its limits keep the account until then.".to_owned()
        }
        Some(_) => String::new(),
    }
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
    if let Ok(servers @ MailServers::Listed(_)) = dns::mail_servers(dns, &pair.from).await {
        let names = names(servers, &pair.from);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_keep_an_account_only_where_they_are_the_providers() {
        let said = |rest: &str| {
            let text = format!("[relays.own]\nserver = \"[smtp.office365.com]:587\"\n{rest}\n");
            until_then(&Config::parse(&text, "").unwrap().relays["own"])
        };
        let kept = said("limits = { preset = \"microsoft-365\" }");
        assert_eq!(kept, " Its limits keep the account until then.");
        assert_eq!(
            said("bulk = true"),
            " Until then limits = { preset = \"microsoft-365\" } in [relays.own] keeps the account."
        );
        assert_eq!(
            said("limits = { preset = \"microsoft-365\", batch-messages = 900 }"),
            ""
        );
        assert_eq!(
            until_then(
                &Config::parse("[relays.a]\nserver = \"a.example\"\n", "")
                    .unwrap()
                    .relays["a"]
            ),
            ""
        );
    }
}
