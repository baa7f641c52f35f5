//! `leave`: this device tells the others that it goes, and forgets a mesh. The files of its folders stay.
//!
//! The others are told before anything is removed here, so that they do not list a device that will never be back. When
//! nobody is connected (which the user has to confirm) they go on listing it, as not connected. Nothing that it
//! wrote loses its author; it can be invited again and comes back as the same device.

use std::time::Duration;

use tokio::time::{Instant, interval, timeout};

use super::{LocalMesh, Node, blocking, now};
use crate::api::{LeaveReply, LeaveRequest};
use crate::error::{KeptBack, LeaveError, OpenMeshError};
use crate::event::EventKind;
use crate::follow::name_of;
use crate::status::{Standing, others};

/// How long the others have to say that they know. They answer at once; only a line that just broke does not.
const TELLING: Duration = Duration::from_secs(10);

/// How long what is under way may take: what was just changed arrives at the others a moment later.
const HANDING_OVER: Duration = Duration::from_secs(10);

/// How often is looked whether it has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Node {
    /// Tells the others, unbinds the folders of a mesh and removes all that this device keeps of it.
    ///
    /// # Errors
    /// A [`LeaveError`]; the mesh is then as it was, but after [`LeaveError::Record`] the others may know already.
    pub async fn leave(&self, request: &LeaveRequest) -> Result<LeaveReply, LeaveError> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let mesh = self.lookup(&request.mesh)?;
        let is_member = mesh.replica().role_of(&self.device()).is_some();
        if is_member && mesh.replica().is_last_admin() && mesh.replica().members().len() > 1 {
            return Err(LeaveError::LastAdmin {
                name: mesh.name().to_owned(),
            });
        }
        // Who was removed has nothing that the others would take.
        if is_member && !request.confirmed {
            self.hand_over(&mesh).await?;
        }
        let is_alone = mesh.replica().members().len() == 1;
        let told = !is_member || is_alone || self.tell_of_leaving(&mesh).await?;
        // First, so that a crash in between leaves a mesh without folders and no folders without a mesh.
        let unbound = self.change_record(&mesh, |record| record.bindings.clear());
        unbound.await.map_err(OpenMeshError::from)?;
        let mut dirs = Vec::new();
        for bound in mesh.bound() {
            self.close_binding(&mesh, &bound.dir).await;
            dirs.push(bound.dir.clone());
        }
        let mesh_ref = mesh.reference();
        self.forget_mesh(mesh).await;
        self.events().raise(EventKind::MeshLeft {
            mesh: mesh_ref.clone(),
        });
        Ok(LeaveReply {
            mesh: mesh_ref,
            dirs,
            told,
        })
    }

    /// Says that this device goes, and waits until a connected member knows. Whether one does.
    async fn tell_of_leaving(&self, mesh: &LocalMesh) -> Result<bool, LeaveError> {
        if mesh.record().paused || self.network().sync_state(mesh.id()).is_empty() {
            return Ok(false);
        }
        let replica = mesh.replica().clone();
        blocking(move || replica.leave(now()))
            .await
            .map_err(LeaveError::Member)?;
        // What is told now holds for the membership as it is now, with this device gone.
        let known = self.network().until_members_agreed(mesh.id());
        Ok(timeout(TELLING, known).await.is_ok())
    }

    /// Waits a moment until a connected device that keeps everything has applied all that this device knows, and nobody
    /// is still getting it from here. A seed has nothing else than what it would remove, and is asked in any case.
    async fn hand_over(&self, mesh: &LocalMesh) -> Result<(), LeaveError> {
        let until = Instant::now() + HANDING_OVER;
        let mut tick = interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            match self.kept_back(mesh) {
                None => return Ok(()),
                Some(reason) if reason.passes() && Instant::now() < until => {}
                Some(reason) => {
                    return Err(LeaveError::NotHandedOver {
                        name: mesh.name().to_owned(),
                        reason,
                    });
                }
            }
        }
    }

    /// Why what this device has may be nowhere else.
    fn kept_back(&self, mesh: &LocalMesh) -> Option<KeptBack> {
        if mesh.seed().is_some() {
            return Some(KeptBack::Seed);
        }
        let others = others(self, mesh);
        let Some(first) = others.first() else {
            return Some(KeptBack::Alone);
        };
        let name = |device| name_of(self, device);
        let is_behind =
            |standing: &Standing| matches!(standing, Standing::Apart | Standing::Applying);
        if let Some(behind) = others.iter().find(|other| is_behind(&other.standing)) {
            return Some(KeptBack::Behind {
                device: name(&behind.device),
            });
        }
        let keeps = others
            .iter()
            .any(|other| other.standing == Standing::InSync && other.keeps_all);
        (!keeps).then(|| KeptBack::Partly {
            device: name(&first.device),
        })
    }
}
