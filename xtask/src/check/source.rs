//! Rules about the text of a file: its header, its name, what it must not contain.
//!
//! Lints that the compiler or clippy can check are theirs; these are the ones they cannot.

use crate::repository::Source;

/// Names that say nothing about what a module holds.
const SAYS_NOTHING: [&str; 11] = [
    "common", "core", "helper", "helpers", "manager", "misc", "mod", "service", "types", "util",
    "utils",
];

/// Marks of unfinished work; spelled apart so that this file does not accuse itself.
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// A longer header belongs in ARCHITECTURE.md; tables and pictures in it do not count.
const HEADER_LINES_MAX: usize = 15;

/// One line for each broken rule.
pub(super) fn faults(sources: &[Source]) -> Vec<String> {
    sources.iter().flat_map(source_faults).collect()
}

fn source_faults(source: &Source) -> Vec<String> {
    let path = &source.path;
    let mut faults = Vec::new();
    let header = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .count();
    if header == 0 {
        faults.push(format!(
            "{path}: begins without a `//!` header that says what it holds"
        ));
    }
    let is_prose = |line: &&str| {
        let line = line.trim_start_matches("//!").trim_start();
        !line.starts_with(['|', '`'])
    };
    let prose = source
        .text
        .lines()
        .take(header)
        .take_while(is_prose)
        .count();
    // A crate's header ends with a runnable example and may be longer.
    if prose > HEADER_LINES_MAX && !matches!(source.module(), "lib" | "main") {
        faults.push(format!(
            "{path}: a header of {prose} lines, the limit is {HEADER_LINES_MAX}"
        ));
    }
    let name = source.module();
    if SAYS_NOTHING.contains(&name) || name.ends_with("_old") {
        faults.push(format!(
            "{path}: `{name}` is no name for a module: say what it holds"
        ));
    }
    for (number, line) in source.text.lines().enumerate() {
        if UNFINISHED.iter().any(|mark| line.contains(mark)) {
            faults.push(format!(
                "{path}:{}: unfinished work is not merged",
                number + 1
            ));
        }
        if line.contains(concat!("#[", "allow(")) && !line.contains("reason") {
            let next = source
                .text
                .lines()
                .skip(number)
                .take(4)
                .any(|l| l.contains("reason"));
            if !next {
                faults.push(format!("{path}:{}: allow without a reason", number + 1));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(path: &str, text: &str) -> usize {
        source_faults(&Source::new(path.to_owned(), text.to_owned())).len()
    }

    #[test]
    fn a_file_says_what_it_holds() {
        assert_eq!(faults_of("store/src/pack.rs", "//! One.\n//! Two.\n"), 0);
        assert_eq!(faults_of("store/src/pack.rs", "use std::fs;\n"), 1);
    }

    #[test]
    fn a_module_has_a_name() {
        assert_eq!(faults_of("store/src/utils.rs", "//! One.\n//! Two.\n"), 1);
        assert_eq!(
            faults_of("store/src/pack/mod.rs", "//! One.\n//! Two.\n"),
            1
        );
    }

    #[test]
    fn an_allow_gives_its_reason() {
        let bare = concat!("//! One.\n//! Two.\n#[", "allow(dead_code)]\n");
        assert_eq!(faults_of("store/src/pack.rs", bare), 1);
        let said = concat!(
            "//! One.\n//! Two.\n#[",
            "allow(dead_code, reason = \"x\")]\n"
        );
        assert_eq!(faults_of("store/src/pack.rs", said), 0);
    }
}
