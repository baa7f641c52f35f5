//! The first conversation on a connection: which version, and which meshes both devices are in.
//!
//! A stranger learns nothing. For each of its meshes a device sends *proofs*, BLAKE3 hashes keyed by the secrets of
//! its epochs (`hello/key`) over both device ids, both nonces and who speaks; to anyone without the secret it is
//! noise, it is good for this conversation only, and there are always [`PROOFS`] of them, the rest random.
//! Names and program versions are told only once a mesh is shared.
//!
//! Both state their versions and capabilities before anything is proved, and every proof is over what both
//! stated: whoever changes that on the way, to make two devices speak an older version, has them share nothing.
//!
//! Order: both send preamble, nonce and capabilities → opener proofs → acceptor proofs of the epochs that it recognised →
//! both tell about themselves, if there was one. A proof shows knowledge of a secret, which may be an old one;
//! whether the device is a member is then for the membership log to say, and the sync session hands it what it missed.

mod key;

use std::{io, time::Duration};

use rand::{CryptoRng, RngExt};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use wormhole_crdt::{DeviceId, MeshId};

pub(crate) use self::key::{EpochKey, Known};
use crate::{
    frame::{self, FrameError},
    streams::Protocol,
    version::{self, Capabilities, PreambleError, Terms, VersionMismatch, VersionRange},
};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "hello",
    major: 1,
};

/// The whole conversation takes at most this long.
const DEADLINE: Duration = Duration::from_secs(10);

/// Meshes that are offered: each has the proofs of two epochs at least.
pub(crate) const MESHES: usize = 64;

/// Proofs that each side sends, whatever the number of its meshes: the number is a secret too.
pub(crate) const PROOFS: usize = 2 * MESHES;

const PROOF: usize = blake3::OUT_LEN;

/// Bytes of a nonce.
const NONCE: usize = 32;

/// Room for a name and a version.
const MAX_ABOUT: usize = 1024;

/// Longest name and version that are kept, in characters.
const MAX_TEXT: usize = 64;

/// What a device says about itself to those it shares a mesh with. Untrusted text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Introduction {
    /// Its name for itself.
    pub(crate) name: String,
    /// The version of its program.
    pub(crate) program: String,
}

/// What we bring to the conversation.
#[derive(Debug)]
pub(crate) struct Local<'a> {
    pub(crate) device: DeviceId,
    pub(crate) introduction: &'a Introduction,
    /// Our meshes; those beyond [`MESHES`] are not offered.
    pub(crate) meshes: Vec<Known>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Greeted {
    /// The meshes that both sides proved.
    pub(crate) shared: Vec<MeshId>,
    /// What the other side said about itself; `None` for a stranger.
    pub(crate) about: Option<Introduction>,
    /// What both speak.
    pub(crate) terms: Terms,
}

/// Why there was no hello.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    /// The stream failed or ended.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no hello within {} seconds", DEADLINE.as_secs())]
    Deadline,
    /// No common version.
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    /// The other side does not follow the protocol.
    #[error("the peer does not say hello as it should")]
    Malformed,
}

impl From<PreambleError> for HelloError {
    fn from(error: PreambleError) -> Self {
        match error {
            PreambleError::Io(error) => Self::Io(error),
            PreambleError::Malformed => Self::Malformed,
            PreambleError::Mismatch(mismatch) => Self::Version(mismatch),
        }
    }
}

impl From<FrameError> for HelloError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::Io(error),
            FrameError::TooLarge { .. } | FrameError::Malformed(_) | FrameError::Unencodable(_) => {
                Self::Malformed
            }
        }
    }
}

/// Who speaks; part of each proof, so that none can be sent back to its maker.
#[derive(Clone, Copy)]
enum Speaker {
    Opener,
    Acceptor,
}

/// Begins the conversation.
pub(crate) async fn open<S>(
    stream: &mut S,
    peer: DeviceId,
    local: Local<'_>,
    rng: &mut (impl CryptoRng + Send),
) -> Result<Greeted, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let conversation = async {
        let ours = begin(stream, rng).await?;
        let theirs = Statement::read(stream).await?;
        let terms = ours.agree(&theirs)?;
        let proofs = Proofs {
            opener: local.device,
            acceptor: peer,
            statements: (ours, theirs),
        };
        let meshes = first(&local.meshes);
        let keys = key::offered(meshes, PROOFS);
        send_proofs(stream, &proofs, Speaker::Opener, &keys, rng).await?;
        let proved = receive_proofs(stream, &proofs, Speaker::Acceptor, meshes).await?;
        let shared = proved.into_iter().map(|(mesh, _)| mesh).collect();
        introduce(stream, shared, terms, local.introduction).await
    };
    timeout(DEADLINE, conversation)
        .await
        .map_err(|_elapsed| HelloError::Deadline)?
}

/// Answers one. `recognised` is told the shared meshes before the other side can know of them, so that
/// nothing it opens next comes too early.
pub(crate) async fn accept<S>(
    stream: &mut S,
    peer: DeviceId,
    local: Local<'_>,
    rng: &mut (impl CryptoRng + Send),
    recognised: impl FnOnce(&[MeshId], Terms) + Send,
) -> Result<Greeted, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let conversation = async {
        // Before anything is read: a program of another version must hear which one this is.
        let ours = begin(stream, rng).await?;
        let theirs = Statement::read(stream).await?;
        let terms = ours.agree(&theirs)?;
        let proofs = Proofs {
            opener: peer,
            acceptor: local.device,
            statements: (theirs, ours),
        };
        let meshes = first(&local.meshes);
        let proved = receive_proofs(stream, &proofs, Speaker::Opener, meshes).await?;
        let (shared, keys): (Vec<MeshId>, Vec<&EpochKey>) = proved.into_iter().unzip();
        recognised(&shared, terms);
        send_proofs(stream, &proofs, Speaker::Acceptor, &keys, rng).await?;
        introduce(stream, shared, terms, local.introduction).await
    };
    timeout(DEADLINE, conversation)
        .await
        .map_err(|_elapsed| HelloError::Deadline)?
}

/// What each side states first.
#[derive(Clone, Copy, Debug)]
struct Statement {
    versions: VersionRange,
    nonce: [u8; NONCE],
    capabilities: Capabilities,
}

impl Statement {
    async fn read<S>(stream: &mut S) -> Result<Self, PreambleError>
    where
        S: AsyncRead + Unpin,
    {
        let versions = version::read_range(stream).await?;
        // What follows a preamble is another version's business.
        version::OURS.common(versions)?;
        Ok(Self {
            versions,
            nonce: read_array(stream).await?,
            capabilities: Capabilities::from_bits(stream.read_u64_le().await?),
        })
    }

    async fn write<S>(&self, stream: &mut S) -> io::Result<()>
    where
        S: AsyncWrite + Unpin,
    {
        version::write_preamble(stream, self.versions).await?;
        stream.write_all(&self.nonce).await?;
        stream.write_u64_le(self.capabilities.bits()).await?;
        stream.flush().await
    }

    fn agree(&self, theirs: &Self) -> Result<Terms, VersionMismatch> {
        Ok(Terms {
            version: self.versions.common(theirs.versions)?,
            capabilities: self.capabilities.common(theirs.capabilities),
        })
    }

    fn hash_into(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.versions.encode());
        hasher.update(&self.nonce);
        hasher.update(&self.capabilities.bits().to_le_bytes());
    }
}

/// Makes our statement and sends it.
async fn begin<S>(
    stream: &mut S,
    rng: &mut (impl CryptoRng + Send),
) -> Result<Statement, HelloError>
where
    S: AsyncWrite + Unpin + Send,
{
    let mut nonce = [0; NONCE];
    rng.fill(&mut nonce);
    let ours = Statement {
        versions: version::OURS,
        nonce,
        capabilities: Capabilities::OURS,
    };
    ours.write(stream).await?;
    Ok(ours)
}

async fn read_array<S, const N: usize>(stream: &mut S) -> io::Result<[u8; N]>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// What all proofs of one conversation are about.
struct Proofs {
    opener: DeviceId,
    acceptor: DeviceId,
    /// The opener's and the acceptor's.
    statements: (Statement, Statement),
}

impl Proofs {
    fn of(&self, speaker: Speaker, key: &EpochKey) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(key.expose());
        hasher.update(b"wormhole hello v1");
        hasher.update(match speaker {
            Speaker::Opener => b"opener  ",
            Speaker::Acceptor => b"acceptor",
        });
        hasher.update(self.opener.as_bytes());
        hasher.update(self.acceptor.as_bytes());
        self.statements.0.hash_into(&mut hasher);
        self.statements.1.hash_into(&mut hasher);
        hasher.finalize()
    }
}

async fn send_proofs<S>(
    stream: &mut S,
    proofs: &Proofs,
    speaker: Speaker,
    keys: &[&EpochKey],
    rng: &mut (impl CryptoRng + Send),
) -> Result<(), HelloError>
where
    S: AsyncWrite + Unpin + Send,
{
    let mut noise = [0; PROOFS * PROOF];
    rng.fill(&mut noise);
    let (places, _) = noise.as_chunks_mut::<PROOF>();
    for (place, key) in places.iter_mut().zip(keys) {
        *place = *proofs.of(speaker, key).as_bytes();
    }
    stream.write_all(&noise).await?;
    stream.flush().await?;
    Ok(())
}

/// The meshes that are offered and recognised.
fn first(meshes: &[Known]) -> &[Known] {
    meshes.get(..MESHES).unwrap_or(meshes)
}

/// Reads the other side's proofs and gives the meshes that they prove, each with the key that did.
async fn receive_proofs<'a, S>(
    stream: &mut S,
    proofs: &Proofs,
    speaker: Speaker,
    meshes: &'a [Known],
) -> Result<Vec<(MeshId, &'a EpochKey)>, HelloError>
where
    S: AsyncRead + Unpin + Send,
{
    let received: [u8; PROOFS * PROOF] = read_array(stream).await?;
    let (received, _) = received.as_chunks::<PROOF>();
    // `Hash` compares in constant time.
    let is_proved = |key: &&EpochKey| {
        let expected = proofs.of(speaker, key);
        received
            .iter()
            .any(|proof| expected == blake3::Hash::from_bytes(*proof))
    };
    let proved = meshes.iter().filter_map(|known| {
        let key = known.keys.iter().find(is_proved)?;
        Some((known.mesh, key))
    });
    Ok(proved.collect())
}

async fn introduce<S>(
    stream: &mut S,
    shared: Vec<MeshId>,
    terms: Terms,
    ours: &Introduction,
) -> Result<Greeted, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    if shared.is_empty() {
        return Ok(Greeted {
            shared,
            about: None,
            terms,
        });
    }
    frame::write(stream, &ours.clone().shortened(), MAX_ABOUT).await?;
    let theirs: Introduction = frame::read(stream, MAX_ABOUT)
        .await?
        // The connection broke; nobody is to blame.
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok(Greeted {
        shared,
        about: Some(theirs.shortened()),
        terms,
    })
}

impl Introduction {
    fn shortened(self) -> Self {
        let cut = |text: String| text.chars().take(MAX_TEXT).collect();
        Self {
            name: cut(self.name),
            program: cut(self.program),
        }
    }
}

#[cfg(test)]
mod tests;
