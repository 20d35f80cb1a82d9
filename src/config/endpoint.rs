//! An address on the web to which secrets are sent.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

/// An `https://` URL, or an `http://` one that does not leave this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Reads one, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "is not a URL")?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err("names no server");
        }
        // Tokens would be for whoever listens in between.
        let on_this_machine = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if on_this_machine => {}
            "http" => return Err("would send tokens in clear"),
            _ => return Err("does not begin with https://"),
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("has more in it than a server and a path");
        }
        Ok(Self(url))
    }

    /// The server's name or address, without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The server's address, if it is written as one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }

    /// Whether TLS comes first.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The Host field: the port only where it is not the usual one.
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// The path, and the query if there is one.
    pub fn path(&self) -> &str {
        &self.0[url::Position::BeforePath..url::Position::AfterQuery]
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_leave_this_machine_under_tls_only() {
        for (text, host, port, path) in [
            ("https://a.example/x?y=1", "a.example", 443, "/x?y=1"),
            ("HTTPS://A.example:8443", "a.example", 8443, "/"),
            ("http://127.0.0.1:8080/token", "127.0.0.1", 8080, "/token"),
            ("http://[::1]:8080/t", "::1", 8080, "/t"),
            ("http://localhost/t", "localhost", 80, "/t"),
        ] {
            let it = Endpoint::parse(text).unwrap();
            assert_eq!((it.host(), it.port(), it.path()), (host, port, path));
        }
        for text in [
            "",
            "a.example",
            "http://a.example/token",
            "http://192.0.2.1/token",
            "http://127.0.0.1.example/token",
            "http://localhost.example/",
            "http://localhost@a.example/",
            "ftp://a.example/",
            "https://user:word@a.example/",
            "https://a.example/#x",
            "file:///etc/passwd",
        ] {
            let read = Endpoint::parse(text);
            assert!(read.is_err(), "{text}: {read:?}");
        }
    }
}
