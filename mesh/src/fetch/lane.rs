//! One stream to one holder: turns asks into requests, and replies into events for the driver.
//!
//! Requests are written as they come and replies are read as they come, so many are under way at once. Replies
//! are handed on in groups, to be verified and written elsewhere; manifests, which are few and needed whole,
//! are verified and kept right here. Whatever does not fit what was asked ends the lane with a reason.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWriteExt, BufReader, BufWriter, ReadHalf, WriteHalf, split},
    sync::mpsc::{self, error::TrySendError},
    time::Instant,
};
use wormhole_crdt::{DeviceId, MeshId};
use wormhole_store::{ChunkId, Content, Encoded, Holding, Manifest, Store, WriteError};

use super::plan::{Ask, ItemId, JobId, Want};
use crate::{
    error::OpenError,
    frame::{self, FrameError},
    limit::{Limits, Throttled, Urgency},
    peer::Misbehaviour,
    serve::{
        PROTOCOL,
        message::{MAX_REQUEST, Open, Refusal, Reply, Request, read_reply},
    },
    streams::{Patience, Patient, Sign, Stream, Streams},
};

/// Commands that wait for a lane; the driver gives a full lane no more.
pub(super) const COMMANDS: usize = 64;

/// Bytes of chunks that are handed on together.
const GROUP_BYTES: usize = 512 * 1024;

/// A group is handed on after this time even if it is small, so that slow holders are measured well.
const GROUP_TIME: Duration = Duration::from_millis(50);

/// A holder that owes an answer and sends not a byte for this long is given up. Long enough for one that
/// shares a low limit among many; what it owes is asked of others much sooner.
const SILENCE: Duration = Duration::from_secs(60);

/// A holder that takes not a byte of our requests for this long is given up. They are small.
const STALLED: Duration = Duration::from_secs(60);

/// Gathers small replies into large reads.
const READ_BUFFER: usize = 64 * 1024;

/// Names a lane within its fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(pub(super) u64);

/// What the driver tells a lane.
#[derive(Debug)]
pub(super) enum Command {
    /// Ask for these.
    Ask(Vec<Ask>),
    /// Ask how much the holder has of a job's content.
    Have(JobId, Content),
}

/// What a lane tells the driver.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) device: DeviceId,
    pub(super) lane: LaneId,
    pub(super) what: What,
}

/// See [`Event`].
#[derive(Debug)]
pub(super) enum What {
    /// Chunks came, not verified yet.
    Chunks(Vec<(ItemId, Encoded)>),
    /// The holder lacks these.
    Absent(Vec<ItemId>),
    /// A manifest came, was verified, and is in the store.
    Manifest(ItemId),
    /// A manifest came and could not be kept.
    ManifestFailed(ItemId, WriteError),
    /// A verified chunk has another length than the manifest says: whoever wrote the manifest lied.
    Mismatched(ItemId, ChunkId),
    /// How much the holder has.
    Held(JobId, Holding),
    /// The lane is over.
    Ended(Result<(), LaneError>),
}

/// Why a lane ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    /// No stream could be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream failed.
    #[error(transparent)]
    Frame(FrameError),
    /// The holder closed the stream and owed an answer.
    #[error("the peer closed the stream")]
    Closed,
    /// It owes an answer and is silent.
    #[error("the peer has been silent for {} seconds", SILENCE.as_secs())]
    Silent,
    /// It does not serve us, now or ever.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// It sent what was not asked for, or what does not have the asked id.
    #[error("{0}")]
    Misbehaved(Misbehaviour),
    /// The thread that kept a manifest panicked.
    #[error("keeping a manifest failed")]
    Panicked,
}

impl From<FrameError> for LaneError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Self::Silent,
            error => Self::Frame(error),
        }
    }
}

impl LaneError {
    /// What to hold against the holder, if it is to blame.
    pub(super) fn misbehaviour(&self) -> Option<Misbehaviour> {
        match self {
            Self::Misbehaved(reason) => Some(*reason),
            Self::Frame(error) => error.is_misbehaviour().then_some(Misbehaviour::BadFrame),
            Self::Open(_) | Self::Closed | Self::Silent | Self::Refused(_) | Self::Panicked => None,
        }
    }
}

/// What a lane is made with.
pub(super) struct Lane {
    pub(super) device: DeviceId,
    pub(super) id: LaneId,
    pub(super) mesh: MeshId,
    pub(super) limits: Arc<Limits>,
    pub(super) store: Store,
    pub(super) streams: Streams,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
}

/// What the next replies are about.
enum Expect {
    Opened,
    Chunks(Vec<(ItemId, ChunkId, u32)>),
    Manifest(ItemId, Content),
    Held(JobId),
}

impl Lane {
    /// Runs until the driver has no more commands, and says how it ended.
    pub(super) async fn run(self) {
        let (device, lane, events) = (self.device, self.id, self.events.clone());
        let ended = self.speak().await;
        let event = Event {
            device,
            lane,
            what: What::Ended(ended),
        };
        if events.send(event).await.is_err() {
            tracing::trace!("the fetch is over, nobody needs to know");
        }
    }

    async fn speak(self) -> Result<(), LaneError> {
        let stream = self.streams.open(self.device, PROTOCOL).await?;
        let stream = Throttled::new(stream, self.limits, Urgency::Bulk);
        let patience = Patience {
            reading: SILENCE,
            writing: STALLED,
            sign: Sign::Received,
        };
        let (reader, writer) = split(Patient::new(stream, patience));
        let (expect, expected) = mpsc::channel(COMMANDS);
        let listener = Listener {
            device: self.device,
            id: self.id,
            store: self.store,
            events: self.events,
            reader: BufReader::with_capacity(READ_BUFFER, reader),
        };
        let asking = ask(writer, self.mesh, self.commands, expect);
        let listening = listener.listen(expected);
        let ((), ()) = tokio::try_join!(asking, listening)?;
        Ok(())
    }
}

/// Writes requests, and notes what is expected for each before it is sent.
async fn ask(
    writer: WriteHalf<Patient<Throttled<Stream>>>,
    mesh: MeshId,
    mut commands: mpsc::Receiver<Command>,
    expect: mpsc::Sender<Expect>,
) -> Result<(), LaneError> {
    let mut writer = BufWriter::new(writer);
    let open = postcard::to_stdvec(&Open { mesh }).map_err(FrameError::Unencodable)?;
    frame::write_bytes(&mut writer, &open, MAX_REQUEST).await?;
    writer.flush().await.map_err(FrameError::from)?;
    // Fails only when the listener has ended, whose error is then the one to tell.
    if expect.send(Expect::Opened).await.is_err() {
        return Ok(());
    }
    while let Some(command) = commands.recv().await {
        for (request, note) in requests(command) {
            let request = postcard::to_stdvec(&request).map_err(FrameError::Unencodable)?;
            // Noted first: a reply may come before the write returns.
            if let Err(refused) = expect.try_send(note) {
                let TrySendError::Full(note) = refused else {
                    return Ok(());
                };
                // Room comes with replies, and replies only to what has left.
                writer.flush().await.map_err(FrameError::from)?;
                if expect.send(note).await.is_err() {
                    return Ok(());
                }
            }
            frame::write_bytes(&mut writer, &request, MAX_REQUEST).await?;
        }
        if commands.is_empty() {
            writer.flush().await.map_err(FrameError::from)?;
        }
    }
    writer.shutdown().await.map_err(FrameError::from)?;
    Ok(())
}

/// What a command asks for, each with what is then expected.
fn requests(command: Command) -> Vec<(Request, Expect)> {
    match command {
        Command::Have(job, content) => vec![(Request::Have(content), Expect::Held(job))],
        Command::Ask(asks) => split_asks(asks),
    }
}

/// Chunks that stand together become one request; a manifest is a request of its own.
fn split_asks(asks: Vec<Ask>) -> Vec<(Request, Expect)> {
    let (mut requests, mut chunks) = (Vec::new(), Vec::new());
    let flush = |chunks: &mut Vec<(ItemId, ChunkId, u32)>, requests: &mut Vec<_>| {
        if !chunks.is_empty() {
            let request = Request::Chunks(chunks.iter().map(|(_, id, _)| *id).collect());
            requests.push((request, Expect::Chunks(std::mem::take(chunks))));
        }
    };
    for ask in asks {
        match ask.want {
            Want::Chunk { id, len } => chunks.push((ask.item, id, len)),
            Want::Manifest(content) => {
                flush(&mut chunks, &mut requests);
                let expect = Expect::Manifest(ask.item, content);
                requests.push((Request::Manifest(content), expect));
            }
        }
    }
    flush(&mut chunks, &mut requests);
    requests
}

/// The reading half of a lane. Its methods take `&mut self` because a stream cannot be shared.
struct Listener {
    device: DeviceId,
    id: LaneId,
    store: Store,
    events: mpsc::Sender<Event>,
    reader: BufReader<ReadHalf<Patient<Throttled<Stream>>>>,
}

impl Listener {
    async fn listen(mut self, mut expected: mpsc::Receiver<Expect>) -> Result<(), LaneError> {
        while let Some(expect) = expected.recv().await {
            match expect {
                Expect::Opened => match self.reply(0).await? {
                    Reply::Opened => {}
                    _ => return Err(LaneError::Misbehaved(Misbehaviour::BadFrame)),
                },
                Expect::Chunks(asked) => self.chunks(asked).await?,
                Expect::Manifest(item, content) => self.manifest(item, content).await?,
                Expect::Held(job) => match self.reply(0).await? {
                    Reply::Held(holding) => self.tell(What::Held(job, holding)).await,
                    Reply::Absent => self.tell(What::Held(job, Holding::NoManifest)).await,
                    _ => return Err(LaneError::Misbehaved(Misbehaviour::BadFrame)),
                },
            }
        }
        Ok(())
    }

    /// The next reply; a refusal ends the lane wherever it comes.
    async fn reply(&mut self, expected: usize) -> Result<Reply, LaneError> {
        match read_reply(&mut self.reader, expected).await? {
            Some(Reply::Refused(refusal)) => Err(LaneError::Refused(refusal)),
            Some(reply) => Ok(reply),
            None => Err(LaneError::Closed),
        }
    }

    async fn chunks(&mut self, asked: Vec<(ItemId, ChunkId, u32)>) -> Result<(), LaneError> {
        let (mut here, mut absent, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut since = Instant::now();
        for (item, id, len) in asked {
            match self.reply(len as usize).await? {
                Reply::Chunk(encoded) if encoded.len == len => {
                    bytes += encoded.bytes.len();
                    here.push((item, encoded));
                }
                Reply::Chunk(encoded) => self.mismatched(item, id, &encoded).await?,
                Reply::Absent => absent.push(item),
                Reply::Opened | Reply::Refused(_) | Reply::End | Reply::Held(_) => {
                    return Err(LaneError::Misbehaved(Misbehaviour::BadFrame));
                }
            }
            if bytes >= GROUP_BYTES || since.elapsed() >= GROUP_TIME {
                self.hand_on(&mut here, &mut absent).await;
                (bytes, since) = (0, Instant::now());
            }
        }
        self.hand_on(&mut here, &mut absent).await;
        Ok(())
    }

    async fn hand_on(&mut self, here: &mut Vec<(ItemId, Encoded)>, absent: &mut Vec<ItemId>) {
        if !here.is_empty() {
            self.tell(What::Chunks(std::mem::take(here))).await;
        }
        if !absent.is_empty() {
            self.tell(What::Absent(std::mem::take(absent))).await;
        }
    }

    /// A chunk of another length than was asked for: either it is not that chunk, or the manifest lies.
    async fn mismatched(
        &mut self,
        item: ItemId,
        id: ChunkId,
        encoded: &Encoded,
    ) -> Result<(), LaneError> {
        match self.store.decode(id, encoded) {
            Ok(_) => {
                self.tell(What::Mismatched(item, id)).await;
                Ok(())
            }
            Err(_) => Err(LaneError::Misbehaved(Misbehaviour::BadChunk)),
        }
    }

    /// Takes root and pages in order. The root says which pages; nothing else is accepted.
    async fn manifest(&mut self, item: ItemId, content: Content) -> Result<(), LaneError> {
        let mut expected = vec![content.id.first_blob()];
        let mut seen = HashSet::new();
        let mut next = 0;
        while let Some(id) = expected.get(next).copied() {
            next += 1;
            let blob = match self.reply(GROUP_BYTES).await? {
                Reply::Chunk(encoded) => encoded,
                Reply::Absent => {
                    self.tell(What::Absent(vec![item])).await;
                    return Ok(());
                }
                Reply::Opened | Reply::Refused(_) | Reply::End | Reply::Held(_) => {
                    return Err(LaneError::Misbehaved(Misbehaviour::BadFrame));
                }
            };
            let plain = match self.keep(id, blob).await? {
                Ok(plain) => plain,
                Err(error) => {
                    self.tell(What::ManifestFailed(item, error)).await;
                    // What follows in the stream is of no use, but must be read past.
                    return self.skip_manifest().await;
                }
            };
            seen.insert(id);
            if next == 1 {
                let Ok(manifest) = Manifest::decode(&plain) else {
                    // The bytes have the right id, so whoever wrote the content is to blame, not this
                    // holder. Surveying the job again will find that out and say so.
                    self.tell(What::Manifest(item)).await;
                    return self.skip_manifest().await;
                };
                let pages = manifest.pages().iter().map(|page| page.id);
                expected.extend(pages.filter(|page| seen.insert(*page)));
            }
        }
        match self.reply(0).await? {
            Reply::End => {
                self.tell(What::Manifest(item)).await;
                Ok(())
            }
            _ => Err(LaneError::Misbehaved(Misbehaviour::BadFrame)),
        }
    }

    async fn skip_manifest(&mut self) -> Result<(), LaneError> {
        loop {
            match self.reply(0).await? {
                Reply::Chunk(_) => {}
                Reply::Absent | Reply::End => return Ok(()),
                Reply::Opened | Reply::Refused(_) | Reply::Held(_) => {
                    return Err(LaneError::Misbehaved(Misbehaviour::BadFrame));
                }
            }
        }
    }

    /// Verifies a blob and puts it into the store. The inner error is our own disk's.
    async fn keep(
        &mut self,
        id: ChunkId,
        blob: Encoded,
    ) -> Result<Result<bytes::Bytes, WriteError>, LaneError> {
        let store = self.store.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let plain = store.decode(id, &blob).ok()?;
            Some(store.put_verified(id, &plain).map(|()| plain))
        });
        match kept.await {
            Ok(Some(kept)) => Ok(kept),
            Ok(None) => Err(LaneError::Misbehaved(Misbehaviour::BadChunk)),
            Err(_panicked) => Err(LaneError::Panicked),
        }
    }

    async fn tell(&mut self, what: What) {
        let event = Event {
            device: self.device,
            lane: self.id,
            what,
        };
        if self.events.send(event).await.is_err() {
            tracing::trace!("the fetch is over, nobody needs to know");
        }
    }
}
