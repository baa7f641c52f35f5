//! Yamux on a TCP connection, with bounds that depend on who is at the other end.
//!
//! Yamux gives every stream 256 KiB that may wait unread, and lets the windows of busy streams grow. A stranger gets
//! neither the number of streams nor the growth: what it opens beyond [`STRANGER_STREAMS`] is reset.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io, iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use futures::{
    AsyncRead, AsyncWrite,
    future::{self, Ready},
};
use libp2p::core::{
    muxing::{StreamMuxer, StreamMuxerEvent},
    upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
};
use yamux::{Config, ConnectionError, Mode};

use crate::transport::room::{MAX_STREAMS, Room, STRANGER_STREAMS, YAMUX_WINDOW};

/// By how much the windows of a member's streams may grow together, on a long line.
const GROWTH: usize = 64 << 20;

/// Makes a muxer of an authenticated connection.
#[derive(Clone)]
pub(super) struct Upgrade(pub(super) Arc<Room>);

impl Upgrade {
    fn muxer<C>(self, io: C, mode: Mode) -> Muxer<C>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let streams = MAX_STREAMS as usize;
        let growth = if self.0.is_wide() { GROWTH } else { 0 };
        let mut config = Config::default();
        config
            .set_max_num_streams(streams)
            .set_max_connection_receive_window(Some(streams * YAMUX_WINDOW + growth));
        Muxer {
            connection: yamux::Connection::new(io, config, mode),
            room: self.0,
            arrived: VecDeque::new(),
            waker: None,
            taken: Arc::default(),
        }
    }
}

impl UpgradeInfo for Upgrade {
    type Info = &'static str;
    type InfoIter = iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        iter::once("/yamux/1.0.0")
    }
}

impl<C> InboundConnectionUpgrade<C> for Upgrade
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_inbound(self, io: C, _protocol: &'static str) -> Self::Future {
        future::ready(Ok(self.muxer(io, Mode::Server)))
    }
}

impl<C> OutboundConnectionUpgrade<C> for Upgrade
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Muxer<C>;
    type Error = Infallible;
    type Future = Ready<Result<Muxer<C>, Infallible>>;

    fn upgrade_outbound(self, io: C, _protocol: &'static str) -> Self::Future {
        future::ready(Ok(self.muxer(io, Mode::Client)))
    }
}

/// A connection to an authenticated device.
pub(super) struct Muxer<C> {
    connection: yamux::Connection<C>,
    room: Arc<Room>,
    /// Streams that came while others were waited for.
    arrived: VecDeque<Stream>,
    waker: Option<Waker>,
    /// One count for each stream of the peer that lives here, and one for this.
    taken: Arc<()>,
}

impl<C> Muxer<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    /// Drives the connection until the peer opens a stream that may stay.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        loop {
            let next = ready!(self.connection.poll_next_inbound(cx));
            let stream = next.unwrap_or(Err(ConnectionError::Closed))?;
            let taken = Arc::strong_count(&self.taken) - 1;
            let room = if self.room.is_wide() {
                MAX_STREAMS as usize
            } else {
                STRANGER_STREAMS
            };
            if taken < room {
                return Poll::Ready(Ok(Stream {
                    stream,
                    _taken: Some(Arc::clone(&self.taken)),
                }));
            }
            tracing::debug!(%stream, "a stream too many is reset");
        }
    }
}

impl<C> StreamMuxer for Muxer<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        if let Some(stream) = self.arrived.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        let arrival = self.poll_arrival(cx);
        if arrival.is_pending() {
            self.waker = Some(cx.waker().clone());
        }
        arrival
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        let opened = ready!(self.connection.poll_new_outbound(cx));
        Poll::Ready(opened.map(|stream| Stream {
            stream,
            _taken: None,
        }))
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        self.connection.poll_close(cx)
    }

    /// All streams move only while the connection is asked for new ones, so those are kept until they are asked for.
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        let stream = ready!(self.poll_arrival(cx))?;
        self.arrived.push_back(stream);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        // Others have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A stream; it counts for as long as it is held here, whatever the peer did with it.
pub(super) struct Stream {
    stream: yamux::Stream,
    _taken: Option<Arc<()>>,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use libp2p::PeerId;
    use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

    use super::*;
    use crate::transport::room::Rooms;

    type Pipe = Muxer<Compat<tokio::io::DuplexStream>>;

    fn pair(room: Arc<Room>, theirs: Arc<Room>) -> (Pipe, Pipe) {
        let (server, client) = tokio::io::duplex(1 << 20);
        (
            Upgrade(room).muxer(server.compat(), Mode::Server),
            Upgrade(theirs).muxer(client.compat(), Mode::Client),
        )
    }

    /// Opens `count` streams at the client and says a byte on each, until the server has taken or reset every one.
    /// Gives those that it took, and all as the client has them.
    async fn taken(
        server: &mut Pipe,
        client: &mut Pipe,
        count: usize,
    ) -> (Vec<Stream>, Vec<Stream>) {
        let mut opened = Vec::new();
        for _ in 0..count {
            let stream = poll_fn(|cx| Pin::new(&mut *client).poll_outbound(cx)).await;
            opened.push(stream.unwrap());
        }
        let mut arrived = Vec::new();
        let mut sent = 0;
        poll_fn(|cx| {
            for stream in opened.iter_mut().skip(sent) {
                match Pin::new(stream).poll_write(cx, b"x") {
                    Poll::Ready(written) => drop(written.unwrap()),
                    Poll::Pending => break,
                }
                sent += 1;
            }
            drop(Pin::new(&mut *client).poll(cx));
            while let Poll::Ready(stream) = Pin::new(&mut *server).poll_inbound(cx) {
                arrived.push(stream.unwrap());
            }
            let mut is_over = |stream: &mut Stream| {
                let read = Pin::new(stream).poll_read(cx, &mut [0]);
                matches!(read, Poll::Ready(Ok(0) | Err(_)))
            };
            let reset = opened
                .iter_mut()
                .filter_map(|stream| is_over(stream).then_some(()));
            if sent == count && arrived.len() + reset.count() == count {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        (arrived, opened)
    }

    #[tokio::test]
    async fn a_stranger_has_few_streams_and_a_member_as_many_as_there_are() {
        let rooms = Rooms::default();
        let peer = PeerId::random();
        let (mut server, mut client) = pair(rooms.room(peer), rooms.room(peer));
        let (mut held, _ours) = taken(&mut server, &mut client, 2 * STRANGER_STREAMS).await;
        assert_eq!(held.len(), STRANGER_STREAMS);
        held.truncate(1);
        // What was let go makes room, and a device that becomes known has all of it at once.
        rooms.set_known(peer, true);
        let (more, _others) = taken(&mut server, &mut client, 2 * STRANGER_STREAMS).await;
        assert_eq!(more.len(), 2 * STRANGER_STREAMS);
    }
}
