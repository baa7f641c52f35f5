//! What to do about one entry: a pure function of what was last synced, what the disk shows and what the mesh says.
//!
//! It is a three-way merge with one bias: a change made here is recorded before a change from elsewhere is shown, so
//! that the tree rules can keep both (law 6). Whatever crashes between deciding and doing is repaired by deciding
//! again, because every action moves one of the three towards the others. Nothing here touches anything.

use wormhole_crdt::{LinkTarget, Mode, Timestamp};
use wormhole_store::Content;

/// Everything about an entry that is synced, but its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory {
        mode: Mode,
    },
    File {
        content: Content,
        mode: Mode,
        mtime: Timestamp,
    },
    Symlink {
        target: LinkTarget,
    },
}

impl Node {
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    /// Whether both hold the same, whatever their times and permissions are.
    pub(crate) fn holds_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Directory { .. }, Self::Directory { .. }) => true,
            (Self::File { content, .. }, Self::File { content: other, .. }) => content == other,
            (Self::Symlink { target }, Self::Symlink { target: other }) => target == other,
            _ => false,
        }
    }

    /// The permissions that the mesh knows of it. A link has none.
    pub(crate) fn mode(&self) -> Option<Mode> {
        match self {
            Self::Directory { mode } | Self::File { mode, .. } => Some(*mode),
            Self::Symlink { .. } => None,
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// All three agree.
    Nothing,
    /// Disk and mesh agree; only the memory of the last sync is behind.
    Adopt,
    /// Gone from disk and mesh; forget it.
    Forget,
    /// Tell the mesh what the disk shows. If the mesh had moved on too, its rules keep both.
    Record,
    /// Show on disk what the mesh says. What was on disk is what was last synced, so nothing of the user's is lost.
    Apply,
}

/// Decides about an entry. What was deleted here was deleted with what it held: other times and permissions that it
/// got elsewhere bring it back no more than they would for a device that heard of the deletion first.
pub(crate) fn plan_entry(
    synced: Option<&Node>,
    disk: Option<&Node>,
    mesh: Option<&Node>,
) -> Action {
    match (synced, disk, mesh) {
        (Some(synced), None, Some(mesh)) if synced.holds_same(mesh) => Action::Record,
        _ => plan(synced, disk, mesh),
    }
}

/// Decides. `None` is absence: never synced, not on disk, not in the mesh.
fn plan<T: PartialEq>(synced: Option<&T>, disk: Option<&T>, mesh: Option<&T>) -> Action {
    if disk == mesh {
        return match disk {
            _ if synced == disk => Action::Nothing,
            None => Action::Forget,
            Some(_) => Action::Adopt,
        };
    }
    match (synced == disk, synced == mesh) {
        (true, _) => Action::Apply,
        (false, true) => Action::Record,
        // Deleted here, changed there: whoever deleted it has not seen the change, so it comes back.
        (false, false) if disk.is_none() => Action::Apply,
        (false, false) => Action::Record,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// Three places that hold values of names; every value is written once, so that loss can be seen.
    #[derive(Default, Debug)]
    struct World {
        synced: BTreeMap<u8, u32>,
        disk: BTreeMap<u8, u32>,
        mesh: BTreeMap<u8, u32>,
        /// Conflict copies get names of their own.
        next_name: u8,
        next_value: u32,
        /// Values that someone who had seen them replaced or deleted.
        superseded: BTreeSet<u32>,
        written: BTreeSet<u32>,
    }

    #[derive(Clone, Debug)]
    enum Event {
        WriteHere(u8),
        DeleteHere(u8),
        WriteThere(u8),
        DeleteThere(u8),
        /// A step of the folder, done in full, or cut off by a crash after its first half.
        Step {
            name: u8,
            crash: bool,
        },
    }

    fn event() -> impl Strategy<Value = Event> {
        let name = 0..3u8;
        prop_oneof![
            name.clone().prop_map(Event::WriteHere),
            name.clone().prop_map(Event::DeleteHere),
            name.clone().prop_map(Event::WriteThere),
            name.prop_map(Event::DeleteThere),
            (0..12u8, any::<bool>()).prop_map(|(name, crash)| Event::Step { name, crash }),
        ]
    }

    fn set(map: &mut BTreeMap<u8, u32>, name: u8, value: Option<u32>) {
        match value {
            Some(value) => map.insert(name, value),
            None => map.remove(&name),
        };
    }

    impl World {
        fn value(&mut self) -> u32 {
            self.next_value += 1;
            self.written.insert(self.next_value);
            self.next_value
        }

        /// A user acts on what stands there: what they replace is superseded, on purpose.
        fn act(&mut self, name: u8, here: bool, delete: bool) {
            let value = if delete { None } else { Some(self.value()) };
            let map = if here { &mut self.disk } else { &mut self.mesh };
            let old = map.get(&name).copied();
            set(map, name, value);
            // Deleting or replacing counts as seen only by the one who saw exactly this value.
            self.superseded.extend(old);
        }

        fn step(&mut self, name: u8, crash: bool) -> bool {
            let [synced, disk, mesh] =
                [&self.synced, &self.disk, &self.mesh].map(|map| map.get(&name).copied());
            let action = plan(synced.as_ref(), disk.as_ref(), mesh.as_ref());
            let after = match action {
                Action::Nothing => return false,
                Action::Adopt | Action::Forget => disk,
                Action::Apply => {
                    assert_eq!(
                        synced.or(disk),
                        synced,
                        "applied over something never recorded"
                    );
                    set(&mut self.disk, name, mesh);
                    mesh
                }
                Action::Record if synced == mesh => {
                    set(&mut self.mesh, name, disk);
                    disk
                }
                // The mesh moved on: it keeps its own value here and ours beside it.
                Action::Record => {
                    let copy = 10 + self.next_name;
                    self.next_name += 1;
                    set(&mut self.mesh, copy, disk);
                    set(&mut self.disk, copy, disk);
                    set(&mut self.synced, copy, disk);
                    set(&mut self.disk, name, mesh);
                    mesh
                }
            };
            if !crash {
                set(&mut self.synced, name, after);
            }
            true
        }

        fn settle(&mut self) {
            for _round in 0..100 {
                let names: BTreeSet<u8> = [&self.synced, &self.disk, &self.mesh]
                    .into_iter()
                    .flat_map(|map| map.keys().copied())
                    .collect();
                let busy = names
                    .into_iter()
                    .fold(false, |busy, name| self.step(name, false) | busy);
                if !busy {
                    return;
                }
            }
            panic!("does not come to rest");
        }
    }

    proptest! {
        #[test]
        fn shuffled_crashed_and_repeated_plans_converge_and_lose_nothing(
            events in prop::collection::vec(event(), 0..60)
        ) {
            let mut world = World::default();
            for event in events {
                match event {
                    Event::WriteHere(name) => world.act(name, true, false),
                    Event::DeleteHere(name) => world.act(name, true, true),
                    Event::WriteThere(name) => world.act(name, false, false),
                    Event::DeleteThere(name) => world.act(name, false, true),
                    Event::Step { name, crash } => { world.step(name, crash); }
                }
            }
            world.settle();
            prop_assert_eq!(&world.disk, &world.mesh);
            prop_assert_eq!(&world.disk, &world.synced);
            let shown: BTreeSet<u32> = world.mesh.values().copied().collect();
            for value in world.written.difference(&world.superseded) {
                prop_assert!(shown.contains(value), "{} is lost", value);
            }
        }
    }

    #[test]
    fn a_file_deleted_here_and_changed_there_comes_back() {
        assert_eq!(plan(Some(&1), None, Some(&2)), Action::Apply);
    }

    #[test]
    fn a_file_changed_on_both_sides_is_recorded_first() {
        assert_eq!(plan(Some(&1), Some(&3), Some(&2)), Action::Record);
        assert_eq!(plan(Some(&1), Some(&3), None), Action::Record);
        assert_eq!(plan(None, Some(&3), Some(&2)), Action::Record);
    }
}
