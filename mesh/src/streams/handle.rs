//! [`Streams`]: what protocols hold in their hands. Every method is a message to the actor.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use wormhole_crdt::{DeviceId, MeshId};

use super::{Protocol, Stream, Verdict};
use crate::{
    address::{PeerAddr, Wire},
    error::{DialError, OpenError},
    peer::{Misbehaviour, PathKind},
};

/// How long the acceptor has to say whether it serves a stream.
const VERDICT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a dial by QUIC alone may take before TCP is tried too.
const QUIC_HEAD_START: Duration = Duration::from_millis(400);

/// What protocols ask of the actor.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open a stream, connecting first if needed. The answer comes before the acceptor's verdict.
    Open {
        /// To whom.
        peer: DeviceId,
        /// For what.
        protocol: Protocol,
        /// Where the stream goes.
        reply: oneshot::Sender<Result<Stream, OpenError>>,
    },
    /// Connect to whoever answers at an address.
    Dial {
        /// Where.
        addr: PeerAddr,
        /// Who answered.
        reply: oneshot::Sender<Result<DeviceId, DialError>>,
    },
    /// What the device said about itself.
    Describe {
        /// The device.
        peer: DeviceId,
        /// Its words.
        about: About,
    },
    /// The device broke a protocol.
    Misbehaved {
        /// The device.
        peer: DeviceId,
        /// How.
        reason: Misbehaviour,
    },
}

/// What a device may do here, beyond knocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Small quotas; disconnected when idle.
    Stranger,
    /// Full quotas; its connection is kept.
    Member,
}

/// What a device says about itself, for the status page. Untrusted, bounded by `hello`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// Its name for itself.
    pub(crate) name: Option<String>,
    /// The version of its program.
    pub(crate) version: Option<String>,
    /// The version of the protocol that it speaks with us.
    pub(crate) protocol: Option<u16>,
    /// Meshes proved by both sides.
    pub(crate) meshes: Vec<MeshId>,
    /// What went wrong last, in a sentence.
    pub(crate) problem: Option<String>,
}

/// A device with at least one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connected {
    /// Rises with every connection that is made to the device, also while another is up: it may have
    /// restarted and forgotten us. A new epoch needs a new hello.
    pub(crate) epoch: u64,
    /// How its best connection travels.
    pub(crate) path: PathKind,
    /// What its best connection is.
    pub(crate) wire: Wire,
    /// The other end of its best connection.
    pub(crate) addr: PeerAddr,
}

/// All connected devices. Watchers see every state at least eventually, intermediate ones maybe not.
pub(crate) type ConnectedPeers = Arc<BTreeMap<DeviceId, Connected>>;

/// A device seen on the local network, not verified in any way until it is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discovered {
    /// Who it says it is; a connection to it proves or refutes that.
    pub(crate) device: DeviceId,
    /// Where it says it listens.
    pub(crate) addrs: Vec<PeerAddr>,
    /// Nameplates of invites that are open there.
    pub(crate) nameplates: BTreeSet<String>,
}

/// Opens streams and follows who is there. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    commands: mpsc::Sender<Command>,
    connected: watch::Receiver<ConnectedPeers>,
    discovered: watch::Receiver<Arc<Vec<Discovered>>>,
    nameplates: Arc<watch::Sender<BTreeSet<String>>>,
}

impl Streams {
    /// Ties a handle to the actor that answers it.
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        connected: watch::Receiver<ConnectedPeers>,
        discovered: watch::Receiver<Arc<Vec<Discovered>>>,
        nameplates: Arc<watch::Sender<BTreeSet<String>>>,
    ) -> Self {
        Self {
            commands,
            connected,
            discovered,
            nameplates,
        }
    }

    /// Opens a stream on the best connection to `peer`, connecting first if there is none.
    ///
    /// Waits for the acceptor's verdict, so an `Ok` is a stream that is being served. Cancel-safe.
    pub(crate) async fn open(
        &self,
        peer: DeviceId,
        protocol: Protocol,
    ) -> Result<Stream, OpenError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Open {
            peer,
            protocol,
            reply,
        };
        self.commands
            .send(command)
            .await
            .map_err(|_| OpenError::Stopped)?;
        let mut stream = answer.await.map_err(|_| OpenError::Stopped)??;
        let lost = OpenError::Lost { peer, protocol };
        let byte = match timeout(VERDICT_DEADLINE, stream.read_u8()).await {
            Ok(Ok(byte)) => byte,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %protocol, %error, "stream ended before its verdict");
                return Err(lost);
            }
            Err(_elapsed) => return Err(lost),
        };
        match Verdict::from_byte(byte) {
            Some(Verdict::Accepted) => Ok(stream),
            Some(Verdict::PeerQuota) => Err(OpenError::PeerQuota { peer, protocol }),
            Some(Verdict::Busy | Verdict::Stopping) => Err(OpenError::Busy { peer, protocol }),
            None => Err(OpenError::Unsupported { peer, protocol }),
        }
    }

    /// Connects to whoever answers at `addr` and says who it is. Cancel-safe (the dial goes on).
    ///
    /// An address without a transport is tried by QUIC, and by TCP if that has not answered soon.
    pub(crate) async fn dial(&self, addr: PeerAddr) -> Result<DeviceId, DialError> {
        if addr.wire().is_some() {
            return self.dial_on(addr).await;
        }
        let quic = self.dial_on(PeerAddr::on(Wire::Quic, addr.socket()));
        let tcp = async {
            tokio::time::sleep(QUIC_HEAD_START).await;
            self.dial_on(PeerAddr::on(Wire::Tcp, addr.socket())).await
        };
        tokio::pin!(quic, tcp);
        let (first, second) = tokio::select! {
            biased;
            first = &mut quic => match first {
                Ok(device) => return Ok(device),
                Err(first) => (first, tcp.await),
            },
            first = &mut tcp => match first {
                Ok(device) => return Ok(device),
                Err(first) => (first, quic.await),
            },
        };
        second.map_err(|second| match (first, second) {
            (DialError::Unreachable { .. }, DialError::Unreachable { .. }) => {
                DialError::Unreachable { addr }
            }
            (DialError::Unreachable { .. }, telling) | (telling, _) => telling,
        })
    }

    async fn dial_on(&self, addr: PeerAddr) -> Result<DeviceId, DialError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Dial { addr, reply };
        self.commands
            .send(command)
            .await
            .map_err(|_| DialError::Stopped)?;
        answer.await.map_err(|_| DialError::Stopped)?
    }

    /// Who is connected now, and every change of that.
    pub(crate) fn connected(&self) -> watch::Receiver<ConnectedPeers> {
        self.connected.clone()
    }

    /// Who was seen on the local network lately, with the nameplates of their open invites.
    pub(crate) fn discovered(&self) -> watch::Receiver<Arc<Vec<Discovered>>> {
        self.discovered.clone()
    }

    /// Shows exactly these nameplates to the local network from now on.
    pub(crate) fn set_advertised_nameplates(&self, nameplates: BTreeSet<String>) {
        self.nameplates.send_if_modified(|shown| {
            let changed = *shown != nameplates;
            *shown = nameplates;
            changed
        });
    }

    /// Records what `peer` said about itself, for the status page.
    pub(crate) async fn describe(&self, peer: DeviceId, about: About) {
        self.tell(Command::Describe { peer, about }).await;
    }

    /// Reports that `peer` broke a protocol: it is disconnected, and banned for a while if it goes on.
    pub(crate) async fn misbehaved(&self, peer: DeviceId, reason: Misbehaviour) {
        self.tell(Command::Misbehaved { peer, reason }).await;
    }

    async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::trace!("the network has stopped, nobody needs to know any more");
        }
    }
}
