//! The cut points are part of the format: these tests pin them.

use super::*;
use crate::fixture::noise;

fn cuts(bytes: &[u8]) -> Vec<usize> {
    let mut window = Window::new(None, reading(bytes, usize::MAX));
    let mut cuts = Vec::new();
    loop {
        let length = window.chunk().unwrap().len();
        if length == 0 {
            return cuts;
        }
        window.advance(length);
        cuts.push(length);
    }
}

/// A source that gives at most `step` bytes at a time.
fn reading(bytes: &[u8], step: usize) -> impl FnMut(u64, &mut [u8]) -> io::Result<usize> {
    move |at, buffer| {
        let from = bytes
            .get(usize::try_from(at).unwrap()..)
            .unwrap_or_default();
        let length = from.len().min(buffer.len()).min(step);
        buffer[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }
}

#[test]
fn cut_points_of_a_known_input_never_change() {
    let cuts = cuts(&noise(2020, 4 << 20));
    assert_eq!(cuts.iter().sum::<usize>(), 4 << 20);
    assert_eq!(cuts, GOLDEN, "changing the cuts needs a new CDC_VERSION");
}

/// FastCDC v2020, 64 KiB / 256 KiB / 1 MiB, level 1, over 4 MiB of ChaCha8 seeded with 2020.
const GOLDEN: [usize; 14] = [
    265_985, 282_078, 393_798, 128_914, 312_235, 269_798, 374_450, 469_075, 281_757, 79_853,
    390_295, 318_881, 345_636, 281_549,
];

#[test]
fn the_parameters_are_those_that_the_library_would_choose() {
    let bytes = noise(7, 4 << 20);
    let theirs = fastcdc::v2020::FastCDC::new(&bytes, MIN_CHUNK, AVG_CHUNK, MAX_CHUNK);
    let theirs: Vec<_> = theirs.map(|chunk| chunk.length).collect();
    assert_eq!(cuts(&bytes), theirs);
}

#[test]
fn sizes_stay_within_the_limits_and_small_inputs_are_one_chunk() {
    for length in [1, 2, MIN_CHUNK - 1, MIN_CHUNK] {
        assert_eq!(cuts(&noise(1, length)), [length]);
    }
    assert!(cuts(&[]).is_empty());
    let all = cuts(&noise(3, 20 << 20));
    let (_, rest) = all.split_last().unwrap();
    assert!(
        rest.iter()
            .all(|length| (MIN_CHUNK..=MAX_CHUNK).contains(length))
    );
}

#[test]
fn zeros_are_cut_at_the_maximum() {
    assert_eq!(
        cuts(&vec![0; 3 * MAX_CHUNK + 5]),
        [MAX_CHUNK, MAX_CHUNK, MAX_CHUNK, 5]
    );
}

#[test]
fn how_the_source_delivers_does_not_matter() {
    let bytes = noise(5, 6 << 20);
    let expected = cuts(&bytes);
    for (size, step) in [(None, 70_001), (Some(bytes.len() as u64), 333_333)] {
        let mut window = Window::new(size, reading(&bytes, step));
        let mut at = 0;
        for &length in &expected {
            assert_eq!(window.position(), at as u64);
            assert_eq!(window.chunk().unwrap(), &bytes[at..at + length]);
            window.advance(length);
            at += length;
        }
        assert!(window.chunk().unwrap().is_empty());
    }
}

#[test]
fn an_insertion_at_the_front_changes_few_chunks() {
    let old = noise(11, 16 << 20);
    let mut new = noise(12, 1000);
    new.extend_from_slice(&old);
    let ends = |bytes: &[u8]| {
        let mut left = bytes.len();
        cuts(bytes)
            .into_iter()
            .map(|length| {
                left -= length;
                left
            })
            .collect::<Vec<_>>()
    };
    // Counted from the end, cut points behind the insertion are the same.
    let (old, new) = (ends(&old), ends(&new));
    let kept = new.iter().filter(|end| old.contains(end)).count();
    assert!(kept + 3 >= new.len(), "{kept} of {}", new.len());
}

#[test]
fn an_error_of_the_source_is_passed_on() {
    let mut window = Window::new(None, |_, _: &mut [u8]| Err(io::ErrorKind::TimedOut.into()));
    assert_eq!(window.chunk().unwrap_err().kind(), io::ErrorKind::TimedOut);
}
