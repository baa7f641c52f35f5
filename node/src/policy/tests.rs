//! When a seed looks at the whole tree again, which costs most of what it does.

use wormhole_crdt::{Branch, DeviceTag, EntryName, FileState, Kind, Timestamp, Version};
use wormhole_store::ContentId;

use super::*;

/// A seed that has looked through the tree and could not get some of it.
fn seed_that_lacks(missing: u64) -> Seed {
    let seed = Seed::default();
    let mut state = seed.lock();
    state.walk = false;
    state.failed.missing = missing;
    drop(state);
    seed
}

fn file(content: u8) -> Entry {
    let version = Version {
        lamport: 1,
        device: DeviceTag::from_bytes([1; 8]),
        branch: Branch::from_bytes([0; 8]),
    };
    let content = Content {
        id: ContentId::from_bytes([content; 32]),
        size: 5,
    };
    Entry {
        key: EntryId::ROOT.into(),
        parent: EntryId::ROOT,
        name: EntryName::parse("a.txt").unwrap(),
        kind: Kind::File,
        file: Some(FileState {
            content,
            mtime: Timestamp(0),
            version,
        }),
        target: None,
        mode: wormhole_crdt::Mode::FILE,
        conflict: false,
        version,
    }
}

fn change(before: Option<Entry>, after: Option<Entry>) -> [EntryChange; 1] {
    [EntryChange {
        key: EntryId::ROOT.into(),
        before,
        after,
    }]
}

#[test]
fn news_of_single_files_costs_no_walk_though_something_is_missing() {
    let seed = seed_that_lacks(3);
    seed.want(Some(&change(None, Some(file(1)))));
    let mut renamed = file(2);
    renamed.name = EntryName::parse("b.txt").unwrap();
    seed.want(Some(&change(Some(file(2)), Some(renamed))));
    let state = seed.lock();
    assert!(!state.walk);
    assert_eq!(state.waiting.len(), 2);
    assert!(!state.progress.complete);
}

#[test]
fn what_is_missing_may_be_wanted_no_more_when_a_content_goes() {
    for after in [None, Some(file(2))] {
        let seed = seed_that_lacks(3);
        seed.reconsider(Some(&change(Some(file(1)), after.clone())));
        assert!(seed.lock().walk, "{after:?}");
        let seed = seed_that_lacks(0);
        seed.reconsider(Some(&change(Some(file(1)), after)));
        assert!(!seed.lock().walk, "nothing is missing");
    }
}

#[test]
fn news_without_a_list_means_everything() {
    let seed = seed_that_lacks(0);
    seed.want(None);
    assert!(seed.lock().walk);
}

#[test]
fn a_pause_goes_before_what_a_seed_would_do() {
    let complete = SeedProgress {
        complete: true,
        ..SeedProgress::default()
    };
    assert_eq!(complete.phase(false), Phase::UpToDate);
    assert_eq!(complete.phase(true), Phase::Paused);
    assert_eq!(SeedProgress::default().phase(false), Phase::Syncing);
}
