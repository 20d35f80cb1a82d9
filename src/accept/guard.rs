//! Never an open relay: who may submit without a login, judged on the address that is
//! really bound and the address that really connected.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::config::{Listener, ListenerAuth};

/// Shorter prefixes are no network of anybody's own.
const PREFIX_MINIMUM_V4: u8 = 8;
const PREFIX_MINIMUM_V6: u8 = 32;

/// What a client may do before it logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Submit.
    Open,
    /// Log in.
    AfterLogin,
    /// Nothing that sends mail.
    Never,
}

/// Why a listener must not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenRelay {
    /// Anybody could connect, and nothing would tell friend from foe.
    #[error(
        "the listener on {bound} is not on loopback: set auth = \"required\" (or \"optional\"), \
         or allow-from with the networks that may submit"
    )]
    NoBarrier {
        /// The address really bound.
        bound: SocketAddr,
    },
    /// A network that is most of the internet.
    #[error(
        "allow-from = {network} on the listener {bound} is too wide: at least /8 (IPv4) or /32 (IPv6)"
    )]
    TooWide {
        /// The address really bound.
        bound: SocketAddr,
        /// The network.
        network: IpNet,
    },
}

/// Whether a listener may start on the address that it is really bound to.
pub fn check(bound: SocketAddr, listener: &Listener) -> Result<(), OpenRelay> {
    if let Some(network) = listener.allow_from.iter().find(|it| is_too_wide(it)) {
        return Err(OpenRelay::TooWide {
            bound,
            network: *network,
        });
    }
    let barrier = listener.auth != ListenerAuth::Off || !listener.allow_from.is_empty();
    if is_loopback(bound.ip()) || barrier {
        Ok(())
    } else {
        Err(OpenRelay::NoBarrier { bound })
    }
}

/// What a client may do before it logs in.
///
/// A loopback client is a local application only where the listener is on loopback, too:
/// anywhere else a forwarded port could hide the whole world behind 127.0.0.1.
pub fn trust(bound: SocketAddr, client: IpAddr, listener: &Listener) -> Trust {
    let client = client.to_canonical();
    let local = is_loopback(bound.ip()) && client.is_loopback();
    let allowed = || listener.allow_from.iter().any(|it| contains(it, client));
    match listener.auth {
        ListenerAuth::Required => Trust::AfterLogin,
        _ if local || allowed() => Trust::Open,
        ListenerAuth::Optional => Trust::AfterLogin,
        ListenerAuth::Off => Trust::Never,
    }
}

/// Whether this is a loopback address, in IPv6's clothes or not.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a network has an address, which is canonical already.
fn contains(network: &IpNet, client: IpAddr) -> bool {
    match (network, client) {
        // `::ffff:10.0.0.0/104` says `10.0.0.0/8` in a roundabout way.
        (IpNet::V6(six), IpAddr::V4(four)) => {
            six.prefix_len() >= 96 && six.contains(&four.to_ipv6_mapped())
        }
        _ => network.contains(&client),
    }
}

fn is_too_wide(network: &IpNet) -> bool {
    match network {
        IpNet::V4(four) => four.prefix_len() < PREFIX_MINIMUM_V4,
        IpNet::V6(six) => {
            let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
            let is_mapped = six.network().to_ipv4_mapped().is_some() && six.prefix_len() >= 96;
            six.prefix_len() < PREFIX_MINIMUM_V6
                || (is_mapped && six.prefix_len() - 96 < PREFIX_MINIMUM_V4)
                || (!is_mapped && six.contains(&mapped))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BareLf, ListenerTls};

    fn listener(auth: ListenerAuth, allow_from: &[&str]) -> Listener {
        Listener {
            address: "0.0.0.0:25".parse().unwrap(),
            tls: ListenerTls::Off,
            auth,
            allow_from: allow_from.iter().map(|it| it.parse().unwrap()).collect(),
            senders: Vec::new(),
            bare_lf: BareLf::Refuse,
        }
    }

    #[test]
    fn a_listener_that_anybody_could_use_does_not_start() {
        let bound = |text: &str| text.parse::<SocketAddr>().unwrap();
        let off = listener(ListenerAuth::Off, &[]);
        for open in [
            "0.0.0.0:25",
            "[::]:25",
            "192.0.2.1:25",
            "[::ffff:192.0.2.1]:25",
        ] {
            assert!(check(bound(open), &off).is_err(), "{open}");
            assert!(check(bound(open), &listener(ListenerAuth::Optional, &[])).is_ok());
            assert!(check(bound(open), &listener(ListenerAuth::Off, &["10.0.0.0/8"])).is_ok());
        }
        for closed in [
            "127.0.0.1:25",
            "127.8.8.8:25",
            "[::1]:25",
            "[::ffff:127.0.0.1]:25",
        ] {
            assert!(check(bound(closed), &off).is_ok(), "{closed}");
        }
    }

    #[test]
    fn a_network_that_is_most_of_the_internet_is_refused() {
        let bound = "0.0.0.0:25".parse().unwrap();
        for (network, right) in [
            ("0.0.0.0/0", false),
            ("128.0.0.0/1", false),
            ("10.0.0.0/7", false),
            ("10.0.0.0/8", true),
            ("::/0", false),
            ("::/32", false),
            ("::/64", false),
            ("::ffff:0:0/95", false),
            ("::ffff:0:0/96", false),
            ("::ffff:10.0.0.0/103", false),
            ("::ffff:10.0.0.0/104", true),
            ("2001:db8::/31", false),
            ("2001:db8::/32", true),
            ("::1/128", true),
        ] {
            let listener = listener(ListenerAuth::Off, &[network]);
            assert_eq!(check(bound, &listener).is_ok(), right, "{network}");
        }
    }

    #[test]
    fn who_may_submit_depends_on_both_ends() {
        let trust_of = |bound: &str, client: &str, auth, allow: &[&str]| {
            trust(
                bound.parse().unwrap(),
                client.parse().unwrap(),
                &listener(auth, allow),
            )
        };
        use ListenerAuth::{Off, Optional, Required};
        for (bound, client, auth, allow, expected) in [
            ("127.0.0.1:25", "127.0.0.1", Off, &[][..], Trust::Open),
            ("[::1]:25", "::1", Off, &[], Trust::Open),
            (
                "[::ffff:127.0.0.1]:25",
                "::ffff:127.0.0.1",
                Off,
                &[],
                Trust::Open,
            ),
            (
                "127.0.0.1:25",
                "127.0.0.1",
                Required,
                &[],
                Trust::AfterLogin,
            ),
            ("127.0.0.1:25", "192.0.2.1", Off, &[], Trust::Never),
            ("0.0.0.0:25", "127.0.0.1", Optional, &[], Trust::AfterLogin),
            (
                "0.0.0.0:25",
                "127.0.0.1",
                Off,
                &["10.0.0.0/8"],
                Trust::Never,
            ),
            ("0.0.0.0:25", "10.1.2.3", Off, &["10.0.0.0/8"], Trust::Open),
            (
                "[::]:25",
                "::ffff:10.1.2.3",
                Off,
                &["10.0.0.0/8"],
                Trust::Open,
            ),
            (
                "[::]:25",
                "::ffff:10.1.2.3",
                Off,
                &["::ffff:10.0.0.0/104"],
                Trust::Open,
            ),
            (
                "[::]:25",
                "::ffff:11.1.2.3",
                Off,
                &["::ffff:10.0.0.0/104"],
                Trust::Never,
            ),
            (
                "0.0.0.0:25",
                "11.1.2.3",
                Optional,
                &["10.0.0.0/8"],
                Trust::AfterLogin,
            ),
            (
                "[::]:25",
                "2001:db8::1",
                Off,
                &["2001:db8::/32"],
                Trust::Open,
            ),
        ] {
            assert_eq!(
                trust_of(bound, client, auth, allow),
                expected,
                "{bound} {client}"
            );
        }
    }
}
