//! The beacon: a small signed datagram to each subnet's broadcast address, for networks that drop
//! multicast and for several nodes on one machine.
//!
//! Sent every 5 seconds for the first minute, then every 30, at once when the invites change, and once in
//! reply to a device that was not heard before. The signature stops anybody from taking a device's place
//! on the roster; a recorded beacon can be replayed from another address, but whoever answers there must
//! still prove the key. Each socket is bound to the broadcast address itself, so it hears that subnet
//! only; on loopback this is 127.255.255.255, which every node on the machine hears.

mod ear;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::DeviceId;

use self::ear::Ear;
use super::{
    interface::{Scope, Subnet},
    sighting::{MAX_NAMEPLATES, Presence, Sighting, Source, parse_nameplates},
};
use crate::address::PeerAddr;

/// Where beacons are sent and heard. Not assigned to anybody.
const PORT: u16 = 47_110;

/// The first bytes of every beacon; the last one is its version.
const MAGIC: &[u8; 8] = b"wormbcn\x01";

/// No beacon is longer: it always fits one Ethernet frame.
const MAX_LEN: usize = 512;

/// While a person may be waiting.
const FAST: Duration = Duration::from_secs(5);
const FAST_FOR: Duration = Duration::from_secs(60);

/// Afterwards.
const SLOW: Duration = Duration::from_secs(30);

/// A device is believed to be there for three missed beacons.
const TTL: Duration = Duration::from_secs(95);

/// Devices that were answered once; beyond that we only speak by the clock.
const MAX_ANSWERED: usize = 256;

/// What a beacon says. The address is the one that it comes from.
#[derive(Debug, Serialize, Deserialize)]
struct Beacon {
    device: DeviceId,
    port: u16,
    nameplates: Vec<String>,
}

/// Encodes and signs a beacon: magic, signature, postcard.
fn encode(presence: &Presence) -> Vec<u8> {
    let nameplates = presence
        .nameplates
        .borrow()
        .iter()
        .take(MAX_NAMEPLATES)
        .cloned()
        .collect();
    let beacon = Beacon {
        device: presence.key.device_id(),
        port: presence.port,
        nameplates,
    };
    let body = postcard::to_stdvec(&beacon).expect("plain data encodes");
    let signature = presence.key.sign(&signed(&body));
    [&MAGIC[..], &signature, &body].concat()
}

/// Decodes a beacon from anybody; `None` for everything that is not one, or not signed by its device.
fn decode(datagram: &[u8]) -> Option<Beacon> {
    let rest = datagram.strip_prefix(MAGIC)?;
    let (signature, body) = rest.split_first_chunk::<64>()?;
    let beacon: Beacon = postcard::from_bytes(body).ok()?;
    beacon
        .device
        .verify(&signed(body), signature)
        .then_some(beacon)
}

/// The bytes that are signed: nothing else that a device signs begins like this.
fn signed(body: &[u8]) -> Vec<u8> {
    [&b"wormhole beacon 1\0"[..], body].concat()
}

/// Speaks and listens until cancelled.
pub(super) async fn run(
    scope: Scope,
    mut presence: Presence,
    sightings: mpsc::Sender<Sighting>,
    cancel: CancellationToken,
) {
    let own = presence.key.device_id();
    let (heard, mut inbox) = mpsc::channel(64);
    let mut sockets = Sockets::default();
    let mut answered = BTreeSet::new();
    let start = Instant::now();
    let mut next = start;
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            () = sleep_until(next) => {
                sockets.follow(&scope, &heard);
                sockets.send(&encode(&presence)).await;
                let pause = if start.elapsed() < FAST_FOR { FAST } else { SLOW };
                next = Instant::now() + pause;
            }
            changed = presence.nameplates.changed() => match changed {
                Ok(()) => next = Instant::now(),
                Err(_) => break, // the network is gone
            },
            Some((beacon, from)) = inbox.recv() => {
                let Beacon { device, port, nameplates } = beacon;
                let is_ours = device == own && port == presence.port && sockets.speak_from(from);
                if is_ours || port == 0 {
                    continue;
                }
                if answered.len() < MAX_ANSWERED && answered.insert(device) {
                    next = Instant::now();
                }
                let sighting = Sighting {
                    device,
                    addrs: vec![PeerAddr::any(SocketAddr::new(from, port))],
                    nameplates: parse_nameplates(nameplates.iter().map(String::as_str)),
                    source: Source::Beacon,
                    ttl: TTL,
                };
                if sightings.send(sighting).await.is_err() {
                    break;
                }
            }
            Some(ended) = sockets.tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a beacon listener panicked");
                }
            }
        }
    }
    sockets.tasks.shutdown().await;
}

/// What a listener passes on.
type Heard = (Beacon, IpAddr);

/// One listening and one speaking socket per subnet.
#[derive(Default)]
struct Sockets {
    speaking: BTreeMap<Subnet, (UdpSocket, tokio::task::AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Sockets {
    /// Opens sockets for subnets that came up, closes those of subnets that went away.
    fn follow(&mut self, scope: &Scope, heard: &mpsc::Sender<Heard>) {
        let subnets = scope.subnets();
        self.speaking.retain(|subnet, (_, listener)| {
            let stays = subnets.contains(subnet) && !listener.is_finished();
            if !stays {
                listener.abort();
            }
            stays
        });
        for subnet in subnets {
            if self.speaking.contains_key(&subnet) {
                continue;
            }
            match open(subnet) {
                Ok((listening, speaking)) => {
                    let listener = self.tasks.spawn(listen(listening, heard.clone()));
                    self.speaking.insert(subnet, (speaking, listener));
                }
                Err(error) => tracing::debug!(?subnet, %error, "no beacon here"),
            }
        }
    }

    /// Whether what comes from this address may be our own.
    fn speak_from(&self, from: IpAddr) -> bool {
        self.speaking.keys().any(|subnet| subnet.ip == from)
    }

    async fn send(&self, beacon: &[u8]) {
        for (subnet, (socket, _)) in &self.speaking {
            let to = SocketAddrV4::new(subnet.broadcast, PORT);
            if let Err(error) = socket.send_to(beacon, to).await {
                tracing::debug!(?subnet, %error, "the beacon was not sent");
            }
        }
    }
}

/// Passes valid beacons on until the socket fails or nobody listens.
async fn listen(socket: Arc<UdpSocket>, heard: mpsc::Sender<Heard>) {
    let mut buffer = [0; MAX_LEN + 1];
    let mut ear = Ear::default();
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "the beacon socket failed");
                return;
            }
        };
        let now = Instant::now().into_std();
        let datagram = buffer.get(..len).filter(|_| len <= MAX_LEN);
        // What does not even look like a beacon costs nothing and counts for nothing.
        let Some(datagram) = datagram.filter(|datagram| datagram.starts_with(MAGIC)) else {
            continue;
        };
        if !ear.listens_to(from.ip(), now) {
            continue;
        }
        if let Some(beacon) = decode(datagram) {
            ear.understood(from.ip(), now);
            if heard.send((beacon, from.ip())).await.is_err() {
                return;
            }
        }
    }
}

/// The two sockets of a subnet: one that hears what is broadcast in it, one that broadcasts.
fn open(subnet: Subnet) -> io::Result<(Arc<UdpSocket>, UdpSocket)> {
    // Where a broadcast address cannot be bound (Windows), hear everything instead.
    let listening = bind(subnet.broadcast, PORT).or_else(|_| bind(Ipv4Addr::UNSPECIFIED, PORT))?;
    let speaking = bind(subnet.ip, 0)?;
    speaking.set_broadcast(true)?;
    Ok((Arc::new(listening), speaking))
}

/// A socket that shares its port with the other nodes on this machine: broadcasts reach all of them.
fn bind(ip: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(ip, port).into())?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::watch;
    use wormhole_crdt::DeviceKey;

    use super::*;
    use crate::bend::{Budget, bend};
    use crate::config::NetworkConfig;

    fn presence(seed: u8, port: u16, nameplate: &str) -> Presence {
        let plates = BTreeSet::from([nameplate.to_owned()]);
        let (sender, nameplates) = watch::channel(plates);
        std::mem::forget(sender); // kept open for the whole test
        Presence {
            key: DeviceKey::from_seed([seed; 32]),
            port,
            nameplates,
        }
    }

    #[test]
    fn a_beacon_reads_back() {
        let presence = presence(1, 4711, "7");
        let wire = encode(&presence);
        assert!(wire.len() <= MAX_LEN);
        let beacon = decode(&wire).unwrap();
        assert_eq!(beacon.device, presence.key.device_id());
        assert_eq!(
            (beacon.port, beacon.nameplates),
            (4711, vec!["7".to_owned()])
        );
    }

    #[test]
    fn a_beacon_that_was_changed_or_signed_by_another_is_ignored() {
        let wire = encode(&presence(1, 4711, "7"));
        for at in 0..wire.len() {
            let mut forged = wire.clone();
            forged[at] ^= 1;
            assert!(decode(&forged).is_none(), "byte {at} was changed");
        }
        let mut stolen = encode(&presence(2, 4711, "7"));
        let body = wire[MAGIC.len() + 64..].to_vec();
        stolen.truncate(MAGIC.len() + 64);
        stolen.extend(body);
        assert!(decode(&stolen).is_none(), "another device's signature");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(decode(&bytes).is_none());
            let mut framed = MAGIC.to_vec();
            framed.extend(bytes);
            prop_assert!(decode(&framed).is_none());
        }
    }

    #[tokio::test]
    async fn a_node_with_our_key_is_heard_and_our_own_voice_is_not() {
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut inboxes = Vec::new();
        for port in [4710, 4720] {
            let scope = Scope::new(&NetworkConfig::loopback());
            let (sightings, inbox) = mpsc::channel(64);
            tasks.spawn(run(
                scope,
                presence(9, port, "7"),
                sightings,
                cancel.clone(),
            ));
            inboxes.push((port, inbox));
        }
        let device = DeviceKey::from_seed([9; 32]).device_id();
        for (port, inbox) in &mut inboxes {
            // Other tests of this process may speak, too.
            let twin = loop {
                let sighting = inbox.recv().await.unwrap();
                if sighting.device == device {
                    break sighting;
                }
            };
            assert!(
                twin.addrs.iter().all(|addr| addr.port() != *port),
                "{twin:?}"
            );
        }
        cancel.cancel();
        tasks.join_all().await;
    }

    #[tokio::test]
    async fn nodes_on_one_machine_hear_one_another() {
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut inboxes = Vec::new();
        for seed in 1..=3 {
            let scope = Scope::new(&NetworkConfig::loopback());
            let (sightings, inbox) = mpsc::channel(64);
            let presence = presence(seed, 4700 + u16::from(seed), "7");
            tasks.spawn(run(scope, presence, sightings, cancel.clone()));
            inboxes.push((seed, inbox));
        }
        for (seed, inbox) in &mut inboxes {
            let mut missing: BTreeSet<_> = (1..=3)
                .filter(|other| other != seed)
                .map(|other| DeviceKey::from_seed([other; 32]).device_id())
                .collect();
            while !missing.is_empty() {
                missing.remove(&inbox.recv().await.unwrap().device);
            }
        }
        cancel.cancel();
        tasks.join_all().await;
    }

    #[test]
    fn bent_beacons_do_no_harm_whoever_signs_them() {
        let beacon = encode(&presence(5, 4711, "7"));
        let body = beacon[MAGIC.len() + 64..].to_vec();
        let key = DeviceKey::from_seed([5; 32]);
        // A list reserves up to a megabyte for what it claims.
        let budget = Budget {
            fixed: 2 << 20,
            per_byte: 64,
        };
        bend("beacons", &[beacon, body], "", budget, |bytes| {
            let _as_it_is = decode(bytes);
            let signature = key.sign(&signed(bytes));
            let _signed = decode(&[&MAGIC[..], &signature, bytes].concat());
        });
    }
}
