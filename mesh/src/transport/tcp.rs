//! TCP with Noise and Yamux: the second transport, for networks that drop UDP.
//!
//! All addresses of a device are dialled at once and the first connection wins, so TCP gives QUIC a head
//! start: it should win only where QUIC does not get through.

mod muxer;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent, upgrade},
    },
    identity::Keypair,
    noise, tcp,
};

use self::muxer::Upgrade;
use super::{handshake::HANDSHAKE_DEADLINE, room::Rooms};
use crate::error::BindError;

/// What QUIC gets before TCP begins: several round trips on any LAN, little to a person.
const HEAD_START: Duration = Duration::from_millis(250);

/// An authenticated, multiplexed TCP transport.
pub(super) fn transport(keypair: &Keypair, rooms: Rooms) -> Result<Second, BindError> {
    let noise = noise::Config::new(keypair).map_err(|_| BindError::Certificate)?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map_err(Connect)
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(noise)
        .multiplex_ext(move |peer, _| Upgrade(rooms.room(*peer)))
        .timeout(HANDSHAKE_DEADLINE)
        .boxed();
    Ok(Second(tcp))
}

/// The system's reason. It has a layer of its own because libp2p's combinators show only the source of an
/// error, and without this one the source would be gone.
#[derive(Debug, thiserror::Error)]
#[error("the TCP connection could not be made")]
struct Connect(#[source] io::Error);

/// A transport that waits a moment before it dials.
pub(super) struct Second(Boxed<(PeerId, StreamMuxerBox)>);

type Inner = Boxed<(PeerId, StreamMuxerBox)>;

impl libp2p::Transport for Second {
    type Output = <Inner as libp2p::Transport>::Output;
    type Error = <Inner as libp2p::Transport>::Error;
    type ListenerUpgrade = <Inner as libp2p::Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        self.0.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        let dial = self.0.dial(addr, options)?;
        Ok(Box::pin(async move {
            tokio::time::sleep(HEAD_START).await;
            dial.await
        }))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}
