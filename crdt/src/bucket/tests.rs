//! What a bucket takes, and that it takes nothing else: one test for each kind of hostile change.

use std::num::NonZeroU64;

use automerge::ObjType;
use proptest::prelude::*;

use super::change::Incoming;
use super::*;
use crate::entry::Version;
use crate::id::{BucketId, DeviceTag, EntryId};
use crate::lab::key;
use crate::limit::MAX_CHANGE_OPS;
use crate::register::{Attributes, Packed, Register};

fn author(number: u8) -> Author {
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

const BUCKET: fn() -> BucketId = || BucketId::new(0).unwrap();

fn value(lamport: u64) -> Vec<u8> {
    let written = Version {
        lamport,
        device: DeviceTag::from_bytes([1; 8]),
    };
    Attributes {
        written,
        executable: true,
    }
    .encode()
}

fn put(number: u8, lamport: u64) -> Put {
    Put {
        id: entry(number),
        register: Register::Attributes,
        value: value(lamport),
    }
}

fn register(number: u8) -> RegisterKey {
    RegisterKey {
        id: entry(number),
        register: Register::Attributes,
    }
}

/// An honest change by device 1 to an empty bucket, as it would be sent.
fn honest() -> ExpandedChange {
    let bytes = Bucket::empty()
        .write(&author(1), vec![put(1, 5), put(2, 6)])
        .unwrap();
    Change::from_bytes(bytes).unwrap().decode()
}

/// What an empty bucket says to an honest change after `spoil` had its way with it.
fn refused(spoil: impl FnOnce(&mut ExpandedChange)) -> ChangeFault {
    let mut change = honest();
    spoil(&mut change);
    let bytes = Change::from(change).raw_bytes().to_vec();
    offer(&mut Bucket::empty(), &bytes).unwrap_err()
}

fn offer(bucket: &mut Bucket, bytes: &[u8]) -> Result<u64, ChangeFault> {
    let incoming = Incoming::parse(BUCKET(), bytes, &author(1))?;
    incoming.check(bucket)?;
    bucket.apply(&incoming)?;
    Ok(incoming.clock)
}

#[test]
fn an_honest_change_is_taken_and_tells_its_clock() {
    let bytes = Change::from(honest()).raw_bytes().to_vec();
    let mut bucket = Bucket::empty();
    assert_eq!(offer(&mut bucket, &bytes), Ok(6));
    assert_eq!(bucket.values(register(2)), [value(6)]);
    assert_eq!(bucket.keys().len(), 2);
    let again = Bucket::load(Some(&bucket.save()), &[]).unwrap();
    assert_eq!(again.digest(), bucket.digest());
    let from_changes = Bucket::load(None, &[bytes]).unwrap();
    assert_eq!(from_changes.digest(), bucket.digest());
}

#[test]
fn values_written_apart_stay_beside_one_another_until_one_replaces_them() {
    let (mut one, mut two) = (Bucket::empty(), Bucket::empty());
    let a = one.write(&author(1), vec![put(1, 1)]).unwrap();
    let b = two.write(&author(2), vec![put(1, 2)]).unwrap();
    offer(&mut two, &a).unwrap();
    let incoming = Incoming::parse(BUCKET(), &b, &author(2)).unwrap();
    incoming.check(&one).unwrap();
    one.apply(&incoming).unwrap();
    assert_eq!(one.values(register(1)).len(), 2);
    assert_eq!(one.digest(), two.digest());
    one.write(&author(1), vec![put(1, 3)]).unwrap();
    assert_eq!(one.values(register(1)), [value(3)]);
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
fn operation_numbers_at_the_end_of_the_range_are_refused() {
    for start in [2, 1000, u64::from(u32::MAX) - 1] {
        let spoil = |change: &mut ExpandedChange| change.start_op = NonZeroU64::new(start).unwrap();
        assert_eq!(refused(spoil), ChangeFault::StartOp);
    }
}

#[test]
fn numbers_that_skip_or_repeat_are_refused() {
    assert_eq!(refused(|change| change.seq = 2), ChangeFault::Sequence);
    let bytes = Change::from(honest()).raw_bytes().to_vec();
    let mut bucket = Bucket::empty();
    offer(&mut bucket, &bytes).unwrap();
    assert_eq!(offer(&mut bucket, &bytes), Err(ChangeFault::Sequence));
}

#[test]
fn a_change_whose_causes_are_not_here_is_refused_and_not_queued() {
    let unknown = automerge::ChangeHash([7; 32]);
    assert_eq!(
        refused(|change| change.deps = vec![unknown]),
        ChangeFault::UnknownDep
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
    for bytes in [Vec::new(), vec![9; 20], vec![0; 20_000]] {
        let put = OpType::Put(ScalarValue::Bytes(bytes));
        assert_eq!(
            refused(|change| change.operations[0].action = put),
            ChangeFault::Value
        );
    }
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
fn replacing_what_the_author_could_not_see_is_refused() {
    let actor = ActorId::from(author(1).actor().as_slice());
    let unseen = OpId(77, actor);
    let fault = refused(|change| change.operations[0].pred = SortedVec::from(vec![unseen]));
    assert!(
        matches!(fault, ChangeFault::Predecessor | ChangeFault::Malformed),
        "{fault}"
    );
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
    let puts = (0..200).map(|number| put(number, 1)).collect();
    let bytes = Bucket::empty().write(&author(1), puts).unwrap();
    let mut change = Change::from_bytes(bytes).unwrap();
    let compressed = change.bytes().into_owned();
    assert_eq!(
        compressed[8], 2,
        "Automerge compresses a change of this size"
    );
    assert_eq!(
        offer(&mut Bucket::empty(), &compressed),
        Err(ChangeFault::Compressed)
    );
}

#[test]
fn a_damaged_row_is_an_error_and_never_half_a_bucket() {
    let mut bucket = Bucket::empty();
    let change = bucket
        .write(&author(1), vec![put(1, 1), put(2, 2)])
        .unwrap();
    let saved = bucket.save();
    assert!(Bucket::load(Some(&saved[..saved.len() - 3]), &[]).is_err());
    assert!(Bucket::load(None, &[change[..change.len() - 3].to_vec()]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Automerge alone takes about a third of such changes.
    #[test]
    fn a_change_with_any_bit_flipped_is_refused(at in 0usize..200, bit in 0u8..8) {
        let mut bytes = Change::from(honest()).raw_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(offer(&mut Bucket::empty(), &bytes).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(offer(&mut Bucket::empty(), &bytes).is_err());
    }
}
