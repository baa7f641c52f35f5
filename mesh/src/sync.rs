//! Metadata between this device and one other: a stream for each mesh they share, for as long as both are there.
//!
//! What is said is decided by `wormhole_crdt::Session`, which does no I/O; here its messages are moved, and
//! its database work is kept off the runtime's threads. News is pushed the moment the replica commits it: there
//! is no interval anywhere. Everything queued is bounded; a peer that neither reads nor writes is given up.
//!
//! On the wire: one [`Open`] frame, one [`Opened`] frame back, then frames whose first byte says what they are: a
//! message of the session, or a [`Report`] of the device about itself; others are a later version's and are passed
//! over. An empty frame says "still here".

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, BufWriter, ReadHalf, WriteHalf, split},
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use wormhole_crdt::{
    DeviceId, Hash, MeshId, Message, Replica, Session, SessionError, limit::MAX_MESSAGE_BYTES,
};

use crate::{
    attachment::{Attachment, Registry},
    frame::{self, FrameError},
    limit::{Throttled, Urgency},
    report::Report,
    streams::{Carrier, Patience, Patient, Protocol, Sign},
};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "sync",
    major: 1,
};

/// Room for the opening frames.
const MAX_OPEN: usize = 256;

/// How long the opening may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// How long an opener who knows of a shared mesh is waited for to be known here too: its hello and this
/// stream race.
const HELLO_GRACE: Duration = Duration::from_secs(3);

/// How often each side says that it is still there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A peer from which not a byte came for this long is gone.
const SILENCE: Duration = Duration::from_secs(45);

/// A peer that takes not a byte for this long is gone. Longer, as one under a low limit makes room rarely;
/// one that has died is silent, too.
const STALLED: Duration = Duration::from_secs(600);

/// Received messages that wait to be applied. With `MAX_MESSAGE_BYTES` this bounds memory.
const INBOX: usize = 4;

/// Messages applied in one go, so that many small ones do not cost a thread switch each.
const BATCH: usize = 32;

/// First byte of a frame with a message of the session.
const SESSION: u8 = 0;

/// First byte of a frame with a report.
const REPORT: u8 = 1;

/// Room for a frame of any kind.
const MAX_FRAME: usize = 1 + MAX_MESSAGE_BYTES;

/// Envelopes are added to the queue only while it is shorter than this many bytes.
const QUEUE_LOW: usize = MAX_MESSAGE_BYTES;

/// Answers (which are not optional) may make it this long; a peer that asks more without reading is cut off.
const QUEUE_MAX: usize = 16 * MAX_MESSAGE_BYTES;

/// The opener's first frame.
#[derive(Debug, Serialize, Deserialize)]
struct Open {
    mesh: MeshId,
}

/// The acceptor's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Opened {
    /// Go on.
    Yes,
    /// No such mesh is shared with you; also said when there is one that you have not proved.
    NotShared,
    /// Not now: the mesh is paused here.
    Paused,
}

/// Why an exchange ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    /// The stream failed, or carried what is no frame.
    #[error(transparent)]
    Frame(FrameError),
    /// The other side closed the stream.
    #[error("the peer closed the stream")]
    Closed,
    /// Nothing came, or nothing could be sent, for too long.
    #[error("the peer has been silent for too long")]
    Silent,
    /// It asks without reading the answers.
    #[error("the peer asks without reading the answers")]
    Flood,
    /// The other side knows of no common mesh (yet).
    #[error("the peer does not share the mesh")]
    NotShared,
    /// The peer left, or came anew, or the mesh is no longer carried here.
    #[error("the peer has left")]
    Gone,
    /// The mesh is paused here or there.
    #[error("the mesh is paused")]
    Paused,
    /// The session ended, with the peer's fault or ours.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The thread that applied messages panicked.
    #[error("applying a message failed")]
    Panicked,
}

impl From<FrameError> for SyncError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Self::Silent,
            error => Self::Frame(error),
        }
    }
}

impl SyncError {
    /// Whether the peer is to blame.
    pub(crate) fn is_peer_fault(&self) -> bool {
        match self {
            Self::Frame(error) => error.is_misbehaviour(),
            Self::Session(error) => error.is_peer_fault(),
            Self::Flood => true,
            Self::Closed
            | Self::Silent
            | Self::NotShared
            | Self::Gone
            | Self::Paused
            | Self::Panicked => false,
        }
    }
}

/// Opens an exchange about `mesh` on a new stream and runs it until it ends.
pub(crate) async fn open<S>(
    mut stream: S,
    peer: DeviceId,
    mesh: &Arc<Attachment>,
) -> Result<(), SyncError>
where
    S: Carrier,
{
    let opening = async {
        frame::write(&mut stream, &Open { mesh: mesh.id() }, MAX_OPEN).await?;
        let opened = frame::read(&mut stream, MAX_OPEN).await?;
        opened.ok_or(SyncError::Closed)
    };
    match timeout(OPEN_DEADLINE, opening)
        .await
        .map_err(|_elapsed| SyncError::Silent)??
    {
        Opened::Yes => exchange(stream, peer, mesh).await,
        Opened::NotShared => Err(SyncError::NotShared),
        Opened::Paused => Err(SyncError::Paused),
    }
}

/// Answers a stream that a peer opened, and runs the exchange until it ends.
pub(crate) async fn accept<S>(
    mut stream: S,
    peer: DeviceId,
    registry: &Registry,
) -> Result<(), SyncError>
where
    S: Carrier,
{
    let opening = frame::read(&mut stream, MAX_OPEN);
    let Open { mesh } = timeout(OPEN_DEADLINE, opening)
        .await
        .map_err(|_elapsed| SyncError::Silent)??
        .ok_or(SyncError::Closed)?;
    let Some(mesh) = shared_mesh(registry, mesh, peer).await else {
        return refuse(stream, Opened::NotShared, SyncError::NotShared).await;
    };
    if mesh.is_paused() {
        return refuse(stream, Opened::Paused, SyncError::Paused).await;
    }
    frame::write(&mut stream, &Opened::Yes, MAX_OPEN).await?;
    exchange(stream, peer, &mesh).await
}

async fn refuse<S>(mut stream: S, answer: Opened, error: SyncError) -> Result<(), SyncError>
where
    S: AsyncWrite + Unpin + Send,
{
    frame::write(&mut stream, &answer, MAX_OPEN).await?;
    stream.shutdown().await.map_err(FrameError::from)?;
    Err(error)
}

/// The mesh, once the peer has proved it. An unknown mesh takes as long as an unproved one, so that nobody
/// can tell them apart.
async fn shared_mesh(registry: &Registry, mesh: MeshId, peer: DeviceId) -> Option<Arc<Attachment>> {
    let found = registry.get(mesh);
    let proved = async {
        match &found {
            Some(mesh) => mesh.until_present(peer).await,
            None => std::future::pending().await,
        }
    };
    let proved = timeout(HELLO_GRACE, proved).await.is_ok();
    found.filter(|_| proved)
}

/// Moves messages until the stream, the session, a pause or the mesh's end stops it.
async fn exchange<S>(stream: S, peer: DeviceId, mesh: &Arc<Attachment>) -> Result<(), SyncError>
where
    S: Carrier,
{
    let visit = mesh.visit(&peer).ok_or(SyncError::Gone)?;
    tracing::debug!(%peer, terms = ?mesh.terms(&peer), "a metadata exchange begins");
    let patience = Patience {
        reading: SILENCE,
        writing: STALLED,
        sign: Sign::Received,
    };
    let stream = Throttled::new(stream, Arc::clone(&mesh.limits), Urgency::Talk);
    let (reader, writer) = split(Patient::new(stream, patience));
    let (inbox_tx, inbox) = mpsc::channel(INBOX);
    let (outbox, outbox_rx) = mpsc::channel(1);
    let reports = mesh.own_report();
    let driver = Driver {
        mesh: Arc::clone(mesh),
        peer,
        inbox,
        outbox,
        reports,
        queue: VecDeque::new(),
        queue_bytes: 0,
    };
    let ended = tokio::select! {
        ended = read(reader, inbox_tx, peer, mesh) => ended,
        ended = write(writer, outbox_rx) => ended,
        ended = driver.run() => ended,
        () = mesh.until_paused() => Err(SyncError::Paused),
        () = mesh.until_gone(peer, visit) => Err(SyncError::Gone),
        () = mesh.cancel.cancelled() => Err(SyncError::Gone),
    };
    // Of a later visit there may be another exchange, whose state is not ours to forget.
    if mesh.visit(&peer) == Some(visit) {
        mesh.sync_ended(peer);
    }
    ended
}

async fn read<S>(
    mut reader: ReadHalf<Patient<S>>,
    inbox: mpsc::Sender<Bytes>,
    peer: DeviceId,
    mesh: &Attachment,
) -> Result<(), SyncError>
where
    S: Carrier,
{
    loop {
        let frame = frame::read_bytes(&mut reader, MAX_FRAME).await?;
        let mut frame = frame.ok_or(SyncError::Closed)?;
        match frame.try_get_u8() {
            Ok(SESSION) => {
                if inbox.send(frame).await.is_err() {
                    return Ok(()); // the driver has ended, and says why
                }
            }
            Ok(REPORT) => match Report::decode(&frame) {
                Some(report) => mesh.set_report(peer, report),
                None => tracing::debug!(%peer, "a report that cannot be read"),
            },
            Ok(kind) => tracing::debug!(%peer, kind, "a frame of a kind that is not known here"),
            Err(_empty) => {} // still here
        }
    }
}

async fn write<S>(
    writer: WriteHalf<Patient<S>>,
    mut outbox: mpsc::Receiver<Vec<u8>>,
) -> Result<(), SyncError>
where
    S: Carrier,
{
    let mut writer = BufWriter::new(writer);
    while let Some(message) = outbox.recv().await {
        frame::write_bytes(&mut writer, &message, MAX_FRAME).await?;
        if outbox.is_empty() {
            writer.flush().await.map_err(FrameError::from)?;
        }
    }
    Ok(())
}

/// Hands messages to the session and its answers to the writer.
struct Driver {
    mesh: Arc<Attachment>,
    peer: DeviceId,
    inbox: mpsc::Receiver<Bytes>,
    outbox: mpsc::Sender<Vec<u8>>,
    /// What this device says of itself. Only the newest is sent, however long the peer takes.
    reports: watch::Receiver<Report>,
    queue: VecDeque<Vec<u8>>,
    queue_bytes: usize,
}

/// What the session gives for a batch of messages.
struct Stepped {
    session: Session,
    answers: Vec<Message>,
    pushes: Vec<Message>,
    in_sync: bool,
    /// Of the membership that this holds for.
    mark: Hash,
}

impl Driver {
    async fn run(mut self) -> Result<(), SyncError> {
        let mut news = self.mesh.news();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_sent = Instant::now();
        let (mut session, greeting) = start(self.mesh.replica.clone(), self.peer).await?;
        self.enqueue(greeting)?;
        // Whether this device has something else to say of itself than it said last.
        let mut has_report = true;
        // Whether the session may have more to push than it gave last time.
        let mut has_news = false;
        loop {
            let mut batch = Vec::new();
            let may_push = has_news && self.queue_bytes < QUEUE_LOW;
            if !may_push {
                tokio::select! {
                    biased;
                    sent = self.outbox.reserve(), if has_report || !self.queue.is_empty() => {
                        let Ok(slot) = sent else { return Ok(()) };
                        if has_report {
                            has_report = false;
                            slot.send(framed(REPORT, &self.reports.borrow_and_update().encode()));
                            last_sent = Instant::now();
                        } else if let Some(message) = self.queue.pop_front() {
                            self.queue_bytes -= message.len();
                            slot.send(message);
                            last_sent = Instant::now();
                        }
                        continue;
                    }
                    message = self.inbox.recv() => match message {
                        Some(message) => batch.push(message),
                        None => return Ok(()), // the reader has ended, and says why
                    },
                    changed = self.reports.changed(), if !has_report => {
                        if changed.is_err() {
                            return Ok(());
                        }
                        has_report = true;
                        continue;
                    }
                    changed = news.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                    }
                    _ = heartbeat.tick() => {
                        if self.queue.is_empty() && last_sent.elapsed() >= HEARTBEAT / 2 {
                            self.queue.push_back(Vec::new());
                        }
                        continue;
                    }
                }
            }
            while batch.len() < BATCH
                && let Ok(message) = self.inbox.try_recv()
            {
                batch.push(message);
            }
            news.mark_unchanged();
            let room = QUEUE_LOW.saturating_sub(self.queue_bytes);
            let replica = self.mesh.replica.clone();
            let stepped = self.lively(step(replica, session, batch, room), &mut heartbeat);
            let stepped = stepped.await?;
            session = stepped.session;
            // Even when there was no room: ask again when there is.
            has_news = room == 0 || !stepped.pushes.is_empty();
            self.enqueue(stepped.answers)?;
            self.enqueue(stepped.pushes)?;
            self.mesh
                .set_in_sync(self.peer, stepped.in_sync, stepped.mark);
        }
    }

    /// Waits for a step, and lets the peer know that this device is alive: a snapshot of a big tree takes
    /// longer to install than the peer bears silence.
    async fn lively(
        &mut self,
        step: impl Future<Output = Result<Stepped, SyncError>>,
        heartbeat: &mut Interval,
    ) -> Result<Stepped, SyncError> {
        tokio::pin!(step);
        loop {
            tokio::select! {
                biased;
                stepped = &mut step => return stepped,
                _ = heartbeat.tick() => {
                    // What waits is as good a sign; without room the last one is still on its way.
                    if let Ok(slot) = self.outbox.try_reserve() {
                        let message = self.queue.pop_front().unwrap_or_default();
                        self.queue_bytes -= message.len();
                        slot.send(message);
                    }
                }
            }
        }
    }

    fn enqueue(&mut self, messages: Vec<Message>) -> Result<(), SyncError> {
        for message in messages {
            let message = framed(SESSION, &message.into_bytes());
            self.queue_bytes += message.len();
            self.queue.push_back(message);
        }
        if self.queue_bytes > QUEUE_MAX {
            Err(SyncError::Flood)
        } else {
            Ok(())
        }
    }
}

/// A frame of a kind.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(1 + body.len());
    frame.push(kind);
    frame.extend_from_slice(body);
    frame
}

/// Begins a session, where it may block.
async fn start(replica: Replica, peer: DeviceId) -> Result<(Session, Vec<Message>), SyncError> {
    let work = move || {
        let mut session = Session::new(&replica, peer);
        let greeting = session.start()?;
        Ok((session, greeting))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_panicked| SyncError::Panicked)?
}

/// Lets the session take a batch and look for what to push, where it may block.
async fn step(
    replica: Replica,
    mut session: Session,
    batch: Vec<Bytes>,
    room: usize,
) -> Result<Stepped, SyncError> {
    let work = move || {
        let mark = replica.membership_mark();
        let mut rng: StdRng = rand::make_rng();
        let mut answers = Vec::new();
        for message in batch {
            answers.extend(session.receive(&message, &mut rng)?);
        }
        let pushes = if room == 0 {
            Vec::new()
        } else {
            session.poll(room)?
        };
        let in_sync = session.in_sync();
        Ok(Stepped {
            session,
            answers,
            pushes,
            in_sync,
            mark,
        })
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_panicked| SyncError::Panicked)?
}

#[cfg(test)]
mod tests;
