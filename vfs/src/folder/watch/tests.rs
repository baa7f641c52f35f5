//! Hints, their loss, and watches that follow the directories.

use super::*;

/// A folder with a watcher and what it hears.
struct Watching {
    home: tempfile::TempDir,
    root: Root,
    watcher: Watcher,
    hints: mpsc::Receiver<(PathBuf, Hint)>,
}

impl Watching {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(name::CONTROL)).unwrap();
        let root = Root::open(home.path()).unwrap();
        let (sender, hints) = mpsc::channel(QUEUED_HINTS);
        let watcher = Watcher::start(&root, sender, Arc::default()).unwrap();
        Self {
            home,
            root,
            watcher,
            hints,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    fn list(&mut self, path: &str) {
        let dir = self.root.open_dir(Path::new(path)).unwrap();
        self.watcher.add(Path::new(path), &dir);
    }

    /// Waits for a word about this path.
    fn hears(&mut self, path: &str) -> Hint {
        loop {
            let (at, hint) = self.hints.blocking_recv().unwrap();
            if at == Path::new(path) {
                return hint;
            }
        }
    }

    /// Other directories than were listed, and those whose names changed.
    fn audit(&self) -> [Vec<PathBuf>; 2] {
        let (others, changed, rest) = self.watcher.audit(&self.root, None, 100);
        assert_eq!(rest, None);
        [others, changed]
    }
}

fn told(path: &str, hint: Hint) -> (Trouble, mpsc::Receiver<(PathBuf, Hint)>) {
    let (hints, queue) = mpsc::channel(1);
    let trouble = Trouble::default();
    for _ in 0..2 {
        deliver(path.into(), hint, &hints, &trouble);
    }
    (trouble, queue)
}

#[test]
fn a_kernel_queue_that_overflowed_asks_for_a_scan_once() {
    let watching = Watching::new();
    let shared = &watching.watcher.shared;
    shared.took(-1, ReadFlags::QUEUE_OVERFLOW, None);
    assert!(shared.trouble.take_lost());
    assert!(!shared.trouble.take_lost());
    assert!(!shared.trouble.is_limited());
}

#[test]
fn a_full_queue_to_the_folder_asks_for_a_scan() {
    let (trouble, mut queue) = told("one", Hint::Complete);
    let first = queue.try_recv().unwrap();
    assert_eq!(first, (PathBuf::from("one"), Hint::Complete));
    assert!(trouble.take_lost());
}

#[test]
fn a_folder_that_moves_or_loses_its_marker_is_looked_for() {
    let gone = |path: &str| told(path, Hint::Vanished).0.take_doubt();
    assert!(gone(""));
    assert!(gone(".wormhole"));
    assert!(gone(".wormhole/folder"));
    assert!(!gone(".wormhole/ignore"));
    assert!(!gone("file"));
}

#[test]
fn without_enough_watches_everything_is_compared_every_minute() {
    let trouble = Trouble::default();
    assert_eq!(trouble.rescan_every(), RESCAN);
    trouble.limit();
    assert!(trouble.is_limited());
    assert_eq!(trouble.rescan_every(), RESCAN_UNWATCHED);
}

#[test]
fn a_watch_follows_the_directory_that_has_the_name() {
    let mut watching = Watching::new();
    for round in 0..20 {
        // As builds do. The new directory often has the inode of the old one.
        std::fs::create_dir(watching.path("dist")).unwrap();
        watching.list("dist");
        std::fs::remove_dir_all(watching.path("dist")).unwrap();
        std::fs::create_dir(watching.path("dist")).unwrap();
        watching.list("dist");
        let file = format!("dist/{round}");
        std::fs::write(watching.path(&file), "x").unwrap();
        watching.hears(&file);
        std::fs::remove_dir_all(watching.path("dist")).unwrap();
    }
}

#[test]
fn a_renamed_directory_is_heard_under_its_new_name() {
    let mut watching = Watching::new();
    std::fs::create_dir(watching.path("old")).unwrap();
    watching.list("old");
    std::fs::rename(watching.path("old"), watching.path("new")).unwrap();
    std::fs::create_dir(watching.path("old")).unwrap();
    // In either order, and the old name is given up last.
    watching.list("new");
    watching.watcher.remove_tree(Path::new("old"));
    watching.list("old");
    std::fs::write(watching.path("new/file"), "x").unwrap();
    watching.hears("new/file");
    std::fs::write(watching.path("old/file"), "x").unwrap();
    watching.hears("old/file");
    assert_eq!(watching.watcher.len(), 4);
}

#[test]
fn what_the_kernel_did_not_say_is_found_by_looking_at_the_directories() {
    let mut watching = Watching::new();
    for dir in ["same", "other", "changed", "gone"] {
        std::fs::create_dir(watching.path(dir)).unwrap();
    }
    for dir in ["", "same", "other", "changed", "gone"] {
        watching.list(dir);
    }
    assert_eq!(watching.audit(), [const { Vec::<PathBuf>::new() }; 2]);
    std::fs::rename(watching.path("other"), watching.path("away")).unwrap();
    std::fs::create_dir(watching.path("other")).unwrap();
    std::fs::remove_dir(watching.path("gone")).unwrap();
    std::fs::write(watching.path("changed/file"), "x").unwrap();
    let [others, changed] = watching.audit();
    assert_eq!(others, [PathBuf::from("other")]);
    assert_eq!(changed, ["", "changed"].map(PathBuf::from));
}

#[test]
fn a_file_that_was_closed_is_told_from_one_that_grows() {
    let mut watching = Watching::new();
    std::fs::write(watching.path("file"), "x").unwrap();
    while watching.hears("file") != Hint::Written {}
}

/// A folder that was emptied or lost its disk: nothing is watched any more, and nobody may say that it is over.
#[test]
fn a_watcher_of_nothing_ends() {
    let Watching {
        home,
        root,
        watcher,
        hints,
    } = Watching::new();
    drop(root);
    std::fs::remove_dir_all(home.path()).unwrap();
    drop(hints);
    drop(watcher);
}
