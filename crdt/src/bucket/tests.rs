//! What a bucket takes, and that it takes nothing else: one test for each kind of hostile change.

use std::num::NonZeroU64;

use automerge::legacy::{Key, OpId, OpType, SortedVec};
use automerge::{ActorId, Change, ExpandedChange, ObjType, ScalarValue};
use proptest::prelude::*;

use super::desk::Desk;
use super::key::RegisterKey;
use crate::entry::{Mode, Version};
use crate::error::ChangeFault;
use crate::id::{Author, Branch, BucketId, DeviceTag, EntryId};
use crate::lab::key;
use crate::limit::MAX_CHANGE_OPS;
use crate::register::{Attributes, Packed, Put, Register};

pub(super) fn author(number: u8) -> Author {
    Author {
        device: key(number).device_id(),
        incarnation: crate::id::Incarnation(1),
    }
}

fn entry(number: u8) -> EntryId {
    let mut bytes = [number; 16];
    bytes[..2].copy_from_slice(&[0, 0]);
    EntryId::from_bytes(bytes)
}

pub(super) const BUCKET: fn() -> BucketId = || BucketId::new(0).unwrap();

fn value(lamport: u64) -> Vec<u8> {
    let written = Version {
        lamport,
        device: DeviceTag::from_bytes([1; 8]),
        branch: Branch::from_bytes([0; 8]),
    };
    Attributes::of_mode(written, Mode::new(0o755)).encode()
}

pub(super) fn put(number: u8, lamport: u64) -> Put {
    Put {
        id: entry(number),
        register: Register::Attributes,
        value: value(lamport),
    }
}

pub(super) fn register(number: u8) -> RegisterKey {
    RegisterKey {
        id: entry(number),
        register: Register::Attributes,
    }
}

/// An honest change by device 1 to an empty bucket, as it would be sent.
fn honest() -> ExpandedChange {
    let bytes = Desk::new().write(&author(1), 1, &[put(1, 5), put(2, 6)]);
    Change::from_bytes(bytes).unwrap().decode()
}

/// What an empty bucket says to an honest change after `spoil` had its way with it.
fn refused(spoil: impl FnOnce(&mut ExpandedChange)) -> ChangeFault {
    let mut change = honest();
    spoil(&mut change);
    let bytes = Change::from(change).raw_bytes().to_vec();
    offer(&mut Desk::new(), &bytes).unwrap_err()
}

/// Offers a change in the first envelope of device 1.
fn offer(desk: &mut Desk, bytes: &[u8]) -> Result<u64, ChangeFault> {
    desk.offer(BUCKET(), &author(1), 1, &[], bytes)
}

#[test]
fn an_honest_change_is_taken_and_tells_its_clock() {
    let bytes = Change::from(honest()).raw_bytes().to_vec();
    let mut desk = Desk::new();
    assert_eq!(offer(&mut desk, &bytes), Ok(6));
    assert_eq!(desk.values(register(2)), [value(6)]);
    let mut own = Desk::new();
    own.write(&author(1), 1, &[put(1, 5), put(2, 6)]);
    assert_eq!(desk.bytes(), own.bytes(), "the author has the same");
    assert_eq!(desk.digest(), own.digest());
}

#[test]
fn values_written_apart_stay_beside_one_another_until_one_replaces_them() {
    let (mut one, mut two) = (Desk::new(), Desk::new());
    let a = one.write(&author(1), 1, &[put(1, 1)]);
    let b = two.write(&author(2), 1, &[put(1, 2)]);
    offer(&mut two, &a).unwrap();
    one.offer(BUCKET(), &author(2), 1, &[], &b).unwrap();
    assert_eq!(one.values(register(1)), [value(1), value(2)]);
    assert_eq!(one.bytes(), two.bytes());
    let c = one.write_having_seen(&author(1), 2, &[(author(2), 1)], &[put(1, 3)]);
    two.offer(BUCKET(), &author(1), 2, &[(author(2), 1)], &c)
        .unwrap();
    assert_eq!(one.values(register(1)), [value(3)]);
    assert_eq!(one.bytes(), two.bytes());
}

#[test]
fn an_author_that_names_nothing_as_replaced_stacks_no_values() {
    let (mut maker, mut desk) = (Desk::new(), Desk::new());
    for number in 1..=50 {
        let bytes = maker.write(&author(1), number, &[put(1, number)]);
        let mut change = Change::from_bytes(bytes).unwrap().decode();
        for op in &mut change.operations {
            op.pred = SortedVec::from(Vec::new());
        }
        let bytes = Change::from(change).raw_bytes().to_vec();
        desk.offer(BUCKET(), &author(1), number, &[], &bytes)
            .unwrap();
    }
    assert_eq!(desk.values(register(1)), [value(50)]);
}

#[test]
fn a_file_written_ten_thousand_times_takes_what_one_written_once_takes() {
    let (mut once, mut often) = (Desk::new(), Desk::new());
    once.write(&author(1), 1, &[put(1, 1)]);
    for round in 1..=10_000 {
        often.write(&author(1), round, &[put(1, round)]);
    }
    assert!(once.bytes().len() < 200);
    assert!(
        often.bytes().len() <= once.bytes().len() + 8,
        "wider numbers"
    );
}

#[test]
fn a_bucket_that_is_emptied_leaves_nothing_behind_and_its_neighbours_alone() {
    let neighbour = EntryId::from_bytes([0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let other = Put {
        id: neighbour,
        ..put(1, 1)
    };
    let (mut one, mut both) = (Desk::new(), Desk::new());
    one.write(&author(1), 1, std::slice::from_ref(&other));
    both.write(&author(1), 1, &[other]);
    both.write(&author(1), 1, &[put(1, 1), put(2, 2)]);
    both.clear(BUCKET());
    assert_eq!(one.bytes(), both.bytes());
}

#[test]
fn a_change_by_another_actor_is_refused() {
    let other = ActorId::from(author(2).actor().as_slice());
    assert_eq!(
        refused(|change| change.actor_id = other),
        ChangeFault::ForeignActor
    );
}

#[test]
fn any_other_number_of_a_change_or_its_operations_than_1_is_refused() {
    for start in [2, 1000, u64::from(u32::MAX) - 1] {
        let spoil = |change: &mut ExpandedChange| change.start_op = NonZeroU64::new(start).unwrap();
        assert_eq!(refused(spoil), ChangeFault::Sequence);
    }
    assert_eq!(refused(|change| change.seq = 2), ChangeFault::Sequence);
}

#[test]
fn a_change_that_names_dependencies_is_refused() {
    let unknown = automerge::ChangeHash([7; 32]);
    assert_eq!(
        refused(|change| change.deps = vec![unknown]),
        ChangeFault::Deps
    );
}

#[test]
fn anything_but_bytes_in_the_root_map_is_refused() {
    let kinds = [
        OpType::Make(ObjType::Map),
        OpType::Make(ObjType::Text),
        OpType::Put(ScalarValue::Str("text".into())),
        OpType::Put(ScalarValue::counter(1)),
        OpType::Increment(1),
        OpType::Delete,
    ];
    for kind in kinds {
        let fault = refused(|change| change.operations[0].action = kind.clone());
        assert!(
            matches!(fault, ChangeFault::OpKind | ChangeFault::Malformed),
            "{kind:?}: {fault}"
        );
    }
}

#[test]
fn keys_that_are_no_register_of_the_bucket_are_refused() {
    let foreign = RegisterKey {
        id: EntryId::from_bytes([0xff; 16]),
        register: Register::Content,
    };
    let keys = [
        String::new(),
        "p".into(),
        "x1".into(),
        "pAAAA".into(),
        foreign.to_string(),
    ];
    for text in keys {
        let fault = refused(|change| change.operations[0].key = Key::Map(text.as_str().into()));
        assert_eq!(fault, ChangeFault::Key, "{text:?}");
    }
}

#[test]
fn values_that_are_no_register_values_are_refused() {
    let malformed = [vec![2; 20], vec![2; 20_000], Vec::new()];
    let all = malformed.map(|bytes| (bytes, ChangeFault::Value));
    for (bytes, fault) in all {
        let put = OpType::Put(ScalarValue::Bytes(bytes));
        assert_eq!(refused(|change| change.operations[0].action = put), fault);
    }
}

#[test]
fn a_value_of_a_newer_program_is_told_from_a_bad_one() {
    let put = OpType::Put(ScalarValue::Bytes(vec![9; 20]));
    assert_eq!(
        refused(|change| change.operations[0].action = put),
        ChangeFault::UnknownValue
    );
}

#[test]
fn one_register_is_written_at_most_once_per_change() {
    let fault = refused(|change| {
        let first = change.operations[0].clone();
        change.operations.push(first);
    });
    assert_eq!(fault, ChangeFault::Repeated);
}

#[test]
fn too_many_operations_and_none_are_refused() {
    assert_eq!(
        refused(|change| change.operations.clear()),
        ChangeFault::OpCount
    );
    let fault = refused(|change| {
        let first = change.operations[0].clone();
        change.operations = vec![first; MAX_CHANGE_OPS + 1];
    });
    assert!(matches!(
        fault,
        ChangeFault::OpCount | ChangeFault::TooLarge
    ));
}

#[test]
fn a_small_change_that_unfolds_to_a_big_one_is_refused_before_it_is_unfolded() {
    let mut change = honest();
    let actor = ActorId::from(author(2).actor().as_slice());
    let replaced: Vec<OpId> = (1..=1_000_000).map(|at| OpId(at, actor.clone())).collect();
    change.operations[0].pred = SortedVec::from(replaced);
    let bytes = Change::from(change).raw_bytes().to_vec();
    assert!(bytes.len() < 400, "a million in {} bytes", bytes.len());
    assert_eq!(offer(&mut Desk::new(), &bytes), Err(ChangeFault::OpCount));
}

#[test]
fn a_change_replaces_no_more_values_than_it_has_bytes() {
    let actors = |count: u8| (0..count).map(|number| ActorId::from([number + 7; 16].as_slice()));
    let apart: Vec<OpId> = actors(200).map(|actor| OpId(3, actor)).collect();
    let one = ActorId::from([1; 16].as_slice());
    let folded: Vec<OpId> = (1..=2000).map(|at| OpId(at, one.clone())).collect();
    for (replaced, taken) in [(apart, true), (folded, false)] {
        let mut change = honest();
        change.operations[0].pred = SortedVec::from(replaced);
        let bytes = Change::from(change).raw_bytes().to_vec();
        assert_eq!(offer(&mut Desk::new(), &bytes).is_ok(), taken);
    }
}

/// 2,048 such changes fit into one envelope, and each would take a megabyte.
#[test]
fn operations_that_take_no_bytes_are_refused_before_they_are_unfolded() {
    let fault = refused(|change| {
        let first = change.operations[0].clone();
        change.operations = vec![first; MAX_CHANGE_OPS];
        for op in &mut change.operations {
            op.action = OpType::Put(ScalarValue::Null);
        }
    });
    assert_eq!(fault, ChangeFault::OpCount);
}

#[test]
fn replacing_what_is_not_written_yet_is_refused() {
    let actor = ActorId::from(author(1).actor().as_slice());
    for counter in [1, 77] {
        let pred = SortedVec::from(vec![OpId(counter, actor.clone())]);
        let fault = refused(|change| change.operations[0].pred = pred);
        assert!(
            matches!(fault, ChangeFault::Predecessor | ChangeFault::Malformed),
            "{fault}"
        );
    }
    let short = ActorId::from([1, 2, 3].as_slice());
    let pred = SortedVec::from(vec![OpId(1, short)]);
    assert_eq!(
        refused(|change| change.operations[0].pred = pred),
        ChangeFault::Predecessor
    );
}

/// A hostile writer guesses the number of another author's write, to have it gone before anybody saw it.
#[test]
fn replacing_what_the_author_could_not_see_has_no_effect_in_any_order() {
    let mut writer = Desk::new();
    let victim = writer.write(&author(2), 1, &[put(1, 3)]);
    let hostile = {
        let mut change = honest();
        let actor = ActorId::from(author(2).actor().as_slice());
        change.operations[0].pred = SortedVec::from(vec![OpId(1, actor)]);
        Change::from(change).raw_bytes().to_vec()
    };
    let (mut before, mut after) = (Desk::new(), Desk::new());
    offer(&mut before, &hostile).unwrap();
    before.offer(BUCKET(), &author(2), 1, &[], &victim).unwrap();
    after.offer(BUCKET(), &author(2), 1, &[], &victim).unwrap();
    offer(&mut after, &hostile).unwrap();
    assert_eq!(before.values(register(1)), [value(3), value(5)]);
    assert_eq!(before.bytes(), after.bytes());
    // Once it says that it saw the write, it replaces it like everybody.
    let mut seen = Desk::new();
    seen.offer(BUCKET(), &author(2), 1, &[], &victim).unwrap();
    seen.offer(BUCKET(), &author(1), 1, &[(author(2), 1)], &hostile)
        .unwrap();
    assert_eq!(seen.values(register(1)), [value(5)]);
}

#[test]
fn fields_that_honest_changes_leave_empty_are_refused() {
    assert_eq!(
        refused(|change| change.message = Some("hello".into())),
        ChangeFault::Extra
    );
    assert_eq!(refused(|change| change.time = 1), ChangeFault::Extra);
    assert_eq!(
        refused(|change| change.extra_bytes = vec![1]),
        ChangeFault::Extra
    );
}

#[test]
fn compressed_changes_are_refused_before_they_are_inflated() {
    let puts: Vec<Put> = (0..200).map(|number| put(number, 1)).collect();
    let bytes = Desk::new().write(&author(1), 1, &puts);
    let mut change = Change::from_bytes(bytes).unwrap();
    let compressed = change.bytes().into_owned();
    assert_eq!(
        compressed[8], 2,
        "Automerge compresses a change of this size"
    );
    assert_eq!(
        offer(&mut Desk::new(), &compressed),
        Err(ChangeFault::Compressed)
    );
}

#[test]
fn a_damaged_row_is_an_error_and_never_half_a_register() {
    let mut desk = Desk::new();
    desk.write(&author(1), 1, &[put(1, 1), put(2, 2)]);
    assert!(desk.damage(register(1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Automerge alone takes about a third of such changes.
    #[test]
    fn a_change_with_any_bit_flipped_is_refused(at in 0usize..200, bit in 0u8..8) {
        let mut bytes = Change::from(honest()).raw_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(offer(&mut Desk::new(), &bytes).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(offer(&mut Desk::new(), &bytes).is_err());
    }
}
