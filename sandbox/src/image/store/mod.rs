//! The image store on disk: who may touch what, and what a crash leaves behind.
//!
//! ```text
//! DATA/lock                    held shared while anything is added, exclusively to sweep
//! DATA/images.json             which images there are (records.rs); replaced as a whole, under images.lock
//! DATA/blobs/sha256/HEX        manifests and configurations; layers only until they are unpacked
//! DATA/ingest/HEX              a download that is not complete, locked by who writes it
//! DATA/staging/RANDOM/         a layer that is being unpacked or removed
//! DATA/layers/sha256/CHAIN/    an unpacked layer: fs/ and layer.json; locked shared by the sandboxes that use it
//! ```
//!
//! **Crashes.** A layer appears by one rename and disappears by one. `images.json` is written last, after syncfs(2) has put
//! everything on the disk: one sync an image, where one a file would cost seconds. What no record names is garbage, and the
//! next command sweeps it (sweep.rs) unless somebody is adding to the store. So neither SIGKILL nor a power cut leaves an
//! image that looks whole and is not.
//!
//! **Layers** are named by chain id (OCI image-spec 1.1, config.md, "Layer ChainID"), since directories that a layer leaves
//! out take their attributes from the layers below.

mod layers;
mod records;
mod sweep;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::digest::Digest;
use super::unpack::is_disk_full;

pub(crate) use layers::{LayerLock, Staging};
pub(crate) use records::Record;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Ownership and whiteouts of layers need root.
    #[error("the image store needs root: run this command as root, for example with sudo")]
    NotRoot,
    /// The host's file system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space is left in {dir}; free some space there, or set BULKHEAD_DATA to a directory on a larger disk")]
    DiskFull {
        /// The store.
        dir: PathBuf,
    },
    /// `images.json` is not what we write.
    #[error("{path} is damaged; move it away, then pull the images again")]
    Records {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// `images.json` is of a later version.
    #[error(
        "{path} has version {found}, this sandbox knows version {known}; use a newer sandbox, or set BULKHEAD_DATA to another directory"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A blob's bytes have changed on disk.
    #[error("{path} is damaged; remove the image and pull it again")]
    Damaged {
        /// The blob.
        path: PathBuf,
    },
}

/// The store in one data directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// While it lives, nothing is swept.
#[derive(Debug)]
pub(crate) struct Lease {
    _lock: File,
}

impl Store {
    /// Opens the store, making it if it is not there, and sweeps what killed commands have left.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        if !rustix::process::geteuid().is_root() {
            return Err(StoreError::NotRoot);
        }
        let store = Self { root: root.to_owned() };
        for dir in ["", "blobs/sha256", "ingest", "staging", "layers/sha256"] {
            let path = root.join(dir);
            // Layers hold set-user-ID programs of strangers: nobody else may come near them.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| store.failed("make the directory", &path, source))?;
        }
        store.sweep(&[])?;
        Ok(store)
    }

    /// Where the store is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Keeps sweepers out. Waits for one that is at work.
    pub(crate) fn lease(&self) -> Result<Lease, StoreError> {
        self.lock_file("lock", FlockOperation::LockShared).map(|lock| Lease { _lock: lock })
    }

    fn lock_file(&self, name: &str, operation: FlockOperation) -> Result<File, StoreError> {
        let path = self.root.join(name);
        let file = open_lock(&path).map_err(|source| self.failed("open", &path, source))?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(self.failed("lock", &path, errno.into())),
            }
        }
    }

    /// Where a complete blob lies.
    pub(crate) fn blob_path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Where an incomplete download lies.
    pub(crate) fn ingest_path(&self, digest: Digest) -> PathBuf {
        self.root.join("ingest").join(digest.hex())
    }

    /// Drops a layer's blob: it is unpacked, or turned out to be wrong.
    pub(crate) fn forget_download(&self, digest: Digest) {
        // It may not be there; what cannot be removed is swept when it is old.
        let _ = fs::remove_file(self.blob_path(digest));
    }

    /// A blob of at most `limit` bytes, checked against its digest; `None` if it is not here.
    pub(crate) fn read_blob(&self, digest: Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)) {
            Ok(_) if Digest::of(&bytes) == digest => Ok(Some(bytes)),
            Ok(_) => Err(StoreError::Damaged { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("read", &path, source)),
        }
    }

    /// Keeps a small blob, such as a manifest.
    pub(crate) fn write_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        self.replace(&self.blob_path(digest), bytes)?;
        Ok(digest)
    }

    /// Replaces a file as a whole: after a crash it has the old contents or the new ones.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = self.root.join("staging").join(format!("file-{}", random_name()));
        let written = (|| {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
        })();
        written.map_err(|source| {
            // Left where it is, the next sweep takes it.
            let _ = fs::remove_file(&temporary);
            self.failed("write", path, source)
        })
    }

    /// What the kernel said, or that the disk is full.
    pub(crate) fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> StoreError {
        if is_disk_full(source.raw_os_error()) {
            return StoreError::DiskFull { dir: self.root.clone() };
        }
        StoreError::Io { action, path: path.to_owned(), source }
    }

    /// Bytes that may still be written to the store's file system.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let status = rustix::fs::statvfs(&self.root).ok()?;
        Some(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

/// Opens a file only for its lock.
fn open_lock(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// A name nobody else has.
fn random_name() -> String {
    let mut bytes = [0; 12];
    // Without entropy the process id still keeps names apart; creating them is exclusive.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    format!("{}-{}", std::process::id(), hex::encode(bytes))
}

/// Seconds since a file was last written.
fn age_s(metadata: &fs::Metadata) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX).saturating_sub(metadata.mtime())
}

#[cfg(test)]
mod tests;
