//! `ls`, `cat`, `conflicts`: looking into the tree of a mesh without a folder.

use std::io::{self, Write};

use wormhole_node::api::{EntriesReply, EntryInfo, KindName, MeshQuery, TreeQuery};

use super::args::Place;
use super::figure::{bytes, date};
use super::output::printable;
use super::table::table;
use super::{CliError, Desk};

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
        text.push_str("Keep what you want under the plain name and delete the rest.\n");
        text
    })
}
