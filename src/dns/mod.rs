//! DNS as mail asks it: who takes mail for a name, which addresses it has, what it says
//! in TXT records.
//!
//! The questions are functions over the trait [`Dns`], which has two implementations:
//! the [`Resolver`] and, for tests, a [`Zone`] in memory. "There is none" and "nobody
//! answered" are different answers throughout: the first may fail mail, the second never.

mod resolver;
mod system;
mod zone;

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use rand::seq::SliceRandom;

use crate::mail::Domain;

pub use resolver::Resolver;
pub use system::SystemResolver;
pub use zone::Zone;

/// More servers or addresses for one name than anybody has.
const RECORDS_MAXIMUM: usize = 64;

/// The answer of a [`Dns`] on its way.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<Record>, DnsError>> + Send + 'a>>;

/// Answers questions about names.
pub trait Dns: Send + Sync {
    /// All records of one kind of this name, in any order; never an empty list.
    ///
    /// A name without a dot may be completed from the system's search list; others are
    /// taken as whole. Aliases (CNAME) are followed, so far and no further. The wait is bounded.
    fn look_up<'a>(&'a self, name: &'a str, kind: Kind) -> Answer<'a>;

    /// Forgets what it learned: somebody has changed something.
    fn forget(&self) {}
}

/// Kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Who takes mail (RFC 5321 section 5).
    Mx,
    /// Text.
    Txt,
    /// The name of an address.
    Ptr,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A or AAAA.
    Address(IpAddr),
    /// MX; the exchange is `.` in a null MX (RFC 7505).
    Mx {
        /// Lower is tried first.
        preference: u16,
        /// The server's name, without a dot at its end.
        exchange: String,
    },
    /// TXT, its strings joined without a space (RFC 7208 section 3.3).
    Text(String),
    /// PTR, without a dot at its end.
    Name(String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name does not exist (NXDOMAIN).
    #[error("the name does not exist")]
    NoSuchName,
    /// The name exists, without records of that kind.
    #[error("there is no such record")]
    NoData,
    /// Nobody answered, or with an error: ask again later.
    #[error("DNS trouble: {0}")]
    Trouble(String),
}

impl DnsError {
    /// Whether a later answer may differ.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Trouble(_))
    }
}

/// Who takes mail for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailServers {
    /// These, in the order to try them: by preference, at random among equals
    /// (RFC 5321 section 5.1).
    Listed(Vec<MailServer>),
    /// No MX record: the name itself, if it has an address.
    Itself,
    /// The domain says that it takes no mail (RFC 7505).
    Nobody,
}

/// A server that takes mail for a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailServer {
    /// Lower is tried first.
    pub preference: u16,
    /// Its name, without a dot at its end.
    pub name: String,
}

/// Who takes mail for this domain.
///
/// A name that does not exist in DNS may still stand in the hosts file, so it counts as
/// one without MX: asking for its [`addresses`] tells.
pub async fn mail_servers(dns: &dyn Dns, domain: &Domain) -> Result<MailServers, DnsError> {
    let records = match dns.look_up(domain.ascii(), Kind::Mx).await {
        Ok(records) => records,
        Err(DnsError::NoData | DnsError::NoSuchName) => return Ok(MailServers::Itself),
        Err(trouble @ DnsError::Trouble(_)) => return Err(trouble),
    };
    let mut servers: Vec<MailServer> = records
        .into_iter()
        .filter_map(|it| match it {
            Record::Mx {
                preference,
                exchange: name,
            } => Some(MailServer { preference, name }),
            Record::Address(_) | Record::Text(_) | Record::Name(_) => None,
        })
        .collect();
    if servers.is_empty() {
        return Ok(MailServers::Itself);
    }
    // A `.` beside real servers is a mistake to be passed over (RFC 7505 section 3).
    servers.retain(|it| it.name != "." && !it.name.is_empty());
    if servers.is_empty() {
        return Ok(MailServers::Nobody);
    }
    // The sort is stable, so equals stay in the order of the shuffle.
    servers.shuffle(&mut rand::rng());
    servers.sort_by_key(|it| it.preference);
    let mut known = HashSet::new();
    servers.retain(|it| known.insert(it.name.clone()));
    servers.truncate(RECORDS_MAXIMUM);
    Ok(MailServers::Listed(servers))
}

/// The addresses of a name: IPv4 before IPv6, because relays that list their clients by
/// address list those.
pub async fn addresses(dns: &dyn Dns, name: &str) -> Result<Vec<IpAddr>, DnsError> {
    let (four, six) = tokio::join!(dns.look_up(name, Kind::A), dns.look_up(name, Kind::Aaaa));
    let mut found: Vec<IpAddr> = Vec::new();
    for record in [&four, &six].into_iter().flatten().flatten() {
        if let Record::Address(address) = record
            && !found.contains(address)
            && found.len() < RECORDS_MAXIMUM
        {
            found.push(*address);
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    // Nothing found: if one half is unknown, the whole is.
    match (four, six) {
        (Err(trouble @ DnsError::Trouble(_)), _) | (_, Err(trouble @ DnsError::Trouble(_))) => {
            Err(trouble)
        }
        (Err(DnsError::NoSuchName), Err(DnsError::NoSuchName)) => Err(DnsError::NoSuchName),
        _ => Err(DnsError::NoData),
    }
}

/// The TXT records of a name.
pub async fn texts(dns: &dyn Dns, name: &str) -> Result<Vec<String>, DnsError> {
    let records = dns.look_up(name, Kind::Txt).await?;
    let texts = records.into_iter().filter_map(|it| match it {
        Record::Text(text) => Some(text),
        Record::Address(_) | Record::Mx { .. } | Record::Name(_) => None,
    });
    Ok(texts.take(RECORDS_MAXIMUM).collect())
}

/// The names of an address, by its PTR records.
pub async fn names(dns: &dyn Dns, address: IpAddr) -> Result<Vec<String>, DnsError> {
    let records = dns.look_up(&reverse_name(address), Kind::Ptr).await?;
    let names = records.into_iter().filter_map(|it| match it {
        Record::Name(name) => Some(name),
        Record::Address(_) | Record::Mx { .. } | Record::Text(_) => None,
    });
    Ok(names.take(RECORDS_MAXIMUM).collect())
}

/// The name under which the PTR records of an address stand (RFC 1035 section 3.5, RFC
/// 3596 section 2.5); without its last two labels also the one that blacklists use.
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(four) => {
            let [a, b, c, d] = four.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(six) => {
            let nibbles = six
                .octets()
                .into_iter()
                .rev()
                .flat_map(|octet| [octet & 15, octet >> 4])
                .map(|nibble| format!("{nibble:x}."));
            format!("{}ip6.arpa", nibbles.collect::<String>())
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Mx => "MX",
            Self::Txt => "TXT",
            Self::Ptr => "PTR",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[tokio::test]
    async fn mail_servers_come_by_preference_and_equals_at_random() {
        let zone = Zone::default()
            .mx("example.nl", 20, "last.example.nl")
            .mx("example.nl", 10, "a.example.nl")
            .mx("example.nl", 10, "b.example.nl");
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let found = mail_servers(&zone, &domain("Example.NL")).await.unwrap();
            let MailServers::Listed(servers) = found else {
                panic!("{found:?}")
            };
            let shown = servers.iter().map(|it| it.preference);
            assert!(shown.eq([10, 10, 20]), "{servers:?}");
            assert_eq!(servers[2].name, "last.example.nl");
            firsts.insert(servers[0].name.clone());
        }
        assert_eq!(firsts.len(), 2, "100 throws of a coin");
    }

    #[tokio::test]
    async fn no_mx_null_mx_and_trouble_are_three_things() {
        let zone = Zone::default()
            .address("plain.example", "192.0.2.1")
            .mx("null.example", 0, ".")
            .mx("odd.example", 0, ".")
            .mx("odd.example", 5, "mx.example")
            .trouble("slow.example");
        let found = async |name| mail_servers(&zone, &domain(name)).await;
        assert_eq!(found("plain.example").await, Ok(MailServers::Itself));
        assert_eq!(found("none.example").await, Ok(MailServers::Itself));
        assert_eq!(found("null.example").await, Ok(MailServers::Nobody));
        assert_eq!(
            found("odd.example").await,
            Ok(MailServers::Listed(vec![MailServer {
                preference: 5,
                name: "mx.example".into()
            }]))
        );
        assert!(found("slow.example").await.unwrap_err().is_temporary());
    }

    #[tokio::test]
    async fn one_address_family_is_enough() {
        let zone = Zone::default()
            .address("both.example", "2001:db8::1")
            .address("both.example", "192.0.2.1")
            .address("six.example", "2001:db8::1")
            .text("text.example", "v=spf1 -all")
            .trouble("slow.example");
        let found = async |name| addresses(&zone, name).await;
        assert_eq!(
            found("both.example").await.unwrap(),
            ["192.0.2.1", "2001:db8::1"].map(|it| it.parse::<IpAddr>().unwrap())
        );
        assert_eq!(found("six.example").await.unwrap().len(), 1);
        assert_eq!(found("text.example").await, Err(DnsError::NoData));
        assert_eq!(found("none.example").await, Err(DnsError::NoSuchName));
        assert!(found("slow.example").await.unwrap_err().is_temporary());
    }

    #[tokio::test]
    async fn texts_and_names_are_found() {
        let zone = Zone::default()
            .text("example.nl", "v=spf1 -all")
            .pointer("192.0.2.1", "mx.example.nl")
            .pointer("2001:db8::1", "mx.example.nl");
        assert_eq!(texts(&zone, "example.nl").await.unwrap(), ["v=spf1 -all"]);
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(
                names(&zone, address.parse().unwrap()).await.unwrap(),
                ["mx.example.nl"]
            );
        }
    }
}
