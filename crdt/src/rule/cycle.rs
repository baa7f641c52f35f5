//! Breaks cycles of directories that were moved into one another apart.
//!
//! On each cycle the latest move loses: its directory falls back to where it was. If it is in a cycle
//! there too, the latest of the directories that fell back goes to the root. Directories form a graph in
//! which each has one parent, so a component has at most one cycle, and what is done to one cycle
//! never depends on the order in which cycles are found.

use std::collections::{BTreeMap, BTreeSet};

use super::Fallback;
use crate::entry::Version;
use crate::id::EntryId;

/// A directory as the graph sees it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) parent: EntryId,
    pub(crate) moved: Version,
    pub(crate) from: Option<EntryId>,
}

/// The directories that fall back, in all components that hold one of `seeds`.
///
/// `edge` gives a directory; `None` for the root and for all that is not a known directory. Each
/// existing cycle must be reachable upwards from a seed.
pub(crate) fn break_all<E>(
    seeds: impl IntoIterator<Item = EntryId>,
    mut edge: impl FnMut(&EntryId) -> Result<Option<Edge>, E>,
) -> Result<BTreeMap<EntryId, Fallback>, E> {
    let mut victims = BTreeMap::new();
    for cycle in cycles(seeds, |id| Ok(edge(id)?.map(|edge| edge.parent)))? {
        if let Some(victim) = latest(&cycle, &mut edge)? {
            victims.insert(victim, Fallback::Origin);
        }
    }
    let again = cycles(victims.keys().copied().collect::<Vec<_>>(), |id| {
        let edge = edge(id)?;
        Ok(edge.and_then(|edge| match victims.contains_key(id) {
            true => edge.from,
            false => Some(edge.parent),
        }))
    })?;
    for mut cycle in again {
        cycle.retain(|id| victims.contains_key(id));
        if let Some(victim) = latest(&cycle, &mut edge)? {
            victims.insert(victim, Fallback::Root);
        }
    }
    Ok(victims)
}

fn latest<E>(
    cycle: &[EntryId],
    mut edge: impl FnMut(&EntryId) -> Result<Option<Edge>, E>,
) -> Result<Option<EntryId>, E> {
    let mut latest = None;
    for id in cycle {
        let moved = edge(id)?.map(|edge| edge.moved);
        latest = latest.max(Some((moved, *id)));
    }
    Ok(latest.map(|(_, id)| id))
}

/// Each cycle above the seeds, once.
fn cycles<E>(
    seeds: impl IntoIterator<Item = EntryId>,
    mut parent: impl FnMut(&EntryId) -> Result<Option<EntryId>, E>,
) -> Result<Vec<Vec<EntryId>>, E> {
    let mut cycles = Vec::new();
    let mut done = BTreeSet::new();
    for seed in seeds {
        let mut path: Vec<EntryId> = Vec::new();
        let mut on_path = BTreeSet::new();
        let mut at = Some(seed);
        while let Some(id) = at {
            if done.contains(&id) {
                break;
            }
            if !on_path.insert(id) {
                let start = path
                    .iter()
                    .position(|passed| *passed == id)
                    .unwrap_or(path.len());
                cycles.push(path.split_off(start));
                break;
            }
            path.push(id);
            at = parent(&id)?;
        }
        done.append(&mut on_path);
    }
    Ok(cycles)
}
