//! The answers that go on for a while: events, and the steps of long operations.
//!
//! Both are server-sent events whose `data` is one JSON object. They end when the node stops, so
//! that a follower never keeps it from stopping.

use std::convert::Infallible;
use std::future::Future;

use axum::response::sse::{Event as Frame, KeepAlive, KeepAliveStream, Sse};
use futures::stream::{self, BoxStream, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Fault, Progress, Stage, Step};
use crate::node::Node;

/// Lines of progress that may wait for a slow client; older ones are worth nothing.
const WAITING_LINES: usize = 16;

type Frames = BoxStream<'static, Result<Frame, Infallible>>;

/// Takes the progress of a long operation.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    lines: mpsc::Sender<Progress>,
}

impl Reporter {
    /// A reporter and where its lines come out.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Progress>) {
        let (lines, out) = mpsc::channel(WAITING_LINES);
        (Self { lines }, out)
    }

    /// Waits until the client has left: nobody hears what comes of the operation any more.
    pub(crate) async fn unheard(&self) {
        self.lines.closed().await;
    }

    /// Tells how far the operation is; never waits.
    pub(crate) fn report(&self, stage: Stage, files: u64, bytes: u64) {
        // A full queue or a client that left loses a line of progress, which is all it is.
        let _lost = self.lines.try_send(Progress {
            stage,
            files,
            bytes,
        });
    }
}

/// Runs an operation as a task of the node and streams its steps.
///
/// The operation goes on to its end when the client leaves: half a share would be worse.
pub(super) fn steps<T, F>(
    node: &Node,
    name: &'static str,
    operation: impl FnOnce(Node, Reporter) -> F,
) -> Result<Sse<KeepAliveStream<Frames>>, Fault>
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<T, Fault>> + Send + 'static,
{
    let (reporter, lines) = Reporter::new();
    let (end, ended) = mpsc::channel(1);
    let work = operation(node.clone(), reporter);
    node.tasks().spawn(name, async move {
        let last = match work.await {
            Ok(reply) => Step::Done(reply),
            Err(fault) => Step::Failed(fault),
        };
        // The client left; the operation counts all the same.
        let _unheard = end.send(last).await;
    })?;
    let lines = ReceiverStream::new(lines).map(Step::Progress);
    let frames = lines
        .chain(ReceiverStream::new(ended))
        .map(|step| Ok(frame(&step)));
    Ok(Sse::new(frames.boxed()).keep_alive(KeepAlive::default()))
}

/// Streams what happens on the node from now on. It ends by itself after the last event, which is
/// that the node stops.
pub(super) fn events(node: &Node) -> Sse<KeepAliveStream<Frames>> {
    let follower = node.events().follow();
    let frames = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(frame(&event)), follower))
    });
    Sse::new(frames.boxed()).keep_alive(KeepAlive::default())
}

fn frame<T: Serialize>(value: &T) -> Frame {
    let json = serde_json::to_string(value).expect("replies and events are plain data");
    Frame::default().data(json)
}
