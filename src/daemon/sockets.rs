//! Listening sockets: bound by us, or handed over by systemd.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use rustix::net::sockopt;

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: i32 = 1024;

/// Sockets that systemd handed over, not yet matched to a listener.
#[derive(Debug, Default)]
pub struct Inherited {
    /// TCP sockets with the address they are bound to.
    pub tcp: Vec<(SocketAddr, TcpListener)>,
    /// The control socket.
    pub control: Option<UnixListener>,
}

/// Why a socket is not there.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Binding failed.
    #[error("cannot listen on {address}: {source}{}", remedy(.source))]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// systemd handed over a socket that no `[[listen]]` names.
    #[error(
        "systemd handed over a socket bound to {address}, but no [[listen]] has that address: \
         add one, so that it is known who may send through it, or remove it from \
         penstock.socket{}", implied(*.address)
    )]
    Unknown {
        /// What it is bound to.
        address: SocketAddr,
    },
    /// A descriptor that cannot be used.
    #[error(
        "systemd handed over descriptor {number}, which is neither a listening TCP socket nor a Unix socket: {source}"
    )]
    Descriptor {
        /// Which, counted from 0.
        number: usize,
        /// Why not.
        source: io::Error,
    },
}

impl SocketError {
    /// Whether the address is taken.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program or another [[listen]] has that port: stop it, or choose another port"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need penstock.socket, or AmbientCapabilities=CAP_NET_BIND_SERVICE in penstock.service"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    }
}

/// The listener that is meant when none is written is the shipped socket's, too.
fn implied(address: SocketAddr) -> &'static str {
    match address == crate::config::IMPLIED_LISTENER {
        true => {
            " (without any [[listen]] this address is meant; as soon as one is written, it must \
             be written, too)"
        }
        false => "",
    }
}

impl Inherited {
    /// Takes over what `LISTEN_FDS` announces; empty when started by hand.
    pub fn from_systemd() -> Result<Self, SocketError> {
        let mut descriptors = ListenFd::from_env();
        let mut inherited = Self::default();
        for number in 0..descriptors.len() {
            if let Ok(Some(unix)) = descriptors.take_unix_listener(number) {
                inherited.control = Some(unix);
                continue;
            }
            let taken = descriptors
                .take_tcp_listener(number)
                .and_then(|it| it.ok_or_else(|| io::Error::other("it was taken already")))
                .and_then(|listener| Ok((listener.local_addr()?, listener)));
            match taken {
                Ok((address, listener)) => inherited.tcp.push((address, listener)),
                Err(source) => return Err(SocketError::Descriptor { number, source }),
            }
        }
        Ok(inherited)
    }

    /// The inherited socket with this address, if there is one.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let place = self.tcp.iter().position(|(bound, _)| *bound == address)?;
        Some(self.tcp.swap_remove(place).1)
    }

    /// Refuses what is left: a socket that nobody configured could be an open relay.
    pub fn refuse_rest(&self) -> Result<(), SocketError> {
        match self.tcp.first() {
            Some((address, _)) => Err(SocketError::Unknown { address: *address }),
            None => Ok(()),
        }
    }
}

/// Binds an address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, SocketError> {
    listening(address, false).map_err(|source| SocketError::Bind { address, source })
}

/// Binds an address although `leaving`, a listening socket of ours with the same port,
/// covers it and is about to be closed.
///
/// Both hold the port for a moment, so that no client finds it closed, and that the old
/// one is untouched when the new one cannot be had.
pub fn bind_over(leaving: &impl AsFd, address: SocketAddr) -> Result<TcpListener, SocketError> {
    let bound = sockopt::set_socket_reuseport(leaving, true)
        .map_err(io::Error::from)
        .and_then(|()| listening(address, true));
    // Another program finds the port taken, as ever; one of our own user that asks for
    // SO_REUSEPORT could join, but that user reads the spool as well.
    sockopt::set_socket_reuseport(leaving, false).ok();
    if let Ok(bound) = &bound {
        sockopt::set_socket_reuseport(bound, false).ok();
    }
    bound.map_err(|source| SocketError::Bind { address, source })
}

/// A listening socket; `[::]` takes IPv6 only, so that it can stand beside `0.0.0.0`.
fn listening(address: SocketAddr, shares: bool) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, shares)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_socket_is_used_for_the_listener_with_its_address() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.local_addr().unwrap();
        let mut inherited = Inherited {
            tcp: vec![(address, bound)],
            control: None,
        };
        let taken = inherited.take(address).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        inherited.refuse_rest().unwrap();
    }

    #[test]
    fn an_inherited_socket_that_nobody_configured_is_refused() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.local_addr().unwrap();
        let inherited = Inherited {
            tcp: vec![(address, bound)],
            control: None,
        };
        assert!(matches!(
            inherited.refuse_rest(),
            Err(SocketError::Unknown { .. })
        ));
    }

    #[test]
    fn whoever_writes_the_first_listener_is_told_of_the_implied_one() {
        let said = |text: &str| {
            let address = text.parse().unwrap();
            SocketError::Unknown { address }.to_string()
        };
        assert!(said("127.0.0.1:2525").contains("it must be written, too"));
        assert!(!said("127.0.0.1:25").contains("it must be written, too"));
    }

    #[test]
    fn a_port_in_use_is_named_with_its_remedy() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains("another program"), "{error}");
    }

    #[test]
    fn an_address_is_bound_over_a_wider_or_narrower_one_and_is_taken_for_all_others() {
        let port = |it: &TcpListener| it.local_addr().unwrap().port();
        let wide = bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let narrow = SocketAddr::from(([127, 0, 0, 1], port(&wide)));
        let second = bind_over(&wide, narrow).unwrap();
        assert!(bind(narrow).is_err(), "it is taken");
        drop(wide);
        std::net::TcpStream::connect(narrow).unwrap();
        second.accept().unwrap();
        let wide = SocketAddr::from(([0, 0, 0, 0], narrow.port()));
        let third = bind_over(&second, wide).unwrap();
        drop(second);
        std::net::TcpStream::connect(narrow).unwrap();
        third.accept().unwrap();
        assert!(bind(narrow).is_err(), "it is taken");
    }
}
