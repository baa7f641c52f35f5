//! The network interfaces on which discovery may speak, and their broadcast addresses.

use std::net::{IpAddr, Ipv4Addr};

use if_addrs::{IfAddr, Interface};

use crate::config::NetworkConfig;

/// Which interfaces the configuration allows.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    listen: Vec<IpAddr>,
    names: Option<Vec<String>>,
}

/// An IPv4 address of this machine with its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subnet {
    /// Ours in it.
    pub(super) ip: Ipv4Addr,
    /// Where everybody in it hears us.
    pub(super) broadcast: Ipv4Addr,
}

impl Scope {
    pub(super) fn new(config: &NetworkConfig) -> Self {
        Self {
            listen: config.listen.clone(),
            names: config.interfaces.clone(),
        }
    }

    /// Whether we listen on this address of this interface, and may be found by it.
    pub(super) fn allows(&self, name: &str, ip: IpAddr) -> bool {
        let listens = self.listen.iter().any(|listen| {
            *listen == ip || (listen.is_unspecified() && listen.is_ipv4() == ip.is_ipv4())
        });
        let named = match &self.names {
            Some(names) => names.iter().any(|allowed| allowed == name),
            // Other machines do not live on loopback, except for whoever listens there only.
            None => !ip.is_loopback() || self.listen.contains(&ip),
        };
        listens && named
    }

    /// The addresses that are up and allowed now.
    pub(super) fn interfaces(&self) -> Vec<Interface> {
        match if_addrs::get_if_addrs() {
            Ok(interfaces) => interfaces
                .into_iter()
                .filter(|interface| self.allows(&interface.name, interface.ip()))
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "cannot list the network interfaces");
                Vec::new()
            }
        }
    }

    /// The IPv4 subnets that are up and allowed now.
    pub(super) fn subnets(&self) -> Vec<Subnet> {
        let mut subnets: Vec<_> = self.interfaces().iter().filter_map(subnet).collect();
        subnets.sort_unstable();
        subnets.dedup();
        subnets
    }
}

/// The subnet of an interface; `None` for IPv6 and for point-to-point links.
fn subnet(interface: &Interface) -> Option<Subnet> {
    let IfAddr::V4(v4) = &interface.addr else {
        return None;
    };
    let host_bits = !u32::from(v4.netmask);
    // A /31 or /32 has no broadcast address.
    if host_bits < 3 {
        return None;
    }
    // Computed, because loopback has none assigned and yet delivers to 127.255.255.255.
    let broadcast = Ipv4Addr::from(u32::from(v4.ip) | host_bits);
    Some(Subnet {
        ip: v4.ip,
        broadcast,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_for_those_who_listen_only_there() {
        let lo = Ipv4Addr::LOCALHOST.into();
        let everywhere = Scope::new(&NetworkConfig::default());
        assert!(!everywhere.allows("lo", lo));
        assert!(everywhere.allows("wlan0", "10.0.0.7".parse().unwrap()));
        let here = Scope::new(&NetworkConfig::loopback());
        assert!(here.allows("lo", lo));
        assert!(!here.allows("wlan0", "10.0.0.7".parse().unwrap()));
    }

    #[test]
    fn only_named_interfaces_are_used() {
        let names = Some(vec!["veth1".to_owned()]);
        let scope = Scope::new(&NetworkConfig {
            interfaces: names,
            ..Default::default()
        });
        assert!(scope.allows("veth1", "10.0.0.7".parse().unwrap()));
        assert!(!scope.allows("eth0", "10.0.0.7".parse().unwrap()));
    }

    #[test]
    fn the_loopback_subnet_has_a_broadcast_address() {
        let subnets = Scope::new(&NetworkConfig::loopback()).subnets();
        let expected = Subnet {
            ip: Ipv4Addr::LOCALHOST,
            broadcast: Ipv4Addr::new(127, 255, 255, 255),
        };
        assert_eq!(subnets, [expected]);
    }
}
