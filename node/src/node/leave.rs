//! `leave`: this device forgets a mesh. The files of its folders stay.
//!
//! To the others it stays a member that is never connected, so that nothing it wrote loses its author; it can be invited
//! again and comes back as the same member.

use super::{LocalMesh, Node};
use crate::api::{LeaveReply, LeaveRequest};
use crate::error::{LeaveError, OpenMeshError};
use crate::event::EventKind;

impl Node {
    /// Unbinds the folders of a mesh and removes all that this device keeps of it.
    ///
    /// # Errors
    /// A [`LeaveError`]; after [`LeaveError::Record`] the mesh is as it was.
    pub async fn leave(&self, request: &LeaveRequest) -> Result<LeaveReply, LeaveError> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let mesh = self.lookup(&request.mesh)?;
        if !request.confirmed && !self.is_handed_over(&mesh) {
            return Err(LeaveError::NotHandedOver {
                name: mesh.name().to_owned(),
            });
        }
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
        })
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
