//! Gives chunks to other members: the answering side of a chunk stream.
//!
//! Each stream serves one fetch; what is asked stands in `message`, who asks is authenticated by the connection
//! and checked against the membership log at every request. Reading (which verifies) happens on blocking
//! threads, one group ahead of what is being written, so that disk and network overlap and memory stays
//! bounded by [`GROUP_BYTES`] and the number of streams, whatever is asked and however slowly it is read.

pub(crate) mod message;
mod upload;

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf, split},
    sync::mpsc,
    time::timeout,
};
use wormhole_crdt::DeviceId;
use wormhole_store::{ChunkId, Content, Encoded, ReadError, Store};

pub use self::upload::Upload;
pub(crate) use self::{message::PROTOCOL, upload::Uploads};
use self::{
    message::{MAX_IDS, MAX_REQUEST, Open, Refusal, Reply, Request, write_reply},
    upload::Counted,
};
use crate::{
    attachment::{Attachment, Registry},
    frame::{self, FrameError},
    limit::{Throttled, Urgency},
    peer::{Misbehaviour, PathKind},
    streams::{Carrier, Handler, Patience, Patient, Protocol, Quota, Sign, Stream, Streams},
};

/// Bytes that are read in one go. Three groups of a stream are in memory at most: one being read, one
/// waiting, one being written.
const GROUP_BYTES: usize = 512 * 1024;

/// Gathers small replies into large writes.
const WRITE_BUFFER: usize = 64 * 1024;

/// A fetcher that asks nothing for this long, while nothing is being sent to it, is done.
const IDLE: Duration = Duration::from_secs(120);

/// A fetcher that takes not a byte for this long is gone. One under a low limit of its own makes room a
/// window at a time: 192 KiB of QUIC's, every three minutes at 1 KiB/s. One that has died is noticed by
/// its connection.
const STALLED: Duration = Duration::from_secs(600);

/// Why a stream was no longer served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The stream failed, or carried what is no request.
    #[error(transparent)]
    Frame(FrameError),
    /// It asked for more than a request may.
    #[error("the peer asked for {ids} chunks at once, {MAX_IDS} are allowed")]
    TooMany {
        /// How many.
        ids: usize,
    },
    /// It asked for nothing, or took nothing, for too long.
    #[error("the peer neither asks nor takes")]
    Stalled,
    /// It was told why.
    #[error("refused: {0:?}")]
    Refused(Refusal),
}

impl From<FrameError> for ServeError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Self::Stalled,
            error => Self::Frame(error),
        }
    }
}

impl ServeError {
    /// What to hold against the peer, if it is to blame.
    pub(crate) fn misbehaviour(&self) -> Option<Misbehaviour> {
        match self {
            Self::Frame(error) => error.is_misbehaviour().then_some(Misbehaviour::BadFrame),
            Self::TooMany { .. } => Some(Misbehaviour::Flood),
            Self::Stalled | Self::Refused(_) => None,
        }
    }
}

/// Answers chunk streams.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    registry: Registry,
    streams: Streams,
}

impl Server {
    pub(crate) fn new(registry: Registry, streams: Streams) -> Self {
        Self { registry, streams }
    }
}

impl Handler for Server {
    fn protocol(&self) -> Protocol {
        PROTOCOL
    }

    fn quota(&self) -> Quota {
        // A fetch has up to four streams; several fetches of a member run at once. A stranger has none: a
        // member that still looks like one while it says hello comes again a moment later.
        Quota {
            stranger: 0,
            member: 24,
            total: 192,
        }
    }

    fn accept(&self, stream: Stream) -> BoxFuture<'static, ()> {
        let server = self.clone();
        Box::pin(async move {
            let (peer, path) = (stream.peer(), stream.path());
            let Err(error) = serve(stream, peer, path, &server.registry).await else {
                return;
            };
            tracing::debug!(%peer, %error, "a chunk stream ended");
            if let Some(reason) = error.misbehaviour() {
                server.streams.misbehaved(peer, reason).await;
            }
        })
    }
}

/// Whether chunks are compressed for the wire where they are not on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Squeeze {
    /// The network is the bottleneck.
    Yes,
    /// The processor would be.
    No,
}

/// Serves a stream until the fetcher closes it.
pub(crate) async fn serve<S>(
    mut stream: S,
    peer: DeviceId,
    path: PathKind,
    registry: &Registry,
) -> Result<(), ServeError>
where
    S: Carrier,
{
    let squeeze = match path {
        PathKind::Local | PathKind::Lan => Squeeze::No,
        PathKind::Direct | PathKind::Relayed => Squeeze::Yes,
    };
    let Some(mesh) = open(&mut stream, &peer, registry).await? else {
        return Ok(());
    };
    let stream = Throttled::new(stream, Arc::clone(&mesh.limits), Urgency::Bulk);
    let patience = Patience {
        reading: IDLE,
        writing: STALLED,
        sign: Sign::Moved,
    };
    let (reader, writer) = split(Patient::new(stream, patience));
    let (groups, groups_rx) = mpsc::channel(1);
    let (answered, written) = tokio::join!(
        answer(reader, groups, peer, &mesh, squeeze),
        write(Counted::new(writer, peer, &mesh.uploads), groups_rx),
    );
    written.and(answered)
}

/// Hears which mesh a stream is about, and says whether it is served.
async fn open<S>(
    stream: &mut S,
    peer: &DeviceId,
    registry: &Registry,
) -> Result<Option<Arc<Attachment>>, ServeError>
where
    S: Carrier,
{
    let opening = frame::read(stream, MAX_REQUEST);
    let opening = timeout(IDLE, opening).await;
    let Some(Open { mesh }) = opening.map_err(|_elapsed| ServeError::Stalled)?? else {
        return Ok(None);
    };
    let mesh = registry.get(mesh).ok_or(Refusal::NotMember);
    let admitted = mesh.and_then(|mesh| admit(&mesh, peer).map(|()| mesh));
    let reply = match &admitted {
        Ok(_) => Reply::Opened,
        Err(refusal) => Reply::Refused(*refusal),
    };
    let mut writer = BufWriter::new(&mut *stream);
    let answering = async {
        write_reply(&mut writer, &reply).await?;
        match &admitted {
            Ok(_) => writer.flush().await,
            Err(_) => writer.shutdown().await,
        }
    };
    let answered = timeout(STALLED, answering).await;
    answered
        .map_err(|_elapsed| ServeError::Stalled)?
        .map_err(FrameError::from)?;
    admitted.map(Some).map_err(ServeError::Refused)
}

/// Reads requests and produces groups of replies. Dropping the sender ends the writer.
async fn answer<S>(
    mut reader: ReadHalf<S>,
    groups: mpsc::Sender<Vec<Reply>>,
    peer: DeviceId,
    mesh: &Arc<Attachment>,
    squeeze: Squeeze,
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    while let Some(request) = frame::read(&mut reader, MAX_REQUEST).await? {
        // Asked each time: membership and pauses change while a stream is open.
        if let Err(refusal) = admit(mesh, &peer) {
            return refuse(&groups, refusal).await;
        }
        let mut pending = Some(Pending::new(request)?);
        while let Some(next) = pending.take() {
            let store = mesh.store.clone();
            let produced = tokio::task::spawn_blocking(move || next.group(&store, squeeze)).await;
            let Ok((group, rest)) = produced else {
                return refuse(&groups, Refusal::Unable).await;
            };
            pending = rest;
            if groups.send(group).await.is_err() {
                return Ok(()); // the writer has failed, and says why
            }
        }
    }
    Ok(())
}

fn admit(mesh: &Attachment, peer: &DeviceId) -> Result<(), Refusal> {
    if mesh.visit(peer).is_none() || !mesh.is_member(peer) || mesh.cancel.is_cancelled() {
        return Err(Refusal::NotMember);
    }
    if mesh.is_paused() {
        Err(Refusal::Paused)
    } else {
        Ok(())
    }
}

async fn refuse(groups: &mpsc::Sender<Vec<Reply>>, refusal: Refusal) -> Result<(), ServeError> {
    if groups.send(vec![Reply::Refused(refusal)]).await.is_err() {
        tracing::trace!("the stream failed before the refusal could be said");
    }
    Err(ServeError::Refused(refusal))
}

async fn write(
    writer: impl AsyncWrite + Unpin + Send,
    mut groups: mpsc::Receiver<Vec<Reply>>,
) -> Result<(), ServeError> {
    let mut writer = BufWriter::with_capacity(WRITE_BUFFER, writer);
    while let Some(group) = groups.recv().await {
        for reply in &group {
            write_reply(&mut writer, reply)
                .await
                .map_err(FrameError::from)?;
        }
        writer.flush().await.map_err(FrameError::from)?;
    }
    writer.shutdown().await.map_err(FrameError::from)?;
    Ok(())
}

/// The part of a request that is not answered yet.
enum Pending {
    Have(Content),
    Manifest(Content),
    /// Then the end of a manifest, or nothing.
    Blobs(std::vec::IntoIter<ChunkId>, Option<Reply>),
}

impl Pending {
    fn new(request: Request) -> Result<Self, ServeError> {
        match request {
            Request::Have(content) => Ok(Self::Have(content)),
            Request::Manifest(content) => Ok(Self::Manifest(content)),
            Request::Chunks(ids) if ids.len() > MAX_IDS => {
                Err(ServeError::TooMany { ids: ids.len() })
            }
            Request::Chunks(ids) => Ok(Self::Blobs(ids.into_iter(), None)),
        }
    }

    /// The next group of replies, and what is left after it. Blocks.
    fn group(self, store: &Store, squeeze: Squeeze) -> (Vec<Reply>, Option<Self>) {
        match self {
            Self::Have(content) => {
                let held = store.holding(&content).map_or(Reply::Absent, Reply::Held);
                (vec![held], None)
            }
            Self::Manifest(content) => match blobs(store, &content) {
                Ok(ids) => Self::Blobs(ids.into_iter(), Some(Reply::End)).group(store, squeeze),
                Err(error) => {
                    log(&error);
                    (vec![Reply::Absent], None)
                }
            },
            Self::Blobs(mut ids, end) => {
                let (mut group, mut bytes) = (Vec::new(), 0);
                while bytes < GROUP_BYTES {
                    let Some(id) = ids.next() else {
                        group.extend(end);
                        return (group, None);
                    };
                    let reply = read(store, &id, squeeze);
                    bytes += reply.weight();
                    let gap = reply == Reply::Absent && end.is_some();
                    group.push(reply);
                    if gap {
                        return (group, None); // the fetcher knows that a manifest ends here
                    }
                }
                (group, Some(Self::Blobs(ids, end)))
            }
        }
    }
}

/// The blobs of a manifest, each once: the pages of a sparse file are often the same.
fn blobs(store: &Store, content: &Content) -> Result<Vec<ChunkId>, ReadError> {
    let manifest = store.manifest(content)?;
    let mut seen = HashSet::new();
    let pages = manifest.pages().iter().map(|page| page.id);
    let all = std::iter::once(content.id.first_blob()).chain(pages);
    Ok(all.filter(|id| seen.insert(*id)).collect())
}

fn read(store: &Store, id: &ChunkId, squeeze: Squeeze) -> Reply {
    match (store.read_encoded(id), squeeze) {
        (Ok(encoded), Squeeze::Yes) => Reply::Chunk(Encoded::compressed(encoded)),
        (Ok(encoded), Squeeze::No) => Reply::Chunk(encoded),
        (Err(error), _) => {
            log(&error);
            Reply::Absent
        }
    }
}

/// What cannot be read is absent to the peer; here the reason matters.
fn log(error: &ReadError) {
    match error {
        ReadError::Absent { .. } | ReadError::Stale { .. } => {
            tracing::debug!(%error, "asked for what is not here");
        }
        ReadError::Damaged { .. }
        | ReadError::Manifest { .. }
        | ReadError::Io { .. }
        | ReadError::Index(_) => tracing::warn!(%error, "cannot serve a chunk"),
    }
}

#[cfg(test)]
mod tests;
