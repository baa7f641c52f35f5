//! `leave`: this device tells the others that it goes, and forgets a mesh. The files of its folders stay.
//!
//! The others are told before anything is removed here, so that they do not list a device that will never be back. When
//! nobody is connected (which the user has to confirm) they go on listing it, as not connected. Nothing that it
//! wrote loses its author; it can be invited again and comes back as the same device.

use std::time::Duration;

use tokio::time::timeout;

use super::{LocalMesh, Node, blocking, now};
use crate::api::{LeaveReply, LeaveRequest};
use crate::error::{LeaveError, OpenMeshError};
use crate::event::EventKind;

/// How long the others have to say that they know. They answer at once; only a line that just broke does not.
const TELLING: Duration = Duration::from_secs(10);

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
        if is_member && !request.confirmed && !self.is_handed_over(&mesh) {
            return Err(LeaveError::NotHandedOver {
                name: mesh.name().to_owned(),
            });
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

    /// Whether somebody who is connected knows all that this device knows, and nobody is fetching from here. Who holds
    /// which content is asked for only while it is fetched, so more cannot be told. That is enough where the files stay;
    /// a seed has nothing else than what it would remove.
    fn is_handed_over(&self, mesh: &LocalMesh) -> bool {
        if mesh.seed().is_some() {
            return false;
        }
        let sync = self.network().sync_state(mesh.id());
        let uploads = self.network().uploads();
        sync.iter().any(|(_, in_sync)| *in_sync)
            && uploads.iter().all(|upload| upload.mesh != mesh.id())
    }
}
