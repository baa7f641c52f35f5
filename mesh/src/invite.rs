//! How a device joins: a short code or a link, one use, over a password-authenticated key exchange.
//!
//! The inviter opens an invite on its `desk` and hands out the [`Code`] and the [`Link`] of it. The joiner
//! finds the inviter (`join`), both run the conversation of `exchange` on a stream, keyed by `pake`; the inviter
//! admits the joiner once it has proved that it knows the secret and its person has agreed to what it was shown,
//! and gives it the mesh's secrets. If the invite says so, a person at the inviter has to admit it, too. Whoever
//! tries codes gets three guesses of 2^44 and then nothing.

mod code;
mod consent;
mod desk;
mod exchange;
mod join;
mod link;
mod message;
mod pake;

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use rand::rngs::StdRng;
use tokio::sync::{Notify, broadcast, watch};
use wormhole_crdt::{DeviceId, MeshId, Role, Timestamp, Welcome};
use wormhole_store::ContentKey;

use self::desk::{Desk, Source, Terms};
pub(crate) use self::join::{Seeker, join};
use self::link::Token;
pub use self::{
    code::{Code, CodeError, Nameplate},
    consent::{Asking, Consent, Proposal},
    join::JoinError,
    link::{Link, LinkError},
};
use crate::{
    address::PeerAddr,
    attachment::Registry,
    peer::{NetworkEvent, PathKind},
    streams::{Handler, Protocol, Quota, Stream, Streams},
};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "invite",
    major: 1,
};

/// Longest life of an invite.
pub const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long an invite is good if nothing else is said.
pub const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);

/// What to hand out.
#[derive(Clone, Copy, Debug)]
pub struct InviteOffer {
    /// What the joiner will be.
    pub role: Role,
    /// How long the invite is good, at most [`MAX_TTL`].
    pub ttl: Duration,
    /// Whether a person here has to admit the device that comes with it: [`Network::decide`].
    ///
    /// [`Network::decide`]: crate::Network::decide
    pub ask: bool,
}

/// An open invite: its code and its link are two ways to the same single use.
#[derive(Clone, Debug)]
pub struct Invite {
    /// To be read out or typed.
    pub code: Code,
    /// To be sent or scanned.
    pub link: Link,
    /// What the joiner will be.
    pub role: Role,
    /// When it ends unused.
    pub expires: Timestamp,
    /// Into which mesh.
    pub mesh: MeshId,
    /// Whether a person here has to admit the device that comes with it.
    pub ask: bool,
}

/// Why an invite could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// This node does not carry the mesh.
    #[error("mesh {mesh} is not on this device")]
    UnknownMesh {
        /// The mesh.
        mesh: MeshId,
    },
    /// Only admins admit.
    #[error("only an admin of the mesh can invite; ask one of them")]
    NotAdmin,
    /// It would be good for longer than is safe.
    #[error("an invite is good for at most {} days", MAX_TTL.as_secs() / (24 * 3600))]
    TooLong,
    /// Too many are open.
    #[error("too many invites are open on this device; wait until one is used or expires")]
    TooMany,
}

/// What a person was given to join with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// A code.
    Code(Code),
    /// A link.
    Link(Link),
}

/// Why a text is neither a code nor a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It looks like a code, but is none.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// It looks like a link, but is none.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Anything with a colon is taken for a link: codes have none.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.contains(':') {
            Ok(Self::Link(text.parse()?))
        } else {
            Ok(Self::Code(text.parse()?))
        }
    }
}

/// What a person wants to join, and on which terms.
pub struct Wish<'a> {
    /// The code or link.
    pub ticket: &'a Ticket,
    /// Where to ask besides, or for a code: where to ask and nowhere else.
    pub peers: &'a [PeerAddr],
    /// What the person has agreed to.
    pub consent: Consent,
    /// Is told when this device has to wait for a person at the inviter.
    pub waiting: &'a (dyn Fn(&Proposal) + Sync),
}

impl fmt::Debug for Wish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wish")
            .field("peers", &self.peers)
            .field("consent", &self.consent)
            .finish_non_exhaustive()
    }
}

/// What a device has that was admitted.
#[derive(Clone)]
pub struct Joined {
    /// Starts the replica.
    pub welcome: Welcome,
    /// For the store.
    pub content_key: ContentKey,
    /// What this device is in the mesh.
    pub role: Role,
    /// Who let it in.
    pub from: DeviceId,
    /// What that device calls itself. Untrusted text.
    pub from_name: String,
    /// How that device was reached.
    pub path: PathKind,
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined")
            .field("mesh", &self.welcome.mesh)
            .field("role", &self.role)
            .field("from", &self.from)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Tells the time; tests have their own.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The inviter's side: its desk, and what it needs to answer joiners. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inviter {
    inner: Arc<Inner>,
}

struct Inner {
    device: DeviceId,
    name: String,
    desk: Mutex<Desk>,
    registry: Registry,
    streams: Streams,
    events: broadcast::Sender<NetworkEvent>,
    clock: Clock,
    opened: Notify,
    /// Counts what a person decided about devices that ask.
    decided: watch::Sender<u64>,
}

impl Inviter {
    pub(crate) fn new(
        device: DeviceId,
        name: String,
        registry: Registry,
        streams: Streams,
        events: broadcast::Sender<NetworkEvent>,
        clock: Clock,
    ) -> Self {
        let desk = Mutex::default();
        let opened = Notify::new();
        let inner = Inner {
            device,
            name,
            desk,
            registry,
            streams,
            events,
            clock,
            opened,
            decided: watch::Sender::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Opens an invite; `addrs` are where this node can be reached, for the link.
    pub(crate) fn invite(
        &self,
        mesh: MeshId,
        offer: InviteOffer,
        addrs: Vec<PeerAddr>,
    ) -> Result<Invite, InviteError> {
        let attachment = self
            .inner
            .registry
            .get(mesh)
            .ok_or(InviteError::UnknownMesh { mesh })?;
        if attachment.replica.role_of(&self.inner.device) != Some(Role::Admin) {
            return Err(InviteError::NotAdmin);
        }
        if offer.ttl > MAX_TTL {
            return Err(InviteError::TooLong);
        }
        let now = self.now();
        let ttl = i64::try_from(offer.ttl.as_nanos()).unwrap_or(i64::MAX);
        let expires = Timestamp(now.0.saturating_add(ttl));
        let mut rng: StdRng = rand::make_rng();
        let terms = Terms {
            mesh,
            role: offer.role,
            expires,
            ask: offer.ask,
        };
        let opened = self
            .desk()
            .open(terms, now, &mut rng)
            .map_err(|_full| InviteError::TooMany)?;
        self.advertise();
        self.inner.opened.notify_one();
        let secrets = (opened.code, opened.token);
        Ok(self.handed_out(terms, secrets, addrs))
    }

    fn handed_out(
        &self,
        terms: Terms,
        (code, token): (Code, Token),
        addrs: Vec<PeerAddr>,
    ) -> Invite {
        let attachment = self.inner.registry.get(terms.mesh);
        let name = attachment.map_or_else(String::new, |mesh| mesh.replica.name());
        Invite {
            code,
            link: Link::new(token, self.inner.device, terms.expires, &name, addrs),
            role: terms.role,
            expires: terms.expires,
            mesh: terms.mesh,
            ask: terms.ask,
        }
    }

    /// The invites that are still good, to be handed out again.
    pub(crate) fn list(&self, addrs: &[PeerAddr]) -> Vec<Invite> {
        let listed = self.desk().list(self.now());
        let invite = |listed: desk::Listed| {
            let secrets = (listed.code, listed.token);
            self.handed_out(listed.terms, secrets, addrs.to_vec())
        };
        listed.into_iter().map(invite).collect()
    }

    /// The devices that wait for a person to admit them.
    pub(crate) fn asking(&self) -> Vec<Asking> {
        self.desk().asking(self.now())
    }

    /// Admits or refuses a device that waits; false if it does not (any more).
    pub(crate) fn decide(&self, mesh: MeshId, device: DeviceId, admit: bool) -> bool {
        let decided = self.desk().decide(mesh, device, admit, self.now());
        if decided {
            self.inner.decided.send_modify(|count| *count += 1);
            self.advertise();
        }
        decided
    }

    /// Where a joiner comes from.
    fn source(&self, joiner: DeviceId) -> Source {
        let connected = self.inner.streams.connected();
        let addr = connected.borrow().get(&joiner).map(|peer| peer.addr.ip());
        Source::of(joiner, addr)
    }

    /// Ends all invites into a mesh.
    pub(crate) fn close(&self, mesh: MeshId) {
        self.desk().close(mesh);
        self.advertise();
    }

    /// Takes nameplates off the network when their invites expire. Runs until it is cancelled.
    pub(crate) async fn run(&self) {
        loop {
            let now = self.now();
            let expiry = self.desk().next_expiry(now);
            match expiry {
                Some(expiry) => {
                    let left = u64::try_from(expiry.0.saturating_sub(now.0)).unwrap_or(0);
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_nanos(left)) => {}
                        () = self.inner.opened.notified() => {}
                    }
                }
                None => self.inner.opened.notified().await,
            }
            self.advertise();
        }
    }

    /// Shows the nameplates of the invites that are good, and tells of those that no longer are.
    fn advertise(&self) {
        let now = self.now();
        let expired = self.desk().expire(now);
        for mesh in expired {
            self.announce(NetworkEvent::InviteExpired { mesh });
        }
        let nameplates = self.desk().nameplates(now);
        self.inner.streams.set_advertised_nameplates(nameplates);
    }

    fn now(&self) -> Timestamp {
        (self.inner.clock)()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Each call on the desk leaves it whole, so a panic elsewhere does not spoil it.
        self.inner
            .desk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, event: NetworkEvent) {
        if self.inner.events.send(event).is_err() {
            tracing::trace!("nobody follows the events");
        }
    }
}

impl fmt::Debug for Inviter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inviter").field(&self.inner.device).finish()
    }
}

impl Handler for Inviter {
    fn protocol(&self) -> Protocol {
        PROTOCOL
    }

    fn quota(&self) -> Quota {
        // A joiner has one conversation; strangers may not keep others out by holding many.
        Quota {
            stranger: 2,
            member: 2,
            total: 32,
        }
    }

    fn accept(&self, mut stream: Stream) -> BoxFuture<'static, ()> {
        let inviter = self.clone();
        Box::pin(async move {
            let peer = stream.peer();
            if let Err(error) = exchange::answer(&inviter, &mut stream, peer).await {
                tracing::debug!(%peer, %error, "an invite's conversation ended early");
            }
            inviter.advertise();
        })
    }
}

#[cfg(test)]
mod tests;
