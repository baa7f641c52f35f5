//! The home: the one directory that holds everything a node keeps between two starts.
//!
//! ```text
//! <home>/                 0700
//!   format                the version of this layout
//!   lock                  held by the running node, holds its process id
//!   config.toml           the user's settings (see `config`)
//!   device.key            0600, the seed of this device's key: who has it is this device
//!   port                  the port of the last run, which other devices remember
//!   limits.json           bandwidth limits set by `wormhole limit`
//!   peers.book            addresses of other devices (owned by `mesh`)
//!   node.sock, node.log   the local API, and the log of a node in the background
//!   meshes/<mesh id>/     mesh.json (see `record`) and its copy, replica.redb, store/,
//!                         folder-<id>.redb, check.json; *.damaged-<n> was set aside
//! ```
//!
//! This module opens and locks the layout and knows its paths; what is inside the files belongs to
//! others. Whatever a crash left half made is cleared away here, before anyone else looks.

mod durable;
mod error;
mod record;
pub(crate) mod room;
mod socket;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rand::TryRng;
use rand::rngs::SysRng;
use wormhole_crdt::MeshId;
use zeroize::Zeroizing;

pub use durable::write_private;
pub use error::HomeError;
pub use record::{BindingRecord, BindingTarget, MeshRecord, RecordError, Rest, SecretBytes};
pub use socket::socket_path;

/// The version of the layout that this program writes, and the only one that it reads.
const FORMAT: u32 = 2;

const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const PORT_FILE: &str = "port";
const KEY_FILE: &str = "device.key";
const MESH_FILE: &str = "mesh.json";
/// The same again, for when that is lost or damaged: without its secrets a mesh cannot be opened.
const MESH_COPY: &str = "mesh.json.copy";

/// What may be in a directory that is about to become a home: settings that the user prepared, and
/// what a start that was killed left before it wrote the format.
const MAY_PRECEDE: [&str; 5] = [
    "config.toml",
    "node.log",
    "node.log.old",
    "node.sock",
    LOCK_FILE,
];

/// An opened home. While it lives, no other node can open the same directory.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    // The lock ends with the process, however that ends.
    lock: File,
}

impl Home {
    /// Where the home is when the user names none: `WORMHOLE_HOME`, or the platform's data directory.
    ///
    /// # Errors
    /// [`HomeError::NoUserDirectory`] when neither is known.
    pub fn default_dir() -> Result<PathBuf, HomeError> {
        if let Some(dir) = std::env::var_os("WORMHOLE_HOME").filter(|dir| !dir.is_empty()) {
            return Ok(PathBuf::from(dir));
        }
        let base = etcetera::base_strategy::choose_native_strategy()
            .map_err(|_| HomeError::NoUserDirectory)?;
        Ok(base.data_dir().join("wormhole"))
    }

    /// Opens the home at `dir`, and makes it when there is none.
    ///
    /// # Errors
    /// A [`HomeError`] that names the file and what to do. Nothing is changed when the directory is
    /// locked, of a newer format, or not a home at all.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        let dir = std::path::absolute(dir).map_err(|source| HomeError::io(dir, source))?;
        make_private_dir(&dir)?;
        let dir = dir
            .canonicalize()
            .map_err(|source| HomeError::io(&dir, source))?;
        // A directory of other things must not even get a lock file. Where there is one, this is a
        // home or becomes one, and what is in it can be judged only under the lock.
        let path = dir.join(LOCK_FILE);
        if !path.exists() {
            check_format(&dir).or_else(|error| match path.exists() {
                true => Ok(()),
                false => Err(error),
            })?;
        }
        let lock = take_lock(&dir)?;
        check_format(&dir)?;
        let home = Self { dir, lock };
        home.write_if_absent(FORMAT_FILE, format!("{FORMAT}\n").as_bytes())?;
        make_private_dir(&home.dir.join("meshes"))?;
        home.clear_unfinished()?;
        Ok(home)
    }

    /// The directory, absolute and without symbolic links.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The settings file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// The bandwidth limits that were set while the node ran.
    #[must_use]
    pub fn limits_path(&self) -> PathBuf {
        self.dir.join("limits.json")
    }

    /// The address book, owned by `mesh`.
    #[must_use]
    pub fn book_path(&self) -> PathBuf {
        self.dir.join("peers.book")
    }

    /// The port that the node had when it ran last: other devices remember it. 0 when it never
    /// ran, or when that cannot be told.
    #[must_use]
    pub fn last_port(&self) -> u16 {
        let text = fs::read_to_string(self.dir.join(PORT_FILE)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Remembers the port for [`Home::last_port`].
    ///
    /// # Errors
    /// When the file cannot be written; the node can do without.
    pub fn keep_port(&self, port: u16) -> Result<(), HomeError> {
        let path = self.dir.join(PORT_FILE);
        write_private(&path, format!("{port}\n").as_bytes())
            .map_err(|source| HomeError::io(&path, source))
    }

    /// The log of a node that runs in the background.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("node.log")
    }

    /// The directory of one mesh. It counts only once its record is written.
    #[must_use]
    pub fn mesh_dir(&self, mesh: &MeshId) -> PathBuf {
        self.dir.join("meshes").join(record::hex(mesh.as_bytes()))
    }

    /// A fresh directory for a mesh that is being made; it is cleared away at the next start unless
    /// [`Home::adopt_mesh`] was reached.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn stage_mesh(&self) -> Result<PathBuf, HomeError> {
        let mut tag = [0; 8];
        SysRng
            .try_fill_bytes(&mut tag)
            .map_err(|_| HomeError::NoRandomness)?;
        let dir = self
            .dir
            .join("meshes")
            .join(format!("{STAGING}{}", record::hex(&tag)));
        make_private_dir(&dir)?;
        Ok(dir)
    }

    /// Gives a staged directory its record and its final place: from here on the mesh counts.
    ///
    /// # Errors
    /// When there is a directory for this mesh already, or the disk refuses.
    pub fn adopt_mesh(&self, staged: &Path, record: &MeshRecord) -> Result<PathBuf, HomeError> {
        let place = self.mesh_dir(&record.mesh);
        write_record(staged, record)?;
        self.rename_mesh(staged, &place)?;
        Ok(place)
    }

    fn rename_mesh(&self, from: &Path, to: &Path) -> Result<(), HomeError> {
        fs::rename(from, to)
            .and_then(|()| durable::sync_dir(&self.dir.join("meshes")))
            .map_err(|source| HomeError::io(to, source))
    }

    /// Removes a staged directory. What cannot be removed now is cleared away at the next start.
    pub fn discard(&self, staged: &Path) {
        if let Err(error) = remove_tree(staged) {
            tracing::warn!(dir = %staged.display(), %error, "left for the next start to clear away");
        }
    }

    /// Removes all that the home holds of a mesh. It gets another name first, so that what a crash
    /// leaves of it is cleared away at the next start.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn drop_mesh(&self, mesh: &MeshId) -> Result<(), HomeError> {
        let dir = self.mesh_dir(mesh);
        if !dir.exists() {
            return Ok(());
        }
        let gone = self
            .dir
            .join("meshes")
            .join(format!("{DROPPED}{}", record::hex(mesh.as_bytes())));
        self.rename_mesh(&dir, &gone)?;
        remove_tree(&gone)
    }

    /// Writes the record of a mesh, atomically. With it its bindings begin to count.
    ///
    /// # Errors
    /// When the disk refuses; the old record is then still whole.
    pub fn save_record(&self, record: &MeshRecord) -> Result<(), HomeError> {
        write_record(&self.mesh_dir(&record.mesh), record)
    }

    /// Reads the records of all meshes that this device is in.
    ///
    /// A record that is lost or damaged is taken from its copy. One that cannot be had is reported
    /// beside the others, with the name of its directory, so that one damaged mesh does not keep the
    /// rest from starting.
    ///
    /// # Errors
    /// When the directory itself cannot be listed.
    pub fn records(&self) -> Result<Vec<Result<MeshRecord, LostRecord>>, HomeError> {
        let meshes = self.dir.join("meshes");
        let mut records = Vec::new();
        for item in fs::read_dir(&meshes).map_err(|source| HomeError::io(&meshes, source))? {
            let item = item.map_err(|source| HomeError::io(&meshes, source))?;
            let record = read_record(&item.path());
            records.push(record.map_err(|source| LostRecord {
                mesh: item.file_name().to_string_lossy().into_owned(),
                source,
            }));
        }
        Ok(records)
    }

    /// This device's seed; made, and made durable, when there is none yet.
    ///
    /// # Errors
    /// When the file cannot be read or has not the length of a key: it is never replaced, because
    /// a new key would be a new device.
    pub fn device_seed(&self) -> Result<Zeroizing<[u8; 32]>, HomeError> {
        let path = self.dir.join(KEY_FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let seed = <[u8; 32]>::try_from(bytes.as_slice());
                seed.map(Zeroizing::new).map_err(|_| HomeError::BadKey {
                    path,
                    len: bytes.len(),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut seed = Zeroizing::new([0; 32]);
                SysRng
                    .try_fill_bytes(seed.as_mut())
                    .map_err(|_| HomeError::NoRandomness)?;
                write_private(&path, seed.as_ref())
                    .map_err(|source| HomeError::io(&path, source))?;
                Ok(seed)
            }
            Err(source) => Err(HomeError::io(&path, source)),
        }
    }

    /// Lets another node have the home. The last thing that a node does.
    pub fn release(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the home's lock is held until the process ends");
        }
    }

    fn write_if_absent(&self, name: &str, bytes: &[u8]) -> Result<(), HomeError> {
        let path = self.dir.join(name);
        if path.exists() {
            return Ok(());
        }
        write_private(&path, bytes).map_err(|source| HomeError::io(&path, source))
    }

    /// Clears away meshes that were being made, or being dropped, when the node last stopped.
    fn clear_unfinished(&self) -> Result<(), HomeError> {
        let meshes = self.dir.join("meshes");
        for item in fs::read_dir(&meshes).map_err(|source| HomeError::io(&meshes, source))? {
            let item = item.map_err(|source| HomeError::io(&meshes, source))?;
            let (name, dir) = (item.file_name(), item.path());
            let name = name.to_string_lossy();
            if name.starts_with(STAGING) || name.starts_with(DROPPED) {
                tracing::warn!(dir = %dir.display(), "clearing away a mesh that was never finished");
                remove_tree(&dir)?;
            }
        }
        Ok(())
    }
}

/// What directories of meshes are called that are being made, and that are being dropped. All others
/// are of meshes, whatever is missing in them.
const STAGING: &str = "new-";
const DROPPED: &str = "gone-";

/// A mesh whose record cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("its record cannot be read")]
pub struct LostRecord {
    /// The name of its directory, which is its id.
    pub mesh: String,
    /// Why not.
    pub source: RecordError,
}

fn write_record(dir: &Path, record: &MeshRecord) -> Result<(), HomeError> {
    let text = Zeroizing::new(record.to_json());
    // The copy first: where that fails, the record that is read at the next start is still whole and the old one.
    for name in [MESH_COPY, MESH_FILE] {
        let path = dir.join(name);
        write_private(&path, text.as_bytes()).map_err(|source| HomeError::io(&path, source))?;
    }
    Ok(())
}

fn read_record(dir: &Path) -> Result<MeshRecord, RecordError> {
    let path = dir.join(MESH_FILE);
    let error = match MeshRecord::read(&path) {
        Err(
            error @ (RecordError::Damaged { .. }
            | RecordError::NotText { .. }
            | RecordError::Missing { .. }),
        ) => error,
        // It may be whole, and is left as it is.
        Err(error @ RecordError::Io { .. }) => {
            let copy = MeshRecord::read(&dir.join(MESH_COPY));
            return copy
                .inspect(|_| tracing::error!(%error, "the record of a mesh is taken from its copy"))
                .map_err(|_| error);
        }
        read => return read,
    };
    let Ok(record) = MeshRecord::read(&dir.join(MESH_COPY)) else {
        return Err(error);
    };
    tracing::error!(%error, "the record of a mesh is taken from its copy");
    let kept = set_aside(&path).and_then(|_| write_record(dir, &record));
    if let Err(error) = kept {
        tracing::warn!(%error, "the record of a mesh is only in its copy");
    }
    Ok(record)
}

/// Names that a damaged file may get; more than that is not kept.
const MOST_ASIDE: u32 = 9;

/// Gives a damaged file another name, so that a new one can take its place. Returns the new name;
/// nothing happens when there is no such file.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf, HomeError> {
    let named = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    let free = (1..MOST_ASIDE).find(|number| !named(*number).exists());
    let aside = named(free.unwrap_or(MOST_ASIDE));
    match fs::rename(path, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HomeError::io(path, error)),
        Ok(()) | Err(_) => Ok(aside),
    }
}

/// Makes a directory for this user alone, or takes one that is there.
pub(crate) fn make_private_dir(dir: &Path) -> Result<(), HomeError> {
    if let Err(source) = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
    {
        return Err(if fs::metadata(dir).is_ok_and(|meta| !meta.is_dir()) {
            HomeError::NotADirectory {
                path: dir.to_owned(),
            }
        } else {
            HomeError::io(dir, source)
        });
    }
    let meta = fs::metadata(dir).map_err(|source| HomeError::io(dir, source))?;
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user && user != 0 {
        return Err(HomeError::ForeignOwner {
            path: dir.to_owned(),
            owner: meta.uid(),
        });
    }
    Ok(())
}

/// Checks the version marker, or that a directory without one may become a home.
fn check_format(dir: &Path) -> Result<(), HomeError> {
    let path = dir.join(FORMAT_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(FORMAT) => restrict(dir),
            Ok(found) if found > FORMAT => Err(HomeError::Newer {
                path: dir.to_owned(),
                found,
            }),
            Ok(found) if found > 0 => Err(HomeError::Older {
                path: dir.to_owned(),
                found,
            }),
            Ok(_) | Err(_) => Err(HomeError::BadFormat { path }),
        },
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(HomeError::BadFormat { path })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for item in fs::read_dir(dir).map_err(|source| HomeError::io(dir, source))? {
                let found = item
                    .map_err(|source| HomeError::io(dir, source))?
                    .file_name();
                let is_ours = MAY_PRECEDE.iter().any(|name| found == *name)
                    || durable::is_unfinished(&found, FORMAT_FILE);
                if !is_ours {
                    return Err(HomeError::NotAHome {
                        path: dir.to_owned(),
                        found,
                    });
                }
            }
            restrict(dir)
        }
        Err(source) => Err(HomeError::io(&path, source)),
    }
}

/// Takes away what others may do in the home. Only for directories known to be ours to change.
fn restrict(dir: &Path) -> Result<(), HomeError> {
    let meta = fs::metadata(dir).map_err(|source| HomeError::io(dir, source))?;
    if meta.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .map_err(|source| HomeError::io(dir, source))
}

/// Takes the single-instance lock and leaves this process's id in it, for the message of the next.
fn take_lock(dir: &Path) -> Result<File, HomeError> {
    let path = dir.join(LOCK_FILE);
    let io = |source| HomeError::io(&path, source);
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options.open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The id only makes the message better: an unreadable one is as good as none.
            let pid = match file.read_to_string(&mut text) {
                Ok(_) => text.trim().parse().ok(),
                Err(_) => None,
            };
            return Err(HomeError::Locked {
                path: dir.to_owned(),
                pid,
            });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

fn remove_tree(dir: &Path) -> Result<(), HomeError> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(HomeError::io(dir, source)),
    }
}

#[cfg(test)]
mod tests;
