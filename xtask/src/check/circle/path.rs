//! Which files of a crate a file uses, read from the paths in its text.
//!
//! Modules are called by their path in the crate, as in `folder::apply`; the crate itself by nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::repository::Source;

/// Names are followed through at most so many files that only pass them on.
const MOST_HOPS: usize = 8;

/// A path in a text: where it begins (`crate`, `super`, a child) is resolved already.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    path: Vec<String>,
    is_passed_on: bool,
}

/// The module that a file below `src` is; none for a program's `main.rs` and files elsewhere.
pub(super) fn module(file: &str) -> Option<String> {
    let (_, below) = file.split_once("/src/")?;
    let stem = below.strip_suffix(".rs")?;
    match stem {
        "lib" => Some(String::new()),
        "main" => None,
        _ => Some(stem.replace('/', "::")),
    }
}

/// For each module the modules that it uses.
pub(super) fn uses(files: &BTreeMap<String, &Source>) -> BTreeMap<String, BTreeSet<String>> {
    let named: BTreeMap<&str, Vec<Named>> = files
        .iter()
        .map(|(name, source)| (name.as_str(), named(name, &source.text, files)))
        .collect();
    let mut uses = BTreeMap::new();
    for (name, paths) in &named {
        let own = paths.iter().filter(|path| !path.is_passed_on);
        let targets = own.filter_map(|path| target(&path.path, &named, MOST_HOPS));
        let others = targets.filter(|target| target.as_str() != *name);
        uses.insert((*name).to_owned(), others.collect());
    }
    uses
}

/// The module in which what `path` names is made.
fn target(path: &[String], named: &BTreeMap<&str, Vec<Named>>, hops: usize) -> Option<String> {
    let mut length = path.len();
    let module = loop {
        let name = path.get(..length)?.join("::");
        if named.contains_key(name.as_str()) {
            break name;
        }
        length = length.checked_sub(1)?;
    };
    let Some(item) = path.get(length) else {
        return Some(module);
    };
    // Passed on from elsewhere: follow it, unless it goes in a ring, which is no Rust.
    let passed = named
        .get(module.as_str())?
        .iter()
        .find(|other| other.is_passed_on && other.path.last() == Some(item) && other.path != path);
    match (passed, hops.checked_sub(1)) {
        (Some(passed), Some(hops)) => target(&passed.path, named, hops),
        _ => Some(module),
    }
}

/// Every path in the text that leads into the crate.
fn named(module: &str, text: &str, files: &BTreeMap<String, &Source>) -> Vec<Named> {
    let code = code(text);
    let own: Vec<String> = segments(module);
    let child = |word: &str| {
        let mut path = own.clone();
        path.push(word.to_owned());
        files.contains_key(&path.join("::")).then_some(path)
    };
    let mut found = Vec::new();
    let mut statement = "";
    let mut rest = code.as_str();
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let word: &str = rest
            .find(|letter: char| !is_word(letter))
            .map_or(rest, |end| rest.get(..end).unwrap_or_default());
        if word.is_empty() {
            if matches!(first, ';' | '{' | '}') {
                statement = rest.get(1..).unwrap_or_default();
            }
            before = first;
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
            continue;
        }
        rest = rest.get(word.len()..).unwrap_or_default();
        let begin = match word {
            "crate" => Some(Vec::new()),
            "super" => own.split_last().map(|(_, parent)| parent.to_vec()),
            "self" => Some(own.clone()),
            _ => child(word),
        };
        if before != ':'
            && let Some(begin) = begin
            && let Some(tail) = rest.strip_prefix("::")
        {
            let is_passed_on = passes_on(statement);
            let mut paths = Vec::new();
            let used = tree(&begin, tail, &mut paths);
            found.extend(paths.into_iter().map(|path| Named { path, is_passed_on }));
            rest = tail.get(used..).unwrap_or_default();
        }
        before = 'a';
    }
    found
}

/// Whether a statement that begins here is a `pub use`, however far it is public.
fn passes_on(statement: &str) -> bool {
    let Some(rest) = statement.trim_start().strip_prefix("pub") else {
        return false;
    };
    let rest = match rest.strip_prefix('(') {
        Some(inside) => inside.split_once(')').map_or("", |(_, rest)| rest),
        None => rest,
    };
    rest.trim_start().starts_with("use ")
}

/// Reads what follows `begin::` (a name, names in braces) and gives how much of the text that is.
fn tree(begin: &[String], text: &str, paths: &mut Vec<Vec<String>>) -> usize {
    let mut at = 0;
    let mut path = begin.to_vec();
    loop {
        let rest = text.get(at..).unwrap_or_default();
        at += rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        if let Some(inside) = rest.strip_prefix('{') {
            at += 1;
            at += group(&path, inside, paths);
            return at;
        }
        let length = rest
            .find(|letter: char| !is_word(letter))
            .unwrap_or(rest.len());
        match rest.get(..length).unwrap_or_default() {
            "super" => drop(path.pop()),
            "self" | "" => {}
            word => path.push(word.to_owned()),
        }
        at += length;
        match rest.get(length..).and_then(|rest| rest.strip_prefix("::")) {
            Some(_) => at += 2,
            None => {
                paths.push(path);
                return at;
            }
        }
    }
}

/// The members of braces, up to and with the closing one.
fn group(begin: &[String], text: &str, paths: &mut Vec<Vec<String>>) -> usize {
    let mut at = 0;
    while let Some(first) = text.get(at..).and_then(|rest| rest.chars().next()) {
        if first == '}' {
            return at + 1;
        }
        if is_word(first) {
            at += tree(begin, text.get(at..).unwrap_or_default(), paths);
            // Another name for it is no path.
            let rest = text.get(at..).unwrap_or_default();
            if rest.trim_start().starts_with("as ") {
                at += rest.find([',', '}']).unwrap_or(rest.len());
            }
        } else {
            at += first.len_utf8();
        }
    }
    at
}

/// The text without comments and without what is for tests only.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            // One item, such as `mod lab;`, or the module at the bottom.
            match lines.next() {
                Some(item) if item.trim_end().ends_with(';') => continue,
                _ => break,
            }
        }
        push_without_reach(&mut code, line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// How far something is seen names a module, but does not use it: `pub(in crate::a)` is read as `pub`.
fn push_without_reach(code: &mut String, line: &str) {
    let mut rest = line;
    while let Some((before, inside)) = rest.split_once("(in ") {
        code.push_str(before);
        if !before.ends_with("pub") {
            code.push_str("(in ");
            rest = inside;
            continue;
        }
        rest = inside.split_once(')').map_or("", |(_, after)| after);
    }
    code.push_str(rest);
}

fn segments(module: &str) -> Vec<String> {
    let parts = module.split("::").filter(|part| !part.is_empty());
    parts.map(str::to_owned).collect()
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_braces_from_above_and_of_children_are_read() {
        let child = Source::new("crdt/src/a/b/c.rs".to_owned(), String::new());
        let files = BTreeMap::from([("a::b::c".to_owned(), &child)]);
        let text = "use crate::{x::{Y, z::W}, V};\nuse super::super::top::T;\npub(crate) use c::X;\n\
                    fn f() { c::run(); other::c::run(); self::g(); }\n\
                    pub(in crate::far) fn h() {}\n";
        let found = named("a::b", text, &files);
        let shown: Vec<String> = found
            .iter()
            .map(|named| {
                format!(
                    "{}{}",
                    named.path.join("::"),
                    if named.is_passed_on { "!" } else { "" }
                )
            })
            .collect();
        let expected = [
            "x::Y",
            "x::z::W",
            "V",
            "top::T",
            "a::b::c::X!",
            "a::b::c::run",
            "a::b::g",
        ];
        assert_eq!(shown, expected);
    }
}
