//! `ls`, `cat`, `conflicts`, `resolve`: looking into the tree of a mesh without a folder.

use std::io::{self, Write};
use std::path::Path;

use wormhole_node::api::{
    EntriesReply, EntryInfo, Kept, KindName, MeshQuery, ResolveReply, ResolveRequest, TreeQuery,
};

use super::args::{KeptWord, Place};
use super::figure::{bytes, date};
use super::output::printable;
use super::table::table;
use super::{CliError, Desk, told};

pub(super) async fn list(desk: &Desk, place: Place) -> Result<(), CliError> {
    let query = TreeQuery {
        mesh: place.mesh,
        path: place.path,
    };
    let reply: EntriesReply = desk.client().await?.get("/v1/ls", &query).await?;
    desk.output.answer(&reply, |reply| {
        let rows: Vec<_> = reply.entries.iter().map(row).collect();
        table(["SIZE", "CHANGED (UTC)", "BY", "NAME"], &rows)
    })
}

fn row(entry: &EntryInfo) -> [String; 4] {
    let name = match (entry.kind, &entry.target) {
        (KindName::Directory, _) => format!("{}/", entry.name),
        (KindName::Symlink, Some(target)) => format!("{} -> {target}", entry.name),
        (KindName::File, _) if entry.executable => format!("{}*", entry.name),
        (KindName::File | KindName::Symlink, _) => entry.name.clone(),
    };
    [
        entry.size.map(bytes).unwrap_or_default(),
        entry.mtime_ms.map(date).unwrap_or_default(),
        entry.modified_by.clone().unwrap_or_default(),
        name,
    ]
}

/// The file's bytes as they are, piece by piece.
pub(super) async fn cat(desk: &Desk, place: Place) -> Result<(), CliError> {
    let query = TreeQuery {
        mesh: place.mesh,
        path: place.path,
    };
    let mut answer = desk.client().await?.bytes("/v1/cat", &query).await?;
    while let Some(piece) = answer.piece().await? {
        io::stdout().lock().write_all(&piece)?;
    }
    io::stdout().lock().flush()?;
    Ok(())
}

pub(super) async fn conflicts(desk: &Desk, mesh: Option<String>) -> Result<(), CliError> {
    let reply: EntriesReply = desk
        .client()
        .await?
        .get("/v1/conflicts", &MeshQuery { mesh })
        .await?;
    desk.output.answer(&reply, |reply| {
        if reply.entries.is_empty() {
            return "No conflicts".to_owned();
        }
        let mut text = String::new();
        for entry in &reply.entries {
            let by = entry
                .modified_by
                .as_deref()
                .map(|by| format!(" (by {})", printable(by)));
            let (mesh, path) = (printable(&entry.mesh.name), printable(&entry.path));
            text.push_str(&format!("{mesh}:{path}{}\n", by.unwrap_or_default()));
        }
        text.push_str("End one on every device: wormhole resolve PATH --keep this|other|both\n");
        text
    })
}

/// A path that is here is meant before one in a mesh.
pub(super) async fn resolve(desk: &Desk, path: &Path, keep: KeptWord) -> Result<(), CliError> {
    let place: Option<Place> = path.to_str().and_then(|text| text.parse().ok());
    let place = place.filter(|place| !place.path.is_empty() && path.symlink_metadata().is_err());
    let (mesh, path) = match place {
        Some(Place { mesh, path }) => (Some(mesh), path),
        None => (None, told(path)?.to_string_lossy().into_owned()),
    };
    let keep = match keep {
        KeptWord::This => Kept::This,
        KeptWord::Other => Kept::Other,
        KeptWord::Both => Kept::Both,
    };
    let request = ResolveRequest { mesh, path, keep };
    let reply: ResolveReply = desk.client().await?.post("/v1/resolve", &request).await?;
    desk.output.answer(&reply, |reply| {
        let (mesh, path) = (printable(&reply.mesh.name), printable(&reply.path));
        format!("The conflict of {mesh}:{path} is over, on every device that hears of it\n")
    })
}
