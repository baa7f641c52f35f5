//! What a node decides about its network: where to listen, how to be found, what to keep.
//!
//! Only knobs for which no default serves all. Bounds against hostile peers are constants, beside the
//! code that enforces them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use crate::limit::RateLimits;

/// The configuration of a [`Network`](crate::Network).
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// UDP and TCP port; 0 takes a free one. Default 0.
    pub port: u16,
    /// Addresses to listen on, and the only ones to dial from. Default: all, IPv4 and IPv6. An address
    /// family that the machine lacks is left out silently as long as one address works.
    pub listen: Vec<IpAddr>,
    /// Network interfaces on which discovery may speak, by name; `None` means all of those that `listen`
    /// covers. Default `None`.
    pub interfaces: Option<Vec<String>>,
    /// Find and be found by multicast DNS. Default yes.
    pub mdns: Discovery,
    /// Find and be found by UDP broadcast, where multicast is dropped. Default yes.
    pub beacon: Discovery,
    /// The name that other devices show for this one. Default: the host's name is for the node to give.
    pub device_name: String,
    /// File that remembers addresses of known devices; `None` keeps them in memory only. Default `None`.
    pub book: Option<PathBuf>,
    /// Bandwidth limits, both unlimited by default.
    pub limits: RateLimits,
}

/// Whether a way of discovery is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Discovery {
    /// It is.
    #[default]
    On,
    /// It is not.
    Off,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            port: 0,
            listen: vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            interfaces: None,
            mdns: Discovery::On,
            beacon: Discovery::On,
            device_name: String::new(),
            book: None,
            limits: RateLimits::default(),
        }
    }
}

impl NetworkConfig {
    /// Only this machine: loopback, no multicast, for demos and tests.
    pub fn loopback() -> Self {
        Self {
            listen: vec![Ipv4Addr::LOCALHOST.into()],
            mdns: Discovery::Off,
            beacon: Discovery::Off,
            ..Self::default()
        }
    }
}
