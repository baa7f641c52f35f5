//! The numbers of our QUIC connections, and why they are what they are.

use std::{sync::Arc, time::Duration};

use quinn::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
    congestion::BbrConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use super::PathClass;
use crate::transport::room::{MAX_STREAMS, STRANGER_WINDOW};

/// Bytes that a stream may hold here unread. quinn ends a connection when a stream collects more than
/// 1,024 gaps, which a larger window reaches on a lossy link; bulk data uses several streams anyway.
const STREAM_WINDOW: u32 = 3 << 19; // 1.5 MiB

/// Bytes that a member's connection may hold here unread: 8 full streams, and 960 Mbit/s at 100 ms.
pub(super) const CONNECTION_WINDOW: u32 = 12 << 20;

/// Datagrams up to this size are tried where the path takes them (loopback, jumbo frames): 0.7 CPU
/// seconds per GiB less than at 1,452. Larger ones do not fit a segmentation offload batch of 64 KiB.
const MAX_DATAGRAM: u16 = 4000;

/// What every IPv6 path carries without asking; more is found out per path.
const FAR_DATAGRAM: u16 = 1452;

/// A connection without an answer for so long is dead. A laptop that sleeps reconnects anyway.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Keeps NAT mappings and the idle timeout away; a third of the latter, to survive two lost packets.
const KEEP_ALIVE: Duration = Duration::from_secs(6);

/// Room for a burst in the socket, both ways.
pub(super) const SOCKET_BUFFER: usize = 4 << 20;

/// Handshakes that may wait for our answer, and the bytes they may hold meanwhile.
const MAX_INCOMING: usize = 256;
const INCOMING_BYTES: u64 = 32 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// Ready-made configurations for both roles and both classes of paths. Cheap to clone.
#[derive(Clone)]
pub(super) struct Settings {
    endpoint: EndpointConfig,
    near: (ClientConfig, ServerConfig),
    far: (ClientConfig, ServerConfig),
}

impl Settings {
    /// Combines the TLS configurations with the numbers above.
    pub(super) fn new(
        mut endpoint: EndpointConfig,
        client: &Arc<QuicClientConfig>,
        server: &Arc<QuicServerConfig>,
    ) -> Self {
        endpoint
            .max_udp_payload_size(MAX_DATAGRAM)
            .expect("the size is between 1,200 and 65,527")
            .supported_versions(vec![1]);
        let both = |class| {
            let transport = Arc::new(transport(class));
            let mut client = ClientConfig::new(Arc::clone(client) as _);
            client.transport_config(Arc::clone(&transport));
            let mut server = ServerConfig::with_crypto(Arc::clone(server) as _);
            server
                .transport_config(transport)
                .max_incoming(MAX_INCOMING)
                .incoming_buffer_size(INCOMING_BYTES)
                .incoming_buffer_size_total(INCOMING_BYTES_TOTAL)
                // The swarm knows a connection by its address.
                .migration(false);
            (client, server)
        };
        Self {
            endpoint,
            near: both(PathClass::Near),
            far: both(PathClass::Far),
        }
    }

    /// For a socket.
    pub(super) fn endpoint(&self) -> EndpointConfig {
        self.endpoint.clone()
    }

    /// For a connection that we make.
    pub(super) fn client(&self, class: PathClass) -> ClientConfig {
        match class {
            PathClass::Near => self.near.0.clone(),
            PathClass::Far => self.far.0.clone(),
        }
    }

    /// For a connection that is made to us.
    pub(super) fn server(&self, class: PathClass) -> ServerConfig {
        match class {
            PathClass::Near => self.near.1.clone(),
            PathClass::Far => self.far.1.clone(),
        }
    }
}

fn transport(class: PathClass) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut mtu = MtuDiscoveryConfig::default();
    match class {
        PathClass::Near => {
            mtu.upper_bound(MAX_DATAGRAM);
        }
        PathClass::Far => {
            mtu.upper_bound(FAR_DATAGRAM);
            // At 50 ms and 0.1 % loss Cubic reaches a twentieth of what BBR does. On a near path BBR
            // costs twice the CPU and gains nothing.
            transport.congestion_controller_factory(Arc::new(BbrConfig::default()));
        }
    }
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        // Everybody begins as a stranger; `muxer` makes more room.
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        .send_window(u64::from(STRANGER_WINDOW))
        .mtu_discovery_config(Some(mtu))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(
            IdleTimeout::try_from(IDLE_TIMEOUT).expect("seconds fit a variable-length integer"),
        ))
        .allow_spin(false);
    transport
}
