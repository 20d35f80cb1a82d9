//! What is known of mail providers by the names of their servers: which SPF record
//! stands for them, and whether they are made for mailings.
//!
//! Only what a provider documents itself; each entry names the page and when it was read.
//! What stands in the configuration counts more.

use crate::config::{Host, Preset, Relay};
use crate::mail::Domain;

/// What a provider says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: &'static str,
    /// What customers' SPF records shall include; none: nothing, or it differs by customer.
    pub include: Option<&'static str>,
    /// Why mailings do not belong there; none: they may.
    pub forbids_bulk: Option<&'static str>,
    /// Where that stands.
    pub source: &'static str,
}

const MICROSOFT: Provider = Provider {
    name: "Microsoft 365",
    include: Some("spf.protection.outlook.com"),
    forbids_bulk: Some(
        "Exchange Online is not made for bulk mail: 30 messages a minute and 10,000 \
         recipients a day for each mailbox",
    ),
    source: "learn.microsoft.com, Set up SPF; Exchange Online limits (2026-11-21)",
};

const WORKSPACE: Provider = Provider {
    name: "Google Workspace",
    include: Some("_spf.google.com"),
    forbids_bulk: Some(
        "Gmail and Workspace limit a mailbox to 2,000 messages a day and suspend it beyond",
    ),
    source: "support.google.com/a/answer/10684623 and 166852 (2026-11-21)",
};

const GMAIL: Provider = Provider {
    name: "Gmail",
    // smtp.gmail.com serves personal accounts and Workspace alike.
    include: Some("_spf.google.com"),
    forbids_bulk: Some(
        "Gmail limits an account to 500 messages a day and suspends it beyond; it is not made \
         for mailings",
    ),
    source: "support.google.com/mail/answer/22839 (2026-11-21)",
};

const SES: Provider = Provider {
    name: "Amazon SES",
    include: Some("amazonses.com"),
    forbids_bulk: None,
    source: "docs.aws.amazon.com/ses, custom MAIL FROM domain (2026-11-21)",
};

/// The provider that a relay belongs to, if it is a known one.
pub fn of(relay: &Relay) -> Option<Provider> {
    let known = relay
        .servers
        .iter()
        .find_map(|it| match Preset::of_provider(&it.host)? {
            Preset::Microsoft365 => Some(MICROSOFT),
            Preset::GoogleWorkspace => Some(WORKSPACE),
            Preset::Gmail => Some(GMAIL),
            Preset::AmazonSes => Some(SES),
            Preset::Standard | Preset::Bulk | Preset::Unlimited => None,
        });
    known.or_else(|| relay.servers.iter().find_map(|it| free_mail(&it.host)))
}

/// Free mail services beside those with presets; none of them takes mailings.
fn free_mail(host: &Host) -> Option<Provider> {
    let (Host::Mx(name) | Host::Name(name)) = host else {
        return None;
    };
    let (name, source) = match name.ascii() {
        "smtp.mail.yahoo.com" => ("Yahoo Mail", "help.yahoo.com, SLN3403 (2026-11-21)"),
        "smtp.mail.me.com" => ("iCloud Mail", "support.apple.com/102198 (2026-11-21)"),
        _ => return None,
    };
    Some(Provider {
        name,
        include: None,
        forbids_bulk: Some(
            "it is a free mail service with a small daily limit and is not made for mailings",
        ),
        source,
    })
}

/// What senders' SPF records must include for this relay, and where that is known from:
/// the configuration, else the provider's documentation.
pub fn include(relay: &Relay) -> Option<(Domain, &'static str)> {
    if let Some(domain) = &relay.spf_include {
        return Some((domain.clone(), "spf-include"));
    }
    let provider = of(relay)?;
    Some((Domain::parse(provider.include?).ok()?, provider.source))
}
