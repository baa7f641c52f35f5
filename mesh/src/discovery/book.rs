//! The address book: where known devices were reached before, kept over restarts.
//!
//! One JSON file, replaced atomically. It holds devices that we know (members, or given by hand), so a
//! stranger cannot fill it. A damaged file is set aside and a new book begun: addresses are found again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use wormhole_crdt::DeviceId;

use crate::address::PeerAddr;

/// Devices in the book; the ones that were met longest ago are forgotten first.
const MAX_DEVICES: usize = 1024;

/// Addresses per device, likewise.
const MAX_ADDRS: usize = 8;

/// An address that did not work for so long is forgotten.
const EXPIRY: Duration = Duration::from_secs(60 * 24 * 3600);

/// No book of ours is larger; a file that is, is not read.
const MAX_FILE_LEN: u64 = 4 << 20;

/// The version of the file's format.
const FORMAT: u32 = 1;

/// Addresses of known devices. All methods take the time as an argument.
#[derive(Debug, Default)]
pub(crate) struct Book {
    file: Option<PathBuf>,
    devices: BTreeMap<DeviceId, BTreeMap<PeerAddr, u64>>,
    /// Addresses of a kind that this program does not know, or of an interface that is gone: kept as they are.
    others: BTreeMap<DeviceId, BTreeMap<String, u64>>,
    is_changed: bool,
}

/// The file's content. Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Page {
    format: u32,
    devices: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Book {
    /// Reads the book, or begins one.
    ///
    /// # Errors
    ///
    /// Only if the file is there and cannot be read, or a damaged one cannot be set aside.
    pub(crate) fn open(file: Option<&Path>) -> io::Result<Self> {
        let Some(path) = file else {
            return Ok(Self::default());
        };
        let mut book = Self {
            file: Some(path.to_owned()),
            ..Self::default()
        };
        match fs::metadata(path) {
            Ok(found) if found.len() > MAX_FILE_LEN => set_aside(path)?,
            Ok(_) => match parse(&fs::read(path)?) {
                Some((devices, others)) => (book.devices, book.others) = (devices, others),
                None => set_aside(path)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(book)
    }

    /// Where the device was reached, the latest first.
    pub(crate) fn addrs(&self, device: &DeviceId) -> Vec<PeerAddr> {
        let mut known: Vec<_> = self.devices.get(device).into_iter().flatten().collect();
        known.sort_by_key(|(_, seen)| std::cmp::Reverse(**seen));
        known.into_iter().map(|(addr, _)| *addr).collect()
    }

    /// The device was reached at this address, or somebody says that it can be.
    pub(crate) fn note(&mut self, device: DeviceId, addr: PeerAddr, now: SystemTime) {
        /// Rewriting the file for every reconnect would be vain.
        const PRECISION: u64 = 3600;
        if !addr.is_dialable() {
            return;
        }
        let now = seconds(now);
        let known = self.devices.entry(device).or_default();
        let before = known.insert(addr, now);
        self.is_changed |= before.is_none_or(|before| before.abs_diff(now) > PRECISION);
        while known.len() > MAX_ADDRS
            && let Some(oldest) = known.iter().min_by_key(|(_, seen)| **seen).map(|(a, _)| *a)
        {
            known.remove(&oldest);
        }
        self.trim(now);
    }

    /// What has to be written, and where, if anything changed since the last call.
    pub(crate) fn changes(&mut self) -> Option<Draft> {
        let file = self.file.clone()?;
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let devices = self.devices.iter().map(|(device, addrs)| {
            let others = self.others.get(device).into_iter().flatten();
            let addrs = addrs
                .iter()
                .map(|(addr, seen)| (addr.to_string(), *seen))
                .chain(others.map(|(addr, seen)| (addr.clone(), *seen)))
                .collect();
            (device.to_string(), addrs)
        });
        Some(Draft {
            file,
            page: Page {
                format: FORMAT,
                devices: devices.collect(),
            },
        })
    }

    fn trim(&mut self, now: u64) {
        let oldest = now.saturating_sub(EXPIRY.as_secs());
        for addrs in self.devices.values_mut() {
            addrs.retain(|_, seen| *seen >= oldest);
        }
        self.devices.retain(|_, addrs| !addrs.is_empty());
        self.others
            .retain(|device, _| self.devices.contains_key(device));
        while self.devices.len() > MAX_DEVICES
            && let Some(oldest) = self
                .devices
                .iter()
                .min_by_key(|(_, addrs)| addrs.values().max().copied())
                .map(|(device, _)| *device)
        {
            self.devices.remove(&oldest);
        }
    }
}

/// The book as it was at some moment, ready to be written.
pub(crate) struct Draft {
    file: PathBuf,
    page: Page,
}

impl Draft {
    /// Replaces the file. Blocking.
    pub(crate) fn write(&self) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&self.page)?;
        let draft = self.file.with_extension("new");
        let mut file = File::create(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, &self.file)
    }
}

/// Addresses that this program can use, and those that it only keeps.
type Addrs = (
    BTreeMap<DeviceId, BTreeMap<PeerAddr, u64>>,
    BTreeMap<DeviceId, BTreeMap<String, u64>>,
);

fn parse(bytes: &[u8]) -> Option<Addrs> {
    let page: Page = serde_json::from_slice(bytes).ok()?;
    if page.format != FORMAT {
        return None;
    }
    let (mut devices, mut others) = (BTreeMap::new(), BTreeMap::new());
    for (device, addrs) in page.devices.into_iter().take(MAX_DEVICES) {
        let (mut known, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for (addr, seen) in addrs.into_iter().take(2 * MAX_ADDRS) {
            match addr.parse() {
                Ok(addr) if known.len() < MAX_ADDRS => drop(known.insert(addr, seen)),
                Ok(_) => {}
                Err(_) if kept.len() < MAX_ADDRS => drop(kept.insert(addr, seen)),
                Err(_) => {}
            }
        }
        let device = device.parse().ok()?;
        devices.insert(device, known);
        others.insert(device, kept);
    }
    Some((devices, others))
}

/// Keeps a file that we cannot read, for whoever wants to know why.
fn set_aside(path: &Path) -> io::Result<()> {
    let aside = path.with_extension("damaged");
    tracing::warn!(path = %path.display(), aside = %aside.display(), "the address book is damaged");
    fs::rename(path, aside)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u64) -> DeviceId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        DeviceId::from_bytes(id)
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    const DAY: u64 = 24 * 3600;

    #[test]
    fn the_book_survives_a_restart_latest_address_first() -> io::Result<()> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("book.json");
        let mut book = Book::open(Some(&path))?;
        let (old, new) = (
            "10.0.0.7:1".parse().unwrap(),
            "tcp/10.0.0.8:1".parse().unwrap(),
        );
        book.note(device(1), old, at(100 * DAY));
        book.note(device(1), new, at(101 * DAY));
        book.changes().unwrap().write()?;
        assert!(book.changes().is_none(), "nothing changed since");
        assert_eq!(Book::open(Some(&path))?.addrs(&device(1)), [new, old]);
        Ok(())
    }

    #[test]
    fn an_address_of_an_unknown_kind_is_kept() -> io::Result<()> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("book.json");
        let page = format!(
            r#"{{"format":1,"devices":{{"{}":{{"10.0.0.7:1":1,"relay/example.org/7":1}}}}}}"#,
            device(1)
        );
        fs::write(&path, page)?;
        let mut book = Book::open(Some(&path))?;
        let known: PeerAddr = "10.0.0.7:1".parse().unwrap();
        assert_eq!(book.addrs(&device(1)), [known]);
        book.note(device(1), "10.0.0.8:1".parse().unwrap(), at(DAY));
        book.changes().unwrap().write()?;
        assert!(fs::read_to_string(&path)?.contains("relay/example.org/7"));
        Ok(())
    }

    #[test]
    fn a_damaged_book_is_set_aside() -> io::Result<()> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("book.json");
        for damage in [&b"{"[..], b"", b"\xff\xfe", br#"{"format":9,"devices":{}}"#] {
            fs::write(&path, damage)?;
            assert!(Book::open(Some(&path))?.devices.is_empty());
            assert_eq!(fs::read(path.with_extension("damaged"))?, damage);
        }
        Ok(())
    }

    #[test]
    fn the_book_is_bounded_and_forgets() {
        let mut book = Book::default();
        for n in 0..2 * MAX_DEVICES as u64 {
            book.note(device(n), "10.0.0.7:1".parse().unwrap(), at(1000 * DAY + n));
        }
        assert_eq!(book.devices.len(), MAX_DEVICES);
        assert!(book.addrs(&device(0)).is_empty(), "the oldest went first");

        for port in 1..=20_u16 {
            let addr = format!("10.0.0.7:{port}").parse().unwrap();
            book.note(device(1), addr, at(1001 * DAY + u64::from(port)));
        }
        assert_eq!(book.addrs(&device(1)).len(), MAX_ADDRS);
        book.note(device(2), "10.0.0.7:1".parse().unwrap(), at(2000 * DAY));
        assert!(
            book.addrs(&device(1)).is_empty(),
            "nobody answered there for too long"
        );
    }
}
