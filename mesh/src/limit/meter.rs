//! What a raw stream to a peer is wrapped in: a count of its bytes, and the limits that hold for all streams.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use wormhole_crdt::DeviceId;

use super::{Limits, Throttled, Urgency};
use crate::{
    peer::PathKind,
    streams::{Carrier, Held, Stream},
};

/// Bytes that went to and came from one peer, since it was first connected.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
}

impl Traffic {
    /// (sent, received)
    pub(crate) fn totals(&self) -> (u64, u64) {
        (
            self.up.load(Ordering::Relaxed),
            self.down.load(Ordering::Relaxed),
        )
    }
}

/// What a new stream is measured and limited by.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// Whose bytes they are.
    pub(crate) traffic: Arc<Traffic>,
    /// Who shares the rate.
    pub(crate) limits: Arc<Limits>,
    /// Whether it goes before others that do.
    pub(crate) urgency: Urgency,
}

impl Carrier for Compat<libp2p::swarm::Stream> {}

impl Meter {
    /// Makes a raw stream into one for protocols.
    pub(crate) fn wrap(self, raw: libp2p::swarm::Stream, peer: DeviceId, path: PathKind) -> Stream {
        self.around(raw.compat(), peer, path)
    }

    /// [`Meter::wrap`] for anything that carries bytes.
    pub(crate) fn around<T>(self, io: T, peer: DeviceId, path: PathKind) -> Stream
    where
        T: Carrier + 'static,
    {
        let counted = Counted {
            io: Throttled::new(io, self.limits, self.urgency),
            traffic: self.traffic,
        };
        Stream::new(counted, peer, path)
    }
}

/// A stream whose bytes are counted.
struct Counted<T> {
    io: T,
    traffic: Arc<Traffic>,
}

impl<T: Carrier> Carrier for Counted<T> {
    fn held(&self) -> Held {
        self.io.held()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let read = buf.filled().len().saturating_sub(before);
        self.traffic.down.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.traffic.up.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_goes_and_what_comes_is_counted() -> io::Result<()> {
        let meter = Meter {
            traffic: Arc::default(),
            limits: Arc::default(),
            urgency: Urgency::Bulk,
        };
        let traffic = Arc::clone(&meter.traffic);
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut ours = meter.around(ours, DeviceId::from_bytes([7; 32]), PathKind::Local);
        ours.write_all(&[1; 40]).await?;
        theirs.write_all(&[2; 30]).await?;
        ours.read_exact(&mut [0; 30]).await?;
        assert_eq!(traffic.totals(), (40, 30));
        Ok(())
    }
}
