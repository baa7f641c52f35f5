//! Finding out what is in a file: hashing it where it stands, several at a time.

use std::collections::HashMap;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use wormhole_crdt::{Entry, EntryId, EntryKey, Mode};
use wormhole_store::{Content, Holding, ImportError, Imported};

use super::{Node, Row};
use crate::error::chain;
use crate::folder::beneath::{self, Seen};
use crate::folder::engine::{BUSY_PAUSE, Engine, Look, Outcome, Siblings, Step, Todo, node_of};
use crate::folder::name::Place;
use crate::folder::stamp::is_racy;
use crate::folder::state::Keep;
use crate::folder::status::Reason;

/// Files hashed at the same time in one step.
const IMPORT_THREADS: usize = 2;

impl Engine {
    /// Takes the result of hashing a big file beside the steps.
    pub(crate) fn imported(
        &mut self,
        look: Look,
        result: Result<Imported, ImportError>,
    ) -> Outcome<Todo> {
        let mut step = self.begin(Keep::Now)?;
        step.take_import(look, result)?;
        step.end()
    }
}

impl Step<'_> {
    /// Hashes files and decides about them.
    pub(crate) fn examine(&mut self, looks: Vec<Look>) -> Outcome<()> {
        let results = self.import(&looks);
        for (look, result) in looks.into_iter().zip(results) {
            self.take_import(look, result)?;
        }
        Ok(())
    }

    fn import(&self, looks: &[Look]) -> Vec<Result<Imported, ImportError>> {
        let store = &self.engine.store;
        let engine = &*self.engine;
        let share = looks.len().div_ceil(IMPORT_THREADS).max(1);
        let import = |part: &[Look]| -> Vec<Result<Imported, ImportError>> {
            part.iter()
                .map(|look| store.import_reference(&engine.file_path(&look.path)))
                .collect()
        };
        if looks.len() < 2 * IMPORT_THREADS {
            return import(looks);
        }
        std::thread::scope(|scope| {
            let workers: Vec<_> = looks
                .chunks(share)
                .map(|part| scope.spawn(|| import(part)))
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| match worker.join() {
                    Ok(results) => results,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        })
    }

    fn take_import(&mut self, look: Look, result: Result<Imported, ImportError>) -> Outcome<()> {
        match result {
            // The store opened the path by itself: only if it saw the very file that we see was it ours.
            Ok(imported) if imported.stamp == look.seen.stamp => {
                let content = imported.content;
                let racy = is_racy(&look.seen.stamp, look.at_ns);
                if let Some(said) = &look.said {
                    self.remember_said(&look, said)?;
                }
                let row = self.batch.get(&look.place)?;
                let mode = self.mode_of(&look.seen, row.as_ref());
                let node = file_node(content, mode, &look.seen, row.as_ref());
                self.decide(&look.place, &look.path, node, look.seen, racy)
            }
            Ok(_) | Err(ImportError::Changed { .. }) => {
                self.todo.later.push((look.path, BUSY_PAUSE));
                Ok(())
            }
            Err(error) => {
                self.import_failed(&look, &error);
                Ok(())
            }
        }
    }

    /// A version that this device wrote of what stands at a place, and whose bytes it has, while the memory speaks of an
    /// older one or of none: a crash came between telling the mesh and remembering it. To be asked before the file is
    /// read again, because that is when the store learns that it changed.
    pub(super) fn said_and_forgotten(&mut self, place: &Place) -> Outcome<Option<Entry>> {
        if !self.engine.at_home {
            // Without a memory nothing tells an edit from an older copy of what this device wrote.
            return Ok(None);
        }
        let row = self.batch.get(place)?;
        let entry = match &row {
            Some(row) if row.key.version.is_some() => return Ok(None),
            Some(row) => self.shown(&row.key)?,
            None => self.shown_at(place)?,
        };
        let Some(entry) = entry else { return Ok(None) };
        let remembered = row.and_then(|row| row.version);
        let version = |entry: &Entry| entry.file.map(|file| file.version);
        if remembered == version(&entry) {
            return Ok(None);
        }
        let mut versions = self.versions_of(&entry)?;
        versions.retain(|other| version(other) != remembered);
        let own = self.engine.replica.device().tag();
        Ok(versions.into_iter().find(|entry| {
            entry.modified_by() == own && entry.file.is_some_and(|file| self.is_held(&file.content))
        }))
    }

    /// All versions of an entry that are shown. Its directory is kept in mind: the others in it may be asked for next.
    fn versions_of(&mut self, entry: &Entry) -> Outcome<Vec<Entry>> {
        let known = self.siblings.take();
        let siblings = match known.filter(|known| known.parent == entry.parent) {
            Some(known) => known,
            None => {
                self.crash_point("a directory of the mesh listed");
                let mut by_id: HashMap<EntryId, Vec<Entry>> = HashMap::new();
                for child in self.engine.replica.children(entry.parent)? {
                    by_id.entry(child.key.id).or_default().push(child);
                }
                let parent = entry.parent;
                Siblings { parent, by_id }
            }
        };
        let versions = siblings.by_id.get(&entry.key.id).cloned();
        self.siblings = Some(siblings);
        Ok(versions.unwrap_or_default())
    }

    /// If the bytes of a forgotten version went with the change of this very file, it is what was changed here.
    fn remember_said(&mut self, look: &Look, said: &Entry) -> Outcome<()> {
        let (Some(file), Some(node)) = (said.file, node_of(said)) else {
            return Ok(());
        };
        if self.is_held(&file.content) {
            return Ok(());
        }
        let mut seen = look.seen.with_mode(beneath::file_mode(said.mode));
        seen.stamp.mtime_ns = file.mtime.0;
        let row = Row {
            key: EntryKey::from(said.key.id),
            version: Some(file.version),
            node,
            seen,
            racy: true,
        };
        Ok(self.batch.put(&look.place, &row)?)
    }

    fn is_held(&self, content: &Content) -> bool {
        matches!(self.engine.store.holding(content), Ok(Holding::All))
    }

    fn import_failed(&mut self, look: &Look, error: &ImportError) {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(at) = cause {
            if let Some(io) = at.downcast_ref::<io::Error>() {
                if io.kind() == io::ErrorKind::NotFound {
                    self.todo.later.push((look.path.clone(), BUSY_PAUSE));
                } else {
                    self.engine.io_problem(&look.path, io);
                }
                return;
            }
            cause = at.source();
        }
        self.engine.problems.report(
            &look.path,
            Reason::Io {
                message: chain(error),
            },
        );
    }
}

/// What the disk says about a file. Attributes that look as they did after the last sync are what was synced then, even on
/// a disk that cannot hold them exactly.
fn file_node(content: Content, mode: Mode, seen: &Seen, row: Option<&Row>) -> Node {
    let mtime = match row {
        Some(Row {
            node: Node::File { mtime, .. },
            seen: before,
            ..
        }) if before.stamp.mtime_ns == seen.stamp.mtime_ns => *mtime,
        Some(_) | None => seen.mtime(),
    };
    Node::File {
        content,
        mode,
        mtime,
    }
}

pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
