//! Brings damaged chunks back: from another copy, from the synced file, from another device. Says
//! which files suffer when none has them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wormhole_crdt::{EntryId, EntryPath, Replica, StorageError};
use wormhole_store::{ChunkId, Content, FetchJob, FilePath, Store};

use crate::api::Problem;
use crate::node::{LocalMesh, Node, blocking};
use crate::status::{shown, shown_path};

/// Contents that are looked for at once; more damage than that is healed in turns.
const MOST: usize = 4096;

/// A live content that misses a chunk, and the file that shows it.
#[derive(Debug, Clone)]
struct Patient {
    content: Content,
    path: EntryPath,
}

/// Heals what can be healed now, and tells what cannot.
pub(super) async fn heal(node: &Node, mesh: &Arc<LocalMesh>) -> Result<(), StorageError> {
    let health = mesh.health();
    let found = blocking({
        let mesh = mesh.clone();
        move || patients(&mesh)
    });
    let patients = found.await?;
    if !patients.is_empty() {
        let left = blocking({
            let mesh = mesh.clone();
            move || import_again(&mesh, patients)
        });
        fetch(node, mesh, left.await?).await;
    }
    let (lost, files) = blocking({
        let mesh = mesh.clone();
        move || Ok::<_, StorageError>((self::patients(&mesh)?, mesh.health().files()))
    })
    .await?;
    if lost.is_empty() {
        // What is in no live content is garbage, whole or not.
        health.settle(&health.chunks());
    } else if let Some(seed) = mesh.seed() {
        seed.want(None);
        mesh.wake.notify_one();
    }
    let mut problems: Vec<Problem> = lost.iter().map(lost_content).collect();
    problems.extend(files.iter().map(|file| rotten_file(mesh, file)));
    health.tell(&mesh.reference(), problems, node.events());
    Ok(())
}

fn lost_content(patient: &Patient) -> Problem {
    Problem {
        path: patient.path.display().to_string(),
        reason: "what is stored of it here is damaged, and no connected device has it".to_owned(),
        action: "connect a device that has it, or put it back from a backup".to_owned(),
    }
}

fn rotten_file(mesh: &LocalMesh, file: &Path) -> Problem {
    Problem {
        path: shown_path(file),
        reason: "its bytes have changed although nobody wrote to it: the disk may be failing"
            .to_owned(),
        action: format!(
            "put it back from a backup, or from another device: wormhole cat {}:PATH",
            shown(mesh.name())
        ),
    }
}

/// Forgets the damage that another copy has made up for; finds the live contents that still miss
/// something.
fn patients(mesh: &LocalMesh) -> Result<Vec<Patient>, StorageError> {
    let (here, lost): (BTreeSet<ChunkId>, BTreeSet<ChunkId>) = mesh
        .health()
        .chunks()
        .into_iter()
        .partition(|chunk| mesh.store().has(chunk));
    mesh.health().settle(&here);
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let mut patients = Vec::new();
    visit_files(mesh.replica(), EntryId::ROOT, &mut |path, content| {
        if consists_of_any(mesh.store(), content, &lost) {
            patients.push(Patient {
                content: *content,
                path: path.clone(),
            });
        }
        match patients.len() < MOST && !mesh.stop.is_cancelled() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(patients)
}

/// A manifest that cannot be read now says nothing; it is looked at again.
fn consists_of_any(store: &Store, content: &Content, chunks: &BTreeSet<ChunkId>) -> bool {
    let answer = store.consists_of_any(content, chunks);
    answer
        .inspect_err(
            |error| tracing::debug!(content = %content.id, %error, "a manifest is unreadable"),
        )
        .unwrap_or(false)
}

fn visit_files(
    replica: &Replica,
    from: EntryId,
    visit: &mut dyn FnMut(&EntryPath, &Content) -> ControlFlow<()>,
) -> Result<(), StorageError> {
    replica.walk(from, &mut |path, entry| match &entry.file {
        Some(file) => visit(path, &file.content),
        None => ControlFlow::Continue(()),
    })
}

/// Reads the synced files that should have these contents. Gives back those that no file has.
fn import_again(mesh: &LocalMesh, patients: Vec<Patient>) -> Result<Vec<Patient>, StorageError> {
    let wanted: BTreeSet<_> = patients.iter().map(|patient| patient.content.id).collect();
    let mut healed = BTreeSet::new();
    for bound in mesh.bound() {
        visit_files(mesh.replica(), bound.base, &mut |path, content| {
            if wanted.contains(&content.id) && !healed.contains(&content.id) {
                let file = FilePath::new(bound.id, PathBuf::from(path.to_string()));
                match mesh.store().import_reference(&file) {
                    Ok(imported) if imported.content == *content => {
                        healed.insert(content.id);
                    }
                    // It is not here yet, or something else is: that file cannot help.
                    Ok(_) | Err(_) => {}
                }
            }
            match mesh.stop.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
    }
    commit(mesh);
    let is_left = |patient: &Patient| !healed.contains(&patient.content.id);
    Ok(patients.into_iter().filter(is_left).collect())
}

/// Fetches contents from whoever has them.
async fn fetch(node: &Node, mesh: &Arc<LocalMesh>, patients: Vec<Patient>) {
    if patients.is_empty() {
        return;
    }
    let job = |patient: Patient| FetchJob {
        content: patient.content,
        label: patient.path.display().to_string().into(),
        sink: Arc::new(mesh.store().clone()),
    };
    let jobs = patients.into_iter().map(job).collect();
    let results = node
        .network()
        .fetch(mesh.id(), jobs, mesh.stop.child_token())
        .await;
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        tracing::debug!(mesh = mesh.name(), %error, "a damaged content was not fetched");
    }
    let mesh = mesh.clone();
    blocking(move || commit(&mesh)).await;
}

fn commit(mesh: &LocalMesh) {
    if let Err(error) = mesh.store().commit() {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(
            mesh = mesh.name(),
            error,
            "what was healed could not be kept"
        );
    }
}
