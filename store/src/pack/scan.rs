//! Finds the whole records in a pack, for a lost index, a torn tail, and compaction.
//!
//! After anything that is not a whole record the scan looks for the next header byte by byte, so
//! one flipped bit costs one chunk and not the rest of the pack. The header checksum makes a
//! false find improbable, and the keyed id of the payload makes it harmless.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::record::{HEADER_BYTES, MAGIC, Record};
use crate::codec::Encoded;

/// Bytes looked through at once for the next header.
const WINDOW: usize = 256 * 1024;

/// A record with an intact header and all its bytes. The payload is not verified.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) offset: u64,
    pub(crate) encoded: Encoded,
}

/// Visits the records of `file` from offset `from` on. Returns how many bytes belonged to none.
///
/// # Errors
/// What reading or the visitor returned.
pub(crate) fn scan<E: From<io::Error>>(
    file: &File,
    from: u64,
    mut visit: impl FnMut(Found) -> Result<(), E>,
) -> Result<u64, E> {
    let end = file.metadata()?.len();
    let (mut at, mut skipped) = (from, 0);
    while at < end {
        let next = match read_record(file, at, end)? {
            Some(found) => {
                let next = at + HEADER_BYTES + u64::from(found.record.stored);
                visit(found)?;
                next
            }
            None => {
                let next = find_header(file, at + 1, end)?;
                skipped += next - at;
                next
            }
        };
        at = next;
    }
    Ok(skipped)
}

fn read_record(file: &File, at: u64, end: u64) -> io::Result<Option<Found>> {
    if end - at < HEADER_BYTES {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut header, at)?;
    let Some(record) = Record::decode(&header) else {
        return Ok(None);
    };
    if end - at - HEADER_BYTES < u64::from(record.stored) {
        return Ok(None);
    }
    let mut bytes = vec![0; record.stored as usize];
    file.read_exact_at(&mut bytes, at + HEADER_BYTES)?;
    let encoded = Encoded {
        codec: record.codec,
        len: record.len,
        bytes: bytes.into(),
    };
    Ok(Some(Found {
        record,
        offset: at,
        encoded,
    }))
}

/// Offset of the next bytes that begin like a header, or `end`.
fn find_header(file: &File, from: u64, end: u64) -> io::Result<u64> {
    let mut buffer = vec![0; WINDOW];
    let mut at = from;
    while at < end {
        let read = file.read_at(&mut buffer, at)?;
        let seen = buffer.get(..read).unwrap_or_default();
        if let Some(found) = seen.windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
            return Ok(at + found as u64);
        }
        if read < MAGIC.len() {
            break;
        }
        at += (read - (MAGIC.len() - 1)) as u64;
    }
    Ok(end)
}
