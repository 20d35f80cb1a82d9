//! Mail to one's own domain by somebody else's relay: a receiver that sees its own domain
//! come from outside may take it for a forgery.

use std::net::IpAddr;

use super::finding::{Finding, Severity};
use super::pair::Pair;
use super::spf::{self, Examined, Standing};
use crate::config::{Config, HintName, Host, Relay};
use crate::dns::{self, Dns, MailServers};
use crate::mail::Domain;

/// Relays that are looked at for a remedy.
const RELAYS_MAXIMUM: usize = 8;

/// Whether such mail was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// No.
    No,
    /// Nobody asked about a certain message: it may come.
    Possible,
    /// Yes.
    Yes,
}

/// Whether a receiver may refuse "its own" mail by this relay; `own` is the SPF of the
/// From domain.
pub async fn finding(
    dns: &dyn Dns,
    config: &Config,
    pair: &Pair,
    own: &Examined,
    seen: Seen,
) -> Option<Finding> {
    if seen == Seen::No || matches!(own.standing, Standing::Authorised(_)) {
        return None;
    }
    let from = &pair.from;
    let servers = match dns::mail_servers(dns, from).await {
        // It takes no mail, so none of its own either.
        Ok(MailServers::Nobody) => return None,
        Ok(servers) => servers,
        Err(error) => {
            let words = format!("{from} MX: {error}");
            return Some(unknown(pair, words));
        }
    };
    let has_record = matches!(servers, MailServers::Listed(_));
    let servers = names(servers, from);
    if is_among(dns, &pair.relay, &servers).await {
        return None;
    }
    let mut evidence = vec![match has_record {
        true => format!("{from} MX {}", servers.join(", ")),
        false => format!("{from} has no MX record: its mail goes to {from} itself"),
    }];
    match &own.standing {
        Standing::Authorised(_) => return None,
        Standing::Missing(what) => evidence.push(format!("SPF: {what}")),
        Standing::Trouble(words) => return Some(unknown(pair, words.clone())),
        Standing::Untold(terms) => evidence.push(format!("SPF: not followed: {terms}")),
        Standing::NotConfigured => {
            evidence.push(format!(
                "neither spf-include nor outbound-ips of {}",
                pair.relay.name
            ));
        }
    }
    // Without the relay's part of SPF nobody can tell; then it is no more than a question.
    let severity = match (&own.standing, seen) {
        (Standing::NotConfigured | Standing::Untold(_), _) => Severity::Unknown,
        (_, Seen::Possible) => Severity::Notice,
        _ => Severity::Warning,
    };
    let relay = &pair.relay.name;
    Some(Finding {
        hint: HintName::SameDomain,
        severity,
        subject: from.to_string(),
        found: match severity {
            Severity::Unknown => format!(
                "mail from {from} to {from} leaves by {relay}, which is no mail server of that \
                 domain; whether its SPF names it cannot be told: unless it does, its own \
                 servers may refuse it as forged"
            ),
            _ => format!(
                "mail from {from} to {from} leaves by {relay}, which is neither a mail server of \
                 that domain nor in its SPF: its own servers may refuse it as forged"
            ),
        },
        evidence,
        remedy: remedy(dns, config, pair, &servers).await,
        record: None,
    })
}

fn unknown(pair: &Pair, words: String) -> Finding {
    Finding {
        hint: HintName::SameDomain,
        severity: Severity::Unknown,
        subject: pair.from.to_string(),
        found: format!(
            "whether {} may send mail from {} to {} was not answered",
            pair.relay.name, pair.from, pair.from
        ),
        evidence: vec![words],
        remedy: "Nothing, if it works the next time; it is asked again.".to_owned(),
        record: None,
    }
}

/// Which configured relay is the domain's own.
async fn remedy(dns: &dyn Dns, config: &Config, pair: &Pair, servers: &[String]) -> String {
    let mut own = Vec::new();
    let others = config
        .relays
        .values()
        .filter(|it| it.name != pair.relay.name);
    for relay in others.take(RELAYS_MAXIMUM) {
        let authorised = spf::examine(dns, &pair.from, relay).await.standing;
        if matches!(authorised, Standing::Authorised(_)) || is_among(dns, relay, servers).await {
            own.push(relay.name.as_str());
        }
    }
    match &own[..] {
        [] => format!(
            "No configured relay is authorised for {}: add {} to its SPF, or configure the \
             domain's own server as a relay.",
            pair.from, pair.relay.name
        ),
        [relay, ..] => format!(
            "Send mail of {} by {}, which is authorised: penstock user add @{} --relay {relay}.",
            pair.from,
            own.join(" or "),
            pair.from
        ),
    }
}

/// The servers that take mail for a domain, by name; the best first.
pub(super) fn names(servers: MailServers, domain: &Domain) -> Vec<String> {
    match servers {
        MailServers::Listed(servers) => servers.into_iter().map(|it| it.name).collect(),
        MailServers::Itself => vec![domain.ascii().to_owned()],
        MailServers::Nobody => Vec::new(),
    }
}

/// Whether the relay is one of these servers, by name or by address.
pub async fn is_among(dns: &dyn Dns, relay: &Relay, servers: &[String]) -> bool {
    let listed = |name: &str| servers.iter().any(|it| it.eq_ignore_ascii_case(name));
    let mut known: Vec<String> = Vec::new();
    let mut wanted: Vec<IpAddr> = Vec::new();
    for server in relay.servers.iter().take(RELAYS_MAXIMUM) {
        match &server.host {
            Host::Address(address) => wanted.push(*address),
            Host::Name(name) => known.push(name.ascii().to_owned()),
            // Where its connections go is what the name's MX records say.
            Host::Mx(name) => match dns::mail_servers(dns, name).await {
                Ok(found) => known.extend(names(found, name).into_iter().take(RELAYS_MAXIMUM)),
                Err(_) => known.push(name.ascii().to_owned()),
            },
        }
    }
    if known.iter().any(|it| listed(it)) {
        return true;
    }
    // One machine has many names.
    for name in &known {
        wanted.extend(dns::addresses(dns, name).await.unwrap_or_default());
    }
    if wanted.is_empty() && relay.outbound_ips.is_empty() {
        return false;
    }
    for server in servers.iter().take(RELAYS_MAXIMUM) {
        for address in dns::addresses(dns, server).await.unwrap_or_default() {
            let outbound = relay.outbound_ips.iter().any(|it| it.contains(&address));
            if outbound || wanted.contains(&address) {
                return true;
            }
        }
    }
    false
}

/// Whether a recipient's domain is the sender's organisation.
pub fn applies(from: &Domain, recipient: &Domain) -> bool {
    super::organisation::same(from, recipient)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::dns::Zone;
    use crate::mail::Mailbox;

    async fn found(zone: &Zone, relay: &str) -> Finding {
        let text = format!("[relays.own]\nserver = \"[smtp.relay.example]:587\"\n{relay}\n");
        let config = Config::parse(&text, "").unwrap();
        let from = Mailbox::parse("jan@a.example").unwrap();
        let pair = Pair::new(&from, Arc::new(config.relays["own"].clone()), None);
        let own = spf::examine(zone, &pair.from, &pair.relay).await;
        let found = finding(zone, &config, &pair, &own, Seen::Yes).await;
        found.unwrap()
    }

    #[tokio::test]
    async fn what_cannot_be_told_is_not_said_as_a_fact_and_no_record_is_made_up() {
        let zone = Zone::default().text("a.example", "v=spf1 -all");
        let unknown = found(&zone, "").await;
        assert_eq!(unknown.severity, Severity::Unknown);
        assert!(unknown.found.contains("cannot be told"), "{unknown:?}");
        assert!(!unknown.found.contains("nor in its SPF"), "{unknown:?}");
        assert!(!unknown.evidence[0].contains(" MX a."), "{unknown:?}");
        assert!(unknown.evidence[0].contains("no MX record"), "{unknown:?}");
        let zone = zone.mx("a.example", 1, "mx.a.example");
        let known = found(&zone, "spf-include = \"spf.relay.example\"").await;
        assert_eq!(known.severity, Severity::Warning);
        assert!(known.found.contains("nor in its SPF"), "{known:?}");
        assert_eq!(known.evidence[0], "a.example MX mx.a.example");
    }
}
