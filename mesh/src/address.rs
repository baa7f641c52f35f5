//! Where a device listens: an IP address, a port, and QUIC or TCP (or whichever answers).
//!
//! This is the only form of an address that leaves the crate; multiaddrs are made from it at the edge of
//! the transport and nowhere else. Host names are resolved once, by [`PeerAddr::resolve`], and not kept.

use std::{
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    str::FromStr,
};

use libp2p::{
    Multiaddr,
    multiaddr::{Error as MultiaddrError, Protocol},
};
use serde::{Deserialize, Serialize};

use crate::peer::PathKind;

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// QUIC over UDP: one connection, many independent streams. Preferred.
    Quic,
    /// TCP with Noise and Yamux, for networks that drop UDP.
    Tcp,
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::Tcp => "TCP",
        })
    }
}

/// Where addresses are counted together: whoever has one of a site can have all of them. An IPv4 address, or
/// an IPv6 network of 64 bits, which is what one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Site(IpAddr);

impl Site {
    pub(crate) fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        })
    }
}

/// An address of a device, such as `192.168.1.4:4711`, `[fe80::1%eth0]:4711`, `udp/10.0.0.7:4711`,
/// `tcp/10.0.0.7:4711` or a multiaddr (`/ip4/10.0.0.7/udp/4711/quic-v1`).
///
/// Without a prefix both QUIC and TCP are tried on the port. An IPv6 zone may be a name or a number and
/// is kept as a number: it means something on this machine only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddr {
    socket: SocketAddr,
    wire: Option<Wire>,
}

impl PeerAddr {
    /// An address on which both QUIC and TCP are tried.
    pub fn any(socket: SocketAddr) -> Self {
        Self {
            socket: unmap(socket),
            wire: None,
        }
    }

    /// An address on which only `wire` is tried.
    pub fn on(wire: Wire, socket: SocketAddr) -> Self {
        Self {
            socket: unmap(socket),
            wire: Some(wire),
        }
    }

    /// The IP address.
    pub fn ip(&self) -> IpAddr {
        self.socket.ip()
    }

    /// The UDP and TCP port.
    pub fn port(&self) -> u16 {
        self.socket.port()
    }

    /// The IP address, port and IPv6 zone.
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// The only transport to try, or `None` for both.
    pub fn wire(&self) -> Option<Wire> {
        self.wire
    }

    /// Reads an address as [`FromStr`] does, or else looks up `host:port` (prefixes allowed) by name.
    ///
    /// # Errors
    ///
    /// [`AddrError`] when the text is neither an address nor a name that resolves.
    pub async fn resolve(text: &str) -> Result<Vec<Self>, AddrError> {
        match text.parse() {
            Ok(addr) => return Ok(vec![addr]),
            Err(error @ (AddrError::Port { .. } | AddrError::Zone { .. })) => return Err(error),
            Err(AddrError::Syntax { .. } | AddrError::Lookup { .. }) => {}
        }
        let (wire, host) = split_wire(text);
        if !host.contains(':') || host.contains('/') {
            return Err(AddrError::Syntax {
                text: text.to_owned(),
            });
        }
        let found = tokio::net::lookup_host(host)
            .await
            .map_err(|source| AddrError::Lookup {
                text: text.to_owned(),
                source,
            })?;
        Ok(found
            .map(|socket| Self {
                socket: unmap(socket),
                wire,
            })
            .collect())
    }

    /// How a connection to this address travels, judged by the address alone.
    pub(crate) fn path(&self) -> PathKind {
        match self.ip() {
            ip if ip.is_loopback() => PathKind::Local,
            IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => PathKind::Lan,
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => PathKind::Lan,
            IpAddr::V4(_) | IpAddr::V6(_) => PathKind::Direct,
        }
    }

    /// Whether one could send anything there at all.
    pub(crate) fn is_dialable(&self) -> bool {
        self.port() != 0 && !self.ip().is_unspecified() && !self.ip().is_multicast()
    }

    /// The multiaddrs to dial, the preferred one first.
    pub(crate) fn multiaddrs(&self) -> Vec<Multiaddr> {
        match self.wire {
            Some(wire) => vec![to_multiaddr(wire, self.socket)],
            None => vec![
                to_multiaddr(Wire::Quic, self.socket),
                to_multiaddr(Wire::Tcp, self.socket),
            ],
        }
    }

    /// Reads what [`to_multiaddr`] writes; a trailing `/p2p/…` is ignored.
    pub(crate) fn from_multiaddr(addr: &Multiaddr) -> Option<Self> {
        let mut parts = addr.iter().peekable();
        let scope = match parts.next_if(|part| matches!(part, Protocol::Ip6zone(_))) {
            Some(Protocol::Ip6zone(zone)) => zone_index(&zone)?,
            Some(_) | None => 0,
        };
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) => IpAddr::V6(ip),
            _ => return None,
        };
        let (wire, port) = match parts.next()? {
            Protocol::Udp(port) => match parts.next()? {
                Protocol::QuicV1 => (Wire::Quic, port),
                _ => return None,
            },
            Protocol::Tcp(port) => (Wire::Tcp, port),
            _ => return None,
        };
        match parts.next() {
            None | Some(Protocol::P2p(_)) => {}
            Some(_) => return None,
        }
        Some(Self::on(wire, with_scope(ip, port, scope)))
    }
}

/// The multiaddr of a socket address on a transport.
pub(crate) fn to_multiaddr(wire: Wire, socket: SocketAddr) -> Multiaddr {
    let mut addr = Multiaddr::empty();
    if let SocketAddr::V6(v6) = socket
        && v6.scope_id() != 0
    {
        addr.push(Protocol::Ip6zone(v6.scope_id().to_string().into()));
    }
    addr.push(socket.ip().into());
    match wire {
        Wire::Quic => {
            addr.push(Protocol::Udp(socket.port()));
            addr.push(Protocol::QuicV1);
        }
        Wire::Tcp => addr.push(Protocol::Tcp(socket.port())),
    }
    addr
}

/// Why a text is not an address of a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddrError {
    /// It has no form that we know.
    #[error("{text:?} is not an address; write it like 192.168.1.4:4711 or [fe80::1%eth0]:4711")]
    Syntax {
        /// The text.
        text: String,
    },
    /// It has no port, or port 0.
    #[error("{text:?} names no port; write it like 192.168.1.4:4711")]
    Port {
        /// The text.
        text: String,
    },
    /// The zone is no network interface of this machine.
    #[error("{text:?} names a network interface that this machine does not have")]
    Zone {
        /// The text.
        text: String,
    },
    /// The host name does not resolve.
    #[error("cannot look up {text:?}")]
    Lookup {
        /// The text.
        text: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
}

impl FromStr for PeerAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let syntax = || AddrError::Syntax {
            text: text.to_owned(),
        };
        if text.starts_with('/') {
            let addr: Multiaddr = text.parse().map_err(|_: MultiaddrError| syntax())?;
            return Self::from_multiaddr(&addr).ok_or_else(syntax);
        }
        let (wire, rest) = split_wire(text);
        if rest.parse::<IpAddr>().is_ok() {
            return Err(AddrError::Port {
                text: text.to_owned(),
            });
        }
        let socket = match rest.parse() {
            Ok(socket) => socket,
            Err(_) => named_zone(rest)
                .ok_or_else(syntax)?
                .ok_or_else(|| AddrError::Zone {
                    text: text.to_owned(),
                })?,
        };
        if socket.port() == 0 {
            return Err(AddrError::Port {
                text: text.to_owned(),
            });
        }
        Ok(Self {
            socket: unmap(socket),
            wire,
        })
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wire {
            Some(Wire::Quic) => write!(f, "udp/{}", self.socket),
            Some(Wire::Tcp) => write!(f, "tcp/{}", self.socket),
            None => write!(f, "{}", self.socket),
        }
    }
}

impl TryFrom<String> for PeerAddr {
    type Error = AddrError;

    fn try_from(text: String) -> Result<Self, AddrError> {
        text.parse()
    }
}

impl From<PeerAddr> for String {
    fn from(addr: PeerAddr) -> Self {
        addr.to_string()
    }
}

/// Takes the `udp/` or `tcp/` prefix off.
fn split_wire(text: &str) -> (Option<Wire>, &str) {
    match text.split_once('/') {
        Some(("udp", rest)) => (Some(Wire::Quic), rest),
        Some(("tcp", rest)) => (Some(Wire::Tcp), rest),
        Some(_) | None => (None, text),
    }
}

/// Reads `[ip%name]:port`. Outer `None`: not of that form; inner: no such interface.
fn named_zone(text: &str) -> Option<Option<SocketAddr>> {
    let (inside, port) = text.strip_prefix('[')?.split_once("]:")?;
    let (ip, zone) = inside.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let port = port.parse().ok()?;
    Some(zone_index(zone).map(|scope| with_scope(ip.into(), port, scope)))
}

/// The index of an interface, given by name or number.
fn zone_index(zone: &str) -> Option<u32> {
    if let Ok(index) = zone.parse() {
        return Some(index);
    }
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces
            .into_iter()
            .find(|interface| interface.name == zone)
            .and_then(|interface| interface.index),
        Err(error) => {
            tracing::warn!(%error, "cannot list the network interfaces");
            None
        }
    }
}

fn with_scope(ip: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match ip {
        IpAddr::V4(v4) => (v4, port).into(),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
    }
}

/// IPv4 addresses that a dual-stack socket shows as IPv6 become IPv4 again.
fn unmap(socket: SocketAddr) -> SocketAddr {
    match socket {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => socket,
        },
        SocketAddr::V4(_) => socket,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_form_reads_back_as_itself() {
        for text in [
            "192.168.1.4:4711",
            "udp/192.168.1.4:4711",
            "tcp/192.168.1.4:4711",
            "[2001:db8::1]:4711",
            "udp/[fe80::1%3]:4711",
        ] {
            let addr: PeerAddr = text.parse().unwrap();
            assert_eq!(addr.to_string(), text);
            for multiaddr in addr.multiaddrs() {
                let back = PeerAddr::from_multiaddr(&multiaddr).unwrap();
                assert_eq!(back.socket(), addr.socket(), "{multiaddr}");
            }
        }
    }

    #[test]
    fn multiaddrs_are_understood() {
        let addr: PeerAddr = "/ip4/10.0.0.7/udp/4711/quic-v1".parse().unwrap();
        assert_eq!(addr, "udp/10.0.0.7:4711".parse().unwrap());
        let addr: PeerAddr = "/ip6/2001:db8::1/tcp/80".parse().unwrap();
        assert_eq!(addr.to_string(), "tcp/[2001:db8::1]:80");
    }

    #[test]
    fn a_wrong_address_is_refused_with_the_reason() {
        for text in [
            "",
            "laptop",
            "10.0.0.7:99999",
            "/ip4/1.2.3.4/udp/1",
            "ftp/10.0.0.7:1",
            "::1:x",
        ] {
            let error = text.parse::<PeerAddr>().unwrap_err();
            assert!(matches!(error, AddrError::Syntax { .. }), "{text}: {error}");
        }
        for text in ["10.0.0.7", "tcp/10.0.0.7", "fe80::1", "10.0.0.7:0"] {
            let error = text.parse::<PeerAddr>().unwrap_err();
            assert!(matches!(error, AddrError::Port { .. }), "{text}: {error}");
        }
        let error = "[fe80::1%no-such-card]:4711"
            .parse::<PeerAddr>()
            .unwrap_err();
        assert!(matches!(error, AddrError::Zone { .. }), "{error}");
    }

    #[test]
    fn an_interface_can_be_given_by_name() {
        let addr: PeerAddr = "[fe80::1%lo]:4711".parse().unwrap();
        assert!(matches!(addr.socket(), SocketAddr::V6(v6) if v6.scope_id() != 0));
    }

    #[test]
    fn the_path_is_told_by_the_address() {
        for (text, path) in [
            ("127.0.0.1:1", PathKind::Local),
            ("192.168.1.4:1", PathKind::Lan),
            ("[fe80::1%1]:1", PathKind::Lan),
            ("203.0.113.5:1", PathKind::Direct),
        ] {
            assert_eq!(text.parse::<PeerAddr>().unwrap().path(), path, "{text}");
        }
    }
}
