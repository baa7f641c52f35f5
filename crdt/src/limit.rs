//! Every bound of this crate, with its reason. A peer that goes over one is at fault.
//!
//! The bounds on single names, link targets and paths are in `name` and `entry`, beside their parsers.

/// How many parts the id space has. A change writes to one of them, so one part may be damaged or
/// numbered wrongly without a trace in the others; 4,096 are 250 entries each in a mesh of one million.
pub const BUCKET_COUNT: u16 = 4096;

/// The biggest message between two sessions. One read buffer per peer has this size.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The biggest envelope: it must fit into one message, with room for the message's own header.
pub const MAX_ENVELOPE_BYTES: usize = 768 << 10;

/// The biggest change to one bucket. A batch that creates 500 files in a directory needs 130 KiB.
pub const MAX_CHANGE_BYTES: usize = 256 << 10;

/// Operations in one change. More in one change would make one small envelope slow for everybody.
pub const MAX_CHANGE_OPS: usize = 4096;

/// Bytes of a change that each operation takes at least: its key alone is a letter and an id of 22 characters.
/// Columns are run-length encoded, so that without this a hundred bytes could stand for [`MAX_CHANGE_OPS`].
pub const CHANGE_OP_BYTES: usize = 16;

/// Earlier operations that one change may name as replaced. One for each operation is usual.
pub const MAX_CHANGE_REPLACED: usize = 16 * MAX_CHANGE_OPS;

/// Changes (one per touched bucket) in one envelope.
pub const MAX_ENVELOPE_CHANGES: usize = 2048;

/// The biggest packed register value: a symlink's target of 4,095 bytes and two lists of 64 versions.
pub const MAX_VALUE_BYTES: usize = 8 << 10;

/// Other authors that one envelope may name as newly seen. A mesh has fewer lives of devices.
pub const MAX_ENVELOPE_DEPS: usize = 4096;

/// Extensions in the head of one envelope.
pub const MAX_EXTENSIONS: usize = 64;

/// Entries in a version vector: every life of every device that ever wrote. What is beyond is kept aside.
pub const MAX_VECTOR_AUTHORS: usize = 16 * 1024;

/// Lives of one device that are taken without somebody else having built on them. A device starts a new
/// one when it is restored from a backup.
pub const MAX_DEVICE_LIVES: usize = 256;

/// Branches of one life beside its first that are taken without somebody else having built on them. An honest device
/// closes a life as soon as it hears of one; each costs everybody a look at the author's log.
pub const MAX_BRANCHES: usize = 8;

/// The biggest file that a content may claim to be. Sums over all files of a mesh fit into 64 bits.
pub const MAX_FILE_BYTES: u64 = 1 << 60;

/// How far one envelope may move the logical clock ahead of its causes and of its author's envelope before. Honest
/// clocks move by one per operation; without a bound one hostile stamp at the end of the range would beat or
/// block every later writer. What the receiver has seen beside that plays no part: all must judge alike.
pub const MAX_CLOCK_LEAP: u64 = 1 << 32;

/// Membership records of one admin that are kept. What is beyond waits until another admin builds on it.
pub const MAX_AUTHOR_RECORDS: usize = 8 * 1024;

/// Bytes of the membership records of one admin: so many admissions of usual size, and some with long cuts.
pub const MAX_AUTHOR_RECORD_BYTES: usize = 4 << 20;

/// The biggest record by which a member says that it goes. There is one for each admission.
pub const MAX_LEAVE_BYTES: usize = 512;

/// Heads of the membership log that one device tells another. With all ends of logs they fit into one message.
pub const MAX_TOLD_HEADS: usize = 1024;

/// The biggest membership record: a revocation names the last number of each life of a device.
pub const MAX_MEMBER_RECORD_BYTES: usize = 16 << 10;

/// Heads that a membership record or an envelope may cite: concurrent admins.
pub const MAX_MEMBER_HEADS: usize = 64;

/// The longest name of a mesh or device, in bytes.
pub const MAX_LABEL_BYTES: usize = 128;

/// Bytes of a bucket's registers at which new entries of a directory spill into another bucket: about 250
/// entries, the mean of a mesh of one million.
pub const BUCKET_SPILL_BYTES: u64 = 64 << 10;

/// Own last envelopes that a hello proves to their author: one of each of its lives, the latest ones.
pub const MAX_PROOFS: usize = 64;

/// Lines of one author whose trails are compared. An author has more only with the help of others.
pub const MAX_TRAILS: usize = 64;

/// Envelopes in a trail: the distances between them double.
pub const MAX_TRAIL: usize = 72;

/// How often one session asks again for envelopes whose causes are missing before it gives up. An
/// honest peer sends in causal order, so that even one is unusual.
pub const MAX_REASKS: u32 = 16;

/// Envelopes of removed members that are kept aside. What does not fit is dropped: should it ever count,
/// those who have it send it again.
pub const MAX_QUARANTINED: u64 = 4096;

/// Envelopes of one author that are held because this program is too old to read them. What does not fit comes again
/// when it is not any more.
pub const MAX_HELD: usize = 256;

/// How far releasing one envelope from quarantine may lead to releasing another: removed members may
/// have built on one another, but a hostile pair must not exhaust the stack.
pub const MAX_RELEASE_DEPTH: u32 = 32;

/// A snapshot is worth its while when the logs hold this many times as many writes as there are registers, and
/// as many times as many envelopes as are alive. Below, the log is nearly as quick, and the rest of it has to be
/// fetched afterwards anyway.
pub const SNAPSHOT_RATIO: u64 = 4;

/// Envelopes in all logs below which a new device always gets the logs: some seconds at most.
pub const SNAPSHOT_FROM: u64 = 4096;

/// Envelopes of all logs together that a snapshot may stand for: more than all devices ever write, and
/// few enough that arrival numbers never run out.
pub const MAX_SNAPSHOT_ENVELOPES: u64 = 1 << 48;

/// Commits in a row that wait for a later one to become durable. The pages that they free cannot be used again
/// before that, so that without a bound an import would blow up the database file.
pub const MAX_VOLATILE_COMMITS: u32 = 32;

/// The biggest list of an epoch's secret sealed for members: 6,553 of them. With a record of the largest size it fits
/// into one message.
pub const MAX_KEYS_BYTES: usize = 512 << 10;

/// Epochs that one device tells another that it knows. With a proof of each they fit into one message.
pub const MAX_TOLD_EPOCHS: usize = 16 * 1024;

/// Members who left that one rotation names. There may be another right after it.
pub const MAX_ROTATION_LEAVES: usize = 256;
