//! The streams that others opened: one task each, counted, refused when there are too many.
//!
//! Strangers together have a quarter of the places, so that they cannot shut members out.
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

use crate::streams::{Handler, Protocol, Stream, Verdict};

/// Streams served at once, all protocols and devices together.
const MAX_SERVED: usize = 2048;

/// What strangers may have of all places.
const STRANGERS_SHARE: usize = 4;

/// Refusals being written at once; further streams are dropped without one.
const MAX_REFUSING: usize = 64;

/// How long a refusal may take to write.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(5);

/// How long a stranger may keep a stream: enough for a slow line, as nobody decides anything meanwhile. What
/// it says first has a deadline of its own in each protocol.
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
        is_known: impl Fn(&PeerId) -> bool,
        mut stream: Stream,
    ) {
        let handler = match self.decide(&peer, protocol, is_known) {
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

    /// Who is a stranger is asked anew each time: hello makes members of them.
    fn decide(
        &self,
        peer: &PeerId,
        protocol: Protocol,
        is_known: impl Fn(&PeerId) -> bool,
    ) -> Result<Arc<dyn Handler>, Verdict> {
        let handler = self.handlers.get(&protocol).ok_or(Verdict::Stopping)?;
        let quota = handler.quota();
        let (mut total, mut own, mut strangers) = (0, 0, 0);
        for served in self
            .served
            .values()
            .filter(|served| served.protocol == protocol)
        {
            total += 1;
            own += usize::from(served.peer == *peer);
            strangers += usize::from(!is_known(&served.peer));
        }
        let is_member = is_known(peer);
        if own
            >= if is_member {
                quota.member
            } else {
                quota.stranger
            }
        {
            return Err(Verdict::PeerQuota);
        }
        let crowded = !is_member && strangers >= quota.total.div_ceil(STRANGERS_SHARE);
        if crowded || total >= quota.total || self.served.len() >= MAX_SERVED {
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

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;
    use tokio::io::AsyncReadExt;
    use wormhole_crdt::DeviceId;

    use super::*;
    use crate::{peer::PathKind, streams::Quota};

    const TALK: Protocol = Protocol {
        name: "talk",
        major: 1,
    };

    /// Talks for ever.
    struct Talk;

    impl Handler for Talk {
        fn protocol(&self) -> Protocol {
            TALK
        }

        fn quota(&self) -> Quota {
            Quota {
                stranger: 2,
                member: 4,
                total: 16,
            }
        }

        fn accept(&self, stream: Stream) -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let _stream = stream;
                std::future::pending::<()>().await;
            })
        }
    }

    /// The verdict on a stream of `peer`.
    async fn knock(
        acceptor: &mut Acceptor,
        peer: PeerId,
        is_known: impl Fn(&PeerId) -> bool,
    ) -> Verdict {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let stream = Stream::new(ours, DeviceId::from_bytes([1; 32]), PathKind::Lan);
        acceptor.accept(peer, TALK, is_known, stream);
        let verdict = Verdict::from_byte(theirs.read_u8().await.unwrap()).unwrap();
        if verdict != Verdict::Accepted {
            acceptor.finished().await.unwrap();
        }
        verdict
    }

    #[tokio::test]
    async fn a_crowd_of_strangers_takes_a_quarter_and_members_have_the_rest() {
        let mut acceptor = Acceptor::new(vec![Arc::new(Talk)]);
        let members: Vec<_> = (0..3).map(|_| PeerId::random()).collect();
        let is_known = |peer: &PeerId| members.contains(peer);
        let mut served = 0;
        for _ in 0..100 {
            let verdict = knock(&mut acceptor, PeerId::random(), is_known).await;
            served += usize::from(verdict == Verdict::Accepted);
        }
        assert_eq!(served, 4);
        for _ in 0..4 {
            for member in &members {
                let verdict = knock(&mut acceptor, *member, is_known).await;
                assert_eq!(verdict, Verdict::Accepted);
            }
        }
        let surplus = knock(&mut acceptor, members[0], is_known).await;
        assert_eq!(surplus, Verdict::PeerQuota);
        acceptor.shutdown().await;
    }

    #[tokio::test]
    async fn who_has_become_a_member_is_counted_as_a_stranger_no_more() {
        let mut acceptor = Acceptor::new(vec![Arc::new(Talk)]);
        let crowd: Vec<_> = (0..4).map(|_| PeerId::random()).collect();
        for peer in &crowd {
            let verdict = knock(&mut acceptor, *peer, |_| false).await;
            assert_eq!(verdict, Verdict::Accepted);
        }
        let late = PeerId::random();
        let verdict = knock(&mut acceptor, late, |_| false).await;
        assert_eq!(verdict, Verdict::Busy);
        let verdict = knock(&mut acceptor, late, |peer| *peer == crowd[0]).await;
        assert_eq!(verdict, Verdict::Accepted);
        acceptor.shutdown().await;
    }
}
