//! How much a layer may take: of the disk, of inodes, and compared with what was downloaded.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::super::excerpt::excerpt_bytes;
use super::error::UnpackError;

/// Most files and directories of one layer; the largest public images have a few hundred thousand.
const ENTRIES_MAX: u64 = 2_000_000;
/// Up to here the ratio does not matter: an honest layer may hold a large file of zeros.
const RATIO_FREE_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Beyond, at most this many bytes per compressed byte. Text compresses about 10 to 1; gzip cannot exceed 1032 to 1.
const RATIO_MAX: u64 = 200;
/// Entries at least this big are compared with the free space before the first byte is written.
const DECLARED_CHECK_BYTES: u64 = 1024 * 1024;

/// What one layer has taken so far.
pub(super) struct Budget {
    /// On the file system where the layer goes.
    dir: OwnedFd,
    /// The store, as messages call it.
    store: PathBuf,
    entries: u64,
}

impl Budget {
    pub(super) fn new(dir: OwnedFd, store: PathBuf) -> Self {
        Self { dir, store, entries: 0 }
    }

    pub(super) fn store(&self) -> PathBuf {
        self.store.clone()
    }

    /// One more file or directory.
    pub(super) fn take_entry(&mut self) -> Result<(), UnpackError> {
        self.entries += 1;
        if self.entries <= ENTRIES_MAX {
            return Ok(());
        }
        Err(UnpackError::TooManyEntries { what: "files and directories", limit: ENTRIES_MAX })
    }

    /// A file that declares `needed_bytes`: refused before it fills the disk for nothing.
    pub(super) fn check_declared(&self, path: &[u8], needed_bytes: u64) -> Result<(), UnpackError> {
        if needed_bytes < DECLARED_CHECK_BYTES {
            return Ok(());
        }
        // A file system that does not tell is left to say ENOSPC.
        let Ok(status) = rustix::fs::fstatvfs(self.dir.as_fd()) else { return Ok(()) };
        let free_bytes = status.f_bavail.saturating_mul(status.f_frsize);
        if needed_bytes <= free_bytes {
            return Ok(());
        }
        Err(UnpackError::Declared { path: excerpt_bytes(path), needed_bytes, free_bytes, dir: self.store.clone() })
    }
}

/// Refuses data that expands as only bombs do.
pub(super) fn check_ratio(packed_bytes: u64, unpacked_bytes: u64) -> Result<(), UnpackError> {
    if unpacked_bytes > RATIO_FREE_BYTES && unpacked_bytes / RATIO_MAX > packed_bytes {
        return Err(UnpackError::Bomb { packed_bytes, unpacked_bytes, ratio_max: RATIO_MAX });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_counts_only_beyond_the_free_part() {
        assert!(check_ratio(1, RATIO_FREE_BYTES).is_ok());
        let packed = RATIO_FREE_BYTES / RATIO_MAX;
        assert!(check_ratio(packed + 1, RATIO_FREE_BYTES + 1).is_ok());
        let error = check_ratio(packed - 1, RATIO_FREE_BYTES + 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "4294967297 bytes come out of 21474835 compressed ones, more than 200 times as many: this looks like a decompression bomb"
        );
    }

    #[test]
    fn entries_end_at_their_limit() {
        let dir = rustix::fs::open("/tmp", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let mut budget = Budget::new(dir, "/tmp".into());
        budget.entries = ENTRIES_MAX - 1;
        assert!(budget.take_entry().is_ok());
        assert_eq!(budget.take_entry().unwrap_err().to_string(), "it holds more than 2000000 files and directories");
    }
}
