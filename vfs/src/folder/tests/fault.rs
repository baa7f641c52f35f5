//! Cuts the power: a step stops in the middle as a crash would stop it.

/// Which crash point ends the step, and how often it is passed before.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    /// Crash at this passing of any point.
    pub(crate) after: Option<u32>,
}

impl Fault {
    /// A point was reached.
    pub(crate) fn reached(&mut self, at: &'static str) {
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
