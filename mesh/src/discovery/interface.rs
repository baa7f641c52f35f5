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

    /// Whether we listen on this address of this interface.
    fn listens(&self, name: &str, ip: IpAddr) -> bool {
        let listens = self.listen.iter().any(|listen| {
            *listen == ip || (listen.is_unspecified() && listen.is_ipv4() == ip.is_ipv4())
        });
        let named = match &self.names {
            Some(names) => names.iter().any(|allowed| allowed == name),
            None => true,
        };
        listens && named
    }

    /// Whether other machines may be told this address of this interface.
    pub(super) fn announces(&self, name: &str, ip: IpAddr) -> bool {
        // They cannot use a loopback address. Who listens on nothing else has none better.
        let reachable = !ip.is_loopback() || self.names.is_some() || self.listen.contains(&ip);
        reachable && self.listens(name, ip)
    }

    /// The IPv4 subnets that are up and allowed now. The one of loopback is among them: what is broadcast
    /// there reaches the other nodes of this machine, whatever else is up, and nobody else.
    pub(super) fn subnets(&self) -> Vec<Subnet> {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the network interfaces");
            Vec::new()
        });
        let mut subnets: Vec<_> = interfaces
            .iter()
            .filter(|interface| self.listens(&interface.name, interface.ip()))
            .filter_map(subnet)
            .collect();
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
    fn loopback_is_announced_only_by_those_who_listen_nowhere_else() {
        let lo = Ipv4Addr::LOCALHOST.into();
        let everywhere = Scope::new(&NetworkConfig::default());
        assert!(!everywhere.announces("lo", lo));
        assert!(everywhere.announces("wlan0", "10.0.0.7".parse().unwrap()));
        let here = Scope::new(&NetworkConfig::loopback());
        assert!(here.announces("lo", lo));
        assert!(!here.announces("wlan0", "10.0.0.7".parse().unwrap()));
    }

    #[test]
    fn nodes_on_one_machine_are_heard_without_any_network() {
        let subnets = Scope::new(&NetworkConfig::default()).subnets();
        assert!(subnets.iter().any(|subnet| subnet.ip.is_loopback()));
    }

    #[test]
    fn only_named_interfaces_are_used() {
        let names = Some(vec!["veth1".to_owned()]);
        let scope = Scope::new(&NetworkConfig {
            interfaces: names,
            ..Default::default()
        });
        assert!(scope.announces("veth1", "10.0.0.7".parse().unwrap()));
        assert!(!scope.announces("eth0", "10.0.0.7".parse().unwrap()));
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
