//! SPF (RFC 7208): whether a domain's record lets a relay send for it.
//!
//! The relay's part is what the configuration says (`spf-include`, `outbound-ips`) or its
//! provider documents; it is never guessed from the address of the submission host,
//! which usually is not the one that mail leaves from.

pub mod evaluate;
mod macros;
mod offer;
mod record;
mod remedy;
#[cfg(test)]
mod spf_tests;
mod standing;
#[cfg(test)]
mod suite_tests;
mod walk;

use super::finding::{Finding, Severity, TxtRecord};
use super::pair::Pair;
use super::provider;
use crate::config::{HintName, Relay};
use crate::dns::{self, Dns, MailServers};
use crate::mail::Domain;
use crate::mail::count::count;

use evaluate::{LOOKUPS_MAXIMUM, VOIDS_MAXIMUM};
use remedy::{Addition, Proposal};
pub use standing::{Examined, Standing, examine, samples};
pub use walk::{Published, Walk, walk};

/// What is wrong with SPF for a pair.
pub async fn findings(dns: &dyn Dns, pair: &Pair, examined: &Examined) -> Vec<Finding> {
    let domain = &examined.domain;
    let relay = &pair.relay.name;
    let say = |hint, severity, found: String| Finding {
        hint,
        severity,
        subject: domain.to_string(),
        found,
        evidence: evidence(examined),
        remedy: String::new(),
        record: None,
    };
    let mut findings = Vec::new();
    let addition = match &examined.published {
        Published::Unknown(words) => {
            let mut it = say(
                HintName::SpfMissing,
                Severity::Unknown,
                format!("the SPF record of {domain} could not be asked for"),
            );
            it.evidence = vec![words.clone()];
            it.remedy = "Nothing, if it works the next time; it is asked again.".to_owned();
            return vec![it];
        }
        _ => addition(dns, &pair.relay).await,
    };
    match &examined.published {
        Published::Unknown(_) => {}
        Published::Nothing => {
            let servers = dns::mail_servers(dns, domain).await;
            let has_servers = matches!(servers, Ok(MailServers::Listed(_)));
            let proposal = offer::anew(dns, domain, &addition, &pair.relay, |it| {
                remedy::first(it, has_servers)
            });
            let found =
                format!("{domain} has no SPF record: nobody can tell that {relay} may send for it");
            let it = say(HintName::SpfMissing, Severity::Serious, found);
            return vec![with(it, domain, &proposal.await, "Publish an SPF record:")];
        }
        Published::Several(texts) => {
            let found = format!(
                "{domain} has {} SPF records; receivers then heed none of them (permerror)",
                texts.len()
            );
            let it = say(HintName::SpfSeveral, Severity::Serious, found);
            let proposal = offer::anew(dns, domain, &addition, &pair.relay, |it| {
                remedy::merged(texts, it)
            });
            return vec![with(
                it,
                domain,
                &proposal.await,
                "Publish one instead of all of them:",
            )];
        }
        Published::Wrong(text, what) => {
            let found =
                format!("receivers cannot read the SPF record of {domain} (permerror): {what}");
            let it = say(HintName::SpfSyntax, Severity::Serious, found);
            let proposal = offer::anew(dns, domain, &addition, &pair.relay, |it| {
                remedy::corrected(text, it)
            });
            return vec![with(it, domain, &proposal.await, "Publish instead:")];
        }
        Published::One(walk) => {
            let proposal = offer::instead(dns, walk, examined, &addition, &pair.relay);
            // A record with nothing against it needs no other, and no more questions.
            let proposal = match needs_another(walk, examined) {
                true => proposal.await,
                false => remedy::unknown(relay),
            };
            findings.extend(of_walk(walk, domain, &proposal, &say));
            findings.extend(of_standing(examined, &proposal, relay, &say));
        }
    }
    findings
}

/// Whether another record than the one that stands may be the remedy.
fn needs_another(walk: &Walk, examined: &Examined) -> bool {
    !walk.wrong.is_empty()
        || walk.lookups > LOOKUPS_MAXIMUM
        || walk.voids.len() > VOIDS_MAXIMUM
        || walk.passes_all.is_some()
        || matches!(examined.standing, Standing::Missing(_))
}

/// What is wrong with the record whoever sends.
fn of_walk(
    walk: &Walk,
    domain: &Domain,
    proposal: &Proposal,
    say: &impl Fn(HintName, Severity, String) -> Finding,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(first) = walk.wrong.first() {
        let found = format!(
            "the SPF record of {domain} leads to one that is missing or cannot be read \
             (permerror): {first}"
        );
        let mut it = say(HintName::SpfSyntax, Severity::Serious, found);
        it.evidence.truncate(1);
        it.evidence.extend(walk.wrong.iter().skip(1).cloned());
        it.remedy = "Take that include out, or have its owner repair it.".to_owned();
        // Where the record only leads to itself, the way out is ours to write.
        findings.push(match proposal.text.is_some() {
            true => with(it, domain, proposal, "Publish instead:"),
            false => it,
        });
    }
    if walk.lookups > LOOKUPS_MAXIMUM {
        let found = format!(
            "the SPF record of {domain} needs {} look-ups and may need {LOOKUPS_MAXIMUM}: \
             receivers that get that far give up (permerror)",
            walk.lookups
        );
        let mut it = say(HintName::SpfLookups, Severity::Serious, found);
        // The record itself; what it includes says less than the sums.
        it.evidence.truncate(1);
        it.evidence
            .extend(walk.terms.iter().filter(|it| it.lookups > 0).map(|it| {
                let cost = count(it.lookups as u64, "look-up", "look-ups");
                format!("{}: {cost}", it.text)
            }));
        findings.push(with(it, domain, proposal, "Publish instead:"));
    }
    if walk.voids.len() > VOIDS_MAXIMUM {
        let found = format!(
            "{} look-ups of the SPF record of {domain} find nothing; after {VOIDS_MAXIMUM} \
             receivers may give up (permerror)",
            walk.voids.len()
        );
        let mut it = say(HintName::SpfVoidLookups, Severity::Warning, found);
        // The record itself; what it includes says less than the sums.
        it.evidence.truncate(1);
        it.evidence.extend(
            walk.voids
                .iter()
                .map(|(place, term)| format!("{place}: {term} finds nothing")),
        );
        it.remedy = "Take out the terms that find nothing.".to_owned();
        // Those of an include are its owner's to take out.
        let own = walk.terms.iter().filter(|it| it.void).count();
        findings.push(match walk.voids.len() - own <= VOIDS_MAXIMUM {
            true => with(it, domain, proposal, "Publish instead:"),
            false => it,
        });
    }
    if let Some(way) = &walk.passes_all {
        let found = format!("the SPF record of {domain} lets everybody send for it: {way}");
        let it = say(HintName::SpfPassAll, Severity::Warning, found);
        findings.push(match remedy::passes_all_itself(walk) {
            true => with(it, domain, proposal, "Publish instead:"),
            false => Finding {
                remedy: "Take out the include that leads there.".to_owned(),
                ..it
            },
        });
    }
    findings
}

/// Whether the relay may send.
fn of_standing(
    examined: &Examined,
    proposal: &Proposal,
    relay: &str,
    say: &impl Fn(HintName, Severity, String) -> Finding,
) -> Option<Finding> {
    let domain = &examined.domain;
    match &examined.standing {
        Standing::Authorised(_) => None,
        Standing::Missing(what) => {
            let found = format!("the SPF record of {domain} does not authorise {relay}: {what}");
            let it = say(HintName::SpfRelayMissing, Severity::Serious, found);
            Some(with(it, domain, proposal, "Publish instead:"))
        }
        Standing::NotConfigured => {
            let found =
                format!("whether the SPF record of {domain} authorises {relay} cannot be told");
            Some(Finding {
                remedy: format!(
                    "Ask the relay's provider what senders' SPF must include, and write it: \
                     penstock relay set {relay} --spf-include DOMAIN, or outbound-ips in \
                     [relays.{relay}]."
                ),
                ..say(HintName::SpfRelayMissing, Severity::Unknown, found)
            })
        }
        Standing::Untold(terms) => {
            let found = format!(
                "whether the SPF record of {domain} authorises {relay} depends on each message, or \
                 stands too deep to be followed: {terms}"
            );
            Some(Finding {
                remedy: format!(
                    "If the relay's provider says from which addresses it sends, write them in \
                     [relays.{relay}]: outbound-ips = [...]. They are judged as receivers do."
                ),
                ..say(HintName::SpfRelayMissing, Severity::Unknown, found)
            })
        }
        Standing::Trouble(words) => {
            let found =
                format!("whether the SPF record of {domain} authorises {relay} was not answered");
            let mut it = say(HintName::SpfRelayMissing, Severity::Unknown, found);
            it.evidence.push(words.clone());
            it.remedy = "Nothing, if it works the next time; it is asked again.".to_owned();
            Some(it)
        }
    }
}

/// Whether receivers ask the From domain's record at all.
pub fn alignment(pair: &Pair) -> Option<Finding> {
    let sender = pair.sender.as_ref()?;
    if super::organisation::same(sender, &pair.from) {
        return None;
    }
    Some(Finding {
        hint: HintName::SpfAlignment,
        severity: Severity::Notice,
        subject: pair.from.to_string(),
        found: format!(
            "mail from {} leaves {} with a reverse-path at {sender}: receivers ask the SPF record \
             of {sender}, and DMARC does not count it for {}",
            pair.from, pair.relay.name, pair.from
        ),
        evidence: vec![pair.sender_words()],
        remedy: format!(
            "If nothing needs that reverse-path: penstock relay set {} --reverse-path from. \
             Otherwise the relay must sign with DKIM for {}.",
            pair.relay.name, pair.from
        ),
        record: None,
    })
}

/// What the relay needs in a record.
async fn addition(dns: &dyn Dns, relay: &Relay) -> Addition {
    let Some((domain, _)) = provider::include(relay) else {
        return Addition {
            networks: relay.outbound_ips.clone(),
            ..Addition::default()
        };
    };
    // The cost of what cannot be asked is taken for nothing.
    let (cost, voids) = match walk(dns, domain.ascii()).await {
        Published::One(walk) => (walk.lookups, walk.voids.len()),
        _ => (0, 0),
    };
    Addition {
        include: Some((domain, cost)),
        voids,
        networks: relay.outbound_ips.clone(),
    }
}

/// A finding with the record that is its remedy.
fn with(mut finding: Finding, domain: &Domain, proposal: &Proposal, lead: &str) -> Finding {
    let Proposal { text, notes } = proposal;
    let words = notes.join(" ");
    finding.remedy = match (&text, words.is_empty()) {
        (Some(_), true) => lead.to_owned(),
        (Some(_), false) => format!("{words} {lead}"),
        (None, _) => words,
    };
    finding.record = text.as_ref().map(|text| TxtRecord {
        name: domain.ascii().to_owned(),
        text: text.clone(),
    });
    finding
}

/// The records that were seen, as they stand.
fn evidence(examined: &Examined) -> Vec<String> {
    let domain = &examined.domain;
    let line = |name: &str, text: &str| format!("{name} TXT \"{text}\"");
    match &examined.published {
        Published::Nothing => vec![format!("{domain} TXT: no record begins with v=spf1")],
        Published::Several(texts) => texts.iter().map(|it| line(domain.ascii(), it)).collect(),
        Published::Wrong(text, _) => vec![line(domain.ascii(), text)],
        Published::Unknown(words) => vec![words.clone()],
        Published::One(walk) => {
            let mut lines = vec![line(domain.ascii(), &walk.text)];
            lines.extend(walk.followed.iter().map(|it| line(&it.domain, &it.text)));
            lines
        }
    }
}
