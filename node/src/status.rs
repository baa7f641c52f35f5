//! What is, as plain snapshots: the node, its meshes, members, peers and transfers.
//!
//! Also the one place where types of the other rooms become types of the local API. Nothing here
//! changes anything; `status/wait` and `status/explain` answer the two questions people ask most.

mod explain;
mod report;
mod wait;

use std::path::Path;
use std::sync::Arc;

use wormhole_crdt::{
    Counts, DeviceId, EntryName, Kind, Problem as LogProblem, Replica, Role, StorageError,
};
use wormhole_mesh::{PathKind, PeerStatus, Transfer};

use crate::api::{
    BindingStatus, Keep, KindName, MemberInfo, MembersReply, MeshStatus, MeshSummary, MeshesReply,
    NodeReply, PathName, PeerInfo, PeersReply, Phase, Problem, RoleName, StatusReply, TransferInfo,
    TransfersReply, UploadInfo,
};
use crate::error::{LookupError, TreeError};
use crate::node::{Bound, BrokenMesh, FolderState, LocalMesh, Node, blocking};
use crate::policy::{Obstacle, SeedProgress};

pub(crate) use report::{Other, Standing, follow as follow_report, others};

/// A mesh of which nothing can be told but what its record says, and why it is not open.
fn broken_status(broken: BrokenMesh) -> MeshStatus {
    let binding = |dir: &Path| BindingStatus {
        dir: Some(dir.to_owned()),
        ..binding_status(Keep::Folder)
    };
    MeshStatus {
        bindings: broken.dirs().map(binding).collect(),
        mesh: broken.mesh,
        role: RoleName::Reader,
        paused: false,
        members: 0,
        connected: 0,
        in_sync: 0,
        hindered: Vec::new(),
        files: 0,
        directories: 0,
        symlinks: 0,
        bytes: 0,
        conflicts: 0,
        problem: Some(broken.problem),
        removed: None,
        refused: 0,
        damage: Vec::new(),
        notes: Vec::new(),
    }
}

/// What to say of a mesh whose admins decided something that this version does not understand.
fn update_needed(mesh: &LocalMesh) -> Option<String> {
    mesh.replica().needs_update().then(|| {
        "this device needs an update: an admin of the mesh decided something that only a newer wormhole understands"
            .to_owned()
    })
}

/// What people should know about the logs of a mesh, in sentences.
fn notes(replica: &Replica) -> Vec<String> {
    let members = replica.members();
    let name = |device: &DeviceId| {
        let member = members.iter().find(|member| member.device == *device);
        member.map_or_else(|| device.to_string(), |member| member.name.clone())
    };
    let sentence = |problem: &LogProblem| match problem {
        LogProblem::Forked { device } => format!(
            "{} was set back to an earlier state, or copied, and wrote on: both histories are kept",
            name(device)
        ),
        LogProblem::NeedsUpdate { device } => format!(
            "{} runs a newer wormhole: this device needs an update to show what it writes",
            name(device)
        ),
        LogProblem::Crowded { device } => format!(
            "{} was set back so often that what it writes after the next time counts only once another device has built on it",
            name(device)
        ),
    };
    replica.problems().iter().map(sentence).collect()
}

/// Problems and files that one answer lists at most.
const LISTED: usize = 1000;

impl Node {
    /// Who answers.
    #[must_use]
    pub fn describe(&self) -> NodeReply {
        NodeReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            home: self.home().dir().to_owned(),
            device: self.device().to_string(),
            device_name: self.config().device_name.clone(),
            started_ms: self.started_ms(),
            addresses: self.addresses(),
            limits: self.limits(),
            problem: self.problem(),
        }
    }

    /// The node and its meshes, or one of them.
    ///
    /// # Errors
    /// [`TreeError::Lookup`] when no mesh has that name.
    pub async fn status(&self, mesh: Option<&str>) -> Result<StatusReply, TreeError> {
        let mut meshes = Vec::new();
        for mesh in self.lookup_all(mesh)? {
            meshes.push(self.mesh_status(mesh).await);
        }
        if mesh.is_none() {
            meshes.extend(self.broken_meshes().into_iter().map(broken_status));
        }
        Ok(StatusReply {
            node: self.describe(),
            meshes,
            newcomers: self.newcomers(),
            asking: self.asking().devices,
        })
    }

    async fn mesh_status(&self, mesh: Arc<LocalMesh>) -> MeshStatus {
        let replica = mesh.replica().clone();
        let counted = blocking(move || {
            let conflicts = replica.conflicts()?.len() as u64;
            Ok::<_, StorageError>((replica.counts()?, conflicts, replica.refused()?))
        });
        let (counts, conflicts, refused, problem) = match counted.await {
            Ok((counts, conflicts, refused)) => (counts, conflicts, refused, None),
            Err(error) => (
                Counts::default(),
                0,
                0,
                Some(crate::error::sentence(&error)),
            ),
        };
        let others = others(self, &mesh);
        let in_sync = |other: &&Other| other.standing == Standing::InSync;
        let paused = mesh.record().paused;
        let mut bindings: Vec<BindingStatus> = Vec::new();
        for bound in mesh.bound() {
            bindings.push(folder_status(&mesh, &bound, paused).await);
        }
        bindings.extend(seed_status(&mesh, counts, paused));
        count_arriving(&mut bindings, self.arriving(&mesh));
        MeshStatus {
            mesh: mesh.reference(),
            role: mesh.role().into(),
            paused,
            members: small(mesh.replica().members().len()),
            connected: small(others.len()),
            in_sync: small(others.iter().filter(in_sync).count()),
            hindered: report::hindered(self, &mesh),
            files: counts.files,
            directories: counts.directories,
            symlinks: counts.symlinks,
            bytes: counts.bytes,
            conflicts,
            bindings,
            problem: problem.or_else(|| update_needed(&mesh)),
            removed: self.removal(&mesh),
            refused,
            damage: mesh.health().report(),
            notes: notes(mesh.replica()),
        }
    }

    /// Bytes of a mesh that have arrived, of files that are not whole yet.
    fn arriving(&self, mesh: &LocalMesh) -> u64 {
        let transfers = self.network().transfers().into_iter();
        transfers
            .filter(|transfer| transfer.mesh == mesh.id())
            .map(|transfer| transfer.done_bytes)
            .sum()
    }

    /// The meshes that this device is in.
    ///
    /// # Errors
    /// [`TreeError::Replica`] when the metadata of one cannot be read.
    pub async fn meshes_reply(&self) -> Result<MeshesReply, TreeError> {
        let mut meshes = Vec::new();
        for mesh in self.local_meshes() {
            let replica = mesh.replica().clone();
            let counts = blocking(move || replica.counts()).await?;
            meshes.push(MeshSummary {
                mesh: mesh.reference(),
                role: mesh.role().into(),
                removed: self.removal(&mesh),
                paused: mesh.record().paused,
                members: small(mesh.replica().members().len()),
                connected: small(self.network().sync_state(mesh.id()).len()),
                files: counts.files,
                bytes: counts.bytes,
                dirs: mesh.bound().iter().map(|bound| bound.dir.clone()).collect(),
                seed: mesh.seed().is_some(),
            });
        }
        Ok(MeshesReply { meshes })
    }

    /// The members of a mesh, in the order they were admitted.
    ///
    /// # Errors
    /// A [`LookupError`].
    pub fn members(&self, mesh: &str) -> Result<MembersReply, LookupError> {
        let mesh = self.lookup(mesh)?;
        let others = others(self, &mesh);
        let mut members = mesh.replica().members();
        members.sort_by_key(|member| (member.admitted_at, member.device));
        let mut stranded = mesh.replica().stranded();
        stranded.sort_by_key(|member| (member.admitted_at, member.device));
        let describe = |member: wormhole_crdt::Member| {
            let other = others.iter().find(|other| other.device == member.device);
            let hindrances = match other.map(|other| &other.standing) {
                Some(Standing::Hindered(hindrances)) => report::infos(hindrances),
                Some(Standing::Apart | Standing::Applying | Standing::InSync) | None => Vec::new(),
            };
            MemberInfo {
                device: member.device.to_string(),
                words: wormhole_mesh::words(&member.device),
                name: shown(&member.name),
                role: member.role.into(),
                this_device: member.device == self.device(),
                admitted_by: member.admitted_by.map(|device| device.to_string()),
                admitted_ms: member.admitted_at.0 / 1_000_000,
                connected: other.is_some(),
                in_sync: other.map(|other| other.standing == Standing::InSync),
                hindrances,
            }
        };
        Ok(MembersReply {
            mesh: mesh.reference(),
            members: members.into_iter().map(describe).collect(),
            stranded: stranded.into_iter().map(describe).collect(),
        })
    }

    /// The devices that this node is or was connected with; connected ones first.
    #[must_use]
    pub fn peers(&self) -> PeersReply {
        let mut peers = self.network().peers();
        peers.sort_by(|a, b| {
            b.connected
                .cmp(&a.connected)
                .then_with(|| a.name.cmp(&b.name))
        });
        PeersReply {
            peers: peers.into_iter().map(|peer| self.peer(peer)).collect(),
        }
    }

    fn peer(&self, peer: PeerStatus) -> PeerInfo {
        let meshes = peer.meshes.iter().filter_map(|mesh| self.local_mesh(mesh));
        let meshes: Vec<_> = meshes.collect();
        let device = peer.device.to_string();
        let hindered = meshes.iter().flat_map(|mesh| report::hindered(self, mesh));
        PeerInfo {
            hindered: hindered.filter(|at| at.device == device).collect(),
            device,
            name: crate::follow::name_of(self, &peer.device),
            connected: peer.connected,
            path: peer.path.map(PathName::from),
            address: peer.addr.map(|addr| addr.to_string()),
            meshes: meshes.iter().map(|mesh| mesh.reference()).collect(),
            rtt_ms: peer.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            up_bytes_per_s: peer.up_rate,
            down_bytes_per_s: peer.down_rate,
            version: peer.version.as_deref().map(shown),
            last_error: peer.last_error,
        }
    }

    /// Content in flight.
    #[must_use]
    pub fn transfers(&self) -> TransfersReply {
        let transfers = self
            .network()
            .transfers()
            .into_iter()
            .filter_map(|transfer| {
                let mesh = self.local_mesh(&transfer.mesh)?;
                Some(self::transfer(&mesh, &transfer))
            });
        let uploads = self.network().uploads().into_iter().filter_map(|upload| {
            Some(UploadInfo {
                mesh: self.local_mesh(&upload.mesh)?.reference(),
                device: upload.device.to_string(),
                name: crate::follow::name_of(self, &upload.device),
                sent_bytes: upload.sent_bytes,
                bytes_per_s: upload.rate,
            })
        });
        TransfersReply {
            transfers: transfers.collect(),
            uploads: uploads.collect(),
        }
    }
}

/// Content in flight, as it is shown.
pub(crate) fn transfer(mesh: &LocalMesh, transfer: &Transfer) -> TransferInfo {
    TransferInfo {
        mesh: mesh.reference(),
        path: transfer.label.to_string(),
        done_bytes: transfer.done_bytes,
        total_bytes: transfer.total_bytes,
        bytes_per_s: transfer.rate,
        peers: small(transfer.peers),
    }
}

/// Counts bytes of files that are not whole yet as done. Folders and seeds count whole files: of one
/// large file nothing would be seen until its end. No binding gets more than it lacks, because a
/// file may be whole since the transfers were looked at.
fn count_arriving(bindings: &mut [BindingStatus], mut arriving: u64) {
    for binding in bindings {
        let lacking = binding.bytes_total.saturating_sub(binding.bytes_done);
        let part = arriving.min(lacking);
        binding.bytes_done += part;
        arriving -= part;
    }
}

/// A binding that does nothing.
fn binding_status(keep: Keep) -> BindingStatus {
    BindingStatus {
        id: String::new(),
        keep,
        dir: None,
        path: String::new(),
        phase: Phase::Stopped,
        reason: None,
        files_done: 0,
        files_total: 0,
        bytes_done: 0,
        bytes_total: 0,
        pending: 0,
        trash_files: 0,
        trash_bytes: 0,
        problems: Vec::new(),
    }
}

async fn folder_status(mesh: &Arc<LocalMesh>, bound: &Bound, paused: bool) -> BindingStatus {
    let replica = mesh.replica().clone();
    let base = bound.base;
    let path = blocking(move || replica.path_of(&base.into())).await;
    let mut status = BindingStatus {
        id: bound.id.to_string(),
        dir: Some(bound.dir.clone()),
        path: path
            .ok()
            .flatten()
            .map(|path| path.to_string())
            .unwrap_or_default(),
        ..binding_status(Keep::Folder)
    };
    match &bound.state {
        FolderState::Failed(error) => status.reason = Some(crate::error::sentence(error)),
        FolderState::Open(folder) => {
            let now = folder.checked_status().await;
            (status.phase, status.reason) = phase(&now.phase);
            if paused && matches!(status.phase, Phase::Syncing | Phase::UpToDate) {
                status.phase = Phase::Paused;
            }
            status.files_done = now.counts.files;
            status.files_total = now.counts.files + now.pending_files;
            status.bytes_done = now.counts.bytes;
            status.bytes_total = now.counts.bytes + now.pending_bytes;
            status.pending = now.pending_files;
            status.trash_files = now.trash.files;
            status.trash_bytes = now.trash.bytes;
            status.problems = now.problems.iter().take(LISTED).map(problem).collect();
        }
    }
    status
}

fn seed_status(mesh: &LocalMesh, counts: Counts, paused: bool) -> Option<BindingStatus> {
    let seed = mesh.seed()?.progress();
    let phase = seed.phase(paused);
    let SeedProgress {
        missing,
        missing_bytes,
        obstacle,
        complete: _,
    } = seed;
    Some(BindingStatus {
        phase,
        reason: obstacle.map(|obstacle| obstacle.to_string()),
        files_done: counts.files.saturating_sub(missing),
        files_total: counts.files,
        bytes_done: counts.bytes.saturating_sub(missing_bytes),
        bytes_total: counts.bytes,
        pending: missing,
        ..binding_status(Keep::Seed)
    })
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoHolder => "no connected member has what is missing",
            Self::Disk => "what is missing cannot be written to the disk: see the log",
            Self::Full => {
                "no space left on the disk for what is missing: free some; it then goes on by itself"
            }
        })
    }
}

/// What a folder is doing, and why it is stopped when it is.
pub(crate) fn phase(phase: &wormhole_vfs::Phase) -> (Phase, Option<String>) {
    match phase {
        wormhole_vfs::Phase::Scanning => (Phase::Scanning, None),
        wormhole_vfs::Phase::Syncing => (Phase::Syncing, None),
        wormhole_vfs::Phase::UpToDate => (Phase::UpToDate, None),
        wormhole_vfs::Phase::Paused => (Phase::Paused, None),
        wormhole_vfs::Phase::Stopped(reason) => (Phase::Stopped, Some(reason.to_string())),
    }
}

/// Why one file is not synced.
pub(crate) fn problem(problem: &wormhole_vfs::Problem) -> Problem {
    Problem {
        path: problem.path.to_string(),
        reason: problem.reason.to_string(),
        action: problem.reason.action().to_owned(),
    }
}

/// A name that came from elsewhere, made safe to print.
pub(crate) fn shown(name: &str) -> String {
    match EntryName::parse(name) {
        Ok(name) => name.display().to_string(),
        Err(_) => name.escape_debug().to_string(),
    }
}

/// A path of this device, made safe to print.
pub(crate) fn shown_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.split('/').map(shown).collect::<Vec<_>>().join("/")
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Writer => Self::Writer,
            Role::Reader => Self::Reader,
            Role::Seed => Self::Seed,
        }
    }
}

impl From<RoleName> for Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Admin => Self::Admin,
            RoleName::Writer => Self::Writer,
            RoleName::Reader => Self::Reader,
            RoleName::Seed => Self::Seed,
        }
    }
}

impl From<PathKind> for PathName {
    fn from(path: PathKind) -> Self {
        match path {
            PathKind::Local => Self::Local,
            PathKind::Lan => Self::Lan,
            PathKind::Direct => Self::Direct,
            PathKind::Relayed => Self::Relayed,
        }
    }
}

impl From<Kind> for KindName {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Directory => Self::Directory,
            Kind::Symlink => Self::Symlink,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(bytes_done: u64, bytes_total: u64) -> BindingStatus {
        BindingStatus {
            phase: Phase::Syncing,
            files_total: 1,
            bytes_done,
            bytes_total,
            pending: 1,
            ..binding_status(Keep::Folder)
        }
    }

    #[test]
    fn bytes_of_a_file_that_is_not_whole_yet_are_counted_once() {
        let mut bindings = [binding(10, 100), binding(0, 50), binding(7, 7)];
        count_arriving(&mut bindings, 100);
        let done: Vec<u64> = bindings.iter().map(|binding| binding.bytes_done).collect();
        assert_eq!(done, [100, 10, 7]);
        count_arriving(&mut bindings, u64::MAX);
        assert!(bindings.iter().all(|all| all.bytes_done == all.bytes_total));
    }
}
