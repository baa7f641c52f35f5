//! `revoke` and `role`: what an admin changes about the members of a mesh.
//!
//! Who a person means is looked up here; whether it may be done is the membership log's business. To give a role to
//! a device whose admission is void admits it again.

use std::sync::Arc;

use wormhole_crdt::{DeviceId, Member, MemberError, Removed, Role};

use super::lookup::find_device;
use super::{LocalMesh, Node, blocking, now};
use crate::api::{
    MemberReply, RecoverRequest, RecoveryReply, RecoveryRequest, RemovedInfo, RevokeRequest,
    RoleRequest,
};
use crate::error::MemberChangeError;
use crate::recovery::Phrase;
use crate::status::shown;

impl Node {
    /// Removes a device from a mesh. What it wrote and this device has seen stays.
    ///
    /// # Errors
    /// A [`MemberChangeError`]; nothing has then changed.
    pub async fn revoke(&self, request: &RevokeRequest) -> Result<MemberReply, MemberChangeError> {
        let (mesh, member) = self.find_member(request.mesh.as_deref(), &request.device)?;
        if member.device == self.device() {
            return Err(MemberChangeError::ThisDevice);
        }
        let (replica, device) = (mesh.replica().clone(), member.device);
        blocking(move || replica.revoke(device, now())).await?;
        Ok(reply(&mesh, &member))
    }

    /// Gives a device of a mesh another role.
    ///
    /// # Errors
    /// A [`MemberChangeError`]; nothing has then changed.
    pub async fn set_role(&self, request: &RoleRequest) -> Result<MemberReply, MemberChangeError> {
        let (mesh, mut member) = self.find_member(request.mesh.as_deref(), &request.device)?;
        let (replica, role) = (mesh.replica().clone(), Role::from(request.role));
        let (device, name) = (member.device, member.name.clone());
        let changed = blocking(move || match replica.role_of(&device) {
            Some(_) => replica.set_role(device, role, now()).map(|()| role),
            None => replica
                .admit(device, &name, role, now())
                .map(|member| member.role),
        });
        member.role = changed.await?;
        Ok(reply(&mesh, &member))
    }

    /// Names the key of a mesh's recovery phrase.
    ///
    /// # Errors
    /// A [`MemberChangeError`]; nothing has then changed.
    pub async fn set_recovery(
        &self,
        request: &RecoveryRequest,
    ) -> Result<RecoveryReply, MemberChangeError> {
        let mesh = self.lookup(&request.mesh)?;
        let key: DeviceId = request.key.parse().map_err(|_| MemberChangeError::BadKey)?;
        let replica = mesh.replica().clone();
        blocking(move || replica.set_recovery(key, now())).await?;
        Ok(RecoveryReply {
            mesh: mesh.reference(),
        })
    }

    /// Makes this device admin of a mesh by its recovery phrase.
    ///
    /// # Errors
    /// A [`MemberChangeError`]; nothing has then changed.
    pub async fn recover(
        &self,
        request: &RecoverRequest,
    ) -> Result<MemberReply, MemberChangeError> {
        let mesh = self.lookup(&request.mesh)?;
        let phrase: Phrase = request.phrase.parse()?;
        let (replica, name) = (mesh.replica().clone(), self.config().device_name.clone());
        blocking(move || replica.recover(&phrase.key(), &name, now())).await?;
        Ok(MemberReply {
            mesh: mesh.reference(),
            device: self.device().to_string(),
            name: self.name_in(&mesh, &self.device()),
            role: Role::Admin.into(),
        })
    }

    /// The member that a person named, in the mesh that they named or else in the only one where there is one.
    fn find_member(
        &self,
        mesh: Option<&str>,
        wanted: &str,
    ) -> Result<(Arc<LocalMesh>, Member), MemberChangeError> {
        let mut found = Vec::new();
        let mut names = Vec::new();
        for mesh in self.lookup_all(mesh)? {
            let mut members = mesh.replica().members();
            members.extend(mesh.replica().stranded());
            let candidates: Vec<(DeviceId, String)> = members
                .iter()
                .map(|member| (member.device, shown(&member.name)))
                .collect();
            for device in find_device(&candidates, wanted) {
                let member = members.iter().find(|member| member.device == device);
                found.extend(member.map(|member| (mesh.clone(), member.clone())));
            }
            names.extend(candidates.into_iter().map(|(_, name)| name));
        }
        names.sort();
        names.dedup();
        let wanted = wanted.to_owned();
        let mut devices: Vec<DeviceId> = found.iter().map(|(_, member)| member.device).collect();
        devices.dedup();
        match (found.pop(), devices.as_slice()) {
            (None, _) => Err(MemberChangeError::UnknownDevice {
                wanted,
                known: names,
            }),
            (Some(only), _) if found.is_empty() => Ok(only),
            (Some((last, _)), [_]) => {
                let meshes = found.iter().map(|(mesh, _)| mesh).chain([&last]);
                Err(MemberChangeError::AmbiguousMesh {
                    wanted,
                    meshes: meshes.map(|mesh| mesh.name().to_owned()).collect(),
                })
            }
            (Some(_), _) => Err(MemberChangeError::AmbiguousDevice {
                wanted,
                candidates: devices,
            }),
        }
    }

    /// How this device stopped being a member of a mesh, when it did.
    pub(crate) fn removal(&self, mesh: &LocalMesh) -> Option<RemovedInfo> {
        let Removed { by, at } = mesh.replica().removal_of(&self.device())?;
        Some(RemovedInfo {
            by: by.to_string(),
            by_name: self.name_in(mesh, &by),
            removed_ms: at.0 / 1_000_000,
        })
    }

    /// What a device is called in a mesh.
    pub(crate) fn name_in(&self, mesh: &LocalMesh, device: &DeviceId) -> String {
        let member = mesh.replica().members().into_iter();
        let mut member = member.filter(|member| member.device == *device);
        match member.next() {
            Some(member) => shown(&member.name),
            None => crate::follow::name_of(self, device),
        }
    }
}

fn reply(mesh: &LocalMesh, member: &Member) -> MemberReply {
    MemberReply {
        mesh: mesh.reference(),
        device: member.device.to_string(),
        name: shown(&member.name),
        role: member.role.into(),
    }
}

impl From<MemberError> for MemberChangeError {
    fn from(error: MemberError) -> Self {
        Self::Refused(error)
    }
}
