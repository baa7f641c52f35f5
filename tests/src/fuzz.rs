//! The live fuzzer: three real nodes, random programs on their folders, random faults, and a ledger
//! of every content that a program ever closed.
//!
//! A run is a seed: the same seed does the same things in the same order, but nodes are real, so what
//! meets what is up to the machine; a finding tells its seed and the story of the contents it is about.
//! At its end everything runs again and every device must show the same tree, in which every content is
//! that nobody replaced or deleted who saw it. `program` is what users' programs do, `fault` what
//! happens to nodes and folders, `ledger` the oracle, `judge` the end.

mod act;
mod device;
mod fault;
mod judge;
mod ledger;
mod program;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::Lab;
pub use act::Act;
use device::Device;
use ledger::Ledger;

/// Names of the three devices.
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// What a run does.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where chance begins.
    pub seed: u64,
    /// How many acts there are before the end.
    pub acts: u32,
    /// Which kinds of acts there are.
    pub kinds: Vec<Act>,
    /// Where the story, the homes and the folders of a run with findings are copied to.
    pub keep: Option<PathBuf>,
}

/// The nodes, what was done to them, and what must be there at the end.
#[derive(Debug)]
struct World {
    rng: ChaCha8Rng,
    devices: Vec<Device>,
    ledger: Ledger,
}

/// Runs one seed.
///
/// # Errors
/// With everything that was found, and the story of it; or when the lab itself fails.
pub fn run(options: &Options) -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut world = World::begin(&lab, options.seed)?;
    let weights: u32 = options.kinds.iter().map(|kind| kind.weight()).sum();
    if weights == 0 {
        bail!("a run needs kinds of acts");
    }
    for number in 0..options.acts {
        let act = world.pick(&options.kinds, weights);
        world.ledger.begin(number);
        world.perform(act)?;
        world.pass_time();
    }
    let findings = judge::findings(&mut world)?;
    if findings.is_empty() {
        return Ok(());
    }
    if let Some(keep) = &options.keep {
        let place = keep.join(format!("seed-{}", options.seed));
        device::copy(lab.dir(), &place)?;
        std::fs::write(place.join("story.txt"), world.ledger.story())?;
    }
    bail!(
        "seed {} found:\n{}\n",
        options.seed,
        world.ledger.told(&findings)
    )
}

impl World {
    /// Three devices that share one folder with a few files, in sync.
    fn begin(lab: &Lab, seed: u64) -> Result<Self> {
        let mut ledger = Ledger::new(seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut devices = Vec::new();
        for name in NAMES {
            devices.push(Device::new(lab.started(name)?)?);
        }
        let [first, others @ ..] = devices.as_mut_slice() else {
            bail!("there are three devices");
        };
        for path in ["a.txt", "d0/b.txt", "d0/e/c.txt", "d1/a.txt"] {
            program::save_new(first, path, &mut ledger, &mut rng)?;
        }
        let code = first.peer.share("work")?;
        let mut next = Some(code);
        for other in others {
            let code = match next.take() {
                Some(code) => code,
                None => first.peer.invite("work", &[])?,
            };
            let joined = other.peer.join(&code, "work", Some(&first.peer))?;
            joined.good().context("joining")?;
        }
        // Without discovery nobody tells those who joined of one another.
        if let [_, bob, carol] = devices.as_slice() {
            bob.peer.run(&["dial", &carol.peer.address()?])?.good()?;
        }
        for device in &devices {
            device.peer.settled(2)?;
        }
        Ok(Self {
            rng,
            devices,
            ledger,
        })
    }

    fn pick(&mut self, kinds: &[Act], weights: u32) -> Act {
        let mut at = self.rng.random_range(0..weights);
        for kind in kinds {
            match at.checked_sub(kind.weight()) {
                Some(rest) => at = rest,
                None => return *kind,
            }
        }
        Act::SaveInPlace
    }

    fn perform(&mut self, act: Act) -> Result<()> {
        let index = self.rng.random_range(0..self.devices.len());
        if act.is_fault() {
            return fault::perform(self, index, act);
        }
        let Some(device) = self.devices.get_mut(index) else {
            return Ok(());
        };
        if device.is_away() {
            return Ok(());
        }
        let done = program::perform(device, act, &mut self.ledger, &mut self.rng);
        // The mesh changes the folder under the programs' hands: what a program wanted to work on may
        // be gone or be something else by now, which every program has to live with.
        if let Err(error) = done
            && !program::is_expected(&error)
        {
            return Err(error).context(format!("{act:?} at {}", device.peer.name()));
        }
        Ok(())
    }

    /// People take their time: most acts follow at once, some after the folder became quiet.
    fn pass_time(&mut self) {
        let millis = match self.rng.random_range(0..10) {
            0..=4 => self.rng.random_range(0..60),
            5..=7 => self.rng.random_range(60..400),
            8 => self.rng.random_range(400..1_500),
            _ => self.rng.random_range(1_500..3_500),
        };
        std::thread::sleep(Duration::from_millis(millis));
    }
}
