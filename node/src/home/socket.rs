//! Where the socket of the local API is.
//!
//! In the home, as `node.sock`. A Unix socket's path must be short (104 bytes on macOS, 108 on
//! Linux, with the closing zero); a home with a longer path has its socket in a private directory
//! below `/tmp`, under a name that follows from the home's path alone, so that a client finds it
//! without asking anyone.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{HomeError, record};

/// The longest path that fits `sun_path` on every Unix, without the closing zero.
const LONGEST: usize = 103;

/// The socket of the node whose home is `home`; the fallback directory is made when it is needed.
///
/// # Errors
/// [`HomeError::NoSocketPlace`] when the home's path is too long and the fallback directory is not
/// this user's own.
pub fn socket_path(home: &Path) -> Result<PathBuf, HomeError> {
    let io = |source| HomeError::Io {
        path: home.to_owned(),
        source,
    };
    // The node has its home without symbolic links: a client must come to the same name.
    let home = match home.canonicalize() {
        Ok(home) => home,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::path::absolute(home).map_err(io)?
        }
        Err(source) => return Err(io(source)),
    };
    let inside = home.join("node.sock");
    if inside.as_os_str().len() <= LONGEST {
        return Ok(inside);
    }
    let user = rustix::process::geteuid().as_raw();
    let directory = PathBuf::from(format!("/tmp/wormhole-{user}"));
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => {
            return Err(HomeError::Io {
                path: directory,
                source,
            });
        }
    }
    // `/tmp` is everybody's: somebody else may have been there first, or put a link in our way.
    let ours = fs::symlink_metadata(&directory)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == user && meta.mode() & 0o077 == 0);
    if !ours {
        return Err(HomeError::NoSocketPlace {
            path: home,
            directory,
        });
    }
    let name = blake3::hash(home.as_os_str().as_bytes());
    let name = record::hex(
        name.as_bytes()
            .first_chunk::<16>()
            .expect("a hash has 32 bytes"),
    );
    Ok(directory.join(format!("{name}.sock")))
}
