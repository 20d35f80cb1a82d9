//! The record to publish, built from the one that stands.

use ipnet::IpNet;

use super::evaluate::{LOOKUPS_MAXIMUM, VOIDS_MAXIMUM};
use super::record::{Record, terms};
use super::walk::Walk;
use crate::mail::Domain;

/// What the record shall authorise beside what it does.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Addition {
    /// By another domain's record, and what that costs with everything it includes.
    pub include: Option<(Domain, usize)>,
    /// Of those look-ups, the ones that find nothing.
    pub voids: usize,
    /// By address.
    pub networks: Vec<IpNet>,
}

/// A record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its text; none: within the limits there is no way that can be told from here.
    pub text: Option<String>,
    /// What was done to make it so, a sentence each.
    pub notes: Vec<String>,
}

/// How many networks a proposal may list; beyond that nobody keeps them right.
const NETWORKS_MAXIMUM: usize = 16;

impl Addition {
    /// The terms it makes, and the look-ups they cost; `by_address`: rather without.
    fn terms(&self, by_address: bool) -> (Vec<String>, usize) {
        let listed = (1..=NETWORKS_MAXIMUM).contains(&self.networks.len());
        match &self.include {
            Some((domain, cost)) if !(by_address && listed) => {
                (vec![format!("include:{}", domain.ascii())], 1 + cost)
            }
            _ => (self.networks.iter().map(network_term).collect(), 0),
        }
    }

    /// Whether nobody has said what the relay's part is.
    pub fn is_nothing(&self) -> bool {
        self.include.is_none() && self.networks.is_empty()
    }
}

/// What goes before any record when the relay's part of it is not known: a record that
/// does not name the relay makes receivers doubt, or refuse, all that it sends.
pub fn unknown(relay: &str) -> Proposal {
    Proposal {
        text: None,
        notes: vec![
            "No record is offered yet: without the relay's part it would make receivers doubt \
             all mail that goes through it."
                .to_owned(),
            "Ask the relay's provider what senders' SPF must include, or from which addresses \
             it sends."
                .to_owned(),
            format!(
                "Then write it (penstock relay set {relay} --spf-include DOMAIN, or outbound-ips \
                 = [...] in [relays.{relay}]) and check again."
            ),
        ],
    }
}

/// A first record for a domain without one.
pub fn first(addition: &Addition, has_mail_servers: bool) -> Proposal {
    let mut terms = vec!["v=spf1".to_owned()];
    if has_mail_servers {
        terms.push("mx".to_owned());
    }
    terms.extend(addition.terms(false).0);
    terms.push("~all".to_owned());
    Proposal {
        text: Some(terms.join(" ")),
        notes: vec![
            "Add whatever else sends mail for this domain before ~all.".to_owned(),
            "When nothing legitimate softfails any more, ~all can become -all.".to_owned(),
        ],
    }
}

/// One record out of several.
pub fn merged(texts: &[String], addition: &Addition) -> Proposal {
    let mut kept: Vec<String> = Vec::new();
    let mut all: Option<String> = None;
    let mut redirect: Option<String> = None;
    let mut explanation: Option<String> = None;
    let mut notes = Vec::new();
    for term in texts.iter().flat_map(|text| terms(text)) {
        let (term, note) = repaired(term);
        notes.extend(note);
        let Some(term) = term else { continue };
        let lower = term.to_ascii_lowercase();
        if is_all(&lower) {
            // The mildest of them: nothing that passes today shall fail tomorrow.
            let milder = |it: &String| strictness(&lower) < strictness(it);
            if all.as_ref().is_none_or(milder) {
                all = Some(lower);
            }
        } else if lower.starts_with("redirect=") {
            redirect.get_or_insert(term);
        } else if lower.starts_with("exp=") {
            // Two are an error (RFC 7208 section 6).
            explanation.get_or_insert(term);
        } else if !kept.iter().any(|it| it.eq_ignore_ascii_case(&term)) {
            kept.push(term);
        }
    }
    // A redirect counts only where there is no all.
    kept.push(all.or(redirect).unwrap_or("~all".to_owned()));
    kept.extend(explanation);
    Proposal {
        text: Some(assembled(kept, addition.terms(false).0)),
        notes,
    }
}

/// The record as it stands, without what is wrong in it, and with what shall be added.
pub fn corrected(text: &str, addition: &Addition) -> Proposal {
    merged(&[text.to_owned()], addition)
}

/// The record as it stands, and what shall be added, within ten look-ups of which two find
/// nothing.
pub fn extended(walk: &Walk, addition: &Addition) -> Proposal {
    let mut notes = Vec::new();
    let mut lookups = walk.lookups;
    let mut kept: Vec<String> = terms(&walk.text).map(str::to_owned).collect();
    kept.retain(|term| {
        let loops = leads_to(term, &walk.domain);
        if loops {
            // Behind an `all` it was never asked for.
            lookups = lookups.saturating_sub(1);
            notes.push(format!("{term} is left out: the record leads to itself."));
        }
        !loops
    });
    let (mut added, mut cost) = addition.terms(false);
    // From here on in the order of the least harm.
    if lookups + cost > LOOKUPS_MAXIMUM && !addition.networks.is_empty() {
        let (by_address, cheaper) = addition.terms(true);
        if cheaper < cost {
            notes.push(
                "The relay stands there by its addresses, because an include would need more \
                 than 10 look-ups; they must be changed when the relay moves."
                    .to_owned(),
            );
            (added, cost) = (by_address, cheaper);
        }
    }
    let voids = walk.voids.len() + addition.voids;
    if lookups + cost > LOOKUPS_MAXIMUM || voids > VOIDS_MAXIMUM {
        for term in walk.terms.iter().filter(|it| it.void) {
            if let Some(place) = kept.iter().position(|it| *it == term.text) {
                kept.remove(place);
                lookups = lookups.saturating_sub(term.lookups);
                notes.push(format!("{} is left out: it finds nothing.", term.text));
            }
        }
    }
    if lookups + cost > LOOKUPS_MAXIMUM {
        lookups = by_address(walk, &mut kept, lookups, cost, &mut notes);
    }
    if lookups + cost > LOOKUPS_MAXIMUM {
        let dearest = walk
            .terms
            .iter()
            .filter(|it| it.lookups > 0)
            .max_by_key(|it| it.lookups);
        let dearest = dearest.map_or(String::new(), |it| {
            format!(" The dearest is {}, with {}.", it.text, it.lookups)
        });
        return Proposal {
            text: None,
            notes: vec![format!(
                "The record needs {} look-ups and may need {LOOKUPS_MAXIMUM}: take out what does \
                 not send any more, or move senders to subdomains of their own.{dearest}",
                lookups + cost
            )],
        };
    }
    Proposal {
        text: Some(assembled(kept, added)),
        notes,
    }
}

/// Whether a term goes on with the record of this domain.
fn leads_to(term: &str, domain: &str) -> bool {
    let lower = term.to_ascii_lowercase();
    let bare = lower.trim_start_matches(['+', '-', '~', '?']);
    let target = bare
        .strip_prefix("include:")
        .or_else(|| lower.strip_prefix("redirect="));
    target.is_some_and(|it| it.trim_end_matches('.') == domain)
}

/// Whether a term of the record itself passes everybody.
pub fn passes_all_itself(walk: &Walk) -> bool {
    let open =
        |it: &str| matches!(it.to_ascii_lowercase().as_str(), "all" | "+all") || it.ends_with("/0");
    walk.passes_all.is_some() && terms(&walk.text).any(open)
}

/// Writes `a` and `mx` as the addresses they stand for, one after the other, as far as
/// that is needed; gives the look-ups that are left.
fn by_address(
    walk: &Walk,
    kept: &mut Vec<String>,
    mut lookups: usize,
    cost: usize,
    notes: &mut Vec<String>,
) -> usize {
    for term in &walk.terms {
        let room = (1..=4).contains(&term.networks.len());
        if lookups + cost <= LOOKUPS_MAXIMUM || !room {
            continue;
        }
        let Some(place) = kept.iter().position(|it| *it == term.text) else {
            continue;
        };
        // ip4: and ip6: take the qualifier of the term they stand for.
        let qualifier = term.text.starts_with(['+', '-', '~', '?']);
        let qualifier = &term.text[..usize::from(qualifier)];
        let networks = term.networks.iter().map(network_term);
        let networks: Vec<String> = networks.map(|it| format!("{qualifier}{it}")).collect();
        notes.push(format!(
            "{} is written as {}; change that when the servers move.",
            term.text,
            networks.join(" ")
        ));
        kept.splice(place..=place, networks);
        lookups = lookups.saturating_sub(term.lookups);
    }
    lookups
}

/// The same record, passing the relay and not everybody.
pub fn tightened(walk: &Walk, addition: &Addition) -> Proposal {
    let terms = terms(&walk.text).map(|term| match term.to_ascii_lowercase().as_str() {
        "all" | "+all" => "~all".to_owned(),
        _ => term.to_owned(),
    });
    let open = |it: &String| it.ends_with("/0");
    let terms: Vec<String> = terms.filter(|it| !open(it)).collect();
    let mut closed = walk.clone();
    closed.text = format!("v=spf1 {}", terms.join(" "));
    // Until now it passed whether or not it was named.
    let named = |domain: &Domain| walk.includes(domain.ascii()).is_some_and(|it| it.passes);
    let missing = match &addition.include {
        Some((domain, _)) if named(domain) => Addition::default(),
        _ => addition.clone(),
    };
    let mut proposal = extended(&closed, &missing);
    proposal.notes.insert(
        0,
        "First add whatever else sends mail for this domain before ~all.".to_owned(),
    );
    proposal
}

/// The terms, the new ones before the end of the record.
fn assembled(mut kept: Vec<String>, added: Vec<String>) -> String {
    let ends = |it: &String| {
        let lower = it.to_ascii_lowercase();
        is_all(&lower) || lower.starts_with("redirect=") || lower.starts_with("exp=")
    };
    let place = kept.iter().position(ends).unwrap_or(kept.len());
    let new = added
        .into_iter()
        .filter(|it| !kept.iter().any(|there| there.eq_ignore_ascii_case(it)))
        .collect::<Vec<_>>();
    // What stands there with another qualifier would match first.
    let bare = |it: &str| {
        it.trim_start_matches(['+', '-', '~', '?'])
            .to_ascii_lowercase()
    };
    let overridden: Vec<String> = new.iter().map(|it| bare(it)).collect();
    kept.splice(place..place, new.iter().cloned());
    kept.retain(|it| new.contains(it) || !overridden.contains(&bare(it)));
    let mut whole = vec!["v=spf1".to_owned()];
    whole.extend(kept);
    whole.join(" ")
}

fn is_all(lower: &str) -> bool {
    matches!(lower, "all" | "+all" | "-all" | "~all" | "?all")
}

fn strictness(all: &str) -> u8 {
    match all.as_bytes().first() {
        Some(b'?') => 0,
        Some(b'~') => 1,
        Some(b'-') => 2,
        // Passing everybody is no policy to keep beside another one.
        _ => 3,
    }
}

fn network_term(network: &IpNet) -> String {
    let kind = match network {
        IpNet::V4(_) => "ip4",
        IpNet::V6(_) => "ip6",
    };
    match network.prefix_len() == network.max_prefix_len() {
        true => format!("{kind}:{}", network.addr()),
        false => format!("{kind}:{network}"),
    }
}

/// A term that can be read: as it stands, as it was surely meant, or not at all.
fn repaired(term: &str) -> (Option<String>, Option<String>) {
    let reads = |term: &str| Record::parse(&format!("v=spf1 {term}")).is_ok();
    let lower = term.to_ascii_lowercase();
    // By the grammar it is a modifier that means nothing.
    if lower == "v=spf1" {
        return (None, Some(format!("{term} stands only at the beginning.")));
    }
    if reads(term) {
        let passes_all = matches!(lower.as_str(), "all" | "+all");
        return match passes_all {
            true => (
                Some("~all".to_owned()),
                Some(format!("{term} would pass everybody.")),
            ),
            false => (Some(term.to_owned()), None),
        };
    }
    // An editor's dash, the names that people think of first.
    let dashed = term.replace(['\u{2013}', '\u{2014}', '\u{2212}'], "-");
    let (head, value) = dashed.split_once([':', '=']).unwrap_or((&dashed, ""));
    let bare = head.trim_start_matches(['+', '-', '~', '?']);
    let qualifier = &head[..head.len() - bare.len()];
    let address = value.split('/').next().unwrap_or_default();
    let kind = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => Some("ip4"),
        Ok(std::net::IpAddr::V6(_)) => Some("ip6"),
        Err(_) => None,
    };
    let meant = match (kind, bare.to_ascii_lowercase().as_str()) {
        (Some(kind), _) => format!("{qualifier}{kind}:{value}"),
        (None, "includes" | "inlcude" | "incldue" | "inclde") => {
            format!("{qualifier}include:{value}")
        }
        _ => dashed.clone(),
    };
    match reads(&meant) {
        true => (
            Some(meant.clone()),
            Some(format!("{term} is written as {meant}.")),
        ),
        false => (
            None,
            Some(format!("{term} is left out: nobody can read it.")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::walk::{Published, walk};
    use super::*;
    use crate::dns::Zone;

    fn include(domain: &str, cost: usize) -> Addition {
        Addition {
            include: Some((Domain::parse(domain).unwrap(), cost)),
            ..Addition::default()
        }
    }

    async fn walked(zone: &Zone) -> Walk {
        match walk(zone, "a.example").await {
            Published::One(walk) => *walk,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_added_stands_before_the_end_of_the_record() {
        for (text, meant) in [
            ("v=spf1 -all", "v=spf1 include:r.example -all"),
            ("v=spf1 mx ~ALL", "v=spf1 mx include:r.example ~ALL"),
            (
                "v=spf1 ip4:192.0.2.1",
                "v=spf1 ip4:192.0.2.1 include:r.example",
            ),
            (
                "v=spf1 exp=e.example redirect=b.example",
                "v=spf1 include:r.example exp=e.example redirect=b.example",
            ),
            (
                "v=spf1 ?include:r.example -all",
                "v=spf1 include:r.example -all",
            ),
        ] {
            let zone = Zone::default()
                .text("a.example", text)
                .mx("a.example", 1, "mx.a.example")
                .address("mx.a.example", "192.0.2.9");
            let proposal = extended(&walked(&zone).await, &include("r.example", 0));
            assert_eq!(proposal.text.as_deref(), Some(meant), "{text}");
        }
    }

    #[test]
    fn one_record_of_several_has_each_thing_once_and_the_relay_passes() {
        let texts = [
            "v=spf1 mx ?include:r.example exp=one.example -all".to_owned(),
            "v=spf1 MX ~include:R.example exp=two.example ~all".to_owned(),
        ];
        let proposal = merged(&texts, &include("r.example", 0));
        let text = proposal.text.unwrap();
        assert_eq!(text, "v=spf1 mx include:r.example ~all exp=one.example");
        assert!(Record::parse(&text).is_ok());
    }

    #[tokio::test]
    async fn a_full_record_first_loses_what_finds_nothing_then_names_for_addresses() {
        let mut zone = Zone::default()
            .mx("a.example", 1, "mx.a.example")
            .address("mx.a.example", "192.0.2.9");
        let mut text = "v=spf1 ~mx a:gone.example".to_owned();
        for number in 0..8 {
            text.push_str(&format!(" include:i{number}.example"));
            zone = zone.text(&format!("i{number}.example"), "v=spf1 ip4:192.0.2.7 -all");
        }
        let zone = zone.text("a.example", &format!("{text} -all"));
        let walk = walked(&zone).await;
        assert_eq!(walk.lookups, 10);
        let proposal = extended(&walk, &include("r.example", 0));
        let text = proposal.text.unwrap();
        assert!(text.starts_with("v=spf1 ~mx include:i0.example "), "{text}");
        assert!(text.ends_with(" include:r.example -all"), "{text}");
        assert!(proposal.notes[0].contains("a:gone.example"));
        let proposal = extended(&walk, &include("r.example", 1));
        assert!(
            proposal
                .text
                .unwrap()
                .starts_with("v=spf1 ~ip4:192.0.2.9 include:i0")
        );
        // Three more than there is room for: that cannot be told from here.
        let proposal = extended(&walk, &include("r.example", 2));
        assert_eq!(proposal.text, None);
        assert!(
            proposal.notes[0].contains("11 look-ups"),
            "{:?}",
            proposal.notes
        );
        // By address there is always room.
        let both = Addition {
            networks: vec!["198.51.100.0/28".parse().unwrap()],
            ..include("r.example", 2)
        };
        let text = extended(&walk, &both).text.unwrap();
        assert!(text.ends_with(" ip4:198.51.100.0/28 -all"), "{text}");
    }

    #[tokio::test]
    async fn a_record_that_is_closed_names_the_relay() {
        for (text, meant) in [
            ("v=spf1 +all", "v=spf1 include:r.example ~all"),
            (
                "v=spf1 mx ip4:0.0.0.0/0 -all",
                "v=spf1 mx include:r.example -all",
            ),
            (
                "v=spf1 include:r.example all",
                "v=spf1 include:r.example ~all",
            ),
        ] {
            let zone = Zone::default()
                .text("a.example", text)
                .text("r.example", "v=spf1 ip4:192.0.2.7 -all")
                .mx("a.example", 1, "mx.a.example")
                .address("mx.a.example", "192.0.2.9");
            let proposal = tightened(&walked(&zone).await, &include("r.example", 0));
            assert_eq!(proposal.text.as_deref(), Some(meant), "{text}");
        }
    }

    #[test]
    fn several_records_become_one_with_the_mildest_end() {
        let texts = [
            "v=spf1 mx include:a.example -all",
            "v=spf1 MX ip4:192.0.2.1 ~all",
        ];
        let proposal = merged(&texts.map(str::to_owned), &include("r.example", 0));
        assert_eq!(
            proposal.text.as_deref(),
            Some("v=spf1 mx include:a.example ip4:192.0.2.1 include:r.example ~all")
        );
    }

    #[test]
    fn a_term_that_was_surely_meant_otherwise_is_written_so() {
        let text = "v=spf1 ip:192.0.2.1 a:198.51.100.0/24 includes:b.example ipv6:2001:db8::/32 foo v=spf1 \u{2013}all";
        let proposal = corrected(text, &Addition::default());
        assert_eq!(
            proposal.text.as_deref(),
            Some(
                "v=spf1 ip4:192.0.2.1 ip4:198.51.100.0/24 include:b.example ip6:2001:db8::/32 -all"
            )
        );
        assert_eq!(proposal.notes.len(), 7);
    }
}
