//! A network in memory, for tests: devices with handlers, streams that are pipes.
//!
//! Quotas and connections do not exist here; everything a protocol can see through [`Streams`] does.
//! A test cuts a device off with [`Memory::cut`] and finds out who was blamed with [`Memory::blamed`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::{mpsc, watch},
    task::JoinSet,
};
use wormhole_crdt::DeviceId;

use super::{
    Command, Connected, ConnectedPeers, Discovered, Handler, Protocol, Stream, Streams, Verdict,
};
use crate::{
    address::{PeerAddr, Wire},
    error::{DialError, OpenError},
    limit::{Limits, Meter, RateLimits, Urgency},
    peer::{Misbehaviour, PathKind},
};

/// Bytes that a pipe holds before its writer waits.
const PIPE_BYTES: usize = 64 * 1024;

/// The devices, their handlers and what was reported about them. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<DeviceId, Node>,
    blamed: Vec<(DeviceId, DeviceId, Misbehaviour)>,
    limits: BTreeMap<DeviceId, Arc<Limits>>,
    busy: BTreeMap<(DeviceId, Protocol), u32>,
    epoch: u64,
    tasks: JoinSet<()>,
}

struct Node {
    handlers: BTreeMap<Protocol, Arc<dyn Handler>>,
    connected: watch::Sender<ConnectedPeers>,
    discovered: watch::Sender<Arc<Vec<Discovered>>>,
    nameplates: Arc<watch::Sender<BTreeSet<String>>>,
    reachable: bool,
}

impl Memory {
    /// Adds a device. It is connected to every device that was added before, if they are reachable.
    ///
    /// Call [`Memory::serve`] to give it handlers (which often need the handle first).
    pub(crate) fn add(&self, device: DeviceId) -> Streams {
        let (commands, inbox) = mpsc::channel(64);
        let (connected, connected_rx) = watch::channel(ConnectedPeers::default());
        let (discovered, discovered_rx) = watch::channel(Arc::default());
        let nameplates = Arc::new(watch::channel(BTreeSet::new()).0);
        let streams = Streams::new(
            commands,
            connected_rx,
            discovered_rx,
            Arc::clone(&nameplates),
        );
        let mut inner = self.lock();
        let node = Node {
            handlers: BTreeMap::new(),
            connected,
            discovered,
            nameplates,
            reachable: true,
        };
        inner.nodes.insert(device, node);
        inner.tasks.spawn(self.clone().run(device, inbox));
        inner.refresh();
        streams
    }

    /// Registers a handler of a device.
    pub(crate) fn serve(&self, device: DeviceId, handler: Arc<dyn Handler>) {
        let mut inner = self.lock();
        let node = inner.nodes.get_mut(&device).expect("added before");
        node.handlers.insert(handler.protocol(), handler);
    }

    /// Makes a device unreachable (or reachable again) for new streams. Open ones go on.
    pub(crate) fn cut(&self, device: DeviceId, reachable: bool) {
        let mut inner = self.lock();
        inner
            .nodes
            .get_mut(&device)
            .expect("added before")
            .reachable = reachable;
        inner.refresh();
    }

    /// Limits what a device sends and receives on streams that are opened from now on.
    pub(crate) fn limit(&self, device: DeviceId, rates: RateLimits) {
        let limits = Arc::new(Limits::new(rates));
        self.lock().limits.insert(device, limits);
    }

    /// Lets a device refuse the next `times` streams of a protocol, as one at its quota does.
    pub(crate) fn busy(&self, device: DeviceId, protocol: Protocol, times: u32) {
        self.lock().busy.insert((device, protocol), times);
    }

    /// Shows everybody's nameplates to everybody, as discovery would.
    pub(crate) fn discover(&self) {
        let inner = self.lock();
        for (device, node) in &inner.nodes {
            let others = inner.nodes.iter().filter(|(other, _)| *other != device);
            let seen = others.map(|(other, node)| Discovered {
                device: *other,
                addrs: Vec::new(),
                nameplates: node.nameplates.borrow().clone(),
            });
            node.discovered.send_replace(Arc::new(seen.collect()));
        }
    }

    /// Who blamed whom for what.
    pub(crate) fn blamed(&self) -> Vec<(DeviceId, DeviceId, Misbehaviour)> {
        self.lock().blamed.clone()
    }

    async fn run(self, device: DeviceId, mut inbox: mpsc::Receiver<Command>) {
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Open {
                    peer,
                    protocol,
                    reply,
                } => {
                    let opened = self.connect(device, peer, protocol);
                    if reply.send(opened).is_err() {
                        tracing::trace!("the opener went away");
                    }
                }
                Command::Dial { addr, reply } => {
                    let unreachable = Err(DialError::Unreachable { addr });
                    if reply.send(unreachable).is_err() {
                        tracing::trace!("the dialler went away");
                    }
                }
                Command::Describe { .. } => {}
                Command::Misbehaved { peer, reason } => {
                    self.lock().blamed.push((device, peer, reason));
                }
            }
        }
    }

    fn connect(
        &self,
        from: DeviceId,
        to: DeviceId,
        protocol: Protocol,
    ) -> Result<Stream, OpenError> {
        let mut inner = self.lock();
        let up = |device| inner.nodes.get(&device).is_some_and(|node| node.reachable);
        if !up(from) || !up(to) {
            let source = DialError::NoAddress { device: to };
            return Err(OpenError::Unreachable { peer: to, source });
        }
        if let Some(times @ 1..) = inner.busy.get_mut(&(to, protocol)) {
            *times -= 1;
            return Err(OpenError::PeerQuota { peer: to, protocol });
        }
        let handler = inner
            .nodes
            .get(&to)
            .and_then(|node| node.handlers.get(&protocol))
            .cloned();
        let handler = handler.ok_or(OpenError::Unsupported { peer: to, protocol })?;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let ours = inner.stream(ours, from, to, protocol);
        let mut theirs = inner.stream(theirs, to, from, protocol);
        inner.tasks.spawn(async move {
            if theirs.write_u8(Verdict::Accepted as u8).await.is_ok() {
                handler.accept(theirs).await;
            }
        });
        Ok(ours)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("a test that panicked ends here too")
    }
}

impl Inner {
    /// `of`'s end of a pipe to `peer`, under its limits.
    fn stream(
        &self,
        pipe: DuplexStream,
        of: DeviceId,
        peer: DeviceId,
        protocol: Protocol,
    ) -> Stream {
        match self.limits.get(&of) {
            None => Stream::new(pipe, peer, PathKind::Local),
            Some(limits) => {
                let meter = Meter {
                    traffic: Arc::default(),
                    limits: Arc::clone(limits),
                    urgency: Urgency::of(protocol),
                };
                meter.around(pipe, peer, PathKind::Local)
            }
        }
    }

    /// Tells every device whom it is connected to; a device that comes back gets a new epoch.
    fn refresh(&mut self) {
        self.epoch += 1;
        let up: Vec<DeviceId> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.reachable)
            .map(|(id, _)| *id)
            .collect();
        for (device, node) in &self.nodes {
            let before = node.connected.borrow().clone();
            let peers = up.iter().filter(|peer| node.reachable && *peer != device);
            let now = peers.map(|peer| {
                let fresh = || Connected {
                    epoch: self.epoch,
                    path: PathKind::Local,
                    wire: Wire::Quic,
                    addr: address(peer),
                };
                (*peer, before.get(peer).cloned().unwrap_or_else(fresh))
            });
            node.connected.send_replace(Arc::new(now.collect()));
        }
    }
}

/// Where a device is: every one somewhere else on this machine.
fn address(device: &DeviceId) -> PeerAddr {
    let [a, b, c, ..] = *device.as_bytes();
    PeerAddr::on(Wire::Quic, ([127, a, b, c], 1).into())
}
