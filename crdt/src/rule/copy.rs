//! What becomes of a conflict copy when the version that it holds was replaced in the entry that it was
//! a copy of.
//!
//! Somebody sees two versions and makes an entry of the second. Somebody else has seen only that version
//! meanwhile, and writes the next one over it, or removes it. Then it is no conflict any more, and perhaps
//! nobody has its bytes. The copy goes, unless somebody has moved it or written to it: then it is wanted.
//!
//! This looks at registers alone, never at what was derived from them, so that entries that name one
//! another as origins cannot make a circle.

use super::{removed, winner};
use crate::register::{ContentRecord, Placement, RegisterError, Registers};

/// Whether a content that was a copy of another entry's has been replaced or removed there.
///
/// `placements` are those of the entry that holds it now.
pub(super) fn is_superseded(
    registers: &dyn Registers,
    placements: &[Placement],
    record: &ContentRecord,
) -> Result<bool, RegisterError> {
    let Some(origin) = &record.origin else {
        return Ok(false);
    };
    let moved = winner(placements).is_some_and(|placement| placement.moved != record.version);
    if moved {
        return Ok(false);
    }
    let replaced = registers
        .contents(origin)?
        .iter()
        .any(|other| other.replaces(record.version));
    Ok(replaced || removed(&registers.placements(origin)?).contains(&record.version))
}
