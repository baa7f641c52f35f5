//! The pass of a sweep over all rows: what may go is dropped, what stays is counted by pack.
//!
//! Rows come from a snapshot; each is looked at again under the lock before it is dropped, because
//! it may have been put or bound anew since. Commits happen on the way, so that the pending rows
//! stay few.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::{Horizon, Marks, Swept, Watch};
use crate::error::{IndexError, WriteError};
use crate::id::ChunkId;
use crate::index::{FilePlace, Layers, NodeId, PackId, PackPlace, Place};
use crate::pack::HEADER_BYTES;
use crate::reference::open::open_below;
use crate::reference::tree;
use crate::stamp::FileStamp;
use crate::store::Store;

/// Rows dropped under one lock; readers wait that long, well below a millisecond.
const BATCH: usize = 256;

/// Goes over all places once. Returns how many bytes of each pack are still needed, unless `watch`
/// ended it early.
pub(super) fn drop_rows(
    store: &Store,
    marks: &Marks,
    horizon: &Horizon,
    watch: Watch<'_>,
    swept: &mut Swept,
) -> Result<ControlFlow<(), HashMap<PackId, u64>>, WriteError> {
    let snapshot = store.inner.index.read().snapshot();
    let mut pass = Pass {
        store,
        marks,
        horizon,
        swept,
        files: HashMap::new(),
        live_bytes: HashMap::new(),
        doomed: Vec::with_capacity(BATCH),
    };
    let mut chunk: Option<Chunk> = None;
    for row in snapshot.places()? {
        let (id, _, place) = row?;
        let mut current = match chunk.take() {
            Some(current) if current.id == id => current,
            done => {
                pass.settle(done.as_ref())?;
                if watch().is_break() {
                    pass.flush()?;
                    return Ok(ControlFlow::Break(()));
                }
                Chunk {
                    id,
                    pack: None,
                    held: false,
                }
            }
        };
        match place {
            Place::Pack(place) => current.pack = Some(place),
            Place::File(place) => pass.weigh(&mut current, place)?,
        }
        chunk = Some(current);
    }
    pass.settle(chunk.as_ref())?;
    pass.flush()?;
    Ok(ControlFlow::Continue(pass.live_bytes))
}

/// Drops files and directories whose way up is broken.
pub(super) fn drop_orphans(store: &Store, watch: Watch<'_>) -> Result<(), WriteError> {
    let snapshot = store.inner.index.read().snapshot();
    for row in snapshot.nodes()? {
        let (id, _) = row?;
        if watch().is_break() {
            break;
        }
        if tree::is_rooted(&store.inner.index.read(), id)? {
            continue;
        }
        let mut layers = store.inner.index.update();
        if !tree::is_rooted(&layers, id)? {
            tree::forget(&mut layers, id)?;
        }
        drop(layers);
        store.commit_if_large()?;
    }
    Ok(())
}

/// One chunk, while its rows go by.
struct Chunk {
    id: ChunkId,
    pack: Option<PackPlace>,
    /// Whether a file that looks unchanged has it.
    held: bool,
}

/// What is known of a file that references name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FileState {
    Gone,
    /// It has a path; nobody has looked at it yet.
    Bound,
    Unchanged,
    Changed,
}

struct Pass<'a> {
    store: &'a Store,
    marks: &'a Marks,
    horizon: &'a Horizon,
    swept: &'a mut Swept,
    files: HashMap<NodeId, FileState>,
    live_bytes: HashMap<PackId, u64>,
    doomed: Vec<(ChunkId, Place)>,
}

impl Pass<'_> {
    /// Looks at one reference of a chunk.
    fn weigh(&mut self, chunk: &mut Chunk, place: FilePlace) -> Result<(), WriteError> {
        let mut state = match self.files.get(&place.node) {
            Some(state) => *state,
            None => match tree::is_rooted(&self.store.inner.index.read(), place.node)? {
                true => FileState::Bound,
                false => FileState::Gone,
            },
        };
        // A file needs to be looked at only where it would replace a copy.
        if state == FileState::Bound && chunk.pack.is_some() && !chunk.held {
            state = look(self.store, place.node)?;
        }
        self.files.insert(place.node, state);
        match state {
            FileState::Gone if place.node < self.horizon.node => {
                self.doom(chunk.id, Place::File(place))?;
            }
            FileState::Unchanged => chunk.held = true,
            FileState::Gone | FileState::Bound | FileState::Changed => {}
        }
        Ok(())
    }

    /// Decides about a chunk's pack copy when all its rows have gone by.
    fn settle(&mut self, chunk: Option<&Chunk>) -> Result<(), WriteError> {
        let Some(&Chunk {
            id,
            pack: Some(place),
            held,
        }) = chunk
        else {
            return Ok(());
        };
        let needed = self.marks.contains(&id) && !held;
        if needed || place.generation >= self.horizon.generation {
            let bytes = HEADER_BYTES + u64::from(place.stored);
            *self.live_bytes.entry(place.pack).or_default() += bytes;
            return Ok(());
        }
        if held {
            self.swept.released_chunks += 1;
        } else {
            self.swept.dropped_chunks += 1;
        }
        self.doom(id, Place::Pack(place))
    }

    fn doom(&mut self, id: ChunkId, place: Place) -> Result<(), WriteError> {
        self.doomed.push((id, place));
        if self.doomed.len() >= BATCH {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let mut layers = self.store.inner.index.update();
        for (id, place) in self.doomed.drain(..) {
            let (node, same) = match place {
                Place::Pack(place) => (
                    NodeId::NONE,
                    layers.pack_place(&id)?.is_some_and(|now| now == place),
                ),
                Place::File(place) => {
                    self.swept.dropped_references += 1;
                    (place.node, !tree::is_rooted(&layers, place.node)?)
                }
            };
            if same {
                layers.set_place(id, node, None);
                self.store.inner.cache.remove(&id);
            } else if let Place::Pack(place) = place {
                // Put again since: the row says so by its generation. Its bytes are needed.
                let bytes = HEADER_BYTES + u64::from(place.stored);
                *self.live_bytes.entry(place.pack).or_default() += bytes;
            }
        }
        drop(layers);
        self.store.commit_if_large()
    }
}

/// Compares a bound file with its whole stamp: it is to replace a copy, so a likely match, as would
/// do where the hash confirms it, is not enough.
fn look(store: &Store, node: NodeId) -> Result<FileState, IndexError> {
    let location = {
        let layers: &Layers = &store.inner.index.read();
        tree::locate(layers, node)?
    };
    let Some(location) = location else {
        return Ok(FileState::Gone);
    };
    let seen = open_below(&location.directory, &location.path).ok();
    let seen = seen
        .and_then(|file| file.metadata().ok())
        .filter(|seen| seen.is_file());
    let unchanged = seen
        .zip(location.node.stamp)
        .is_some_and(|(seen, expected)| expected == FileStamp::of(&seen));
    Ok(if unchanged {
        FileState::Unchanged
    } else {
        FileState::Changed
    })
}
