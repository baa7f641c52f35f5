//! The conversation between joiner and inviter on one stream. The messages and their order: `message`.
//!
//! The joiner proves first. An attacker who plays the joiner has spent a try before it hears anything that
//! depends on the secret; one who plays the inviter learns whether one guess was right, and nothing else.
//! The inviter says into what it invites before it admits, so that a joiner that is a member already can stop
//! there, and one whose person has not agreed yet, too. If the invite says that a person here has to admit, the
//! joiner's place is kept and it is told to come again until somebody has decided.

use std::{io, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use wormhole_crdt::{DeviceId, MemberError, MeshId, Role, Welcome};
use wormhole_store::ContentKey;
use zeroize::Zeroizing;

use super::{
    Consent, Inviter, Proposal,
    desk::{Answered, Claim, Hold, InviteId, Turn},
    message::{
        Admission, Answer, Begin, Challenge, Confirm, Decision, Handle, MAX_ADMISSION, MAX_NAME,
        MAX_SMALL, Offer, Page, Refusal, Secrets, Thanks,
    },
    pake::{Binding, Keys, PakeError, Side, Started},
};
use crate::{
    attachment::Attachment,
    frame::{self, FrameError},
    peer::NetworkEvent,
    version::{self, PreambleError, VersionMismatch},
};

/// The longest wait for one message. A person decides nothing in between.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a joiner that waits for a person is kept in the conversation, so that it hears of the decision at once.
/// It comes again then.
const KEPT: Duration = Duration::from_secs(12);

/// The longest wait for a joiner to say which invite it comes for: before that it may be anybody.
const FIRST_DEADLINE: Duration = Duration::from_secs(10);

/// Why a conversation ended before the joiner was in.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The stream failed or ended.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The other side was silent for too long.
    #[error("the other side did not answer in time")]
    Deadline,
    /// No common version.
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    /// The other side does not follow the protocol.
    #[error("the other side does not follow the protocol")]
    Malformed,
    /// The inviter said no, or we did.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// The other side does not know the secret. On the joiner's side: an impostor, or a wrong code that
    /// the inviter did not recognise as one.
    #[error("the other side does not know the secret")]
    WrongSecret,
    /// The joiner is in that mesh already.
    #[error("already a member of that mesh")]
    AlreadyMember {
        /// The mesh.
        mesh: MeshId,
        /// Its name.
        name: String,
    },
    /// The joiner's person has not agreed to this.
    #[error("nobody has agreed to join")]
    Undecided(Box<Proposal>),
}

impl From<PreambleError> for ExchangeError {
    fn from(error: PreambleError) -> Self {
        match error {
            PreambleError::Io(error) => Self::Io(error),
            PreambleError::Malformed => Self::Malformed,
            PreambleError::Mismatch(mismatch) => Self::Version(mismatch),
        }
    }
}

impl From<FrameError> for ExchangeError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::Io(error),
            FrameError::TooLarge { .. } | FrameError::Malformed(_) | FrameError::Unencodable(_) => {
                Self::Malformed
            }
        }
    }
}

impl From<PakeError> for ExchangeError {
    fn from(error: PakeError) -> Self {
        match error {
            PakeError::Malformed => Self::Malformed,
            PakeError::Mismatch => Self::WrongSecret,
        }
    }
}

/// What the joiner brings.
pub(super) struct Joiner<'a> {
    pub(super) device: DeviceId,
    pub(super) name: &'a str,
    pub(super) handle: Handle,
    pub(super) password: &'a [u8],
    /// Whether this device is in a mesh already.
    pub(super) is_member: &'a (dyn Fn(MeshId) -> bool + Sync),
    pub(super) consent: &'a Consent,
    /// Is told what is offered, once both sides have proved themselves.
    pub(super) offered: &'a (dyn Fn(&Proposal) + Sync),
}

/// What the joiner has in the end.
pub(super) struct Admitted {
    pub(super) welcome: Welcome,
    pub(super) content_key: ContentKey,
    pub(super) role: Role,
    pub(super) inviter_name: String,
}

/// The joiner's side.
pub(super) async fn ask<S>(
    joiner: &Joiner<'_>,
    stream: &mut S,
    inviter: DeviceId,
) -> Result<Admitted, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let binding = Binding {
        joiner: joiner.device,
        inviter,
        handle: joiner.handle,
    };
    let started = Started::new(Side::Joiner, joiner.password, binding);
    version::write_preamble(stream, version::OURS).await?;
    send(
        stream,
        &Begin::new(joiner.handle, started.message().to_vec()),
        MAX_SMALL,
    )
    .await?;
    let version = in_time(version::read_preamble(stream, version::OURS)).await?;
    let challenge = match receive(stream, MAX_SMALL).await? {
        Challenge::Pake(message) => message,
        Challenge::Refused(refusal) => return Err(ExchangeError::Refused(refusal)),
    };
    let mut keys = started.finish(version, &challenge)?;
    let proof = *keys.confirmation(Side::Joiner).as_bytes();
    send(stream, &Confirm(proof), MAX_SMALL).await?;
    let offer: Offer = decided(stream, &mut keys, MAX_SMALL).await?;
    if (joiner.is_member)(offer.mesh) {
        send_sealed(
            stream,
            &mut keys,
            Side::Joiner,
            &Answer::AlreadyMember,
            MAX_SMALL,
        )
        .await?;
        let Offer {
            mesh,
            mesh_name: name,
            ..
        } = offer;
        return Err(ExchangeError::AlreadyMember { mesh, name });
    }
    let proposal = proposed(offer, inviter);
    (joiner.offered)(&proposal);
    if !joiner.consent.covers(&proposal) {
        let answer = &Answer::Undecided;
        send_sealed(stream, &mut keys, Side::Joiner, answer, MAX_SMALL).await?;
        return Err(ExchangeError::Undecided(Box::new(proposal)));
    }
    let consent = Answer::Consent {
        device_name: joiner.name.to_owned(),
    };
    send_sealed(stream, &mut keys, Side::Joiner, &consent, MAX_SMALL).await?;
    let mut admission: Admission = decided(stream, &mut keys, MAX_ADMISSION).await?;
    if admission.welcome.mesh != proposal.mesh {
        return Err(ExchangeError::Malformed);
    }
    for _ in 0..admission.pages().ok_or(ExchangeError::Malformed)? {
        let page: Page = receive_sealed(stream, &mut keys, Side::Inviter, MAX_ADMISSION).await?;
        admission.welcome.records.extend(page);
    }
    send_sealed(stream, &mut keys, Side::Joiner, &Thanks, MAX_SMALL).await?;
    stream.shutdown().await?;
    Ok(Admitted {
        content_key: ContentKey::from_bytes(admission.secrets.content_key),
        welcome: admission.welcome,
        role: proposal.role,
        inviter_name: proposal.inviter_name,
    })
}

/// What an offer leads to, with names that are fit to be shown.
fn proposed(offer: Offer, inviter: DeviceId) -> Proposal {
    Proposal {
        mesh: offer.mesh,
        mesh_name: shortened(offer.mesh_name),
        role: offer.role,
        inviter,
        inviter_name: shortened(offer.inviter_name),
        ask: offer.ask,
        expires: offer.expires,
    }
}

/// The inviter's side.
pub(super) async fn answer<S>(
    inviter: &Inviter,
    stream: &mut S,
    joiner: DeviceId,
) -> Result<(), ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    version::write_preamble(stream, version::OURS).await?;
    stream.flush().await?;
    let beginning = async {
        let version = version::read_preamble(stream, version::OURS).await?;
        let begin: Begin = receive(stream, MAX_SMALL).await?;
        Ok::<_, ExchangeError>((version, begin))
    };
    let (version, begin) = timeout(FIRST_DEADLINE, beginning)
        .await
        .map_err(|_elapsed| ExchangeError::Deadline)??;
    let handle = begin.handle().ok_or(ExchangeError::Malformed)?;
    let source = inviter.source(joiner);
    let claimed = inviter
        .desk()
        .claim(handle, (joiner, source), inviter.now());
    let claim = match claimed {
        Ok(claim) => claim,
        Err(refusal) => {
            send(stream, &Challenge::Refused(refusal), MAX_SMALL).await?;
            return Err(ExchangeError::Refused(refusal));
        }
    };
    let binding = Binding {
        joiner,
        inviter: inviter.inner.device,
        handle,
    };
    let started = Started::new(Side::Inviter, &claim.password, binding);
    send(
        stream,
        &Challenge::Pake(started.message().to_vec()),
        MAX_SMALL,
    )
    .await?;
    let mut keys = started.finish(version, &begin.pake)?;
    let Confirm(proof) = receive(stream, MAX_SMALL).await?;
    let who = (joiner, source);
    let judged = inviter.desk().judge(claim.id, who, inviter.now(), || {
        keys.check(Side::Joiner, proof).is_ok()
    });
    let turn = match judged {
        Ok(turn) => turn,
        Err(refusal) => {
            if refusal == Refusal::Burnt && inviter.desk().is_burnt(claim.id) {
                inviter.announce(NetworkEvent::InviteBurnt { mesh: claim.mesh });
            }
            return refuse(stream, refusal).await;
        }
    };
    // From here on the invite is reserved for this conversation, until the reservation is dropped.
    let _reservation = match turn {
        Turn::First(hold) => Some(Reservation {
            inviter,
            id: claim.id,
            hold,
        }),
        Turn::Again => None,
    };
    admit(inviter, stream, joiner, (&claim, turn), &mut keys).await
}

/// Frees the invite when the conversation ends without a new member. Nothing happens to a used one.
struct Reservation<'a> {
    inviter: &'a Inviter,
    id: InviteId,
    hold: Hold,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.inviter.desk().release(self.id, self.hold);
    }
}

/// Offers, waits for the answer, admits, hands over. The joiner has proved itself.
async fn admit<S>(
    inviter: &Inviter,
    stream: &mut S,
    joiner: DeviceId,
    (claim, turn): (&Claim, Turn),
    keys: &mut Keys,
) -> Result<(), ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some(mesh) = inviter.inner.registry.get(claim.mesh) else {
        return refuse(stream, Refusal::Unknown).await;
    };
    let offer = Offer {
        mesh: claim.mesh,
        mesh_name: mesh.replica.name(),
        inviter_name: inviter.inner.name.clone(),
        role: claim.role,
        ask: claim.ask,
        expires: claim.expires,
    };
    decide(stream, keys, &offer, MAX_SMALL).await?;
    let device_name = match receive_sealed(stream, keys, Side::Joiner, MAX_SMALL).await? {
        Answer::Consent { device_name } => shortened(device_name),
        Answer::AlreadyMember => {
            let name = mesh.replica.name();
            return Err(ExchangeError::AlreadyMember {
                mesh: claim.mesh,
                name,
            });
        }
        Answer::Undecided => return Ok(()), // it comes again, or not
    };
    let turn = match turn {
        Turn::First(hold) if claim.ask => {
            let permitted = tokio::select! {
                permitted = permission(inviter, joiner, &device_name, (claim, hold)) => permitted,
                // It has nothing to say meanwhile: it went. Its place is kept, and so is what is decided about it.
                left = stream.read_u8() => {
                    return Err(left.map_or_else(ExchangeError::Io, |_| ExchangeError::Malformed));
                }
            };
            match permitted {
                Ok(hold) => Turn::First(hold),
                Err(refusal) => return refuse(stream, refusal).await,
            }
        }
        Turn::First(_) | Turn::Again => turn,
    };
    let welcome = match take_in(inviter, &mesh, joiner, device_name, (claim, turn)).await {
        Ok(welcome) => welcome,
        Err(refusal) => return refuse(stream, refusal).await,
    };
    let secrets = Secrets {
        content_key: *mesh.store.key().expose(),
    };
    let (admission, pages) = Admission::new(welcome, secrets);
    decide(stream, keys, &admission, MAX_ADMISSION).await?;
    for page in &pages {
        send_sealed(stream, keys, Side::Inviter, page, MAX_ADMISSION).await?;
    }
    let Thanks = receive_sealed(stream, keys, Side::Joiner, MAX_SMALL).await?;
    Ok(())
}

/// Waits for a person here to admit the joiner, as long as it is kept.
async fn permission(
    inviter: &Inviter,
    joiner: DeviceId,
    device_name: &str,
    (claim, hold): (&Claim, Hold),
) -> Result<Hold, Refusal> {
    let mut decided = inviter.inner.decided.subscribe();
    let asking = inviter.desk().ask(claim.id, hold, device_name);
    if let Some(asking) = asking {
        inviter.announce(NetworkEvent::JoinAsked {
            mesh: asking.mesh,
            device: joiner,
            name: asking.name,
            role: asking.role,
        });
    }
    let kept = tokio::time::sleep(KEPT);
    tokio::pin!(kept);
    loop {
        let who = (joiner, hold);
        let answered = inviter.desk().answered(claim.id, who, inviter.now());
        match answered {
            Answered::Granted(hold) => return Ok(hold),
            Answered::Refused(refusal) => return Err(refusal),
            Answered::Waiting => {}
        }
        tokio::select! {
            () = &mut kept => return Err(Refusal::Waiting),
            changed = decided.changed() => changed.map_err(|_stopping| Refusal::Busy)?,
        }
    }
}

/// Makes the joiner a member, or sees that it is one. It is in whatever happens to the conversation then.
async fn take_in(
    inviter: &Inviter,
    mesh: &Attachment,
    joiner: DeviceId,
    device_name: String,
    (claim, turn): (&Claim, Turn),
) -> Result<Welcome, Refusal> {
    let hold = match turn {
        Turn::Again if mesh.is_member(&joiner) => return Ok(mesh.replica.welcome()),
        Turn::Again => return Err(Refusal::Used),
        Turn::First(hold) => hold,
    };
    inviter.desk().take(claim.id, hold)?;
    let (replica, role, now) = (mesh.replica.clone(), claim.role, inviter.now());
    let admitted = tokio::task::spawn_blocking(move || {
        match replica.admit(joiner, &device_name, role, now) {
            // It is in already by another invite, and has lost what it knew.
            Ok(_) | Err(MemberError::AlreadyMember { .. }) => Ok(replica.welcome()),
            Err(error) => Err(error),
        }
    });
    match admitted.await {
        Ok(Ok(welcome)) => {
            inviter.desk().settled(claim.id);
            inviter.announce(NetworkEvent::InviteUsed {
                mesh: claim.mesh,
                device: joiner,
            });
            Ok(welcome)
        }
        Ok(Err(error)) => {
            inviter.desk().give_back(claim.id, hold);
            tracing::warn!(%joiner, %error, "a device with the right code could not be admitted");
            Err(Refusal::CannotAdmit)
        }
        Err(panicked) => {
            inviter.desk().give_back(claim.id, hold);
            tracing::error!(%panicked, "admitting a device failed");
            Err(Refusal::CannotAdmit)
        }
    }
}

fn shortened(mut name: String) -> String {
    name.retain(|c| !c.is_control());
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    if name.trim().is_empty() {
        "device".to_owned()
    } else {
        name
    }
}

async fn refuse<S>(stream: &mut S, refusal: Refusal) -> Result<(), ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    send(stream, &Decision::Refused(refusal), MAX_SMALL).await?;
    stream.shutdown().await?;
    Err(ExchangeError::Refused(refusal))
}

/// The inviter goes on: its proof over everything so far, and the sealed next message.
async fn decide<S, T>(
    stream: &mut S,
    keys: &mut Keys,
    message: &T,
    max: usize,
) -> Result<(), ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: Serialize,
{
    let proof = *keys.confirmation(Side::Inviter).as_bytes();
    let sealed = keys.seal(Side::Inviter, &encode(message)?);
    send(stream, &Decision::Go { proof, sealed }, max + MAX_SMALL).await
}

/// What the inviter decided: the opened next message, or its refusal.
async fn decided<S, T>(stream: &mut S, keys: &mut Keys, max: usize) -> Result<T, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: DeserializeOwned,
{
    match receive(stream, max + MAX_SMALL).await? {
        Decision::Go { proof, sealed } => {
            keys.check(Side::Inviter, proof)?;
            decode(&keys.open(Side::Inviter, &sealed)?)
        }
        Decision::Refused(refusal) => Err(ExchangeError::Refused(refusal)),
    }
}

async fn send_sealed<S, T>(
    stream: &mut S,
    keys: &mut Keys,
    side: Side,
    message: &T,
    max: usize,
) -> Result<(), ExchangeError>
where
    S: AsyncWrite + Unpin + Send,
    T: Serialize,
{
    let sealed = keys.seal(side, &encode(message)?);
    send(stream, &sealed, max).await
}

async fn receive_sealed<S, T>(
    stream: &mut S,
    keys: &mut Keys,
    side: Side,
    max: usize,
) -> Result<T, ExchangeError>
where
    S: AsyncRead + Unpin + Send,
    T: DeserializeOwned,
{
    let sealed: Vec<u8> = receive(stream, max).await?;
    decode(&keys.open(side, &sealed)?)
}

fn encode<T: Serialize>(message: &T) -> Result<Zeroizing<Vec<u8>>, ExchangeError> {
    postcard::to_stdvec(message)
        .map(Zeroizing::new)
        .map_err(|_| ExchangeError::Malformed)
}

fn decode<T: DeserializeOwned>(plain: &[u8]) -> Result<T, ExchangeError> {
    postcard::from_bytes(plain).map_err(|_| ExchangeError::Malformed)
}

async fn send<S, T>(stream: &mut S, message: &T, max: usize) -> Result<(), ExchangeError>
where
    S: AsyncWrite + Unpin + Send,
    T: Serialize,
{
    in_time(frame::write(stream, message, max)).await
}

async fn receive<S, T>(stream: &mut S, max: usize) -> Result<T, ExchangeError>
where
    S: AsyncRead + Unpin + Send,
    T: DeserializeOwned,
{
    in_time(frame::read(stream, max))
        .await?
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

async fn in_time<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<T, ExchangeError>
where
    ExchangeError: From<E>,
{
    match timeout(DEADLINE, work).await {
        Ok(done) => Ok(done?),
        Err(_elapsed) => Err(ExchangeError::Deadline),
    }
}
