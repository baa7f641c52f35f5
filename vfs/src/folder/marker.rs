//! The marker `.wormhole/folder` tells a mounted, intact folder from an empty mount point, and from a copy of itself.
//! Without it the folder stops: everything would look deleted. Beside it a `.gitignore` keeps all of `.wormhole` out of a
//! repository around it.
//!
//! It holds a [`Token`], which is another one whenever something was recorded or shown: a directory that was copied
//! earlier, as a backup, holds one that the memory of the last sync has forgotten. Inodes and birth times cannot tell
//! that, and change where nothing else does: with a restore, another disk, another mount.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use wormhole_crdt::DeviceId;
use wormhole_store::RootId;

use super::beneath::{self, Root};
use super::name;
use super::status::StopReason;

/// Longer than any marker; more is not read.
const MAX_MARKER_BYTES: u64 = 1024;
/// Where the next marker is written, to take the place of the old one in one step.
const NEXT: &str = "folder.new";

/// What a folder and the memory of its last sync have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(u128);

impl Token {
    /// One that nobody has.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The tokens that a memory knows: the one in the marker, and the one that the marker gets next. The second may be in the
/// marker already when a crash comes before the memory of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) now: Token,
    pub(crate) next: Token,
}

impl Tokens {
    /// Those of a marker that holds `now`.
    pub(crate) fn after(now: Token) -> Self {
        let next = Token::random();
        Self { now, next }
    }

    pub(crate) fn know(&self, token: Token) -> bool {
        token == self.now || token == self.next
    }

    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (now, next) = bytes.split_at_mut(16);
        now.copy_from_slice(&self.now.to_bytes());
        next.copy_from_slice(&self.next.to_bytes());
        bytes
    }

    /// `None` for what is none.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (tokens, rest) = bytes.as_chunks::<16>();
        match (tokens, rest) {
            ([now, next], []) => Some(Self {
                now: Token::from_bytes(*now),
                next: Token::from_bytes(*next),
            }),
            _ => None,
        }
    }
}

/// Whose a folder is: what a marker says beside its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The binding.
    pub(crate) id: RootId,
    /// The device that has it.
    pub(crate) device: DeviceId,
}

/// Makes the control directory and, for a new binding, the marker.
pub(crate) fn create(root: &Root, owner: &Owner, token: Token) -> io::Result<()> {
    let top = root.open_dir(Path::new(""))?;
    beneath::make_dir(top.as_fd(), OsStr::new(name::CONTROL))?;
    let control = root.open_dir(Path::new(name::CONTROL))?;
    let mut unlisted = beneath::open_partial(control.as_fd(), OsStr::new(name::UNLISTED))?;
    unlisted.set_len(0)?;
    unlisted.write_all(b"*\n")?;
    write(root, owner, token)
}

/// Puts a new marker in the place of the old one, durably.
pub(crate) fn write(root: &Root, owner: &Owner, token: Token) -> io::Result<()> {
    let control = root.open_dir(Path::new(name::CONTROL))?;
    let next = (control.as_fd(), OsStr::new(NEXT));
    let text = text(owner, token);
    let written = write_new(next, &text)
        .and_then(|()| beneath::rename_over(next, (control.as_fd(), OsStr::new(name::MARKER))));
    if written.is_err() {
        // Only the failure is of interest; what stays is written over by the next try.
        let _unlinked = beneath::remove_file(next.0, next.1);
    }
    written?;
    beneath::sync_dir(&control)
}

fn write_new(at: (BorrowedFd<'_>, &OsStr), text: &str) -> io::Result<()> {
    let mut file = beneath::open_partial(at.0, at.1)?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Whether this is the folder it was, and the token that it has. A marker without one is of no state that is known.
pub(crate) fn check(root: &Root, id: &RootId) -> io::Result<Result<Option<Token>, StopReason>> {
    let read = || -> io::Result<String> {
        let control = root.open_dir(Path::new(name::CONTROL))?;
        let file = beneath::open_file(control.as_fd(), OsStr::new(name::MARKER))?;
        let mut found = Vec::new();
        file.take(MAX_MARKER_BYTES).read_to_end(&mut found)?;
        Ok(String::from_utf8_lossy(&found).into_owned())
    };
    match read() {
        Ok(found) if found.lines().next() == Some(&title(id)) => Ok(Ok(token_in(&found))),
        Ok(_other) => Ok(Err(StopReason::MarkerForeign)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err(StopReason::MarkerGone)),
        Err(error) => Err(error),
    }
}

/// Which file the marker is: its inode, and when that was made and changed last. No copy has the same.
pub(crate) fn file(root: &Root) -> io::Result<[u8; 24]> {
    let control = root.open_dir(Path::new(name::CONTROL))?;
    let seen = beneath::look(control.as_fd(), OsStr::new(name::MARKER))?;
    let seen = seen.ok_or(io::ErrorKind::NotFound)?;
    let mut file = [0; 24];
    let numbers = [
        seen.stamp.ino.to_be_bytes(),
        seen.stamp.ctime_ns.to_be_bytes(),
        seen.born_ns.to_be_bytes(),
    ];
    file.copy_from_slice(numbers.as_flattened());
    Ok(file)
}

fn token_in(text: &str) -> Option<Token> {
    let digits = text.lines().find_map(|line| line.strip_prefix("token "))?;
    let is_one = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(digits, 16).ok()?;
    is_one.then_some(Token(number))
}

fn title(id: &RootId) -> String {
    format!("wormhole folder {id}")
}

fn text(owner: &Owner, token: Token) -> String {
    let (title, device) = (title(&owner.id), owner.device);
    format!(
        "{title}\ndevice {device}\ntoken {token}\nDo not delete: without this file the folder stops syncing.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            id: RootId::from_bytes([7; 16]),
            device: DeviceId::from_bytes([3; 32]),
        }
    }

    #[test]
    fn a_marker_holds_the_token_that_was_written_last() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let (owner, first) = (owner(), Token::random());
        create(&root, &owner, first).unwrap();
        assert_eq!(check(&root, &owner.id).unwrap(), Ok(Some(first)));
        let second = Token::random();
        write(&root, &owner, second).unwrap();
        assert_eq!(check(&root, &owner.id).unwrap(), Ok(Some(second)));
        let other = RootId::from_bytes([8; 16]);
        assert_eq!(
            check(&root, &other).unwrap(),
            Err(StopReason::MarkerForeign)
        );
    }

    #[test]
    fn a_marker_without_a_whole_token_has_none() {
        let owner = owner();
        let whole = text(&owner, Token(5));
        assert_eq!(token_in(&whole), Some(Token(5)));
        for cut in ["token 5", "token +0000000000000000000000000000005", "token"] {
            assert_eq!(token_in(cut), None, "{cut}");
        }
    }

    #[test]
    fn a_memory_knows_the_token_now_and_the_next_and_no_other() {
        let tokens = Tokens::after(Token(1));
        assert!(tokens.know(Token(1)) && tokens.know(tokens.next));
        let later = Tokens::after(tokens.next);
        assert!(later.know(tokens.next) && !later.know(Token(1)));
        assert_eq!(Tokens::from_bytes(&tokens.to_bytes()), Some(tokens));
        assert_eq!(Tokens::from_bytes(&[0; 31]), None);
    }
}
