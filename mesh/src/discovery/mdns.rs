//! Multicast DNS: announces this device as `_wormhole._udp.local.` and reports the others.
//!
//! The instance name is the device's id in base32; the TXT record has the format version (`v`) and the
//! nameplates of open invites (`np`). The responder runs on a thread of its own (mdns-sd); this task
//! starts it, listens to it, and sees it out so that the others are told goodbye.

use std::{collections::BTreeSet, net::SocketAddr, net::SocketAddrV6, time::Duration};

use data_encoding::BASE32_NOPAD;
use mdns_sd::{
    IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
    ServiceInfo,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wormhole_crdt::DeviceId;

use super::{
    interface::Scope,
    sighting::{Presence, Sighting, Source, parse_nameplates},
};
use crate::address::PeerAddr;

/// The service type of every Wormhole device.
const SERVICE: &str = "_wormhole._udp.local.";

/// The version of the TXT record.
const VERSION: &str = "1";

/// A device that vanished without goodbye is believed to be there for so long. The records themselves
/// live two minutes; a dial that fails costs little.
const TTL: Duration = Duration::from_secs(180);

/// How long the goodbye may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Announces and listens until cancelled.
pub(super) async fn run(
    scope: Scope,
    presence: Presence,
    sightings: mpsc::Sender<Sighting>,
    cancel: CancellationToken,
) {
    let responder = match Responder::start(scope, &presence) {
        Ok(responder) => responder,
        Err(error) => {
            tracing::warn!(%error, "multicast DNS is not available; the beacon goes on");
            return;
        }
    };
    if let Err(error) = responder.serve(presence, &sightings, &cancel).await {
        tracing::warn!(%error, "multicast DNS stopped; the beacon goes on");
    }
    responder.stop().await;
}

/// The running responder.
struct Responder {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    own: DeviceId,
}

impl Responder {
    fn start(scope: Scope, presence: &Presence) -> Result<Self, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        let allowed =
            IfPredicate::new(move |interface| scope.announces(&interface.name, interface.ip()));
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(IfKind::Predicate(allowed))?;
        let events = daemon.browse(SERVICE)?;
        let responder = Self {
            daemon,
            events,
            own: presence.key.device_id(),
        };
        responder.announce(presence)?;
        Ok(responder)
    }

    async fn serve(
        &self,
        mut presence: Presence,
        sightings: &mpsc::Sender<Sighting>,
        cancel: &CancellationToken,
    ) -> Result<(), mdns_sd::Error> {
        loop {
            let sighting = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                changed = presence.nameplates.changed() => {
                    if changed.is_err() {
                        return Ok(()); // the network is gone
                    }
                    self.announce(&presence)?;
                    continue;
                }
                event = self.events.recv_async() => match event {
                    Ok(event) => sighting(&event),
                    Err(_) => return Ok(()), // the responder has stopped
                },
            };
            if let Some(sighting) = sighting.filter(|sighting| sighting.device != self.own)
                && sightings.send(sighting).await.is_err()
            {
                return Ok(());
            }
        }
    }

    /// Registers this device, or replaces what was registered.
    fn announce(&self, presence: &Presence) -> Result<(), mdns_sd::Error> {
        let instance = instance(&self.own);
        let nameplates = presence
            .nameplates
            .borrow()
            .iter()
            .cloned()
            .collect::<Vec<_>>()
            .join(",");
        let host = format!("{}.local.", instance.get(..16).unwrap_or(&instance));
        let text = [("v", VERSION), ("np", nameplates.as_str())];
        let service = ServiceInfo::new(SERVICE, &instance, &host, "", presence.port, &text[..])?;
        self.daemon.register(service.enable_addr_auto())
    }

    async fn stop(&self) {
        let fullname = format!("{}.{SERVICE}", instance(&self.own));
        let farewell = async {
            if let Ok(done) = self.daemon.unregister(&fullname) {
                drop(done.recv_async().await); // either way the goodbye is out
            }
            if let Ok(done) = self.daemon.shutdown() {
                drop(done.recv_async().await); // the thread ends with this
            }
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("multicast DNS did not stop in time");
        }
    }
}

/// The instance name of a device: 52 characters of the 63 that DNS allows.
fn instance(device: &DeviceId) -> String {
    BASE32_NOPAD.encode(device.as_bytes()).to_ascii_lowercase()
}

/// The device behind an instance name.
fn device(fullname: &str) -> Option<DeviceId> {
    let (instance, _) = fullname.split_once('.')?;
    let bytes = BASE32_NOPAD
        .decode(instance.to_ascii_uppercase().as_bytes())
        .ok()?;
    Some(DeviceId::from_bytes(bytes.try_into().ok()?))
}

/// What an event says about a device, if anything.
fn sighting(event: &ServiceEvent) -> Option<Sighting> {
    match event {
        ServiceEvent::ServiceResolved(service) => resolved(service),
        ServiceEvent::ServiceRemoved(_, fullname) => Some(Sighting {
            device: device(fullname)?,
            addrs: Vec::new(),
            nameplates: BTreeSet::new(),
            source: Source::Mdns,
            ttl: Duration::ZERO,
        }),
        // The enum is mdns-sd's and open-ended; the rest is progress.
        _ => None,
    }
}

/// Several of these come per device, the first ones often with half of the addresses.
fn resolved(service: &ResolvedService) -> Option<Sighting> {
    let mut addrs: Vec<_> = service
        .addresses
        .iter()
        .filter_map(|ip| addr(ip, service.port))
        .collect();
    // IPv4 first, then global IPv6: a link-local address works on one interface only.
    addrs.sort_by_key(|addr| match addr.socket() {
        SocketAddr::V4(_) => (0, *addr),
        SocketAddr::V6(v6) => (1 + u8::from(v6.scope_id() != 0), *addr),
    });
    let nameplates = service.get_property_val_str("np").unwrap_or_default();
    Some(Sighting {
        device: device(&service.fullname)?,
        addrs,
        nameplates: parse_nameplates(nameplates.split(',')),
        source: Source::Mdns,
        ttl: TTL,
    })
}

fn addr(ip: &ScopedIp, port: u16) -> Option<PeerAddr> {
    let socket = match ip {
        ScopedIp::V4(v4) => SocketAddr::from((*v4.addr(), port)),
        ScopedIp::V6(v6) => {
            let ip = *v6.addr();
            let scope = if ip.is_unicast_link_local() {
                v6.scope_id().index
            } else {
                0
            };
            SocketAddrV6::new(ip, port, 0, scope).into()
        }
        // The enum is mdns-sd's and open-ended.
        _ => return None,
    };
    Some(PeerAddr::any(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_name_is_a_device() {
        let id = DeviceId::from_bytes([0xa7; 32]);
        let name = instance(&id);
        assert!(name.len() <= 63);
        assert_eq!(device(&format!("{name}.{SERVICE}")), Some(id));
        assert_eq!(device(&format!("somebody-elses-printer.{SERVICE}")), None);
        assert_eq!(device(""), None);
    }

    #[test]
    fn a_goodbye_takes_the_sighting_back() {
        let id = DeviceId::from_bytes([0xa7; 32]);
        let fullname = format!("{}.{SERVICE}", instance(&id));
        let event = ServiceEvent::ServiceRemoved(SERVICE.to_owned(), fullname);
        let sighting = sighting(&event).unwrap();
        assert_eq!((sighting.device, sighting.ttl), (id, Duration::ZERO));
    }
}
