//! The kinds of acts of the live fuzzer, how often each comes, and what they are called.

/// One kind of act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Open, truncate, write, close.
    SaveInPlace,
    /// Write beside, rename over.
    SaveByRename,
    /// Keep the old file as `name~`, write anew, as some editors do.
    SaveWithBackup,
    /// Write at the end.
    Append,
    /// Other bytes of the same length, the old modification time put back.
    SaveKeepingTime,
    /// The same, and then a rename.
    SaveKeepingTimeAndRename,
    /// Open and write a part.
    Hold,
    /// Write the rest through what was opened long ago, close.
    Release,
    /// A new modification time, the same bytes.
    Touch,
    /// The executable bit.
    SetMode,
    /// A file under one more name.
    Copy,
    /// A file is deleted.
    Delete,
    /// A file gets another name, also in another directory.
    Rename,
    /// Two files change names.
    Swap,
    /// A directory.
    MakeDirectory,
    /// A directory with everything in it is deleted.
    RemoveTree,
    /// A directory is deleted, made again and filled, as builds do.
    Rebuild,
    /// A directory gets another name, also below another one.
    MoveTree,
    /// A directory is moved away and another of its name put there.
    ReplaceTree,
    /// A symbolic link is made or points elsewhere.
    Link,
    /// A file becomes a directory.
    ChangeKind,
    /// Only the case of a name changes.
    ChangeCase,
    /// What is ignored changes.
    Ignore,
    /// `pause`.
    Pause,
    /// `resume`.
    Resume,
    /// `limit`, to slow or to off.
    Limit,
    /// SIGSTOP.
    Freeze,
    /// SIGCONT.
    Thaw,
    /// SIGKILL.
    Kill,
    /// An orderly stop.
    Stop,
    /// The node starts again.
    Start,
    /// `rescan`.
    Rescan,
    /// Home and folder are copied while the node is down.
    BackUpMachine,
    /// The copy takes their place.
    RestoreMachine,
    /// Only the folder is copied.
    BackUpFolder,
    /// The copy takes its place; the folder itself is put aside.
    RestoreFolder,
    /// The folder is moved out of its place.
    MoveFolderAway,
    /// It is moved back.
    MoveFolderBack,
}

impl Act {
    /// Every kind.
    pub const ALL: [Self; 38] = [
        Self::SaveInPlace,
        Self::SaveByRename,
        Self::SaveWithBackup,
        Self::Append,
        Self::SaveKeepingTime,
        Self::SaveKeepingTimeAndRename,
        Self::Hold,
        Self::Release,
        Self::Touch,
        Self::SetMode,
        Self::Copy,
        Self::Delete,
        Self::Rename,
        Self::Swap,
        Self::MakeDirectory,
        Self::RemoveTree,
        Self::Rebuild,
        Self::MoveTree,
        Self::ReplaceTree,
        Self::Link,
        Self::ChangeKind,
        Self::ChangeCase,
        Self::Ignore,
        Self::Pause,
        Self::Resume,
        Self::Limit,
        Self::Freeze,
        Self::Thaw,
        Self::Kill,
        Self::Stop,
        Self::Start,
        Self::Rescan,
        Self::BackUpMachine,
        Self::RestoreMachine,
        Self::BackUpFolder,
        Self::RestoreFolder,
        Self::MoveFolderAway,
        Self::MoveFolderBack,
    ];

    /// The kinds that the suite runs: what the product is known to stand. Files that are held open are not among them:
    /// what is written through a handle just as the file is replaced may be in the trash only.
    pub const SUITE: [Self; 23] = [
        Self::SaveInPlace,
        Self::SaveByRename,
        Self::SaveWithBackup,
        Self::Append,
        Self::Touch,
        Self::Copy,
        Self::Delete,
        Self::Rename,
        Self::Swap,
        Self::MakeDirectory,
        Self::RemoveTree,
        Self::MoveTree,
        Self::ReplaceTree,
        Self::SetMode,
        Self::Ignore,
        Self::Pause,
        Self::Resume,
        Self::Kill,
        Self::Stop,
        Self::Start,
        Self::Rescan,
        Self::MoveFolderAway,
        Self::MoveFolderBack,
    ];

    /// How often it comes, compared with the others.
    pub(crate) fn weight(self) -> u32 {
        match self {
            Self::SaveInPlace | Self::SaveByRename => 12,
            Self::Append | Self::Delete | Self::Rename | Self::MoveTree => 6,
            Self::Thaw | Self::Start | Self::Resume | Self::Release => 6,
            Self::Swap | Self::RemoveTree | Self::Rebuild | Self::Hold | Self::Kill => 4,
            Self::Freeze | Self::MakeDirectory | Self::Copy | Self::SaveWithBackup => 4,
            Self::BackUpMachine
            | Self::RestoreMachine
            | Self::BackUpFolder
            | Self::RestoreFolder
            | Self::MoveFolderAway
            | Self::Ignore => 1,
            Self::SaveKeepingTime
            | Self::SaveKeepingTimeAndRename
            | Self::Touch
            | Self::SetMode
            | Self::ReplaceTree
            | Self::Link
            | Self::ChangeKind
            | Self::ChangeCase
            | Self::Pause
            | Self::Limit
            | Self::Stop
            | Self::Rescan
            | Self::MoveFolderBack => 2,
        }
    }

    /// Whether it happens to a node or to a whole folder, not in one.
    pub(crate) fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Pause
                | Self::Resume
                | Self::Limit
                | Self::Freeze
                | Self::Thaw
                | Self::Kill
                | Self::Stop
                | Self::Start
                | Self::Rescan
                | Self::BackUpMachine
                | Self::RestoreMachine
                | Self::BackUpFolder
                | Self::RestoreFolder
                | Self::MoveFolderAway
                | Self::MoveFolderBack
        )
    }

    /// The kind of this name, as in `SaveInPlace`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| format!("{kind:?}") == name)
    }
}
