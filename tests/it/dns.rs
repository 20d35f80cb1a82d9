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
use tokio::task::JoinSet;

/// What the authority knows; every other name does not exist.
#[derive(Default, Clone)]
pub struct Zone {
    text: String,
    silent: bool,
    failing: Option<u8>,
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

    /// Answers every question with this response code (RFC 1035 section 4.1.1): 2 is
    /// SERVFAIL, 5 is REFUSED.
    pub fn failing(mut self, code: u8) -> Self {
        self.failing = Some(code);
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
        let mut failing = JoinSet::new();
        if let Some(code) = self.failing {
            failing.spawn(fail(udp, code));
        } else if self.silent {
            unanswered = Some((udp, tcp));
        } else {
            server.register_socket(udp);
            server.register_listener(tcp, Duration::from_secs(5), 4096);
        }
        DnsServer {
            address,
            _server: server,
            _unanswered: unanswered,
            _failing: failing,
        }
    }
}

async fn fail(udp: UdpSocket, code: u8) {
    let mut octets = [0; 512];
    while let Ok((length, client)) = udp.recv_from(&mut octets).await {
        let Some(header) = octets[..length].first_chunk::<12>() else {
            continue;
        };
        // The question is sent back, and what stands behind it (EDNS) is not.
        let end = octets[12..length].iter().position(|it| *it == 0);
        let end = end.map_or(length, |it| (12 + it + 5).min(length));
        let mut answer = octets[..end].to_vec();
        answer[2] = 0x80 | (header[2] & 0x01);
        answer[3] = 0x80 | code;
        answer[6..12].fill(0);
        udp.send_to(&answer, client).await.ok();
    }
}

/// Answers until it is dropped.
pub struct DnsServer {
    pub address: SocketAddr,
    _server: Server<Catalog>,
    _unanswered: Option<(UdpSocket, TcpListener)>,
    _failing: JoinSet<()>,
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
