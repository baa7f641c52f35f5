//! Checking: stored bytes are read and compared with their ids before somebody needs them.
//!
//! In the background a slice is read every second, of as many bytes as `check.rate` allows, while
//! nothing is transferred or looked through. A pass over everything begins a month after the last
//! one has ended; where it is outlasts a restart. `wormhole check` makes a whole pass at once. What
//! is damaged is brought back, or told (`heal`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wormhole_crdt::MeshId;
use wormhole_store::{ScrubPosition, ScrubReport, ScrubScope, WriteError};
use wormhole_vfs::Phase;

use super::heal::heal;
use super::health::CheckRecord;
use super::while_open;
use crate::api::{CheckInfo, CheckReply};
use crate::error::ControlError;
use crate::event::now_ms;
use crate::node::{FolderState, LocalMesh, Node, blocking};

/// Between two slices of the background.
const SLICE_EVERY: Duration = Duration::from_secs(1);

/// Disks rot slowly: a pass a month reads a terabyte at 400 KiB/s.
const PASS_EVERY_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// How often the position is kept: a crash repeats so much.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// How often healing what could not be healed is tried again, if nobody new is there.
const HEAL_EVERY: Duration = Duration::from_secs(30);

/// What finding a piece costs, in bytes that could be read meanwhile: a store of many small files is read
/// as gently as one of few large ones.
const PIECE_COST: u64 = 64 << 10;

/// Bytes in a slice of `wormhole check`: short enough that a stop is prompt.
const HASTY_SLICE: u64 = 64 << 20;

/// Checks the stores in the background, until the node stops.
pub(crate) async fn check_stores(node: Node) {
    let mut passes: BTreeMap<MeshId, Pass> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = node.tasks().cancel().cancelled() => break,
            () = tokio::time::sleep(SLICE_EVERY) => {}
        }
        let meshes = node.local_meshes();
        passes.retain(|id, _| meshes.iter().any(|mesh| mesh.id() == *id));
        for mesh in meshes {
            let pass = match passes.remove(&mesh.id()) {
                Some(pass) => pass,
                None => Pass::load(&mesh).await,
            };
            passes.insert(mesh.id(), pass.step(&node, &mesh).await);
        }
    }
    for (id, pass) in passes {
        if let Some(mesh) = node.local_mesh(&id) {
            pass.save(&mesh).await;
        }
    }
}

/// One pass over a store.
#[derive(Debug)]
struct Pass {
    path: PathBuf,
    record: CheckRecord,
    saved: Instant,
    heal_at: Instant,
    /// How many members were there when healing was tried last.
    members: usize,
    /// After trouble with the disk, not before.
    rest_until: Instant,
}

impl Pass {
    async fn load(mesh: &Arc<LocalMesh>) -> Self {
        let path = mesh.check_path();
        let record = blocking({
            let path = path.clone();
            move || CheckRecord::load(&path)
        });
        let record = record.await;
        mesh.health().add(record.damaged.iter().copied(), []);
        let now = Instant::now();
        Self {
            path,
            record,
            saved: now,
            heal_at: now,
            members: 0,
            rest_until: now,
        }
    }

    /// Does what is due.
    async fn step(mut self, node: &Node, mesh: &Arc<LocalMesh>) -> Self {
        let now = Instant::now();
        let rate = node.config().check;
        if let Some(rate) = rate.filter(|_| now >= self.rest_until && self.is_due())
            && is_idle(node, mesh)
        {
            match slice(mesh, self.record.position(), rate.bytes()).await {
                Ok(report) => self = self.take(mesh, &report).await,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(mesh = mesh.name(), error, "the store cannot be checked");
                    self.rest_until = now + SAVE_EVERY;
                }
            }
        }
        if take_damage(mesh) > 0 {
            self.heal_at = now;
        }
        if !mesh.health().is_good() && self.may_heal(node, mesh, now) {
            heal_or_say(node, mesh).await;
            self.heal_at = Instant::now() + HEAL_EVERY;
            self = self.save(mesh).await;
        }
        self
    }

    /// Whether trying to heal may help: somebody has come, or some time has passed.
    fn may_heal(&mut self, node: &Node, mesh: &LocalMesh, now: Instant) -> bool {
        let members = node.network().sync_state(mesh.id()).len();
        let before = std::mem::replace(&mut self.members, members);
        members > before || now >= self.heal_at
    }

    async fn take(mut self, mesh: &Arc<LocalMesh>, report: &ScrubReport) -> Self {
        self.record.set_position(report.position);
        if report.position.is_none() && !mesh.stop.is_cancelled() {
            self.record.finished_ms = Some(now_ms());
            tracing::info!(mesh = mesh.name(), "the whole store was checked");
        }
        let found = !report.damaged.is_empty() || !report.damaged_files.is_empty();
        if found {
            self.heal_at = Instant::now();
        }
        if found || report.position.is_none() || self.saved.elapsed() >= SAVE_EVERY {
            self = self.save(mesh).await;
        }
        self
    }

    async fn save(mut self, mesh: &LocalMesh) -> Self {
        self.record.damaged = mesh.health().chunks();
        self.saved = Instant::now();
        let (path, record) = (self.path.clone(), self.record.clone());
        blocking(move || record.save(&path)).await;
        self
    }

    /// Whether a pass is under way, or begins.
    fn is_due(&self) -> bool {
        let finished = self.record.finished_ms;
        self.record.position().is_some()
            // A clock that was set back does not put the next pass off for years.
            || finished.is_none_or(|at| !(0..PASS_EVERY_MS).contains(&(now_ms() - at)))
    }
}

/// Notes what readers ran into since this was called last; answers how many pieces that are. A scrub cannot find them
/// any more: a copy that is damaged is forgotten when it is read.
fn take_damage(mesh: &LocalMesh) -> usize {
    let damage = mesh.store().take_damage();
    let found = damage.chunks.len();
    mesh.health().add(damage.chunks, damage.files);
    found
}

/// Whether nobody would be kept waiting by reads of the disk.
fn is_idle(node: &Node, mesh: &LocalMesh) -> bool {
    let is_busy = |state: &FolderState| match state {
        FolderState::Open(folder) => match folder.status().phase {
            Phase::Scanning | Phase::Syncing => true,
            Phase::UpToDate | Phase::Paused | Phase::Stopped(_) => false,
        },
        FolderState::Failed(_) => false,
    };
    !mesh.bound().iter().any(|bound| is_busy(&bound.state))
        && node.network().transfers().is_empty()
        && node.network().uploads().is_empty()
}

/// Reads for so many bytes of a store, pieces counted in, and notes what is damaged.
async fn slice(
    mesh: &Arc<LocalMesh>,
    position: Option<ScrubPosition>,
    bytes: u64,
) -> Result<ScrubReport, WriteError> {
    let mesh = mesh.clone();
    blocking(move || {
        let mut watch = |report: &ScrubReport| {
            let cost = report.bytes + report.checked.saturating_mul(PIECE_COST);
            match cost < bytes {
                true => while_open(&mesh),
                false => std::ops::ControlFlow::Break(()),
            }
        };
        let report = mesh
            .store()
            .scrub(ScrubScope::Everything, position, &mut watch)?;
        mesh.health().add(
            report.damaged.iter().copied(),
            report.damaged_files.iter().cloned(),
        );
        Ok(report)
    })
    .await
}

async fn heal_or_say(node: &Node, mesh: &Arc<LocalMesh>) {
    if let Err(error) = heal(node, mesh).await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(mesh = mesh.name(), error, "damage could not be looked into");
    }
}

impl Node {
    /// Reads and verifies everything that is stored of a mesh, or of all, and heals what it can.
    ///
    /// # Errors
    /// A [`ControlError`]; what was found before is kept.
    pub async fn check(&self, mesh: Option<&str>) -> Result<CheckReply, ControlError> {
        let mut meshes = Vec::new();
        for mesh in self.lookup_all(mesh)? {
            meshes.push(self.check_mesh(&mesh).await?);
        }
        Ok(CheckReply { meshes })
    }

    async fn check_mesh(&self, mesh: &Arc<LocalMesh>) -> Result<CheckInfo, ControlError> {
        let mut info = CheckInfo {
            mesh: mesh.reference(),
            copies: 0,
            bytes: 0,
            damaged: 0,
            unreadable: 0,
            problems: Vec::new(),
        };
        info.damaged += take_damage(mesh) as u64;
        let mut position = None;
        loop {
            let report = slice(mesh, position, HASTY_SLICE).await;
            let report = report.map_err(|source| ControlError::Check {
                name: mesh.name().to_owned(),
                source,
            })?;
            info.copies += report.checked;
            info.bytes += report.bytes;
            info.damaged += report.damaged.len() as u64;
            // Its own findings, which the report has told.
            take_damage(mesh);
            info.unreadable += report.unreadable;
            if mesh.stop.is_cancelled() {
                return Err(ControlError::Stopping(crate::tasks::Closed));
            }
            position = report.position;
            if position.is_none() {
                break;
            }
        }
        heal_or_say(self, mesh).await;
        info.problems = mesh.health().problems();
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(record: CheckRecord) -> Pass {
        let now = Instant::now();
        Pass {
            path: PathBuf::new(),
            record,
            saved: now,
            heal_at: now,
            members: 0,
            rest_until: now,
        }
    }

    #[tokio::test]
    async fn a_pass_is_due_at_first_then_every_month_and_until_it_is_over() {
        let ended = |ago_ms: i64| CheckRecord {
            finished_ms: Some(now_ms() - ago_ms),
            ..CheckRecord::default()
        };
        assert!(pass(CheckRecord::default()).is_due());
        assert!(!pass(ended(1000)).is_due());
        assert!(pass(ended(PASS_EVERY_MS + 1)).is_due());
        assert!(pass(ended(-1_000_000)).is_due(), "the clock was set back");
        let mut under_way = ended(1000);
        under_way.set_position("00".repeat(40).parse().ok());
        assert!(pass(under_way).is_due());
    }
}
