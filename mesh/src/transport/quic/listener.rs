//! One UDP socket as a listener: a stream of handshakes, with limits for those who only knock.
//!
//! A source address can be forged until the handshake has gone one round trip. While few handshakes are
//! open, everybody is answered at once; above that, strangers must first prove their address with a
//! stateless retry; above the second limit they are refused. Neither costs us memory.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use libp2p::core::transport::{ListenerId, TransportEvent};
use quinn::Incoming;

use super::{Connecting, Error, PathClass, finish, setting::Settings};
use crate::{
    address::{Wire, to_multiaddr},
    transport::{handshake::HANDSHAKE_DEADLINE, room::Rooms},
};

/// Open handshakes above which an address must be proved first.
const RETRY_ABOVE: usize = 8;

/// Open handshakes above which new ones are refused.
const REFUSE_ABOVE: usize = 128;

/// A listening socket.
pub(super) struct Listener {
    id: ListenerId,
    local: SocketAddr,
    settings: Settings,
    rooms: Rooms,
    endpoint: quinn::Endpoint,
    incoming: BoxStream<'static, Incoming>,
    /// Handshakes that are neither finished nor given up.
    half_open: Arc<AtomicUsize>,
    state: State,
    waker: Option<Waker>,
}

/// What the swarm has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing yet.
    New,
    /// The address.
    Open,
    /// The address; the end is to be told.
    Closing,
    /// The end.
    Closed,
}

impl Listener {
    pub(super) fn new(
        id: ListenerId,
        endpoint: quinn::Endpoint,
        local: SocketAddr,
        settings: Settings,
        rooms: Rooms,
    ) -> Self {
        let incoming = stream::unfold(endpoint.clone(), |endpoint| async move {
            let incoming = endpoint.accept().await?;
            Some((incoming, endpoint))
        });
        Self {
            id,
            local,
            settings,
            rooms,
            endpoint,
            incoming: incoming.boxed(),
            half_open: Arc::default(),
            state: State::New,
            waker: None,
        }
    }

    pub(super) fn id(&self) -> ListenerId {
        self.id
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Stops listening. Connections made over the socket end too.
    pub(super) fn close(&mut self) {
        if self.state != State::Closed {
            self.endpoint.close(0u32.into(), b"");
            self.state = State::Closing;
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Answers a knock, unless it is turned away.
    fn admit(&self, incoming: Incoming) -> Option<TransportEvent<Connecting, Error>> {
        let remote = incoming.remote_address();
        let open = self.half_open.load(Ordering::Relaxed);
        if open >= REFUSE_ABOVE {
            tracing::debug!(%remote, "too many handshakes at once, one is refused");
            incoming.refuse();
            return None;
        }
        if open >= RETRY_ABOVE && incoming.may_retry() && !incoming.remote_address_validated() {
            if let Err(error) = incoming.retry() {
                error.into_incoming().ignore();
            }
            return None;
        }
        let server = self.settings.server(PathClass::of(remote));
        let connecting = match incoming.accept_with(Arc::new(server)) {
            Ok(connecting) => connecting,
            Err(error) => {
                tracing::debug!(%remote, %error, "a first packet made no sense");
                return None;
            }
        };
        let guard = HalfOpen::new(&self.half_open);
        let rooms = self.rooms.clone();
        Some(TransportEvent::Incoming {
            listener_id: self.id,
            upgrade: Box::pin(async move {
                let _guard = guard;
                finish(connecting, HANDSHAKE_DEADLINE, &rooms).await
            }),
            local_addr: to_multiaddr(Wire::Quic, self.local),
            send_back_addr: to_multiaddr(Wire::Quic, remote),
        })
    }
}

impl Stream for Listener {
    type Item = TransportEvent<Connecting, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.state {
            State::New => {
                self.state = State::Open;
                return Poll::Ready(Some(TransportEvent::NewAddress {
                    listener_id: self.id,
                    listen_addr: to_multiaddr(Wire::Quic, self.local),
                }));
            }
            State::Open => {}
            State::Closing => {
                self.state = State::Closed;
                return Poll::Ready(Some(TransportEvent::ListenerClosed {
                    listener_id: self.id,
                    reason: Ok(()),
                }));
            }
            State::Closed => return Poll::Ready(None),
        }
        while let Poll::Ready(next) = self.incoming.poll_next_unpin(cx) {
            let Some(incoming) = next else {
                self.state = State::Closed;
                return Poll::Ready(Some(TransportEvent::ListenerClosed {
                    listener_id: self.id,
                    reason: Ok(()),
                }));
            };
            if let Some(event) = self.admit(incoming) {
                return Poll::Ready(Some(event));
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Counts one open handshake for as long as it lives.
struct HalfOpen(Arc<AtomicUsize>);

impl HalfOpen {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
