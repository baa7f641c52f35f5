//! What operations write down besides, against what others do at the same time.

use crate::edit::{Edit, Kept, NewNode, ResolveError};
use crate::entry::{Entry, EntryKey};
use crate::id::EntryId;
use crate::lab::{NOW, content, create, listing, mesh, name, sync, write};
use crate::member::Role;
use crate::replica::Replica;

fn remove(replica: &Replica, key: EntryKey) {
    replica
        .edit(&[Edit::Remove { key, base: None }], NOW)
        .unwrap();
}

fn rename(replica: &Replica, key: EntryKey, text: &str) {
    let (parent, name) = (EntryId::ROOT, name(text));
    replica
        .edit(
            &[Edit::Move {
                key,
                parent,
                name,
                base: None,
            }],
            NOW,
        )
        .unwrap();
}

/// The only conflict copy.
fn copy(replica: &Replica) -> Entry {
    let copies = replica.conflicts().unwrap();
    assert_eq!(copies.len(), 1, "{copies:?}");
    copies[0].clone()
}

fn meet(replicas: &[Replica]) {
    for _ in 0..2 {
        for other in &replicas[1..] {
            sync(&replicas[0], other);
        }
    }
    for other in &replicas[1..] {
        assert_eq!(listing(&replicas[0]), listing(other));
        assert_eq!(
            replicas[0].digest().unwrap(),
            other.digest().unwrap(),
            "equal logs, equal registers"
        );
    }
}

/// Two devices have made one name apart, and met. The second keeps it.
fn clash() -> (Vec<Replica>, EntryId, EntryId) {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    create(&replicas[0], "other", 9, 9);
    let late = create(&replicas[0], "a", 1, 1);
    let first = create(&replicas[1], "a", 2, 2);
    meet(&replicas);
    assert_eq!(copy(&replicas[0]).key.id, late);
    (replicas, late, first)
}

#[test]
fn a_removal_stays_though_somebody_apart_wrote_down_the_name() {
    let (replicas, late, first) = clash();
    rename(&replicas[1], first.into(), "b");
    remove(&replicas[0], late.into());
    meet(&replicas);
    assert_eq!(listing(&replicas[0]), ["b 2", "other 9"]);
}

#[test]
fn a_rename_beats_a_removal_made_apart() {
    let (replicas, late, _) = clash();
    rename(&replicas[1], late.into(), "b");
    remove(&replicas[0], late.into());
    meet(&replicas);
    assert_eq!(listing(&replicas[0]), ["a 2", "b 1", "other 9"]);
}

/// A file that one device writes anew and removes, while another one, apart, moves it.
fn removed_and_moved(base: Option<crate::entry::Version>) -> (Vec<Replica>, EntryId) {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let id = create(&replicas[0], "a", 1, 1);
    meet(&replicas);
    write(&replicas[1], id, 2);
    remove(&replicas[1], id.into());
    let (key, parent, name) = (id.into(), EntryId::ROOT, name("b"));
    let moved = Edit::Move {
        key,
        parent,
        name,
        base,
    };
    replicas[0].edit(&[moved], NOW).unwrap();
    (replicas, id)
}

#[test]
fn a_move_brings_back_no_version_that_its_mover_did_not_have() {
    let (replicas, _) = removed_and_moved(None);
    meet(&replicas);
    assert_eq!(listing(&replicas[0]), Vec::<String>::new());
    let (replicas, id) = removed_and_moved(None);
    write(&replicas[0], id, 3);
    meet(&replicas);
    assert_eq!(listing(&replicas[0]), ["b 3"]);
    // Nor do later operations.
    for text in ["c", "d"] {
        rename(&replicas[2], id.into(), text);
        meet(&replicas);
        assert_eq!(listing(&replicas[0]), [format!("{text} 3")]);
    }
}

#[test]
fn a_move_keeps_no_version_that_its_device_had_only_heard_of() {
    let replicas = mesh(&[Role::Writer]);
    let id = create(&replicas[0], "a", 1, 1);
    meet(&replicas);
    let base = Some(replicas[0].entry(&id.into()).unwrap().unwrap().version);
    write(&replicas[1], id, 2);
    meet(&replicas);
    remove(&replicas[1], id.into());
    let (key, parent, name) = (id.into(), EntryId::ROOT, name("b"));
    let moved = Edit::Move {
        key,
        parent,
        name,
        base,
    };
    replicas[0].edit(&[moved], NOW).unwrap();
    meet(&replicas);
    assert_eq!(listing(&replicas[0]), Vec::<String>::new());
}

#[test]
fn what_a_mover_had_outlives_a_removal_though_the_place_is_written_down_or_another_move_wins() {
    let (replicas, late, first) = clash();
    // The removal is heard of by nobody yet.
    remove(&replicas[2], late.into());
    rename(&replicas[1], late.into(), "c");
    create(&replicas[0], "later", 8, 8);
    rename(&replicas[0], late.into(), "b");
    sync(&replicas[0], &replicas[1]);
    // Who takes the name away from beside it writes down its place.
    rename(&replicas[0], first.into(), "d");
    meet(&replicas);
    assert_eq!(marks(&replicas[2]), [1, 2, 8, 9]);
    remove(&replicas[0], late.into());
    meet(&replicas);
    assert_eq!(marks(&replicas[2]), [2, 8, 9]);
}

#[test]
fn a_copy_goes_when_somebody_who_saw_its_version_removed_it_and_others_moved_the_file() {
    let (replicas, id) = split();
    rename(&replicas[2], id.into(), "b");
    assert_eq!(marks(&replicas[2]), [2, 3, 9]);
    remove(&replicas[0], id.into());
    meet(&replicas);
    assert_eq!(marks(&replicas[0]), [3, 9]);
}

/// Two versions made apart. The third device has seen both, the first, whose version is the copy, only its
/// own.
fn split() -> (Vec<Replica>, EntryId) {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let id = create(&replicas[0], "a", 1, 1);
    meet(&replicas);
    write(&replicas[0], id, 2);
    create(&replicas[1], "later", 9, 9);
    write(&replicas[1], id, 3);
    sync(&replicas[0], &replicas[2]);
    sync(&replicas[1], &replicas[2]);
    (replicas, id)
}

fn marks(replica: &Replica) -> Vec<u8> {
    let lines = listing(replica);
    let last = lines.iter().filter_map(|line| line.rsplit(' ').next());
    let mut marks: Vec<u8> = last.map(|mark| mark.parse().unwrap()).collect();
    marks.sort_unstable();
    marks
}

#[test]
fn a_copy_goes_when_somebody_who_saw_its_version_wrote_over_it() {
    let (replicas, id) = split();
    rename(&replicas[2], id.into(), "b");
    assert_eq!(marks(&replicas[2]), [2, 3, 9]);
    for mark in 4..7 {
        write(&replicas[0], id, mark);
    }
    meet(&replicas);
    assert_eq!(marks(&replicas[0]), [3, 6, 9]);
    // It does not come back when what replaced it is replaced.
    for mark in 20..60 {
        write(&replicas[0], id, mark);
    }
    meet(&replicas);
    assert_eq!(marks(&replicas[0]), [3, 9, 59]);
}

#[test]
fn a_copy_goes_when_its_writer_has_heard_of_it_and_replaces_what_it_holds() {
    let (replicas, id) = split();
    let in_hand = replicas[0].entry(&id.into()).unwrap().unwrap().version;
    rename(&replicas[2], id.into(), "b");
    sync(&replicas[2], &replicas[0]);
    assert_eq!(marks(&replicas[0]), [2, 3, 9]);
    let edit = Edit::Write {
        key: id.into(),
        content: content(4),
        base: Some(in_hand),
    };
    replicas[0].edit(&[edit], NOW).unwrap();
    assert_eq!(marks(&replicas[0]), [3, 4, 9]);
    meet(&replicas);
    assert_eq!(marks(&replicas[1]), [3, 4, 9]);
}

#[test]
fn a_copy_goes_when_somebody_who_saw_its_version_removed_it() {
    let (replicas, id) = split();
    write(&replicas[2], id, 4);
    assert_eq!(marks(&replicas[2]), [2, 4, 9]);
    remove(&replicas[0], id.into());
    meet(&replicas);
    assert_eq!(marks(&replicas[0]), [4, 9]);
}

#[test]
fn a_copy_that_somebody_renamed_stays_though_its_version_was_written_over() {
    let (replicas, id) = split();
    rename(&replicas[2], copy(&replicas[2]).key, "wanted");
    write(&replicas[0], id, 4);
    meet(&replicas);
    assert!(listing(&replicas[0]).contains(&"wanted 2".to_owned()));
}

#[test]
fn a_removed_copy_stays_removed_though_somebody_apart_made_an_entry_of_it() {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let id = create(&replicas[0], "a", 1, 1);
    meet(&replicas);
    write(&replicas[0], id, 2);
    write(&replicas[1], id, 3);
    meet(&replicas);
    remove(&replicas[0], copy(&replicas[0]).key);
    rename(&replicas[1], id.into(), "b");
    meet(&replicas);
    assert_eq!(replicas[0].conflicts().unwrap(), []);
    assert_eq!(
        listing(&replicas[0]).len(),
        1,
        "{:?}",
        listing(&replicas[0])
    );
}

/// Two versions made apart, `seen` by the first device, which hears of the other before it acts.
fn met_unseen() -> (Vec<Replica>, EntryId, Option<crate::entry::Version>) {
    let replicas = mesh(&[Role::Writer]);
    let id = create(&replicas[0], "a", 1, 1);
    meet(&replicas);
    let seen = replicas[0].entry(&id.into()).unwrap().unwrap().version;
    write(&replicas[1], id, 2);
    meet(&replicas);
    (replicas, id, Some(seen))
}

#[test]
fn a_removal_of_what_was_seen_leaves_what_came_unseen() {
    let (replicas, id, base) = met_unseen();
    let key = id.into();
    replicas[0]
        .edit(&[Edit::Remove { key, base }], NOW)
        .unwrap();
    meet(&replicas);
    assert_eq!(listing(&replicas[1]), ["a 2"]);
}

#[test]
fn a_removal_of_what_became_a_copy_removes_the_copy() {
    let (replicas, id) = split();
    let in_hand = replicas[0].entry(&id.into()).unwrap().unwrap().version;
    sync(&replicas[2], &replicas[0]);
    assert_eq!(marks(&replicas[0]), [2, 3, 9]);
    let (key, base) = (id.into(), Some(in_hand));
    replicas[0]
        .edit(&[Edit::Remove { key, base }], NOW)
        .unwrap();
    meet(&replicas);
    assert_eq!(marks(&replicas[1]), [3, 9]);
}

#[test]
fn a_replacement_keeps_what_came_unseen() {
    let (replicas, id, base) = met_unseen();
    let key = create(&replicas[0], "new", 3, 3).into();
    let over = id.into();
    replicas[0]
        .edit(&[Edit::Replace { key, over, base }], NOW)
        .unwrap();
    meet(&replicas);
    assert_eq!(marks(&replicas[1]), [2, 3]);
}

#[test]
fn a_time_set_to_bytes_that_are_gone_is_not_given_to_others() {
    let (replicas, id, base) = met_unseen();
    let mtime = Some(crate::id::Timestamp(77));
    let mode = Some(crate::entry::Mode::new(0o600));
    let edit = Edit::SetAttributes {
        key: id.into(),
        attributes: crate::edit::NewAttributes { mode, mtime },
        base,
    };
    replicas[0].edit(&[edit], NOW).unwrap();
    meet(&replicas);
    let entry = replicas[1].entry(&id.into()).unwrap().unwrap();
    assert_eq!(entry.file.unwrap().mtime, NOW);
    assert_eq!(entry.mode, crate::entry::Mode::new(0o600));
}

fn resolve(replica: &Replica, entry: &Entry, keep: Kept) {
    let edits = replica.resolution(entry, keep).unwrap().unwrap();
    replica.edit(&edits, NOW).unwrap();
}

fn plain(replica: &Replica, text: &str) -> Entry {
    replica.lookup(EntryId::ROOT, text).unwrap().unwrap()
}

#[test]
fn a_conflict_copy_is_listed_whatever_happens_to_the_plain_file() {
    let (replicas, id) = split();
    meet(&replicas);
    let listed = copy(&replicas[2]);
    write(&replicas[0], id, 4);
    meet(&replicas);
    assert_eq!(copy(&replicas[2]).name, listed.name);
    rename(&replicas[1], id.into(), "b");
    meet(&replicas);
    assert_eq!(copy(&replicas[2]).name, listed.name);
    write(&replicas[1], copy(&replicas[1]).key.id, 5);
    meet(&replicas);
    assert_eq!(copy(&replicas[2]).name, listed.name);
    remove(&replicas[0], id.into());
    meet(&replicas);
    assert_eq!(copy(&replicas[2]).name, listed.name);
    rename(&replicas[2], copy(&replicas[2]).key, "wanted");
    meet(&replicas);
    assert_eq!(replicas[0].conflicts().unwrap(), []);
}

#[test]
fn a_copy_of_what_came_unseen_is_listed() {
    let (replicas, id, base) = met_unseen();
    let edit = Edit::Write {
        key: id.into(),
        content: content(3),
        base,
    };
    replicas[0].edit(&[edit], NOW).unwrap();
    meet(&replicas);
    assert_eq!(copy(&replicas[1]).file.unwrap().content, content(2).content);
}

#[test]
fn a_second_entry_of_a_name_is_listed_when_the_first_has_gone_elsewhere() {
    let (replicas, late, first) = clash();
    rename(&replicas[1], first.into(), "b");
    meet(&replicas);
    assert_eq!(copy(&replicas[0]).key.id, late);
    let rivals = replicas[0].rivals(&copy(&replicas[0])).unwrap();
    assert_eq!(
        rivals[0].original.as_ref().map(|entry| entry.key.id),
        Some(first)
    );
}

#[test]
fn a_conflict_ends_with_the_version_that_a_user_keeps() {
    for (named, keep, left) in [
        ("copy", Kept::This, vec![2, 9]),
        ("copy", Kept::Other, vec![3, 9]),
        ("copy", Kept::Both, vec![2, 3, 9]),
        ("plain", Kept::This, vec![3, 9]),
        ("plain", Kept::Other, vec![2, 9]),
        ("plain", Kept::Both, vec![2, 3, 9]),
    ] {
        for settled in [false, true] {
            let (replicas, id) = split();
            meet(&replicas);
            if settled {
                // The copy becomes an entry of its own.
                rename(&replicas[0], id.into(), "b");
                rename(&replicas[0], id.into(), "a");
                meet(&replicas);
            }
            let entry = match named {
                "copy" => copy(&replicas[1]),
                _ => plain(&replicas[1], "a"),
            };
            resolve(&replicas[1], &entry, keep);
            meet(&replicas);
            assert_eq!(marks(&replicas[0]), left, "{named} {keep:?} {settled}");
            assert_eq!(
                replicas[0].conflicts().unwrap(),
                [],
                "{named} {keep:?} {settled}"
            );
            assert_eq!(plain(&replicas[0], "a").key.id, id);
        }
    }
}

#[test]
fn a_copy_that_is_kept_takes_the_name_of_what_is_gone() {
    let (replicas, id) = split();
    meet(&replicas);
    rename(&replicas[0], id.into(), "b");
    remove(&replicas[0], id.into());
    meet(&replicas);
    let left = copy(&replicas[1]);
    let refused = replicas[1].resolution(&left, Kept::Other).unwrap();
    assert!(matches!(refused, Err(ResolveError::Gone { .. })));
    resolve(&replicas[1], &left, Kept::This);
    meet(&replicas);
    assert_eq!(listing(&replicas[0]), ["a 2", "later 9"]);
}

#[test]
fn what_came_while_a_conflict_was_ended_is_kept() {
    let (replicas, id) = split();
    meet(&replicas);
    rename(&replicas[0], id.into(), "b");
    meet(&replicas);
    let kept = copy(&replicas[1]);
    let edits = replicas[1].resolution(&kept, Kept::This).unwrap().unwrap();
    write(&replicas[0], id, 7);
    meet(&replicas);
    replicas[1].edit(&edits, NOW).unwrap();
    meet(&replicas);
    assert_eq!(marks(&replicas[0]), [2, 7, 9]);
}

#[test]
fn what_is_made_beside_a_taken_name_never_takes_it() {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let first = create(&replicas[0], "a", 1, 1);
    meet(&replicas);
    // Much later, and with the greatest id: nothing of that counts.
    for number in 0..20 {
        create(&replicas[1], &format!("other {number}"), 9, 100 + number);
    }
    let id = EntryId::from_bytes([0xfe; 16]);
    let beside = Edit::CreateBeside {
        id,
        parent: EntryId::ROOT,
        name: name("a"),
        node: NewNode::File(content(2)),
        mode: Some(crate::entry::Mode::new(0o700)),
    };
    replicas[1]
        .edit(std::slice::from_ref(&beside), NOW)
        .unwrap();
    let kept = replicas[1].lookup(EntryId::ROOT, "a").unwrap().unwrap();
    assert_eq!(kept.key, first.into());
    let aside = copy(&replicas[1]);
    assert_eq!(aside.key, id.into());
    assert!(aside.conflict);
    assert_eq!(aside.mode, crate::entry::Mode::new(0o700));
    meet(&replicas);
    assert_eq!(copy(&replicas[0]), aside);
    // It stays one when the other is written to.
    write(&replicas[0], first, 3);
    meet(&replicas);
    let kept = replicas[1].lookup(EntryId::ROOT, "a").unwrap().unwrap();
    assert_eq!(kept.key, first.into());
    assert_eq!(listing(&replicas[0]).len(), 22);
}

#[test]
fn a_copy_that_was_edited_while_its_conflict_was_ended_is_listed() {
    for (named, keep) in [
        ("copy", Kept::This),
        ("copy", Kept::Other),
        ("plain", Kept::This),
        ("plain", Kept::Other),
    ] {
        for settled in [false, true] {
            let (replicas, id) = split();
            meet(&replicas);
            if settled {
                // The copy becomes an entry of its own.
                rename(&replicas[0], id.into(), "b");
                rename(&replicas[0], id.into(), "a");
                meet(&replicas);
            }
            let edited = copy(&replicas[0]);
            let edit = Edit::Write {
                key: edited.key,
                content: content(7),
                base: Some(edited.version),
            };
            replicas[0].edit(&[edit], NOW).unwrap();
            let entry = match named {
                "copy" => copy(&replicas[1]),
                _ => plain(&replicas[1], "a"),
            };
            resolve(&replicas[1], &entry, keep);
            meet(&replicas);
            let case = format!("{named} {keep:?} {settled}: {:?}", listing(&replicas[0]));
            assert!(marks(&replicas[0]).contains(&7), "{case}");
            let listed = replicas[0].conflicts().unwrap();
            for shown in replicas[0].children(EntryId::ROOT).unwrap() {
                let is_copy = shown.name.as_str().contains("conflict");
                let is_listed = listed.iter().any(|entry| entry.key == shown.key);
                assert_eq!(is_copy, is_listed, "{case}");
            }
        }
    }
}
