//! DMARC (RFC 7489): what receivers do with mail from this domain that neither SPF nor
//! DKIM vouches for, and whether SPF can by this relay.
//!
//! Penstock signs nothing; whether the relay does cannot be seen from here, and the
//! findings say so.

use super::finding::{Finding, Severity, TxtRecord};
use super::organisation::{organisational, same};
use super::pair::Pair;
use super::spf::{Examined, Standing};
use crate::config::HintName;
use crate::dns::{self, Dns, DnsError};
use crate::mail::Domain;

/// A record, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// For the domain that asked: `p`, or `sp` for a subdomain of where it stands.
    pub action: Action,
    /// SPF must pass for exactly the From domain.
    pub strict_spf: bool,
    /// The share of mail it is applied to, in percent.
    pub percent: u8,
}

/// What receivers are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing but reports.
    None,
    /// Into the spam folder.
    Quarantine,
    /// Refuse it.
    Reject,
}

/// What is published for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Published {
    Nothing,
    /// The name it stands at, the texts, and what is wrong with them.
    Wrong(String, Vec<String>, String),
    One(String, String, Policy),
    Unknown(String),
}

/// What DMARC says about a pair; `sender` is the SPF of the reverse-path's domain, none
/// for a null reverse-path.
pub async fn findings(dns: &dyn Dns, pair: &Pair, sender: Option<&Examined>) -> Vec<Finding> {
    let from = &pair.from;
    let say = |hint, severity, found: String, evidence: Vec<String>, remedy: String| Finding {
        hint,
        severity,
        subject: from.to_string(),
        found,
        evidence,
        remedy,
        record: None,
    };
    match published(dns, from).await {
        Published::Unknown(words) => vec![say(
            HintName::DmarcMissing,
            Severity::Unknown,
            format!("the DMARC record of {from} could not be asked for"),
            vec![words],
            "Nothing, if it works the next time; it is asked again.".to_owned(),
        )],
        Published::Nothing => vec![missing(pair)],
        Published::Wrong(name, texts, what) => {
            let mut it = say(
                HintName::DmarcSyntax,
                Severity::Warning,
                format!("receivers cannot use the DMARC record of {from}: {what}"),
                texts
                    .iter()
                    .map(|it| format!("{name} TXT \"{it}\""))
                    .collect(),
                "Publish one record instead:".to_owned(),
            );
            it.record = Some(proposal(&name, from));
            vec![it]
        }
        Published::One(name, text, policy) => {
            let evidence = vec![format!("{name} TXT \"{text}\"")];
            alignment(pair, sender, &policy, evidence)
                .into_iter()
                .collect()
        }
    }
}

fn missing(pair: &Pair) -> Finding {
    let from = &pair.from;
    let (severity, why) = match pair.relay.bulk {
        true => (
            Severity::Warning,
            "Gmail and Yahoo refuse large amounts of mail from such domains",
        ),
        false => (Severity::Notice, "anybody can send in its name"),
    };
    let organisation = organisational(from);
    Finding {
        hint: HintName::DmarcMissing,
        severity,
        subject: from.to_string(),
        found: format!("{from} has no DMARC record: {why}"),
        evidence: vec![match organisation == from.ascii() {
            true => format!("_dmarc.{organisation} TXT: none"),
            false => format!("_dmarc.{}, _dmarc.{organisation} TXT: none", from.ascii()),
        }],
        remedy: "Publish one that only asks for reports, and tighten it when they are clean:"
            .to_owned(),
        record: Some(proposal(&format!("_dmarc.{organisation}"), from)),
    }
}

fn proposal(name: &str, from: &Domain) -> TxtRecord {
    TxtRecord {
        name: name.to_owned(),
        text: format!(
            "v=DMARC1; p=none; rua=mailto:postmaster@{}",
            organisational(from)
        ),
    }
}

/// What the policy does to mail by this relay.
fn alignment(
    pair: &Pair,
    sender: Option<&Examined>,
    policy: &Policy,
    mut evidence: Vec<String>,
) -> Option<Finding> {
    let (from, relay) = (&pair.from, &pair.relay.name);
    let mut severity = match policy.action {
        Action::None => Severity::Notice,
        Action::Quarantine | Action::Reject => Severity::Serious,
    };
    let aligned = |domain: &Domain| match policy.strict_spf {
        true => domain == from,
        false => same(domain, from),
    };
    let why = match sender {
        None => "it has a null reverse-path".to_owned(),
        Some(it) if !aligned(&it.domain) => format!(
            "its reverse-path is at {}{}",
            it.domain,
            match policy.strict_spf {
                true => ", and aspf=s wants the very same domain",
                false => "",
            }
        ),
        Some(it) => match &it.standing {
            Standing::Authorised(_) => return None,
            Standing::Missing(what) => format!("SPF does not pass ({what})"),
            Standing::NotConfigured => {
                severity = Severity::Unknown;
                "what the relay needs in SPF is not configured".to_owned()
            }
            Standing::Untold(terms) => {
                severity = Severity::Unknown;
                evidence.push(terms.clone());
                "its SPF record depends on the message".to_owned()
            }
            Standing::Trouble(words) => {
                severity = Severity::Unknown;
                evidence.push(words.clone());
                "DNS did not answer".to_owned()
            }
        },
    };
    let consequence = match policy.action {
        Action::None => "is delivered and reported (p=none)",
        Action::Quarantine => "goes to the spam folder (p=quarantine)",
        Action::Reject => "is refused (p=reject)",
    };
    let share = match policy.percent {
        100 => String::new(),
        percent => format!(", {percent}% of it"),
    };
    let found = format!(
        "DMARC: for mail from {from} by relay {relay}, SPF cannot vouch, because {why}; unless the \
         relay signs with DKIM for {from}, it {consequence}{share}"
    );
    evidence.push(pair.sender_words());
    let remedy = match sender {
        Some(it) if aligned(&it.domain) => {
            format!("Repair SPF as said above, or have the relay sign with DKIM for {from}.")
        }
        _ => format!(
            "Have the relay sign with DKIM for {from}, or let the reverse-path be the From \
             address: penstock relay set {relay} --reverse-path from."
        ),
    };
    Some(Finding {
        hint: HintName::DmarcAlignment,
        severity,
        subject: from.to_string(),
        found,
        evidence,
        remedy,
        record: None,
    })
}

/// Asks the domain, then its organisation (RFC 7489 section 6.6.3).
async fn published(dns: &dyn Dns, from: &Domain) -> Published {
    let own = at(dns, from.ascii(), false).await;
    let organisation = organisational(from);
    match own {
        Published::Nothing if organisation != from.ascii() => at(dns, organisation, true).await,
        own => own,
    }
}

async fn at(dns: &dyn Dns, domain: &str, for_subdomain: bool) -> Published {
    let name = format!("_dmarc.{domain}");
    let mut texts = match dns::texts(dns, &name).await {
        Ok(texts) => texts,
        Err(DnsError::NoSuchName | DnsError::NoData) => Vec::new(),
        Err(error @ DnsError::Trouble(_)) => {
            return Published::Unknown(format!("{name} TXT: {error}"));
        }
    };
    texts.retain(|it| is_dmarc(it));
    match &texts[..] {
        [] => Published::Nothing,
        [text] => match parse(text, for_subdomain) {
            Ok(policy) => Published::One(name, text.clone(), policy),
            Err(what) => Published::Wrong(name, texts, what),
        },
        several => {
            let what = format!("there are {} of them", several.len());
            Published::Wrong(name, texts, what)
        }
    }
}

/// Whether a text is a DMARC record: the version comes first, letter for letter.
fn is_dmarc(text: &str) -> bool {
    let first = text.split(';').next().unwrap_or_default();
    first
        .split_once('=')
        .is_some_and(|(tag, value)| tag.trim() == "v" && value.trim() == "DMARC1")
}

/// Reads a record (RFC 7489 section 6.3); unknown tags are passed over, as it says.
fn parse(text: &str, for_subdomain: bool) -> Result<Policy, String> {
    let tag = |name: &str| {
        text.split(';')
            .filter_map(|it| it.split_once('='))
            .find(|(tag, _)| tag.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let action = |value: &str| match value.to_ascii_lowercase().as_str() {
        "none" => Some(Action::None),
        "quarantine" => Some(Action::Quarantine),
        "reject" => Some(Action::Reject),
        _ => None,
    };
    let own = match tag("p") {
        Some(value) => action(value),
        None => None,
    };
    // Without a usable p, a record with rua counts as p=none (section 6.6.3).
    let own = match (own, tag("rua")) {
        (Some(own), _) => own,
        (None, Some(_)) => Action::None,
        (None, None) => {
            return Err(match tag("p") {
                Some(value) => format!("p={value} is not none, quarantine or reject"),
                None => "it has no p=".to_owned(),
            });
        }
    };
    let below = tag("sp").and_then(action).unwrap_or(own);
    Ok(Policy {
        action: if for_subdomain { below } else { own },
        strict_spf: tag("aspf").is_some_and(|it| it.eq_ignore_ascii_case("s")),
        percent: tag("pct")
            .and_then(|it| it.parse().ok())
            .filter(|it| *it <= 100)
            .unwrap_or(100),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Zone;

    #[test]
    fn a_record_is_read_as_the_standard_says() {
        let policy = parse("v=DMARC1; p=reject; sp=none; aspf=s; pct=20; x=y", false).unwrap();
        assert_eq!(
            policy,
            Policy {
                action: Action::Reject,
                strict_spf: true,
                percent: 20
            }
        );
        let below = parse("v=DMARC1; p=reject; sp=none", true).unwrap();
        assert_eq!(below.action, Action::None);
        let below = parse("v=DMARC1;P=Reject", true).unwrap();
        assert_eq!(below.action, Action::Reject);
        let mild = parse("v=DMARC1; p=whatever; rua=mailto:a@b.example", false).unwrap();
        assert_eq!(mild.action, Action::None);
        assert!(
            parse("v=DMARC1; p=whatever", false)
                .unwrap_err()
                .contains("p=whatever")
        );
        assert!(parse("v=DMARC1", false).unwrap_err().contains("no p="));
        assert!(is_dmarc("v = DMARC1 ; p=none"));
        for text in ["v=dmarc1; p=none", "p=none; v=DMARC1", "v=DMARC10", ""] {
            assert!(!is_dmarc(text), "{text}");
        }
    }

    #[tokio::test]
    async fn a_subdomain_falls_back_to_its_organisation() {
        let zone = Zone::default()
            .text("_dmarc.example.nl", "v=DMARC1; p=reject; sp=quarantine")
            .text("_dmarc.own.example.nl", "v=DMARC1; p=none")
            .text("_dmarc.two.example.nl", "v=DMARC1; p=none")
            .text("_dmarc.two.example.nl", "v=DMARC1; p=reject")
            .text("_dmarc.other.example.nl", "something else")
            .trouble("_dmarc.slow.example.nl");
        let found = async |name: &str| published(&zone, &Domain::parse(name).unwrap()).await;
        let action = async |name: &str| match found(name).await {
            Published::One(_, _, policy) => policy.action,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(action("example.nl").await, Action::Reject);
        assert_eq!(action("a.b.example.nl").await, Action::Quarantine);
        assert_eq!(action("own.example.nl").await, Action::None);
        assert_eq!(action("other.example.nl").await, Action::Quarantine);
        assert!(matches!(
            found("two.example.nl").await,
            Published::Wrong(..)
        ));
        assert!(matches!(
            found("slow.example.nl").await,
            Published::Unknown(_)
        ));
        assert_eq!(found("example.org").await, Published::Nothing);
    }
}
