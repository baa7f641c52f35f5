//! How bytes travel: QUIC over UDP first, TCP for networks that drop UDP.
//!
//! Both authenticate the device at the other end by its key before anything above sees a byte, and both
//! give libp2p a connection on which streams can be opened. Which addresses to try, and which of several
//! connections to use, is not decided here.

mod handshake;
mod quic;
mod room;
mod runtime;
mod tcp;

use std::io;

use libp2p::{
    PeerId, Transport as _,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identity::Keypair,
};
use tokio_util::task::TaskTracker;

pub(crate) use self::{
    quic::{Endpoints, Error as QuicError},
    room::{Rooms, stranger_bytes},
};
use crate::error::BindError;

/// Why there is no connection, by transport.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// QUIC's reason.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// TCP's, Noise's or Yamux's reason, wrapped by libp2p.
    #[error(transparent)]
    Tcp(#[from] io::Error),
}

/// Both transports as one, and the QUIC sockets (to see them out at shutdown). quinn's tasks go to
/// `tasks`; the sockets are closed when these have ended. `rooms` says how much a connection may hold.
pub(crate) fn build(
    keypair: &Keypair,
    tasks: TaskTracker,
    rooms: &Rooms,
) -> Result<(Boxed<(PeerId, StreamMuxerBox)>, Endpoints), BindError> {
    let quic = quic::Transport::new(keypair, tasks, rooms.clone())?;
    let endpoints = quic.endpoints();
    let quic = quic
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .map_err(Error::Quic);
    let tcp = tcp::transport(keypair, rooms.clone())?.map_err(Error::Tcp);
    let both = quic
        .or_transport(tcp)
        .map(|either, _| either.into_inner())
        .map_err(|either| either.into_inner())
        .boxed();
    Ok((both, endpoints))
}
