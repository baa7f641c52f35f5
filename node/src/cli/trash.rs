//! `trash` and `restore`: what others removed or replaced, and how it comes back.

use std::path::Path;

use wormhole_node::api::{RestoreReply, RestoreRequest, TrashInfo, TrashQuery, TrashReply};

use super::figure::{bytes, count, date, many};
use super::output::printable;
use super::table::table;
use super::{CliError, Desk, told};

pub(super) async fn list(desk: &Desk, dir: Option<&Path>) -> Result<(), CliError> {
    let dir = dir.map(told).transpose()?;
    let query = TrashQuery { dir };
    let reply: TrashReply = desk.client().await?.get("/v1/trash", &query).await?;
    desk.output.answer(&reply, |reply| {
        let kept: Vec<&TrashInfo> = reply
            .folders
            .iter()
            .filter(|folder| folder.files > 0)
            .collect();
        if kept.is_empty() {
            return "Nothing is in the trash: no file of yours was removed or replaced from elsewhere lately"
                .to_owned();
        }
        let texts: Vec<String> = kept.into_iter().map(folder_text).collect();
        texts.join("\n")
    })
}

fn folder_text(folder: &TrashInfo) -> String {
    let mut text = format!(
        "{}: {}, {}\n",
        printable(&folder.dir.to_string_lossy()),
        many(folder.files, "file"),
        bytes(folder.bytes)
    );
    let rows: Vec<_> = folder
        .entries
        .iter()
        .map(|entry| {
            [
                date(entry.removed_ms),
                bytes(entry.bytes),
                entry.version.to_string(),
                entry.path.clone(),
            ]
        })
        .collect();
    text.push_str(&table(["REMOVED (UTC)", "SIZE", "VERSION", "PATH"], &rows));
    let more = folder.files.saturating_sub(folder.entries.len() as u64);
    if more > 0 {
        text.push_str(&format!("and {} more, in .wormhole/trash\n", count(more)));
    }
    text
}

pub(super) async fn restore(desk: &Desk, path: &Path, version: u64) -> Result<(), CliError> {
    let request = RestoreRequest {
        path: told(path)?,
        version,
    };
    let reply: RestoreReply = desk.client().await?.post("/v1/restore", &request).await?;
    desk.output.answer(&reply, |reply| {
        let mut text = match reply.restored.as_slice() {
            [one] => format!("{} is back\n", printable(one)),
            several => format!("{} are back\n", many(several.len() as u64, "file")),
        };
        if !reply.left.is_empty() {
            text.push_str(&format!(
                "{} stayed in the trash, because something new stands there\n",
                many(reply.left.len() as u64, "file")
            ));
        }
        text
    })
}
