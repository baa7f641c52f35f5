//! `wait`: is everything known applied and here? And if not, what is missing, and why?
//!
//! Everything means, for each mesh: what is on disk has been looked at since the question was asked
//! and is recorded; what is recorded is known to every connected member, and the reverse; what is
//! known is shown in every folder and kept by the seed. Files that cannot be synced at all (a name
//! that is not valid, no permission) are waited for too: the answer then names them. So are the
//! connected members until they have applied everything; `status/report` says how they stand.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wormhole_vfs::{FolderStatus, Phase, Reason};

use super::report::{Other, Standing, others, sentence};
use super::{LISTED, shown, update_needed};
use crate::api::{MeshRef, WaitReply, WaitRequest, Waiting};
use crate::error::LookupError;
use crate::follow::name_of;
use crate::node::{FolderState, LocalMesh, Node};

/// Somebody is waiting, and asking costs microseconds: so often that nobody feels it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Node {
    /// Waits until everything known is applied and here, or the time is over.
    ///
    /// # Errors
    /// A [`LookupError`].
    pub async fn wait(&self, request: &WaitRequest) -> Result<WaitReply, LookupError> {
        // A time that no clock can hold is as good as none.
        let deadline = request
            .timeout_seconds
            .and_then(|s| Instant::now().checked_add(Duration::from_secs(s)));
        for folder in self
            .waited_for(request)?
            .iter()
            .flat_map(|mesh| mesh.folders())
        {
            folder.rescan().await;
        }
        let settled = async {
            let mut tick = tokio::time::interval(LOOK_EVERY);
            loop {
                tick.tick().await;
                let seems_done = self.coming(request)?.is_empty();
                if self.tasks().cancel().is_cancelled() {
                    return Ok(false);
                }
                if request.until_stuck && !seems_done && self.are_stuck(request)? {
                    catch_up(&self.waited_for(request)?).await;
                    if self.are_stuck(request)? {
                        return Ok(self.unfinished_all(request)?.is_empty());
                    }
                }
                if seems_done {
                    // A folder may not have noticed yet what was known when we looked.
                    catch_up(&self.waited_for(request)?).await;
                    if self.coming(request)?.is_empty() {
                        return Ok(self.unfinished_all(request)?.is_empty());
                    }
                }
            }
        };
        let done = match deadline {
            None => settled.await,
            Some(deadline) => tokio::time::timeout_at(deadline, settled)
                .await
                .unwrap_or(Ok(false)),
        };
        let waiting_for = match done? {
            true => Vec::new(),
            false => self.unfinished_all(request)?,
        };
        let done = waiting_for.is_empty();
        Ok(WaitReply { done, waiting_for })
    }

    /// The open meshes that are waited for. Asked again and again: to hold on to one would keep it
    /// from being closed and opened again.
    fn waited_for(&self, request: &WaitRequest) -> Result<Vec<Arc<LocalMesh>>, LookupError> {
        match self.lookup_all(request.mesh.as_deref()) {
            Err(LookupError::Closed { .. }) => Ok(Vec::new()),
            found => found,
        }
    }

    /// What is still to come by itself. To a device that was removed nothing comes any more.
    fn coming(&self, request: &WaitRequest) -> Result<Vec<Waiting>, LookupError> {
        let meshes = self.waited_for(request)?;
        let over: Vec<MeshRef> = meshes
            .iter()
            .filter(|mesh| self.removal(mesh).is_some())
            .map(|mesh| mesh.reference())
            .collect();
        let mut waiting = self.unfinished_all(request)?;
        waiting.retain(|waiting| over.iter().all(|mesh| mesh.id != waiting.mesh.id));
        Ok(waiting)
    }

    /// Whether nothing is under way any more, so that whatever is left needs somebody to do something.
    fn are_stuck(&self, request: &WaitRequest) -> Result<bool, LookupError> {
        let meshes = self.waited_for(request)?;
        let is_stuck = |mesh: &Arc<LocalMesh>| {
            let others = others(self, mesh);
            let is_there = others.len() as u64 >= u64::from(request.members);
            let has_come = |other: &Other| match other.standing {
                Standing::InSync | Standing::Hindered(_) => true,
                Standing::Apart | Standing::Applying => false,
            };
            is_there
                && !mesh.record().paused
                && others.iter().all(has_come)
                && mesh.is_whole()
                && mesh.bound().iter().all(|bound| is_at_rest(&bound.state))
                && mesh.seed().is_none_or(|seed| seed.progress().complete)
        };
        Ok(meshes.iter().all(is_stuck))
    }

    fn unfinished_all(&self, request: &WaitRequest) -> Result<Vec<Waiting>, LookupError> {
        let meshes = self.waited_for(request)?;
        let mut waiting: Vec<Waiting> = meshes
            .iter()
            .flat_map(|mesh| self.unfinished(mesh, request.members))
            .collect();
        // Of a mesh that is not open nothing is known to be here.
        let closed = self.broken_meshes().into_iter();
        let closed = closed.filter(|broken| match &request.mesh {
            Some(wanted) => meshes.is_empty() && broken.is_named(wanted),
            None => true,
        });
        waiting.extend(closed.map(|broken| about_mesh(&broken.mesh, &broken.problem, "")));
        waiting.truncate(LISTED);
        Ok(waiting)
    }

    /// What a mesh still waits for.
    fn unfinished(&self, mesh: &LocalMesh, members: u32) -> Vec<Waiting> {
        let reference = mesh.reference();
        let mut waiting = Vec::new();
        if let Some(removed) = self.removal(mesh) {
            let reason = format!(
                "this device was removed from it by {}; your files stay",
                removed.by_name
            );
            return vec![about_mesh(&reference, &reason, "wormhole leave")];
        }
        waiting.extend(update_needed(mesh).map(|reason| about_mesh(&reference, &reason, "")));
        let others = others(self, mesh);
        if mesh.record().paused {
            waiting.push(about_mesh(&reference, "it is paused", "wormhole resume"));
        } else if (others.len() as u64) < u64::from(members) {
            let reason = format!("{} of {members} other members are connected", others.len());
            let action = "start Wormhole on the others, or give an address with --peer";
            waiting.push(about_mesh(&reference, &reason, action));
        }
        let damage = mesh.health().problems().into_iter();
        waiting.extend(damage.map(|problem| Waiting {
            mesh: reference.clone(),
            path: Some(problem.path),
            reason: problem.reason,
            action: problem.action,
        }));
        waiting.extend(others.iter().filter_map(|other| {
            let name = || name_of(self, &other.device);
            other_waits(&reference, other, name)
        }));
        if !mesh.is_whole() {
            waiting.push(about_mesh(&reference, "a folder is being opened", ""));
        }
        for bound in mesh.bound() {
            match &bound.state {
                FolderState::Open(folder) => {
                    waiting.extend(folder_waits(&reference, &folder.status()));
                }
                FolderState::Failed(error) => {
                    let reason = crate::error::sentence(error);
                    waiting.push(about_mesh(&reference, &reason, ""));
                }
            }
        }
        if let Some(seed) = mesh
            .seed()
            .map(|seed| seed.progress())
            .filter(|seed| !seed.complete)
        {
            let reason = match seed.obstacle {
                Some(obstacle) => format!("{} contents are missing: {obstacle}", seed.missing),
                None => format!("{} contents are being fetched", seed.missing),
            };
            waiting.push(about_mesh(&reference, &reason, ""));
        }
        waiting
    }
}

/// Whether a folder does nothing more by itself.
fn is_at_rest(state: &FolderState) -> bool {
    match state {
        FolderState::Open(folder) => {
            let status = folder.status();
            status.at_rest || matches!(status.phase, Phase::Stopped(_))
        }
        FolderState::Failed(_) => true,
    }
}

/// Has every folder take in what it was told before, and say in its status what came of it.
///
/// A folder answers questions in turn, between one round of work and the next. The first answer may
/// come before it looked at its news; the second comes after a whole round that did. One whose directory was
/// moved away, or replaced by a copy, sees nothing of that in the files that it has open: it is asked to look.
pub(super) async fn catch_up(meshes: &[Arc<LocalMesh>]) {
    for folder in meshes.iter().flat_map(|mesh| mesh.folders()) {
        folder.checked_status().await;
        folder.explain("").await;
        folder.explain("").await;
    }
}

/// What another device is waited for.
fn other_waits(mesh: &MeshRef, other: &Other, name: impl Fn() -> String) -> Option<Waiting> {
    let (reason, action) = match &other.standing {
        Standing::InSync => return None,
        Standing::Apart => (
            format!("{} and this device do not know the same yet", name()),
            "",
        ),
        Standing::Applying => (format!("{} has not applied everything yet", name()), ""),
        Standing::Hindered(hindrances) => (
            format!(
                "{} cannot apply everything: {}",
                name(),
                sentence(hindrances)
            ),
            "see `wormhole status` on that device",
        ),
    };
    Some(about_mesh(mesh, &reason, action))
}

/// What a folder still waits for; empty when it is settled.
fn folder_waits(mesh: &MeshRef, status: &FolderStatus) -> Vec<Waiting> {
    let mut waiting: Vec<Waiting> = Vec::new();
    for file in &status.pending {
        waiting.push(Waiting {
            mesh: mesh.clone(),
            path: Some(file.path.to_string()),
            reason: file.reason.to_string(),
            action: String::new(),
        });
    }
    for problem in status
        .problems
        .iter()
        .filter(|problem| keeps_waiting(&problem.reason))
    {
        waiting.push(Waiting {
            mesh: mesh.clone(),
            path: Some(problem.path.to_string()),
            reason: problem.reason.to_string(),
            action: problem.reason.action().to_owned(),
        });
    }
    let whole = match &status.phase {
        Phase::Scanning => Some("the folder is being looked through".to_owned()),
        Phase::Paused => Some("the folder is paused".to_owned()),
        Phase::Stopped(reason) => Some(reason.to_string()),
        Phase::Syncing | Phase::UpToDate if !status.settled && waiting.is_empty() => {
            Some("changes are being recorded or applied".to_owned())
        }
        Phase::Syncing | Phase::UpToDate => None,
    };
    waiting.extend(whole.map(|reason| about_mesh(mesh, &reason, "")));
    waiting
}

/// Whether a problem keeps a file from being in sync that people expect to be. What is never synced
/// (a socket), stays here on purpose, or only slows the folder down does not.
fn keeps_waiting(reason: &Reason) -> bool {
    match reason {
        Reason::NameNotUtf8
        | Reason::NameRefused
        | Reason::NameUnsupported
        | Reason::CaseClash { .. }
        | Reason::LinkTarget
        | Reason::Permission
        | Reason::ReadOnlyDisk
        | Reason::NoSpace { .. }
        | Reason::DeletionHeld { .. }
        | Reason::ReadOnlyMember
        | Reason::Io { .. }
        | Reason::Refused { .. } => true,
        Reason::SpecialFile
        | Reason::OtherFileSystem
        | Reason::WatchLimit
        | Reason::KeptAside { .. }
        | Reason::KeptDirectory
        | Reason::IgnoreRule { .. } => false,
    }
}

fn about_mesh(mesh: &MeshRef, reason: &str, action: &str) -> Waiting {
    Waiting {
        mesh: MeshRef {
            id: mesh.id.clone(),
            name: shown(&mesh.name),
        },
        path: None,
        reason: reason.to_owned(),
        action: action.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use wormhole_crdt::DeviceId;
    use wormhole_mesh::Hindrance;
    use wormhole_vfs::{Problem, WaitingFor};

    use super::*;

    fn mesh() -> MeshRef {
        MeshRef {
            id: "ab".to_owned(),
            name: "Designs".to_owned(),
        }
    }

    fn settled() -> FolderStatus {
        FolderStatus {
            phase: Phase::UpToDate,
            settled: true,
            ..FolderStatus::default()
        }
    }

    #[test]
    fn a_settled_folder_is_not_waited_for() {
        assert_eq!(folder_waits(&mesh(), &settled()), []);
    }

    #[test]
    fn every_file_that_is_not_here_has_a_reason() {
        let file = wormhole_vfs::Waiting {
            path: "a".into(),
            bytes: 1,
            reason: WaitingFor::Holder,
        };
        let status = FolderStatus {
            pending: vec![file],
            settled: false,
            ..settled()
        };
        let waiting = folder_waits(&mesh(), &status);
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].path.as_deref(), Some("a"));
        assert!(
            waiting[0].reason.contains("no connected device"),
            "{waiting:?}"
        );
    }

    #[test]
    fn a_problem_is_waited_for_and_says_what_to_do() {
        let problem = Problem {
            path: "b".into(),
            reason: Reason::Permission,
        };
        let waiting = folder_waits(
            &mesh(),
            &FolderStatus {
                problems: vec![problem],
                ..settled()
            },
        );
        assert!(waiting[0].action.contains("permission"), "{waiting:?}");
    }

    #[test]
    fn a_folder_that_does_not_say_what_it_does_is_still_waited_for() {
        for phase in [Phase::Scanning, Phase::Syncing, Phase::UpToDate] {
            let status = FolderStatus {
                phase,
                settled: false,
                ..FolderStatus::default()
            };
            assert_eq!(folder_waits(&mesh(), &status).len(), 1);
        }
    }

    #[test]
    fn a_member_that_does_not_know_or_show_all_is_named_with_the_reason() {
        let reason = |standing| {
            let other = Other {
                device: DeviceId::from_bytes([1; 32]),
                standing,
                keeps_all: true,
            };
            other_waits(&mesh(), &other, || "laptop".to_owned()).map(|waiting| waiting.reason)
        };
        for standing in [Standing::Apart, Standing::Applying] {
            let reason = reason(standing).unwrap();
            assert!(reason.starts_with("laptop"), "{reason}");
        }
        let full = Standing::Hindered([(Hindrance::DiskFull, 1)].into());
        assert_eq!(
            reason(full).unwrap(),
            "laptop cannot apply everything: its disk is full (1 file or directory)"
        );
        assert_eq!(reason(Standing::InSync), None);
    }

    #[test]
    fn what_a_reader_changed_is_waited_for() {
        let problem = Problem {
            path: "b".into(),
            reason: Reason::ReadOnlyMember,
        };
        let status = FolderStatus {
            problems: vec![problem],
            ..settled()
        };
        let waiting = folder_waits(&mesh(), &status);
        assert_eq!(waiting[0].path.as_deref(), Some("b"));
    }
}
