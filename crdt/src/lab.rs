//! A small world for tests: replicas on databases in memory, and the links between them.
//!
//! Everything is driven by seeds and runs in one thread. [`Disk`] forgets what was not synced when it
//! crashes; [`Link`] carries the messages of two sessions until both are quiet.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use redb::{Builder, Database, StorageBackend};
use wormhole_store::{Content, ContentId};

use crate::edit::{Edit, FileInput, NewNode};
use crate::entry::{EntryKey, Version};
use crate::error::SessionError;
use crate::id::{Author, Branch, DeviceKey, DeviceTag, EntryId, Hash, Timestamp};
use crate::member::Role;
use crate::name::EntryName;
use crate::replica::{NewMesh, Replica};
use crate::session::{Message, Session};

pub(crate) const NOW: Timestamp = Timestamp(1_000_000_000);

pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub(crate) fn key(number: u8) -> DeviceKey {
    DeviceKey::from_seed([number; 32])
}

/// A disk in memory. What was written since the last sync is gone after [`Disk::crash`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Blocks>>);

#[derive(Debug, Default)]
struct Blocks {
    now: Vec<u8>,
    synced: Vec<u8>,
    broken: bool,
}

impl Disk {
    pub(crate) fn database(&self) -> Database {
        Builder::new()
            .set_cache_size(16 << 20)
            .create_with_backend(self.clone())
            .expect("a disk in memory")
    }

    /// What a machine finds after its power failed.
    pub(crate) fn crash(&self) -> Self {
        let synced = self.0.lock().unwrap().synced.clone();
        Self(Arc::new(Mutex::new(Blocks {
            now: synced.clone(),
            synced,
            broken: false,
        })))
    }

    /// From now on every write fails.
    pub(crate) fn break_down(&self) {
        self.0.lock().unwrap().broken = true;
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let blocks = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let from = blocks.now.get(offset..offset + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0
            .lock()
            .unwrap()
            .now
            .resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut blocks = self.0.lock().unwrap();
        if blocks.broken {
            return Err(io::ErrorKind::StorageFull.into());
        }
        blocks.synced = blocks.now.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut blocks = self.0.lock().unwrap();
        if blocks.broken {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let offset = usize::try_from(offset).unwrap();
        blocks.now[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// A mesh of one founder and members with these roles, on disks of their own.
pub(crate) fn mesh(roles: &[Role]) -> Vec<Replica> {
    let disks: Vec<Disk> = (0..=roles.len()).map(|_| Disk::default()).collect();
    mesh_on(&disks, roles)
}

pub(crate) fn mesh_on(disks: &[Disk], roles: &[Role]) -> Vec<Replica> {
    let new = NewMesh {
        name: "designs".into(),
        device_name: "founder".into(),
        key: key(1),
    };
    let founder = Replica::create(disks[0].database(), &new, NOW, &mut rng(1)).unwrap();
    let numbered: Vec<(u8, Role)> = (2..).zip(roles.iter().copied()).collect();
    for (number, role) in &numbered {
        let device = key(*number).device_id();
        founder
            .admit(device, &format!("device {number}"), *role, NOW)
            .unwrap();
    }
    let welcome = founder.welcome();
    let joined = numbered.iter().zip(&disks[1..]).map(|((number, _), disk)| {
        let mut rng = rng(u64::from(*number));
        Replica::join(disk.database(), &welcome, key(*number), &mut rng).unwrap()
    });
    let joined: Vec<Replica> = joined.collect();
    std::iter::once(founder).chain(joined).collect()
}

pub(crate) fn version(lamport: u64, device: u8) -> Version {
    Version {
        lamport,
        device: DeviceTag::from_bytes([device; 8]),
        branch: Branch::from_bytes([device; 8]),
    }
}

pub(crate) fn name(text: &str) -> EntryName {
    EntryName::parse(text).unwrap()
}

pub(crate) fn content(number: u8) -> FileInput {
    let id = ContentId::from_bytes([number; 32]);
    FileInput {
        content: Content {
            id,
            size: 1000 + u64::from(number),
        },
        mtime: NOW,
    }
}

/// Creates a file in the top directory.
pub(crate) fn create(replica: &Replica, text: &str, number: u8, seed: u64) -> EntryId {
    let id = replica.fresh_id(EntryId::ROOT, &mut rng(seed)).unwrap();
    replica
        .edit(&[creation(id, EntryId::ROOT, text, number)], NOW)
        .unwrap();
    id
}

pub(crate) fn creation(id: EntryId, parent: EntryId, text: &str, number: u8) -> Edit {
    let node = NewNode::File(content(number));
    Edit::Create {
        id,
        parent,
        name: name(text),
        node,
        mode: None,
    }
}

pub(crate) fn write(replica: &Replica, id: EntryId, number: u8) {
    let edit = Edit::Write {
        key: EntryKey::from(id),
        content: content(number),
        base: None,
    };
    replica.edit(&[edit], NOW).unwrap();
}

/// Every path with the first byte of its content's id.
pub(crate) fn listing(replica: &Replica) -> Vec<String> {
    let mut lines = Vec::new();
    replica
        .walk(EntryId::ROOT, &mut |path, entry| {
            let mark = entry.file.map_or(0, |file| file.content.id.as_bytes()[0]);
            lines.push(format!("{path} {mark}"));
            ControlFlow::Continue(())
        })
        .unwrap();
    lines.sort();
    lines
}

/// How the logs end, by what all replicas call it.
pub(crate) fn ends(replica: &Replica) -> BTreeSet<(Author, u64, Hash)> {
    let shared = replica.shared();
    let ends = shared.ends.iter();
    ends.map(|(line, end)| (line.author, end.seq, end.hash))
        .collect()
}

/// Two sessions and what is on its way between them.
pub(crate) struct Link {
    pub(crate) ends: [Session; 2],
    /// To the first, to the second.
    pub(crate) queues: [VecDeque<Message>; 2],
    pub(crate) rng: ChaCha8Rng,
    /// Bytes that were delivered, for tests about how much is said.
    pub(crate) carried: usize,
}

impl Link {
    pub(crate) fn new(one: &Replica, two: &Replica, seed: u64) -> Self {
        let mut ends = [
            Session::new(one, two.device()),
            Session::new(two, one.device()),
        ];
        let [first, second] = &mut ends;
        let to_second = first.start().unwrap().into();
        let to_first = second.start().unwrap().into();
        Self {
            ends,
            queues: [to_first, to_second],
            rng: rng(seed),
            carried: 0,
        }
    }

    /// Like [`Link::new`], but a device that has nothing gets a snapshot, however short the logs are.
    pub(crate) fn with_snapshots(one: &Replica, two: &Replica, seed: u64) -> Self {
        let mut link = Self::new(one, two, seed);
        link.ends.iter_mut().for_each(Session::offer_always);
        link
    }

    /// Delivers the next message to one end. `Ok(false)` when there was none.
    pub(crate) fn deliver(&mut self, to: usize) -> Result<bool, SessionError> {
        let Some(message) = self.queues[to].pop_front() else {
            return Ok(false);
        };
        self.carried += message.as_bytes().len();
        let answers = self.ends[to].receive(message.as_bytes(), &mut self.rng)?;
        self.queues[1 - to].extend(answers);
        Ok(true)
    }

    /// Lets one end say what it has to say. `Ok(false)` when that is nothing.
    pub(crate) fn poll(&mut self, from: usize) -> Result<bool, SessionError> {
        let messages = self.ends[from].poll(1 << 20)?;
        let some = !messages.is_empty();
        self.queues[1 - from].extend(messages);
        Ok(some)
    }

    /// Runs until neither end has anything to say.
    pub(crate) fn run(&mut self) -> Result<(), SessionError> {
        loop {
            let mut busy = false;
            for end in [0, 1] {
                busy |= self.deliver(end)?;
                busy |= self.poll(end)?;
            }
            if !busy {
                return Ok(());
            }
        }
    }
}

/// Brings two replicas to the same state.
pub(crate) fn sync(one: &Replica, two: &Replica) {
    let mut link = Link::new(one, two, 7);
    link.run().unwrap();
    assert!(
        link.ends.iter().all(Session::in_sync),
        "both ends must know that they agree"
    );
}

/// Every message that is said until two replicas agree, a snapshot included.
pub(crate) fn conversation(one: &Replica, two: &Replica) -> Vec<Vec<u8>> {
    let mut link = Link::with_snapshots(one, two, 7);
    let mut heard = Vec::new();
    loop {
        let mut busy = false;
        for end in [0, 1] {
            if let Some(message) = link.queues[end].front() {
                heard.push(message.as_bytes().to_vec());
            }
            busy |= link.deliver(end).unwrap();
            busy |= link.poll(end).unwrap();
        }
        if !busy {
            return heard;
        }
    }
}
