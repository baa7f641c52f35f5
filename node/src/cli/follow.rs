//! Waiting, and showing how far things are while they move.
//!
//! On a terminal as bars, elsewhere as a plain line now and then; with `--json` not at all.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use wormhole_node::api::{MeshQuery, MeshRef, MeshStatus, StatusReply, WaitReply, WaitRequest};
use wormhole_node::client::Client;

use super::args::Wait;
use super::figure::{bytes, duration, many, speed};
use super::output::{Output, note, printable};
use super::{CliError, Desk, Outcome};

/// A line that says what is being done; silent unless somebody looks at a terminal.
#[derive(Debug)]
pub(super) struct Spinner {
    bar: ProgressBar,
}

impl Spinner {
    pub(super) fn new(output: Output) -> Self {
        if !output.is_lively() {
            return Self {
                bar: ProgressBar::hidden(),
            };
        }
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    pub(super) fn show(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// Says something that is to stand, above the line if there is one.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// `wait`: exit code 0 when everything is here, 3 with the reasons when it is not in time.
pub(super) async fn wait(desk: &Desk, wait: Wait) -> Result<Outcome, CliError> {
    let client = desk.client().await?;
    let request = WaitRequest {
        mesh: wait.mesh.clone(),
        timeout_seconds: wait.timeout,
        members: wait.members,
        until_stuck: false,
    };
    let reply = watch(desk.output, &client, wait.mesh, &request).await?;
    desk.output.answer(&reply, wait_text)?;
    Ok(if reply.done {
        Outcome::Done
    } else {
        Outcome::NotInSync
    })
}

/// Follows a mesh that was just joined until its content is here, or what is left cannot come: exit code 3 then, with the
/// reasons.
pub(super) async fn first_sync(
    desk: &Desk,
    client: &Client,
    mesh: &MeshRef,
) -> Result<Outcome, CliError> {
    let begin = Instant::now();
    let request = WaitRequest {
        mesh: Some(mesh.id.clone()),
        timeout_seconds: None,
        members: 1,
        until_stuck: true,
    };
    let reply = watch(desk.output, client, Some(mesh.id.clone()), &request).await?;
    if !reply.done {
        desk.output.answer(&reply, wait_text)?;
        return Ok(Outcome::NotInSync);
    }
    let query = MeshQuery {
        mesh: Some(mesh.id.clone()),
    };
    let status: StatusReply = client.get("/v1/status", &query).await?;
    let (files, size) = status
        .meshes
        .first()
        .map_or((0, 0), |mesh| (mesh.files, mesh.bytes));
    let span = duration(begin.elapsed());
    desk.output.say(&format!(
        "All here: {}, {} in {span}",
        many(files, "file"),
        bytes(size)
    ))?;
    Ok(Outcome::Done)
}

/// How often the bar moves.
const FRAME: Duration = Duration::from_millis(250);

/// Asks the node to wait, and meanwhile shows how far it is.
///
/// # Errors
///
/// When the node refuses or stops.
pub(crate) async fn watch(
    output: Output,
    client: &Client,
    mesh: Option<String>,
    request: &WaitRequest,
) -> Result<WaitReply, CliError> {
    let mut view = View::new(output);
    let answer = client.post::<_, WaitReply>("/v1/wait", request);
    tokio::pin!(answer);
    let query = MeshQuery { mesh };
    let reply = loop {
        tokio::select! {
            biased;
            reply = &mut answer => break reply,
            () = tokio::time::sleep(FRAME) => {}
        }
        // The answer to the wait is what counts; a status that fails is only a bar that stands.
        if let Ok(status) = client.get::<_, StatusReply>("/v1/status", &query).await {
            view.show(&Sum::of(&status.meshes));
        }
    };
    view.clear();
    Ok(reply?)
}

/// How far some meshes are together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    files_done: u64,
    files_total: u64,
    bytes_done: u64,
    bytes_total: u64,
    connected: u32,
}

impl Sum {
    fn of(meshes: &[MeshStatus]) -> Self {
        let mut sum = Self::default();
        for mesh in meshes {
            sum.connected += mesh.connected;
            for binding in &mesh.bindings {
                sum.files_done += binding.files_done;
                sum.files_total += binding.files_total;
                sum.bytes_done += binding.bytes_done;
                sum.bytes_total += binding.bytes_total;
            }
        }
        sum
    }

    fn text(self) -> String {
        format!(
            "{} of {}, {} of {}",
            super::count(self.files_done),
            many(self.files_total, "file"),
            bytes(self.bytes_done),
            bytes(self.bytes_total)
        )
    }

    /// What stands beside the bar, the most telling first: a narrow terminal cuts the rest off.
    fn beside(self, per_second: u64) -> String {
        let mut text = format!("{}/{}", bytes(self.bytes_done), bytes(self.bytes_total));
        let left = self.bytes_total.saturating_sub(self.bytes_done);
        if let Some(left) = left.checked_div(per_second) {
            let left = duration(Duration::from_secs(left));
            text.push_str(&format!(", {}, {left} left", speed(per_second)));
        }
        let files = many(self.files_total, "file");
        let done = super::count(self.files_done);
        let others = many(u64::from(self.connected), "device");
        text.push_str(&format!(", {done} of {files}, {others} connected"));
        text
    }

    /// What was here stays here: a content that was on its way goes on where it stopped, though nobody counts it
    /// while its sender is away.
    fn after(self, before: &Self) -> Self {
        let same = self.bytes_total == before.bytes_total && self.files_total == before.files_total;
        if !same {
            return self;
        }
        Self {
            bytes_done: self.bytes_done.max(before.bytes_done),
            ..self
        }
    }
}

/// A bar, or a plain line every ten seconds.
struct View {
    bar: Option<ProgressBar>,
    is_silent: bool,
    last: Instant,
    shown: Sum,
}

const PLAIN_EVERY: Duration = Duration::from_secs(10);

impl View {
    fn new(output: Output) -> Self {
        let bar = output.is_lively().then(|| {
            let bar = ProgressBar::new(0);
            // The template is a constant; a test builds it.
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style.progress_chars("━━╌"));
            }
            bar
        });
        Self {
            bar,
            is_silent: !output.is_for_people(),
            last: Instant::now(),
            shown: Sum::default(),
        }
    }

    fn show(&mut self, sum: &Sum) {
        self.shown = sum.after(&self.shown);
        let sum = &self.shown;
        if let Some(bar) = &self.bar {
            bar.set_length(sum.bytes_total.max(1));
            bar.set_position(sum.bytes_done);
            bar.set_message(sum.beside(bar.per_sec() as u64));
        } else if !self.is_silent && self.last.elapsed() >= PLAIN_EVERY {
            self.last = Instant::now();
            note(&sum.text());
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The message is cut at the end of the line.
const TEMPLATE: &str = "{bar:12} {wide_msg}";

fn wait_text(reply: &WaitReply) -> String {
    if reply.done {
        return "Everything known is applied and here".to_owned();
    }
    let mut text = "Not in sync yet:\n".to_owned();
    for waiting in &reply.waiting_for {
        let mesh = printable(&waiting.mesh.name);
        let path = waiting
            .path
            .as_deref()
            .map_or(String::new(), |path| format!(":{}", printable(path)));
        let action = if waiting.action.is_empty() {
            String::new()
        } else {
            format!(" ({})", waiting.action)
        };
        text.push_str(&format!("  {mesh}{path}: {}{action}\n", waiting.reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_does_not_become_less_when_the_sender_goes() {
        let sum = |bytes_done, bytes_total| Sum {
            bytes_done,
            bytes_total,
            files_total: 1,
            ..Sum::default()
        };
        let text = sum(200, 300).after(&Sum::default()).beside(0);
        assert_eq!(text, "200 B/300 B, 0 of 1 file, 0 devices connected");
        assert_eq!(sum(0, 300).after(&sum(200, 300)).bytes_done, 200);
        assert_eq!(
            sum(0, 400).after(&sum(200, 300)).bytes_done,
            0,
            "that is another sum"
        );
        let moving = sum(100, 300).beside(100);
        assert!(
            moving.starts_with("100 B/300 B, 100 B/s, 2.0 s left, "),
            "{moving}"
        );
    }

    #[test]
    fn the_bar_can_be_drawn() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }

    #[test]
    fn a_wait_that_gave_up_says_for_what() {
        let mesh = MeshRef {
            id: "00".to_owned(),
            name: "Designs".to_owned(),
        };
        let waiting = wormhole_node::api::Waiting {
            mesh,
            path: Some("a/b.txt".to_owned()),
            reason: "no connected member has it".to_owned(),
            action: "connect the device that wrote it".to_owned(),
        };
        let text = wait_text(&WaitReply {
            done: false,
            waiting_for: vec![waiting],
        });
        assert!(
            text.contains("Designs:a/b.txt: no connected member has it (connect"),
            "{text}"
        );
    }
}
