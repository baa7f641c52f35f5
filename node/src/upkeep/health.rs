//! What is known to be damaged in the store of one mesh, and what people are told about it.
//!
//! Filled by `check`, emptied by `heal`. It is kept with the position of the check, so that a restart
//! forgets neither.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use wormhole_store::{ChunkId, FileStamp, ScrubPosition};

use crate::api::{MeshRef, Problem};
use crate::event::{EventBus, EventKind};
use crate::home::write_private;

/// What is damaged in one mesh.
#[derive(Debug, Default)]
pub(crate) struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Chunks that have no good copy here, as far as is known.
    chunks: BTreeSet<ChunkId>,
    /// Synced files whose bytes changed by themselves, as they looked then; gone when they look
    /// different.
    files: BTreeMap<PathBuf, Option<FileStamp>>,
    /// What people are told, by path.
    told: BTreeMap<String, Problem>,
    /// What was repaired, and what people should know about it, until the node stops.
    notices: Vec<Problem>,
}

impl Health {
    /// Notes what a check has found.
    pub(crate) fn add(
        &self,
        chunks: impl IntoIterator<Item = ChunkId>,
        files: impl IntoIterator<Item = PathBuf>,
    ) {
        let mut state = self.lock();
        state.chunks.extend(chunks);
        for file in files {
            let stamp = stamp(&file);
            state.files.insert(file, stamp);
        }
    }

    /// Whether nothing is known to be damaged.
    pub(crate) fn is_good(&self) -> bool {
        let state = self.lock();
        state.chunks.is_empty() && state.files.is_empty() && state.told.is_empty()
    }

    /// The chunks that were damaged and are not known to be healed.
    pub(crate) fn chunks(&self) -> BTreeSet<ChunkId> {
        self.lock().chunks.clone()
    }

    /// These chunks are here again, or nobody needs them.
    pub(crate) fn settle(&self, chunks: &BTreeSet<ChunkId>) {
        self.lock().chunks.retain(|chunk| !chunks.contains(chunk));
    }

    /// The damaged files that look as they did when they were found. Forgets the others: somebody
    /// has written them since. Looks at the disk.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let known: Vec<_> = {
            let state = self.lock();
            state
                .files
                .iter()
                .map(|(file, seen)| (file.clone(), *seen))
                .collect()
        };
        let (same, other): (Vec<_>, Vec<_>) = known
            .into_iter()
            .partition(|(file, seen)| seen.is_some() && stamp(file) == *seen);
        let mut state = self.lock();
        for (file, _) in other {
            state.files.remove(&file);
        }
        same.into_iter().map(|(file, _)| file).collect()
    }

    /// Says what was damaged and has been repaired.
    pub(crate) fn notice(&self, mesh: &MeshRef, notice: Problem, events: &EventBus) {
        events.raise(EventKind::ProblemRaised {
            mesh: mesh.clone(),
            path: notice.path.clone(),
            reason: notice.reason.clone(),
            action: notice.action.clone(),
        });
        self.lock().notices.push(notice);
    }

    /// All that people are told: what is damaged, and what was repaired.
    pub(crate) fn report(&self) -> Vec<Problem> {
        let state = self.lock();
        state.told.values().chain(&state.notices).cloned().collect()
    }

    /// What is damaged and not healed.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        self.lock().told.values().cloned().collect()
    }

    /// Replaces what people are told, and says what is new and what is over.
    pub(crate) fn tell(&self, mesh: &MeshRef, problems: Vec<Problem>, events: &EventBus) {
        let now: BTreeMap<String, Problem> = problems
            .into_iter()
            .map(|problem| (problem.path.clone(), problem))
            .collect();
        let before = std::mem::replace(&mut self.lock().told, now.clone());
        for (path, problem) in &now {
            if !before.contains_key(path) {
                tracing::error!(mesh = mesh.name, path, problem.reason, "damage on disk");
                events.raise(EventKind::ProblemRaised {
                    mesh: mesh.clone(),
                    path: path.clone(),
                    reason: problem.reason.clone(),
                    action: problem.action.clone(),
                });
            }
        }
        for path in before.into_keys().filter(|path| !now.contains_key(path)) {
            tracing::info!(mesh = mesh.name, path, "the damage is healed");
            let mesh = mesh.clone();
            events.raise(EventKind::ProblemCleared { mesh, path });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(file: &Path) -> Option<FileStamp> {
    fs::symlink_metadata(file)
        .ok()
        .map(|metadata| FileStamp::of(&metadata))
}

/// How far the check of a mesh is, as kept in its directory (`check.json`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CheckRecord {
    /// Where the pass under way goes on.
    pub(super) position: Option<String>,
    /// When the last whole pass ended, in milliseconds since 1970.
    pub(super) finished_ms: Option<i64>,
    /// What was damaged and not healed.
    pub(super) damaged: BTreeSet<ChunkId>,
}

impl CheckRecord {
    /// Reads it. One that is absent or makes no sense means to begin from the start.
    pub(super) fn load(path: &Path) -> Self {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the check begins anew");
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the check begins anew");
            Self::default()
        })
    }

    /// Writes it.
    pub(super) fn save(&self, path: &Path) {
        let text = serde_json::to_vec_pretty(self).expect("a record has only strings and numbers");
        if let Err(error) = write_private(path, &text) {
            tracing::warn!(path = %path.display(), %error, "where the check is could not be kept");
        }
    }

    pub(super) fn position(&self) -> Option<ScrubPosition> {
        self.position.as_deref().and_then(|text| text.parse().ok())
    }

    pub(super) fn set_position(&mut self, position: Option<ScrubPosition>) {
        self.position = position.map(|position| position.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(path: &str) -> Problem {
        Problem {
            path: path.to_owned(),
            reason: "damaged".to_owned(),
            action: String::new(),
        }
    }

    #[tokio::test]
    async fn damage_is_told_once_and_its_end_too() {
        let (health, events) = (Health::default(), EventBus::default());
        let mut stream = events.follow();
        let mesh = MeshRef {
            id: "ab".to_owned(),
            name: "Designs".to_owned(),
        };
        health.tell(&mesh, vec![problem("a"), problem("b")], &events);
        health.tell(&mesh, vec![problem("b")], &events);
        health.tell(&mesh, vec![problem("b")], &events);
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(match stream.next().await.unwrap().kind {
                EventKind::ProblemRaised { path, .. } => format!("+{path}"),
                EventKind::ProblemCleared { path, .. } => format!("-{path}"),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(told, ["+a", "+b", "-a"]);
        assert_eq!(health.problems(), [problem("b")]);
    }

    #[test]
    fn a_damaged_file_that_was_written_since_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("photo");
        fs::write(&file, "rotten").unwrap();
        let health = Health::default();
        health.add([], [file.clone()]);
        assert!(health.files() == std::slice::from_ref(&file) && !health.is_good());
        fs::write(&file, "whole again").unwrap();
        assert!(health.files().is_empty() && health.is_good());
    }

    #[test]
    fn what_is_kept_outlasts_a_restart_and_nonsense_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("check.json");
        assert_eq!(CheckRecord::load(&path), CheckRecord::default());
        let mut record = CheckRecord {
            finished_ms: Some(7),
            damaged: BTreeSet::from([ChunkId::from_bytes([3; 32])]),
            ..CheckRecord::default()
        };
        let position: ScrubPosition = "ab".repeat(40).parse().unwrap();
        record.set_position(Some(position));
        record.save(&path);
        let read = CheckRecord::load(&path);
        assert_eq!(read, record);
        assert_eq!(read.position(), Some(position));
        fs::write(&path, "{").unwrap();
        assert_eq!(CheckRecord::load(&path), CheckRecord::default());
    }
}
