//! docs/semantics.md promises things to users; each promise names the tests that show it.
//!
//! A promise is a third-level heading. Somewhere below it a line begins with `Shown by:` and names
//! test functions in backquotes; every one of them must exist.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use crate::repository::{Repository, Source};

const DOCUMENT: &str = "docs/semantics.md";
const MARK: &str = "Shown by:";

/// One line for each promise without a test and each test that does not exist.
///
/// # Errors
///
/// When the document cannot be read.
pub(super) fn faults(repository: &Repository, sources: &[Source]) -> Result<Vec<String>> {
    let text = fs::read_to_string(repository.root().join(DOCUMENT)).context(DOCUMENT)?;
    let functions: BTreeSet<&str> = sources.iter().flat_map(test_names).collect();
    Ok(document_faults(&text, &functions))
}

/// Names of all functions that follow a test attribute.
fn test_names(source: &Source) -> Vec<&str> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in source.text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        }
        let function = line
            .strip_prefix("async ")
            .unwrap_or(line)
            .strip_prefix("fn ");
        if let Some(rest) = function {
            if marked {
                names.extend(rest.split(['(', '<']).next());
            }
            marked = false;
        }
    }
    names
}

fn document_faults(text: &str, functions: &BTreeSet<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    for section in text.split("\n### ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let own = section.split("\n## ").next().unwrap_or_default();
        let shown = own
            .split_once(MARK)
            .map(|(_, rest)| rest.split("\n\n").next().unwrap_or(rest));
        let Some(shown) = shown else {
            faults.push(format!("{DOCUMENT}: \"{title}\" names no test (`{MARK}`)"));
            continue;
        };
        for name in shown.split('`').skip(1).step_by(2) {
            if !functions.contains(name) {
                faults.push(format!(
                    "{DOCUMENT}: \"{title}\": there is no test `{name}`"
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_needs_a_test_that_exists() {
        let functions = BTreeSet::from(["it_holds"]);
        let good = "# T\n\n### P\n\nText.\n\nShown by: `it_holds`.\n\n## Next\n";
        assert!(document_faults(good, &functions).is_empty());
        let absent = "# T\n\n### P\n\nShown by: `it_fails`.\n";
        assert_eq!(document_faults(absent, &functions).len(), 1);
        let silent = "# T\n\n### P\n\nText.\n\n## Next\n\nShown by: `it_holds`.\n";
        assert_eq!(document_faults(silent, &functions).len(), 1);
    }

    #[test]
    fn only_functions_marked_as_tests_count() {
        let text = "#[test]\nfn shows() {}\nfn helper() {}\n#[tokio::test]\nasync fn waits() {}\n";
        let source = Source::new("crdt/src/x.rs".to_owned(), text.to_owned());
        assert_eq!(test_names(&source), ["shows", "waits"]);
    }
}
