//! The real DNS, by hickory-resolver.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as HickoryError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::time::timeout;

use super::{Answer, Dns, DnsError, Kind, Record};

/// One question, all its retries and aliases included.
const LOOK_UP_MAXIMUM: Duration = Duration::from_secs(15);
/// A mistake in DNS that was corrected should not be remembered for an hour.
const NEGATIVE_MAXIMUM: Duration = Duration::from_secs(60);
/// Nor should a server that moved.
const POSITIVE_MAXIMUM: Duration = Duration::from_secs(3_600);

/// Asks name servers, with a cache; cloned freely.
#[derive(Clone)]
pub struct Resolver {
    hickory: TokioResolver,
    config: ResolverConfig,
    options: ResolverOpts,
}

impl Resolver {
    /// With the system's configuration as it is now.
    pub fn system() -> Result<Self, DnsError> {
        Self::configured_in(Path::new(super::system::RESOLV_CONF))
    }

    /// With the configuration in a file like `/etc/resolv.conf`, as it is now, and
    /// `/etc/hosts`.
    ///
    /// Without a readable configuration the name server is this host, as resolv.conf(5) says.
    pub(super) fn configured_in(path: &Path) -> Result<Self, DnsError> {
        let written = fs::read(path).unwrap_or_default();
        match hickory_resolver::system_conf::parse_resolv_conf(written) {
            Ok((config, options)) if !config.name_servers().is_empty() => {
                Self::new(config, options)
            }
            Ok(_) | Err(_) => Self::new(
                name_server(SocketAddr::from(([127, 0, 0, 1], 53))),
                ResolverOpts::default(),
            ),
        }
    }

    /// With one name server and no hosts file.
    pub fn with_server(server: SocketAddr) -> Result<Self, DnsError> {
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        Self::new(name_server(server), options)
    }

    fn new(config: ResolverConfig, mut options: ResolverOpts) -> Result<Self, DnsError> {
        options.negative_max_ttl = Some(NEGATIVE_MAXIMUM);
        options.positive_max_ttl = Some(POSITIVE_MAXIMUM);
        // An answer too long for UDP, or a name server that fails by it.
        options.try_tcp_on_error = true;
        let provider = TokioRuntimeProvider::default();
        let hickory = TokioResolver::builder_with_config(config.clone(), provider)
            .with_options(options.clone())
            .build()
            .map_err(|error| DnsError::Trouble(error.to_string()))?;
        Ok(Self {
            hickory,
            config,
            options,
        })
    }

    /// What it was made from, for libraries that make their own.
    pub fn configuration(&self) -> (ResolverConfig, ResolverOpts) {
        (self.config.clone(), self.options.clone())
    }

    async fn ask(&self, name: &str, kind: Kind) -> Result<Vec<Record>, DnsError> {
        // A dot at its end makes a name whole: the search list is for short names only.
        let whole = if name.contains('.') && !name.ends_with('.') {
            format!("{name}.")
        } else {
            name.to_owned()
        };
        let asked = timeout(
            LOOK_UP_MAXIMUM,
            self.hickory.lookup(whole, record_type(kind)),
        );
        let lookup = match asked.await {
            Ok(Ok(lookup)) => lookup,
            Ok(Err(error)) => return Err(meaning(&error)),
            Err(_) => return Err(DnsError::Trouble("no answer in time".to_owned())),
        };
        let records: Vec<_> = answers(&lookup, kind).collect();
        if records.is_empty() {
            return Err(DnsError::NoData);
        }
        Ok(records)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Dns for Resolver {
    fn look_up<'a>(&'a self, name: &'a str, kind: Kind) -> Answer<'a> {
        Box::pin(self.ask(name, kind))
    }
}

fn name_server(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut it| {
        it.port = server.port();
        it
    });
    let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
    ResolverConfig::from_name_servers(vec![server])
}

fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Mx => RecordType::MX,
        Kind::Txt => RecordType::TXT,
        Kind::Ptr => RecordType::PTR,
    }
}

/// The records that were asked for; the aliases on the way are passed over.
fn answers(lookup: &Lookup, kind: Kind) -> impl Iterator<Item = Record> {
    lookup.answers().iter().filter_map(move |it| {
        Some(match (&it.data, kind) {
            (RData::A(address), Kind::A) => Record::Address(address.0.into()),
            (RData::AAAA(address), Kind::Aaaa) => Record::Address(address.0.into()),
            (RData::MX(mx), Kind::Mx) => Record::Mx {
                preference: mx.preference,
                exchange: without_dot(&mx.exchange.to_ascii()),
            },
            (RData::TXT(text), Kind::Txt) => {
                let octets = text.txt_data.concat();
                Record::Text(String::from_utf8_lossy(&octets).into_owned())
            }
            (RData::PTR(name), Kind::Ptr) => Record::Name(without_dot(&name.0.to_ascii())),
            _ => return None,
        })
    })
}

/// `mx.example.nl.` as `mx.example.nl`; the root stays `.`.
fn without_dot(name: &str) -> String {
    match name.strip_suffix('.') {
        Some("") | None => name.to_owned(),
        Some(short) => short.to_owned(),
    }
}

fn meaning(error: &NetError) -> DnsError {
    match error {
        NetError::Dns(HickoryError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => DnsError::NoSuchName,
            ResponseCode::NoError => DnsError::NoData,
            other => DnsError::Trouble(other.to_string()),
        },
        // Not a name at all: no server can have it.
        NetError::Proto(_) => DnsError::NoSuchName,
        other => DnsError::Trouble(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hickory_server::Server;
    use hickory_server::proto::rr::rdata::{A, CNAME, MX, PTR, SOA, TXT};
    use hickory_server::proto::rr::{Name, Record as ServerRecord};
    use hickory_server::store::in_memory::InMemoryZoneHandler;
    use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
    use tokio::net::UdpSocket;

    use super::*;
    use crate::dns::{MailServers, addresses, mail_servers, names, texts};
    use crate::mail::Domain;

    /// A real name server on 127.0.0.1 with authority over these records.
    async fn server(records: Vec<(&str, RData)>) -> (SocketAddr, Server<Catalog>) {
        let name = |it: &str| Name::from_ascii(it).unwrap();
        let mut catalog = Catalog::new();
        for zone in ["example.", "arpa."] {
            let mut handler = InMemoryZoneHandler::<TokioRuntimeProvider>::empty(
                name(zone),
                ZoneType::Primary,
                AxfrPolicy::Deny,
            );
            let soa = SOA::new(name("ns."), name("root."), 1, 60, 60, 60, 60);
            handler.upsert_mut(ServerRecord::from_rdata(name(zone), 60, RData::SOA(soa)), 0);
            for (owner, data) in records.iter().filter(|(owner, _)| owner.ends_with(zone)) {
                handler.upsert_mut(ServerRecord::from_rdata(name(owner), 60, data.clone()), 0);
            }
            catalog.upsert(name(zone).into(), vec![Arc::new(handler)]);
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut server = Server::new(catalog);
        server.register_socket(socket);
        (address, server)
    }

    #[tokio::test]
    async fn a_real_name_server_is_understood() {
        let name = |it: &str| Name::from_ascii(it).unwrap();
        let (address, _server) = server(vec![
            (
                "nl.example.",
                RData::MX(MX::new(10, name("Mx.nl.example."))),
            ),
            (
                "nl.example.",
                RData::TXT(TXT::new(vec!["v=spf1 ".into(), "-all".into()])),
            ),
            ("null.example.", RData::MX(MX::new(0, Name::root()))),
            ("mx.nl.example.", RData::A(A::new(192, 0, 2, 1))),
            (
                "alias.example.",
                RData::CNAME(CNAME(name("mx.nl.example."))),
            ),
            ("loop.example.", RData::CNAME(CNAME(name("loop.example.")))),
            (
                "1.2.0.192.in-addr.arpa.",
                RData::PTR(PTR(name("mx.nl.example."))),
            ),
        ])
        .await;
        let dns = Resolver::with_server(address).unwrap();
        let domain = |it: &str| Domain::parse(it).unwrap();
        let four: std::net::IpAddr = "192.0.2.1".parse().unwrap();

        let found = mail_servers(&dns, &domain("nl.example")).await.unwrap();
        let MailServers::Listed(listed) = found else {
            panic!("{found:?}")
        };
        assert!(
            listed[0].name.eq_ignore_ascii_case("mx.nl.example"),
            "{listed:?}"
        );
        assert_eq!(
            mail_servers(&dns, &domain("null.example")).await,
            Ok(MailServers::Nobody)
        );
        assert_eq!(
            mail_servers(&dns, &domain("mx.nl.example")).await,
            Ok(MailServers::Itself)
        );
        assert_eq!(addresses(&dns, "mx.nl.example").await, Ok(vec![four]));
        assert_eq!(addresses(&dns, "alias.example").await, Ok(vec![four]));
        assert_eq!(addresses(&dns, "nl.example").await, Err(DnsError::NoData));
        assert_eq!(
            addresses(&dns, "none.example").await,
            Err(DnsError::NoSuchName)
        );
        assert_eq!(texts(&dns, "nl.example").await.unwrap(), ["v=spf1 -all"]);
        assert_eq!(names(&dns, four).await.unwrap(), ["mx.nl.example"]);
        // Outside its authority the server refuses: that says nothing about the name.
        assert!(
            addresses(&dns, "a.elsewhere")
                .await
                .unwrap_err()
                .is_temporary()
        );
        assert!(
            addresses(&dns, "loop.example").await.is_err(),
            "an alias of itself ends"
        );
    }

    #[tokio::test]
    async fn a_silent_name_server_is_trouble_not_absence() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut options = ResolverOpts::default();
        options.timeout = Duration::from_millis(50);
        options.attempts = 1;
        let config = name_server(socket.local_addr().unwrap());
        let dns = Resolver::new(config, options).unwrap();
        assert!(
            addresses(&dns, "a.example")
                .await
                .unwrap_err()
                .is_temporary()
        );
    }

    #[tokio::test]
    async fn what_is_no_name_has_no_address() {
        let dns = Resolver::with_server(SocketAddr::from(([127, 0, 0, 1], 9))).unwrap();
        let long = format!("{}.example", "x".repeat(64));
        assert_eq!(addresses(&dns, &long).await, Err(DnsError::NoSuchName));
    }
}
