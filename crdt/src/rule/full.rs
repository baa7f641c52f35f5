//! The whole tree from all registers at once: the plain reading of the rules that the incremental
//! index is tested against.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use super::cycle::{self, Edge};
use super::naming::{self, Claimant};
use super::{Merged, place, read};
use crate::entry::{Entry, EntryKey};
use crate::id::EntryId;
use crate::name::EntryName;
use crate::register::Registers;

/// Where each entry is.
type Places<'a> = BTreeMap<EntryId, (EntryId, &'a EntryName)>;
/// By directory and folded name.
type Claims = BTreeMap<EntryId, BTreeMap<String, Vec<EntryId>>>;

/// Every entry shown, by key.
pub(crate) fn derive(registers: &dyn Registers) -> BTreeMap<EntryKey, Entry> {
    let ids = registers.ids().unwrap().into_iter();
    let all: BTreeMap<EntryId, Merged> = ids
        .filter_map(|id| Some((id, read(registers, &id).unwrap()?)))
        .collect();
    let places = places(&all);
    let claims = claims(&all, &places);
    let mut entries = BTreeMap::new();
    let mut queue = vec![vec![EntryId::ROOT]];
    while let Some(members) = queue.pop() {
        let mut names: BTreeMap<String, Vec<EntryId>> = BTreeMap::new();
        for (fold, ids) in members
            .iter()
            .filter_map(|member| claims.get(member))
            .flatten()
        {
            names.entry(fold.clone()).or_default().extend(ids);
        }
        for ids in names.values() {
            let claimants: Vec<Claimant<'_>> = ids
                .iter()
                .map(|id| Claimant {
                    id: *id,
                    name: places[id].1,
                    merged: &all[id],
                })
                .collect();
            let taken = |fold: &str| Ok::<_, Infallible>(names.contains_key(fold));
            let group = naming::name_all(&claimants, taken).unwrap();
            for row in group.shown {
                let entry = all[&row.key.id]
                    .show(row.key, members[0], row.name, row.conflict)
                    .expect("a row shows a content that is there");
                assert!(
                    entries.insert(row.key, entry).is_none(),
                    "shown twice: {:?}",
                    row.key
                );
            }
            if !group.directories.is_empty() {
                queue.push(group.directories);
            }
        }
    }
    entries
}

fn places(all: &BTreeMap<EntryId, Merged>) -> Places<'_> {
    let directory = |id: &EntryId| all.get(id).filter(|merged| merged.is_directory());
    let fallbacks = cycle::break_all(all.keys().copied(), |id| {
        Ok::<_, Infallible>(directory(id).map(|merged| Edge {
            parent: merged.parent,
            moved: merged.moved,
            from: merged.from.as_ref().map(|origin| origin.parent),
        }))
    })
    .unwrap();
    let known = |id: &EntryId| *id == EntryId::ROOT || directory(id).is_some();
    all.iter()
        .map(|(id, merged)| (*id, place(merged, fallbacks.get(id).copied(), known)))
        .collect()
}

/// The claims of all that is shown: what stands alone, and what is above it.
fn claims(all: &BTreeMap<EntryId, Merged>, places: &Places<'_>) -> Claims {
    let mut shown = BTreeSet::new();
    for (id, _) in all.iter().filter(|(_, merged)| merged.stands_alone()) {
        let mut at = *id;
        while at != EntryId::ROOT && shown.insert(at) {
            at = places[&at].0;
        }
    }
    let mut claims = Claims::new();
    for id in shown {
        let (parent, name) = places[&id];
        claims
            .entry(parent)
            .or_default()
            .entry(name.fold())
            .or_default()
            .push(id);
    }
    claims
}
