//! Two or three real networks on loopback: connecting, streams, refusals, restarts, garbage.

mod unlisted;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::SystemTime,
};

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wormhole_crdt::DeviceId;

use super::*;
use crate::{
    address::Wire,
    error::OpenError,
    peer::{Misbehaviour, PathKind},
    streams::{Protocol, Quota, Stream},
};

const ECHO: Protocol = Protocol {
    name: "echo",
    major: 1,
};
const UNSPOKEN: Protocol = Protocol {
    name: "echo",
    major: 2,
};

/// Sends everything back, then ends.
struct Echo;

impl Handler for Echo {
    fn protocol(&self) -> Protocol {
        ECHO
    }

    fn quota(&self) -> Quota {
        Quota {
            stranger: 1,
            member: 4,
            total: 6,
        }
    }

    fn accept(&self, stream: Stream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                drop(write.shutdown().await);
            }
        })
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_bytes(&[seed; 32]).unwrap()
}

async fn network_with(seed: u8, config: NetworkConfig) -> Network {
    Network::bind_with(identity(seed), config, vec![Arc::new(Echo)])
        .await
        .unwrap()
}

async fn network(seed: u8) -> Network {
    network_with(seed, NetworkConfig::loopback()).await
}

impl Network {
    fn socket(&self) -> SocketAddr {
        self.listen_addrs()[0].socket()
    }

    fn on(&self, wire: Wire) -> PeerAddr {
        PeerAddr::on(wire, self.socket())
    }

    async fn until_connected(&self, peer: DeviceId) {
        let mut connected = self.inner.streams.connected();
        connected
            .wait_for(|peers| peers.contains_key(&peer))
            .await
            .unwrap();
    }

    async fn until_disconnected(&self, peer: DeviceId) {
        let mut connected = self.inner.streams.connected();
        connected
            .wait_for(|peers| !peers.contains_key(&peer))
            .await
            .unwrap();
    }

    /// As if the device had been connected at these addresses before.
    fn remember(&self, device: DeviceId, addrs: &[PeerAddr]) {
        let mut book = self.inner.book.lock().unwrap();
        for addr in addrs {
            book.note(device, *addr, SystemTime::now());
        }
    }

    /// As if the device were a member of a mesh of ours.
    fn want(&self, devices: &[DeviceId]) {
        self.inner
            .membership
            .publish(devices.iter().copied().collect::<BTreeSet<_>>());
    }
}

async fn echo(network: &Network, peer: DeviceId, len: usize) -> Result<PathKind, OpenError> {
    let stream = network.inner.streams.open(peer, ECHO).await?;
    let path = stream.path();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    let send = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, read) = tokio::join!(send, read.read_to_end(&mut received));
    read.unwrap();
    assert!(
        received == sent,
        "{} of {len} bytes came back",
        received.len()
    );
    Ok(path)
}

#[tokio::test]
async fn two_devices_meet_by_address_and_talk_both_ways() {
    for wire in [Wire::Quic, Wire::Tcp] {
        let (a, b) = (network(1).await, network(2).await);
        assert_eq!(a.dial(&b.on(wire)).await.unwrap(), b.device_id());
        b.until_connected(a.device_id()).await;
        a.want(&[b.device_id()]);
        b.want(&[a.device_id()]);
        assert_eq!(
            echo(&a, b.device_id(), 3 << 20).await.unwrap(),
            PathKind::Local
        );
        assert_eq!(
            echo(&b, a.device_id(), 3 << 20).await.unwrap(),
            PathKind::Local
        );
        assert_eq!(a.peers()[0].wire, Some(wire));
        a.shutdown().await;
        b.until_disconnected(identity(1).device_id()).await;
        b.shutdown().await;
    }
}

#[tokio::test]
async fn an_address_without_a_transport_prefers_quic() {
    let (a, b) = (network(1).await, network(2).await);
    a.dial(&PeerAddr::any(b.socket())).await.unwrap();
    assert_eq!(a.peers()[0].wire, Some(Wire::Quic));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn too_many_streams_are_refused_with_the_reason() {
    let (a, b) = (network(1).await, network(2).await);
    a.dial(&b.on(Wire::Quic)).await.unwrap();
    let open = async |protocol| a.inner.streams.open(b.device_id(), protocol).await;

    let held = open(ECHO).await.unwrap();
    let refused = open(ECHO).await.unwrap_err();
    assert!(matches!(refused, OpenError::PeerQuota { .. }), "{refused}");
    b.want(&[a.device_id()]);
    let more = open(ECHO).await.unwrap();

    let unknown = open(UNSPOKEN).await.unwrap_err();
    assert!(
        matches!(unknown, OpenError::Unsupported { .. }),
        "{unknown}"
    );
    drop((held, more));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn a_dial_that_fails_says_why() {
    let (a, b) = (network(1).await, network(2).await);
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let error = a.dial(&PeerAddr::on(Wire::Tcp, free)).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");

    let error = a.dial(&a.on(Wire::Quic)).await.unwrap_err();
    assert!(matches!(error, DialError::Myself { .. }), "{error}");

    let elsewhere = "udp/192.0.2.1:4711".parse().unwrap();
    let error = a.dial(&elsewhere).await.unwrap_err();
    assert!(
        matches!(error, DialError::NoRoute { .. }),
        "a loopback node stays there: {error}"
    );

    let stranger = identity(9).device_id();
    let error = a.inner.streams.open(stranger, ECHO).await.unwrap_err();
    assert!(
        matches!(
            &error,
            OpenError::Unreachable {
                source: DialError::NoAddress { .. },
                ..
            }
        ),
        "{error:?}"
    );

    a.remember(stranger, &[b.on(Wire::Quic)]);
    let error = a.inner.streams.open(stranger, ECHO).await.unwrap_err();
    let OpenError::Unreachable {
        source: DialError::WrongDevice { found, .. },
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(found, b.device_id());
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn members_find_each_other_again_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let book = Some(home.path().join("book.json"));
    let config = || NetworkConfig {
        book: book.clone(),
        ..NetworkConfig::loopback()
    };
    let (a, b) = (network_with(1, config()).await, network(2).await);
    a.want(&[b.device_id()]);
    a.dial(&b.on(Wire::Quic)).await.unwrap();
    a.shutdown().await;
    b.until_disconnected(identity(1).device_id()).await;

    let a = network_with(1, config()).await;
    a.want(&[b.device_id()]);
    b.until_connected(a.device_id()).await;
    echo(&a, b.device_id(), 1000).await.unwrap();
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn a_member_that_comes_back_is_dialled_again() {
    let (a, b) = (network(1).await, network(2).await);
    let port = b.socket().port();
    let device = b.device_id();
    a.want(&[device]);
    a.dial(&b.on(Wire::Quic)).await.unwrap();
    b.shutdown().await;
    a.until_disconnected(device).await;
    let b = network_with(
        2,
        NetworkConfig {
            port,
            ..NetworkConfig::loopback()
        },
    )
    .await;
    b.until_connected(a.device_id()).await;
    a.shutdown().await;
    b.shutdown().await;
}

/// The port of a device that comes back.
#[derive(Clone, Copy)]
enum Port {
    Same,
    Another,
}

#[tokio::test]
async fn a_killed_device_that_comes_back_at_once_is_noticed() {
    come_back(Port::Same).await;
}

#[tokio::test]
async fn a_killed_device_that_comes_back_on_another_port_is_noticed() {
    come_back(Port::Another).await;
}

/// As after `kill -9`: nobody says goodbye, and the other side still believes in the old connection.
async fn come_back(on: Port) {
    let a = network(1).await;
    let killed = std::thread::spawn({
        let addr = a.on(Wire::Quic);
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.unwrap();
            let b = runtime.block_on(async {
                let b = network(2).await;
                b.dial(&addr).await.unwrap();
                b
            });
            let former = b.socket().port();
            runtime.shutdown_background(); // its tasks are gone without having said anything
            match on {
                Port::Same => former,
                Port::Another => 0,
            }
        }
    });
    let port = tokio::task::spawn_blocking(|| killed.join().unwrap())
        .await
        .unwrap();
    let device = identity(2).device_id();
    a.until_connected(device).await;
    let before = a.inner.streams.connected().borrow()[&device].epoch;

    let b = network_with(
        2,
        NetworkConfig {
            port,
            ..NetworkConfig::loopback()
        },
    )
    .await;
    b.dial(&a.on(Wire::Quic)).await.unwrap();
    let mut connected = a.inner.streams.connected();
    let is_new = |peers: &crate::streams::ConnectedPeers| {
        peers.get(&device).is_some_and(|peer| peer.epoch > before)
    };
    connected.wait_for(is_new).await.unwrap();
    match on {
        // The dead connection is reset by the first packet on it; then the living one is used.
        Port::Same => {
            let mut attempts = 0;
            while let Err(error) = echo(&a, device, 1000).await {
                attempts += 1;
                assert!(attempts < 100, "{error}");
            }
        }
        // Nobody resets the dead connection, so it must not be used even once.
        Port::Another => assert!(echo(&a, device, 1000).await.is_ok()),
    }
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn simultaneous_dials_leave_both_sides_able_to_talk() {
    let (a, b) = (network(1).await, network(2).await);
    a.want(&[b.device_id()]);
    b.want(&[a.device_id()]);
    let addrs = [b.on(Wire::Quic), b.on(Wire::Tcp)];
    let (to_b, again, to_a) = (a.dial(&addrs[0]), a.dial(&addrs[1]), b.on(Wire::Quic));
    let back = b.dial(&a.on(Wire::Quic)).await;
    let (first, second) = tokio::join!(to_b, again);
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (b.device_id(), b.device_id())
    );
    assert_eq!(back.unwrap(), a.device_id());
    assert_eq!(to_a.wire(), Some(Wire::Quic));
    for _ in 0..8 {
        echo(&a, b.device_id(), 1000).await.unwrap();
        echo(&b, a.device_id(), 1000).await.unwrap();
    }
    assert_eq!(
        a.peers()[0].wire,
        Some(Wire::Quic),
        "the best connection is used"
    );
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn garbage_on_the_ports_does_no_harm() {
    use std::io::Write;
    let (a, b) = (network(1).await, network(2).await);
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut held = Vec::new();
    for n in 0..200_u32 {
        let junk: Vec<u8> = (0..n * 7).map(|i| (i.wrapping_mul(n) >> 3) as u8).collect();
        udp.send_to(&junk, b.socket()).unwrap();
        if n % 10 == 0 {
            let mut tcp = TcpStream::connect(b.socket()).unwrap();
            drop(tcp.write_all(&junk)); // it may be cut off already, which is fine
            held.push(tcp);
        }
    }
    a.dial(&b.on(Wire::Quic)).await.unwrap();
    echo(&a, b.device_id(), 1000).await.unwrap();
    let c = network(3).await;
    c.dial(&b.on(Wire::Tcp)).await.unwrap();
    for network in [a, b, c] {
        network.shutdown().await;
    }
}

#[tokio::test]
async fn a_peer_that_misbehaves_is_cut_off_and_kept_out() {
    let (a, b) = (network(1).await, network(2).await);
    let mut events = b.events();
    b.want(&[a.device_id()]);
    a.dial(&b.on(Wire::Quic)).await.unwrap();
    b.until_connected(a.device_id()).await;
    // Several streams may break at once: that is one offence, told once.
    for reason in [Misbehaviour::BadChunk, Misbehaviour::BadFrame] {
        b.inner.streams.misbehaved(a.device_id(), reason).await;
    }
    a.until_disconnected(b.device_id()).await;
    loop {
        if let NetworkEvent::PeerMisbehaved { device, reason } = events.recv().await.unwrap() {
            assert_eq!((device, reason), (a.device_id(), Misbehaviour::BadChunk));
            break;
        }
    }
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, NetworkEvent::PeerMisbehaved { .. }));
    }
    let error = b.inner.streams.open(a.device_id(), ECHO).await.unwrap_err();
    assert!(
        matches!(
            &error,
            OpenError::Unreachable {
                source: DialError::Banned { .. },
                ..
            }
        ),
        "{error:?}"
    );
    // The handshake may end before the refusal arrives; no stream comes of it.
    drop(a.dial(&b.on(Wire::Quic)).await);
    assert!(a.inner.streams.open(b.device_id(), ECHO).await.is_err());
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn followers_hear_of_members_that_come_and_go_and_never_of_strangers() {
    let (hub, member, stranger) = (network(1).await, network(2).await, network(3).await);
    let mut events = hub.events();
    stranger.dial(&hub.on(Wire::Quic)).await.unwrap();
    hub.until_connected(stranger.device_id()).await;
    member.dial(&hub.on(Wire::Quic)).await.unwrap();
    hub.until_connected(member.device_id()).await;
    // It is told of once it is known to be a member, however long it was connected before.
    hub.want(&[member.device_id()]);
    let up = events.recv().await.unwrap();
    assert!(
        matches!(up, NetworkEvent::PeerUp { device, .. } if device == member.device_id()),
        "{up:?}"
    );
    let gone = stranger.device_id();
    stranger.shutdown().await;
    hub.until_disconnected(gone).await;
    let gone = member.device_id();
    member.shutdown().await;
    let down = events.recv().await.unwrap();
    assert!(
        matches!(down, NetworkEvent::PeerDown { device } if device == gone),
        "{down:?}"
    );
    hub.shutdown().await;
}

#[tokio::test]
async fn what_strangers_do_wrong_is_told_to_nobody() {
    let (a, b) = (network(1).await, network(2).await);
    let mut events = b.events();
    a.dial(&b.on(Wire::Quic)).await.unwrap();
    b.until_connected(a.device_id()).await;
    b.inner
        .streams
        .misbehaved(a.device_id(), Misbehaviour::BadFrame)
        .await;
    b.until_disconnected(a.device_id()).await;
    a.shutdown().await;
    b.shutdown().await;
    assert!(events.try_recv().is_err());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let a = network(1).await;
    let port = a.socket().port();
    let config = NetworkConfig {
        port,
        ..NetworkConfig::loopback()
    };
    let error = Network::bind(identity(2), config).await.unwrap_err();
    assert!(
        matches!(error, BindError::PortInUse { port: named, .. } if named == port),
        "{error}"
    );
    a.shutdown().await;
}

#[tokio::test]
async fn a_stopped_network_answers_everybody() {
    let a = network(1).await;
    let clone = a.clone();
    a.shutdown().await;
    let error = clone
        .dial(&"127.0.0.1:1".parse().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Stopped), "{error}");
    clone.shutdown().await;
}
