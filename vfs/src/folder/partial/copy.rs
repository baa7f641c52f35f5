//! Fills an unfinished file with what this device has: chunks of other files, of packs, and what an interrupted transfer
//! left in the file itself.
//!
//! A large content is copied in step: readers find, read and verify its chunks in turn, and one writer puts them down in
//! the order of the file, so that it can write past the page cache. Memory is bounded by the queues between them.
//! Whatever cannot be had here, a source that changes meanwhile included, is answered as missing and fetched.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use rustix::fs::SeekFrom;
use wormhole_store::{Content, Lack, ReadError, Slot, Slots};

use super::direct::SequentialWriter;
use super::{Opened, PartialFile};

/// From this size on, threads and an aligned buffer cost less than they save.
const LARGE: u64 = 16 << 20;
/// Readers wait for the disk most of the time, because they read past the page cache: four keep the writer busy.
const READERS: usize = 4;
/// Chunks that wait for the writer, for each reader: at most 1 MiB each.
const QUEUE: usize = 4;

/// Where the bytes of a slot are.
enum Found {
    /// In the unfinished file, since an interrupted transfer.
    InPlace,
    /// Elsewhere on this device.
    Here(Bytes),
    /// On other devices.
    Elsewhere,
}

impl PartialFile {
    /// Brings what can be had of a content without a network, up to the end of the first part of which something is
    /// lacking.
    pub(super) fn copy_from_here(&self, content: &Content, part: u64) -> io::Result<Lack> {
        if part == 0 {
            self.check_room(content)?;
        }
        let mut lack = Lack {
            next: Some(part),
            ..Lack::default()
        };
        while let Some(part) = lack.next.filter(|_| lack.slots.is_empty()) {
            let mut parts = self.store.parts(content, part).map_err(io::Error::other)?;
            let end = parts.next_part();
            if content.size >= LARGE {
                self.copy_in_step(content, part, &mut lack)?;
            } else {
                self.copy_in_turn(content, &mut parts, &mut lack)?;
            }
            lack.next = end;
        }
        Ok(lack)
    }

    /// Whether the disk has room for what is not in the unfinished file yet. A part of a file must not take the room
    /// that others would fit into, and a manifest of a megabyte may claim terabytes.
    fn check_room(&self, content: &Content) -> io::Result<()> {
        if content.is_single() {
            return Ok(()); // the write says so itself
        }
        let needed = self
            .store
            .occupied_bytes(content)
            .map_err(io::Error::other)?;
        let opened = self.opened()?;
        let there = opened.file.metadata()?.blocks().saturating_mul(512);
        let disk = rustix::fs::fstatvfs(&opened.file)?;
        if disk.f_blocks == 0 {
            return Ok(()); // it does not say how big it is, as ramfs
        }
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed.saturating_sub(there) > free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn copy_in_turn(
        &self,
        content: &Content,
        slots: &mut Slots<'_>,
        lack: &mut Lack,
    ) -> io::Result<()> {
        for slot in slots {
            let slot = slot.map_err(io::Error::other)?;
            let found = if content.is_single() {
                match self.here(&slot) {
                    Some(bytes) => {
                        self.write_whole(&bytes)?;
                        Found::InPlace
                    }
                    None => Found::Elsewhere,
                }
            } else {
                self.find(&*self.opened()?, &slot)?
            };
            match found {
                Found::InPlace => {}
                Found::Here(bytes) => self.opened()?.write(slot.offset, &bytes)?,
                Found::Elsewhere => {
                    lack.slots.push(slot);
                    continue;
                }
            }
            lack.here += u64::from(slot.chunk.len);
        }
        Ok(())
    }

    fn copy_in_step(&self, content: &Content, part: u64, lack: &mut Lack) -> io::Result<()> {
        let opened = self.opened()?;
        thread::scope(|scope| {
            let readers: Vec<Receiver<_>> = (0..READERS)
                .map(|turn| {
                    let (sender, receiver) = sync_channel(QUEUE);
                    let opened = &opened;
                    scope.spawn(move || self.find_each((content, part), opened, turn, &sender));
                    receiver
                })
                .collect();
            let mut writer = SequentialWriter::new(&opened);
            // The readers take turns, so asking them in turn gives the order of the file. The first that has no more is
            // at the end, and so are the others.
            for reader in readers.iter().cycle() {
                let Ok(found) = reader.recv() else { break };
                let (slot, found) = found?;
                match found {
                    Found::InPlace => {}
                    Found::Here(bytes) => writer.write(slot.offset, &bytes)?,
                    Found::Elsewhere => {
                        lack.slots.push(slot);
                        continue;
                    }
                }
                lack.here += u64::from(slot.chunk.len);
            }
            writer.flush()
        })
    }

    /// Finds the slots of one reader, until the writer has no more use for them.
    fn find_each(
        &self,
        (content, part): (&Content, u64),
        opened: &Opened,
        turn: usize,
        sender: &SyncSender<io::Result<(Slot, Found)>>,
    ) {
        let slots = match self.store.parts(content, part) {
            Ok(slots) => slots,
            Err(error) => {
                drop(sender.send(Err(io::Error::other(error)))); // unless it stopped for another reason
                return;
            }
        };
        for slot in slots.skip(turn).step_by(READERS) {
            let found = slot
                .map_err(io::Error::other)
                .and_then(|slot| Ok((slot, self.find(opened, &slot)?)));
            let failed = found.is_err();
            if sender.send(found).is_err() || failed {
                return;
            }
        }
    }

    fn find(&self, opened: &Opened, slot: &Slot) -> io::Result<Found> {
        if !opened.fresh && self.is_in_place(opened, slot)? {
            return Ok(Found::InPlace);
        }
        Ok(self.here(slot).map_or(Found::Elsewhere, Found::Here))
    }

    /// The chunk from this device, if it is anywhere on it. One that turns out stale or damaged is fetched.
    fn here(&self, slot: &Slot) -> Option<Bytes> {
        match self.store.read_once(&slot.chunk.id) {
            // A manifest that says another length than the chunk has is not ours to judge: the fetch does.
            Ok(bytes) => (bytes.len() == slot.chunk.len as usize).then_some(bytes),
            Err(ReadError::Absent { .. }) => None,
            Err(error) => {
                tracing::debug!(label = %self.want.label, %error, "fetched instead");
                None
            }
        }
    }

    /// Whether an interrupted transfer already wrote this slot.
    fn is_in_place(&self, opened: &Opened, slot: &Slot) -> io::Result<bool> {
        // A hole that covers the slot was never written, or is a chunk of zeros: then copying is as cheap.
        match rustix::fs::seek(&opened.file, SeekFrom::Data(slot.offset)) {
            Ok(data) if data < slot.offset + u64::from(slot.chunk.len) => {}
            Ok(_) | Err(rustix::io::Errno::NXIO) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let len = usize::try_from(slot.chunk.len).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        opened.file.read_exact_at(&mut bytes, slot.offset)?;
        Ok(self.store.key().chunk_id(&bytes) == slot.chunk.id)
    }
}
