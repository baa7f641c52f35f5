//! An authenticated QUIC connection as libp2p wants it: something that opens and accepts streams.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{
    AsyncRead, AsyncWrite, FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

use super::setting::CONNECTION_WINDOW;
use crate::transport::room::{Room, STRANGER_WINDOW};

/// Opening or accepting one stream.
type Halves = Result<(SendStream, RecvStream), ConnectionError>;

/// A connection to an authenticated device.
pub(in crate::transport) struct Connection {
    connection: quinn::Connection,
    inbound: BoxStream<'static, Halves>,
    outbound: Option<BoxFuture<'static, Halves>>,
    closed: Option<BoxFuture<'static, ConnectionError>>,
    room: Arc<Room>,
    is_wide: bool,
}

impl Connection {
    pub(super) fn new(connection: quinn::Connection, room: Arc<Room>) -> Self {
        let inbound = stream::unfold(connection.clone(), |connection| async move {
            let halves = connection.accept_bi().await;
            Some((halves, connection))
        });
        Self {
            connection,
            inbound: inbound.boxed(),
            outbound: None,
            closed: None,
            room,
            is_wide: false,
        }
    }

    /// Makes the windows as wide as the device's standing allows. Connections begin with those of a stranger.
    fn fit(&mut self, cx: &Context<'_>) {
        let is_wide = self.room.poll_wide(cx);
        if is_wide != self.is_wide {
            self.is_wide = is_wide;
            let window = if is_wide {
                CONNECTION_WINDOW
            } else {
                STRANGER_WINDOW
            };
            self.connection.set_receive_window(VarInt::from_u32(window));
            self.connection.set_send_window(u64::from(window));
        }
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        let halves = ready!(self.inbound.poll_next_unpin(cx));
        Poll::Ready(
            halves
                .unwrap_or(Err(ConnectionError::LocallyClosed))
                .map(Stream::from),
        )
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        let this = &mut *self;
        let opening = this.outbound.get_or_insert_with(|| {
            let connection = this.connection.clone();
            async move { connection.open_bi().await }.boxed()
        });
        let halves = ready!(opening.poll_unpin(cx));
        self.outbound = None;
        Poll::Ready(halves.map(Stream::from))
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        let this = &mut *self;
        let closed = this.closed.get_or_insert_with(|| {
            let connection = this.connection.clone();
            connection.close(0u32.into(), b"");
            async move { connection.closed().await }.boxed()
        });
        match ready!(closed.poll_unpin(cx)) {
            ConnectionError::LocallyClosed | ConnectionError::ApplicationClosed(_) => {
                Poll::Ready(Ok(()))
            }
            error => Poll::Ready(Err(error)),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        self.fit(cx);
        Poll::Pending // migration is off, so addresses do not change
    }
}

/// Both halves of a QUIC stream. Dropping it finishes our half and stops theirs.
pub(in crate::transport) struct Stream {
    send: SendStream,
    receive: RecvStream,
}

impl From<(SendStream, RecvStream)> for Stream {
    fn from((send, receive): (SendStream, RecvStream)) -> Self {
        Self { send, receive }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.receive.poll_read(cx, buf).map_err(io::Error::from)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send)
            .poll_write(cx, buf)
            .map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // quinn sends what it has as soon as it may
    }

    fn poll_close(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An error says that the half was closed before, which is what was asked for.
        drop(self.send.finish());
        Poll::Ready(Ok(()))
    }
}
