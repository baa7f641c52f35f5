//! Commands that change something and have little to say: `sync`, `unbind`, `move`, `leave`, `rescan`,
//! `confirm-deletions`, `pause`, `resume`, `limit`, `check`, `dial`.

use std::path::Path;

use wormhole_node::api::{
    CheckInfo, CheckReply, CheckRequest, ConfirmReply, ConfirmRequest, DialReply, DialRequest,
    Empty, FolderRequest, LeaveReply, LeaveRequest, LimitReply, LimitRequest, MoveReply,
    MoveRequest, PauseReply, PauseRequest, Rate, SyncReply, SyncRequest, UnbindReply,
    UnbindRequest,
};

use super::args::{Leave, Limit, Place};
use super::figure::{bytes, count, many};
use super::output::printable;
use super::share::problem_lines;
use super::status::rate;
use super::{CliError, Desk, Outcome, told};

pub(super) async fn sync(desk: &Desk, place: Place, dir: &Path) -> Result<(), CliError> {
    let request = SyncRequest {
        mesh: place.mesh,
        path: place.path,
        dir: told(dir)?,
    };
    let reply: SyncReply = desk.client().await?.post("/v1/sync", &request).await?;
    desk.output.answer(&reply, |reply| {
        let mesh = printable(&reply.mesh.name);
        let path = match reply.path.as_str() {
            "" => String::new(),
            path => format!(":{}", printable(path)),
        };
        format!(
            "Syncing {mesh}{path} into {}",
            printable(&reply.dir.to_string_lossy())
        )
    })
}

pub(super) async fn unbind(desk: &Desk, dir: &Path) -> Result<(), CliError> {
    let request = UnbindRequest { dir: told(dir)? };
    let reply: UnbindReply = desk.client().await?.post("/v1/unbind", &request).await?;
    desk.output.answer(&reply, |reply| {
        let (dir, mesh) = (
            printable(&reply.dir.to_string_lossy()),
            printable(&reply.mesh.name),
        );
        format!("{dir} is no longer synced; its files stay, and this device stays in \"{mesh}\"")
    })
}

pub(super) async fn move_folder(desk: &Desk, dir: &Path, to: &Path) -> Result<(), CliError> {
    let request = MoveRequest {
        dir: told(dir)?,
        to: told(to)?,
    };
    let reply: MoveReply = desk.client().await?.post("/v1/move", &request).await?;
    desk.output.answer(&reply, |reply| {
        let (from, dir) = (reply.from.to_string_lossy(), reply.dir.to_string_lossy());
        let mesh = printable(&reply.mesh.name);
        format!(
            "{} is {} now, and goes on to sync \"{mesh}\"",
            printable(&from),
            printable(&dir)
        )
    })
}

pub(super) async fn leave(desk: &Desk, leave: Leave) -> Result<(), CliError> {
    let request = LeaveRequest {
        mesh: leave.mesh,
        confirmed: leave.yes,
    };
    let reply: LeaveReply = desk.client().await?.post("/v1/leave", &request).await?;
    desk.output.answer(&reply, |reply| {
        let mut text = format!(
            "This device is no longer in \"{}\"",
            printable(&reply.mesh.name)
        );
        if !reply.told {
            text.push_str("\nNobody could be told: the others go on listing it, as not connected");
        }
        for dir in &reply.dirs {
            text.push_str(&format!(
                "\nThe files in {} stay",
                printable(&dir.to_string_lossy())
            ));
        }
        text
    })
}

pub(super) async fn rescan(desk: &Desk, dir: &Path) -> Result<(), CliError> {
    let request = FolderRequest { dir: told(dir)? };
    let reply: Empty = desk.client().await?.post("/v1/rescan", &request).await?;
    desk.output
        .answer(&reply, |_| "Looked through the folder".to_owned())
}

pub(super) async fn confirm_deletions(desk: &Desk, dir: &Path, undo: bool) -> Result<(), CliError> {
    let request = ConfirmRequest {
        dir: told(dir)?,
        undo,
    };
    let reply: ConfirmReply = desk
        .client()
        .await?
        .post("/v1/confirm-deletions", &request)
        .await?;
    desk.output.answer(&reply, confirm_text)
}

/// Paths that are listed to people.
const SHOWN_PATHS: usize = 20;

fn confirm_text(reply: &ConfirmReply) -> String {
    let mut text = match (reply.entries, reply.undone) {
        (0, _) => return "No deletions wait in this folder".to_owned(),
        (1, false) => "The deletion is synced now:".to_owned(),
        (entries, false) => format!(
            "The deletions of {} entries are synced now:",
            count(entries)
        ),
        (1, true) => "The entry comes back:".to_owned(),
        (entries, true) => format!("{} entries come back:", count(entries)),
    };
    for path in reply.paths.iter().take(SHOWN_PATHS) {
        text.push_str(&format!("\n  {}", printable(path)));
    }
    if reply.paths.len() > SHOWN_PATHS {
        text.push_str("\n  …");
    }
    text
}

pub(super) async fn pause(desk: &Desk, mesh: Option<String>) -> Result<(), CliError> {
    set_paused(desk, "/v1/pause", mesh).await
}

pub(super) async fn resume(desk: &Desk, mesh: Option<String>) -> Result<(), CliError> {
    set_paused(desk, "/v1/resume", mesh).await
}

async fn set_paused(desk: &Desk, route: &str, mesh: Option<String>) -> Result<(), CliError> {
    let request = PauseRequest { mesh };
    let reply: PauseReply = desk.client().await?.post(route, &request).await?;
    desk.output.answer(&reply, |reply| {
        let mut text = String::new();
        for state in &reply.meshes {
            let word = if state.paused { "is paused" } else { "goes on" };
            text.push_str(&format!("{} {word}\n", printable(&state.mesh.name)));
        }
        text
    })
}

pub(super) async fn limit(desk: &Desk, limit: &Limit) -> Result<(), CliError> {
    let client = desk.client().await?;
    let reset = limit.reset.then_some(Rate::Unlimited);
    let request = LimitRequest {
        mesh: limit.mesh.clone(),
        up: limit.up.or(reset),
        down: limit.down.or(reset),
    };
    let reply: LimitReply = match (&limit.mesh, reset) {
        (None, Some(_)) => client.delete("/v1/limit").await?,
        // Also with nothing to change: a mesh that is not there is told then.
        (Some(_), _) => client.post("/v1/limit", &request).await?,
        (None, None) if request == LimitRequest::default() => client.get("/v1/limit", &()).await?,
        (None, None) => client.post("/v1/limit", &request).await?,
    };
    desk.output.answer(&reply, |reply| {
        let mut text = format!(
            "Sending: {}\nReceiving: {}\n",
            rate(reply.up),
            rate(reply.down)
        );
        for own in &reply.meshes {
            text.push_str(&format!(
                "{}: sending {}, receiving {}\n",
                printable(&own.mesh.name),
                rate(own.up),
                rate(own.down)
            ));
        }
        text
    })
}

pub(super) async fn check(desk: &Desk, mesh: Option<String>) -> Result<Outcome, CliError> {
    let request = CheckRequest { mesh };
    let reply: CheckReply = desk.client().await?.post("/v1/check", &request).await?;
    desk.output.answer(&reply, |reply| {
        reply.meshes.iter().map(check_text).collect::<String>()
    })?;
    let is_good = |mesh: &CheckInfo| mesh.problems.is_empty() && mesh.unreadable == 0;
    let is_good = reply.meshes.iter().all(is_good);
    Ok(match is_good {
        true => Outcome::Done,
        false => Outcome::Damaged,
    })
}

fn check_text(check: &CheckInfo) -> String {
    let name = printable(&check.mesh.name);
    let mut text = format!("{name}: {} read", bytes(check.bytes));
    let is_good = check.problems.is_empty();
    text.push_str(&match (check.damaged, is_good) {
        (0, true) if check.unreadable > 0 => {
            ", what could be read is as it was stored\n".to_owned()
        }
        (0, true) => ", all of it is as it was stored\n".to_owned(),
        (0, false) => "\n".to_owned(),
        (damaged, true) => format!(", {}, all healed\n", many(damaged, "damaged piece")),
        (damaged, false) => format!(", {}, not all healed:\n", many(damaged, "damaged piece")),
    });
    if check.unreadable > 0 {
        let pieces = many(check.unreadable, "piece");
        text.push_str(&format!(
            "  {pieces} could not be read now: is a disk not mounted, or failing?\n"
        ));
    }
    text.push_str(&problem_lines(&check.problems));
    text
}

pub(super) async fn dial(desk: &Desk, peer: String) -> Result<(), CliError> {
    let request = DialRequest { peer };
    let reply: DialReply = desk.client().await?.post("/v1/dial", &request).await?;
    desk.output
        .answer(&reply, |reply| format!("Connected with {}", reply.device))
}
