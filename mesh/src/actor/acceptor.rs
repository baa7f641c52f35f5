//! The streams that others opened: one task each, counted, refused when there are too many.
//!
//! A refusal is one byte on the stream, so that the opener knows whether to wait or to give up. A stream
//! of a device that is still a stranger after [`STRANGER_DEADLINE`] is ended.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::{
    io::AsyncWriteExt,
    task::{AbortHandle, Id, JoinError, JoinSet},
};

use crate::streams::{Handler, Protocol, Standing, Stream, Verdict};

/// Streams served at once, all protocols and devices together.
const MAX_SERVED: usize = 2048;

/// Refusals being written at once; further streams are dropped without one.
const MAX_REFUSING: usize = 64;

/// How long a refusal may take to write.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(5);

/// How long a stranger may keep a stream: enough for a person to confirm a join.
const STRANGER_DEADLINE: Duration = Duration::from_secs(180);

/// Serves the streams of all protocols.
pub(super) struct Acceptor {
    handlers: BTreeMap<Protocol, Arc<dyn Handler>>,
    tasks: JoinSet<()>,
    served: HashMap<Id, Served>,
    refusing: usize,
}

/// One stream being served.
struct Served {
    peer: PeerId,
    protocol: Protocol,
    since: Instant,
    task: AbortHandle,
}

impl Acceptor {
    pub(super) fn new(handlers: Vec<Arc<dyn Handler>>) -> Self {
        let handlers = handlers
            .into_iter()
            .map(|handler| (handler.protocol(), handler))
            .collect();
        Self {
            handlers,
            tasks: JoinSet::new(),
            served: HashMap::new(),
            refusing: 0,
        }
    }

    /// Serves a stream, or refuses it.
    pub(super) fn accept(
        &mut self,
        peer: PeerId,
        protocol: Protocol,
        standing: Standing,
        mut stream: Stream,
    ) {
        let handler = match self.decide(&peer, protocol, standing) {
            Ok(handler) => handler,
            Err(verdict) => return self.refuse(verdict, protocol, stream),
        };
        let task = self.tasks.spawn(async move {
            match stream.write_u8(Verdict::Accepted as u8).await {
                Ok(()) => handler.accept(stream).await,
                Err(error) => tracing::debug!(%peer, %protocol, %error, "the opener left"),
            }
        });
        let served = Served {
            peer,
            protocol,
            since: Instant::now(),
            task: task.clone(),
        };
        self.served.insert(task.id(), served);
    }

    /// Waits for a task to end and clears up after it. `None` while there is none. Cancel-safe.
    pub(super) async fn finished(&mut self) -> Option<()> {
        let (id, panicked) = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error).filter(JoinError::is_panic)),
        };
        match self.served.remove(&id) {
            Some(served) => {
                if let Some(error) = panicked {
                    tracing::error!(protocol = %served.protocol, %error, "a handler panicked");
                }
            }
            None => self.refusing = self.refusing.saturating_sub(1),
        }
        Some(())
    }

    /// Ends the streams of those who are strangers for too long.
    pub(super) fn reap(&mut self, is_stranger: impl Fn(&PeerId) -> bool, now: Instant) {
        for served in self.served.values() {
            let age = now.saturating_duration_since(served.since);
            if age > STRANGER_DEADLINE && is_stranger(&served.peer) {
                tracing::debug!(peer = %served.peer, protocol = %served.protocol, "too slow");
                served.task.abort();
            }
        }
    }

    /// Ends all streams and waits for their tasks.
    pub(super) async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }

    fn decide(
        &self,
        peer: &PeerId,
        protocol: Protocol,
        standing: Standing,
    ) -> Result<Arc<dyn Handler>, Verdict> {
        let handler = self.handlers.get(&protocol).ok_or(Verdict::Stopping)?;
        let quota = handler.quota();
        let own = match standing {
            Standing::Stranger => quota.stranger,
            Standing::Member => quota.member,
        };
        let same = self
            .served
            .values()
            .filter(|served| served.protocol == protocol);
        let (mut total, mut peers) = (0, 0);
        for served in same {
            total += 1;
            peers += usize::from(served.peer == *peer);
        }
        if peers >= own {
            return Err(Verdict::PeerQuota);
        }
        if total >= quota.total || self.served.len() >= MAX_SERVED {
            return Err(Verdict::Busy);
        }
        Ok(Arc::clone(handler))
    }

    fn refuse(&mut self, verdict: Verdict, protocol: Protocol, mut stream: Stream) {
        tracing::debug!(peer = %stream.peer(), %protocol, ?verdict, "a stream is refused");
        if self.refusing >= MAX_REFUSING {
            return;
        }
        self.refusing += 1;
        self.tasks.spawn(async move {
            let write = async {
                stream.write_u8(verdict as u8).await?;
                stream.shutdown().await
            };
            match tokio::time::timeout(REFUSAL_DEADLINE, write).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::trace!(%error, "nobody hears the refusal"),
                Err(_elapsed) => tracing::trace!("nobody reads the refusal"),
            }
        });
    }
}
