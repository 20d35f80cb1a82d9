//! The machine's resolver, as it is configured now.
//!
//! A network that changes writes another `/etc/resolv.conf`; a daemon that runs for
//! months must not ask the name servers of the day on which it started.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tracing::{info, warn};

use super::{Answer, Dns, DnsError, Kind, Resolver};

/// Where the system says whom to ask.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Asks as the system's configuration says; made anew when that changes.
#[derive(Debug)]
pub struct SystemResolver {
    path: PathBuf,
    present: Mutex<Present>,
}

#[derive(Debug)]
struct Present {
    resolver: Resolver,
    /// Of the file that it was made from.
    stamp: Stamp,
}

/// What tells one version of the file from another; none when there is no file.
type Stamp = Option<(SystemTime, u64)>;

impl SystemResolver {
    /// With the configuration as it is now.
    pub fn new() -> Result<Self, DnsError> {
        Self::reading(Path::new(RESOLV_CONF))
    }

    fn reading(path: &Path) -> Result<Self, DnsError> {
        let stamp = stamp(path);
        Ok(Self {
            path: path.to_owned(),
            present: Mutex::new(Present {
                resolver: Resolver::configured_in(path)?,
                stamp,
            }),
        })
    }

    fn resolver(&self) -> Resolver {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.path);
        if stamp != present.stamp {
            info!(path = %self.path.display(), "the resolver's configuration changed");
            present.stamp = stamp;
            renew(&mut present.resolver, &self.path);
        }
        present.resolver.clone()
    }
}

impl Dns for SystemResolver {
    fn look_up<'a>(&'a self, name: &'a str, kind: Kind) -> Answer<'a> {
        Box::pin(async move { self.resolver().look_up(name, kind).await })
    }

    fn forget(&self) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        present.stamp = stamp(&self.path);
        renew(&mut present.resolver, &self.path);
    }
}

fn renew(resolver: &mut Resolver, path: &Path) {
    match Resolver::configured_in(path) {
        Ok(new) => *resolver = new,
        Err(trouble) => warn!(%trouble, "the old resolver stays in use"),
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(dns: &SystemResolver) -> Vec<String> {
        let (config, _) = dns.resolver().configuration();
        let servers = config.name_servers().iter();
        servers.map(|it| it.ip.to_string()).collect()
    }

    #[test]
    fn a_changed_resolv_conf_is_followed_and_a_missing_one_means_this_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let dns = SystemResolver::reading(&path).unwrap();
        assert_eq!(asks(&dns), ["192.0.2.1"]);
        fs::write(&path, "nameserver 192.0.2.10\nnameserver 192.0.2.11\n").unwrap();
        assert_eq!(asks(&dns), ["192.0.2.10", "192.0.2.11"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(asks(&dns), ["127.0.0.1"]);
        fs::write(&path, "nameserver 192.0.2.3\n").unwrap();
        dns.forget();
        assert_eq!(asks(&dns), ["192.0.2.3"]);
    }
}
