//! Removes what no record names: the work of commands that were killed, and of images that were removed.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File};
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::super::digest::Digest;
use super::{Store, StoreError, age_s, open_lock};

/// How long a download that nobody continues is kept.
const DOWNLOAD_KEPT_S: i64 = 24 * 60 * 60;

impl Store {
    /// Sweeps, unless somebody is adding to the store: then a later command does it. `forgotten` blobs go at once; other
    /// blobs may belong to a pull that will be continued.
    pub(crate) fn sweep(&self, forgotten: &[Digest]) -> Result<(), StoreError> {
        let Some(_lock) = self.try_exclusive()? else { return Ok(()) };
        let records = self.records()?;
        let layers: BTreeSet<Digest> = records.iter().flat_map(|record| record.layers.iter().copied()).collect();
        let blobs: BTreeSet<Digest> =
            records.iter().flat_map(|record| record.manifest.into_iter().chain([record.id])).collect();
        self.sweep_staging()?;
        for entry in self.entries("layers/sha256")? {
            match digest_name(&entry) {
                Some(layer) if layers.contains(&layer) || self.layer_in_use(layer) => {}
                Some(layer) => self.remove_layer(layer)?,
                None => {}
            }
        }
        for entry in self.entries("blobs/sha256")? {
            let gone = digest_name(&entry)
                .is_some_and(|blob| !blobs.contains(&blob) && (forgotten.contains(&blob) || is_old(&entry)));
            self.remove_file_if(gone, &entry.path())?;
        }
        for entry in self.entries("ingest")? {
            self.remove_file_if(is_old(&entry), &entry.path())?;
        }
        Ok(())
    }

    /// Removes layers whose record still stands, because the disk has no room for the list without it. A crash in between
    /// leaves a record without layers, which counts as an image that is not there. `false` if somebody is adding.
    pub(crate) fn discard_layers(&self, layers: &[Digest]) -> Result<bool, StoreError> {
        let Some(_lock) = self.try_exclusive()? else { return Ok(false) };
        for layer in layers {
            if self.layer_stats(*layer).is_some() && !self.layer_in_use(*layer) {
                self.remove_layer(*layer)?;
            }
        }
        Ok(true)
    }

    /// The store for oneself; `None` if somebody is adding to it.
    fn try_exclusive(&self) -> Result<Option<File>, StoreError> {
        let path = self.root.join("lock");
        let lock = open_lock(&path).map_err(|source| self.failed("open", &path, source))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(self.failed("lock", &path, errno.into())),
        }
    }

    fn sweep_staging(&self) -> Result<(), StoreError> {
        for entry in self.entries("staging")? {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|source| self.failed("remove", &path, source))?;
        }
        Ok(())
    }

    fn remove_file_if(&self, gone: bool, path: &Path) -> Result<(), StoreError> {
        if !gone {
            return Ok(());
        }
        fs::remove_file(path).map_err(|source| self.failed("remove", path, source))
    }

    fn entries(&self, dir: &str) -> Result<Vec<DirEntry>, StoreError> {
        let path = self.root.join(dir);
        let entries = fs::read_dir(&path).and_then(Iterator::collect);
        entries.map_err(|source| self.failed("list", &path, source))
    }
}

fn digest_name(entry: &DirEntry) -> Option<Digest> {
    Digest::from_hex(entry.file_name().to_str()?)
}

fn is_old(entry: &DirEntry) -> bool {
    entry.metadata().is_ok_and(|metadata| age_s(&metadata) > DOWNLOAD_KEPT_S)
}
