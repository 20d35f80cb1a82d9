//! Hints: what will hurt delivery, told before the recipients complain.
//!
//! [`by_dns`] looks at a [`Pair`] of From domain and relay: SPF, DMARC, mail to one's own
//! domain, blacklists, volume. [`content`] looks at a message alone. A [`Finding`] says
//! what was found, in what, how bad it is and what to do. Nothing here knows when hints
//! are looked for, or what is done about them: that is the daemon's and the CLI's.

pub mod blacklist;
pub mod content;
pub mod dmarc;
mod finding;
mod organisation;
mod pair;
mod patience;
mod provider;
pub mod same_domain;
pub mod spf;
pub mod volume;

use crate::config::{Config, HintAction, HintName};
use crate::dns::Dns;

pub use finding::{Finding, Severity, TxtRecord};
pub use pair::Pair;
use patience::Patience;
pub use same_domain::Seen;
pub use volume::Bulk;

/// What DNS says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Looked {
    /// The worst first.
    pub findings: Vec<Finding>,
    /// Some of it was not answered: it is worth asking again soon.
    pub is_partial: bool,
}

/// What DNS says against mail from this domain by this relay.
pub async fn by_dns(
    dns: &dyn Dns,
    config: &Config,
    pair: &Pair,
    to_itself: Seen,
    bulk: &Bulk,
) -> Looked {
    // An address literal has no records.
    if pair.from.literal().is_some() {
        return Looked::default();
    }
    let patience = Patience::new(dns);
    let dns = &patience;
    let mut findings = Vec::new();
    let own = spf::examine(dns, &pair.from, &pair.relay).await;
    // Receivers ask the record of the reverse-path's domain (RFC 7208 section 2.4), and no
    // other: what is wrong with that of the From domain hurts no mail that leaves so.
    let sender = match &pair.sender {
        Some(domain) if *domain == pair.from => Some(own.clone()),
        Some(domain) => Some(spf::examine(dns, domain, &pair.relay).await),
        None => None,
    };
    if let Some(sender) = &sender {
        findings.extend(spf::findings(dns, pair, sender).await);
    }
    findings.extend(spf::alignment(pair));
    findings.extend(dmarc::findings(dns, pair, sender.as_ref()).await);
    findings.extend(same_domain::finding(dns, config, pair, &own, to_itself).await);
    findings.extend(blacklist::findings(dns, config, pair).await);
    findings.extend(volume::findings(dns, config, pair, bulk).await);
    Looked {
        findings: wanted(config, findings),
        is_partial: patience.met_trouble(),
    }
}

/// What a message alone says against itself, of the hints that are looked for; the worst
/// first.
pub fn by_content(config: &Config, octets: &[u8], is_whole: bool, subject: &str) -> Vec<Finding> {
    wanted(config, content::findings(octets, is_whole, subject))
}

/// Without what nobody looks for; the worst first.
fn wanted(config: &Config, mut findings: Vec<Finding>) -> Vec<Finding> {
    let off = |hint: HintName| config.hints.action(hint) == HintAction::Off;
    findings.retain(|it| !off(it.hint));
    for finding in &mut findings {
        finding.make_printable();
    }
    findings.sort_by_key(|it| it.severity);
    findings
}
