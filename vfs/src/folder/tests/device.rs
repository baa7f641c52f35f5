//! A device without a network or a kernel watch: a folder's engine, a replica and a store, driven to rest by hand.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use wormhole_crdt::{
    DeviceKey, EntryId, EntryKey, NewMesh, Observer, Replica, Role, Session, Subscription,
    Timestamp,
};
use wormhole_store::{ChunkSink, Content, ContentKey, RootId, Store, StoreOptions};

use super::super::config::{FolderConfig, Writing};
use super::super::engine::{Engine, Todo};
use super::super::inbox::Inbox;
use super::super::name::Place;
use super::super::partial::{Durable, Fault, PartialFile, Want};
use super::super::record::Answer;
use super::super::scan::{Walk, Walked};
use super::super::settle::{Doubt, Due};
use super::super::status::{Reason, StopReason};

/// One of them.
pub(crate) struct Device {
    pub(crate) home: TempDir,
    pub(crate) engine: Option<Engine>,
    pub(crate) replica: Replica,
    pub(crate) store: Store,
    inbox: Arc<Inbox>,
    subscription: Option<Subscription>,
    wants: BTreeMap<EntryKey, Want>,
    missing: HashSet<Place>,
    /// The folder is being compared: what is missing may turn up under another name.
    comparing: bool,
    /// What the system refused.
    refused: HashSet<EntryKey>,
    pub(crate) fetched: u64,
    number: u8,
    /// The directory of the mesh that the folder shows.
    pub(crate) base: EntryId,
}

/// What a tree looks like: path → what stands there.
pub(crate) type Tree = BTreeMap<String, String>;

fn memory() -> redb::Database {
    redb::Database::builder()
        .create_with_backend(redb::backends::InMemoryBackend::new())
        .unwrap()
}

/// The file of a replica that is on disk, in the device's home.
const REPLICA: &str = "replica.redb";

fn founded(db: redb::Database) -> Replica {
    let mesh = NewMesh {
        name: "test".into(),
        device_name: "zero".into(),
        key: key(0),
    };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    Replica::create(db, &mesh, Timestamp(1), &mut rng).unwrap()
}

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_seed([number + 1; 32])
}

impl Device {
    /// The founder of a mesh.
    pub(crate) fn found() -> Self {
        Self::new(0, tempfile::tempdir().unwrap(), founded(memory()))
    }

    /// A founder whose metadata is on disk, so that [`Device::cut_power`] can be done to it.
    pub(crate) fn found_on_disk() -> Self {
        let home = tempfile::tempdir().unwrap();
        let db = redb::Database::create(home.path().join(REPLICA)).unwrap();
        Self::new(0, home, founded(db))
    }

    /// Goes on with what the databases held on disk at this moment, as after a crash. The store keeps what it has.
    pub(crate) fn cut_power(&mut self) {
        self.reopen(&[REPLICA, "folder.redb"]);
    }

    /// Goes on as after a disk refused to write the metadata any more, and nothing else.
    pub(crate) fn lose_metadata(&mut self) {
        self.reopen(&[REPLICA]);
    }

    /// Opens everything anew. What these databases had not made durable is gone.
    fn reopen(&mut self, cut_off: &[&str]) {
        let place = |name: &&str| self.home.path().join(name);
        let files: Vec<_> = cut_off.iter().map(place).collect();
        let copies: Vec<_> = files
            .iter()
            .map(|file| file.with_extension("copy"))
            .collect();
        for (file, copy) in files.iter().zip(&copies) {
            std::fs::copy(file, copy).unwrap();
        }
        self.engine = None;
        self.subscription = None;
        self.replica = founded(memory());
        for (file, copy) in files.iter().zip(&copies) {
            std::fs::rename(copy, file).unwrap();
        }
        let db = redb::Database::create(self.home.path().join(REPLICA)).unwrap();
        self.replica = Replica::open(db, key(self.number)).unwrap();
        self.inbox = Arc::new(Inbox::default());
        let observer: Arc<dyn Observer> = self.inbox.clone();
        self.subscription = Some(self.replica.subscribe(observer));
        self.restart();
    }

    /// Another member.
    pub(crate) fn join(&self, number: u8, role: Role) -> Self {
        let name = format!("device {number}");
        self.replica
            .admit(key(number).device_id(), &name, role, Timestamp(2))
            .unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(number.into());
        let replica =
            Replica::join(memory(), &self.replica.welcome(), key(number), &mut rng).unwrap();
        let mut device = Self::new(number, tempfile::tempdir().unwrap(), replica);
        if role == Role::Reader {
            device.engine().config.writing = Writing::ReadOnly;
        }
        device
    }

    fn new(number: u8, home: TempDir, replica: Replica) -> Self {
        std::fs::create_dir(home.path().join("folder")).unwrap();
        let key = ContentKey::from_bytes([7; 32]);
        let store = Store::open(&home.path().join("store"), key, StoreOptions::default()).unwrap();
        let inbox = Arc::new(Inbox::default());
        let observer: Arc<dyn Observer> = inbox.clone();
        let subscription = Some(replica.subscribe(observer));
        let mut device = Self {
            home,
            engine: None,
            replica,
            store,
            inbox,
            subscription,
            wants: BTreeMap::new(),
            missing: HashSet::new(),
            comparing: false,
            refused: HashSet::new(),
            fetched: 0,
            number,
            base: EntryId::ROOT,
        };
        device.restart();
        device
    }

    /// Opens the engine as after a crash: nothing but what is on disk survives.
    pub(crate) fn restart(&mut self) {
        self.try_restart().unwrap();
    }

    pub(crate) fn try_restart(&mut self) -> Result<(), StopReason> {
        let writing = self.engine.as_ref().map(|engine| engine.config.writing);
        self.engine = None;
        self.wants.clear();
        self.missing.clear();
        self.refused.clear();
        let id = RootId::from_bytes([self.number; 16]);
        let mut config = FolderConfig::new(id, self.path(""), self.home.path().join("folder.redb"));
        config.writing = writing.unwrap_or(Writing::Allowed);
        config.base = self.base;
        let mut engine = Engine::open(config, self.replica.clone(), self.store.clone()).unwrap()?;
        engine.recover().unwrap();
        self.engine = Some(engine);
        Ok(())
    }

    pub(crate) fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().unwrap()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.home.path().join("folder").join(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    /// Looks at one path, and does nothing more.
    pub(crate) fn check_one(&mut self, path: PathBuf) -> Todo {
        let due = vec![due(path, Doubt::Nothing)];
        self.engine().check(due).unwrap()
    }

    /// Looks at these paths only, as after hints of the kernel.
    pub(crate) fn check(&mut self, paths: &[&str]) {
        let due = paths
            .iter()
            .map(|path| due(path.into(), Doubt::Nothing))
            .collect();
        let todo = self.engine().check(due).unwrap();
        self.work(todo, &[]);
    }

    /// The same, as after hints that nothing there may be believed.
    pub(crate) fn check_doubted(&mut self, paths: &[&str]) {
        let due = paths
            .iter()
            .map(|path| due(path.into(), Doubt::Bytes))
            .collect();
        let todo = self.engine().check(due).unwrap();
        self.work(todo, &[]);
    }

    /// Does what a step asked for.
    pub(crate) fn work_through(&mut self, todo: Todo) {
        self.work(todo, &[]);
    }

    /// The entry that is synced at a path.
    pub(crate) fn entry(&mut self, path: &str) -> EntryKey {
        let engine = self.engine();
        let batch = engine.state.begin().unwrap();
        let place = batch.place_of(engine.config.base, Path::new(path));
        batch.get(&place.unwrap().unwrap()).unwrap().unwrap().key
    }

    /// Scans, records, applies and fetches from the others until nothing is left to do.
    pub(crate) fn settle(&mut self, others: &[&Store]) {
        let mut walk = Walk::whole();
        self.comparing = true;
        while self.comparing {
            let (walked, todo) = self.engine().scan(&mut walk).unwrap();
            self.work(todo, others);
            self.comparing = walked == Walked::Partly;
        }
        let todo = self.judge();
        self.work(todo, others);
        self.audit(others);
        self.work(Todo::default(), others);
        // As if some time had gone by.
        self.engine().renewal.hurry();
        self.engine().flush().unwrap();
    }

    /// Compares what the mesh shows with what was last synced.
    pub(crate) fn audit(&mut self, others: &[&Store]) {
        let mut stack = vec![self.engine().config.base];
        while !stack.is_empty() {
            let todo = self.engine().audit(&mut stack).unwrap();
            self.work(todo, others);
        }
    }

    /// Takes what the mesh has told since, as the actor does before it looks at some of it.
    pub(crate) fn take_news(&mut self) -> Vec<EntryKey> {
        self.inbox.take().keys.into_iter().collect()
    }

    /// Judges all that is missing, as the actor does when nothing more vanishes.
    fn judge(&mut self) -> Todo {
        let missing = self.missing.drain().collect();
        self.engine().judge_missing(missing).unwrap()
    }

    /// How many entries' deletion waits for a person.
    pub(crate) fn held(&self) -> u64 {
        let engine = self.engine.as_ref().unwrap();
        engine.held.shown().entries
    }

    /// Does what a person says of the deletions that wait now.
    pub(crate) fn answer_held(&mut self, answer: Answer, others: &[&Store]) {
        let list = self.engine().held.shown().list;
        let (entries, todo) = self.engine().answer_held(list, answer).unwrap();
        assert!(entries.is_some(), "nothing waits");
        self.work(todo, others);
    }

    /// Does what a step asked for, and all that follows from it: nothing is compared that nobody asked for.
    pub(crate) fn work(&mut self, todo: Todo, others: &[&Store]) {
        let mut all = Todo::default();
        self.absorb(&mut all, todo);
        let mut todo = all;
        let mut walk = Walk::default();
        // More rounds than any honest knot needs; what is blocked for good stays so.
        for _round in 0..60 {
            let news = self.inbox.take();
            let mut keys: Vec<EntryKey> = news.keys.into_iter().collect();
            keys.append(&mut todo.keys);
            keys.append(&mut todo.blocked);
            let doubted = std::mem::take(&mut todo.doubted);
            let next = self.engine().read_again(doubted).unwrap();
            self.absorb(&mut todo, next);
            let mut paths: Vec<PathBuf> = std::mem::take(&mut todo.paths);
            paths.extend(todo.later.drain(..).map(|(path, _)| path));
            for look in std::mem::take(&mut todo.imports) {
                let file = self.engine().file_path(&look.path);
                let result = self.store.import_reference(&file);
                let next = self.engine().imported(look, result).unwrap();
                self.absorb(&mut todo, next);
            }
            for path in std::mem::take(&mut todo.scans) {
                walk.add(path);
            }
            let idle = keys.is_empty()
                && todo.gone_keys.is_empty()
                && paths.is_empty()
                && walk.is_idle()
                && (self.missing.is_empty() || self.comparing);
            let paths = paths
                .into_iter()
                .map(|path| due(path, Doubt::Nothing))
                .collect();
            let next = self.engine().check(paths).unwrap();
            self.absorb(&mut todo, next);
            for path in std::mem::take(&mut todo.scans) {
                walk.add(path);
            }
            while !walk.is_idle() {
                let (_, next) = self.engine().scan(&mut walk).unwrap();
                self.absorb(&mut todo, next);
            }
            let asked = std::mem::take(&mut todo.ask_held);
            if !self.comparing && (asked || !self.missing.is_empty()) {
                let next = self.judge();
                self.absorb(&mut todo, next);
            }
            let mut gone: Vec<EntryKey> = std::mem::take(&mut todo.gone_keys);
            let next = self.engine().apply(&keys).unwrap();
            self.absorb(&mut todo, next);
            gone.append(&mut todo.gone_keys);
            self.engine().caught_up = Some(self.replica.vector()).filter(|_| todo.keys.is_empty());
            let next = self.engine().withdraw(&gone).unwrap();
            self.absorb(&mut todo, next);
            let complete = self.fetch(others);
            if idle && complete.is_empty() && self.inbox.is_empty() && todo.keys.is_empty() {
                return;
            }
            let next = self.engine().finish(complete).unwrap();
            self.absorb(&mut todo, next);
        }
    }

    /// Looks at every change of the mesh in a step of its own, in this order of the entries.
    pub(crate) fn apply_one_by_one(&mut self, order: fn(&mut Vec<EntryKey>), others: &[&Store]) {
        let mut keys: Vec<EntryKey> = self.inbox.take().keys.into_iter().collect();
        keys.sort();
        order(&mut keys);
        let mut rest = Todo::default();
        for key in keys {
            self.engine().caught_up = None;
            let next = self.engine().apply(&[key]).unwrap();
            self.absorb(&mut rest, next);
            let complete = self.fetch(others);
            let next = self.engine().finish(complete).unwrap();
            self.absorb(&mut rest, next);
        }
        self.work(rest, others);
    }

    /// Tries once more what the system refused.
    pub(crate) fn retry_refused(&mut self, others: &[&Store]) {
        let keys = self.refused.drain().collect();
        let todo = Todo {
            keys,
            ..Todo::default()
        };
        self.work(todo, others);
    }

    fn absorb(&mut self, all: &mut Todo, new: Todo) {
        for key in &new.unwanted {
            self.wants.remove(key);
        }
        self.wants
            .extend(new.wants.into_iter().map(|want| (want.key, want)));
        all.imports.extend(new.imports);
        all.paths.extend(new.paths);
        all.later.extend(new.later);
        all.doubted.extend(new.doubted);
        all.scans.extend(new.scans);
        let keys: HashSet<EntryKey> = new.keys.into_iter().chain(all.keys.drain(..)).collect();
        all.keys = keys.into_iter().collect();
        all.blocked.extend(new.blocked);
        self.refused.extend(new.refused);
        all.gone_keys.extend(new.gone_keys);
        self.missing.extend(new.gone);
        all.ask_held |= new.ask_held;
    }

    fn fetch(&mut self, others: &[&Store]) -> Vec<Arc<PartialFile>> {
        let mut complete = Vec::new();
        for (key, want) in std::mem::take(&mut self.wants) {
            let tmp = Arc::clone(&self.engine().tmp);
            let file = PartialFile::claim(want.clone(), &tmp, self.store.clone());
            let file = Arc::new(file.expect("one transfer at a time"));
            if copy(
                &self.store,
                others,
                &want.content,
                &*file,
                &mut self.fetched,
            ) {
                file.seal(Durable::Later).unwrap();
                complete.push(file);
            } else {
                if file.fault() == Some(Fault::NoSpace) {
                    file.discard();
                }
                self.wants.insert(key, want);
            }
        }
        complete
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.wants.is_empty()
    }

    pub(crate) fn problem(&mut self, path: &str) -> Option<Reason> {
        self.engine().problems.at(Path::new(path)).cloned()
    }

    /// Everything in the folder but the control directory.
    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let root = self.path("");
        collect(&root, &root, &mut tree);
        tree
    }
}

fn due(path: PathBuf, doubt: Doubt) -> Due {
    Due { path, doubt }
}

fn collect(root: &Path, dir: &Path, tree: &mut Tree) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path == root.join(".wormhole") {
            continue;
        }
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let found = path.symlink_metadata().unwrap();
        if found.is_dir() {
            tree.insert(name, "directory".into());
            collect(root, &path, tree);
        } else if found.is_symlink() {
            tree.insert(name, format!("-> {}", path.read_link().unwrap().display()));
        } else {
            let mark = if found.permissions().mode() & 0o100 == 0 {
                ""
            } else {
                "*"
            };
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            tree.insert(name, format!("{mark}{text}"));
        }
    }
}

/// Brings a content from whoever has it. Counts the bytes that had to come.
fn copy(
    store: &Store,
    others: &[&Store],
    content: &Content,
    sink: &dyn ChunkSink,
    fetched: &mut u64,
) -> bool {
    loop {
        let missing = store.missing_manifest(content).unwrap();
        if missing.is_empty() {
            break;
        }
        for id in missing {
            let Some(bytes) = others.iter().find_map(|other| other.read(&id).ok()) else {
                return false;
            };
            *fetched += bytes.len() as u64;
            store.put_verified(id, &bytes).unwrap();
        }
    }
    let Ok(lack) = sink.prepare(content, 0) else {
        return false;
    };
    for slot in lack.slots {
        let Some(bytes) = others
            .iter()
            .find_map(|other| other.read(&slot.chunk.id).ok())
        else {
            return false;
        };
        *fetched += bytes.len() as u64;
        if sink.put(slot, &bytes).is_err() {
            return false;
        }
    }
    true
}

/// Exchanges metadata until both have the same.
pub(crate) fn sync(one: &Device, other: &Device) {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    one.replica.flush().unwrap();
    other.replica.flush().unwrap();
    let mut left = Session::new(&one.replica, other.replica.device());
    let mut right = Session::new(&other.replica, one.replica.device());
    let mut to_right = left.start().unwrap();
    let mut to_left = right.start().unwrap();
    for _round in 0..10_000 {
        to_right.extend(left.poll(1 << 20).unwrap());
        to_left.extend(right.poll(1 << 20).unwrap());
        if to_left.is_empty() && to_right.is_empty() {
            return;
        }
        for message in std::mem::take(&mut to_right) {
            to_left.extend(right.receive(message.as_bytes(), &mut rng).unwrap());
        }
        for message in std::mem::take(&mut to_left) {
            to_right.extend(left.receive(message.as_bytes(), &mut rng).unwrap());
        }
    }
    panic!("the sessions do not come to rest");
}

/// Lets all devices talk and work until they show the same, or panics.
pub(crate) fn converge(devices: &mut [Device]) {
    let mut shown = Vec::new();
    for _round in 0..8 {
        for at in 0..devices.len() {
            let stores: Vec<Store> = devices.iter().map(|device| device.store.clone()).collect();
            let others: Vec<&Store> = stores
                .iter()
                .enumerate()
                .filter(|(n, _)| *n != at)
                .map(|(_, s)| s)
                .collect();
            devices[at].settle(&others);
        }
        for one in 0..devices.len() {
            for other in 0..one {
                sync(&devices[one], &devices[other]);
            }
        }
        shown = devices.iter().map(Device::tree).collect();
        // What its only holder deleted while somebody else renamed it is shown by all and held by none.
        let waits = |device: &Device| device.wants.keys().copied().collect::<Vec<_>>();
        let quiet = devices
            .iter()
            .all(|device| device.inbox.is_empty() && waits(device) == waits(&devices[0]));
        if quiet && shown.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
    }
    for device in devices.iter_mut() {
        let news = device.inbox.take();
        println!(
            "device {}: waits for {:?}; news {news:?}",
            device.number, device.wants
        );
        for path in device.engine().problems.paths() {
            println!(
                "  problem {path:?}: {:?}",
                device.engine().problems.at(&path)
            );
        }
        let mut shown = Vec::new();
        device
            .replica
            .walk(EntryId::ROOT, &mut |path, entry| {
                shown.push(format!("{path} {:?} {:?}", entry.key, entry.parent));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        println!("  mesh: {shown:#?}");
    }
    panic!("do not converge: {shown:#?}");
}
