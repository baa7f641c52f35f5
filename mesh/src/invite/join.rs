//! The joiner's way to the inviter: whom to ask, in which order, for how long, and what to say in the end.
//!
//! With addresses given by hand those devices are asked and nobody else. A link names its inviter. A code
//! is taken first to the devices that show its nameplate on the local network, then to every other device
//! seen there. The conversation with each is `exchange`.
//!
//! Until somebody has proved that it knows the secret, what it says is what anybody could say: a refusal is told
//! only if nobody else turns up who knows better, and no device can keep the others waiting. From that proof on
//! the conversation is the one, and may take as long as people take.

mod error;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{DeviceId, MeshId};
use zeroize::Zeroizing;

pub use self::error::JoinError;
use super::{
    Clock, Joined, PROTOCOL, Proposal, Ticket, Wish,
    exchange::{self, ExchangeError, Joiner},
    link::Link,
    message::{Handle, Refusal},
};
use crate::{address::PeerAddr, error::DialError, streams::Streams};

/// How long an inviter is waited for: discovery takes a second or two when it works.
const SEARCH: Duration = Duration::from_secs(15);

/// How long one address may take.
const DIAL: Duration = Duration::from_secs(10);

/// Devices asked in one search. A crowded network is no reason to knock everywhere.
const MAX_ASKED: usize = 64;

/// Devices asked at once.
const MAX_ASKING: usize = 8;

/// How long somebody who knows better is waited for after a device said no.
const SECOND_OPINION: Duration = Duration::from_secs(2);

/// Before a device that waits for a person at the inviter asks again; the inviter keeps it for a while each time.
const AGAIN: Duration = Duration::from_secs(1);

/// The same when it could not be reached. It may have gone to sleep; the invite's end bounds this.
const AGAIN_UNREACHED: Duration = Duration::from_secs(5);

/// Who wants to join.
pub(crate) struct Seeker<'a> {
    pub(crate) device: DeviceId,
    pub(crate) name: &'a str,
    pub(crate) streams: &'a Streams,
    pub(crate) is_member: &'a (dyn Fn(MeshId) -> bool + Sync),
    pub(crate) clock: &'a Clock,
}

/// Joins with a code or link; asks only the addresses that are given, if there are any.
pub(crate) async fn join(
    seeker: &Seeker<'_>,
    wish: &Wish<'_>,
    cancel: &CancellationToken,
) -> Result<Joined, JoinError> {
    let (handle, password) = match wish.ticket {
        Ticket::Code(code) => (Handle::Nameplate(code.nameplate()), code.password()),
        Ticket::Link(link) => (Handle::Link(link.token().id()), link.token().password()),
    };
    let attempt = Attempt {
        seeker,
        wish,
        handle,
        password,
        is_offered: AtomicBool::new(false),
    };
    let search = async {
        match wish.ticket {
            Ticket::Code(_) if wish.peers.is_empty() => attempt.search().await,
            Ticket::Code(_) => attempt.ask_at(wish.peers).await,
            Ticket::Link(link) => attempt.follow(link).await,
        }
    };
    tokio::select! {
        joined = search => joined,
        () = cancel.cancelled() => Err(JoinError::Cancelled),
    }
}

struct Attempt<'a> {
    seeker: &'a Seeker<'a>,
    wish: &'a Wish<'a>,
    handle: Handle,
    password: Zeroizing<Vec<u8>>,
    /// Somebody proved that it knows the secret, and made an offer.
    is_offered: AtomicBool,
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
                    (_, Ok(joined)) => return Ok(joined),
                    (true, Err(error)) => return Err(error),
                    (false, Err(error)) => error,
                },
                Ok(_) => continue,
                Err(error) => JoinError::Unreachable(error),
            };
            worst = Some(more_telling(worst, failed));
        }
        Err(worst.unwrap_or(JoinError::NobodyAnswers))
    }

    /// Takes a link to the device that made it.
    async fn follow(&self, link: &Link) -> Result<Joined, JoinError> {
        let mut dials = self.dial(&self.addrs());
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
                (false, Err(JoinError::Unreachable(_) | JoinError::NobodyAnswers)) => {}
                (_, decided) => return decided,
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
        let mut deadline = Instant::now() + SEARCH;
        let mut discovered = self.seeker.streams.discovered();
        let mut connected = self.seeker.streams.connected();
        let mut asked: BTreeSet<(DeviceId, bool)> = BTreeSet::new();
        let mut asking = FuturesUnordered::new();
        let mut answer = None;
        loop {
            for (device, shows_it) in self.candidates() {
                if asking.len() < MAX_ASKING
                    && asked.len() < MAX_ASKED
                    && asked.insert((device, shows_it))
                {
                    asking.push(async move {
                        let (is_offered, said) = self.ask(device).await;
                        (shows_it, is_offered, said)
                    });
                }
            }
            tokio::select! {
                Some((shows_it, is_offered, said)) = asking.next(), if !asking.is_empty() => match said {
                    Ok(joined) => return Ok(joined),
                    Err(error) if is_offered => return Err(error),
                    // Of devices that show no such nameplate this is what one expects.
                    Err(JoinError::NoSuchInvite) if !shows_it => {}
                    Err(error) => {
                        if error.is_answer() {
                            deadline = deadline.min(Instant::now() + SECOND_OPINION);
                        }
                        answer = Some(more_telling(answer, error));
                    }
                },
                changed = discovered.changed() => changed.map_err(|_closed| JoinError::Stopped)?,
                changed = connected.changed() => changed.map_err(|_closed| JoinError::Stopped)?,
                () = tokio::time::sleep_until(deadline), if !self.is_offered.load(Ordering::Relaxed) => {
                    // An offer that came meanwhile may take as long as people take.
                    if self.is_offered.load(Ordering::Relaxed) {
                        continue;
                    }
                    return Err(match answer {
                        Some(answer) if answer.is_answer() => answer,
                        Some(_) | None => JoinError::NobodyAnswers,
                    });
                }
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

    /// The addresses that were given, by hand or in the link.
    fn addrs(&self) -> Vec<PeerAddr> {
        let in_link = match self.wish.ticket {
            Ticket::Link(link) => link.addrs(),
            Ticket::Code(_) => &[],
        };
        self.wish.peers.iter().chain(in_link).copied().collect()
    }

    fn dial(
        &self,
        addrs: &[PeerAddr],
    ) -> FuturesUnordered<impl Future<Output = Result<DeviceId, DialError>> + use<>> {
        let dial = |addr: &PeerAddr| {
            let (addr, streams) = (*addr, self.seeker.streams.clone());
            async move {
                let dialled = timeout(DIAL, streams.dial(addr)).await;
                dialled.unwrap_or(Err(DialError::Unreachable { addr }))
            }
        };
        addrs.iter().map(dial).collect()
    }

    /// Asks one device, and while a person there has to decide, again and again. Says also whether it made an offer,
    /// which only the one that is looked for can.
    async fn ask(&self, device: DeviceId) -> (bool, Result<Joined, JoinError>) {
        let mut waits: Option<Proposal> = None;
        loop {
            let mut offered = None;
            let said = self.ask_once(device, &mut offered).await;
            let is_offered = offered.is_some() || waits.is_some();
            let error = match said {
                Ok(joined) => return (is_offered, Ok(joined)),
                Err(error) => error,
            };
            let is_kept = matches!(error, JoinError::Waiting);
            if let Some(proposal) = offered.filter(|_| is_kept && waits.is_none()) {
                (self.wish.waiting)(&proposal);
                waits = Some(proposal);
            }
            // The place is kept until the invite expires, whatever becomes of the connection meanwhile.
            let may_return = waits.as_ref().is_some_and(|proposal| {
                is_kept || error.is_passing() && (self.seeker.clock)() < proposal.expires
            });
            if !may_return {
                return (is_offered, Err(error));
            }
            sleep(if is_kept { AGAIN } else { AGAIN_UNREACHED }).await;
            if !is_kept {
                // An address that was given by hand is not known to discovery.
                let mut dials = self.dial(&self.addrs());
                while let Some(dialled) = dials.next().await {
                    tracing::debug!(?dialled, "the inviting device is looked for again");
                }
            }
        }
    }

    async fn ask_once(
        &self,
        device: DeviceId,
        offer: &mut Option<Proposal>,
    ) -> Result<Joined, JoinError> {
        let mut stream = self.seeker.streams.open(device, PROTOCOL).await?;
        let path = stream.path();
        let seen = Mutex::new(None);
        let offered = |proposal: &Proposal| {
            self.is_offered.store(true, Ordering::Relaxed);
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = Some(proposal.clone());
        };
        let joiner = Joiner {
            device: self.seeker.device,
            name: self.seeker.name,
            handle: self.handle,
            password: &self.password,
            is_member: self.seeker.is_member,
            consent: &self.wish.consent,
            offered: &offered,
        };
        let said = exchange::ask(&joiner, &mut stream, device).await;
        *offer = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let admitted = said?;
        Ok(Joined {
            welcome: admitted.welcome,
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
