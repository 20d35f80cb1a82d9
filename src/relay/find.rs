//! Where a relay's server is: its name to the addresses to try (RFC 5321 section 5.1).

use std::net::IpAddr;

use super::RelayError;
use crate::config::Host;
use crate::dns::{Dns, DnsError, MailServers, addresses, first_mail_servers, mail_servers};
use crate::mail::Domain;
use crate::mail::text::printable;

/// Addresses of one server that are tried, all its MX hosts together.
const ADDRESSES_MAXIMUM: usize = 10;

/// The addresses of a server, in the order to try them, each with its host's name.
pub(super) async fn find(dns: &dyn Dns, host: &Host) -> Result<Vec<(String, IpAddr)>, RelayError> {
    let names = match host {
        Host::Address(address) => return Ok(vec![(address.to_string(), *address)]),
        Host::Name(name) => vec![name.ascii().to_owned()],
        Host::Mx(name) => mail_hosts(dns, name).await?,
    };
    let mut found = Vec::new();
    let mut trouble = None;
    for name in names {
        match addresses(dns, &name).await {
            Ok(list) => found.extend(list.into_iter().map(|it| (name.clone(), it))),
            // A temporary failure is the better excuse: it says less.
            Err(error) if error.is_temporary() => trouble = Some((name, error)),
            Err(error) => {
                trouble.get_or_insert((name, error));
            }
        }
        if found.len() >= ADDRESSES_MAXIMUM {
            break;
        }
    }
    found.truncate(ADDRESSES_MAXIMUM);
    match trouble {
        Some((name, error)) if found.is_empty() => Err(dns_error(name, &error)),
        _ => Ok(found),
    }
}

/// Which of the names that were found are as good as any other: what the others lack is not
/// the relay's last word.
pub(super) async fn first_choices(
    dns: &dyn Dns,
    host: &Host,
    found: &[(String, IpAddr)],
) -> Vec<String> {
    let mut names: Vec<String> = found.iter().map(|(name, _)| name.clone()).collect();
    names.dedup();
    let listed = match host {
        Host::Mx(name) if names.len() > 1 => first_mail_servers(dns, name).await,
        Host::Mx(_) | Host::Name(_) | Host::Address(_) => Vec::new(),
    };
    if listed.is_empty() {
        names.truncate(1);
        return names;
    }
    names.retain(|it| listed.contains(it));
    names
}

async fn mail_hosts(dns: &dyn Dns, name: &Domain) -> Result<Vec<String>, RelayError> {
    match mail_servers(dns, name).await {
        Ok(MailServers::Listed(names)) => Ok(names),
        Ok(MailServers::Itself) => Ok(vec![name.ascii().to_owned()]),
        Ok(MailServers::Nobody) => Err(RelayError::NoServer {
            name: name.to_string(),
            detail: "its null MX record says that it takes no mail".to_owned(),
        }),
        Err(error) => Err(dns_error(name.to_string(), &error)),
    }
}

fn dns_error(name: String, error: &DnsError) -> RelayError {
    let detail = printable(error.to_string().as_bytes(), 200);
    if error.is_temporary() {
        RelayError::Dns { name, detail }
    } else {
        RelayError::NoServer { name, detail }
    }
}
