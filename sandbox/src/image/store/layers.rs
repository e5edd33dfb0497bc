//! Unpacked layers: making them appear whole, and keeping those in use.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::super::digest::Digest;
use super::super::unpack::LayerStats;
use super::{Lease, Store, StoreError, random_name};

/// Largest `layer.json` in bytes.
const STATS_MAX_BYTES: u64 = 64 * 1024;

/// A layer in the making; removed when dropped, unless it was committed.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
}

/// Keeps a layer from being removed while it lives.
#[derive(Debug)]
pub(crate) struct LayerLock {
    _dir: OwnedFd,
}

impl Staging {
    /// The empty directory to unpack into.
    pub(crate) fn fs(&self) -> PathBuf {
        self.path.join("fs")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is swept later.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Store {
    fn layer_dir(&self, chain_id: Digest) -> PathBuf {
        self.root.join("layers/sha256").join(chain_id.hex())
    }

    /// The contents of a layer.
    pub(crate) fn layer_fs(&self, chain_id: Digest) -> PathBuf {
        self.layer_dir(chain_id).join("fs")
    }

    /// What is known of a layer; `None` if it is not here.
    pub(crate) fn layer_stats(&self, chain_id: Digest) -> Option<LayerStats> {
        let path = self.layer_dir(chain_id).join("layer.json");
        let small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= STATS_MAX_BYTES);
        let stats = small.then(|| fs::read(&path).ok()).flatten()?;
        serde_json::from_slice(&stats).ok().filter(|_| self.layer_fs(chain_id).is_dir())
    }

    /// A directory to unpack a layer into.
    pub(crate) fn stage(&self, _lease: &Lease) -> Result<Staging, StoreError> {
        let staging = Staging { path: self.root.join("staging").join(random_name()) };
        let make = |mode, path: &Path| {
            let made = DirBuilder::new().mode(mode).create(path);
            made.map_err(|source| self.failed("make the directory", path, source))
        };
        make(0o700, &staging.path)?;
        // The umask must not show in the root of a container.
        make(0o755, &staging.fs())?;
        let opened = fs::set_permissions(staging.fs(), fs::Permissions::from_mode(0o755));
        opened.map_err(|source| self.failed("set the mode of", &staging.fs(), source))?;
        Ok(staging)
    }

    /// Makes a staged layer appear, unless somebody else has made the same one meanwhile.
    pub(crate) fn commit(
        &self,
        staging: Staging,
        chain_id: Digest,
        stats: &LayerStats,
        _lease: &Lease,
    ) -> Result<(), StoreError> {
        let path = staging.path.join("layer.json");
        let json = serde_json::to_vec(stats).map_err(io::Error::from);
        json.and_then(|json| fs::write(&path, json)).map_err(|source| self.failed("write", &path, source))?;
        let layer = self.layer_dir(chain_id);
        match rustix::fs::renameat_with(CWD, &staging.path, CWD, &layer, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.failed("make the layer", &layer, errno.into())),
        }
    }

    /// Puts everything written to the store's file system on the disk, and learns of writes that failed.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let synced = File::open(&self.root).and_then(|dir| rustix::fs::syncfs(&dir).map_err(io::Error::from));
        synced.map_err(|source| self.failed("write to the disk under", &self.root, source))
    }

    /// Marks a layer as in use.
    pub(crate) fn lock_layer(&self, chain_id: Digest, _lease: &Lease) -> Result<LayerLock, StoreError> {
        let path = self.layer_dir(chain_id);
        let locked = open_dir(&path)
            .and_then(|dir| rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared).map(|()| dir));
        match locked {
            Ok(dir) => Ok(LayerLock { _dir: dir }),
            Err(errno) => Err(self.failed("lock", &path, errno.into())),
        }
    }

    /// Whether a sandbox uses the layer.
    pub(super) fn layer_in_use(&self, chain_id: Digest) -> bool {
        open_dir(&self.layer_dir(chain_id))
            .and_then(|dir| rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive))
            .is_err_and(|errno| errno == Errno::WOULDBLOCK)
    }

    /// Takes a layer out of the store, by one rename, then removes it. The caller has the store's exclusive lock.
    pub(super) fn remove_layer(&self, chain_id: Digest) -> Result<(), StoreError> {
        let path = self.layer_dir(chain_id);
        let doomed = Staging { path: self.root.join("staging").join(random_name()) };
        fs::rename(&path, &doomed.path).map_err(|source| self.failed("remove", &path, source))?;
        drop(doomed);
        Ok(())
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
