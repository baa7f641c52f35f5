//! What devices tell one another of themselves: whether they have applied what they know, and if not, why.
//!
//! Two devices that know the same are not in sync before both show it: a disk may be full, a directory not writable.
//! [`follow`] looks at the folders and the seed of this device whenever one of them stirs and hands the network a
//! report; [`others`] judges what the others reported by what is known here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wormhole_crdt::{DeviceId, EntryId, Hash};
use wormhole_mesh::{Hindrance, Report};
use wormhole_vfs::{FolderStatus, Phase, Reason, WaitingFor};

use super::wait::catch_up;
use crate::api::{Hindered, HindranceInfo, HindranceName};
use crate::follow::name_of;
use crate::node::{FolderState, LocalMesh, Node};

/// The least time between two reports, so that a folder with much to do does not talk all the time. Whoever waits
/// for another device does not feel it.
const PACE: Duration = Duration::from_millis(30);

/// How another device stands to what is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The two do not know the same yet.
    Apart,
    /// It knows the same and has not applied all of it.
    Applying,
    /// Something keeps it from applying more.
    Hindered(BTreeMap<Hindrance, u64>),
    /// It knows the same and has applied it.
    InSync,
}

/// A connected member, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) device: DeviceId,
    pub(crate) standing: Standing,
    /// Whether it keeps all content.
    pub(crate) keeps_all: bool,
}

/// The connected members of a mesh, and how each stands to what is known here.
pub(crate) fn others(node: &Node, mesh: &LocalMesh) -> Vec<Other> {
    let known = mesh.replica().mark();
    let exchanges = node.network().sync_state(mesh.id()).into_iter();
    let judged = exchanges.map(|exchange| Other {
        device: exchange.device,
        keeps_all: exchange.report.as_ref().is_some_and(|told| told.keeps_all),
        standing: judge(known, exchange.in_sync, exchange.reports, exchange.report),
    });
    judged.collect()
}

fn judge(known: Hash, in_sync: bool, reports: bool, report: Option<Report>) -> Standing {
    let applied = report.as_ref().and_then(|report| report.applied);
    match report {
        Some(report) if !report.hindrances.is_empty() => Standing::Hindered(report.hindrances),
        _ if !in_sync => Standing::Apart,
        // An older program says nothing of itself.
        None if !reports => Standing::InSync,
        _ if applied == Some(known) => Standing::InSync,
        Some(_) | None => Standing::Applying,
    }
}

/// The connected members of a mesh that cannot apply something.
pub(crate) fn hindered(node: &Node, mesh: &LocalMesh) -> Vec<Hindered> {
    let others = others(node, mesh).into_iter();
    let hindered = others.filter_map(|other| match &other.standing {
        Standing::Hindered(hindrances) => Some(Hindered {
            mesh: mesh.reference(),
            device: other.device.to_string(),
            name: name_of(node, &other.device),
            hindrances: infos(hindrances),
        }),
        Standing::Apart | Standing::Applying | Standing::InSync => None,
    });
    hindered.collect()
}

/// Hindrances, as they are shown.
pub(crate) fn infos(hindrances: &BTreeMap<Hindrance, u64>) -> Vec<HindranceInfo> {
    let infos = hindrances.iter().map(|(hindrance, count)| {
        let (name, reason) = words(*hindrance, *count);
        HindranceInfo {
            hindrance: name,
            count: *count,
            reason,
        }
    });
    infos.collect()
}

/// All that hinders a device, in one sentence.
pub(crate) fn sentence(hindrances: &BTreeMap<Hindrance, u64>) -> String {
    let reasons: Vec<String> = hindrances
        .iter()
        .map(|(hindrance, count)| words(*hindrance, *count).1)
        .collect();
    reasons.join("; ")
}

fn words(hindrance: Hindrance, count: u64) -> (HindranceName, String) {
    let counted = |text: &str, one: &str, more: &str| match count {
        0 => text.to_owned(),
        1 => format!("{text} (1 {one})"),
        count => format!("{text} ({count} {more})"),
    };
    let files = |text| counted(text, "file or directory", "files and directories");
    match hindrance {
        Hindrance::DiskFull => (HindranceName::DiskFull, files("its disk is full")),
        Hindrance::DiskReadOnly => (HindranceName::DiskReadOnly, files("its disk is read-only")),
        Hindrance::NotPermitted => (
            HindranceName::NotPermitted,
            files("it has no permission to read or write there"),
        ),
        Hindrance::NameImpossible => (
            HindranceName::NameImpossible,
            files("its file system cannot hold the name"),
        ),
        Hindrance::OwnEdits => (
            HindranceName::OwnEdits,
            files("it may only read, and was changed on that device"),
        ),
        Hindrance::DeletionsHeld => (
            HindranceName::DeletionsHeld,
            counted("deletions wait for a person there", "entry", "entries"),
        ),
        Hindrance::FolderStopped => (
            HindranceName::FolderStopped,
            "a folder is stopped there".to_owned(),
        ),
        Hindrance::NoHolder => (
            HindranceName::NoHolder,
            files("no device that it is connected with has the content"),
        ),
        Hindrance::Failed => (HindranceName::Failed, files("its disk failed")),
        Hindrance::Removed => (
            HindranceName::Removed,
            "it was removed from the mesh".to_owned(),
        ),
        Hindrance::Unknown(_) => (
            HindranceName::Unknown,
            files("something that only a newer wormhole can name"),
        ),
    }
}

/// Reports what this device has applied of a mesh, until the mesh stops.
pub(crate) async fn follow(node: Node, mesh: Arc<LocalMesh>) {
    let mut applied = None;
    loop {
        let report = own(&node, &mesh, applied).await;
        applied = report.applied;
        node.network().report(mesh.id(), report);
        tokio::select! {
            biased;
            () = mesh.stop.cancelled() => return,
            () = mesh.stir.notified() => {}
        }
        tokio::select! {
            biased;
            () = mesh.stop.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
    }
}

/// What this device says of itself; `before` is what it said to have applied.
async fn own(node: &Node, mesh: &Arc<LocalMesh>, before: Option<Hash>) -> Report {
    let known = mesh.replica().mark();
    let mut look = Look::at(mesh);
    if look.is_done() {
        // A folder may not have noticed yet what was known when we looked.
        catch_up(std::slice::from_ref(mesh)).await;
        look = Look::at(mesh);
    }
    // What is known now and was not then is looked for again: it stirs, too.
    let is_same = mesh.replica().mark() == known;
    let applied = match before {
        _ if look.is_done() && is_same => Some(known),
        Some(before) if before == known && look.lacks => None,
        before => before,
    };
    if node.removal(mesh).is_some() {
        look.hindrances = [(Hindrance::Removed, 1)].into();
    }
    Report {
        applied,
        keeps_all: look.keeps_all,
        hindrances: look.hindrances,
    }
}

/// What the folders and the seed of a mesh say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Look {
    /// Nothing is under way.
    at_rest: bool,
    /// Content is missing.
    lacks: bool,
    keeps_all: bool,
    hindrances: BTreeMap<Hindrance, u64>,
}

impl Look {
    fn at(mesh: &LocalMesh) -> Self {
        let mut look = Self {
            at_rest: mesh.feed().is_idle() && mesh.is_whole(),
            ..Self::default()
        };
        for bound in mesh.bound() {
            match &bound.state {
                FolderState::Open(folder) => {
                    look.take(&folder.status());
                    look.keeps_all |= bound.base == EntryId::ROOT;
                }
                FolderState::Failed(_) => look.add(Hindrance::FolderStopped, 1),
            }
        }
        if let Some(seed) = mesh.seed().map(|seed| seed.progress()) {
            look.keeps_all = true;
            look.at_rest &= seed.complete;
            look.lacks |= !seed.complete;
            if let Some(obstacle) = seed.obstacle {
                look.add(obstacle.into(), seed.missing);
            }
        }
        look
    }

    fn take(&mut self, status: &FolderStatus) {
        self.at_rest &= status.settled;
        self.lacks |= status.pending_files > 0;
        match &status.phase {
            Phase::Stopped(_) => self.add(Hindrance::FolderStopped, 1),
            Phase::Scanning | Phase::Syncing | Phase::UpToDate | Phase::Paused => {}
        }
        let mut counts: BTreeMap<Hindrance, u64> = BTreeMap::new();
        let problems = status.problems.iter();
        for (hindrance, count) in problems.filter_map(|problem| of_reason(&problem.reason)) {
            *counts.entry(hindrance).or_default() += count;
        }
        // A file that waits for its disk is a problem of the folder, too: it counts once.
        let mut waiting: BTreeMap<Hindrance, u64> = BTreeMap::new();
        for hindrance in status
            .pending
            .iter()
            .filter_map(|file| of_wait(file.reason))
        {
            *waiting.entry(hindrance).or_default() += 1;
        }
        for (hindrance, count) in waiting {
            let counted = counts.entry(hindrance).or_default();
            *counted = count.max(*counted);
        }
        for (hindrance, count) in counts {
            self.add(hindrance, count);
        }
    }

    fn add(&mut self, hindrance: Hindrance, count: u64) {
        *self.hindrances.entry(hindrance).or_default() += count;
    }

    fn is_done(&self) -> bool {
        self.at_rest && self.hindrances.is_empty()
    }
}

/// What a problem hinders. What is left out of the mesh, or stays on this device on purpose, hinders nothing: the
/// others miss nothing that they know of.
fn of_reason(reason: &Reason) -> Option<(Hindrance, u64)> {
    Some(match reason {
        Reason::NoSpace { .. } => (Hindrance::DiskFull, 1),
        Reason::ReadOnlyDisk => (Hindrance::DiskReadOnly, 1),
        Reason::Permission => (Hindrance::NotPermitted, 1),
        Reason::NameUnsupported | Reason::CaseClash { .. } => (Hindrance::NameImpossible, 1),
        Reason::ReadOnlyMember => (Hindrance::OwnEdits, 1),
        Reason::DeletionHeld { entries } => (Hindrance::DeletionsHeld, *entries),
        Reason::Io { .. } | Reason::Refused { .. } => (Hindrance::Failed, 1),
        Reason::NameNotUtf8
        | Reason::NameRefused
        | Reason::LinkTarget
        | Reason::SpecialFile
        | Reason::OtherFileSystem
        | Reason::WatchLimit
        | Reason::KeptAside { .. }
        | Reason::KeptDirectory
        | Reason::IgnoreRule { .. } => return None,
    })
}

fn of_wait(reason: WaitingFor) -> Option<Hindrance> {
    match reason {
        WaitingFor::Transfer => None,
        WaitingFor::Holder => Some(Hindrance::NoHolder),
        WaitingFor::Space => Some(Hindrance::DiskFull),
        WaitingFor::ReadOnlyDisk => Some(Hindrance::DiskReadOnly),
        WaitingFor::Disk => Some(Hindrance::Failed),
    }
}

#[cfg(test)]
mod tests {
    use wormhole_vfs::Problem;

    use super::*;

    const KNOWN: Hash = Hash::from_bytes([1; 32]);

    fn report(applied: Option<Hash>, hindrances: &[(Hindrance, u64)]) -> Option<Report> {
        Some(Report {
            applied,
            keeps_all: true,
            hindrances: hindrances.iter().copied().collect(),
        })
    }

    #[test]
    fn a_device_is_in_sync_when_it_has_applied_what_is_known_here() {
        let full = [(Hindrance::DiskFull, 3)];
        let other = Hash::from_bytes([2; 32]);
        for (in_sync, told, standing) in [
            (false, report(Some(KNOWN), &[]), Standing::Apart),
            (true, None, Standing::Applying),
            (true, report(None, &[]), Standing::Applying),
            (true, report(Some(other), &[]), Standing::Applying),
            (true, report(Some(KNOWN), &[]), Standing::InSync),
            (
                true,
                report(Some(KNOWN), &full),
                Standing::Hindered(full.into()),
            ),
        ] {
            assert_eq!(judge(KNOWN, in_sync, true, told), standing);
        }
        assert_eq!(judge(KNOWN, true, false, None), Standing::InSync);
    }

    #[test]
    fn a_full_disk_counts_each_file_once_and_what_stays_here_on_purpose_is_not_told() {
        let waiting = |path: &str, reason| wormhole_vfs::Waiting {
            path: path.into(),
            bytes: 1,
            reason,
        };
        let problem = |path: &str, reason| Problem {
            path: path.into(),
            reason,
        };
        let status = FolderStatus {
            pending: vec![
                waiting("a", WaitingFor::Space),
                waiting("b", WaitingFor::Space),
                waiting("c", WaitingFor::Transfer),
            ],
            pending_files: 3,
            problems: vec![
                problem("", Reason::NoSpace { bytes_needed: 2 }),
                problem("d", Reason::NameNotUtf8),
                problem("e", Reason::ReadOnlyMember),
            ],
            settled: true,
            ..FolderStatus::default()
        };
        let mut look = Look::default();
        look.take(&status);
        let expected = [(Hindrance::DiskFull, 2), (Hindrance::OwnEdits, 1)];
        assert_eq!(look.hindrances, expected.into());
        assert!(look.lacks);
        assert!(!look.is_done());
        assert_eq!(
            sentence(&look.hindrances),
            "its disk is full (2 files and directories); it may only read, and was changed on that device (1 file or \
             directory)"
        );
    }
}
