//! Why a layer cannot be unpacked.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::super::digest::Digest;
use super::super::excerpt::excerpt_bytes;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The compressed data is damaged or ends early.
    #[error("its data is damaged or cut short")]
    Read(#[source] io::Error),
    /// The archive ends inside an entry.
    #[error("it ends in the middle of {place}: the data is cut short")]
    Truncated {
        /// `a header`, or the entry.
        place: String,
    },
    /// Not a tar archive we understand.
    #[error("it is not a valid tar archive: {reason} (at byte {offset})")]
    Format {
        /// Where in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Compressed with something other than gzip or zstd.
    #[error("it is compressed with {format}, which images may not use; build it again with gzip or zstd")]
    Compression {
        /// Name of the format.
        format: &'static str,
    },
    /// One entry asks for what a layer may not do.
    #[error("entry `{path}` {problem}")]
    Entry {
        /// Its name, shortened.
        path: String,
        /// What it asks for.
        problem: EntryProblem,
    },
    /// Far more data comes out than went in.
    #[error(
        "{unpacked_bytes} bytes come out of {packed_bytes} compressed ones, more than {ratio_max} times as many: this looks like a decompression bomb"
    )]
    Bomb {
        /// Bytes read so far.
        packed_bytes: u64,
        /// Bytes that came out.
        unpacked_bytes: u64,
        /// The limit.
        ratio_max: u64,
    },
    /// More files than any image has.
    #[error("it holds more than {limit} {what}")]
    TooManyEntries {
        /// `entries`, or a kind of them.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An entry declares more than fits.
    #[error(
        "entry `{path}` declares {needed_bytes} bytes, but only {free_bytes} are free in {dir}; free some space there, or set BULKHEAD_DATA to a directory on a larger disk"
    )]
    Declared {
        /// Its name, shortened.
        path: String,
        /// What it declares.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
        /// The store.
        dir: PathBuf,
    },
    /// The disk is full.
    #[error(
        "no space is left in {dir} (while writing `{path}`); free some space there, or set BULKHEAD_DATA to a directory on a larger disk"
    )]
    DiskFull {
        /// Name of the entry, shortened.
        path: String,
        /// The store.
        dir: PathBuf,
    },
    /// The bytes are not the ones that were asked for.
    #[error("its {what} does not match: expected {expected}, got {actual}; the image was damaged or tampered with")]
    Digest {
        /// `digest` or `diff id`.
        what: &'static str,
        /// What the manifest or the configuration says.
        expected: Digest,
        /// What the data has.
        actual: Digest,
    },
    /// The host's file system refused.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what, shortened.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The caller has given up.
    #[error("unpacking was interrupted")]
    Cancelled,
}

/// What is wrong with an entry; reads after the entry's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// `..` in a name.
    #[error("has `..` in its name: it would leave the layer")]
    DotDot,
    /// `..` in the target of a hard link.
    #[error("is a hard link to `{target}`: it would leave the layer")]
    LinkDotDot {
        /// As declared.
        target: String,
    },
    /// Longer than Linux allows.
    #[error("has a {part} of {length} bytes; Linux allows {limit}")]
    TooLong {
        /// `name`, `path` or `symlink target`.
        part: &'static str,
        /// What it has.
        length: usize,
        /// What it may have.
        limit: usize,
    },
    /// Nested deeper than we remove again safely.
    #[error("lies more than {limit} directories deep")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Something that is no name.
    #[error("has {what}")]
    BadName {
        /// What is wrong.
        what: &'static str,
    },
    /// A path through something that cannot hold entries.
    #[error("lies below `{ancestor}`, which is not a directory")]
    UnderFile {
        /// The ancestor.
        ancestor: String,
    },
    /// A path through a symlink without a target in the layer.
    #[error("lies below the symlink `{ancestor}`, which leads to no directory of this layer")]
    UnderDeadSymlink {
        /// The symlink.
        ancestor: String,
    },
    /// A path through symlinks that lead in a circle.
    #[error("lies below `{ancestor}`, where symlinks lead in a circle")]
    SymlinkLoop {
        /// The symlink.
        ancestor: String,
    },
    /// A hard link without a target.
    #[error("is a hard link to `{target}`, which this layer does not have")]
    LinkTargetMissing {
        /// As declared.
        target: String,
    },
    /// A hard link to a directory.
    #[error("is a hard link to the directory `{target}`")]
    LinkToDirectory {
        /// As declared.
        target: String,
    },
    /// A whiteout of `.` or `..`, or of nothing.
    #[error("would remove {what}: a whiteout names one entry of its own directory")]
    BadWhiteout {
        /// `its own directory`, `its parent directory` or `nothing`.
        what: &'static str,
    },
    /// Not a kind of file that layers hold.
    #[error("is {what}, which is not supported in a layer")]
    Unsupported {
        /// The kind.
        what: String,
    },
}

impl UnpackError {
    pub(super) fn entry(path: &[u8], problem: EntryProblem) -> Self {
        Self::Entry { path: excerpt_bytes(path), problem }
    }

    /// A problem met at an entry's directory is one of the entry.
    pub(super) fn of_entry(self, path: &[u8]) -> Self {
        match self {
            Self::Entry { problem, .. } => Self::entry(path, problem),
            other => other,
        }
    }
}

/// A fault that a reader in the middle of the chain found: travels inside an `io::Error` and comes out as itself.
#[derive(Debug, thiserror::Error)]
#[error("the stream was stopped")]
pub(super) struct StreamFault(pub(super) std::sync::Mutex<Option<UnpackError>>);

impl StreamFault {
    pub(super) fn into_io(error: UnpackError) -> io::Error {
        io::Error::other(Self(std::sync::Mutex::new(Some(error))))
    }
}

/// Turns an error of the reader chain into what it is about.
pub(super) fn from_read(error: io::Error) -> UnpackError {
    let carried = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<StreamFault>())
        .and_then(|fault| fault.0.lock().ok()?.take());
    carried.unwrap_or(UnpackError::Read(error))
}

/// Whether the file system has no room, or its owner no quota.
pub(crate) fn is_disk_full(errno: Option<i32>) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|full| Some(full.raw_os_error()) == errno)
}
