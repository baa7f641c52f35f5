//! Names of entries: one component ([`EntryName`]) and paths of them ([`EntryPath`]).
//!
//! A name that exists as a value of these types was checked: nothing from the wire or a disk reaches
//! the rest of the program as loose text. Two names that fold to the same text are one name to the
//! mesh, whatever the case rules of the device are. Which names a given operating system refuses
//! is decided where files are written, not here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod fold;

pub(crate) use fold::fold;

/// The longest name in bytes: what ext4, APFS, and NTFS (roughly) can all store.
pub const MAX_NAME_BYTES: usize = 255;

/// How deep a local operation may place an entry. Four thousand bytes of path, the limit of most
/// systems, hold fewer useful levels than this. A merge of moves made apart may go deeper: such
/// entries exist and can be moved, and [`EntryPath`] still names them.
pub const MAX_DEPTH: usize = 256;

/// One component of a path: not empty, at most [`MAX_NAME_BYTES`] of UTF-8, without `/` and NUL, and
/// neither `.` nor `..`. Kept as given; compared by [`EntryName::fold`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryName(Box<str>);

/// Why a text is not an [`EntryName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no text.
    #[error("a name cannot be empty")]
    Empty,
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("a name of {bytes} bytes is too long: {MAX_NAME_BYTES} bytes is the limit")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// `.` or `..`: these mean a directory and its parent everywhere.
    #[error("`.` and `..` are not names")]
    Dots,
    /// A `/` or a NUL, which no system can have inside a name.
    #[error("a name cannot hold {character:?}")]
    Forbidden {
        /// The character.
        character: char,
    },
}

impl EntryName {
    /// Checks `text`.
    ///
    /// # Errors
    /// The reason why it is not a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The name as its creator wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the name is compared by: case-folded and in Unicode normal form C. Names with the same
    /// fold cannot stand side by side in one directory, on any device.
    #[must_use]
    pub fn fold(&self) -> String {
        fold(&self.0)
    }

    /// The name for people: characters that could hide or reorder text are escaped.
    #[must_use]
    pub fn display(&self) -> impl fmt::Display + '_ {
        Safe(&self.0)
    }

    /// The part before the last dot, and the rest with the dot. A leading dot starts no extension.
    pub(crate) fn split_extension(&self) -> (&str, &str) {
        match self.0.rfind('.') {
            None | Some(0) => (&self.0, ""),
            Some(dot) => self.0.split_at(dot),
        }
    }
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { bytes: text.len() });
    }
    if text == "." || text == ".." {
        return Err(NameError::Dots);
    }
    match text
        .chars()
        .find(|character| matches!(character, '/' | '\0'))
    {
        Some(character) => Err(NameError::Forbidden { character }),
        None => Ok(()),
    }
}

impl TryFrom<String> for EntryName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        check(&text)?;
        Ok(Self(text.into()))
    }
}

impl From<EntryName> for String {
    fn from(name: EntryName) -> Self {
        name.0.into()
    }
}

impl FromStr for EntryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl AsRef<str> for EntryName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

struct Safe<'a>(&'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_deceptive(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                fmt::Write::write_char(f, character)?;
            }
        }
        Ok(())
    }
}

/// Controls, bidirectional overrides, zero-width and other invisible characters.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// A path below the root of the tree. The empty path is the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct EntryPath(Vec<EntryName>);

impl EntryPath {
    /// The root's path.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// From the top down.
    #[must_use]
    pub fn names(&self) -> &[EntryName] {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last component; the root has none.
    #[must_use]
    pub fn name(&self) -> Option<&EntryName> {
        self.0.last()
    }

    /// The path without its last component; the root has none.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(Self(above.to_vec()))
    }

    /// This path with one more component.
    #[must_use]
    pub fn join(&self, name: EntryName) -> Self {
        let mut names = self.0.clone();
        names.push(name);
        Self(names)
    }

    /// Goes one level down, in place.
    pub fn push(&mut self, name: EntryName) {
        self.0.push(name);
    }

    /// Goes one level up, in place; gives the component left behind.
    pub fn pop(&mut self) -> Option<EntryName> {
        self.0.pop()
    }

    /// Whether `above` is this path or one of its parents.
    #[must_use]
    pub fn starts_with(&self, above: &Self) -> bool {
        self.0.starts_with(&above.0)
    }

    /// The path for people, see [`EntryName::display`].
    #[must_use]
    pub fn display(&self) -> impl fmt::Display + '_ {
        SafePath(&self.0)
    }
}

struct SafePath<'a>(&'a [EntryName]);

impl fmt::Display for SafePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, name) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("/")?;
            }
            write!(f, "{}", name.display())?;
        }
        Ok(())
    }
}

impl FromIterator<EntryName> for EntryPath {
    fn from_iter<I: IntoIterator<Item = EntryName>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl From<Vec<EntryName>> for EntryPath {
    fn from(names: Vec<EntryName>) -> Self {
        Self(names)
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, name) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("/")?;
            }
            f.write_str(name.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl FromStr for EntryPath {
    type Err = NameError;

    /// Splits at `/`. The empty text is the root; empty components are an error.
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Ok(Self::root());
        }
        text.split('/').map(EntryName::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        assert_eq!(EntryName::parse(""), Err(NameError::Empty));
        assert_eq!(EntryName::parse(".."), Err(NameError::Dots));
        assert_eq!(
            EntryName::parse("a/b"),
            Err(NameError::Forbidden { character: '/' })
        );
        assert_eq!(
            EntryName::parse("a\0b"),
            Err(NameError::Forbidden { character: '\0' })
        );
        assert_eq!(
            EntryName::parse(&"x".repeat(256)),
            Err(NameError::TooLong { bytes: 256 })
        );
        assert!("a//b".parse::<EntryPath>().is_err());
        assert!("a/../b".parse::<EntryPath>().is_err());
    }

    #[test]
    fn shown_names_cannot_reorder_the_terminal() {
        let name = EntryName::parse("a\u{202e}txt.exe\u{1b}[2J").unwrap();
        assert_eq!(name.display().to_string(), "a\\u{202e}txt.exe\\u{1b}[2J");
    }

    proptest! {
        #[test]
        fn decoding_a_name_never_panics_and_never_gives_an_invalid_one(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(name) = postcard::from_bytes::<EntryName>(&bytes) {
                prop_assert!(EntryName::parse(name.as_str()).is_ok());
            }
        }

        #[test]
        fn paths_survive_text(names in proptest::collection::vec("[^/\0]{1,20}", 0..6)) {
            prop_assume!(names.iter().all(|name| name != "." && name != ".."));
            let path: EntryPath = names.join("/").parse().unwrap();
            let parsed: EntryPath = path.to_string().parse().unwrap();
            prop_assert_eq!(&parsed, &path);
            let packed = postcard::to_stdvec(&path).unwrap();
            prop_assert_eq!(postcard::from_bytes::<EntryPath>(&packed).unwrap(), path);
        }

        #[test]
        fn folding_twice_changes_nothing(text in any::<String>()) {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }
    }
}
