//! Cuts the power: a step stops in the middle as a crash would stop it. Or somebody else is at work on the same files
//! just then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which crash point ends the step, and how often it is passed before.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    /// Crash at this passing of any point.
    pub(crate) after: Option<u32>,
    /// What another program does to a file when this point is next reached.
    pub(crate) meanwhile: Option<Meddling>,
    /// How often each point was reached.
    pub(crate) passed: BTreeMap<&'static str, u32>,
    /// The disk cannot swap two names in one step.
    pub(crate) cannot_swap: bool,
}

/// At which point, to which file, what.
type Meddling = (&'static str, PathBuf, fn(&Path));

impl Fault {
    /// A point was reached.
    pub(crate) fn reached(&mut self, at: &'static str) {
        *self.passed.entry(at).or_default() += 1;
        if let Some((_, path, act)) = self.meanwhile.take_if(|(point, ..)| *point == at) {
            act(&path);
        }
        if let Some(left) = &mut self.after {
            if *left == 0 {
                std::panic::panic_any(Crash(at));
            }
            *left -= 1;
        }
    }
}

/// The panic payload of a test crash.
#[derive(Debug)]
pub(crate) struct Crash(pub(crate) &'static str);
