//! The handle: everything that other rooms do with the network goes through [`Network`].
//!
//! It builds the parts, owns their tasks and stops them in order. What the methods mean is decided in
//! `actor` (connections) and `protocol` (meshes, chunks, invites); here is no logic.

mod listen;
mod membership;
#[cfg(test)]
mod tests;
mod wiring;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use libp2p::{Swarm, swarm};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wormhole_crdt::{DeviceId, MeshId};
use wormhole_store::FetchJob;

use self::{membership::Membership, wiring::Wiring};
use crate::{
    actor::{Actor, Parts, Statuses},
    address::PeerAddr,
    attachment::{AttachedMesh, Exchange},
    behaviour::Behaviour,
    config::NetworkConfig,
    discovery::{self, Book, Presence},
    error::{BindError, DialError},
    fetch::{FetchError, Transfer},
    identity::Identity,
    invite::{Asking, Invite, InviteError, InviteOffer, JoinError, Joined, Wish},
    limit::{Limits, RateLimits},
    peer::{Neighbour, NetworkEvent, PeerStatus},
    protocol::{LocalDevice, Protocols},
    report::Report,
    serve::Upload,
    streams::{Discovered, Handler, Streams},
    transport::{self, Endpoints, Rooms},
};

/// An idle connection that nobody holds is closed after this.
const IDLE: Duration = Duration::from_secs(30);

/// Streams of one connection that may negotiate their protocol at once.
const NEGOTIATING: usize = 32;

/// How long peers get to hear that we are leaving.
const FAREWELL: Duration = Duration::from_secs(1);

/// This device on the network. Cheap to clone; all clones are the same network.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    device: DeviceId,
    listening: Vec<SocketAddr>,
    streams: Streams,
    protocols: Protocols,
    statuses: watch::Receiver<Statuses>,
    events: broadcast::Sender<NetworkEvent>,
    limits: Arc<Limits>,
    #[cfg(test)]
    book: Arc<Mutex<Book>>,
    membership: Arc<Membership>,
    tasks: Mutex<Option<Tasks>>,
}

/// What runs, in the order in which it is stopped.
struct Tasks {
    /// Discovery and the protocols: they use the actor.
    users: JoinSet<()>,
    users_cancel: CancellationToken,
    actor: JoinSet<()>,
    actor_cancel: CancellationToken,
    /// libp2p's and quinn's tasks, ended by the end of the swarm. Then the sockets are closed.
    connections: TaskTracker,
    endpoints: Endpoints,
}

impl Tasks {
    fn new(connections: TaskTracker, endpoints: Endpoints) -> Self {
        Self {
            users: JoinSet::new(),
            users_cancel: CancellationToken::new(),
            actor: JoinSet::new(),
            actor_cancel: CancellationToken::new(),
            connections,
            endpoints,
        }
    }

    fn start_users(&mut self, membership: &Arc<Membership>, protocols: &Protocols) {
        let cancel = &self.users_cancel;
        let (membership, protocols) = (Arc::clone(membership), protocols.clone());
        self.users.spawn(membership.run(cancel.clone()));
        let ending = cancel.clone();
        self.users.spawn(async move { protocols.run(ending).await });
    }
}

impl Network {
    /// Starts listening, discovery and the protocols.
    ///
    /// # Errors
    ///
    /// [`BindError`]; then nothing is left running.
    pub async fn bind(identity: Identity, config: NetworkConfig) -> Result<Self, BindError> {
        Self::bind_with(identity, config, Vec::new()).await
    }

    /// [`Network::bind`] with more protocols than our own.
    pub(crate) async fn bind_with(
        identity: Identity,
        config: NetworkConfig,
        mut handlers: Vec<Arc<dyn Handler>>,
    ) -> Result<Self, BindError> {
        let device = identity.device_id();
        let book = Arc::new(Mutex::new(open_book(&config).await?));
        let limits = Arc::new(Limits::new(config.limits));
        let wiring = Wiring::new();
        let (streams, events) = (wiring.streams, wiring.events);
        let local = LocalDevice {
            id: device,
            name: config.device_name.clone(),
        };
        let protocols = Protocols::new(local, streams.clone(), events.clone());
        handlers.extend(protocols.handlers());

        let connections = TaskTracker::new();
        let (mut swarm, endpoints) = swarm(&identity, &handlers, &connections)?;
        let listening = listen::listen(&mut swarm, &config)?;
        let port = listening.first().map_or(config.port, SocketAddr::port);
        tracing::info!(%device, ?listening, "listening");

        let actor = Actor::new(Parts {
            swarm,
            inlets: wiring.inlets,
            outlets: wiring.outlets,
            handlers,
            book: Arc::clone(&book),
            limits: Arc::clone(&limits),
        });
        let membership = Arc::new(Membership::new(device, wiring.wanted));
        let mut tasks = Tasks::new(connections, endpoints);
        tasks.actor.spawn(actor.run(tasks.actor_cancel.clone()));
        tasks.start_users(&membership, &protocols);
        let presence = Presence {
            key: identity.device_key(),
            port,
            nameplates: wiring.nameplates,
        };
        discovery::start(
            &config,
            &presence,
            &wiring.sightings,
            &mut tasks.users,
            &tasks.users_cancel,
        );

        let tasks = Mutex::new(Some(tasks));
        let inner = Inner {
            device,
            listening,
            streams,
            protocols,
            statuses: wiring.statuses,
            events,
            limits,
            #[cfg(test)]
            book,
            membership,
            tasks,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Stops in order: discovery and protocols, streams, connections, sockets. Joins every task. A second
    /// call (on another clone) returns at once.
    pub async fn shutdown(self) {
        let tasks = self
            .inner
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut tasks) = tasks else { return };
        tasks.users_cancel.cancel();
        join(&mut tasks.users).await;
        tasks.actor_cancel.cancel();
        join(&mut tasks.actor).await;
        tasks.endpoints.close(FAREWELL).await;
        tasks.connections.close();
        if tokio::time::timeout(FAREWELL, tasks.connections.wait())
            .await
            .is_err()
        {
            tracing::debug!("some connections did not end in time");
        }
    }

    /// This device.
    pub fn device_id(&self) -> DeviceId {
        self.inner.device
    }

    /// The addresses at which others can reach this device now, as far as it knows. The port is the same
    /// for QUIC and TCP.
    pub fn listen_addrs(&self) -> Vec<PeerAddr> {
        listen::reachable(&self.inner.listening)
    }

    /// Carries a mesh: stays connected to its members, exchanges metadata with them, serves them chunks.
    pub fn attach(&self, mesh: AttachedMesh) {
        self.inner.membership.add(mesh.replica.clone());
        self.inner.protocols.attach(mesh);
    }

    /// Stops carrying a mesh; its exchanges, fetches and invites end.
    pub fn detach(&self, mesh: MeshId) {
        self.inner.protocols.detach(mesh);
        self.inner.membership.remove(&mesh);
    }

    /// Stops everything that is done for one mesh, while the connections stay.
    pub fn pause(&self, mesh: MeshId) {
        self.inner.protocols.pause(mesh);
    }

    /// Goes on after [`Network::pause`].
    pub fn resume(&self, mesh: MeshId) {
        self.inner.protocols.resume(mesh);
    }

    /// Brings contents from all members that have them, each verified before its sink sees it. One result
    /// per job, in order. Small contents travel together.
    pub async fn fetch(
        &self,
        mesh: MeshId,
        jobs: Vec<FetchJob>,
        cancel: CancellationToken,
    ) -> Vec<Result<(), FetchError>> {
        self.inner.protocols.fetch(mesh, jobs, cancel).await
    }

    /// Contents that are being brought now.
    pub fn transfers(&self) -> Vec<Transfer> {
        self.inner.protocols.transfers()
    }

    /// Content that is being sent to members now, for each of them and each mesh.
    pub fn uploads(&self) -> Vec<Upload> {
        self.inner.protocols.uploads()
    }

    /// Waits until some other device has said that it has the membership of a mesh as it is now. Once this device
    /// has left: that it has heard of it.
    pub async fn until_members_agreed(&self, mesh: MeshId) {
        self.inner.protocols.until_members_agreed(mesh).await;
    }

    /// Tells the members of a mesh this of this device: now, and whenever one connects, until another is given.
    pub fn report(&self, mesh: MeshId, report: Report) {
        self.inner.protocols.report(mesh, report);
    }

    /// The members that metadata is exchanged with.
    pub fn sync_state(&self, mesh: MeshId) -> Vec<Exchange> {
        self.inner.protocols.sync_state(mesh)
    }

    /// Opens an invite to a mesh: a code to read out, and a link with our addresses.
    ///
    /// # Errors
    ///
    /// [`InviteError`], for instance if this device may not invite.
    pub fn invite(&self, mesh: MeshId, offer: InviteOffer) -> Result<Invite, InviteError> {
        self.inner
            .protocols
            .invite(mesh, offer, self.listen_addrs())
    }

    /// The invites that are still good, with their codes and links.
    pub fn invites(&self) -> Vec<Invite> {
        self.inner.protocols.invites(&self.listen_addrs())
    }

    /// The devices that wait for a person here to admit them.
    pub fn asking(&self) -> Vec<Asking> {
        self.inner.protocols.asking()
    }

    /// Admits or refuses a device that waits. False if it does not (any more).
    pub fn decide(&self, mesh: MeshId, device: DeviceId, admit: bool) -> bool {
        self.inner.protocols.decide(mesh, device, admit)
    }

    /// Joins a mesh by a code or a link. The inviter is looked for on the LAN, at the given addresses, and at
    /// those in the link. The caller then opens a replica and a store and attaches them.
    ///
    /// # Errors
    ///
    /// [`JoinError`] says whose turn it is to do what; [`JoinError::Undecided`] shows what would be joined.
    pub async fn join(
        &self,
        wish: &Wish<'_>,
        cancel: &CancellationToken,
    ) -> Result<Joined, JoinError> {
        self.inner.protocols.join(wish, cancel).await
    }

    /// Connects to whoever answers at `addr` and says who it is; by QUIC, or by TCP if that does not
    /// answer. Cancel-safe: a dropped dial goes on and is forgotten.
    ///
    /// # Errors
    ///
    /// [`DialError`] says what is wrong with the address.
    pub async fn dial(&self, addr: &PeerAddr) -> Result<DeviceId, DialError> {
        self.inner.streams.dial(*addr).await
    }

    /// Devices that discovery sees on the local network now, members or not. Nothing about them is proved.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        let seen = self.inner.streams.discovered();
        let seen = seen.borrow();
        let neighbour = |seen: &Discovered| Neighbour {
            device: seen.device,
            addrs: seen.addrs.clone(),
        };
        seen.iter().map(neighbour).collect()
    }

    /// Every connected peer, and every member that is not connected.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.inner.statuses.borrow().to_vec()
    }

    /// What happens from now on. A follower that is too slow misses events; the state is in
    /// [`Network::peers`].
    pub fn events(&self) -> broadcast::Receiver<NetworkEvent> {
        self.inner.events.subscribe()
    }

    /// Changes the bandwidth limits of the node, also for what is under way.
    pub fn set_limits(&self, limits: RateLimits) {
        self.inner.limits.set(limits);
    }

    /// Changes the bandwidth limits of one mesh, also for what is under way. Those of the node hold too.
    pub fn set_mesh_limits(&self, mesh: MeshId, limits: RateLimits) {
        self.inner.protocols.limit(mesh, limits);
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("device", &self.inner.device)
            .field("listening", &self.inner.listening)
            .finish_non_exhaustive()
    }
}

async fn open_book(config: &NetworkConfig) -> Result<Book, BindError> {
    let file = config.book.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let book = Book::open(file.as_deref());
        book.map_err(|source| BindError::Book {
            path: file.unwrap_or_default(),
            source,
        })
    });
    opened.await.expect("reading a file does not panic")
}

/// A swarm that does not listen yet, and its UDP sockets to be.
fn swarm(
    identity: &Identity,
    handlers: &[Arc<dyn Handler>],
    tasks: &TaskTracker,
) -> Result<(Swarm<Behaviour>, Endpoints), BindError> {
    let keypair = identity.keypair();
    let names: Vec<_> = handlers.iter().map(|handler| handler.protocol()).collect();
    let rooms = Rooms::default();
    let (transport, endpoints) = transport::build(&keypair, tasks.clone(), &rooms)?;
    let behaviour = Behaviour::new(identity.device_id(), &names, rooms);
    let peer = keypair.public().to_peer_id();
    Ok((
        Swarm::new(transport, behaviour, peer, swarm_config(tasks.clone())),
        endpoints,
    ))
}

/// libp2p's own settings. Its tasks are tracked, so that the end of the network is the end of them.
fn swarm_config(connections: TaskTracker) -> swarm::Config {
    let spawn = move |task| drop(connections.spawn(task)); // tracked, not detached
    swarm::Config::with_executor(spawn)
        .with_idle_connection_timeout(IDLE)
        .with_max_negotiating_inbound_streams(NEGOTIATING)
}

async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a network task panicked");
        }
    }
}
