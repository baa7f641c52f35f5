//! Nodes without sockets, for tests: real replicas, stores and protocols over a network in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use redb::{Database, backends::InMemoryBackend};
use tempfile::TempDir;
use tokio::{sync::broadcast, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{
    DeviceId, DeviceKey, Edit, EntryId, FileInput, MeshId, NewMesh, NewNode, Replica, Role,
    Timestamp, Welcome,
};
use wormhole_store::{Content, ContentKey, FetchJob, Store, StoreOptions};

use crate::{
    AttachedMesh, NetworkEvent,
    protocol::{LocalDevice, Protocols},
    streams::{Streams, memory::Memory},
    version::{Capabilities, Terms},
};

/// The least that a test waits for what must happen; reached only when it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What devices have agreed on that say no hello.
pub(crate) const TERMS: Terms = Terms {
    version: 1,
    capabilities: Capabilities::OURS,
};

/// A network in memory with a clock of its own.
pub(crate) struct Lab {
    pub(crate) memory: Memory,
    clock: Arc<AtomicI64>,
    tasks: JoinSet<()>,
}

/// A node with a store; its protocols run.
pub(crate) struct Node {
    pub(crate) key: DeviceKey,
    pub(crate) id: DeviceId,
    pub(crate) streams: Streams,
    pub(crate) protocols: Protocols,
    pub(crate) events: broadcast::Receiver<NetworkEvent>,
    pub(crate) store: Store,
    _dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(AtomicI64::new(1_000_000_000_000));
        Self {
            memory: Memory::default(),
            clock,
            tasks: JoinSet::new(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::Relaxed))
    }

    /// Turns the clock that invites go by.
    pub(crate) fn advance(&self, time: Duration) {
        let nanos = i64::try_from(time.as_nanos()).unwrap();
        self.clock.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn node(&mut self, seed: u8) -> Node {
        let key = DeviceKey::from_seed([seed; 32]);
        let id = key.device_id();
        let streams = self.memory.add(id);
        let (events_tx, events) = broadcast::channel(64);
        let clock = Arc::clone(&self.clock);
        let clock = Arc::new(move || Timestamp(clock.load(Ordering::Relaxed)));
        let local = LocalDevice {
            id,
            name: format!("node {seed}"),
        };
        let protocols = Protocols::with_clock(local, streams.clone(), events_tx, clock);
        for handler in protocols.handlers() {
            self.memory.serve(id, handler);
        }
        let running = protocols.clone();
        self.tasks
            .spawn(async move { running.run(CancellationToken::new()).await });
        let dir = tempfile::tempdir().unwrap();
        let content_key = ContentKey::from_bytes([7; 32]);
        let store = Store::open(dir.path(), content_key, StoreOptions::default()).unwrap();
        Node {
            key,
            id,
            streams,
            protocols,
            events,
            store,
            _dir: dir,
        }
    }

    /// A mesh founded by `node`, attached to it.
    pub(crate) fn found(&self, node: &Node) -> Replica {
        let mesh = NewMesh {
            name: "Designs".into(),
            device_name: "founder".into(),
            key: node.key.clone(),
        };
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let replica = Replica::create(database(), &mesh, self.now(), &mut rng).unwrap();
        node.attach(&replica);
        replica
    }

    /// Admits `node` to `mesh` without an invite, and attaches it.
    pub(crate) fn admit(&self, mesh: &Replica, node: &Node, role: Role) -> Replica {
        mesh.admit(node.id, "member", role, self.now()).unwrap();
        node.start(&mesh.welcome())
    }
}

impl Node {
    pub(crate) fn start(&self, welcome: &Welcome) -> Replica {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let replica = Replica::join(database(), welcome, self.key.clone(), &mut rng).unwrap();
        self.attach(&replica);
        replica
    }

    pub(crate) fn attach(&self, replica: &Replica) {
        self.protocols.attach(AttachedMesh {
            replica: replica.clone(),
            store: self.store.clone(),
            limits: crate::RateLimits::default(),
            paused: false,
        });
    }

    /// Waits until the peer has proved the mesh to this node.
    pub(crate) async fn sees(&self, peer: &Self, mesh: MeshId) {
        let what = format!("{:?} sees {:?}", self.id, peer.id);
        eventually(&what, || self.protocols.shared(&peer.id).contains(&mesh)).await;
    }

    /// Keeps random bytes and gives their content.
    pub(crate) fn import(&self, seed: u64, bytes: usize) -> Content {
        let mut data = vec![0; bytes];
        ChaCha20Rng::seed_from_u64(seed).fill(&mut data[..]);
        self.store.import_copy(&mut data.as_slice()).unwrap()
    }

    /// A job that keeps a content in this node's own store.
    pub(crate) fn job(&self, content: Content) -> FetchJob {
        FetchJob {
            content,
            label: "a file".into(),
            sink: Arc::new(self.store.clone()),
        }
    }

    pub(crate) fn has(&self, content: &Content) -> bool {
        self.store
            .holding(content)
            .is_ok_and(|held| held == wormhole_store::Holding::All)
    }
}

/// Creates a file at the top of the tree.
pub(crate) fn create_file(replica: &Replica, name: &str, content: Content) {
    let mut rng = ChaCha20Rng::from_seed(*blake3::hash(name.as_bytes()).as_bytes());
    let edit = Edit::Create {
        id: EntryId::random(&mut rng),
        parent: EntryId::ROOT,
        name: name.parse().unwrap(),
        node: NewNode::File(FileInput {
            content,
            mtime: Timestamp(1),
        }),
        mode: None,
    };
    replica.edit(&[edit], Timestamp(1)).unwrap();
}

pub(crate) fn database() -> Database {
    Database::builder()
        .create_with_backend(InMemoryBackend::new())
        .unwrap()
}

/// Waits until it is so. Looks again after every step of the other tasks.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        timeout(PATIENCE, waiting).await.is_ok(),
        "never came about: {what}"
    );
}
