//! The generator: what users do, who meets whom, and the laws.

mod holding;
mod meeting;
mod planned;

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wormhole_store::{Content, ContentId};

use self::holding::Holding;
use super::Peer;
use super::disk::{Disk, File, Refused, join, path};
use crate::edit::{Edit, FileInput, NewAttributes, NewNode};
use crate::entry::{Entry, EntryChange, EntryKey, Kind, LinkTarget, Mode, Version};
use crate::id::{EntryId, Timestamp};
use crate::name::EntryName;

const MODES: [Mode; 3] = [Mode::FILE, Mode::DIRECTORY, Mode::new(0o600)];

/// Few names that fold to fewer: clashes are what is tested.
const NAMES: [&str; 8] = ["a", "A", "é", "e\u{301}", "c.txt", "C.txt", "d", ".e"];

pub(super) struct World<P> {
    rng: ChaCha8Rng,
    peers: Vec<P>,
    /// The side of the partition that each peer is on.
    sides: Vec<bool>,
    /// What programs on each peer have open.
    handles: Vec<Vec<(EntryKey, Version)>>,
    holding: Holding,
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
    /// A content that is kept as a copy beside what is written, under a name that the tree chooses.
    kept: Option<[u8; 32]>,
}

type Entries = BTreeMap<EntryKey, Entry>;

impl<P: Peer> World<P> {
    pub(super) fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let count = rng.random_range(4..=5);
        let mut holding = Holding::default();
        (0..count).for_each(|_| holding.add());
        Self {
            holding,
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
                    assert_eq!(more[0].1.body(), Some(kept));
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
                let own = writes.iter().copied().collect();
                self.holding.show(peer, &after, &own);
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
                        self.pull_all(one, other);
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
        assert_eq!(
            self.holding.missing(&entries),
            None,
            "what is shown is on no disk: {:#?}",
            self.history
        );
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
            // Of a file of which an earlier version is here the name can be moved, but not the bytes.
            (54..74, Some(entry)) if !self.holding.has_some(peer, entry) => {
                self.plan_create(peer, entries, parent, &name, &mut plan);
            }
            (74..82, Some(entry)) if !self.holding.has(peer, entry) => {
                self.plan_create(peer, entries, parent, &name, &mut plan);
            }
            (54..74, Some(entry)) => {
                plan.edits.push(Edit::Move {
                    key: entry.key,
                    parent,
                    name: name.clone(),
                    base: self.holding.in_hand(peer, entry),
                });
                plan.wants.extend(body(entry));
                let (from, to) = (path(entries, &entry.key), path(entries, &parent.into()));
                plan.change(|disk| disk.rename(&from, &to, &name));
            }
            (74..82, Some(entry)) => {
                let over = some(&mut self.rng).expect("there are some");
                self.plan_replace(peer, entries, (entry, over), &mut plan);
            }
            (82..94, Some(entry)) => {
                let (key, base) = self.in_hand(peer, entries, entry);
                plan.remove(entries, &key, base);
            }
            (_, Some(entry)) => {
                let (key, base) = self.in_hand(peer, entries, entry);
                let mode = MODES[self.rng.random_range(0..MODES.len())];
                let mtime = self
                    .rng
                    .random::<bool>()
                    .then(|| Timestamp(self.rng.random_range(0..1_000)));
                let mode = Some(mode);
                plan.set_attributes(entries, &key, base, NewAttributes { mode, mtime });
            }
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
        let odd = self.rng.random_range(0..8) == 0;
        let mode = odd.then(|| MODES[self.rng.random_range(0..MODES.len())]);
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
                let file = File {
                    content: Some(input.content),
                    mtime: Some(input.mtime),
                    ..File::new(Kind::File)
                };
                (NewNode::File(input), file)
            }
        };
        let file = match mode.filter(|_| file.kind != Kind::Symlink) {
            Some(mode) => File { mode, ..file },
            None => file,
        };
        plan.writes.extend(file.body());
        plan.edits.push(Edit::Create {
            id,
            parent,
            name: name.clone(),
            node,
            mode,
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
        plan.edits.push(Edit::Create {
            id: directory,
            parent,
            name: name.clone(),
            node: NewNode::Directory,
            mode: None,
        });
        plan.change(|disk| disk.create(&at, name, File::new(Kind::Directory)));
        let inside = join(&at, name);
        for name in ["a", "c.txt"] {
            let name = EntryName::parse(name).unwrap();
            let id = self.peers[peer].fresh_id(directory, &mut self.rng);
            let input = self.input(entries);
            let file = File {
                content: Some(input.content),
                mtime: Some(input.mtime),
                ..File::new(Kind::File)
            };
            plan.writes.extend(file.body());
            let node = NewNode::File(input);
            let edit = Edit::Create {
                id,
                parent: directory,
                name: name.clone(),
                node,
                mode: None,
            };
            plan.edits.push(edit);
            plan.change(|disk| disk.create(&inside, &name, file));
        }
    }

    /// What a program does something to, and with which version of it in hand. Some have had theirs open
    /// for long.
    fn in_hand(
        &mut self,
        peer: usize,
        entries: &Entries,
        entry: &Entry,
    ) -> (EntryKey, Option<Version>) {
        let leaf = !entry.is_directory();
        if leaf && entry.key.version.is_none() && self.rng.random_range(0..3) == 0 {
            self.handles[peer].push((entry.key, entry.version));
        }
        if leaf && !self.handles[peer].is_empty() && self.rng.random() {
            let handle = self.rng.random_range(0..self.handles[peer].len());
            let (held, version) = self.handles[peer].swap_remove(handle);
            if entries
                .get(&held)
                .is_some_and(|shown| shown.kind == entry.kind)
            {
                return (held, Some(version));
            }
        }
        (entry.key, None)
    }

    fn plan_write(&mut self, peer: usize, entries: &Entries, entry: &Entry, plan: &mut Planned) {
        let (key, base) = self.in_hand(peer, entries, entry);
        let new = match entry.kind {
            Kind::Symlink => {
                let target = self.target();
                plan.edits.push(Edit::Retarget {
                    key,
                    target: target.clone(),
                    base,
                });
                File {
                    target: Some(target),
                    ..File::new(Kind::Symlink)
                }
            }
            Kind::File | Kind::Directory => {
                let content = self.input(entries);
                plan.edits.push(Edit::Write { key, content, base });
                File {
                    content: Some(content.content),
                    mtime: Some(content.mtime),
                    ..File::new(Kind::File)
                }
            }
        };
        plan.writes.extend(new.body());
        plan.keep_unseen(entries, &entries[&key], base, &new);
        let at = path(entries, &key);
        plan.change(|disk| {
            let file = disk.files.get_mut(&at).expect("it is there");
            if file.kind != new.kind {
                return Err(Refused);
            }
            *file = File {
                mode: file.mode,
                ..new
            };
            Ok(())
        });
    }

    fn plan_replace(
        &mut self,
        peer: usize,
        entries: &Entries,
        (entry, over): (&Entry, &Entry),
        plan: &mut Planned,
    ) {
        let (key, base) = self.in_hand(peer, entries, over);
        let over = &entries[&key];
        plan.edits.push(Edit::Replace {
            key: entry.key,
            over: key,
            base,
        });
        let (from, to) = (path(entries, &entry.key), path(entries, &key));
        plan.change(|disk| disk.replace(&from, &to));
        if entry.key != key {
            plan.wants.extend(body(entry));
            plan.removes.push(entry.key.id);
            if !entry.is_directory() && !over.is_directory() {
                plan.keep_unseen(entries, over, base, &File::of(entry));
            }
        }
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

impl File {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            content: None,
            target: None,
            mode: Mode::of_kind(kind),
            mtime: None,
        }
    }

    fn of(entry: &Entry) -> Self {
        Self {
            content: entry.file.map(|file| file.content),
            target: entry.target.clone(),
            ..Self::new(entry.kind)
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
    File::of(entry).body()
}

/// What shows a version of an entry, when that is not what the entry shows.
fn in_hand<'a>(
    entries: &'a Entries,
    key: &EntryKey,
    base: Option<Version>,
) -> impl Iterator<Item = &'a Entry> {
    let copy = EntryKey {
        id: key.id,
        version: base,
    };
    let became = move |entry: &&Entry| base.is_some_and(|base| is_copy(entry, &copy, base));
    let copy = entries.get(&copy).into_iter();
    copy.chain(entries.values().filter(became))
}

/// Whether an entry holds that version of another one, and is named after it.
fn is_copy(entry: &Entry, of: &EntryKey, version: Version) -> bool {
    let name = entry.name.as_str();
    entry.key.id != of.id
        && !entry.is_directory()
        && entry.version == version
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
