//! Whether a domain's record lets a relay send: by its addresses, or by an include.

use std::net::IpAddr;

use ipnet::IpNet;

use super::evaluate::{Client, Outcome, check_host};
use super::walk::{Published, Walk, walk};
use crate::config::Relay;
use crate::dns::Dns;
use crate::hint::provider;
use crate::mail::Domain;

/// Addresses that are evaluated of one relay; of larger networks, some of each.
const ADDRESSES_MAXIMUM: usize = 64;

/// What a domain's SPF says about a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The relay may send; how that is known.
    Authorised(String),
    /// It may not, or only without saying so; what was found instead.
    Missing(String),
    /// Nobody said what the relay's part of SPF is.
    NotConfigured,
    /// It may stand in a record that only a receiver with a message before it can find.
    Untold(String),
    /// DNS did not answer.
    Trouble(String),
}

/// What is published at a domain, and what it says about the relay.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// The domain.
    pub domain: Domain,
    /// What stands there.
    pub published: Published,
    /// What it says about the relay.
    pub standing: Standing,
}

/// Looks at the record of a domain for a relay.
pub async fn examine(dns: &dyn Dns, domain: &Domain, relay: &Relay) -> Examined {
    let published = walk(dns, domain.ascii()).await;
    let standing = standing(dns, domain, relay, &published).await;
    Examined {
        domain: domain.clone(),
        published,
        standing,
    }
}

/// Whether a domain's record authorises a relay.
async fn standing(
    dns: &dyn Dns,
    domain: &Domain,
    relay: &Relay,
    published: &Published,
) -> Standing {
    let walk = match published {
        Published::Unknown(words) => return Standing::Trouble(words.clone()),
        Published::Nothing => return Standing::Missing("there is no SPF record".to_owned()),
        Published::Several(_) => {
            return Standing::Missing("several records are none (permerror)".to_owned());
        }
        Published::Wrong(_, what) => return Standing::Missing(format!("permerror: {what}")),
        Published::One(walk) => walk,
    };
    if !relay.outbound_ips.is_empty() {
        return by_address(dns, domain, &relay.outbound_ips).await;
    }
    let Some((include, source)) = provider::include(relay) else {
        return Standing::NotConfigured;
    };
    by_include(domain, walk, &include, source)
}

fn by_include(domain: &Domain, walk: &Walk, include: &Domain, source: &str) -> Standing {
    // The domain's own record is the one that others shall include.
    if domain == include {
        return Standing::Authorised(format!("{domain} is the relay's own SPF domain"));
    }
    match walk.includes(include.ascii()) {
        Some(found) if found.passes => Standing::Authorised(found.path.join(" → ")),
        // Everybody is: a receiver that is asked about the relay passes it too.
        None if walk.wrong.is_empty() && walk.passes_all.is_some() => {
            Standing::Authorised(walk.passes_all.clone().unwrap_or_default())
        }
        _ if !walk.unfollowed.is_empty() => Standing::Untold(walk.unfollowed.join("; ")),
        Some(found) => Standing::Missing(format!(
            "{} is included, but not to pass",
            found.path.join(" → ")
        )),
        // What DNS kept to itself may be the include that is looked for.
        None if !walk.troubled.is_empty() => Standing::Trouble(walk.troubled.join("; ")),
        None => Standing::Missing(format!("no include of {include} ({source})")),
    }
}

async fn by_address(dns: &dyn Dns, domain: &Domain, networks: &[IpNet]) -> Standing {
    let mut how = String::new();
    for address in samples(networks) {
        let client = Client {
            address,
            local: "postmaster",
            domain: domain.ascii(),
            helo: domain.ascii(),
        };
        let found = check_host(dns, domain.ascii(), client).await;
        let words = format!("{address}: {} ({})", found.outcome.name(), found.because);
        match found.outcome {
            Outcome::Pass => how = words,
            Outcome::TempError => return Standing::Trouble(words),
            Outcome::None
            | Outcome::Neutral
            | Outcome::Fail
            | Outcome::SoftFail
            | Outcome::PermError => return Standing::Missing(words),
        }
    }
    Standing::Authorised(how)
}

/// Every address of small networks; of larger ones the ends, and some between.
pub fn samples(networks: &[IpNet]) -> Vec<IpAddr> {
    let share = (ADDRESSES_MAXIMUM / networks.len().max(1)).max(1);
    let mut samples = Vec::new();
    for network in networks.iter().take(ADDRESSES_MAXIMUM) {
        let bits = network.max_prefix_len() - network.prefix_len();
        let all = bits < 6 && 1 << bits <= share;
        let hosts: Vec<IpAddr> = match all {
            true => addresses(network).collect(),
            false => [network.network(), network.broadcast()]
                .into_iter()
                .chain(addresses(network).skip(1).take(share.saturating_sub(2)))
                .take(share)
                .collect(),
        };
        samples.extend(hosts);
    }
    samples
}

/// The addresses of a network from its first to its last.
fn addresses(network: &IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match (network.network(), network.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            Box::new((first.to_bits()..=last.to_bits()).map(|it| IpAddr::V4(it.into())))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            Box::new((first.to_bits()..=last.to_bits()).map(|it| IpAddr::V6(it.into())))
        }
        _ => Box::new(std::iter::empty()),
    }
}
