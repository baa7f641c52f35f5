//! `ls`, `cat` and `conflicts`: looks into the tree without a folder.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use wormhole_crdt::{Entry, EntryId, EntryPath, Kind, Replica, StorageError};
use wormhole_store::{Content, ContentReader, FetchJob};

use super::local::blocking;
use super::{LocalMesh, Node};
use crate::api::{EntriesReply, EntryInfo, MeshRef};
use crate::error::{LookupError, TreeError};
use crate::policy::is_here;
use crate::status;

/// What is read at a time for `cat`; a chunk has at most as much.
const PIECE_BYTES: usize = 1 << 20;

impl Node {
    /// The entries of a directory, or the one entry that a path names.
    ///
    /// # Errors
    /// A [`TreeError`].
    pub async fn list(&self, mesh: &str, path: &str) -> Result<EntriesReply, TreeError> {
        let mesh = self.lookup(mesh)?;
        let entry = self.resolve(&mesh, path).await?;
        let (replica, reference) = (mesh.replica().clone(), mesh.reference());
        let entries = blocking(move || {
            let names = Names::of(&replica);
            let id = match entry {
                None => EntryId::ROOT,
                Some(entry) if entry.kind == Kind::Directory => entry.key.id,
                Some(entry) => return Ok(vec![describe(&replica, &reference, &names, &entry)?]),
            };
            let children = replica.children(id)?;
            children
                .iter()
                .map(|child| describe(&replica, &reference, &names, child))
                .collect()
        });
        Ok(EntriesReply {
            entries: entries.await.map_err(TreeError::Replica)?,
        })
    }

    /// The entries that are the second version of something changed on two devices apart.
    ///
    /// # Errors
    /// A [`TreeError`].
    pub async fn conflicts(&self, mesh: Option<&str>) -> Result<EntriesReply, TreeError> {
        let meshes: Result<Vec<Arc<LocalMesh>>, LookupError> = self.lookup_all(mesh);
        let mut entries = Vec::new();
        for mesh in meshes? {
            let (replica, reference) = (mesh.replica().clone(), mesh.reference());
            let found: Result<Vec<EntryInfo>, StorageError> = blocking(move || {
                let names = Names::of(&replica);
                let conflicts = replica.conflicts()?;
                conflicts
                    .iter()
                    .map(|entry| describe(&replica, &reference, &names, entry))
                    .collect()
            })
            .await;
            entries.extend(found?);
        }
        Ok(EntriesReply { entries })
    }

    /// The size and the bytes of a file. What is not here is fetched before the first byte comes.
    ///
    /// # Errors
    /// A [`TreeError`]; an error that comes later ends the stream.
    pub async fn cat(
        &self,
        mesh: &str,
        path: &str,
    ) -> Result<(u64, impl Stream<Item = io::Result<Bytes>> + Send + use<>), TreeError> {
        let mesh = self.lookup(mesh)?;
        let entry = self.resolve(&mesh, path).await?;
        let Some(file) = entry.and_then(|entry| entry.file) else {
            return Err(TreeError::NotAFile {
                path: path.to_owned(),
            });
        };
        let content = file.content;
        self.bring(&mesh, content, path).await?;
        let store = mesh.store().clone();
        let reader = blocking(move || store.reader(content)).await;
        let reader = reader.map_err(|source| TreeError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok((content.size, pieces(Arc::new(reader), content.size)))
    }

    /// Fetches a content into the store unless it is there.
    async fn bring(&self, mesh: &LocalMesh, content: Content, path: &str) -> Result<(), TreeError> {
        let store = mesh.store().clone();
        if blocking(move || is_here(&store, &content)).await {
            return Ok(());
        }
        let sink = Arc::new(mesh.store().clone());
        let job = FetchJob {
            content,
            label: Arc::from(path),
            sink,
        };
        let cancel = mesh.stop.child_token();
        let fetched = self.network().fetch(mesh.id(), vec![job], cancel).await;
        match fetched.into_iter().next() {
            Some(Err(source)) => Err(TreeError::Fetch {
                path: path.to_owned(),
                source,
            }),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// The entry that a path names; `None` for the root.
    pub(super) async fn resolve(
        &self,
        mesh: &LocalMesh,
        path: &str,
    ) -> Result<Option<Entry>, TreeError> {
        let trimmed = path.trim_matches('/');
        if trimmed.is_empty() {
            return Ok(None);
        }
        let parsed: EntryPath = trimmed.parse().map_err(|source| TreeError::Path {
            path: path.to_owned(),
            source,
        })?;
        let replica = mesh.replica().clone();
        match blocking(move || replica.resolve(&parsed)).await? {
            Some(entry) => Ok(Some(entry)),
            None => Err(TreeError::Absent {
                path: path.to_owned(),
            }),
        }
    }
}

/// Reads a content piece by piece, each when the one before was taken.
fn pieces(
    reader: Arc<ContentReader>,
    size: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    stream::try_unfold(0, move |offset| {
        let reader = reader.clone();
        async move {
            if offset >= size {
                return Ok(None);
            }
            let piece = blocking(move || {
                let want = usize::try_from(size - offset)
                    .unwrap_or(PIECE_BYTES)
                    .min(PIECE_BYTES);
                let mut buffer = vec![0; want];
                let read = reader
                    .read_at(offset, &mut buffer)
                    .map_err(io::Error::other)?;
                buffer.truncate(read);
                Ok::<_, io::Error>(Bytes::from(buffer))
            })
            .await?;
            if piece.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let next = offset + piece.len() as u64;
            Ok(Some((piece, next)))
        }
    })
}

/// What the devices of a mesh are called, by the short form of their ids.
struct Names(Vec<(wormhole_crdt::DeviceTag, String)>);

impl Names {
    fn of(replica: &Replica) -> Self {
        let members = replica.members().into_iter();
        Self(
            members
                .map(|member| (member.device.tag(), status::shown(&member.name)))
                .collect(),
        )
    }

    fn of_writer(&self, entry: &Entry) -> Option<String> {
        let writer = entry.modified_by();
        self.0
            .iter()
            .find(|(tag, _)| *tag == writer)
            .map(|(_, name)| name.clone())
    }
}

fn describe(
    replica: &Replica,
    mesh: &MeshRef,
    names: &Names,
    entry: &Entry,
) -> Result<EntryInfo, StorageError> {
    let path = replica
        .path_of(&entry.key)?
        .map_or_else(String::new, |path| path.to_string());
    Ok(EntryInfo {
        mesh: mesh.clone(),
        path,
        name: entry.name.display().to_string(),
        kind: entry.kind.into(),
        size: entry.file.map(|file| file.content.size),
        mtime_ms: entry.file.map(|file| file.mtime.0 / 1_000_000),
        executable: entry.is_executable(),
        mode: format!("{:03o}", entry.mode.bits()),
        target: entry
            .target
            .as_ref()
            .map(|target| target.as_str().to_owned()),
        conflict: entry.conflict,
        modified_by: names.of_writer(entry),
        content: entry.file.map(|file| file.content.id.to_string()),
    })
}
