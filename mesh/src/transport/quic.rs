//! QUIC for libp2p on quinn, with settings of our own: AES before ChaCha20, segmentation offload, small
//! stream windows, jumbo datagrams where the path takes them, congestion control by path.
//!
//! Every listen address has one UDP socket, which also dials: what a peer observes as our address is then
//! the address at which we can be reached. Limits on handshakes live here, limits on connections in
//! `behaviour`. Streams are in `muxer`, certificates in `tls`, numbers in `setting`.

mod listener;
mod muxer;
mod reset;
mod setting;
mod tls;

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::SelectAll};
use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint,
        transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    },
    identity::Keypair,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::task::TaskTracker;

pub(super) use self::muxer::Connection;
use self::{listener::Listener, setting::Settings};
use super::{room::Rooms, runtime::Tracked};
use crate::{
    address::{PeerAddr, Wire},
    error::BindError,
};

/// libp2p's view of our QUIC sockets.
pub(super) struct Transport {
    settings: Settings,
    listeners: SelectAll<Listener>,
    endpoints: Endpoints,
    /// Wakes the swarm when a listener was added.
    waker: Option<Waker>,
    /// Whom quinn's tasks belong to.
    tasks: TaskTracker,
    rooms: Rooms,
}

/// A connection being made, by either side.
pub(super) type Connecting = BoxFuture<'static, Result<(PeerId, Connection), Error>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// Nothing came back, or what came back failed the handshake.
    #[error("the QUIC handshake failed")]
    Handshake(#[from] quinn::ConnectionError),
    /// The handshake took too long.
    #[error("the QUIC handshake timed out")]
    Timeout,
    /// No socket of ours can send there.
    #[error("no listening socket can reach that address")]
    NoSocket,
    /// quinn refuses the address or is stopping.
    #[error("the QUIC endpoint refuses to connect")]
    Refused(#[from] quinn::ConnectError),
    /// The peer showed no identity that we can use.
    #[error("the peer has no Ed25519 identity")]
    NoIdentity,
    /// The socket could not be opened.
    #[error("the UDP socket could not be opened")]
    Socket(#[from] io::Error),
}

impl Transport {
    /// Prepares certificates and settings; opens no socket.
    pub(super) fn new(
        keypair: &Keypair,
        tasks: TaskTracker,
        rooms: Rooms,
    ) -> Result<Self, BindError> {
        let (client, server) = tls::configs(keypair)?;
        Ok(Self {
            settings: Settings::new(reset::endpoint_config(keypair), &client, &server),
            listeners: SelectAll::new(),
            endpoints: Endpoints::default(),
            waker: None,
            tasks,
            rooms,
        })
    }

    /// A view of the sockets that outlives the swarm.
    pub(super) fn endpoints(&self) -> Endpoints {
        self.endpoints.clone()
    }

    fn open(&self, addr: SocketAddr) -> io::Result<quinn::Endpoint> {
        quinn::Endpoint::new(
            self.settings.endpoint(),
            Some(self.settings.server(PathClass::Near)),
            udp_socket(addr)?,
            Arc::new(Tracked(self.tasks.clone())),
        )
    }
}

impl libp2p::core::Transport for Transport {
    type Output = (PeerId, Connection);
    type Error = Error;
    type ListenerUpgrade = Connecting;
    type Dial = Connecting;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Error>> {
        let socket = socket_addr(&addr)?;
        let endpoint = self
            .open(socket)
            .map_err(Error::from)
            .map_err(TransportError::Other)?;
        let local = endpoint
            .local_addr()
            .map_err(Error::from)
            .map_err(TransportError::Other)?;
        self.endpoints.add(endpoint.clone());
        self.listeners.push(Listener::new(
            id,
            endpoint,
            local,
            self.settings.clone(),
            self.rooms.clone(),
        ));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        match self
            .listeners
            .iter_mut()
            .find(|listener| listener.id() == id)
        {
            Some(listener) => {
                self.endpoints.remove(listener.local());
                listener.close();
                true
            }
            None => false,
        }
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        options: DialOpts,
    ) -> Result<Connecting, TransportError<Error>> {
        let remote = socket_addr(&addr)?;
        if options.role == Endpoint::Listener {
            return Err(TransportError::MultiaddrNotSupported(addr)); // simultaneous open
        }
        let endpoint = self
            .endpoints
            .for_remote(remote)
            .ok_or(TransportError::Other(Error::NoSocket))?;
        let config = self.settings.client(PathClass::of(remote));
        let rooms = self.rooms.clone();
        Ok(Box::pin(async move {
            // The name is never used: a device is known by its key. It only has to be well-formed.
            let connecting = endpoint.connect_with(config, remote, "wormhole")?;
            finish(connecting, DIAL_DEADLINE, &rooms).await
        }))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Connecting, Error>> {
        if let Poll::Ready(Some(event)) = self.listeners.poll_next_unpin(cx) {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// How long an address gets to answer. Shorter than the handshake limit for those who call us: a dead
/// address should not keep a person waiting.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);

/// Whether packets stay near (this machine, this network) or cross the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathClass {
    /// Loopback, private or link-local.
    Near,
    /// Everything else.
    Far,
}

impl PathClass {
    /// Judged by the address alone.
    fn of(remote: SocketAddr) -> Self {
        match PeerAddr::on(Wire::Quic, remote).path() {
            crate::peer::PathKind::Local | crate::peer::PathKind::Lan => Self::Near,
            crate::peer::PathKind::Direct | crate::peer::PathKind::Relayed => Self::Far,
        }
    }
}

/// The open UDP sockets, shared with whoever sees the network out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoints {
    open: Arc<Mutex<Vec<(SocketAddr, quinn::Endpoint)>>>,
}

impl Endpoints {
    /// Tells every peer goodbye and waits until the packets are out, or for `grace`.
    pub(crate) async fn close(&self, grace: Duration) {
        let open: Vec<_> = std::mem::take(&mut *self.lock());
        let idle = futures::future::join_all(open.iter().map(|(_, endpoint)| {
            endpoint.close(0u32.into(), b"");
            endpoint.wait_idle()
        }));
        if tokio::time::timeout(grace, idle).await.is_err() {
            tracing::debug!("some peers did not acknowledge the goodbye in time");
        }
    }

    fn add(&self, endpoint: quinn::Endpoint) {
        if let Ok(local) = endpoint.local_addr() {
            self.lock().push((local, endpoint));
        }
    }

    fn remove(&self, local: SocketAddr) {
        self.lock().retain(|(addr, _)| *addr != local);
    }

    /// The socket that can send to `remote`: same family, and loopback only to loopback.
    fn for_remote(&self, remote: SocketAddr) -> Option<quinn::Endpoint> {
        let reaches = |local: &SocketAddr| {
            local.is_ipv4() == remote.is_ipv4()
                && (local.ip().is_unspecified()
                    || local.ip().is_loopback() == remote.ip().is_loopback())
        };
        let open = self.lock();
        open.iter()
            .find(|(local, _)| reaches(local))
            .map(|(_, endpoint)| endpoint.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(SocketAddr, quinn::Endpoint)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the handshake and reads who is there.
async fn finish(
    connecting: quinn::Connecting,
    deadline: Duration,
    rooms: &Rooms,
) -> Result<(PeerId, Connection), Error> {
    let connection = tokio::time::timeout(deadline, connecting)
        .await
        .map_err(|_| Error::Timeout)??;
    let peer = tls::peer_of(&connection).ok_or(Error::NoIdentity)?;
    Ok((peer, Connection::new(connection, rooms.room(peer))))
}

/// The socket address inside a QUIC multiaddr.
fn socket_addr(addr: &Multiaddr) -> Result<SocketAddr, TransportError<Error>> {
    PeerAddr::from_multiaddr(addr)
        .filter(|addr| addr.wire() == Some(Wire::Quic))
        .map(|addr| addr.socket())
        .ok_or_else(|| TransportError::MultiaddrNotSupported(addr.clone()))
}

/// A UDP socket with room for a burst; IPv6 sockets leave IPv4 to their own.
fn udp_socket(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Best effort: the system may allow less, and then it is slower, not wrong.
    for result in [
        socket.set_recv_buffer_size(setting::SOCKET_BUFFER),
        socket.set_send_buffer_size(setting::SOCKET_BUFFER),
    ] {
        if let Err(error) = result {
            tracing::debug!(%error, "the UDP socket keeps its default buffer");
        }
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
