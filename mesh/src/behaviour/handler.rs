//! One connection: negotiates the protocol of each stream, in and out. No policy.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use libp2p::{
    StreamProtocol,
    core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, Stream as Raw, StreamUpgradeError,
        SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::oneshot;
use wormhole_crdt::DeviceId;

use crate::{
    error::OpenError,
    limit::Meter,
    peer::PathKind,
    streams::{Protocol, Stream},
};

/// How long two sides may take to agree on a protocol.
const NEGOTIATION_DEADLINE: Duration = Duration::from_secs(10);

/// Streams that may wait here to be opened; more are refused to their local callers.
const MAX_OPENING: usize = 64;

/// Negotiated streams that may wait here for the actor; more are dropped, which their openers see.
const MAX_ARRIVED: usize = 32;

/// A stream that somebody here wants.
#[derive(Debug)]
pub(crate) struct Opening {
    /// To whom.
    pub(crate) peer: DeviceId,
    /// For what.
    pub(crate) protocol: Protocol,
    /// Counts and limits its bytes.
    pub(crate) meter: Meter,
    /// Where it goes. Closed when nobody waits any more.
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

impl Opening {
    /// Tells the caller, who may have left, that there is no stream.
    pub(crate) fn fail(self, error: OpenError) {
        self.answer(Err(error));
    }

    fn succeed(self, stream: Raw, path: PathKind) {
        let stream = self.meter.clone().wrap(stream, self.peer, path);
        self.answer(Ok(stream));
    }

    fn answer(self, result: Result<Stream, OpenError>) {
        if self.reply.send(result).is_err() {
            tracing::trace!(peer = %self.peer, "nobody waits for the stream any more");
        }
    }
}

/// What the behaviour tells a connection.
#[derive(Debug)]
pub(crate) enum Order {
    /// Open a stream; the connection travels like this.
    Open(Opening, PathKind),
    /// Stay open when idle, or do not.
    Hold(Hold),
}

/// Whether a connection is worth having when nothing happens on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It is the best connection to a known device.
    Keep,
    /// It may go when it has been idle for a while.
    Release,
}

/// A stream that the peer opened.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) protocol: Protocol,
    pub(crate) stream: Raw,
}

/// The handler of one connection.
pub(crate) struct Handler {
    names: Arc<[Name]>,
    hold: Hold,
    wanted: VecDeque<(Opening, PathKind)>,
    /// Streams requested from the swarm and not negotiated yet.
    opening: usize,
    arrived: VecDeque<Arrived>,
    waker: Option<Waker>,
}

impl Handler {
    pub(super) fn new(names: Arc<[Name]>) -> Self {
        Self {
            names,
            hold: Hold::Release,
            wanted: VecDeque::new(),
            opening: 0,
            arrived: VecDeque::new(),
            waker: None,
        }
    }

    fn failed(&mut self, opening: Opening, error: &StreamUpgradeError<Infallible>) {
        let (peer, protocol) = (opening.peer, opening.protocol);
        tracing::debug!(%peer, %protocol, %error, "a stream could not be opened");
        opening.fail(match error {
            StreamUpgradeError::NegotiationFailed => OpenError::Unsupported { peer, protocol },
            StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => {
                OpenError::Lost { peer, protocol }
            }
            StreamUpgradeError::Apply(never) => match *never {},
        });
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Order;
    type ToBehaviour = Arrived;
    type InboundProtocol = Accept;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = (Opening, PathKind);

    fn listen_protocol(&self) -> SubstreamProtocol<Accept> {
        SubstreamProtocol::new(Accept(Arc::clone(&self.names)), ())
            .with_timeout(NEGOTIATION_DEADLINE)
    }

    fn connection_keep_alive(&self) -> bool {
        self.hold == Hold::Keep || !self.wanted.is_empty() || self.opening > 0
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, (Opening, PathKind), Arrived>> {
        if let Some(arrived) = self.arrived.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(arrived));
        }
        while let Some((opening, path)) = self.wanted.pop_front() {
            if opening.reply.is_closed() {
                continue;
            }
            self.opening += 1;
            let offer = Offer(Name::new(opening.protocol));
            let protocol =
                SubstreamProtocol::new(offer, (opening, path)).with_timeout(NEGOTIATION_DEADLINE);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, order: Order) {
        match order {
            Order::Open(opening, _) if self.wanted.len() + self.opening >= MAX_OPENING => {
                let peer = opening.peer;
                opening.fail(OpenError::Backlog { peer });
            }
            Order::Open(opening, path) => self.wanted.push_back((opening, path)),
            Order::Hold(hold) => self.hold = hold,
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Accept, Offer, (), (Opening, PathKind)>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: arrived,
                info: (),
            }) => {
                if self.arrived.len() < MAX_ARRIVED {
                    self.arrived.push_back(arrived);
                } else {
                    tracing::debug!(protocol = %arrived.protocol, "too many streams at once");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: (opening, path),
            }) => {
                self.opening -= 1;
                opening.succeed(stream, path);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                info: (opening, _),
                error,
            }) => {
                self.opening -= 1;
                self.failed(opening, &error);
            }
            // The enum is libp2p's and open-ended; nothing else concerns streams.
            _ => {}
        }
    }
}

/// A protocol and its name on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    protocol: Protocol,
    text: StreamProtocol,
}

impl Name {
    pub(super) fn new(protocol: Protocol) -> Self {
        let text = StreamProtocol::try_from_owned(protocol.to_string())
            .expect("every protocol's name begins with a slash");
        Self { protocol, text }
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.text.as_ref()
    }
}

/// Accepts any of our protocols.
#[derive(Clone, Debug)]
pub(crate) struct Accept(Arc<[Name]>);

impl UpgradeInfo for Accept {
    type Info = Name;
    type InfoIter = Vec<Name>;

    fn protocol_info(&self) -> Vec<Name> {
        self.0.to_vec()
    }
}

impl InboundUpgrade<Raw> for Accept {
    type Output = Arrived;
    type Error = Infallible;
    type Future = Ready<Result<Arrived, Infallible>>;

    fn upgrade_inbound(self, stream: Raw, name: Name) -> Self::Future {
        ready(Ok(Arrived {
            protocol: name.protocol,
            stream,
        }))
    }
}

/// Asks for one protocol.
#[derive(Clone, Debug)]
pub(crate) struct Offer(Name);

impl UpgradeInfo for Offer {
    type Info = Name;
    type InfoIter = [Name; 1];

    fn protocol_info(&self) -> [Name; 1] {
        [self.0.clone()]
    }
}

impl OutboundUpgrade<Raw> for Offer {
    type Output = Raw;
    type Error = Infallible;
    type Future = Ready<Result<Raw, Infallible>>;

    fn upgrade_outbound(self, stream: Raw, _name: Name) -> Self::Future {
        ready(Ok(stream))
    }
}
