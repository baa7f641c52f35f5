//! Every author's envelopes in the database, and the order in which they came. An author has one log, or several
//! branches of one: see `log/fork`.
//!
//! `log` holds the envelopes by author and number; `arrival` remembers in which order this replica
//! took them. That order respects causes, so sending in arrival order what a peer lacks never sends an
//! envelope before what it builds on, and one number is enough to remember how far a peer was served.

pub(crate) mod fork;
pub(crate) mod gap;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::bucket::Actor;
use crate::bucket::past::Past;
use crate::envelope::Frame;
use crate::error::{Damage, StorageError};
use crate::id::{Hash, Line};
use crate::vector::VersionVector;
use fork::Forks;
use gap::Gap;

/// Line and number.
type Place<'a> = (&'a [u8; 48], u64);
/// Arrival and envelope.
type Row<'a> = (u64, &'a [u8]);

/// (line, number) → (arrival, envelope).
const LOG: TableDefinition<'_, Place<'_>, Row<'_>> = TableDefinition::new("log");
/// arrival → (line, number).
const ARRIVALS: TableDefinition<'_, u64, Place<'_>> = TableDefinition::new("arrival");
/// (line, number) → (hash, clock) of that envelope: what is asked for often, without the envelope.
const CHAIN: TableDefinition<'_, Place<'_>, (&[u8; 32], u64)> = TableDefinition::new("chain");
/// line → (number of the last envelope, its hash, its clock).
const AUTHORS: TableDefinition<'_, &[u8; 48], (u64, &[u8; 32], u64)> =
    TableDefinition::new("author");
/// line → [`Past::pack`], for those who have seen somebody.
const PASTS: TableDefinition<'_, &[u8; 48], &[u8]> = TableDefinition::new("past");

/// Where an author's log ends here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEnd {
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
    /// The author's clock in that envelope.
    pub(crate) clock: u64,
}

/// One envelope's name and clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) hash: Hash,
    pub(crate) clock: u64,
}

/// What the tables hold, as it is loaded at start.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) ends: BTreeMap<Line, LogEnd>,
    /// The number that the next envelope gets.
    pub(crate) next_arrival: u64,
}

/// Creates the tables, so that readers need not care whether they exist.
pub(crate) fn create(txn: &WriteTransaction) -> Result<(), StorageError> {
    txn.open_table(LOG)?;
    txn.open_table(CHAIN)?;
    txn.open_table(ARRIVALS)?;
    txn.open_table(AUTHORS)?;
    txn.open_table(PASTS)?;
    fork::create(txn)
}

/// What an author had seen when it wrote the last envelope of a log that is here.
pub(crate) fn past(txn: &WriteTransaction, line: &Line) -> Result<Past, StorageError> {
    let table = txn.open_table(PASTS)?;
    match table.get(&line.to_key())? {
        None => Ok(Past::of(line)),
        Some(row) => {
            Past::unpack(line, row.value()).ok_or(StorageError::Damaged(Damage::Log(line.author)))
        }
    }
}

/// Replaces what [`past`] gives.
pub(crate) fn set_past(
    txn: &WriteTransaction,
    line: &Line,
    past: &Past,
) -> Result<(), StorageError> {
    txn.open_table(PASTS)?
        .insert(&line.to_key(), past.pack().as_slice())?;
    Ok(())
}

/// Forgets what an author had seen, of whom no envelope is left.
pub(crate) fn remove_past(txn: &WriteTransaction, line: &Line) -> Result<(), StorageError> {
    txn.open_table(PASTS)?.remove(&line.to_key())?;
    Ok(())
}

/// Appends an envelope and moves its author's end.
pub(crate) fn append(
    txn: &WriteTransaction,
    line: Line,
    end: LogEnd,
    arrival: u64,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let LogEnd { seq, hash, clock } = end;
    insert(txn, line, seq, arrival, Link { hash, clock }, bytes)?;
    set_end(txn, line, end)
}

/// Stores an envelope, which may be here under another arrival number, and leaves its author's end alone.
pub(crate) fn insert(
    txn: &WriteTransaction,
    line: Line,
    seq: u64,
    arrival: u64,
    link: Link,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let key = line.to_key();
    let row = (link.hash.as_bytes(), link.clock);
    txn.open_table(CHAIN)?.insert((&key, seq), row)?;
    let mut log = txn.open_table(LOG)?;
    let mut arrivals = txn.open_table(ARRIVALS)?;
    if let Some(before) = log.insert((&key, seq), (arrival, bytes))? {
        arrivals.remove(before.value().0)?;
    }
    arrivals.insert(arrival, (&key, seq))?;
    Ok(())
}

/// Moves an author's end without an envelope: after a cut.
pub(crate) fn set_end(txn: &WriteTransaction, line: Line, end: LogEnd) -> Result<(), StorageError> {
    let row = (end.seq, end.hash.as_bytes(), end.clock);
    txn.open_table(AUTHORS)?.insert(&line.to_key(), row)?;
    Ok(())
}

/// Removes an author that has nothing left.
pub(crate) fn remove_end(txn: &WriteTransaction, line: Line) -> Result<(), StorageError> {
    txn.open_table(AUTHORS)?.remove(&line.to_key())?;
    txn.open_table(PASTS)?.remove(&line.to_key())?;
    Ok(())
}

/// Reads all ends.
pub(crate) fn ends(txn: &ReadTransaction) -> Result<Ends, StorageError> {
    let mut ends = BTreeMap::new();
    for row in txn.open_table(AUTHORS)?.iter()? {
        let (key, value) = row?;
        let (seq, hash, clock) = value.value();
        let end = LogEnd {
            seq,
            hash: Hash::from_bytes(*hash),
            clock,
        };
        ends.insert(Line::from_key(*key.value()), end);
    }
    let last = txn
        .open_table(ARRIVALS)?
        .last()?
        .map(|(arrival, _)| arrival.value());
    Ok(Ends {
        ends,
        next_arrival: last.map_or(0, |arrival| arrival + 1),
    })
}

/// One stored envelope.
pub(crate) fn stored(
    txn: &WriteTransaction,
    line: Line,
    seq: u64,
) -> Result<Option<Vec<u8>>, StorageError> {
    let table = txn.open_table(LOG)?;
    let row = table.get((&line.to_key(), seq))?;
    Ok(row.map(|row| row.value().1.to_vec()))
}

/// The arrival number of one stored envelope.
pub(crate) fn arrival(
    txn: &WriteTransaction,
    line: Line,
    seq: u64,
) -> Result<Option<u64>, StorageError> {
    let table = txn.open_table(LOG)?;
    let row = table.get((&line.to_key(), seq))?;
    Ok(row.map(|row| row.value().0))
}

/// An envelope that the tables say is here.
pub(crate) fn sent(txn: &ReadTransaction, line: Line, seq: u64) -> Result<Vec<u8>, StorageError> {
    let log = &txn.open_table(LOG)?;
    Fetch { log, line, seq }.bytes()
}

/// What an author had seen of others, by their actors.
pub(crate) fn seen(
    txn: &ReadTransaction,
    line: &Line,
) -> Result<BTreeMap<Actor, u64>, StorageError> {
    let table = txn.open_table(PASTS)?;
    let Some(row) = table.get(&line.to_key())? else {
        return Ok(BTreeMap::new());
    };
    let past = Past::unpack(line, row.value());
    Ok(past
        .ok_or(StorageError::Damaged(Damage::Log(line.author)))?
        .into_seen())
}

/// The hash of one stored envelope.
pub(crate) fn hash_at(
    txn: &ReadTransaction,
    line: &Line,
    seq: u64,
) -> Result<Option<Hash>, StorageError> {
    let table = txn.open_table(CHAIN)?;
    let row = table.get((&line.to_key(), seq))?;
    Ok(row.map(|row| Hash::from_bytes(*row.value().0)))
}

/// The name and the clock of one stored envelope.
pub(crate) fn link(
    txn: &WriteTransaction,
    line: &Line,
    seq: u64,
) -> Result<Option<Link>, StorageError> {
    let table = txn.open_table(CHAIN)?;
    let row = table.get((&line.to_key(), seq))?;
    Ok(row.map(|row| {
        let (hash, clock) = row.value();
        Link {
            hash: Hash::from_bytes(*hash),
            clock,
        }
    }))
}

/// What comes before the first envelope among these that arrived with that number or later.
pub(crate) fn before_next(
    txn: &ReadTransaction,
    line: Line,
    within: RangeInclusive<u64>,
    arrived: u64,
) -> Result<Option<(u64, [u8; 8])>, StorageError> {
    let (key, table) = (line.to_key(), txn.open_table(LOG)?);
    for row in table.range((&key, *within.start())..=(&key, *within.end()))? {
        let (place, row) = row?;
        let ((_, seq), (arrival, bytes)) = (place.value(), row.value());
        if arrival >= arrived {
            let frame = Frame::read(bytes);
            let frame = frame.map_err(|_| StorageError::Damaged(Damage::Log(line.author)))?;
            return Ok(Some((seq - 1, frame.prev.mark())));
        }
    }
    Ok(None)
}

/// Visits every stored envelope, in the order in which they came.
pub(crate) fn visit(
    txn: &WriteTransaction,
    mut visit: impl FnMut(Line, &[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let (log, arrivals) = (txn.open_table(LOG)?, txn.open_table(ARRIVALS)?);
    for row in arrivals.iter()? {
        let (_, place) = row?;
        let line = Line::from_key(*place.value().0);
        let envelope = log.get(place.value())?;
        let envelope = envelope.ok_or(StorageError::Damaged(Damage::Log(line.author)))?;
        visit(line, envelope.value().1)?;
    }
    Ok(())
}

/// Removes envelopes `from..=to` of an author; returns them in order.
pub(crate) fn remove(
    txn: &WriteTransaction,
    line: Line,
    from: u64,
    to: u64,
) -> Result<Vec<Vec<u8>>, StorageError> {
    let key = line.to_key();
    let mut log = txn.open_table(LOG)?;
    let mut arrivals = txn.open_table(ARRIVALS)?;
    let mut removed = Vec::new();
    if from > to {
        return Ok(removed);
    }
    txn.open_table(CHAIN)?
        .retain_in((&key, from)..=(&key, to), |_, _| false)?;
    // Of an incomplete log few of the numbers may be there.
    for row in log.extract_from_if((&key, from)..=(&key, to), |_, _| true)? {
        let (_, row) = row?;
        let (arrival, bytes) = row.value();
        arrivals.remove(arrival)?;
        removed.push(bytes.to_vec());
    }
    Ok(removed)
}

/// The arrival number from which a peer with `theirs` must be served; `None` if it lacks nothing. What is missing
/// here will come at `gap`, when there is one.
pub(crate) fn first_missing(
    txn: &ReadTransaction,
    ours: &VersionVector,
    theirs: &VersionVector,
    (gap, forks): (Option<&Gap>, &Forks),
) -> Result<Option<u64>, StorageError> {
    let table = txn.open_table(LOG)?;
    let mut first: Option<u64> = None;
    for (line, seq) in ours.iter() {
        // A branch begins after the envelope that it parts from.
        let base = forks.root(line).map_or(0, |root| root.seq);
        let have = theirs.get(line).max(base);
        if have >= seq {
            continue;
        }
        let row = table.get((&line.to_key(), have + 1))?;
        let row = row.map(|row| row.value().0);
        if let Some(arrival) = row.or(gap.map(|gap| gap.next)) {
            first = Some(first.map_or(arrival, |least| least.min(arrival)));
        }
    }
    Ok(first)
}

/// Visits envelopes in arrival order from `from` on, while `visit` asks for more. Returns the
/// arrival number after the last one that was visited and taken.
pub(crate) fn scan(
    txn: &ReadTransaction,
    from: u64,
    mut visit: impl FnMut(Line, u64, u64, Fetch<'_>) -> Result<Scan, StorageError>,
) -> Result<u64, StorageError> {
    let arrivals = txn.open_table(ARRIVALS)?;
    let log = txn.open_table(LOG)?;
    let mut next = from;
    for row in arrivals.range(from..)? {
        let (arrival, place) = row?;
        let (key, seq) = place.value();
        let line = Line::from_key(*key);
        let fetch = Fetch {
            log: &log,
            line,
            seq,
        };
        match visit(line, seq, arrival.value(), fetch)? {
            Scan::Taken => next = arrival.value() + 1,
            Scan::Stop => break,
        }
    }
    Ok(next)
}

/// Whether a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// The envelope was used or skipped; go on.
    Taken,
    /// It was not; stop before it.
    Stop,
}

/// Reads the bytes of the envelope at hand, only when they are wanted.
#[derive(Debug)]
pub(crate) struct Fetch<'a> {
    log: &'a redb::ReadOnlyTable<Place<'static>, Row<'static>>,
    line: Line,
    seq: u64,
}

impl Fetch<'_> {
    pub(crate) fn bytes(self) -> Result<Vec<u8>, StorageError> {
        let row = self.log.get((&self.line.to_key(), self.seq))?;
        let row = row.ok_or(StorageError::Damaged(Damage::Log(self.line.author)))?;
        Ok(row.value().1.to_vec())
    }
}
