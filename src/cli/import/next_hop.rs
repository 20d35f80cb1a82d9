//! Next hops and senders as Postfix writes them.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::Host;
use crate::config::server::read_server;
use crate::mail::{Domain, Mailbox};

/// A next hop of Postfix: the host, the port, and how Penstock writes it.
pub fn server(next_hop: &str) -> Result<(Host, u16, String), String> {
    let (host, service) = match next_hop.rsplit_once(':') {
        Some((host, service)) if !service.contains(']') => (host, Some(service)),
        _ => (next_hop, None),
    };
    let port = match service {
        None => None,
        Some("smtp") => Some("25"),
        Some("submission") => Some("587"),
        Some("submissions" | "smtps" | "urd") => Some("465"),
        Some(port) => Some(port),
    };
    let inside = host.trim_matches(['[', ']']);
    let host = match inside.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    };
    let written = match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    match read_server(&written) {
        Ok((host, port)) => Ok((host, port, written)),
        Err(error) => Err(format!("{next_hop} {error}")),
    }
}

/// The host of a next hop, without brackets and port.
pub fn host_of(next_hop: &str) -> String {
    match next_hop.strip_prefix('[') {
        Some(inside) => inside.split(']').next().unwrap_or(inside).to_owned(),
        None => next_hop.split(':').next().unwrap_or(next_hop).to_owned(),
    }
}

/// Whether a server is on this machine.
pub fn is_local(host: &Host) -> bool {
    match host {
        Host::Address(address) => IpAddr::is_loopback(address),
        Host::Mx(name) | Host::Name(name) => name.ascii() == "localhost",
    }
}

/// Whether a key of a sender table is an address or a @domain.
pub fn is_sender(text: &str) -> bool {
    match text.strip_prefix('@') {
        Some(domain) => Domain::parse(domain).is_ok(),
        None => Mailbox::parse(text).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_are_read_in_the_words_of_postfix() {
        for (text, expected) in [
            ("[smtp.example.nl]:submission", "[smtp.example.nl]:587"),
            ("smtp.example.nl:smtps", "smtp.example.nl:465"),
            ("example.nl", "example.nl"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[2001:db8::1]:25", "[2001:db8::1]:25"),
        ] {
            assert_eq!(server(text).unwrap().2, expected);
        }
        assert!(server("inet:x:y").is_err());
        assert_eq!(host_of("[smtp.example.nl]:587"), "smtp.example.nl");
        assert_eq!(host_of("smtp.example.nl:587"), "smtp.example.nl");
    }
}
