//! Files go in by reference or by copy and have the same name either way, sparse or not.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};

use super::*;
use crate::fixture::{Bed, ROOT, copy, file, noise, read_all};
use crate::{Holding, ReadError, WriteError};

#[test]
fn a_reference_and_a_copy_have_the_same_name() {
    let (referring, copying) = (Bed::new(), Bed::new());
    let (one, two) = (referring.open(), copying.open());
    let two_threads = 16 << 20;
    let large = [two_threads - 1, two_threads, two_threads + 1, 23_456_789];
    let small = [0, 1, 65_535, 65_536, 65_537, 700_000, 5_000_000];
    for length in small.into_iter().chain(large) {
        let bytes = noise(length as u64, length);
        let imported = one
            .import_reference(&referring.write("file", &bytes))
            .unwrap();
        assert_eq!(imported.content, copy(&two, &bytes));
        assert_eq!(imported.content.size, length as u64);
        assert_eq!(read_all(&one, imported.content), bytes);
    }
}

#[test]
fn a_reference_copies_nothing_but_the_manifest() {
    let bed = Bed::new();
    let store = bed.open();
    store
        .import_reference(&bed.write("small", &noise(1, 60_000)))
        .unwrap();
    assert_eq!(store.usage().unwrap().pack_bytes, 0);
    store
        .import_reference(&bed.write("large", &noise(2, 5_000_000)))
        .unwrap();
    assert!(store.usage().unwrap().pack_bytes < 2000);
}

#[test]
fn importing_again_writes_nothing_again() {
    let bed = Bed::new();
    let store = bed.open();
    let name = bed.write("file", &noise(1, 3_000_000));
    let first = store.import_reference(&name).unwrap();
    copy(&store, &noise(1, 3_000_000));
    store.commit().unwrap();
    let before = store.usage().unwrap();
    assert_eq!(store.import_reference(&name).unwrap(), first);
    copy(&store, &noise(1, 3_000_000));
    store.commit().unwrap();
    assert_eq!(store.usage().unwrap(), before);
}

#[test]
fn small_files_cost_neither_pack_bytes_nor_transactions() {
    let bed = Bed::new();
    let store = bed.open();
    let files: Vec<_> = (0..500)
        .map(|at| bed.write(&format!("{}/{at}", at % 7), &noise(at, 4096)))
        .collect();
    let imported = store.import_many(&files);
    for (at, imported) in imported.into_iter().enumerate() {
        let content = imported.unwrap().content;
        assert_eq!(
            read_all(&store, content),
            noise(at as u64, 4096),
            "in the order asked for"
        );
    }
    let usage = store.usage().unwrap();
    assert_eq!(
        (usage.pack_bytes, usage.places),
        (0, 0),
        "nothing but pending rows"
    );
}

/// Two regions of data in 64 MiB of nothing, and a size that is no multiple of anything.
const PIECES: [(u64, usize); 2] = [(10_000_019, 3_000_001), (40 << 20, 700_000)];
const SPARSE_SIZE: u64 = (64 << 20) + 12_345;

#[test]
fn a_sparse_file_has_the_name_of_its_full_twin() {
    let bed = Bed::new();
    let store = bed.open();
    let full = bed.write("full", &[]);
    let mut sparse = File::create(bed.folder().join("sparse")).unwrap();
    let mut bytes = vec![0; usize::try_from(SPARSE_SIZE).unwrap()];
    for (offset, length) in PIECES {
        let data = noise(offset, length);
        sparse.seek(SeekFrom::Start(offset)).unwrap();
        sparse.write_all(&data).unwrap();
        let offset = usize::try_from(offset).unwrap();
        bytes[offset..offset + length].copy_from_slice(&data);
    }
    sparse.set_len(SPARSE_SIZE).unwrap();
    fs::write(bed.folder().join("full"), &bytes).unwrap();
    let [one, two] = [file("sparse"), full].map(|name| store.import_reference(&name).unwrap());
    assert_eq!(one.content, two.content);
    assert_eq!(one.content, copy(&store, &bytes));
    assert_eq!(read_all(&store, one.content), bytes);
}

#[test]
fn a_hundred_gigabytes_of_nothing_cost_nothing() {
    let bed = Bed::new();
    let store = bed.open();
    let sparse = File::create(bed.folder().join("huge")).unwrap();
    sparse.set_len(100 << 30).unwrap();
    let content = store.import_reference(&file("huge")).unwrap().content;
    assert_eq!(content.size, 100 << 30);
    assert_eq!(store.slots(&content).unwrap().count(), 100 << 10);
    assert_eq!(store.holding(&content).unwrap(), Holding::All);
    let mut buffer = [1; 1000];
    let reader = store.reader(content).unwrap();
    assert_eq!(reader.read_at(50 << 30, &mut buffer).unwrap(), 1000);
    assert_eq!(buffer, [0; 1000]);
    let usage = store.usage().unwrap();
    assert!(
        usage.pack_bytes < 40_000,
        "one root and one page: {usage:?}"
    );
    assert!(usage.pending_rows < 20, "{usage:?}");
}

#[test]
fn what_is_no_file_is_refused() {
    let bed = Bed::new();
    let store = bed.open();
    fs::create_dir(bed.folder().join("directory")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(bed.folder().join("pipe"))
        .status();
    assert!(made.unwrap().success());
    for name in ["directory", "pipe"] {
        assert!(matches!(
            store.import_reference(&file(name)),
            Err(ImportError::NotAFile { .. })
        ));
    }
    let missing = store.import_reference(&file("missing"));
    assert!(
        matches!(missing, Err(ImportError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    );
}

/// A file that somebody goes on writing to: it grows between the first look and the last.
#[test]
fn a_file_that_changes_while_it_is_read_leaves_no_reference() {
    let bed = Bed::new();
    let store = bed.open();
    let name = bed.write("log", &noise(1, 100_000));
    let source = store.open_source(&name).unwrap();
    let ticket = store.inner.in_flight.begin(&store.inner.index);
    let node = store.node_for(&name, &source.stamp).unwrap();
    let content = store.cut_source(&source, node).unwrap();
    bed.write("log", &noise(1, 100_001));
    let refused = store.bind(&name, &source, node, ticket);
    assert!(matches!(refused, Err(ImportError::Changed { .. })));
    assert_eq!(
        store.holding(&content).unwrap(),
        Holding::None,
        "only its manifest is here"
    );
    // Cut short while it is read: there is less to read than the first look said. On one thread and on two.
    for (before, after) in [(100_000, 50_000), (20 << 20, 17 << 20), (20 << 20, 0)] {
        let name = bed.write("log", &noise(1, before));
        let source = store.open_source(&name).unwrap();
        bed.write("log", &noise(1, after));
        assert!(matches!(
            store.cut_source(&source, node),
            Err(ImportError::Changed { .. })
        ));
    }
}

/// The thread that reads ends when the one that hashes cannot go on, and the other way round.
#[test]
fn trouble_on_either_thread_ends_both() {
    let bed = Bed::new();
    let store = bed.open();
    let name = bed.write("large", &noise(1, 40 << 20));
    let mut source = store.open_source(&name).unwrap();
    let refused = segment::each_chunk(&source, |_, _| Err(TooManyPages.into()));
    assert!(matches!(refused, Err(ImportError::TooLarge { .. })));
    source.file = File::options()
        .write(true)
        .open(bed.folder().join("large"))
        .unwrap();
    let refused = segment::each_chunk(&source, |_, _| Ok(()));
    assert!(matches!(refused, Err(ImportError::Io { .. })));
}

#[test]
fn a_file_written_from_chunks_is_adopted_without_reading_it() {
    let bed = Bed::new();
    let store = bed.open();
    let bytes = noise(6, 2_000_000);
    let content = copy(&store, &bytes);
    let stamp = store.adopt(&bed.write("landed", &bytes), &content).unwrap();
    assert_eq!(stamp.size, content.size);
    let short = store.adopt(&bed.write("short", &bytes[1..]), &content);
    assert!(matches!(short, Err(ImportError::Changed { .. })));
    let unknown = Content {
        size: 100_000,
        ..content
    };
    let name = bed.write("unknown", &noise(1, 100_000));
    assert!(matches!(
        store.adopt(&name, &unknown),
        Err(ImportError::Read(ReadError::Manifest { .. }))
    ));
}

#[test]
fn what_is_preserved_outlives_its_file() {
    let bed = Bed::new();
    let store = bed.open();
    let bytes = noise(8, 1_500_000);
    let content = store
        .import_reference(&bed.write("file", &bytes))
        .unwrap()
        .content;
    store.preserve(&content).unwrap();
    fs::remove_file(bed.folder().join("file")).unwrap();
    store.forgotten(&ROOT, "file".as_ref()).unwrap();
    assert_eq!(read_all(&store, content), bytes);
}

#[test]
fn a_reader_that_fails_is_reported_with_its_reason() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let bed = Bed::new();
    let refused = bed.open().import_copy(&mut Broken);
    assert!(matches!(refused, Err(ImportError::Io { .. })));
}

#[test]
fn rows_are_committed_before_they_fill_the_ram() {
    let bed = Bed::new();
    let options = crate::StoreOptions {
        commit_rows: 50,
        ..crate::StoreOptions::default()
    };
    let store = bed.open_with(options);
    for at in 0..200 {
        store
            .import_reference(&bed.write(&at.to_string(), &noise(at, 10)))
            .unwrap();
        assert!(store.usage().unwrap().pending_rows < 60);
    }
    let refused: Result<_, WriteError> = store.put(&[]);
    assert!(matches!(refused, Err(WriteError::Size { len: 0 })));
}
