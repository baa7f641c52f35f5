//! Holders for tests: an honest one that is watched, and those that are not honest.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use wormhole_crdt::DeviceId;
use wormhole_store::{ChunkId, Codec, Encoded, Store};

use super::*;
use crate::{
    frame,
    peer::Misbehaviour,
    serve::{
        PROTOCOL,
        message::{MAX_REQUEST, Open, Reply, Request, write_reply},
        serve,
    },
    streams::{Protocol, Quota, Stream, memory::Memory},
};

const QUOTA: Quota = Quota {
    stranger: 99,
    member: 99,
    total: 99,
};

/// An honest holder that counts requests and bytes, and may break each stream after so many bytes.
pub(super) struct Counting {
    registry: Registry,
    pub(super) requests: Arc<AtomicU64>,
    pub(super) bytes: Arc<AtomicU64>,
    break_after: u64,
}

impl Counting {
    pub(super) fn of(node: &Node) -> Self {
        Self {
            registry: node.protocols.registry().clone(),
            requests: Arc::default(),
            bytes: Arc::default(),
            break_after: u64::MAX,
        }
    }

    pub(super) fn that_breaks_after(self, bytes: u64) -> Self {
        Self {
            break_after: bytes,
            ..self
        }
    }
}

impl Handler for Counting {
    fn protocol(&self) -> Protocol {
        PROTOCOL
    }

    fn quota(&self) -> Quota {
        QUOTA
    }

    fn accept(&self, stream: Stream) -> BoxFuture<'static, ()> {
        let (peer, path) = (stream.peer(), stream.path());
        let (registry, break_after) = (self.registry.clone(), self.break_after);
        let (requests, bytes) = (Arc::clone(&self.requests), Arc::clone(&self.bytes));
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (mut from_server, mut to_server) = split(near);
            let (mut from_fetcher, mut to_fetcher) = split(stream);
            let asking = async {
                while let Ok(Some(request)) =
                    frame::read_bytes(&mut from_fetcher, MAX_REQUEST).await
                {
                    requests.fetch_add(1, Ordering::Relaxed);
                    frame::write_bytes(&mut to_server, &request, MAX_REQUEST)
                        .await
                        .unwrap();
                }
                to_server.shutdown().await.unwrap();
                std::future::pending::<()>().await;
            };
            let answering = async {
                let mut buffer = vec![0; 32 * 1024];
                let mut left = break_after;
                while let Ok(got @ 1..) = from_server.read(&mut buffer).await {
                    bytes.fetch_add(got as u64, Ordering::Relaxed);
                    left = left.saturating_sub(got as u64);
                    if left == 0 || to_fetcher.write_all(&buffer[..got]).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = asking => {}
                () = answering => {}
                _ = serve(far, peer, path, &registry) => {}
            }
        })
    }
}

/// An honest holder that says nothing before `peer` was blamed: however the tasks are scheduled, a
/// fetch cannot be over before the bad holder was asked and found out.
pub(super) struct Late {
    registry: Registry,
    memory: Memory,
    peer: DeviceId,
}

impl Late {
    pub(super) fn until_blamed(memory: &Memory, peer: DeviceId, node: &Node) -> Self {
        Self {
            registry: node.protocols.registry().clone(),
            memory: memory.clone(),
            peer,
        }
    }
}

impl Handler for Late {
    fn protocol(&self) -> Protocol {
        PROTOCOL
    }

    fn quota(&self) -> Quota {
        QUOTA
    }

    fn accept(&self, stream: Stream) -> BoxFuture<'static, ()> {
        let (registry, memory, liar) = (self.registry.clone(), self.memory.clone(), self.peer);
        Box::pin(async move {
            let is_blamed = || memory.blamed().iter().any(|(_, who, _)| *who == liar);
            eventually("the liar is found out", is_blamed).await;
            let (peer, path) = (stream.peer(), stream.path());
            // How it ends is the fetcher's affair.
            drop(serve(stream, peer, path, &registry).await);
        })
    }
}

/// What a bad holder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Chunks of the right length with other bytes.
    WrongBytes,
    /// Chunks of another length.
    WrongLength,
    /// Frames that mean nothing.
    Garbage,
    /// A frame that is longer than any may be.
    TooLarge,
    /// A few bytes that say they are a megabyte of zstd.
    Bomb,
    /// Nothing at all.
    Silent,
}

impl Habit {
    pub(super) fn blame(self) -> Misbehaviour {
        match self {
            Self::WrongBytes | Self::WrongLength | Self::Bomb => Misbehaviour::BadChunk,
            Self::Garbage | Self::TooLarge | Self::Silent => Misbehaviour::BadFrame,
        }
    }
}

/// A member that serves badly.
pub(super) struct Liar {
    habit: Habit,
    store: Store,
    pub(super) was_asked: Arc<AtomicBool>,
}

impl Liar {
    pub(super) fn new(habit: Habit, node: &Node) -> Self {
        Self {
            habit,
            store: node.store.clone(),
            was_asked: Arc::default(),
        }
    }
}

impl Handler for Liar {
    fn protocol(&self) -> Protocol {
        PROTOCOL
    }

    fn quota(&self) -> Quota {
        QUOTA
    }

    fn accept(&self, mut stream: Stream) -> BoxFuture<'static, ()> {
        let (habit, store, was_asked) =
            (self.habit, self.store.clone(), Arc::clone(&self.was_asked));
        Box::pin(async move {
            let Ok(Some(Open { .. })) = frame::read(&mut stream, MAX_REQUEST).await else {
                return;
            };
            write_reply(&mut stream, &Reply::Opened).await.unwrap();
            while let Ok(Some(request)) = frame::read(&mut stream, MAX_REQUEST).await {
                was_asked.store(true, Ordering::Relaxed);
                if habit == Habit::Silent {
                    std::future::pending::<()>().await;
                }
                if answer(&mut stream, habit, &store, request).await.is_err() {
                    return; // it was found out
                }
            }
        })
    }
}

async fn answer(
    stream: &mut Stream,
    habit: Habit,
    store: &Store,
    request: Request,
) -> std::io::Result<()> {
    let ids: Vec<ChunkId> = match request {
        Request::Have(content) => {
            return write_reply(stream, &Reply::Held(store.holding(&content).unwrap())).await;
        }
        Request::Manifest(content) => vec![content.id.first_blob()],
        Request::Chunks(ids) => ids,
    };
    for id in ids {
        let honest = store.read(&id).map_or(1000, |bytes| bytes.len());
        let chunk = |codec, len: usize, bytes: Vec<u8>| {
            let len = u32::try_from(len).unwrap();
            Reply::Chunk(Encoded {
                codec,
                len,
                bytes: Bytes::from(bytes),
            })
        };
        match habit {
            Habit::WrongBytes => {
                write_reply(stream, &chunk(Codec::Raw, honest, vec![7; honest])).await?;
            }
            Habit::WrongLength => {
                write_reply(stream, &chunk(Codec::Raw, honest + 1, vec![7; honest + 1])).await?;
            }
            Habit::Bomb => write_reply(stream, &chunk(Codec::Zstd, MIB, vec![7; 9])).await?,
            Habit::Garbage => stream.write_all(&[3, 0, 0, 0, 0xee, 1, 2]).await?,
            Habit::TooLarge => stream.write_all(&[0xff; 64]).await?,
            Habit::Silent => {}
        }
        stream.flush().await?;
    }
    Ok(())
}
