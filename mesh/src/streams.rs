//! Byte streams to and from other devices, whatever connection they happen to run on.
//!
//! Protocols see three things only: [`Streams`] opens a stream to a device (connecting first if needed),
//! a [`Handler`] answers the streams that others open, and [`Stream`] is the stream itself, which tests
//! make from any pair of pipes. Which connection is used, who may open how many, and what a refusal looks
//! like on the wire is decided below, in `behaviour` and `actor`.
//!
//! On the wire a stream begins with multistream-select (`/wormhole/<name>/<major>`), then one byte from
//! the acceptor: its [`Verdict`].

mod handle;
#[cfg(test)]
pub(crate) mod memory;
mod patience;

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wormhole_crdt::DeviceId;

pub(crate) use self::{
    handle::{About, Command, Connected, ConnectedPeers, Discovered, Standing, Streams},
    patience::{Patience, Patient, Sign},
};
use crate::peer::PathKind;

/// The name and major version of something that is spoken on a stream.
///
/// A change that an older program would misread gets another major; both can be registered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Protocol {
    /// Lower-case word, part of the wire format.
    pub(crate) name: &'static str,
    /// Counts from 1.
    pub(crate) major: u16,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/wormhole/{}/{}", self.name, self.major)
    }
}

/// How many streams of one protocol may be open at once, opened by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// By one device that shares no mesh with us (as far as we know yet).
    pub(crate) stranger: usize,
    /// By one known device.
    pub(crate) member: usize,
    /// By all devices together; by all strangers together a quarter of it.
    pub(crate) total: usize,
}

/// Answers the streams of one protocol. Registered before the network is bound.
pub(crate) trait Handler: Send + Sync + 'static {
    /// What it answers to.
    fn protocol(&self) -> Protocol;

    /// How many streams it is willing to serve at once.
    fn quota(&self) -> Quota;

    /// Serves one stream until it is done. Runs in a task of its own, which is aborted at shutdown.
    fn accept(&self, stream: Stream) -> BoxFuture<'static, ()>;
}

/// The acceptor's first byte on a stream. Part of the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    /// The stream is being served.
    Accepted = 0,
    /// This device has as many streams of this protocol as it may.
    PeerQuota = 1,
    /// All devices together have as many streams of this protocol as they may.
    Busy = 2,
    /// The acceptor is shutting down.
    Stopping = 3,
}

impl Verdict {
    /// The meaning of a byte from the wire; `None` for one that this version does not know.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Accepted, Self::PeerQuota, Self::Busy, Self::Stopping]
            .into_iter()
            .find(|verdict| *verdict as u8 == byte)
    }
}

/// Anything that carries bytes both ways, and knows when this device itself makes them wait.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {
    /// Which way our own limits hold bytes back at this moment.
    fn held(&self) -> Held {
        Held::default()
    }
}

/// See [`Carrier::held`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Bytes that come.
    pub(crate) reading: bool,
    /// Bytes that go.
    pub(crate) writing: bool,
}

#[cfg(test)]
impl Carrier for tokio::io::DuplexStream {}

/// An open byte stream to a peer. Dropping it ends both directions.
pub(crate) struct Stream {
    io: Box<dyn Carrier>,
    peer: DeviceId,
    path: PathKind,
}

impl Stream {
    /// Wraps anything that reads and writes; how tests make streams.
    pub(crate) fn new<T>(io: T, peer: DeviceId, path: PathKind) -> Self
    where
        T: Carrier + 'static,
    {
        Self {
            io: Box::new(io),
            peer,
            path,
        }
    }

    /// The authenticated device at the other end.
    pub(crate) fn peer(&self) -> DeviceId {
        self.peer
    }

    /// How its connection travels.
    pub(crate) fn path(&self) -> PathKind {
        self.path
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("peer", &self.peer)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Carrier for Stream {
    fn held(&self) -> Held {
        self.io.held()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
