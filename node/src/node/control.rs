//! `pause`, `resume`, `limit` and `dial`: what can be changed while the node runs.
//!
//! Whether a mesh is paused and how fast it may be is in its record, the limits of the node are in the home:
//! all outlast a restart.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use wormhole_mesh::{PeerAddr, RateLimits};

use super::LocalMesh;
use super::Node;
use super::local::{RecordChange, blocking};
use crate::api::{DialReply, LimitReply, LimitRequest, MeshLimit, PauseReply, PauseState, Rate};
use crate::config::ByteCount;
use crate::error::{ControlError, SpawnError};
use crate::event::EventKind;
use crate::home::{HomeError, write_private};

/// Below this a connection could not even keep itself alive.
const LEAST_BYTES_PER_SECOND: u64 = 1024;

/// Whether a mesh moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Running,
    /// Nothing is sent or fetched; changes made here are still recorded.
    Paused,
}

/// The limits that were set while the node ran; `None` where the settings count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedLimits {
    #[serde(default)]
    up: Option<Rate>,
    #[serde(default)]
    down: Option<Rate>,
}

impl SavedLimits {
    /// Reads them; there are none when there is no file.
    pub(super) fn load(path: &Path) -> Result<Self, SpawnError> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| SpawnError::Limits {
                path: path.to_owned(),
                source,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(HomeError::Io {
                path: path.to_owned(),
                source,
            }
            .into()),
        }
    }

    fn save(&self, path: &Path) -> Result<(), HomeError> {
        let json = serde_json::to_vec_pretty(self).expect("limits are numbers");
        write_private(path, &json).map_err(|source| HomeError::Io {
            path: path.to_owned(),
            source,
        })
    }
}

impl Node {
    /// Pauses a mesh or lets it go on; all of them when none is named.
    ///
    /// # Errors
    /// A [`ControlError`]; what was changed before stays changed.
    pub async fn set_flow(
        &self,
        mesh: Option<&str>,
        flow: Flow,
    ) -> Result<PauseReply, ControlError> {
        let meshes = self.lookup_all(mesh)?;
        let paused = flow == Flow::Paused;
        let mut states = Vec::new();
        for mesh in meshes {
            let change = {
                // What is on disk and what the network does must not part.
                let _one_at_a_time = self.inner.steering.lock().await;
                let change = self.change_record(&mesh, move |record| record.paused = paused);
                let change = change.await?;
                match flow {
                    Flow::Paused => self.network().pause(mesh.id()),
                    Flow::Running => self.network().resume(mesh.id()),
                }
                change
            };
            mesh.poke().await;
            if change == RecordChange::Saved {
                let mesh = mesh.reference();
                self.events().raise(match flow {
                    Flow::Paused => EventKind::Paused { mesh },
                    Flow::Running => EventKind::Resumed { mesh },
                });
            }
            states.push(PauseState {
                mesh: mesh.reference(),
                paused,
            });
        }
        Ok(PauseReply { meshes: states })
    }

    /// The bandwidth limits in force.
    #[must_use]
    pub fn limits(&self) -> LimitReply {
        let RateLimits { up, down } = self.node_limits();
        let meshes = self.local_meshes();
        let own = meshes.iter().filter_map(|mesh| {
            let limits = mesh.record().limits;
            (limits != RateLimits::default()).then(|| MeshLimit {
                mesh: mesh.reference(),
                up: limits.up.into(),
                down: limits.down.into(),
            })
        });
        LimitReply {
            up: up.into(),
            down: down.into(),
            meshes: own.collect(),
        }
    }

    /// Changes the bandwidth limits of the node, or of one mesh.
    ///
    /// # Errors
    /// A [`ControlError`]; nothing is changed then.
    pub async fn limit(&self, request: &LimitRequest) -> Result<LimitReply, ControlError> {
        for rate in request.up.iter().chain(&request.down) {
            if let Rate::BytesPerSecond(bytes_per_second) = *rate
                && bytes_per_second < LEAST_BYTES_PER_SECOND
            {
                return Err(ControlError::Limit { bytes_per_second });
            }
        }
        let LimitRequest { mesh, up, down } = request.clone();
        match mesh {
            None => {
                self.change_limits(move |saved| {
                    saved.up = up.or(saved.up);
                    saved.down = down.or(saved.down);
                })
                .await?;
            }
            Some(mesh) => {
                self.limit_mesh(&self.lookup(&mesh)?, up, down).await?;
            }
        }
        Ok(self.limits())
    }

    async fn limit_mesh(
        &self,
        mesh: &Arc<LocalMesh>,
        up: Option<Rate>,
        down: Option<Rate>,
    ) -> Result<(), ControlError> {
        // What is on disk and what the network does must not part.
        let _one_at_a_time = self.inner.steering.lock().await;
        self.change_record(mesh, move |record| {
            let RateLimits {
                up: sending,
                down: receiving,
            } = record.limits;
            record.limits = RateLimits {
                up: up.map_or(sending, Rate::bytes_per_second),
                down: down.map_or(receiving, Rate::bytes_per_second),
            };
        })
        .await?;
        let limits = mesh.record().limits;
        self.network().set_mesh_limits(mesh.id(), limits);
        Ok(())
    }

    /// Forgets the limits of the node that were set while it ran: the settings count again.
    ///
    /// # Errors
    /// A [`ControlError`]; nothing is changed then.
    pub async fn reset_limits(&self) -> Result<LimitReply, ControlError> {
        self.change_limits(|saved| *saved = SavedLimits::default())
            .await?;
        Ok(self.limits())
    }

    async fn change_limits(
        &self,
        change: impl FnOnce(&mut SavedLimits),
    ) -> Result<(), ControlError> {
        let _one_at_a_time = self.inner.steering.lock().await;
        let mut saved = *self.saved_limits();
        change(&mut saved);
        let path = self.home().limits_path();
        blocking(move || saved.save(&path)).await?;
        *self.saved_limits() = saved;
        self.apply_limits();
        Ok(())
    }

    fn saved_limits(&self) -> MutexGuard<'_, SavedLimits> {
        self.inner
            .limits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits of the node: those that were set while it ran, or else those of the settings.
    fn node_limits(&self) -> RateLimits {
        let saved = *self.saved_limits();
        let chosen = |saved: Option<Rate>, configured: Option<ByteCount>| match saved {
            Some(rate) => rate.bytes_per_second(),
            None => configured.map(ByteCount::bytes),
        };
        RateLimits {
            up: chosen(saved.up, self.config().up),
            down: chosen(saved.down, self.config().down),
        }
    }

    /// Tells the network what the limits of the node are.
    pub(super) fn apply_limits(&self) {
        self.network().set_limits(self.node_limits());
    }

    /// Connects to an address by hand. The device that answers is remembered.
    ///
    /// # Errors
    /// A [`ControlError`] for the last address that was tried.
    pub async fn dial(&self, peer: &str) -> Result<DialReply, ControlError> {
        let mut failure = None;
        for address in PeerAddr::resolve(peer).await? {
            match self.network().dial(&address).await {
                Ok(device) => {
                    return Ok(DialReply {
                        device: device.to_string(),
                    });
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.map_or_else(
            || {
                wormhole_mesh::AddrError::Syntax {
                    text: peer.to_owned(),
                }
                .into()
            },
            ControlError::from,
        ))
    }
}
