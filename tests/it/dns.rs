//! An authority for the test's own names: a real DNS server on a random loopback port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::proto::rr::{LowerName, Name};
use hickory_server::proto::serialize::txt::Parser;
use hickory_server::server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

/// What the authority knows; every other name does not exist.
#[derive(Default, Clone)]
pub struct Zone {
    text: String,
    silent: bool,
}

impl Zone {
    /// One record as in a zone file: `record("example.nl", "MX 10 mail.example.nl.")`.
    pub fn record(mut self, name: &str, record: &str) -> Self {
        self.text.push_str(&format!("{name}. 60 IN {record}\n"));
        self
    }

    /// An SPF record, a DMARC record, any text.
    pub fn txt(self, name: &str, text: &str) -> Self {
        self.record(name, &format!("TXT \"{text}\""))
    }

    pub fn mx(self, name: &str, preference: u16, host: &str) -> Self {
        self.record(name, &format!("MX {preference} {host}."))
    }

    pub fn address(self, name: &str, address: &str) -> Self {
        let kind = if address.contains(':') { "AAAA" } else { "A" };
        self.record(name, &format!("{kind} {address}"))
    }

    /// Never answers: for time-outs.
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    pub async fn start(self) -> DnsServer {
        let text = format!(
            ". 60 IN SOA ns.test. admin.test. 1 60 60 60 60\n. 60 IN NS ns.test.\n{}",
            self.text
        );
        let (_, records) = Parser::new(&text, None, Some(Name::root()))
            .parse()
            .unwrap();
        let zone: InMemoryZoneHandler =
            InMemoryZoneHandler::new(Name::root(), records, ZoneType::Primary, AxfrPolicy::Deny)
                .unwrap();
        let mut catalog = Catalog::new();
        let zones: Vec<Arc<dyn ZoneHandler>> = vec![Arc::new(zone)];
        catalog.upsert(LowerName::new(&Name::root()), zones);
        let mut server = Server::new(catalog);
        let (udp, tcp) = same_port().await;
        let address = udp.local_addr().unwrap();
        let mut unanswered = None;
        if self.silent {
            unanswered = Some((udp, tcp));
        } else {
            server.register_socket(udp);
            server.register_listener(tcp, Duration::from_secs(5), 4096);
        }
        DnsServer {
            address,
            _server: server,
            _unanswered: unanswered,
        }
    }
}

/// Answers until it is dropped.
pub struct DnsServer {
    pub address: SocketAddr,
    _server: Server<Catalog>,
    _unanswered: Option<(UdpSocket, TcpListener)>,
}

/// UDP and TCP on one port: some answers do not fit into a datagram.
async fn same_port() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}
