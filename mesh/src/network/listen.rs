//! Taking a port: the same number for UDP and TCP, on every configured address.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
};

use libp2p::{Swarm, swarm::NetworkBehaviour};

use crate::{
    address::{PeerAddr, Wire, to_multiaddr},
    config::NetworkConfig,
    error::BindError,
};

/// How often a free port is looked for: the one that was found may be taken a moment later.
const ATTEMPTS: usize = 8;

/// Makes the swarm listen and says where it does.
pub(super) fn listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    config: &NetworkConfig,
) -> Result<Vec<SocketAddr>, BindError> {
    if config.port != 0 {
        return listen_on(swarm, &config.listen, config.port);
    }
    let mut last = BindError::NoAddress;
    for _ in 0..ATTEMPTS {
        let port = free_port(&config.listen)?;
        match listen_on(swarm, &config.listen, port) {
            Err(error @ BindError::PortInUse { .. }) => last = error,
            result => return result,
        }
    }
    Err(last)
}

/// Listens on one port of every address that works, by QUIC or TCP or both; it is enough if one does. A port that is taken on
/// any of them is an error, because addresses are given away with a single port.
fn listen_on<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    ips: &[IpAddr],
    port: u16,
) -> Result<Vec<SocketAddr>, BindError> {
    let (mut open, mut listeners, mut last) = (Vec::new(), Vec::new(), BindError::NoAddress);
    for ip in ips {
        let socket = SocketAddr::new(*ip, port);
        for wire in [Wire::Quic, Wire::Tcp] {
            let error = match swarm.listen_on(to_multiaddr(wire, socket)) {
                Ok(listener) => {
                    listeners.push(listener);
                    if !open.contains(&socket) {
                        open.push(socket);
                    }
                    continue;
                }
                Err(libp2p::TransportError::Other(error)) => innermost(error),
                Err(libp2p::TransportError::MultiaddrNotSupported(_)) => {
                    io::Error::from(io::ErrorKind::Unsupported)
                }
            };
            if error.kind() == io::ErrorKind::AddrInUse {
                for listener in listeners {
                    swarm.remove_listener(listener);
                }
                return Err(BindError::PortInUse { ip: *ip, port });
            }
            tracing::debug!(%socket, %wire, %error, "cannot listen here");
            last = BindError::Listen {
                ip: *ip,
                source: error,
            };
        }
    }
    if open.is_empty() { Err(last) } else { Ok(open) }
}

/// A port that is free for UDP and TCP on every address that works.
fn free_port(ips: &[IpAddr]) -> Result<u16, BindError> {
    let mut last = BindError::NoAddress;
    for _ in 0..ATTEMPTS {
        let Some(first) = ips.iter().find_map(|ip| UdpSocket::bind((*ip, 0)).ok()) else {
            let ip = *ips.first().ok_or(BindError::NoAddress)?;
            let source = io::Error::from(io::ErrorKind::AddrNotAvailable);
            return Err(BindError::Listen { ip, source });
        };
        let port = first
            .local_addr()
            .map_err(|source| BindError::Listen {
                ip: IpAddr::from([0, 0, 0, 0]),
                source,
            })?
            .port();
        drop(first);
        let taken = ips.iter().find(|ip| is_taken(**ip, port));
        match taken {
            None => return Ok(port),
            Some(ip) => last = BindError::PortInUse { ip: *ip, port },
        }
    }
    Err(last)
}

fn is_taken(ip: IpAddr, port: u16) -> bool {
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    UdpSocket::bind((ip, port)).is_err_and(|error| in_use(&error))
        || TcpListener::bind((ip, port)).is_err_and(|error| in_use(&error))
}

/// libp2p wraps the system's error, sometimes more than once.
fn innermost(error: io::Error) -> io::Error {
    let mut cause = error
        .get_ref()
        .map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(inner) = cause {
        let found = inner
            .downcast_ref::<io::Error>()
            .filter(|inner| inner.get_ref().is_none());
        if let Some(found) = found {
            return found.kind().into();
        }
        cause = match inner.downcast_ref::<io::Error>() {
            Some(wrapped) => wrapped.get_ref().map(|inner| inner as _),
            None => inner.source(),
        };
    }
    error
}

/// The addresses at which others can reach a listening socket: its own, or those of the interfaces.
pub(super) fn reachable(open: &[SocketAddr]) -> Vec<PeerAddr> {
    let interfaces = match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "cannot list the network interfaces");
            Vec::new()
        }
    };
    let mut addrs = Vec::new();
    for socket in open {
        if !socket.ip().is_unspecified() {
            addrs.push(PeerAddr::any(*socket));
            continue;
        }
        let same = interfaces.iter().filter(|interface| {
            let ip = interface.ip();
            ip.is_ipv4() == socket.is_ipv4() && !ip.is_loopback() && !is_link_local(ip)
        });
        addrs.extend(
            same.map(|interface| PeerAddr::any(SocketAddr::new(interface.ip(), socket.port()))),
        );
    }
    addrs
}

/// Needs a zone that means nothing elsewhere; discovery gives such addresses with their zone.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
