//! The node: starts everything in order, owns it, and stops it in order.
//!
//! [`Node`] is a handle; its operations are in the modules below, one for each thing that a person
//! asks of a node. What moves by itself is elsewhere: `outbound` and `inbound` (changes), `policy`
//! (which content to fetch), `follow` (what the network and folders tell).

mod afresh;
mod comeback;
mod conflict;
mod control;
mod folder;
mod invite;
mod join;
mod leave;
mod local;
mod lookup;
mod member;
mod newcomer;
mod relocate;
mod reopen;
mod share;
mod trash;
mod tree;
mod twin;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;
use wormhole_crdt::{DeviceId, MeshId, Timestamp};
use wormhole_mesh::{BindError, Discovery, Identity, Network, NetworkConfig, PeerAddr};

use crate::api::{MeshRef, Server};
use crate::config::{Config, Switch};
use crate::error::{LookupError, SpawnError};
use crate::event::{EventBus, EventKind, now_ms};
use crate::home::{Home, socket_path};
use crate::tasks::Tasks;
use crate::{follow, upkeep};

pub use control::Flow;
use control::SavedLimits;
pub(crate) use local::{Bound, FolderState, LocalMesh, blocking};
use newcomer::Newcomers;
pub(crate) use reopen::BrokenMesh;
use twin::Twin;

/// A handle to the running node; clones are the same node.
#[derive(Debug, Clone)]
#[must_use = "a node runs until it is shut down"]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    home: Home,
    config: Config,
    identity: Identity,
    network: Network,
    tasks: Tasks,
    events: EventBus,
    meshes: RwLock<BTreeMap<MeshId, Arc<LocalMesh>>>,
    broken: Mutex<Vec<BrokenMesh>>,
    /// Held by share, join, leave, sync and unbind while they check and record: what they check must
    /// still hold when they act. Never over a search of the network or a scan.
    changing: tokio::sync::Mutex<()>,
    /// Held by pause, resume and limit while they save and apply a setting.
    steering: tokio::sync::Mutex<()>,
    limits: Mutex<SavedLimits>,
    twin: Twin,
    newcomers: Newcomers,
    /// Cancelled first, so that the API takes no more requests while the rest still works.
    closing: CancellationToken,
    stop_asked: CancellationToken,
    started_ms: i64,
}

/// Why a node stopped by itself or was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody asked for it.
    Asked,
    /// A task panicked: a fault of the program.
    TaskPanicked {
        /// The task.
        name: &'static str,
    },
}

impl Node {
    /// Starts a node: network, meshes, folders, local API, in this order.
    ///
    /// A mesh or folder that cannot be opened is logged and shown in the status; it does not keep
    /// the others from starting.
    ///
    /// # Errors
    /// A [`SpawnError`]; nothing is left running.
    pub async fn spawn(home: Home, config: Config) -> Result<Self, SpawnError> {
        let socket = socket_path(home.dir())?;
        let limits = SavedLimits::load(&home.limits_path())?;
        let newcomers = Newcomers::load(&home);
        let seed = home.device_seed()?;
        let identity = Identity::from_bytes(seed.as_slice()).expect("the home checked the length");
        let network = bind_network(&home, &config, &identity).await?;
        let node = Self {
            inner: Arc::new(Inner {
                home,
                config,
                identity,
                network,
                tasks: Tasks::new(),
                events: EventBus::default(),
                meshes: RwLock::default(),
                broken: Mutex::default(),
                changing: tokio::sync::Mutex::default(),
                steering: tokio::sync::Mutex::default(),
                limits: Mutex::new(limits),
                twin: Twin::default(),
                newcomers,
                closing: CancellationToken::new(),
                stop_asked: CancellationToken::new(),
                started_ms: now_ms(),
            }),
        };
        match node.start(socket).await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.shutdown().await;
                Err(error)
            }
        }
    }

    async fn start(&self, socket: PathBuf) -> Result<(), SpawnError> {
        self.apply_limits();
        self.tasks()
            .spawn("network events", follow::network(self.clone()))?;
        self.tasks()
            .spawn("transfer events", follow::transfers(self.clone()))?;
        for record in self.home().records()? {
            match record {
                Ok(record) => {
                    let name = record.name.clone();
                    let id = record.mesh.to_string();
                    if let Err(error) = self.open_mesh(record.clone()).await {
                        self.note_broken(MeshRef { id, name }, Some(record), &error);
                    }
                }
                Err(error) => {
                    let reference = MeshRef {
                        name: error.mesh.chars().take(12).collect(),
                        id: error.mesh,
                    };
                    self.note_broken(reference, None, &error.source);
                }
            }
        }
        self.tasks().spawn("reopen", reopen::watch(self.clone()))?;
        self.tasks()
            .spawn("sweep", upkeep::sweep_stores(self.clone()))?;
        self.tasks()
            .spawn("check", upkeep::check::check_stores(self.clone()))?;
        let server = Server::bind(&socket).map_err(|source| SpawnError::Socket {
            path: socket,
            source,
        })?;
        let closing = self.inner.closing.clone();
        self.tasks()
            .spawn("api", server.serve(self.clone(), closing))?;
        self.events().raise(EventKind::NodeStarted {
            device: self.device().to_string(),
            addresses: self.addresses(),
        });
        tracing::info!(device = %self.device(), home = %self.home().dir().display(), "the node is up");
        Ok(())
    }

    /// Waits until somebody asks the node to stop, or a task of it fails. Cancel safe.
    pub async fn join(&self) -> Ended {
        tokio::select! {
            biased;
            () = self.inner.stop_asked.cancelled() => Ended::Asked,
            name = self.tasks().failed() => Ended::TaskPanicked { name },
        }
    }

    /// Asks whoever waits in [`Node::join`] to shut the node down.
    pub fn request_stop(&self) {
        self.inner.stop_asked.cancel();
    }

    /// Stops the node: the API, the folders, the other tasks, the network, then the databases. Joins
    /// every task. What had been acknowledged before is on disk when it returns.
    ///
    /// Not cancel safe: run it to its end.
    pub async fn shutdown(self) {
        self.events().close(EventKind::NodeStopping);
        tracing::info!("the node stops");
        self.inner.closing.cancel();
        let meshes = self.local_meshes();
        for mesh in &meshes {
            mesh.stop_folders().await;
        }
        self.tasks().stop().await;
        self.network().clone().shutdown().await;
        self.inner
            .meshes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        for mesh in meshes {
            if let Err(error) = mesh.close().await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "a mesh was not closed cleanly");
            }
        }
        self.home().release();
        tracing::info!("the node has stopped");
    }

    /// The id of this device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.inner.identity.device_id()
    }

    /// The addresses at which other devices can reach this node.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.network()
            .listen_addrs()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Finds the mesh that a person named: by its whole name, or by the beginning of its id.
    pub(crate) fn lookup(&self, wanted: &str) -> Result<Arc<LocalMesh>, LookupError> {
        let found = lookup::find_mesh(self.local_meshes(), wanted);
        found.map_err(|error| match error {
            LookupError::Unknown { .. } => self.why_closed(wanted).unwrap_or(error),
            LookupError::Ambiguous { .. } | LookupError::Closed { .. } => error,
        })
    }

    /// The named mesh, or all of them.
    pub(crate) fn lookup_all(
        &self,
        wanted: Option<&str>,
    ) -> Result<Vec<Arc<LocalMesh>>, LookupError> {
        match wanted {
            Some(wanted) => Ok(vec![self.lookup(wanted)?]),
            None => Ok(self.local_meshes()),
        }
    }

    /// The meshes that this device is in, by name.
    pub(crate) fn local_meshes(&self) -> Vec<Arc<LocalMesh>> {
        let meshes = self
            .inner
            .meshes
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut meshes: Vec<_> = meshes.values().cloned().collect();
        meshes.sort_by(|a, b| a.name().cmp(b.name()).then_with(|| a.id().cmp(&b.id())));
        meshes
    }

    /// The mesh with this id.
    pub(crate) fn local_mesh(&self, id: &MeshId) -> Option<Arc<LocalMesh>> {
        self.inner
            .meshes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    pub(crate) fn home(&self) -> &Home {
        &self.inner.home
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn network(&self) -> &Network {
        &self.inner.network
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    pub(crate) fn events(&self) -> &EventBus {
        &self.inner.events
    }

    pub(crate) fn started_ms(&self) -> i64 {
        self.inner.started_ms
    }
}

/// Listens at the configured port. Without one it takes the port of the last run, because other
/// devices remember it, or any free one if that is taken by now.
async fn bind_network(
    home: &Home,
    config: &Config,
    identity: &Identity,
) -> Result<Network, BindError> {
    let mut wanted = network_config(home, config);
    let last = if wanted.port == 0 {
        home.last_port()
    } else {
        0
    };
    if last != 0 {
        let again = NetworkConfig {
            port: last,
            ..wanted.clone()
        };
        match Network::bind(identity.clone(), again).await {
            Err(BindError::PortInUse { .. }) => {
                tracing::info!(
                    port = last,
                    "the port of the last run is taken; taking another"
                );
            }
            bound => return bound,
        }
        wanted.port = 0;
    }
    let network = Network::bind(identity.clone(), wanted).await?;
    if let Some(port) = network.listen_addrs().first().map(PeerAddr::port)
        && let Err(error) = home.keep_port(port)
    {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "the port could not be remembered");
    }
    Ok(network)
}

fn network_config(home: &Home, config: &Config) -> NetworkConfig {
    let discovery = |switch| match switch {
        Switch::On => Discovery::On,
        Switch::Off => Discovery::Off,
    };
    NetworkConfig {
        port: config.port,
        listen: config.listen.clone(),
        interfaces: config.interfaces.clone(),
        mdns: discovery(config.mdns),
        beacon: discovery(config.beacon),
        device_name: config.device_name.clone(),
        book: Some(home.book_path()),
        ..NetworkConfig::default()
    }
}

/// The time, as this device's clock says.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
