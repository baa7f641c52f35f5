//! Where the repository is and which Rust files are ours.
//!
//! Called by every task. Looks at the directory tree, not at git, so that a file counts before it
//! is committed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Directories that hold nothing of ours.
const FOREIGN: [&str; 4] = ["target", ".git", "node_modules", "gen"];

/// The repository this tool was built from.
#[derive(Debug)]
pub(crate) struct Repository {
    root: PathBuf,
}

/// One Rust file with its text.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// Whether nothing of it is in the product.
    pub(crate) is_test: bool,
}

impl Repository {
    /// Finds the root above this package.
    ///
    /// # Errors
    ///
    /// When the directory this tool was built in has moved or gone.
    pub(crate) fn find() -> Result<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package
            .parent()
            .context("xtask stands in the repository's root")?
            .to_owned();
        ensure!(
            root.join("Cargo.toml").is_file(),
            "{} is not there any more; run `cargo xtask` again from the new place",
            root.display()
        );
        Ok(Self { root })
    }

    /// The repository's top directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Every Rust file of ours, in the order of their paths.
    ///
    /// # Errors
    ///
    /// When a directory or file cannot be read.
    pub(crate) fn sources(&self) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            let listing =
                fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
            for item in listing {
                let item = item?;
                let path = item.path();
                let name = item.file_name();
                let name = name.to_string_lossy();
                if item.file_type()?.is_dir() {
                    if !FOREIGN.contains(&name.as_ref()) {
                        directories.push(path);
                    }
                } else if name.ends_with(".rs") {
                    sources.push(self.read(&path)?);
                }
            }
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        let modules: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut sources {
            let path = source.path.strip_suffix(".rs").unwrap_or(&source.path);
            let is_below = |module: &String| {
                path.strip_prefix(module.as_str())
                    .is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'/', ..]))
            };
            source.is_test |= modules.iter().any(is_below);
        }
        Ok(sources)
    }

    fn read(&self, path: &Path) -> Result<Source> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let path = relative.to_string_lossy().replace('\\', "/");
        Ok(Source::new(path, text))
    }
}

impl Source {
    /// A file by its path and text.
    pub(crate) fn new(path: String, text: String) -> Self {
        const TEST_DIRECTORIES: [&str; 3] = ["tests", "benches", "examples"];
        let is_test = path.split('/').any(|part| TEST_DIRECTORIES.contains(&part));
        Self {
            path,
            text,
            is_test,
        }
    }

    /// The room (top directory) that the file stands in.
    pub(crate) fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// The module's own name; of `foo/src/lib.rs` it is `lib`.
    pub(crate) fn module(&self) -> &str {
        let file = self.path.rsplit('/').next().unwrap_or_default();
        file.strip_suffix(".rs").unwrap_or(file)
    }

    /// Paths, without `.rs`, of the modules that this file declares for tests only.
    fn test_modules(&self) -> Vec<String> {
        let own = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let directory = match self.module() {
            "lib" | "main" => own.rsplit_once('/').map_or("", |(directory, _)| directory),
            _ => own,
        };
        let mut modules = Vec::new();
        let mut is_marked = false;
        for line in self.text.lines().map(str::trim) {
            let declared = line.trim_start_matches("pub(crate) ").strip_prefix("mod ");
            if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';'))
                && is_marked
            {
                modules.push(format!("{directory}/{name}"));
            }
            is_marked = line == "#[cfg(test)]";
        }
        modules
    }

    /// The lines before the test module at the bottom of the file, numbered from 1.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = if self.is_test { "" } else { self.text.as_str() };
        lines
            .lines()
            .take_while(|line| line.trim() != "#[cfg(test)]")
            .zip(1..)
            .map(|(l, n)| (n, l))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_for_tests_only_are_found_beside_their_parent() {
        let text = "mod real;\n#[cfg(test)]\nmod lab;\n";
        let parent = |path: &str| Source::new(path.to_owned(), text.to_owned());
        assert_eq!(parent("crdt/src/lib.rs").test_modules(), ["crdt/src/lab"]);
        assert_eq!(
            parent("crdt/src/index.rs").test_modules(),
            ["crdt/src/index/lab"]
        );
    }
}
