//! The story: meet, share, join, work at once, disagree, lose one another, die, compare.
//!
//! Here stand the cast and what every scene needs; the scenes are in `scene`.

mod scene;

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;

use super::actor::Actor;
use super::ledger::Ledger;
use super::tree::Tree;
use super::{DemoError, file_error, sample};
use crate::cli::Output;

/// Nothing in the story takes longer than this on any machine that can run it at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// How often the folders are looked at.
const GLANCE: Duration = Duration::from_millis(10);

/// The three nodes and what they have been through.
#[derive(Debug)]
pub(super) struct Story {
    cast: [Actor; 3],
    ledger: Ledger,
    rng: SmallRng,
    output: Output,
    begun: Instant,
}

/// The parts; their numbers are their places in the cast.
#[derive(Debug, Clone, Copy)]
enum Who {
    Laptop,
    Desktop,
    Tablet,
}

impl Story {
    /// Nobody has started yet.
    pub(super) fn new(stage: &Path, output: Output) -> Result<Self, DemoError> {
        let actor = |name| Actor::new(name, stage);
        Ok(Self {
            cast: [actor("laptop")?, actor("desktop")?, actor("tablet")?],
            ledger: Ledger::default(),
            rng: sample::chance(),
            output,
            begun: Instant::now(),
        })
    }

    /// All scenes, in order.
    pub(super) async fn play(&mut self, from: Option<&Path>) -> Result<(), DemoError> {
        self.meet().await?;
        let invite = self.share(from).await?;
        self.join(&invite).await?;
        self.work_at_once().await?;
        self.disagree().await?;
        self.lose_one().await?;
        self.kill_one().await?;
        self.compare().await
    }

    /// Ends whoever still runs.
    pub(super) async fn end(mut self) {
        for actor in self.actors_mut() {
            actor.kill().await;
        }
    }

    fn actors(&self) -> &[Actor; 3] {
        &self.cast
    }

    fn actors_mut(&mut self) -> &mut [Actor; 3] {
        &mut self.cast
    }

    fn actor(&self, who: Who) -> &Actor {
        let [laptop, desktop, tablet] = &self.cast;
        match who {
            Who::Laptop => laptop,
            Who::Desktop => desktop,
            Who::Tablet => tablet,
        }
    }

    fn actor_mut(&mut self, who: Who) -> &mut Actor {
        let [laptop, desktop, tablet] = &mut self.cast;
        match who {
            Who::Laptop => laptop,
            Who::Desktop => desktop,
            Who::Tablet => tablet,
        }
    }

    /// Saves a file in somebody's folder and notes its content in the ledger.
    fn write(&mut self, who: Who, path: &str, text: &str) -> Result<(), DemoError> {
        let actor = self.actor(who);
        let place = actor.folder.join(path);
        let parent = place.parent().unwrap_or(&actor.folder);
        fs::create_dir_all(parent).map_err(|source| file_error(parent, source))?;
        fs::write(&place, text).map_err(|source| file_error(&place, source))?;
        let what = format!("{path}, written on {}", actor.name);
        self.ledger.saved(&what, text.as_bytes());
        Ok(())
    }

    /// Waits until all three folders are identical; gives what they hold.
    async fn until_equal(&self, what: &str) -> Result<Tree, DemoError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let difference = match self.difference() {
                Ok(Ok(tree)) => return Ok(tree),
                Ok(Err(difference)) => difference,
                // A file that vanished while it was read: they are still at work.
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return Err(DemoError::NotInTime {
                    what: format!("{what} ({difference})"),
                });
            }
            tokio::time::sleep(GLANCE * 10).await;
        }
    }

    /// The one tree that all three have, or the first thing that is not the same.
    fn difference(&self) -> io::Result<Result<Tree, String>> {
        // Names and sizes are cheap to compare; contents only once these are equal.
        match self.compared(Tree::outline)? {
            Ok(_) => self.compared(Tree::read),
            Err(difference) => Ok(Err(difference)),
        }
    }

    fn compared(&self, read: fn(&Path) -> io::Result<Tree>) -> io::Result<Result<Tree, String>> {
        let [first, others @ ..] = &self.cast;
        let tree = read(&first.folder)?;
        for other in others {
            let there = read(&other.folder)?;
            let differences = tree.differences(&there, [first.name, other.name]);
            if let Some(difference) = differences.into_iter().next() {
                return Ok(Err(difference));
            }
        }
        Ok(Ok(tree))
    }

    fn title(&self, text: &str) -> Result<(), DemoError> {
        self.say(&format!("\n{text}"))
    }

    fn tell(&self, text: &str) -> Result<(), DemoError> {
        self.say(&format!("   {text}"))
    }

    fn say(&self, text: &str) -> Result<(), DemoError> {
        self.output.say(text).map_err(|source| DemoError::Output {
            source: Box::new(source),
        })
    }
}

/// Waits until something is so, looking again and again.
async fn until(what: &str, is_so: impl Fn() -> bool) -> Result<(), DemoError> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(DemoError::NotInTime {
                what: what.to_owned(),
            });
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// Names in a folder that begin so, sorted; none when the folder cannot be read.
fn names(folder: &Path, beginning: &str) -> Vec<String> {
    let items = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = items
        .map(|item| item.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(beginning))
        .collect();
    names.sort();
    names
}
