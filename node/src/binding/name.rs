//! Which names, given by others, may become a directory that nobody named.
//!
//! Who invites names the mesh, and a join without a directory takes that name into the user's home.
//! There, some names have a meaning: `.ssh`, `bin`. Any other directory the user may choose freely.

use wormhole_crdt::EntryName;

/// Names that other systems keep for devices, with any ending.
const DEVICES: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8",
    "com9", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// Directories of a home from which systems run or load things without being asked to.
const OBEYED: [&str; 4] = ["applications", "autostart", "bin", "library"];

/// Whether a directory of this name in the user's home is nothing but a directory, on any system,
/// and looks like what it is.
pub(crate) fn is_harmless(name: &EntryName) -> bool {
    let text = name.as_str();
    let fold = name.fold();
    let stem = fold.split('.').next().unwrap_or_default().trim_end();
    let is_odd = |letter: char| matches!(letter, '<' | '>' | ':' | '"' | '\\' | '|' | '?' | '*');
    // What is escaped for people hides or reorders something.
    name.display().to_string() == text
        && !text.starts_with(['.', '-', '~', ' '])
        && !text.ends_with(['.', ' '])
        && !text.contains(is_odd)
        && !DEVICES.contains(&stem)
        && !OBEYED.contains(&fold.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_meaning_are_told_from_plain_ones() {
        let harmless = |name: &str| is_harmless(&EntryName::parse(name).unwrap());
        for name in [
            "Designs",
            "Entwürfe 2026",
            "図面 ☕",
            "a.b-c",
            "console",
            "binary",
        ] {
            assert!(harmless(name), "{name}");
        }
        for name in [
            ".ssh",
            ".",
            "..x",
            "-rf",
            "~",
            " x",
            "x ",
            "x.",
            "a\u{202e}b",
            "a\nb",
            "zero\u{200b}",
            "c:",
            "a\\b",
            "CON",
            "nul.txt",
            "Com1 .log",
            "bin",
            "Library",
        ] {
            let parsed = EntryName::parse(name);
            assert!(!parsed.is_ok_and(|name| is_harmless(&name)), "{name:?}");
        }
    }
}
