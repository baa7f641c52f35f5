//! How much a change unfolds to, counted on its packed bytes before the codec unfolds them.
//!
//! The columns of an Automerge change are run-length encoded: a hundred bytes can stand for four
//! thousand million operations, or for one that replaces as many. The codec unfolds whatever it is
//! given, so that [`check`] must come first: it lets pass only what unfolds to a constant times the bytes that
//! came. It reads the chunk as the Automerge binary format lays it out, but judges only lengths; what the
//! columns mean is the codec's business.

use crate::error::ChangeFault;
use crate::limit::{CHANGE_OP_BYTES, MAX_CHANGE_OPS, MAX_CHANGE_REPLACED};

/// Number of the column group that lists what the operations replace.
const REPLACED: u64 = 7;

/// Checks the body of an uncompressed change chunk: what follows the chunk's type.
pub(super) fn check(body: &[u8]) -> Result<(), ChangeFault> {
    // Every operation has a key of its own, and whatever it replaces beyond one value an actor of its own.
    let most_ops = (body.len() / CHANGE_OP_BYTES).min(MAX_CHANGE_OPS) as u64;
    let most_replaced = body.len().min(MAX_CHANGE_REPLACED) as u64;
    let mut columns = Vec::new();
    let data = read_header(body, &mut columns).ok_or(ChangeFault::Malformed)?;
    let mut data = Reader(data);
    for Column { spec, len } in columns {
        if spec & 8 != 0 {
            return Err(ChangeFault::Compressed);
        }
        let (group, kind) = (spec >> 4, spec & 7);
        let column = data.take(len).ok_or(ChangeFault::Malformed)?;
        let (items, sum) = count(kind, Reader(column)).ok_or(ChangeFault::Malformed)?;
        let replaced = if group == REPLACED && kind == GROUP {
            sum
        } else if group == REPLACED {
            items
        } else {
            0
        };
        let listed = group == REPLACED && kind != GROUP;
        if (!listed && items > most_ops) || replaced > most_replaced {
            return Err(ChangeFault::OpCount);
        }
    }
    Ok(())
}

struct Column {
    spec: u64,
    len: u64,
}

/// Reads up to the columns' data, which it gives.
fn read_header<'a>(body: &'a [u8], columns: &mut Vec<Column>) -> Option<&'a [u8]> {
    let mut body = Reader(body);
    let len = body.unsigned()?;
    let mut body = Reader(body.take(len)?);
    for _ in 0..body.unsigned()? {
        body.take(32)?;
    }
    body.block()?;
    for _number_or_time in 0..3 {
        body.signed()?;
    }
    body.block()?;
    for _actor in 0..body.unsigned()? {
        body.block()?;
    }
    for _ in 0..body.unsigned()? {
        let (spec, len) = (body.unsigned()?, body.unsigned()?);
        columns.push(Column { spec, len });
    }
    Some(body.0)
}

// Kinds of columns, by the low bits of their specification.
const GROUP: u64 = 0;
const DELTA: u64 = 3;
const BOOLEAN: u64 = 4;
const STRING: u64 = 5;
const RAW: u64 = 7;

/// How many items a column has, and their sum if they are unsigned numbers.
fn count(kind: u64, mut column: Reader<'_>) -> Option<(u64, u64)> {
    let (mut items, mut sum) = (0_u64, 0_u64);
    while kind != RAW && !column.0.is_empty() {
        if kind == BOOLEAN {
            items = items.checked_add(column.unsigned()?)?;
            continue;
        }
        let (run, each) = match column.signed()? {
            0 => {
                items = items.checked_add(column.unsigned()?)?;
                continue;
            }
            different @ ..0 => (1, different.unsigned_abs()),
            same => (same.unsigned_abs(), 1),
        };
        for _ in 0..each {
            let value = match kind {
                STRING => column.block().map(|_| 0)?,
                DELTA => column.signed().map(|_| 0)?,
                _ => column.unsigned()?,
            };
            items = items.checked_add(run)?;
            sum = sum.checked_add(value.checked_mul(run)?)?;
        }
    }
    Some((items, sum))
}

/// Bytes still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// A length and that many bytes.
    fn block(&mut self) -> Option<&'a [u8]> {
        let len = self.unsigned()?;
        self.take(len)
    }

    /// An unsigned number in LEB128.
    fn unsigned(&mut self) -> Option<u64> {
        let (value, _) = self.leb128()?;
        Some(value)
    }

    /// A signed number in LEB128.
    fn signed(&mut self) -> Option<i64> {
        let (value, bits) = self.leb128()?;
        let negative = bits < 64 && value >> (bits - 1) & 1 == 1;
        let extended = if negative {
            value | u64::MAX << bits
        } else {
            value
        };
        Some(extended.cast_signed())
    }

    /// The bits of a number and how many there are.
    fn leb128(&mut self) -> Option<(u64, u32)> {
        let (mut value, mut bits) = (0, 0);
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            if bits >= 64 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << bits;
            bits += 7;
            if byte & 0x80 == 0 {
                return Some((value, bits));
            }
        }
    }
}
