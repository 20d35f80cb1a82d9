//! Which record is offered: never one that receivers still could not read, or that still
//! would not let the relay send. Each is judged as if it were published already.

use super::evaluate::{LOOKUPS_MAXIMUM, VOIDS_MAXIMUM};
use super::remedy::{self, Addition, Proposal};
use super::standing::{Examined, Standing, examine};
use super::walk::{Published, Walk, walk_text};
use crate::config::Relay;
use crate::dns::{Answer, Dns, Kind, Record};
use crate::mail::Domain;

/// The record instead of the one that stands; the same for whatever is wrong with it, so
/// that two findings do not ask for two records.
pub async fn instead(
    dns: &dyn Dns,
    walk: &Walk,
    examined: &Examined,
    addition: &Addition,
    relay: &Relay,
) -> Proposal {
    if addition.is_nothing() {
        return remedy::unknown(&relay.name);
    }
    let mut proposals = Vec::new();
    // What is known to stand there, or may after a repair, is not added once more.
    let may_stand = !matches!(
        examined.standing,
        Standing::Trouble(_) | Standing::Untold(_) | Standing::NotConfigured
    );
    for added in ways(addition, may_stand) {
        proposals.push(match remedy::passes_all_itself(walk) {
            true => remedy::tightened(walk, &added),
            false => remedy::extended(walk, &added),
        });
    }
    first_that_stands(dns, &examined.domain, relay, proposals).await
}

/// The record for a domain that has none, or none that can be read: `made` makes it with
/// what shall be added.
pub async fn anew(
    dns: &dyn Dns,
    domain: &Domain,
    addition: &Addition,
    relay: &Relay,
    made: impl Fn(&Addition) -> Proposal,
) -> Proposal {
    if addition.is_nothing() {
        return remedy::unknown(&relay.name);
    }
    let mut proposals = Vec::new();
    for added in ways(addition, false) {
        proposals.push(within_limits(dns, domain, made(&added)).await);
    }
    first_that_stands(dns, domain, relay, proposals).await
}

/// With nothing added, as it is wanted, and by address, where the include does not have
/// the addresses.
fn ways(addition: &Addition, with_nothing: bool) -> Vec<Addition> {
    let mut ways = Vec::new();
    if with_nothing {
        ways.push(Addition::default());
    }
    ways.push(addition.clone());
    if addition.include.is_some() && !addition.networks.is_empty() {
        ways.push(Addition {
            networks: addition.networks.clone(),
            ..Addition::default()
        });
    }
    ways
}

/// A proposal that was put together from what nobody could read needs look-ups that
/// nobody counted yet.
async fn within_limits(dns: &dyn Dns, domain: &Domain, proposal: Proposal) -> Proposal {
    let Some(text) = &proposal.text else {
        return proposal;
    };
    match walk_text(dns, domain.ascii(), text).await {
        Ok(walk)
            if walk.lookups > LOOKUPS_MAXIMUM
                || walk.voids.len() > VOIDS_MAXIMUM
                || !walk.wrong.is_empty() =>
        {
            let shorter = remedy::extended(&walk, &Addition::default());
            Proposal {
                text: shorter.text,
                notes: [proposal.notes, shorter.notes].concat(),
            }
        }
        Ok(_) | Err(_) => proposal,
    }
}

/// The first that would let the relay send; else why none of them would.
async fn first_that_stands(
    dns: &dyn Dns,
    domain: &Domain,
    relay: &Relay,
    proposals: Vec<Proposal>,
) -> Proposal {
    let mut last = remedy::unknown(&relay.name);
    for proposal in proposals {
        let Some(text) = &proposal.text else {
            last = proposal;
            continue;
        };
        match objection(dns, domain, relay, text).await {
            None => return proposal,
            Some(words) => {
                last = Proposal {
                    text: None,
                    notes: vec![format!(
                        "No record is offered, because with {} in it receivers would still not \
                         heed it: {words}. Repair that, and check again.",
                        relay.name
                    )],
                };
            }
        }
    }
    last
}

/// Why a record would not do.
async fn objection(dns: &dyn Dns, domain: &Domain, relay: &Relay, text: &str) -> Option<String> {
    let published = AsPublished {
        dns,
        name: domain.ascii(),
        text,
    };
    let examined = examine(&published, domain, relay).await;
    if let Published::One(walk) = &examined.published {
        if let Some(first) = walk.wrong.first() {
            return Some(first.clone());
        }
        if walk.lookups > LOOKUPS_MAXIMUM {
            return Some(format!("it would need {} look-ups", walk.lookups));
        }
        if walk.voids.len() > VOIDS_MAXIMUM {
            return Some(format!("{} of its look-ups find nothing", walk.voids.len()));
        }
    }
    match examined.standing {
        Standing::Missing(what) => Some(what),
        Standing::Authorised(_)
        | Standing::NotConfigured
        | Standing::Untold(_)
        | Standing::Trouble(_) => None,
    }
}

/// DNS in which the record stands already.
struct AsPublished<'a> {
    dns: &'a dyn Dns,
    name: &'a str,
    text: &'a str,
}

impl Dns for AsPublished<'_> {
    fn look_up<'a>(&'a self, name: &'a str, kind: Kind) -> Answer<'a> {
        if kind == Kind::Txt && name.eq_ignore_ascii_case(self.name) {
            let record = Record::Text(self.text.to_owned());
            return Box::pin(async move { Ok(vec![record]) });
        }
        self.dns.look_up(name, kind)
    }
}
