//! Where a relay's server is: its name to the addresses to try (RFC 5321 section 5.1).

use std::net::IpAddr;

use super::RelayError;
use crate::config::Host;
use crate::dns::{Dns, DnsError, MailServer, MailServers, addresses, mail_servers};
use crate::mail::Domain;
use crate::mail::text::printable;

/// Addresses of one server that are tried, all its MX hosts together.
const ADDRESSES_MAXIMUM: usize = 10;

/// Where a server is.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its addresses in the order to try them, each with its host's name.
    pub addresses: Vec<(String, IpAddr)>,
    /// The hosts that are as good as any other, those included that DNS does not tell of
    /// just now. What one of the others lacks is not the relay's last word.
    pub firsts: Vec<String>,
}

/// Looks up where a server is.
pub(super) async fn find(dns: &dyn Dns, host: &Host) -> Result<Found, RelayError> {
    let servers = match host {
        Host::Address(address) => {
            let name = address.to_string();
            return Ok(Found {
                addresses: vec![(name.clone(), *address)],
                firsts: vec![name],
            });
        }
        Host::Name(name) => vec![itself(name)],
        Host::Mx(name) => mail_hosts(dns, name).await?,
    };
    let mut found = Found::default();
    // The lowest preference of those that are there, or may be.
    let mut best = None;
    let mut trouble = None;
    for MailServer { preference, name } in servers {
        let looked_up = match found.addresses.len() {
            ..ADDRESSES_MAXIMUM => addresses(dns, &name).await,
            // Enough to try; but the others are there, too.
            _ => Ok(Vec::new()),
        };
        let is_absent = looked_up.as_ref().is_err_and(|it| !it.is_temporary());
        if !is_absent && *best.get_or_insert(preference) == preference {
            found.firsts.push(name.clone());
        }
        match looked_up {
            Ok(list) => {
                let list = list.into_iter().map(|it| (name.clone(), it));
                found.addresses.extend(list);
            }
            // A temporary failure is the better excuse: it says less.
            Err(error) if error.is_temporary() => trouble = Some((name, error)),
            Err(error) => {
                trouble.get_or_insert((name, error));
            }
        }
    }
    found.addresses.truncate(ADDRESSES_MAXIMUM);
    match trouble {
        Some((name, error)) if found.addresses.is_empty() => Err(dns_error(name, &error)),
        _ => Ok(found),
    }
}

async fn mail_hosts(dns: &dyn Dns, name: &Domain) -> Result<Vec<MailServer>, RelayError> {
    match mail_servers(dns, name).await {
        Ok(MailServers::Listed(servers)) => Ok(servers),
        Ok(MailServers::Itself) => Ok(vec![itself(name)]),
        Ok(MailServers::Nobody) => Err(RelayError::NoServer {
            name: name.to_string(),
            detail: "its null MX record says that it takes no mail".to_owned(),
        }),
        Err(error) => Err(dns_error(name.to_string(), &error)),
    }
}

/// A name as its own and only mail server (RFC 5321 section 5.1).
fn itself(name: &Domain) -> MailServer {
    MailServer {
        preference: 0,
        name: name.ascii().to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Zone;

    #[tokio::test]
    async fn the_first_are_those_of_the_lowest_preference_that_may_be_there() {
        let zone = Zone::default()
            .mx("gone.example", 5, "gone-mx.example")
            .mx("gone.example", 10, "one.example")
            .mx("gone.example", 10, "two.example")
            .mx("gone.example", 20, "three.example")
            .mx("slow.example", 5, "slow-mx.example")
            .mx("slow.example", 10, "one.example")
            .address("one.example", "192.0.2.1")
            .address("two.example", "192.0.2.2")
            .address("three.example", "192.0.2.3")
            .mx("half.example", 10, "one.example")
            .mx("half.example", 10, "slow-mx.example")
            .trouble("slow-mx.example");
        let firsts = async |name| {
            let host = Host::Mx(Domain::parse(name).unwrap());
            let mut found = find(&zone, &host).await.unwrap();
            found.firsts.sort();
            (found.addresses.len(), found.firsts)
        };
        let equal = ["one.example", "two.example"].map(str::to_owned);
        assert_eq!(firsts("gone.example").await, (3, equal.to_vec()));
        let slow = || "slow-mx.example".to_owned();
        assert_eq!(firsts("slow.example").await, (1, vec![slow()]));
        let half = vec!["one.example".to_owned(), slow()];
        assert_eq!(firsts("half.example").await, (1, half));
        let itself = vec!["one.example".to_owned()];
        assert_eq!(firsts("one.example").await, (1, itself));
    }
}
