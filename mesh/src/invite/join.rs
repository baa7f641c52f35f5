//! The joiner's way to the inviter: whom to ask, in which order, for how long, and what to say in the end.
//!
//! With addresses given by hand those devices are asked and nobody else. A link names its inviter. A code
//! is taken first to the devices that show its nameplate on the local network, then to every other device
//! seen there. The conversation with each is `exchange`.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{DeviceId, MeshId};
use zeroize::Zeroizing;

use super::{
    Clock, Joined, PROTOCOL, Ticket,
    exchange::{self, ExchangeError, Joiner},
    link::Link,
    message::{Handle, Refusal},
};
use crate::{
    address::PeerAddr,
    error::{DialError, OpenError},
    streams::Streams,
    version::VersionMismatch,
};

/// How long an inviter is waited for: discovery takes a second or two when it works.
const SEARCH: Duration = Duration::from_secs(15);

/// How long one address may take.
const DIAL: Duration = Duration::from_secs(10);

/// Devices asked in one search. A crowded network is no reason to knock everywhere.
const MAX_ASKED: usize = 64;

/// Why a device did not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The words are not those of the invite.
    #[error(
        "the code is wrong{}; check it and try again",
        .tries_left.map_or(String::new(), |left| format!(" ({left} more tries)"))
    )]
    WrongCode {
        /// Further wrong ones that the inviter takes; `None` when it did not say.
        tries_left: Option<u8>,
    },
    /// The invite's time is over.
    #[error("the invite has expired; ask for a new one")]
    Expired,
    /// Somebody joined with it.
    #[error("the invite has been used by another device; ask for a new one")]
    Used,
    /// Too many wrong codes.
    #[error("too many wrong codes were tried, so the invite was destroyed; ask for a new one")]
    Burnt,
    /// The devices that answer know nothing of it.
    #[error("the device that answers has no such invite; check the number in front of the code")]
    NoSuchInvite,
    /// Nobody was found.
    #[error(
        "no inviting device was found; is `wormhole` running there and on the same network? If it is \
         elsewhere, give its address with --peer"
    )]
    NobodyAnswers,
    /// The given address does not answer.
    #[error("the inviting device cannot be reached")]
    Unreachable(#[source] DialError),
    /// This device is in that mesh.
    #[error("this device is a member of \"{}\" already; the invite is still good", .name.escape_debug())]
    AlreadyMember {
        /// The mesh.
        mesh: MeshId,
        /// Its name, as the inviter says.
        name: String,
    },
    /// The programs are too far apart.
    #[error(transparent)]
    VersionMismatch(#[from] VersionMismatch),
    /// The other program speaks another major version.
    #[error("the other device speaks another version of wormhole; update the older of the two")]
    Unsupported,
    /// Another device is joining, or too many tried lately.
    #[error("the inviting device is busy with another join; try again in a few seconds")]
    Busy,
    /// It could not.
    #[error("the inviting device could not admit this one; look at its log")]
    CannotAdmit,
    /// The connection broke, or the other side broke the protocol.
    #[error("the conversation with the inviting device broke off; try again")]
    Broken,
    /// The caller gave up.
    #[error("joining was cancelled")]
    Cancelled,
    /// The network is shutting down.
    #[error("the network is stopping")]
    Stopped,
}

/// Who wants to join.
pub(crate) struct Seeker<'a> {
    pub(crate) device: DeviceId,
    pub(crate) name: &'a str,
    pub(crate) streams: &'a Streams,
    pub(crate) is_member: &'a (dyn Fn(MeshId) -> bool + Sync),
    pub(crate) clock: &'a Clock,
}

/// Joins with a code or link; asks only `peers` if there are any.
pub(crate) async fn join(
    seeker: &Seeker<'_>,
    ticket: &Ticket,
    peers: &[PeerAddr],
    cancel: &CancellationToken,
) -> Result<Joined, JoinError> {
    let search = async {
        match ticket {
            Ticket::Code(code) => {
                let attempt = Attempt {
                    seeker,
                    handle: Handle::Nameplate(code.nameplate()),
                    password: code.password(),
                };
                if peers.is_empty() {
                    attempt.search().await
                } else {
                    attempt.ask_at(peers).await
                }
            }
            Ticket::Link(link) => {
                let attempt = Attempt {
                    seeker,
                    handle: Handle::Link(link.token().id()),
                    password: link.token().password(),
                };
                attempt.follow(link, peers).await
            }
        }
    };
    tokio::select! {
        joined = search => joined,
        () = cancel.cancelled() => Err(JoinError::Cancelled),
    }
}

struct Attempt<'a> {
    seeker: &'a Seeker<'a>,
    handle: Handle,
    password: Zeroizing<Vec<u8>>,
}

impl Attempt<'_> {
    /// Asks the devices at these addresses, in the order in which they answer.
    async fn ask_at(&self, addrs: &[PeerAddr]) -> Result<Joined, JoinError> {
        let mut dials = self.dial(addrs);
        let mut asked = BTreeSet::new();
        let mut worst: Option<JoinError> = None;
        while let Some(dialled) = dials.next().await {
            let failed = match dialled {
                Ok(device) if asked.insert(device) => match self.ask(device).await {
                    Ok(joined) => return Ok(joined),
                    Err(error) => error,
                },
                Ok(_) => continue,
                Err(error) => JoinError::Unreachable(error),
            };
            worst = Some(more_telling(worst, failed));
        }
        Err(worst.unwrap_or(JoinError::NobodyAnswers))
    }

    /// Takes a link to the device that made it.
    async fn follow(&self, link: &Link, peers: &[PeerAddr]) -> Result<Joined, JoinError> {
        let addrs: Vec<PeerAddr> = peers.iter().chain(link.addrs()).copied().collect();
        let mut dials = self.dial(&addrs);
        while let Some(dialled) = dials.next().await {
            match dialled {
                Ok(device) if device == link.inviter() => break,
                Ok(other) => {
                    tracing::debug!(%other, "another device answers at the link's address");
                }
                Err(error) => tracing::debug!(%error, "an address of the link does not answer"),
            }
        }
        drop(dials);
        let deadline = Instant::now() + SEARCH;
        let mut discovered = self.seeker.streams.discovered();
        loop {
            discovered.mark_unchanged();
            match self.ask(link.inviter()).await {
                Err(JoinError::Unreachable(_) | JoinError::NobodyAnswers) => {}
                decided => return decided,
            }
            if !matches!(timeout_at(deadline, discovered.changed()).await, Ok(Ok(()))) {
                let late = (self.seeker.clock)() >= link.expires();
                return Err(if late {
                    JoinError::Expired
                } else {
                    JoinError::NobodyAnswers
                });
            }
        }
    }

    /// Takes a code to whoever is on the local network.
    async fn search(&self) -> Result<Joined, JoinError> {
        let deadline = Instant::now() + SEARCH;
        let mut discovered = self.seeker.streams.discovered();
        let mut connected = self.seeker.streams.connected();
        let mut asked: BTreeSet<(DeviceId, bool)> = BTreeSet::new();
        loop {
            let mut answer = None;
            for (device, shows_it) in self.candidates() {
                if asked.len() >= MAX_ASKED || !asked.insert((device, shows_it)) {
                    continue;
                }
                match self.ask(device).await {
                    Ok(joined) => return Ok(joined),
                    // Of devices that show no such nameplate this is what one expects.
                    Err(JoinError::NoSuchInvite) if !shows_it => {}
                    Err(error) => answer = Some(more_telling(answer, error)),
                }
            }
            match answer {
                None
                | Some(
                    JoinError::Unreachable(_) | JoinError::NobodyAnswers | JoinError::NoSuchInvite,
                ) => {}
                Some(decided) => return Err(decided),
            }
            let news = async {
                tokio::select! {
                    changed = discovered.changed() => changed,
                    changed = connected.changed() => changed,
                }
            };
            match timeout_at(deadline, news).await {
                Ok(Ok(())) => {}
                Ok(Err(_closed)) => return Err(JoinError::Stopped),
                Err(_elapsed) => return Err(JoinError::NobodyAnswers),
            }
        }
    }

    /// Everybody in sight, those who show the nameplate first.
    fn candidates(&self) -> Vec<(DeviceId, bool)> {
        let nameplate = match self.handle {
            Handle::Nameplate(nameplate) => nameplate.to_string(),
            Handle::Link(_) => String::new(),
        };
        let discovered = self.seeker.streams.discovered().borrow().clone();
        let connected = self.seeker.streams.connected().borrow().clone();
        let shows_it = |device: &DeviceId| {
            let mut seen = discovered.iter().filter(|seen| seen.device == *device);
            seen.any(|seen| seen.nameplates.contains(&nameplate))
        };
        let everybody: BTreeSet<DeviceId> = discovered
            .iter()
            .map(|seen| seen.device)
            .chain(connected.keys().copied())
            .collect();
        let mut candidates: Vec<_> = everybody
            .into_iter()
            .map(|device| (device, shows_it(&device)))
            .collect();
        candidates.sort_by_key(|(_, shows_it)| !shows_it);
        candidates
    }

    fn dial(
        &self,
        addrs: &[PeerAddr],
    ) -> FuturesUnordered<impl Future<Output = Result<DeviceId, DialError>>> {
        let dial = |addr: &PeerAddr| {
            let (addr, streams) = (*addr, self.seeker.streams.clone());
            async move {
                let dialled = timeout(DIAL, streams.dial(addr)).await;
                dialled.unwrap_or(Err(DialError::Unreachable { addr }))
            }
        };
        addrs.iter().map(dial).collect()
    }

    async fn ask(&self, device: DeviceId) -> Result<Joined, JoinError> {
        let mut stream = self.seeker.streams.open(device, PROTOCOL).await?;
        let path = stream.path();
        let joiner = Joiner {
            device: self.seeker.device,
            name: self.seeker.name,
            handle: self.handle,
            password: &self.password,
            is_member: self.seeker.is_member,
        };
        let admitted = exchange::ask(&joiner, &mut stream, device).await?;
        Ok(Joined {
            welcome: admitted.welcome,
            secret: admitted.secret,
            content_key: admitted.content_key,
            role: admitted.role,
            from: device,
            from_name: admitted.inviter_name,
            path,
        })
    }
}

/// Of two failures the one that tells a person more.
fn more_telling(first: Option<JoinError>, second: JoinError) -> JoinError {
    match first {
        None
        | Some(JoinError::NobodyAnswers | JoinError::NoSuchInvite | JoinError::Unreachable(_)) => {
            second
        }
        Some(first) => first,
    }
}

impl From<OpenError> for JoinError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unreachable { source, .. } => Self::Unreachable(source),
            OpenError::Unsupported { .. } => Self::Unsupported,
            OpenError::PeerQuota { .. } | OpenError::Busy { .. } | OpenError::Backlog { .. } => {
                Self::Busy
            }
            OpenError::Lost { .. } => Self::NobodyAnswers,
            OpenError::Stopped => Self::Stopped,
        }
    }
}

impl From<ExchangeError> for JoinError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Version(mismatch) => Self::VersionMismatch(mismatch),
            ExchangeError::AlreadyMember { mesh, name } => Self::AlreadyMember { mesh, name },
            ExchangeError::WrongSecret => Self::WrongCode { tries_left: None },
            ExchangeError::Io(_) | ExchangeError::Deadline | ExchangeError::Malformed => {
                Self::Broken
            }
            ExchangeError::Refused(refusal) => match refusal {
                Refusal::Unknown => Self::NoSuchInvite,
                Refusal::Expired => Self::Expired,
                Refusal::Used => Self::Used,
                Refusal::Burnt => Self::Burnt,
                Refusal::Wrong { tries_left } => Self::WrongCode {
                    tries_left: Some(tries_left),
                },
                Refusal::Busy => Self::Busy,
                Refusal::CannotAdmit => Self::CannotAdmit,
            },
        }
    }
}
