//! How a server is written: `smtp.example.nl`, `[smtp.example.nl]:587`, `192.0.2.11`,
//! `[2001:db8::1]:25` (PRODUCT sections 1 and 5).
//!
//! Brackets say: look up addresses only, no MX record.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Host, RelayTls, Server};
use crate::mail::Domain;

/// SMTP between servers (RFC 5321 section 4.5.4.2): the port where none is written.
const DEFAULT_PORT: u16 = 25;

/// Why a text names no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Nothing, or nothing between the brackets.
    #[error("names no host")]
    NoHost,
    /// `smtps://...`
    #[error("looks like a URL: write only the name and the port, as in [smtp.example.nl]:465")]
    Url,
    /// What stands before the colon.
    #[error("has neither a valid host name nor an address before the port")]
    Host,
    /// What stands behind the colon.
    #[error("has no valid port (1 to 65535) behind the colon")]
    Port,
    /// An opening bracket without a closing one, or something behind it that is no port.
    #[error("has brackets that do not fit, write [name] or [name]:port")]
    Brackets,
    /// `2001:db8::1:587` could mean two things.
    #[error("is an IPv6 address without brackets, write [2001:db8::1] or [2001:db8::1]:587")]
    BareIpv6,
}

/// Reads a server as written: the host, and the port, which is 25 unless written.
pub fn read_server(text: &str) -> Result<(Host, u16), ServerError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ServerError::NoHost);
    }
    if text.contains("://") {
        return Err(ServerError::Url);
    }
    if let Some(opened) = text.strip_prefix('[') {
        let (inside, behind) = opened.split_once(']').ok_or(ServerError::Brackets)?;
        let port = match behind.strip_prefix(':') {
            Some(port) => read_port(port)?,
            None if behind.is_empty() => DEFAULT_PORT,
            None => return Err(ServerError::Brackets),
        };
        return Ok((bracketed(inside)?, port));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(ServerError::BareIpv6);
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, read_port(port)?),
        None => (text, DEFAULT_PORT),
    };
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok((Host::Address(address.into()), port));
    }
    Ok((Host::Mx(read_name(host)?), port))
}

fn bracketed(inside: &str) -> Result<Host, ServerError> {
    // The tag of an address literal in mail (RFC 5321 section 4.1.3) is taken here, too.
    let untagged = match inside.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => &inside[5..],
        _ => inside,
    };
    match untagged.parse::<IpAddr>() {
        Ok(address) => Ok(Host::Address(address.to_canonical())),
        Err(_) => Ok(Host::Name(read_name(inside)?)),
    }
}

fn read_port(text: &str) -> Result<u16, ServerError> {
    if !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(ServerError::Port);
    }
    text.parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or(ServerError::Port)
}

fn read_name(text: &str) -> Result<Domain, ServerError> {
    if text.is_empty() {
        return Err(ServerError::NoHost);
    }
    let name = Domain::parse(text).map_err(|_| ServerError::Host)?;
    // "192.0.2" or "192.0.2.300" is a mistyped address: no top-level domain is a number.
    let last = name.ascii().rsplit('.').next().unwrap_or_default();
    if name.literal().is_some() || last.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(ServerError::Host);
    }
    Ok(name)
}

/// What the port and the presence of credentials demand where `tls` is not written.
pub fn default_tls(port: u16, credentials: bool) -> RelayTls {
    match port {
        465 => RelayTls::Implicit,
        587 => RelayTls::Required,
        _ if credentials => RelayTls::Required,
        _ => RelayTls::Opportunistic,
    }
}

impl fmt::Display for Host {
    /// As it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx(name) => write!(f, "{name}"),
            Self::Name(name) => write!(f, "[{name}]"),
            Self::Address(address) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Server {
    /// As it is written in the configuration, the port always with it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mx(name: &str) -> Host {
        Host::Mx(Domain::parse(name).unwrap())
    }

    fn name(name: &str) -> Host {
        Host::Name(Domain::parse(name).unwrap())
    }

    fn address(text: &str) -> Host {
        Host::Address(text.parse().unwrap())
    }

    #[test]
    fn servers_are_read_in_every_notation() {
        for (text, host, port) in [
            ("smtp.example.nl", mx("smtp.example.nl"), 25),
            ("smtp.example.nl:465", mx("smtp.example.nl"), 465),
            ("SMTP.Example.NL.", mx("smtp.example.nl"), 25),
            ("bücher.example:587", mx("xn--bcher-kva.example"), 587),
            ("localhost:2526", mx("localhost"), 2526),
            ("192.0.2.11", address("192.0.2.11"), 25),
            ("192.0.2.11:2525", address("192.0.2.11"), 2525),
            ("[smtp.example.nl]", name("smtp.example.nl"), 25),
            ("[smtp.example.nl]:465", name("smtp.example.nl"), 465),
            ("[192.0.2.11]:587", address("192.0.2.11"), 587),
            ("[2001:db8::1]", address("2001:db8::1"), 25),
            ("[2001:db8::1]:25", address("2001:db8::1"), 25),
            ("[IPv6:2001:db8::1]:25", address("2001:db8::1"), 25),
            ("[::ffff:192.0.2.11]", address("192.0.2.11"), 25),
            (" [a.example]:1 ", name("a.example"), 1),
        ] {
            assert_eq!(read_server(text), Ok((host, port)), "{text}");
        }
    }

    #[test]
    fn what_names_no_server_is_refused_with_the_reason() {
        for (text, error) in [
            ("", ServerError::NoHost),
            (":25", ServerError::NoHost),
            ("[]:25", ServerError::NoHost),
            ("smtps://smtp.example.nl", ServerError::Url),
            ("smtp.example.nl:", ServerError::Port),
            ("smtp.example.nl:0", ServerError::Port),
            ("smtp.example.nl:65536", ServerError::Port),
            ("smtp.example.nl:+25", ServerError::Port),
            ("smtp.example.nl:smtp", ServerError::Port),
            ("a:b:c", ServerError::Port),
            ("[smtp.example.nl", ServerError::Brackets),
            ("[smtp.example.nl]587", ServerError::Brackets),
            ("smtp.example.nl]", ServerError::Host),
            ("smtp example.nl", ServerError::Host),
            ("192.0.2", ServerError::Host),
            ("192.0.2.300:25", ServerError::Host),
            ("user@smtp.example.nl", ServerError::Host),
            ("2001:db8::1", ServerError::BareIpv6),
            ("2001:db8::1:587", ServerError::BareIpv6),
        ] {
            assert_eq!(read_server(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_port_and_the_credentials_decide_about_tls() {
        assert_eq!(default_tls(465, false), RelayTls::Implicit);
        assert_eq!(default_tls(587, false), RelayTls::Required);
        assert_eq!(default_tls(25, true), RelayTls::Required);
        assert_eq!(default_tls(25, false), RelayTls::Opportunistic);
    }

    proptest! {
        #[test]
        fn a_server_is_printed_as_it_is_read(text in "\\PC{0,20}|\\[?[a-z0-9.:-]{0,20}\\]?(:[0-9]{1,5})?") {
            if let Ok((host, port)) = read_server(&text) {
                let server = Server { host: host.clone(), port, tls: RelayTls::Off };
                prop_assert_eq!(read_server(&server.to_string()), Ok((host, port)));
            }
        }
    }
}
