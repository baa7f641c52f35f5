//! `status`, `events`, `meshes`, `members`, `peers`, `transfers`: what there is and how it does.

use std::path::Path;

use wormhole_node::api::{
    AskingInfo, BindingStatus, Empty, ExplainQuery, ExplainReply, Hindered, Keep, MemberInfo,
    MembersReply, MeshQuery, MeshStatus, MeshSummary, MeshesReply, Newcomer, NodeReply, PathName,
    PeerInfo, PeersReply, Phase, Rate, RemovedInfo, RoleName, SeenRequest, StatusReply,
    TransferInfo, TransfersReply, UploadInfo,
};
use wormhole_node::client::segment;

use super::figure::{bytes, count, date, duration, many, speed};
use super::output::printable;
use super::share::problem_lines;
use super::table::table;
use super::{CliError, Desk, told};

pub(super) async fn run(desk: &Desk) -> Result<(), CliError> {
    let client = desk.client().await?;
    let status: StatusReply = client.get("/v1/status", &MeshQuery::default()).await?;
    desk.output.answer(&status, status_text)?;
    if !status.newcomers.is_empty() && desk.output.is_for_people() {
        let seen = SeenRequest {
            newcomers: status.newcomers,
        };
        let _seen: Empty = client.post("/v1/seen", &seen).await?;
    }
    Ok(())
}

/// `status PATH`: why is this file, or is it not, synced?
pub(super) async fn explain(desk: &Desk, path: &Path) -> Result<(), CliError> {
    let query = ExplainQuery { path: told(path)? };
    let reply: ExplainReply = desk.client().await?.get("/v1/explain", &query).await?;
    desk.output.answer(&reply, |reply| {
        let word = if reply.synced { "synced" } else { "not synced" };
        let mesh = printable(&reply.mesh.name);
        let mut text = format!("{} ({mesh}): {word}\n", printable(&reply.path));
        if reply.reason != word {
            text.push_str(&format!("  {}\n", reply.reason));
        }
        if !reply.action.is_empty() {
            text.push_str(&format!("  {}\n", reply.action));
        }
        text
    })
}

/// JSON lines with or without `--json`: it is made for programs.
pub(super) async fn events(desk: &Desk) -> Result<(), CliError> {
    let mut events = desk.client().await?.events().await?;
    let json = super::Output::new(true);
    while let Some(event) = events.next().await? {
        json.answer(&event, |_| String::new())?;
    }
    Ok(())
}

fn status_text(status: &StatusReply) -> String {
    let mut text = node_text(&status.node);
    text.extend(status.asking.iter().map(asking_line));
    text.extend(status.newcomers.iter().map(newcomer_line));
    if status.meshes.is_empty() {
        text.push_str("\nNothing is shared yet: `wormhole share DIR` or `wormhole join`\n");
    }
    for mesh in &status.meshes {
        text.push('\n');
        text.push_str(&mesh_text(mesh));
    }
    text
}

fn asking_line(asking: &AskingInfo) -> String {
    let (name, mesh) = (printable(&asking.name), printable(&asking.mesh.name));
    let role = role(asking.role);
    format!(
        "  ! {name} waits to be let into \"{mesh}\" as {role}: `wormhole admit` or `wormhole refuse`\n"
    )
}

fn newcomer_line(newcomer: &Newcomer) -> String {
    let (name, mesh) = (printable(&newcomer.name), printable(&newcomer.mesh.name));
    let (role, when) = (role(newcomer.role), date(newcomer.at_ms));
    format!("  + {name} joined \"{mesh}\" as {role} ({when} UTC)\n")
}

fn node_text(node: &NodeReply) -> String {
    let name = printable(&node.device_name);
    let mut text = format!("{name}  wormhole {}  process {}\n", node.version, node.pid);
    text.push_str(&format!("  device  {}\n", node.device));
    text.push_str(&format!("  home    {}\n", node.home.display()));
    let addresses = match node.addresses.as_slice() {
        [] => "nowhere that another device can reach".to_owned(),
        addresses => addresses.join(", "),
    };
    text.push_str(&format!("  listens {addresses}\n"));
    if node.limits.up != Rate::Unlimited || node.limits.down != Rate::Unlimited {
        let (up, down) = (rate(node.limits.up), rate(node.limits.down));
        text.push_str(&format!("  limits  up {up}, down {down}\n"));
    }
    if let Some(problem) = &node.problem {
        text.push_str(&format!("  ! {problem}\n"));
    }
    text
}

fn mesh_text(mesh: &MeshStatus) -> String {
    let name = printable(&mesh.mesh.name);
    if mesh.members == 0 {
        // Of a mesh that is not open nothing is known, not even its members.
        let mut text = format!("{name}  closed\n");
        text.extend(
            mesh.problem
                .iter()
                .map(|problem| format!("  ! {problem}\n")),
        );
        text.extend(mesh.bindings.iter().map(binding_text));
        return text;
    }
    let paused = if mesh.paused { ", paused" } else { "" };
    let mut text = format!(
        "{name}  {}, {} ({}){paused}\n",
        many(mesh.files, "file"),
        bytes(mesh.bytes),
        standing(mesh.role, mesh.removed.as_ref())
    );
    let others = mesh.members.saturating_sub(1);
    text.push_str(&format!(
        "  {}: {} connected, {} in sync\n",
        many(u64::from(others), "other device"),
        mesh.connected,
        mesh.in_sync
    ));
    for hindered in &mesh.hindered {
        text.push_str(&format!("  ! {}\n", hindered_text(hindered)));
    }
    if mesh.conflicts > 0 {
        let versions = many(mesh.conflicts, "second version");
        text.push_str(&format!(
            "  {versions} of things changed apart: `wormhole conflicts`\n"
        ));
    }
    if let Some(problem) = &mesh.problem {
        text.push_str(&format!("  ! {problem}\n"));
    }
    if let Some(removed) = &mesh.removed {
        text.push_str(&format!(
            "  ! you were removed from {name} by {} on {} UTC; your files stay\n",
            printable(&removed.by_name),
            date(removed.removed_ms)
        ));
    }
    if mesh.refused > 0 {
        let batches = many(mesh.refused, "refused change");
        text.push_str(&format!("  {batches} by removed devices\n"));
    }
    text.extend(
        mesh.notes
            .iter()
            .map(|note| format!("  {}\n", printable(note))),
    );
    text.push_str(&problem_lines(&mesh.damage));
    for binding in &mesh.bindings {
        text.push_str(&binding_text(binding));
    }
    text
}

fn hindered_text(hindered: &Hindered) -> String {
    let reasons: Vec<&str> = hindered
        .hindrances
        .iter()
        .map(|hindrance| hindrance.reason.as_str())
        .collect();
    let name = printable(&hindered.name);
    format!("{name} cannot apply everything: {}", reasons.join("; "))
}

fn binding_text(binding: &BindingStatus) -> String {
    let place = match (&binding.dir, binding.keep) {
        (Some(dir), _) => printable(&dir.to_string_lossy()),
        (None, Keep::Seed | Keep::Folder) => "seed".to_owned(),
    };
    let below = match binding.path.as_str() {
        "" => String::new(),
        path => format!(" (only {})", printable(path)),
    };
    let done = if binding.bytes_done < binding.bytes_total {
        format!(
            ", {} of {} here",
            bytes(binding.bytes_done),
            bytes(binding.bytes_total)
        )
    } else if binding.files_done < binding.files_total {
        let (done, total) = (count(binding.files_done), count(binding.files_total));
        format!(", {done} of {total} files here")
    } else {
        String::new()
    };
    let mut text = format!("  {place}{below}: {}{done}\n", phase(binding.phase));
    if let Some(reason) = &binding.reason {
        text.push_str(&format!("    {reason}\n"));
    }
    if binding.trash_files > 0 {
        let (files, size) = (
            many(binding.trash_files, "file"),
            bytes(binding.trash_bytes),
        );
        text.push_str(&format!(
            "    {files} ({size}) in the trash: `wormhole trash`\n"
        ));
    }
    text.push_str(&problem_lines(&binding.problems));
    text
}

pub(super) async fn meshes(desk: &Desk) -> Result<(), CliError> {
    let reply: MeshesReply = desk.client().await?.get("/v1/meshes", &()).await?;
    desk.output.answer(&reply, |reply| {
        if reply.meshes.is_empty() {
            return "This device is in no mesh: `wormhole share DIR` or `wormhole join`".to_owned();
        }
        let rows: Vec<_> = reply.meshes.iter().map(mesh_row).collect();
        table(["MESH", "ROLE", "DEVICES", "FILES", "SIZE", "WHERE"], &rows)
    })
}

fn mesh_row(mesh: &MeshSummary) -> [String; 6] {
    let mut places: Vec<String> = mesh
        .dirs
        .iter()
        .map(|dir| dir.to_string_lossy().into_owned())
        .collect();
    if mesh.seed {
        places.push("seed".to_owned());
    }
    if mesh.paused {
        places.push("(paused)".to_owned());
    }
    [
        mesh.mesh.name.clone(),
        standing(mesh.role, mesh.removed.as_ref()).to_owned(),
        format!("{}/{}", mesh.connected + 1, mesh.members),
        count(mesh.files),
        bytes(mesh.bytes),
        places.join(" "),
    ]
}

pub(super) async fn members(desk: &Desk, mesh: &str) -> Result<(), CliError> {
    let route = format!("/v1/meshes/{}/members", segment(mesh));
    let reply: MembersReply = desk.client().await?.get(&route, &()).await?;
    desk.output.answer(&reply, |reply| {
        let rows: Vec<_> = reply.members.iter().map(member_row).collect();
        let mut text = table(
            ["DEVICE", "ROLE", "STATE", "SINCE (UTC)", "ID", "WORDS"],
            &rows,
        );
        for member in &reply.stranded {
            let name = printable(&member.name);
            text.push_str(&format!(
                "\n{name} was admitted by a device that had been removed; to let it in again: \
                 `wormhole role {} {}`",
                short(&member.device),
                role(member.role)
            ));
        }
        text
    })
}

fn member_row(member: &MemberInfo) -> [String; 6] {
    let hindered = !member.hindrances.is_empty();
    let state = match (member.this_device, member.connected, member.in_sync) {
        (false, true, _) if hindered => "cannot apply all",
        (true, _, _) => "this device",
        (false, false, _) => "not connected",
        (false, true, Some(true)) => "in sync",
        (false, true, Some(false) | None) => "syncing",
    };
    [
        member.name.clone(),
        role(member.role).to_owned(),
        state.to_owned(),
        date(member.admitted_ms),
        short(&member.device),
        member.words.clone(),
    ]
}

pub(super) async fn peers(desk: &Desk) -> Result<(), CliError> {
    let reply: PeersReply = desk.client().await?.get("/v1/peers", &()).await?;
    desk.output.answer(&reply, |reply| {
        if reply.peers.is_empty() {
            return "No other device is known yet".to_owned();
        }
        let rows: Vec<_> = reply.peers.iter().map(peer_row).collect();
        let mut text = table(
            [
                "DEVICE",
                "HOW",
                "ADDRESS",
                "ROUND TRIP",
                "UP",
                "DOWN",
                "MESHES",
            ],
            &rows,
        );
        for hindered in reply.peers.iter().flat_map(|peer| &peer.hindered) {
            let mesh = printable(&hindered.mesh.name);
            text.push_str(&format!("\n{mesh}: {}", hindered_text(hindered)));
        }
        text
    })
}

fn peer_row(peer: &PeerInfo) -> [String; 7] {
    let error = peer.last_error.as_deref().map(with_short_ids);
    let how = match (peer.path.map(path_name), error) {
        (Some(path), None) => path.to_owned(),
        // Connected, and not able to go on: another version of the program, for one.
        (Some(path), Some(error)) => format!("{path}: {error}"),
        (None, Some(error)) => error,
        (None, None) => "not connected".to_owned(),
    };
    let meshes: Vec<&str> = peer.meshes.iter().map(|mesh| mesh.name.as_str()).collect();
    let name = if peer.name.is_empty() {
        short(&peer.device)
    } else {
        peer.name.clone()
    };
    [
        name,
        how,
        peer.address.clone().unwrap_or_default(),
        peer.rtt_ms
            .map(|ms| format!("{ms:.1} ms"))
            .unwrap_or_default(),
        speed(peer.up_bytes_per_s),
        speed(peer.down_bytes_per_s),
        meshes.join(", "),
    ]
}

pub(super) async fn transfers(desk: &Desk) -> Result<(), CliError> {
    let reply: TransfersReply = desk.client().await?.get("/v1/transfers", &()).await?;
    desk.output.answer(&reply, |reply| {
        if reply.transfers.is_empty() && reply.uploads.is_empty() {
            return "Nothing is being sent or received".to_owned();
        }
        let received = reply.transfers.iter().map(transfer_row);
        let rows: Vec<_> = received
            .chain(reply.uploads.iter().map(upload_row))
            .collect();
        table(["", "FILE", "DONE", "SPEED", "LEFT", "DEVICES"], &rows)
    })
}

fn transfer_row(transfer: &TransferInfo) -> [String; 6] {
    let left = transfer.total_bytes.saturating_sub(transfer.done_bytes);
    let eta = left
        .checked_div(transfer.bytes_per_s)
        .map(std::time::Duration::from_secs);
    [
        "↓".to_owned(),
        format!("{}:{}", transfer.mesh.name, transfer.path),
        format!(
            "{} of {}",
            bytes(transfer.done_bytes),
            bytes(transfer.total_bytes)
        ),
        speed(transfer.bytes_per_s),
        eta.map(duration).unwrap_or_default(),
        transfer.peers.to_string(),
    ]
}

fn upload_row(upload: &UploadInfo) -> [String; 6] {
    let name = if upload.name.is_empty() {
        short(&upload.device)
    } else {
        upload.name.clone()
    };
    [
        "↑".to_owned(),
        format!("{} to {name}", upload.mesh.name),
        bytes(upload.sent_bytes),
        speed(upload.bytes_per_s),
        String::new(),
        "1".to_owned(),
    ]
}

fn short(device: &str) -> String {
    device.chars().take(16).collect()
}

/// Digits of an id that people need to tell devices apart in a sentence.
const SHORT_ID: usize = 8;

/// `text` with the ids of devices cut short; `--json` has them whole.
fn with_short_ids(text: &str) -> String {
    let (mut short, mut digits) = (String::with_capacity(text.len()), 0);
    for letter in text.chars() {
        digits = if letter.is_ascii_hexdigit() {
            digits + 1
        } else {
            0
        };
        short.push(letter);
        if digits == ID_DIGITS {
            short.truncate(short.len() - (ID_DIGITS - SHORT_ID));
            short.push('…');
        }
    }
    short
}

/// Hex digits of a device's id.
const ID_DIGITS: usize = 64;

pub(super) fn rate(rate: Rate) -> String {
    match rate {
        Rate::Unlimited => "unlimited".to_owned(),
        Rate::BytesPerSecond(number) => speed(number),
    }
}

pub(super) fn role(role: RoleName) -> &'static str {
    match role {
        RoleName::Admin => "admin",
        RoleName::Writer => "writer",
        RoleName::Reader => "reader",
        RoleName::Seed => "seed",
    }
}

/// What this device is in a mesh. One that was removed has no role, though it reads on what it has.
fn standing(role: RoleName, removed: Option<&RemovedInfo>) -> &'static str {
    match removed {
        Some(_) => "removed",
        None => self::role(role),
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Scanning => "looking through the folder",
        Phase::Syncing => "syncing",
        Phase::UpToDate => "up to date",
        Phase::Paused => "paused",
        Phase::Stopped => "stopped",
    }
}

pub(super) fn path_name(path: PathName) -> &'static str {
    match path {
        PathName::Local => "this machine",
        PathName::Lan => "LAN, direct",
        PathName::Direct => "direct",
        PathName::Relayed => "through a relay",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_of_another_version_is_told_though_it_is_connected() {
        let peer = PeerInfo {
            device: "ab".repeat(32),
            name: "desktop".to_owned(),
            connected: true,
            path: Some(PathName::Lan),
            address: None,
            meshes: Vec::new(),
            rtt_ms: None,
            up_bytes_per_s: 0,
            down_bytes_per_s: 0,
            version: None,
            hindered: Vec::new(),
            last_error: Some("the other device is older: update it".to_owned()),
        };
        let [_, how, ..] = peer_row(&peer);
        assert_eq!(how, "LAN, direct: the other device is older: update it");
    }

    #[test]
    fn ids_in_a_sentence_are_cut_short() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(
            with_short_ids(&format!("another device ({id}) answers at [fe80::1]:4711")),
            "another device (01234567…) answers at [fe80::1]:4711"
        );
        assert_eq!(with_short_ids("deadbeef faded"), "deadbeef faded");
    }
}
