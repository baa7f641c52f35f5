//! Decides the names of entries that claim the same name in the same directory.
//!
//! Directories are shown as one. Otherwise a directory keeps the name, or the file that was there
//! first; the others get `stem (conflict <device> <time>).ext`, where device is the short id of the
//! writer and time the logical time of its write. Files with the same bytes are shown once.

use std::collections::HashSet;
use std::fmt;

use super::Merged;
use crate::entry::{EntryKey, Version};
use crate::id::EntryId;
use crate::name::{EntryName, MAX_NAME_BYTES, fold};
use crate::register::Body;

/// An entry that claims a name, under the name it claims (which differs from its placement's where it
/// fell back).
#[derive(Clone, Debug)]
pub(crate) struct Claimant<'a> {
    pub(crate) id: EntryId,
    pub(crate) name: &'a EntryName,
    pub(crate) merged: &'a Merged,
}

/// Who is shown, and how.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Group {
    /// The directories that are shown as one. The first stands for all.
    pub(crate) directories: Vec<EntryId>,
    /// What has a row of its own.
    pub(crate) shown: Vec<Shown>,
}

/// One row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shown {
    pub(crate) key: EntryKey,
    pub(crate) name: EntryName,
    pub(crate) conflict: bool,
}

struct Leaf<'a> {
    key: EntryKey,
    name: &'a EntryName,
    body: &'a Body,
    /// Orders leaves and tells conflict names apart.
    stamp: Version,
}

/// Names all `claimants` of one folded name. `taken` tells whether a folded name is claimed in the same
/// directory by others.
pub(crate) fn name_all<E>(
    claimants: &[Claimant<'_>],
    mut taken: impl FnMut(&str) -> Result<bool, E>,
) -> Result<Group, E> {
    let mut group = Group::default();
    if let Some(first) = join_directories(claimants, &mut group) {
        group.shown.push(Shown {
            key: first.id.into(),
            name: first.name.clone(),
            conflict: false,
        });
    }
    let mut used = HashSet::new();
    let mut bodies = HashSet::new();
    for leaf in leaves(claimants) {
        if !bodies.insert(leaf.body.identity()) {
            continue;
        }
        let conflict = !group.shown.is_empty();
        let name = if conflict {
            conflict_name(leaf.name, leaf.key.id, leaf.stamp, |folded| {
                Ok(used.contains(folded) || taken(folded)?)
            })?
        } else {
            leaf.name.clone()
        };
        used.insert(name.fold());
        group.shown.push(Shown {
            key: leaf.key,
            name,
            conflict,
        });
    }
    Ok(group)
}

/// Live directories first: the name must not change when the last thing in a removed one goes.
fn join_directories<'a, 'b>(
    claimants: &'a [Claimant<'b>],
    group: &mut Group,
) -> Option<&'a Claimant<'b>> {
    let mut directories: Vec<_> = claimants
        .iter()
        .filter(|claimant| claimant.merged.is_directory())
        .collect();
    directories.sort_by_key(|claimant| {
        (
            std::cmp::Reverse(claimant.merged.state),
            claimant.merged.moved,
            claimant.id,
        )
    });
    group.directories = directories.iter().map(|claimant| claimant.id).collect();
    directories.first().copied()
}

/// In the order in which they may have the plain name: what entries show, then their copies.
fn leaves<'a>(claimants: &'a [Claimant<'_>]) -> Vec<Leaf<'a>> {
    let mut leaves = Vec::new();
    for claimant in claimants
        .iter()
        .filter(|claimant| !claimant.merged.is_directory())
    {
        for (position, variant) in claimant.merged.variants.iter().enumerate() {
            let version = (position > 0).then_some(variant.version);
            leaves.push(Leaf {
                key: EntryKey {
                    id: claimant.id,
                    version,
                },
                name: claimant.name,
                body: &variant.body,
                stamp: version.unwrap_or(claimant.merged.moved),
            });
        }
    }
    leaves.sort_by_key(|leaf| (leaf.key.version.is_some(), leaf.stamp, leaf.key));
    leaves
}

/// A free name for a copy of `name`. Short if it can be, which it is unless the name is nearly as long
/// as a name can be, or somebody took the copy's name on purpose.
pub(crate) fn conflict_name<E>(
    name: &EntryName,
    id: EntryId,
    stamp: Version,
    mut taken: impl FnMut(&str) -> Result<bool, E>,
) -> Result<EntryName, E> {
    let device: String = stamp
        .device
        .to_string()
        .chars()
        .take(SHOWN_DEVICE_DIGITS)
        .collect();
    let short = format_args!(" (conflict {device} {})", stamp.lamport).to_string();
    let (stem, extension) = name.split_extension();
    let candidate = format!("{stem}{short}{extension}");
    if candidate.len() <= MAX_NAME_BYTES && !taken(&fold(&candidate))? {
        return Ok(valid(&candidate));
    }
    let mut number = 1_u64;
    loop {
        let long = Long { stamp, id, number }.to_string();
        let candidate = shortened(name, &long);
        if !taken(&fold(&candidate))? {
            return Ok(valid(&candidate));
        }
        number += 1;
    }
}

/// Digits of the device in a short conflict name: enough to tell the devices of a mesh apart.
const SHOWN_DEVICE_DIGITS: usize = 8;

/// Extensions longer than this are cut like the rest of the name.
const MAX_KEPT_EXTENSION: usize = 32;

/// A suffix that only one copy in the mesh has: at most 128 bytes.
struct Long {
    stamp: Version,
    id: EntryId,
    number: u64,
}

impl fmt::Display for Long {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stamp: Version {
                lamport, device, ..
            },
            id,
            number,
        } = self;
        write!(f, " (conflict {device} {lamport} {id}")?;
        match number {
            1 => f.write_str(")"),
            _ => write!(f, " {number})"),
        }
    }
}

fn shortened(name: &EntryName, suffix: &str) -> String {
    let (stem, extension) = match name.split_extension() {
        (stem, extension) if extension.len() <= MAX_KEPT_EXTENSION => (stem, extension),
        _ => (name.as_str(), ""),
    };
    let room = MAX_NAME_BYTES - suffix.len() - extension.len();
    let stem = stem
        .get(..stem.floor_char_boundary(room))
        .unwrap_or_default();
    format!("{stem}{suffix}{extension}")
}

fn valid(name: &str) -> EntryName {
    EntryName::parse(name).expect("parts of a name and a suffix, within the limit, are a name")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use super::*;
    use crate::id::{Branch, DeviceTag};
    use proptest::prelude::*;

    fn free(_: &str) -> Result<bool, Infallible> {
        Ok(false)
    }

    #[test]
    fn a_conflict_name_keeps_the_extension() {
        let stamp = Version {
            lamport: 42,
            device: DeviceTag::from_bytes([0x1a; 8]),
            branch: Branch::from_bytes([0; 8]),
        };
        let named = |name: &str| {
            let name = EntryName::parse(name).unwrap();
            conflict_name(&name, EntryId::from_bytes([7; 16]), stamp, free).unwrap()
        };
        assert_eq!(
            named("plan.tar.gz").as_str(),
            "plan.tar (conflict 1a1a1a1a 42).gz"
        );
        assert_eq!(named(".bashrc").as_str(), ".bashrc (conflict 1a1a1a1a 42)");
    }

    proptest! {
        #[test]
        fn conflict_names_are_names_and_never_taken(
            name in "[^/\0]{1,255}|[a-z]{200,255}|[a-z]\\.[é]{30,120}",
            lamport: u64, device: [u8; 8], id: [u8; 16], clashes in 0_usize..5,
        ) {
            let Ok(name) = EntryName::parse(&name) else { return Ok(()) };
            let branch = Branch::from_bytes([0; 8]);
            let stamp = Version { lamport, device: DeviceTag::from_bytes(device), branch };
            let mut refused = BTreeSet::new();
            let chosen = conflict_name(&name, EntryId::from_bytes(id), stamp, |folded| {
                Ok::<_, Infallible>(refused.len() < clashes && refused.insert(folded.to_owned()))
            }).unwrap();
            prop_assert!(EntryName::parse(chosen.as_str()).is_ok());
            prop_assert!(!refused.contains(&chosen.fold()));
        }
    }
}
