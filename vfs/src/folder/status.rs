//! What people are told about a folder: its phase, what is waiting, what is wrong and what to do about it.
//!
//! Plain data; the engine fills it, the handle hands it out through a watch channel.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::trash::TrashSize;

/// A snapshot of a folder, replaced as a whole whenever something a user could care about changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderStatus {
    /// What the folder is doing.
    pub phase: Phase,
    /// What is synced at the moment.
    pub counts: Counts,
    /// How many files are known to the mesh but not here yet.
    pub pending_files: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// The first [`FolderStatus::LISTED`] of them.
    pub pending: Vec<Waiting>,
    /// The first [`FolderStatus::LISTED`] problems.
    pub problems: Vec<Problem>,
    /// How many problems there are in all.
    pub problem_count: u64,
    /// What vanished from the disk and waits for a person.
    pub held: HeldDeletions,
    /// What is kept of what others removed or replaced.
    pub trash: TrashSize,
    /// True when everything seen on disk is recorded and everything known to the mesh is here.
    pub settled: bool,
    /// True when nothing is under way: whatever is not here is in `problems`, and stays so until somebody does something
    /// about that.
    pub at_rest: bool,
}

impl FolderStatus {
    /// How many pending files and problems a snapshot lists at most.
    pub const LISTED: usize = 200;
}

/// What vanished from the disk and waits for [`super::Folder::confirm_deletions`] or
/// [`super::Folder::undo_deletions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldDeletions {
    /// How many entries; 0 when none waits.
    pub entries: u64,
    /// The first [`FolderStatus::LISTED`] files and whole directories, relative to the folder, safe to print.
    pub paths: Vec<Arc<str>>,
    /// Names this list; another list has another name.
    pub list: u64,
}

/// What a folder is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Comparing the directory with what was last synced.
    #[default]
    Scanning,
    /// Recording or applying changes.
    Syncing,
    /// Nothing to do.
    UpToDate,
    /// Told to pause.
    Paused,
    /// Stopped; nothing is read or written until it is started again.
    Stopped(StopReason),
}

/// Why a folder stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The folder was told to stop.
    Asked,
    /// The directory is not there any more, or another one stands in its place.
    DirectoryGone,
    /// The marker inside the directory is gone: the disk may be unmounted or the directory was emptied.
    MarkerGone,
    /// The marker belongs to another binding.
    MarkerForeign,
    /// A copy of the directory that was made earlier stands in its place.
    OlderCopy,
    /// The database of what was last synced cannot be written; what it said is in the log.
    StateFailed,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "stopped",
            Self::DirectoryGone => {
                "the directory is not in its place any more (moved, deleted, or its disk unmounted?); nothing was \
                 deleted anywhere; it goes on when its disk is back, or say where it is now: wormhole move DIR \
                 NEWDIR; or unbind it"
            }
            Self::MarkerGone => {
                "the folder's marker .wormhole/folder is gone (disk not mounted, or emptied?); nothing was deleted \
                 anywhere; it goes on when its disk is back; if the files are lost, unbind it, and sync the mesh \
                 into it again"
            }
            Self::MarkerForeign => {
                "the folder's marker .wormhole/folder belongs to another binding; nothing was changed; unbind the \
                 folder or choose another directory"
            }
            Self::OlderCopy => {
                "a copy of this folder that was made earlier stands in its place; nothing was deleted anywhere; it is \
                 compared afresh"
            }
            Self::StateFailed => "this folder's database failed (the log says how); it is opened again by itself",
        })
    }
}

/// How much is synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// A file that the mesh has and this folder does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Where it will be, relative to the folder, safe to print.
    pub path: Arc<str>,
    /// Its size.
    pub bytes: u64,
    /// What it waits for.
    pub reason: WaitingFor,
}

/// What a pending file waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingFor {
    /// Its turn, or its bytes are coming now.
    Transfer,
    /// A device that has it.
    Holder,
    /// Space on this disk.
    Space,
    /// This disk to be mounted writable.
    ReadOnlyDisk,
    /// Another try after an error on this disk.
    Disk,
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transfer => "is being transferred",
            Self::Holder => "no connected device has it; connect one that does",
            Self::Space => "this disk is full; free some space",
            Self::ReadOnlyDisk => "this disk is read-only; mount it writable",
            Self::Disk => "could not be written; it is tried again",
        })
    }
}

/// Something that keeps a path from being synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Relative to the folder, safe to print.
    pub path: Arc<str>,
    /// What is wrong.
    pub reason: Reason,
}

/// Why a path is not synced. Display says what happened, [`Reason::action`] what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The name is not UTF-8.
    NameNotUtf8,
    /// The name is not allowed in a mesh.
    NameRefused,
    /// This file system cannot hold the name.
    NameUnsupported,
    /// Another name in the same directory differs only in case or accents.
    CaseClash {
        /// The other name, safe to print.
        other: String,
    },
    /// A socket, pipe or device.
    SpecialFile,
    /// On another file system than the folder.
    OtherFileSystem,
    /// A link whose target is not UTF-8 or too long.
    LinkTarget,
    /// No permission to read or write.
    Permission,
    /// The file system is read-only.
    ReadOnlyDisk,
    /// No space left.
    NoSpace {
        /// What the file needs.
        bytes_needed: u64,
    },
    /// The system's limit of directory watches is reached.
    WatchLimit,
    /// Changes made here by a read-only member.
    ReadOnlyMember,
    /// A local change of a read-only member stood in the way and was kept under this name.
    KeptAside {
        /// The new name.
        name: String,
    },
    /// The directory was deleted elsewhere but holds files that are not synced.
    KeptDirectory,
    /// Deletions wait for a person.
    DeletionHeld {
        /// How many entries vanished.
        entries: u64,
    },
    /// An ignore file cannot be read, or has a line that cannot be understood.
    IgnoreRule {
        /// What the parser said.
        message: String,
    },
    /// Reading or writing failed.
    Io {
        /// What the system said.
        message: String,
    },
    /// The mesh's metadata refused the change.
    Refused {
        /// What it said.
        message: String,
    },
}

impl Reason {
    /// What the user can do.
    pub fn action(&self) -> &'static str {
        match self {
            Self::NameNotUtf8 | Self::NameRefused | Self::CaseClash { .. } => "rename it",
            Self::NameUnsupported => "rename it on another device",
            Self::SpecialFile | Self::OtherFileSystem => {
                "ignore it in .wormholeignore, or move it away"
            }
            Self::LinkTarget => "change the link",
            Self::Permission => "give this user permission; it is tried again by itself",
            Self::ReadOnlyDisk => "mount the disk writable; it is tried again by itself",
            Self::NoSpace { .. } => "free some space; it is tried again by itself",
            Self::WatchLimit => "raise it: sudo sysctl fs.inotify.max_user_watches=1048576",
            Self::ReadOnlyMember => {
                "ask an admin of the mesh to make this device a writer, or undo the change"
            }
            Self::KeptAside { .. } => "compare the two files, then move the copy away",
            Self::KeptDirectory => "delete or move what is left in it",
            Self::DeletionHeld { .. } => {
                "pass the deletions on: wormhole confirm-deletions DIR; or have the files back: wormhole \
                 confirm-deletions DIR --undo"
            }
            Self::IgnoreRule { .. } => "correct the line, or let the file be read",
            Self::Io { .. } => "see the message; it is tried again by itself",
            Self::Refused { .. } => "see the message",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameNotUtf8 => f.write_str("the name is not valid UTF-8"),
            Self::NameRefused => f.write_str("the name is not allowed in a mesh"),
            Self::NameUnsupported => f.write_str("this file system cannot hold the name"),
            Self::CaseClash { other } => {
                write!(f, "{other} differs only in case or accents, which not every system can tell apart")
            }
            Self::SpecialFile => f.write_str("sockets, pipes and devices are not synced"),
            Self::OtherFileSystem => f.write_str("another file system is mounted here"),
            Self::LinkTarget => f.write_str("the link's target is not UTF-8 or too long"),
            Self::Permission => f.write_str("permission denied"),
            Self::ReadOnlyDisk => f.write_str("the file system is read-only"),
            Self::NoSpace { bytes_needed } => write!(f, "no space left for {bytes_needed} bytes"),
            Self::WatchLimit => {
                f.write_str("the system's limit of watched directories is reached; changes are found by scanning")
            }
            Self::ReadOnlyMember => {
                f.write_str("changed here, but this device is a read-only member; the change stays on this device")
            }
            Self::KeptAside { name } => {
                write!(f, "changed here by a read-only member and in the mesh; the local version is now {name}")
            }
            Self::KeptDirectory => f.write_str("deleted elsewhere, but it holds files that are not synced"),
            Self::DeletionHeld { entries } => {
                write!(f, "{entries} entries vanished at once; their deletion waits for you")
            }
            Self::IgnoreRule { message } | Self::Io { message } | Self::Refused { message } => {
                f.write_str(message)
            }
        }
    }
}

/// The answer to "why is this file not synced?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// Here and in the mesh, the same.
    Synced,
    /// The same, and one of two versions that were written apart: the other has the name without the suffix.
    Conflict,
    /// Left out by this rule of this ignore file.
    Ignored {
        /// The pattern.
        rule: String,
        /// The file it stands in, relative to the folder.
        file: PathBuf,
    },
    /// Seen to change; recorded once it is quiet.
    Settling,
    /// In the mesh, not here yet.
    Waiting(WaitingFor),
    /// On disk, not yet compared or recorded.
    Unrecorded,
    /// Something is wrong.
    Problem(Reason),
    /// Neither here nor in the mesh.
    Unknown,
    /// The whole folder is stopped.
    Stopped(StopReason),
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synced => f.write_str("synced"),
            Self::Conflict => f.write_str(
                "synced; it is one of two versions that were written apart: compare them and delete one",
            ),
            Self::Ignored { rule, file } => write!(f, "ignored by {rule} in {}", file.display()),
            Self::Settling => f.write_str("still changing; it is recorded once it is quiet"),
            Self::Waiting(reason) => reason.fmt(f),
            Self::Unrecorded => f.write_str("not recorded yet; its turn comes"),
            Self::Problem(reason) => write!(f, "{reason}; {}", reason.action()),
            Self::Unknown => f.write_str("neither in this folder nor in the mesh"),
            Self::Stopped(reason) => reason.fmt(f),
        }
    }
}
