//! Packs under ordinary use and under disks that fail.

use super::*;
use crate::fixture::{key, noise};

fn packs(directory: &Path, limit: u64) -> Packs {
    Packs::open(directory.to_owned(), limit, key().fingerprint())
}

fn append(packs: &Packs, bytes: &[u8]) -> Result<PackPlace, WriteError> {
    let len = u32::try_from(bytes.len()).unwrap();
    packs
        .appender()
        .append(key().chunk_id(bytes), Codec::Raw, len, bytes, 1)
}

fn found(packs: &Packs, pack: PackId) -> (Vec<Vec<u8>>, u64) {
    let mut all = Vec::new();
    let visit = |found: Found| -> io::Result<()> {
        all.push(found.encoded.bytes.to_vec());
        Ok(())
    };
    let skipped = scan(&packs.file(pack).unwrap(), PACK_HEADER, visit).unwrap();
    (all, skipped)
}

#[test]
fn what_was_appended_is_read_and_scanned() {
    let home = tempfile::tempdir().unwrap();
    let packs = packs(home.path(), 1 << 20);
    let chunks: Vec<_> = (0..5)
        .map(|at| noise(at, 1000 * (at as usize + 1)))
        .collect();
    let places: Vec<_> = chunks
        .iter()
        .map(|chunk| append(&packs, chunk).unwrap())
        .collect();
    for (chunk, place) in chunks.iter().zip(&places) {
        assert_eq!(&packs.read(place).unwrap().bytes, chunk);
    }
    assert_eq!(found(&packs, places[0].pack), (chunks, 0));
}

#[test]
fn a_full_pack_is_sealed_and_the_next_begins() {
    let home = tempfile::tempdir().unwrap();
    let packs = packs(home.path(), 5000);
    let places: Vec<_> = (0..4)
        .map(|at| append(&packs, &noise(at, 3000)).unwrap())
        .collect();
    let ids: Vec<_> = places.iter().map(|place| place.pack.0).collect();
    assert_eq!(ids, [1, 1, 2, 2]);
    assert_eq!(packs.appender().sealed_below(), PackId(2));
    let listed = packs.list().unwrap();
    assert!(listed.iter().all(|pack| pack.recognised) && listed.len() == 2);
}

#[test]
fn a_flipped_bit_costs_one_record() {
    let home = tempfile::tempdir().unwrap();
    let packs = packs(home.path(), 1 << 20);
    let chunks: Vec<_> = (0..4).map(|at| noise(at, 300_000)).collect();
    let places: Vec<_> = chunks
        .iter()
        .map(|chunk| append(&packs, chunk).unwrap())
        .collect();
    crate::fixture::flip(&packs.path(places[1].pack), places[1].offset as usize + 9);
    let (whole, skipped) = found(&packs, places[0].pack);
    assert_eq!(
        whole,
        [chunks[0].clone(), chunks[2].clone(), chunks[3].clone()]
    );
    assert_eq!(skipped, 300_000 + HEADER_BYTES);
}

#[test]
fn a_torn_tail_is_skipped() {
    let home = tempfile::tempdir().unwrap();
    let packs = packs(home.path(), 1 << 20);
    let first = append(&packs, &noise(1, 5000)).unwrap();
    let second = append(&packs, &noise(2, 5000)).unwrap();
    let path = packs.path(first.pack);
    for lost in [1, 4999, 5000, 5051] {
        let length = u64::from(second.offset) + HEADER_BYTES + 5000 - lost;
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length)
            .unwrap();
        let (whole, skipped) = found(&packs, first.pack);
        assert_eq!(whole, [noise(1, 5000)]);
        assert_eq!(skipped, length - u64::from(second.offset));
    }
}

/// `/dev/full` accepts no byte: every write to it says that the disk is full.
#[test]
fn a_full_disk_refuses_the_chunk_and_later_ones_go_elsewhere() {
    let home = tempfile::tempdir().unwrap();
    let packs = packs(home.path(), 1 << 20);
    let kept = append(&packs, b"kept before").unwrap();
    let full = Arc::new(File::options().write(true).open("/dev/full").unwrap());
    packs.lock().open = Some(OpenPack {
        id: PackId(1),
        file: full,
        length: 100,
    });

    let refused = append(&packs, b"no room for this");
    assert!(
        matches!(refused, Err(WriteError::NoSpace { .. })),
        "{refused:?}"
    );
    let later = append(&packs, b"room again").unwrap();
    assert_eq!(
        later.pack,
        PackId(2),
        "the pack that could not be cut back is left alone"
    );
    assert_eq!(&packs.read(&kept).unwrap().bytes[..], b"kept before");
    assert_eq!(&packs.read(&later).unwrap().bytes[..], b"room again");
}

#[test]
fn files_that_are_no_packs_are_left_alone() {
    let home = tempfile::tempdir().unwrap();
    for name in [
        "notes.txt",
        "1.pack",
        "zzzzzzzz.pack",
        "0000000G.pack",
        "ffffffff.pack",
    ] {
        fs::write(home.path().join(name), "mine").unwrap();
    }
    fs::write(home.path().join("0000000a.pack"), "short").unwrap();
    let packs = packs(home.path(), 1 << 20);
    let expected = PackOnDisk {
        id: PackId(10),
        length: 5,
        recognised: false,
    };
    assert_eq!(packs.list().unwrap(), [expected]);
    assert_eq!(append(&packs, b"x").unwrap().pack, PackId(11));
}
