//! Rows look the same wherever they wait: in RAM, in a commit under way, in the database.

use super::*;
use crate::codec::Codec;
use crate::index::{FORMAT, Index, Meta};

const META: Meta = Meta {
    format: FORMAT,
    fingerprint: 1,
};

fn id(byte: u8) -> ChunkId {
    ChunkId::from_bytes([byte; 32])
}

fn in_file(node: u64, offset: u64) -> Place {
    Place::File(FilePlace {
        node: NodeId(node),
        offset,
        len: 1,
    })
}

fn files(index: &Index, id: &ChunkId) -> Vec<(u64, u64)> {
    let layers = index.read();
    let places = layers.file_places(id).unwrap();
    places
        .map(|place| place.unwrap())
        .map(|place| (place.node.0, place.offset))
        .collect()
}

fn refer(index: &Index, node: u64, offset: u64) {
    index
        .update()
        .set_place(id(5), NodeId(node), Some(in_file(node, offset)));
}

#[test]
fn references_are_merged_newest_first_and_the_youngest_row_decides() {
    let home = tempfile::tempdir().unwrap();
    let index = Index::open(&home.path().join("index"), META).unwrap();
    refer(&index, 1, 10);
    refer(&index, 2, 20);
    refer(&index, 3, 30);
    let (layer, _) = index.freeze(std::iter::empty());
    index.commit(&layer).unwrap();

    index.update().set_place(id(5), NodeId(2), None);
    refer(&index, 4, 40);
    let (layer, _) = index.freeze(std::iter::empty());
    refer(&index, 1, 11);
    refer(&index, 9, 90);
    index.update().set_place(id(5), NodeId(4), None);
    let expected = [(9, 90), (3, 30), (1, 11)];
    assert_eq!(files(&index, &id(5)), expected, "three layers");
    assert!(files(&index, &id(4)).is_empty() && files(&index, &id(6)).is_empty());

    index.commit(&layer).unwrap();
    assert_eq!(files(&index, &id(5)), expected, "two layers");
    let (layer, _) = index.freeze(std::iter::empty());
    index.commit(&layer).unwrap();
    assert_eq!(files(&index, &id(5)), expected, "all in the database");
}

#[test]
fn rows_and_numbers_survive_reopening() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("index");
    let place = PackPlace {
        pack: PackId(3),
        offset: 4,
        stored: 5,
        len: 6,
        generation: 7,
        codec: Codec::Raw,
    };
    let index = Index::open(&path, META).unwrap();
    index
        .update()
        .set_place(id(1), NodeId::NONE, Some(Place::Pack(place)));
    let (node, generation) = (index.new_node(), index.next_generation());
    let lengths = [(PackId(3), 99)].into_iter();
    let (layer, _) = index.freeze(lengths);
    index.commit(&layer).unwrap();
    drop((index, layer));

    let index = Index::open(&path, META).unwrap();
    assert_eq!(index.meta().unwrap(), META);
    assert_eq!(index.read().pack_place(&id(1)).unwrap(), Some(place));
    assert_eq!(index.read().packs().unwrap()[&PackId(3)], 99);
    assert!(index.new_node() > node, "numbers are never used twice");
    assert_eq!(index.generation(), generation);
}
