//! The generator: what users do, who meets whom, and the laws.

mod meeting;

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wormhole_store::{Content, ContentId};

use super::Peer;
use super::disk::{Disk, File, Refused, join, path};
use crate::edit::{Edit, FileInput, NewNode};
use crate::entry::{Entry, EntryChange, EntryKey, Kind, LinkTarget, Version};
use crate::id::{EntryId, Timestamp};
use crate::name::EntryName;

/// Few names that fold to fewer: clashes are what is tested.
const NAMES: [&str; 8] = ["a", "A", "é", "e\u{301}", "c.txt", "C.txt", "d", ".e"];

pub(super) struct World<P> {
    rng: ChaCha8Rng,
    peers: Vec<P>,
    /// The side of the partition that each peer is on.
    sides: Vec<bool>,
    /// What programs on each peer have open.
    handles: Vec<Vec<(EntryKey, Version)>>,
    written: BTreeSet<[u8; 32]>,
    /// Contents that some user saw and replaced or removed.
    retired: BTreeSet<[u8; 32]>,
    /// Those of them that some user wrote over, with the entries that showed them.
    replaced: BTreeMap<[u8; 32], EntryId>,
    /// Entries that somebody removed. Where others write to one or move it meanwhile, what was replaced
    /// before may come back with it.
    removed: BTreeSet<EntryId>,
    /// Contents of files that somebody did something else with, or that were written twice. They may be
    /// there though somebody replaced them: somebody else wanted them.
    wanted: BTreeSet<[u8; 32]>,
    contents: u64,
    /// Who did what, for a failure's report.
    history: Vec<(usize, &'static str, Vec<Edit>)>,
}

/// An operation and what it does on a plain disk.
struct Planned {
    edits: Vec<Edit>,
    expected: Result<Disk, Refused>,
    retires: Vec<[u8; 32]>,
    replaces: Vec<([u8; 32], EntryId)>,
    removes: Vec<EntryId>,
    wants: Vec<[u8; 32]>,
    writes: Vec<[u8; 32]>,
    /// A content that is kept as a copy beside this path, under a name that the tree chooses.
    kept: Option<Content>,
}

type Entries = BTreeMap<EntryKey, Entry>;

impl<P: Peer> World<P> {
    pub(super) fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = rng.random_range(4..=5);
        Self {
            peers: P::mesh(count, &mut rng),
            rng,
            sides: vec![false; count],
            handles: vec![Vec::new(); count],
            written: BTreeSet::new(),
            retired: BTreeSet::new(),
            replaced: BTreeMap::new(),
            removed: BTreeSet::new(),
            wanted: BTreeSet::new(),
            contents: 0,
            history: Vec::new(),
        }
    }

    pub(super) fn run(mut self, steps: u64) {
        for _ in 0..steps {
            let peer = self.rng.random_range(0..self.peers.len());
            match self.rng.random_range(0..100) {
                0..2 => self.sides.fill_with(|| self.rng.random()),
                2..5 => self.sides.fill(false),
                5..7 => {
                    let entries = self.peers[peer].entries();
                    let planned = self.plan(peer, &entries);
                    self.history.push((peer, "crashes", planned.edits.clone()));
                    self.peers[peer].crash(&planned.edits);
                }
                7..9 => self.join(peer),
                9..13 => self.restore(peer),
                13..43 => self.meet(peer),
                _ => self.operate(peer),
            }
        }
        self.finish();
    }

    fn operate(&mut self, peer: usize) {
        let before = self.peers[peer].entries();
        let Planned {
            edits,
            expected,
            retires,
            replaces,
            removes,
            wants,
            writes,
            kept,
        } = self.plan(peer, &before);
        self.history.push((peer, "edits", edits.clone()));
        let outcome = self.peers[peer].edit(&edits);
        let after = self.peers[peer].entries();
        self.peers[peer].assert_derived();
        assert_sound(&after);
        match (outcome, expected) {
            (Ok(changes), Ok(disk)) => {
                assert_told(&before, &after, &changes);
                let mut shown = Disk::of(&after);
                if let Some(kept) = kept {
                    // One more file than expected, with the content that was to be kept.
                    let more: Vec<_> = shown
                        .files
                        .iter()
                        .filter(|(path, _)| !disk.files.contains_key(*path))
                        .map(|(path, file)| (path.clone(), file.clone()))
                        .collect();
                    assert_eq!(more.len(), 1, "{edits:?} keeps one copy: {more:?}");
                    assert_eq!(more[0].1.content, Some(kept));
                    shown.files.remove(&more[0].0);
                }
                for (path, file) in &disk.files {
                    assert_eq!(
                        shown.files.remove(path).as_ref(),
                        Some(file),
                        "at {path:?} after {edits:#?} on {:#?}",
                        Disk::of(&before),
                    );
                }
                assert!(
                    shown.files.is_empty(),
                    "after {edits:#?} on {:#?} also {shown:?}",
                    Disk::of(&before)
                );
                self.retired
                    .extend(replaces.iter().map(|(content, _)| content));
                self.retired.extend(retires);
                self.replaced.extend(replaces);
                self.removed.extend(removes);
                self.wanted.extend(wants);
                let again = writes.iter().filter(|write| self.written.contains(*write));
                self.wanted.extend(again);
                self.written.extend(writes);
            }
            (Err(_), Err(Refused)) => assert_eq!(before, after, "a refused edit changed something"),
            (outcome, expected) => {
                panic!("{edits:#?} gave {outcome:?}, a disk gives {expected:#?}")
            }
        }
    }

    fn finish(&mut self) {
        for _ in 0..3 {
            for one in 0..self.peers.len() {
                for other in 0..self.peers.len() {
                    if one != other {
                        let (one, two) = pair(&mut self.peers, one, other);
                        one.pull_all(two, &mut self.rng);
                    }
                }
            }
        }
        let entries = self.peers[0].entries();
        for other in 1..self.peers.len() {
            let (one, other) = pair(&mut self.peers, 0, other);
            one.assert_settled(other);
        }
        for peer in &mut self.peers {
            peer.assert_derived();
            assert_eq!(peer.entries(), entries, "peers that saw the same differ");
        }
        let shown: BTreeSet<[u8; 32]> = entries.values().filter_map(body).collect();
        for content in self.written.difference(&self.retired) {
            assert!(
                shown.contains(content),
                "a content is lost: {:?} of {:#?}",
                ContentId::from_bytes(*content),
                self.history
            );
        }
        for (content, entry) in &self.replaced {
            let excused = self.wanted.contains(content) || self.removed.contains(entry);
            assert!(
                excused || !shown.contains(content),
                "a content stays that somebody replaced and nobody wanted: {:?} of {:#?}",
                ContentId::from_bytes(*content),
                self.history
            );
        }
    }

    /// A random operation of a user who sees `entries`.
    fn plan(&mut self, peer: usize, entries: &Entries) -> Planned {
        let all: Vec<&Entry> = entries.values().collect();
        let some =
            |rng: &mut ChaCha8Rng| (!all.is_empty()).then(|| all[rng.random_range(0..all.len())]);
        let directories: Vec<EntryId> = all
            .iter()
            .filter(|entry| entry.is_directory())
            .map(|entry| entry.key.id)
            .chain([EntryId::ROOT])
            .collect();
        let parent = directories[self.rng.random_range(0..directories.len())];
        let name = EntryName::parse(NAMES[self.rng.random_range(0..NAMES.len())]).unwrap();
        let target = some(&mut self.rng);
        let mut plan = Planned {
            edits: Vec::new(),
            expected: Ok(Disk::of(entries)),
            retires: Vec::new(),
            replaces: Vec::new(),
            removes: Vec::new(),
            wants: Vec::new(),
            writes: Vec::new(),
            kept: None,
        };
        match (self.rng.random_range(0..100), target) {
            (0..30, _) | (_, None) => self.plan_create(peer, entries, parent, &name, &mut plan),
            (30..34, _) => self.plan_unpack(peer, entries, parent, &name, &mut plan),
            (34..54, Some(entry)) => self.plan_write(peer, entries, entry, &mut plan),
            (54..74, Some(entry)) => {
                plan.edits.push(Edit::Move {
                    key: entry.key,
                    parent,
                    name: name.clone(),
                });
                plan.wants.extend(body(entry));
                let (from, to) = (path(entries, &entry.key), path(entries, &parent.into()));
                plan.change(|disk| disk.rename(&from, &to, &name));
            }
            (74..82, Some(entry)) => {
                let over = some(&mut self.rng).expect("there are some");
                plan.edits.push(Edit::Replace {
                    key: entry.key,
                    over: over.key,
                });
                if entry.key != over.key {
                    plan.wants.extend(body(entry));
                    plan.replaces.extend(replaced(over));
                    plan.removes.push(entry.key.id);
                }
                let (from, to) = (path(entries, &entry.key), path(entries, &over.key));
                plan.change(|disk| disk.replace(&from, &to));
            }
            (82..94, Some(entry)) => plan.remove(entries, entry),
            (_, Some(entry)) => plan.set_executable(entries, entry, self.rng.random()),
        }
        plan
    }

    fn plan_create(
        &mut self,
        peer: usize,
        entries: &Entries,
        parent: EntryId,
        name: &EntryName,
        plan: &mut Planned,
    ) {
        let id = self.peers[peer].fresh_id(parent, &mut self.rng);
        let executable = self.rng.random_range(0..8) == 0;
        let (node, file) = match self.rng.random_range(0..20) {
            0..7 => (NewNode::Directory, File::new(Kind::Directory)),
            7..10 => {
                let target = self.target();
                let file = File {
                    target: Some(target.clone()),
                    ..File::new(Kind::Symlink)
                };
                (NewNode::Symlink(target), file)
            }
            _ => {
                let input = self.input(entries);
                let content = Some(input.content);
                (
                    NewNode::File(input),
                    File {
                        content,
                        executable,
                        ..File::new(Kind::File)
                    },
                )
            }
        };
        plan.writes.extend(file.body());
        plan.edits.push(Edit::Create {
            id,
            parent,
            name: name.clone(),
            node,
            executable,
        });
        let at = path(entries, &parent.into());
        plan.change(|disk| disk.create(&at, name, file));
    }

    /// A directory with two files, in one envelope.
    fn plan_unpack(
        &mut self,
        peer: usize,
        entries: &Entries,
        parent: EntryId,
        name: &EntryName,
        plan: &mut Planned,
    ) {
        let directory = self.peers[peer].fresh_id(parent, &mut self.rng);
        let at = path(entries, &parent.into());
        let (create, executable) = (NewNode::Directory, false);
        let id = directory;
        plan.edits.push(Edit::Create {
            id,
            parent,
            name: name.clone(),
            node: create,
            executable,
        });
        plan.change(|disk| disk.create(&at, name, File::new(Kind::Directory)));
        let inside = join(&at, name);
        for name in ["a", "c.txt"] {
            let name = EntryName::parse(name).unwrap();
            let id = self.peers[peer].fresh_id(directory, &mut self.rng);
            let input = self.input(entries);
            let file = File {
                content: Some(input.content),
                ..File::new(Kind::File)
            };
            plan.writes.extend(file.body());
            let node = NewNode::File(input);
            let edit = Edit::Create {
                id,
                parent: directory,
                name: name.clone(),
                node,
                executable,
            };
            plan.edits.push(edit);
            plan.change(|disk| disk.create(&inside, &name, file));
        }
    }

    fn plan_write(&mut self, peer: usize, entries: &Entries, entry: &Entry, plan: &mut Planned) {
        if entry.kind == Kind::Symlink {
            return self.plan_retarget(entries, entry, plan);
        }
        let mut key = entry.key;
        let mut base = None;
        if let Some(file) = entry.file {
            let open = self.rng.random_range(0..3) == 0 && key.version.is_none();
            if open {
                self.handles[peer].push((key, file.version));
            }
            if !self.handles[peer].is_empty() && self.rng.random() {
                let handle = self.rng.random_range(0..self.handles[peer].len());
                let (held, version) = self.handles[peer].swap_remove(handle);
                if entries
                    .get(&held)
                    .is_some_and(|entry| entry.kind == Kind::File)
                {
                    (key, base) = (held, Some(version));
                }
            }
        }
        let input = self.input(entries);
        let shown = &entries[&key];
        let stale = base.is_some_and(|base| base != shown.version);
        let at = path(entries, &key);
        plan.edits.push(Edit::Write {
            key,
            content: input,
            base,
        });
        if stale {
            plan.kept = shown
                .file
                .map(|file| file.content)
                .filter(|old| *old != input.content);
            let copy = EntryKey {
                id: key.id,
                version: base,
            };
            // What the writer had in hand is a copy now, or somebody has made an entry of that already.
            let became = |entry: &&Entry| base.is_some_and(|base| is_copy(entry, &key, base));
            for entry in entries
                .get(&copy)
                .into_iter()
                .chain(entries.values().filter(became))
            {
                plan.replaces.extend(replaced(entry));
                let copy = path(entries, &entry.key);
                plan.change(|disk| {
                    disk.take(&copy);
                    Ok(())
                });
            }
        } else {
            plan.replaces.extend(replaced(shown));
        }
        plan.change(|disk| {
            let file = disk.files.get_mut(&at).expect("it is there");
            if file.kind != Kind::File {
                return Err(Refused);
            }
            file.content = Some(input.content);
            Ok(())
        });
        plan.writes.extend(Some(*input.content.id.as_bytes()));
    }

    fn plan_retarget(&mut self, entries: &Entries, entry: &Entry, plan: &mut Planned) {
        let key = entry.key;
        let target = self.target();
        let file = File {
            target: Some(target.clone()),
            ..File::new(Kind::Symlink)
        };
        plan.edits.push(Edit::Retarget { key, target });
        plan.replaces.extend(replaced(entry));
        plan.writes.extend(file.body());
        let at = path(entries, &key);
        plan.change(|disk| {
            let shown = disk.files.get_mut(&at).expect("it is there");
            shown.target = file.target;
            Ok(())
        });
    }

    /// New bytes, or sometimes those of another file. The clock is wrong.
    fn input(&mut self, entries: &Entries) -> FileInput {
        let mtime = Timestamp(self.rng.random_range(-1_000_000..1_000_000));
        let known: Vec<Content> = entries
            .values()
            .filter_map(|entry| Some(entry.file?.content))
            .collect();
        if !known.is_empty() && self.rng.random_range(0..10) == 0 {
            return FileInput {
                content: known[self.rng.random_range(0..known.len())],
                mtime,
            };
        }
        self.contents += 1;
        let id = ContentId::from_bytes(*blake3::hash(&self.contents.to_be_bytes()).as_bytes());
        FileInput {
            content: Content {
                id,
                size: self.contents,
            },
            mtime,
        }
    }

    fn target(&mut self) -> LinkTarget {
        self.contents += 1;
        LinkTarget::parse(&format!("target {}", self.contents)).unwrap()
    }
}

impl Planned {
    fn remove(&mut self, entries: &Entries, entry: &Entry) {
        self.edits.push(Edit::Remove { key: entry.key });
        let gone = path(entries, &entry.key);
        let inside = entries
            .values()
            .filter(|entry| path(entries, &entry.key).starts_with(&gone));
        for entry in inside {
            self.retires.extend(body(entry));
            self.removes.push(entry.key.id);
        }
        self.change(|disk| {
            disk.take(&gone);
            Ok(())
        });
    }

    fn set_executable(&mut self, entries: &Entries, entry: &Entry, executable: bool) {
        self.edits.push(Edit::SetExecutable {
            key: entry.key,
            executable,
        });
        let at = path(entries, &entry.key);
        self.change(|disk| match disk.files.get_mut(&at).expect("it is there") {
            file if file.kind == Kind::File => {
                file.executable = executable;
                Ok(())
            }
            _ => Err(Refused),
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut Disk) -> Result<(), Refused>) {
        if let Ok(disk) = &mut self.expected
            && change(disk).is_err()
        {
            self.expected = Err(Refused);
        }
    }
}

impl File {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            content: None,
            target: None,
            executable: false,
        }
    }

    fn body(&self) -> Option<[u8; 32]> {
        let target = self.target.as_ref();
        self.content
            .map(|content| *content.id.as_bytes())
            .or(target.map(|target| *blake3::hash(target.as_str().as_bytes()).as_bytes()))
    }
}

fn body(entry: &Entry) -> Option<[u8; 32]> {
    let content = entry.file.map(|file| file.content);
    File {
        content,
        target: entry.target.clone(),
        ..File::new(entry.kind)
    }
    .body()
}

/// Whether an entry holds that version of another one, and is named after it.
fn is_copy(entry: &Entry, of: &EntryKey, version: Version) -> bool {
    let name = entry.name.as_str();
    entry.key.id != of.id
        && entry.file.is_some_and(|file| file.version == version)
        && name.contains("(conflict ")
        && name.contains(&format!(" {}", version.lamport))
}

/// What is lost when `entry` is written over, and where.
fn replaced(entry: &Entry) -> Option<([u8; 32], EntryId)> {
    Some((body(entry)?, entry.key.id))
}

fn pair<P>(peers: &mut [P], one: usize, other: usize) -> (&mut P, &mut P) {
    let [one, other] = peers
        .get_disjoint_mut([one, other])
        .expect("two different peers");
    (one, other)
}

/// No cycle, no orphan, and no two entries of one directory with names that fold to the same.
fn assert_sound(entries: &Entries) {
    let mut names = BTreeSet::new();
    for (key, entry) in entries {
        // Panics at an orphan or a cycle.
        path(entries, key);
        assert!(
            names.insert((entry.parent, entry.name.fold())),
            "{:?} is there twice",
            entry.name
        );
    }
}

/// The changes that a peer tells its observers are exactly what changed.
pub(super) fn assert_told(before: &Entries, after: &Entries, changes: &[EntryChange]) {
    let mut told = before.clone();
    for EntryChange { key, before, after } in changes {
        assert_ne!(before, after, "a change that changes nothing");
        let was = match after {
            Some(after) => told.insert(*key, after.clone()),
            None => told.remove(key),
        };
        assert_eq!(&was, before, "a change tells a past that was not");
    }
    assert_eq!(&told, after, "a change was not told");
}
