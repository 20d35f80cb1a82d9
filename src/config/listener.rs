//! `[[listen]]`: where clients connect, and the rules that keep it from being an open
//! relay (PRODUCT section 3).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::file::Table;
use super::{BareLf, Host, Listener, ListenerAuth, ListenerTls, Server};
use crate::mail::Mailbox;

/// Where clients connect if nothing is written: any local application, without a login.
pub const IMPLIED_LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2525);
/// The shortest network that may submit without a login: 16 million addresses.
const SHORTEST_V4: u8 = 8;
/// What a provider gets from its registry.
const SHORTEST_V6: u8 = 32;

impl Listener {
    /// Whether only this machine can connect.
    pub fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// Whether a relay's server is this very listener.
    pub(super) fn is_server(&self, server: &Server) -> bool {
        let own = self.address.ip().to_canonical();
        let same = match &server.host {
            Host::Address(address) => {
                *address == own || (own.is_unspecified() && address.is_loopback())
            }
            Host::Mx(name) | Host::Name(name) => {
                name.ascii() == "localhost" && (own.is_loopback() || own.is_unspecified())
            }
        };
        same && self.address.port() == server.port
    }
}

/// The listeners; the default one if none is written.
pub(super) fn read_listeners(root: Table) -> Vec<Listener> {
    let mut seen: Vec<SocketAddr> = Vec::new();
    let listeners = root.tables("listen", |table| {
        let listener = read_listener(table)?;
        let address = listener.address;
        match seen.iter().find(|it| overlap(**it, address)) {
            Some(other) if *other == address => table.wrong(
                "address",
                &format!("{address} is listened on twice"),
                "delete one of the two [[listen]] entries",
            ),
            Some(other) => table.wrong(
                "address",
                &format!("{address} and {other} are the same port of the same machine"),
                "delete one of the two [[listen]] entries, or give it another port",
            ),
            None => {}
        }
        seen.push(listener.address);
        Some(listener)
    });
    if !listeners.is_empty() || root.has("listen") {
        return listeners;
    }
    vec![Listener {
        address: IMPLIED_LISTENER,
        tls: ListenerTls::Off,
        auth: ListenerAuth::Off,
        allow_from: Vec::new(),
        senders: Vec::new(),
        bare_lf: BareLf::Refuse,
    }]
}

/// Whether only one of two sockets can be had: the same port of the same address, or of
/// every address of its family. `[::]` takes IPv6 only, as the daemon binds it.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    // Port 0 is another port each time.
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || (everywhere && one.is_ipv4() == other.is_ipv4()))
}

fn read_listener(table: Table) -> Option<Listener> {
    if !table.has("address") {
        table.wrong(
            "address",
            "is missing",
            "write address = \"127.0.0.1:2525\", or whatever clients connect to",
        );
    }
    let address = table.parsed(
        "address",
        "write an address with its port, like \"127.0.0.1:2525\" or \"[::1]:2525\"",
        |text| {
            text.parse::<SocketAddr>()
                .map_err(|_| "is not an address with a port")
        },
    );
    let listener = Listener {
        address: address.unwrap_or(IMPLIED_LISTENER),
        tls: table
            .choice(
                "tls",
                &[
                    ("off", ListenerTls::Off),
                    ("starttls", ListenerTls::StartTls),
                    ("implicit", ListenerTls::Implicit),
                ],
            )
            .unwrap_or(ListenerTls::Off),
        auth: table
            .choice(
                "auth",
                &[
                    ("off", ListenerAuth::Off),
                    ("optional", ListenerAuth::Optional),
                    ("required", ListenerAuth::Required),
                ],
            )
            .unwrap_or(ListenerAuth::Off),
        allow_from: table
            .list("allow-from", "write networks like \"10.1.0.0/16\"", network)
            .unwrap_or_default(),
        senders: table
            .list(
                "senders",
                "write addresses like \"erp@example.nl\"",
                Mailbox::parse,
            )
            .unwrap_or_default(),
        bare_lf: table
            .choice(
                "bare-lf",
                &[("refuse", BareLf::Refuse), ("repair", BareLf::Repair)],
            )
            .unwrap_or(BareLf::Refuse),
    };
    if address.is_some() {
        check_listener(table, &listener);
    }
    address.is_some().then_some(listener)
}

fn check_listener(table: Table, listener: &Listener) {
    let required = listener.auth == ListenerAuth::Required;
    if required && table.has("allow-from") {
        table.wrong(
            "allow-from",
            "says who needs no login, and auth = \"required\" says that everybody does",
            "write auth = \"optional\", or delete allow-from",
        );
    }
    if required && table.has("senders") {
        table.wrong(
            "senders",
            "says what is taken without a login, and auth = \"required\" takes nothing",
            "write auth = \"optional\", or delete senders",
        );
    }
    if table.has("senders") && table.is_empty("senders") {
        table.wrong(
            "senders",
            "is empty, which could mean everybody or nobody",
            "name the addresses that are taken without a login; delete senders to take all \
             whose user has no password-hash; write auth = \"required\" to take none",
        );
    }
    if listener.is_loopback() {
        return;
    }
    let address = listener.address;
    if listener.auth != ListenerAuth::Off && listener.tls == ListenerTls::Off {
        table.wrong(
            "auth",
            &format!("a login is never offered in clear, and {address} is not loopback"),
            "write tls = \"starttls\" or tls = \"implicit\"",
        );
    } else if listener.auth == ListenerAuth::Off && table.is_empty("allow-from") {
        table.wrong(
            "address",
            &format!(
                "{address} is not loopback and has neither auth nor allow-from: \
                 anybody could send, or nobody"
            ),
            "write allow-from = [\"10.1.0.0/16\"] with your networks, or auth = \"required\" \
             with tls = \"starttls\"",
        );
    }
}

/// A network that may submit without a login, IPv4 always as such.
fn network(text: &str) -> Result<IpNet, &'static str> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(
            text.parse::<IpAddr>()
                .map_err(|_| "is not a network like 10.1.0.0/16")?,
        ),
    };
    if network != network.trunc() {
        return Err("has bits set behind its prefix, so it is not clear what is meant");
    }
    let network = match network {
        IpNet::V6(six) => unmapped(six)?,
        four => four,
    };
    match network {
        IpNet::V4(four) if four.prefix_len() < SHORTEST_V4 => {
            Err("is wider than /8: that would be an open relay")
        }
        IpNet::V6(six) if six.prefix_len() < SHORTEST_V6 => {
            Err("is wider than /32: that would be an open relay")
        }
        network => Ok(network),
    }
}

/// `::ffff:10.0.0.0/104` is 10.0.0.0/8 in other words; so is `::ffff:0:0/96` 0.0.0.0/0.
fn unmapped(six: Ipv6Net) -> Result<IpNet, &'static str> {
    let mapped = Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96);
    if mapped.contains(&six) {
        let four = six.addr().to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
        return Ok(Ipv4Net::new_assert(four, six.prefix_len() - 96).into());
    }
    match six.contains(&mapped) {
        true => Err("holds every IPv4 address in its mapped form: that would be an open relay"),
        false => Ok(six.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_make_an_open_relay_are_refused() {
        for text in [
            "0.0.0.0/0",
            "10.0.0.0/7",
            "128.0.0.0/1",
            "::/0",
            "2000::/3",
            "2001::/31",
            "::/32",
            "::/64",
            "::fffe:0:0/95",
            "::ffff:0:0/96",
            "::ffff:0.0.0.0/96",
            "::ffff:0.0.0.0/103",
            "::ffff:128.0.0.0/97",
            "10.1.2.3/16",
            "10.1.0.0/33",
            "everybody",
            "",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ordinary_networks_and_single_addresses_are_taken() {
        for (text, meant) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::7", "2001:db8::7/128"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ] {
            assert_eq!(network(text), Ok(meant.parse().unwrap()), "{text}");
        }
    }
}
