//! The tables of the index and the layout of their keys.
//!
//! All keys and values are bytes. A key is made of ids (16 bytes), folded names (UTF-8 without NUL), and
//! a NUL after a name that something follows, so that one range scan finds what belongs together.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::IndexError;
use crate::id::EntryId;

pub(super) type Bytes = &'static [u8];
type Definition = TableDefinition<'static, Bytes, Bytes>;

/// `id` → `Record`: all that is known of an entry.
pub(super) const RECORDS: Definition = TableDefinition::new("tree_record");
/// `directory, folded name` → `Entry`: what is shown. The directory stands for all that it is merged
/// with, the name is the one shown.
pub(super) const ROWS: Definition = TableDefinition::new("tree_row");
/// `parent, folded name, id` → nothing: which shown entries claim a name.
const CLAIMS: Definition = TableDefinition::new("tree_claim");
/// The keys of those rows that show conflict copies.
pub(super) const CONFLICTS: Definition = TableDefinition::new("tree_conflict");
/// `parent, id` → nothing: directories by the parent that their placement names.
const SUBDIRECTORIES: Definition = TableDefinition::new("tree_subdirectory");
/// `parent, id` → nothing: files whose parent is not a known directory.
const WAITING: Definition = TableDefinition::new("tree_waiting");
/// `id` → `Fallback`: directories that are not where their placement says.
const FALLBACKS: Definition = TableDefinition::new("tree_fallback");
/// `directory, wanted folded name, claimed folded name` → nothing: a copy in the second group would have
/// the first name if nobody claimed it.
const BLOCKED: Definition = TableDefinition::new("tree_blocked");
/// `origin, id` → nothing: entries that hold a content that was a conflict copy of another entry's.
pub(super) const COPIES: Definition = TableDefinition::new("tree_copy");
/// `counts` → `Counts`.
pub(super) const TOTALS: Definition = TableDefinition::new("tree_total");

/// The key of the only row in [`TOTALS`].
pub(super) const COUNTS_KEY: &[u8] = b"counts";

/// All tables, open for writing.
pub(super) struct Tables<'t> {
    pub(super) records: Table<'t, Bytes, Bytes>,
    pub(super) rows: Table<'t, Bytes, Bytes>,
    pub(super) claims: Table<'t, Bytes, Bytes>,
    pub(super) conflicts: Table<'t, Bytes, Bytes>,
    pub(super) subdirectories: Table<'t, Bytes, Bytes>,
    pub(super) waiting: Table<'t, Bytes, Bytes>,
    pub(super) fallbacks: Table<'t, Bytes, Bytes>,
    pub(super) blocked: Table<'t, Bytes, Bytes>,
    pub(super) copies: Table<'t, Bytes, Bytes>,
    pub(super) totals: Table<'t, Bytes, Bytes>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(txn: &'t WriteTransaction) -> Result<Self, IndexError> {
        Ok(Self {
            records: txn.open_table(RECORDS)?,
            rows: txn.open_table(ROWS)?,
            claims: txn.open_table(CLAIMS)?,
            conflicts: txn.open_table(CONFLICTS)?,
            subdirectories: txn.open_table(SUBDIRECTORIES)?,
            waiting: txn.open_table(WAITING)?,
            fallbacks: txn.open_table(FALLBACKS)?,
            blocked: txn.open_table(BLOCKED)?,
            copies: txn.open_table(COPIES)?,
            totals: txn.open_table(TOTALS)?,
        })
    }
}

/// Empties the index.
pub(super) fn clear(txn: &WriteTransaction) -> Result<(), IndexError> {
    for definition in [
        RECORDS,
        ROWS,
        CLAIMS,
        CONFLICTS,
        SUBDIRECTORIES,
        WAITING,
        FALLBACKS,
        BLOCKED,
        COPIES,
        TOTALS,
    ] {
        txn.delete_table(definition)?;
    }
    Ok(())
}

/// `directory, folded name`: a key of [`ROWS`] and [`CONFLICTS`].
pub(super) fn row_key(directory: &EntryId, fold: &str) -> Vec<u8> {
    [directory.as_bytes(), fold.as_bytes()].concat()
}

/// `parent, folded name, NUL`: what the claims of one name begin with.
pub(super) fn name_prefix(parent: &EntryId, fold: &str) -> Vec<u8> {
    [parent.as_bytes(), fold.as_bytes(), &[0]].concat()
}

/// A key of the claims.
pub(super) fn claim_key(parent: &EntryId, fold: &str, id: &EntryId) -> Vec<u8> {
    [parent.as_bytes(), fold.as_bytes(), &[0], id.as_bytes()].concat()
}

/// `parent, id`.
pub(super) fn pair_key(parent: &EntryId, id: &EntryId) -> [u8; 32] {
    let mut key = [0; 32];
    let (first, second) = key.split_at_mut(16);
    first.copy_from_slice(parent.as_bytes());
    second.copy_from_slice(id.as_bytes());
    key
}

/// A key of the blocked names.
pub(super) fn blocked_key(directory: &EntryId, wanted: &str, claimed: &str) -> Vec<u8> {
    [
        directory.as_bytes(),
        wanted.as_bytes(),
        &[0],
        claimed.as_bytes(),
    ]
    .concat()
}

/// The id that a key ends with.
pub(super) fn last_id(key: &[u8]) -> Result<EntryId, IndexError> {
    key.last_chunk::<16>()
        .map(|id| EntryId::from_bytes(*id))
        .ok_or(IndexError::Damaged)
}

/// The folded name in a key of the claims.
pub(super) fn claimed_fold(key: &[u8]) -> Result<String, IndexError> {
    let fold = key.len().checked_sub(17).and_then(|end| key.get(16..end));
    text(fold.ok_or(IndexError::Damaged)?)
}

/// A name as text.
pub(super) fn text(bytes: &[u8]) -> Result<String, IndexError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| IndexError::Damaged)
}

/// Every key that begins with `prefix`, in order.
pub(super) fn keys_with(
    table: &impl ReadableTable<Bytes, Bytes>,
    prefix: &[u8],
) -> Result<Vec<Vec<u8>>, IndexError> {
    let mut keys = Vec::new();
    for row in table.range::<&[u8]>(prefix..)? {
        let (key, _) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        keys.push(key.value().to_vec());
    }
    Ok(keys)
}

/// Whether some key begins with `prefix`.
pub(super) fn any_with(
    table: &impl ReadableTable<Bytes, Bytes>,
    prefix: &[u8],
) -> Result<bool, IndexError> {
    match table.range::<&[u8]>(prefix..)?.next() {
        None => Ok(false),
        Some(row) => Ok(row?.0.value().starts_with(prefix)),
    }
}

/// A stored value, unpacked.
pub(super) fn unpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, IndexError> {
    postcard::from_bytes(bytes).map_err(|_| IndexError::Damaged)
}

/// A value to be stored.
pub(super) fn pack<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("memory takes any value")
}
