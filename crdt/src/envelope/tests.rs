//! What an envelope tells those who may read it, those who may not, and programs of another format.

use super::*;
use crate::lab::{NOW, key};

fn epochs() -> Epochs {
    [EpochSecret::from_bytes([7; 32])].into_iter().collect()
}

fn author() -> Author {
    Author {
        device: key(1).device_id(),
        incarnation: Incarnation(5),
    }
}

fn place(seq: u64) -> Place {
    Place {
        author: author(),
        seq,
        prev: Hash::from_bytes([3; 32]),
    }
}

fn draft(change: &[u8]) -> Draft<'_> {
    Draft {
        mesh: MeshId::from_bytes([2; 32]),
        author: author(),
        seq: 4,
        prev: Hash::from_bytes([3; 32]),
        causes: Vec::new(),
        members: vec![Hash::from_bytes([6; 32])],
        clock: 9,
        at: NOW,
        changes: vec![(BucketId::new(1).unwrap(), change)],
    }
}

fn signed(change: &[u8]) -> Vec<u8> {
    let epochs = epochs();
    draft(change)
        .sign(&key(1), epochs.current().unwrap())
        .unwrap()
}

#[test]
fn an_envelope_reads_back_and_its_name_is_its_frames() {
    let bytes = signed(b"change");
    let envelope = Envelope::decode(&bytes, &epochs()).unwrap();
    assert_eq!(envelope.frame, Frame::read(&bytes).unwrap());
    assert_eq!((envelope.frame.seq, envelope.head.clock), (4, 9));
    assert_eq!(
        envelope.changes,
        [(BucketId::new(1).unwrap(), &b"change"[..])]
    );
}

#[test]
fn an_envelope_with_any_byte_changed_cut_or_added_is_refused() {
    let bytes = signed(b"change");
    for at in 0..bytes.len() {
        let mut spoilt = bytes.clone();
        spoilt[at] ^= 1;
        assert!(Envelope::decode(&spoilt, &epochs()).is_err(), "byte {at}");
        assert!(Envelope::decode(&bytes[..at], &epochs()).is_err());
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(Envelope::decode(&longer, &epochs()).is_err());
}

#[test]
fn a_holder_that_may_not_read_verifies_order_and_hashes_of_sealed_envelopes() {
    let bytes = signed(b"a name that nobody else may see");
    let epochs = epochs();
    let envelope = Envelope::decode(&bytes, &epochs).unwrap();
    let sealed = envelope.sealed(epochs.current().unwrap()).unwrap();
    assert!(!sealed.windows(6).any(|six| six == b"nobody"));
    let told = verify_sealed(&sealed).unwrap();
    assert_eq!(
        (told.author, told.seq, told.hash),
        (author(), 4, envelope.frame.hash)
    );
    assert_eq!(told.prev, envelope.frame.prev);
    for at in 0..sealed.len() {
        let mut spoilt = sealed.clone();
        spoilt[at] ^= 1;
        assert!(verify_sealed(&spoilt).is_err(), "byte {at}");
    }
    assert!(
        verify_sealed(&bytes).is_err(),
        "the plain form is no sealed one"
    );
    assert_eq!(open(&sealed, &epochs).unwrap(), bytes);
    let others = Epochs::from_iter([EpochSecret::from_bytes([8; 32])]);
    assert!(open(&sealed, &others).is_err());
}

#[test]
fn sealing_twice_gives_the_same_bytes_and_two_bodies_never_share_a_key() {
    let secret = EpochSecret::from_bytes([7; 32]);
    let (one, again) = (signed(b"zeros"), signed(b"zeros"));
    assert_eq!(one, again);
    // With one key and nonce the two streams would differ where the texts do, and only there.
    let plain = [vec![0; 64], [vec![0; 63], vec![1]].concat()];
    let [a, b] = plain.map(|plain| seal::seal(&secret, place(1), &plain).bytes);
    assert_ne!(a[..32], b[..32]);
    let elsewhere = seal::seal(&secret, place(2), &[0; 64]).bytes;
    assert_ne!(a[..32], elsewhere[..32]);
}

#[test]
fn a_later_format_shows_who_signed_it_and_nothing_more_is_decoded() {
    let later = sign(
        &key(1),
        FORMAT + 1,
        MeshId::from_bytes([2; 32]),
        place(4),
        b"?",
        b"??",
    );
    let frame = Frame::verify(&later).unwrap();
    assert_eq!((frame.author, frame.seq), (author(), 4));
    let fault = Envelope::decode(&later, &epochs()).unwrap_err();
    assert_eq!(fault, EnvelopeFault::UnknownFormat { format: FORMAT + 1 });
    let mut forged = later;
    forged[40] ^= 1;
    assert_eq!(Frame::verify(&forged), Err(EnvelopeFault::BadSignature));
}

#[test]
fn extensions_of_later_programs_are_kept_and_those_out_of_order_refused() {
    let epochs = epochs();
    let secret = epochs.current().unwrap();
    let body = pack(&Vec::<(BucketId, &[u8])>::new());
    let sealed = seal::seal(secret, place(4), &body);
    for (tags, taken) in [([1, 900], true), ([900, 1], false), ([1, 1], false)] {
        let extension = |tag| Extension {
            tag,
            value: b"later",
        };
        let head = Head {
            causes: Vec::new(),
            members: Vec::new(),
            clock: 1,
            at: NOW,
            epoch: secret.id(),
            mark: sealed.mark,
            body: hash(&sealed.bytes),
            extensions: tags.map(extension).to_vec(),
        };
        let mesh = MeshId::from_bytes([2; 32]);
        let bytes = sign(&key(1), FORMAT, mesh, place(4), &pack(&head), &body);
        let read = Envelope::decode(&bytes, &epochs);
        assert_eq!(
            read.is_ok_and(|envelope| envelope.head == head),
            taken,
            "{tags:?}"
        );
    }
}

#[test]
fn a_body_sealed_for_an_unknown_epoch_is_told_apart_from_a_wrong_one() {
    let bytes = signed(b"change");
    let others = Epochs::from_iter([EpochSecret::from_bytes([9; 32])]);
    let fault = Envelope::decode(&bytes, &others).unwrap_err();
    let epoch = EpochSecret::from_bytes([7; 32]).id();
    assert_eq!(fault, EnvelopeFault::UnknownEpoch { epoch });
}
