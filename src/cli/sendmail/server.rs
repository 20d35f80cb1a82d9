//! Where the daemon listens for a program on this machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use super::options::Options;
use super::{Refusal, USAGE};
use crate::config;
use crate::control::submission;
use crate::mail::Domain;

/// Where the configuration is unless somebody says otherwise.
const CONFIGURATION: &str = "/etc/penstock/penstock.toml";
/// What the daemon listens on unless its configuration says otherwise.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2525);

/// The daemon, as far as a program on this machine may know it.
#[derive(Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens; never empty.
    pub addresses: Vec<SocketAddr>,
    /// The name of this machine in mail.
    pub hostname: Domain,
}

impl Server {
    /// What was said on the command line, in the environment, in the configuration that was
    /// named, by the daemon, in the configuration if this user may read it, or else the
    /// usual.
    pub fn find(options: &Options) -> Result<Self, Refusal> {
        let said = |name| std::env::var(name).ok().filter(|it| !it.is_empty());
        let path = options.config.clone().or_else(|| said("PENSTOCK_CONFIG"));
        let path = path.unwrap_or_else(|| CONFIGURATION.to_owned());
        // A configuration that is wrong in other places still tells where the daemon
        // listens, so only that is read.
        let file = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.parse::<toml::Table>().ok())
            .unwrap_or_default();
        let addresses = match options.server.clone().or_else(|| said("PENSTOCK_SERVER")) {
            Some(server) => resolved(&server)?,
            None => vec![local(&path, &submission::usual_path(), &file)],
        };
        Ok(Self {
            addresses,
            hostname: hostname(&file),
        })
    }
}

/// Where a program on this machine hands in mail. Whoever names another configuration
/// means its daemon; that of the machine says itself where it listens, in the file `told`.
fn local(configuration: &str, told: &Path, file: &toml::Table) -> SocketAddr {
    let told = match configuration == CONFIGURATION {
        true => submission::read(told),
        false => None,
    };
    told.or_else(|| listening(file)).unwrap_or(USUAL)
}

fn resolved(server: &str) -> Result<Vec<SocketAddr>, Refusal> {
    let failed =
        |what: &dyn std::fmt::Display| Refusal::new(USAGE, format!("--server {server}: {what}"));
    let addresses: Vec<_> = server
        .to_socket_addrs()
        .map_err(|error| failed(&error))?
        .collect();
    match addresses.is_empty() {
        true => Err(failed(&"it has no address")),
        false => Ok(addresses),
    }
}

fn hostname(file: &toml::Table) -> Domain {
    let written = file.get("hostname").and_then(toml::Value::as_str);
    written
        .and_then(|it| Domain::parse(it).ok())
        .or_else(|| Domain::parse(&config::machine_name()).ok())
        .unwrap_or_else(|| Domain::parse("localhost").expect("localhost is a domain"))
}

/// The first listener that a program on this machine can use without TLS and login,
/// loopback before others.
fn listening(file: &toml::Table) -> Option<SocketAddr> {
    let listeners = file.get("listen")?.as_array()?;
    let usable = |listener: &toml::Value| {
        let text = |key: &str| listener.get(key).and_then(toml::Value::as_str);
        let address: SocketAddr = text("address")?.parse().ok()?;
        let plain = text("tls") != Some("implicit") && text("auth") != Some("required");
        plain.then_some(address)
    };
    let usable: Vec<SocketAddr> = listeners.iter().filter_map(usable).collect();
    submission::choice(&usable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<String> {
        listening(&text.parse().unwrap()).map(|it| it.to_string())
    }

    #[test]
    fn the_daemon_of_the_machine_says_itself_where_it_listens() {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("submission");
        let written = "[[listen]]\naddress = \"127.0.0.1:25\"".parse().unwrap();
        let local = |path: &str, file: &toml::Table| local(path, &told, file).port();
        // It does not run, or not so.
        assert_eq!(local(CONFIGURATION, &toml::Table::new()), 2525);
        assert_eq!(local(CONFIGURATION, &written), 25);
        submission::write(&told, Some("127.0.0.1:587".parse().unwrap())).unwrap();
        assert_eq!(local(CONFIGURATION, &toml::Table::new()), 587);
        assert_eq!(local(CONFIGURATION, &written), 587);
        assert_eq!(local("/srv/penstock.toml", &written), 25);
        assert_eq!(local("/srv/penstock.toml", &toml::Table::new()), 2525);
    }

    #[test]
    fn the_listener_for_local_programs_is_found_in_the_configuration() {
        assert_eq!(found(""), None);
        assert_eq!(
            found(
                "[[listen]]\naddress = \"0.0.0.0:587\"\nauth = \"required\"\n[[listen]]\naddress = \"127.0.0.1:25\""
            ),
            Some("127.0.0.1:25".into())
        );
        assert_eq!(
            found(
                "[[listen]]\naddress = \"127.0.0.1:465\"\ntls = \"implicit\"\n[[listen]]\naddress = \"[::]:587\"\ntls = \"starttls\""
            ),
            Some("[::1]:587".into())
        );
        assert_eq!(found("[[listen]]\naddress = \"10.0.0.1:25\""), None);
        assert_eq!(found("listen = 3"), None);
    }
}
