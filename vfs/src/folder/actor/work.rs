//! The steps that the actor lends the engine for, one at a time on the blocking pool.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;
use wormhole_crdt::{EntryId, EntryKey};
use wormhole_store::{ImportError, Imported};

use crate::error::FolderError;
use crate::folder::engine::{Engine, Look, Outcome, Todo};
use crate::folder::name::Place;
use crate::folder::partial::PartialFile;
use crate::folder::record::Answer;
use crate::folder::scan::{Walk, Walked};
use crate::folder::settle::Due;

/// What there is to do.
pub(super) enum Work {
    Check(Vec<Due>),
    /// Read renamed files again.
    ReadAgain(Vec<PathBuf>),
    /// Look whether the watches are where they should be, from here on.
    AuditWatches(Option<PathBuf>),
    Imported(Look, Result<Imported, ImportError>),
    Finish(Vec<Arc<PartialFile>>),
    Apply(Vec<EntryKey>),
    Withdraw(Vec<EntryKey>),
    Audit(Vec<EntryId>),
    Scan(Walk),
    Judge(Vec<Place>),
    /// Do what a person says of this list of held deletions.
    AnswerHeld(u64, Answer, oneshot::Sender<Option<u64>>),
    /// Remove unfinished files but these.
    Tidy(HashSet<OsString>),
    /// Remove from the trash what is too old or too much.
    ClearTrash,
    /// Remove these unfinished files.
    DropParts(Vec<OsString>),
    Flush,
}

/// What came of it.
pub(super) enum Done {
    Todo(Todo),
    Applied(Vec<EntryKey>, Todo),
    Audited(Vec<EntryId>, Todo),
    Scanned(Walk, Walked, Todo),
    Judged(Todo),
    /// Where to go on, if there is more.
    WatchesAudited(Option<PathBuf>, Todo),
    /// How many entries that concerned, and who waits to hear it.
    Answered(oneshot::Sender<Option<u64>>, Option<u64>, Todo),
    /// Directories to scan again.
    Flushed(Vec<PathBuf>),
}

/// Does one step, on the blocking pool.
pub(super) fn perform(engine: &mut Engine, work: Work) -> Outcome<Done> {
    Ok(match work {
        Work::Check(due) => Done::Todo(engine.check(due)?),
        Work::ReadAgain(paths) => Done::Todo(engine.read_again(paths)?),
        Work::AuditWatches(after) => {
            let (todo, next) = engine.audit_watches(after)?;
            Done::WatchesAudited(next, todo)
        }
        Work::Imported(look, result) => Done::Todo(engine.imported(look, result)?),
        Work::Finish(files) => Done::Todo(engine.finish(files)?),
        Work::Apply(keys) => {
            let todo = engine.apply(&keys)?;
            Done::Applied(keys, todo)
        }
        Work::Withdraw(keys) => {
            let todo = engine.withdraw(&keys)?;
            Done::Applied(keys, todo)
        }
        Work::Audit(mut stack) => {
            let todo = engine.audit(&mut stack)?;
            Done::Audited(stack, todo)
        }
        Work::Scan(mut walk) => {
            if walk.is_whole() {
                engine.is_itself().map_err(FolderError::Stopped)?;
            }
            let (walked, todo) = engine.scan(&mut walk)?;
            Done::Scanned(walk, walked, todo)
        }
        Work::Judge(missing) => Done::Judged(engine.judge_missing(missing)?),
        Work::AnswerHeld(list, answer, reply) => {
            let (entries, todo) = engine.answer_held(list, answer)?;
            Done::Answered(reply, entries, todo)
        }
        Work::Tidy(keep) => Done::Todo(engine.tidy(&keep)?),
        Work::ClearTrash => Done::Todo(engine.clear_trash()?),
        Work::DropParts(names) => Done::Todo(engine.drop_parts(&names)?),
        Work::Flush => Done::Flushed(engine.flush()?),
    })
}
