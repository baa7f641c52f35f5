//! The few single rows of a replica's database: format, owner, incarnation, clock, and the
//! membership log's records.

use std::collections::BTreeSet;

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
    WriteTransaction,
};

use crate::epoch::{EpochSecret, Epochs};
use crate::error::{Damage, OpenError, StorageError};
use crate::id::{Author, DeviceId, EpochId, Incarnation};
use crate::member::MemberLog;

/// Another number means that older programs must not touch the database. Those below are not read any more.
const FORMAT: u32 = 6;

const HEADER: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("header");
/// Position in the log (parents first) → record.
const MEMBERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("member");
/// Position → the secret of an epoch.
const EPOCHS: TableDefinition<'_, u64, &[u8; 32]> = TableDefinition::new("epoch");
/// Epoch → the list of its secret sealed for members, while no other rotation replaced it.
const KEYS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("keys");
/// Admission → record by which its device said that it goes.
const LEAVES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("leave");

/// What stands in the header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) device: DeviceId,
    pub(super) incarnation: Incarnation,
    pub(super) clock: u64,
}

impl Header {
    /// The log that this device goes on with.
    pub(super) fn author(&self) -> Author {
        let Self {
            device,
            incarnation,
            ..
        } = *self;
        Author {
            device,
            incarnation,
        }
    }
}

/// Writes the header of a new replica.
pub(super) fn create(txn: &WriteTransaction, header: Header) -> Result<(), StorageError> {
    let mut table = txn.open_table(HEADER)?;
    table.insert("format", FORMAT.to_be_bytes().as_slice())?;
    table.insert("device", header.device.as_bytes().as_slice())?;
    table.insert("incarnation", header.incarnation.0.to_be_bytes().as_slice())?;
    table.insert("clock", header.clock.to_be_bytes().as_slice())?;
    txn.open_table(MEMBERS)?;
    txn.open_table(EPOCHS)?;
    txn.open_table(KEYS)?;
    txn.open_table(LEAVES)?;
    Ok(())
}

/// Reads the header; `None` in a database that holds no replica.
pub(super) fn read(txn: &ReadTransaction) -> Result<Option<Header>, OpenError> {
    let table = match txn.open_table(HEADER) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(StorageError::from(error).into()),
    };
    let found = u32::from_be_bytes(row(&table, "format")?);
    if found > FORMAT {
        return Err(OpenError::TooNew { found });
    } else if found < FORMAT {
        return Err(OpenError::TooOld { found });
    }
    Ok(Some(Header {
        device: DeviceId::from_bytes(row(&table, "device")?),
        incarnation: Incarnation(u64::from_be_bytes(row(&table, "incarnation")?)),
        clock: u64::from_be_bytes(row(&table, "clock")?),
    }))
}

/// How far the registers can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// They were derived from the logs.
    Logs,
    /// They began with a snapshot, and nothing contradicts it.
    Snapshot,
    /// They began with a snapshot, and something does.
    Doubtful,
}

pub(super) fn origin(txn: &WriteTransaction) -> Result<Origin, StorageError> {
    let table = txn.open_table(HEADER)?;
    Ok(
        match table.get("snapshot")?.map(|row| row.value().to_vec()) {
            None => Origin::Logs,
            Some(mark) if mark == [1] => Origin::Snapshot,
            Some(_) => Origin::Doubtful,
        },
    )
}

pub(super) fn set_origin(txn: &WriteTransaction, origin: Origin) -> Result<(), StorageError> {
    let mut table = txn.open_table(HEADER)?;
    match origin {
        Origin::Logs => drop(table.remove("snapshot")?),
        Origin::Snapshot => drop(table.insert("snapshot", [1].as_slice())?),
        Origin::Doubtful => drop(table.insert("snapshot", [2].as_slice())?),
    }
    Ok(())
}

pub(super) fn set_clock(txn: &WriteTransaction, clock: u64) -> Result<(), StorageError> {
    txn.open_table(HEADER)?
        .insert("clock", clock.to_be_bytes().as_slice())?;
    Ok(())
}

pub(super) fn set_incarnation(
    txn: &WriteTransaction,
    incarnation: Incarnation,
) -> Result<(), StorageError> {
    txn.open_table(HEADER)?
        .insert("incarnation", incarnation.0.to_be_bytes().as_slice())?;
    Ok(())
}

/// Where the database was when it was last opened, as the caller describes it.
pub(super) fn place(txn: &ReadTransaction) -> Result<Option<Vec<u8>>, StorageError> {
    Ok(txn
        .open_table(HEADER)?
        .get("place")?
        .map(|row| row.value().to_vec()))
}

pub(super) fn set_place(txn: &WriteTransaction, place: &[u8]) -> Result<(), StorageError> {
    txn.open_table(HEADER)?.insert("place", place)?;
    Ok(())
}

/// The layout of the tree's index; `None` when it must be made anew.
pub(super) fn index(txn: &ReadTransaction) -> Result<Option<u32>, StorageError> {
    let table = txn.open_table(HEADER)?;
    let row = table.get("index")?;
    Ok(row.and_then(|row| Some(u32::from_be_bytes(row.value().try_into().ok()?))))
}

pub(super) fn set_index(txn: &WriteTransaction, layout: u32) -> Result<(), StorageError> {
    txn.open_table(HEADER)?
        .insert("index", layout.to_be_bytes().as_slice())?;
    Ok(())
}

/// Has the tree's index made anew when the replica is opened next.
pub(super) fn forget_index(txn: &WriteTransaction) -> Result<(), StorageError> {
    txn.open_table(HEADER)?.remove("index")?;
    Ok(())
}

/// Stores what is new in the membership log. The place of a record never changes.
pub(super) fn set_members(txn: &WriteTransaction, log: &MemberLog) -> Result<(), StorageError> {
    let mut table = txn.open_table(MEMBERS)?;
    let stored = table.len()?;
    let skipped = usize::try_from(stored).unwrap_or(usize::MAX);
    for (position, record) in (stored..).zip(log.records().skip(skipped)) {
        table.insert(position, record.bytes.as_slice())?;
    }
    let mut table = txn.open_table(LEAVES)?;
    for (admission, record) in log.leaves() {
        if table.get(admission.as_bytes())?.is_none() {
            table.insert(admission.as_bytes(), record.bytes.as_slice())?;
        }
    }
    Ok(())
}

/// Stores the epochs' secrets; they only become more.
pub(super) fn set_epochs(txn: &WriteTransaction, epochs: &Epochs) -> Result<(), StorageError> {
    let mut table = txn.open_table(EPOCHS)?;
    let stored = table.len()?;
    let skipped = usize::try_from(stored).unwrap_or(usize::MAX);
    for (position, secret) in (stored..).zip(epochs.all().iter().skip(skipped)) {
        table.insert(position, secret.as_bytes())?;
    }
    Ok(())
}

/// Stores a key list.
pub(super) fn keep_list(
    txn: &WriteTransaction,
    epoch: &EpochId,
    list: &[u8],
) -> Result<(), StorageError> {
    txn.open_table(KEYS)?.insert(epoch.as_bytes(), list)?;
    Ok(())
}

/// Forgets the key lists of epochs that others have replaced.
pub(super) fn keep_lists_of(
    txn: &WriteTransaction,
    latest: &BTreeSet<EpochId>,
) -> Result<(), StorageError> {
    let mut table = txn.open_table(KEYS)?;
    table.retain(|epoch, _| latest.contains(&EpochId::from_bytes(*epoch)))?;
    Ok(())
}

/// The key list of an epoch, if it is kept.
pub(super) fn list(
    txn: &ReadTransaction,
    epoch: &EpochId,
) -> Result<Option<Vec<u8>>, StorageError> {
    let table = txn.open_table(KEYS)?;
    Ok(table.get(epoch.as_bytes())?.map(|row| row.value().to_vec()))
}

/// Loads the epochs' secrets.
pub(super) fn epochs(txn: &ReadTransaction) -> Result<Epochs, StorageError> {
    let mut epochs = Epochs::default();
    for row in txn.open_table(EPOCHS)?.iter()? {
        epochs.add(EpochSecret::from_bytes(*row?.1.value()));
    }
    Ok(epochs)
}

/// Loads and checks the membership log.
pub(super) fn members(txn: &ReadTransaction) -> Result<MemberLog, StorageError> {
    let mut records = Vec::new();
    for row in txn.open_table(MEMBERS)?.iter()? {
        records.push(row?.1.value().to_vec());
    }
    for row in txn.open_table(LEAVES)?.iter()? {
        records.push(row?.1.value().to_vec());
    }
    MemberLog::from_records(records.iter().map(Vec::as_slice))
        .map_err(|_| StorageError::Damaged(Damage::Members))
}

fn row<const N: usize>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<[u8; N], StorageError> {
    let damaged = StorageError::Damaged(Damage::Header(name));
    let row = table
        .get(name)?
        .ok_or(StorageError::Damaged(Damage::Header(name)))?;
    row.value().try_into().map_err(|_| damaged)
}
