//! The text under which a register stands in its bucket's document: `p`, `c` or `a`, then the entry's
//! id in unpadded base64url. Nothing else may stand there.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;

use crate::id::EntryId;
use crate::register::Register;

/// Which register of which entry.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct RegisterKey {
    pub(crate) id: EntryId,
    pub(crate) register: Register,
}

impl RegisterKey {
    /// The inverse of `Display`; refuses any other spelling of the same id.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_at_checked(1)?;
        let register = match kind {
            "p" => Register::Placement,
            "c" => Register::Content,
            "a" => Register::Attributes,
            _ => return None,
        };
        let id = BASE64URL_NOPAD.decode(id.as_bytes()).ok()?;
        Some(Self {
            id: EntryId::from_bytes(id.try_into().ok()?),
            register,
        })
    }
}

impl fmt::Display for RegisterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.register {
            Register::Placement => "p",
            Register::Content => "c",
            Register::Attributes => "a",
        })?;
        f.write_str(&BASE64URL_NOPAD.encode(self.id.as_bytes()))
    }
}
