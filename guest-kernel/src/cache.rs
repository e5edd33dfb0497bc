//! The folder that holds finished kernels.
//!
//! ```text
//! CACHE/kernel/<hash>/{vmlinux,config,System.map,build.log,manifest.json}   finished, never changed
//! CACHE/kernel/.<hash>.lock                                                 held by the process that builds it
//! CACHE/kernel/.<hash>.work/                                                its build tree, removed afterwards
//! CACHE/kernel/.<hash>.log                                                  output of the build; stays if it fails
//! ```
//!
//! An entry appears by one rename, so a reader sees all of it or nothing. A work folder without a lock holder was left
//! by a killed build and is removed by the next one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::compile::{Built, Toolchain};
use crate::fragment::Fragments;
use crate::progress::{Reporter, Step};
use crate::{BUILDER_REVISION, Error, Kernel, Manifest};

/// What the cache key of a kernel is made of, apart from its source.
pub struct Keys {
    prefix: Sha256,
}

impl Keys {
    /// Hashes everything that decides the bytes of a kernel.
    #[must_use]
    pub fn new(fragments: &Fragments, toolchain: &Toolchain) -> Self {
        let mut prefix = Sha256::new();
        prefix.update(BUILDER_REVISION.to_le_bytes());
        for part in toolchain.versions().iter().map(String::as_str).chain([fragments.to_kconfig().as_str()]) {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            prefix.update((part.len() as u64).to_le_bytes());
            prefix.update(part);
        }
        Self { prefix }
    }

    /// The key, 64 hexadecimal digits, of the kernel made from the source with this digest.
    #[must_use]
    pub fn for_source(&self, sha256: &str) -> String {
        hex::encode(self.prefix.clone().chain_update(sha256).finalize())
    }
}

/// The `kernel` folder of a cache.
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    pub(crate) fn open(cache: &Path) -> Result<Self, Error> {
        let root = cache.join("kernel");
        fs::create_dir_all(&root).map_err(Error::io("create", &root))?;
        Ok(Self { root })
    }

    /// The finished kernel with this key, if there is one.
    pub(crate) fn get(&self, hash: &str) -> Result<Option<Kernel>, Error> {
        let folder = self.root.join(hash);
        let vmlinux = folder.join("vmlinux");
        if !vmlinux.exists() {
            return Ok(None);
        }
        let version = Manifest::read(&folder)?.version;
        Ok(Some(Kernel { vmlinux, version, hash: hash.to_owned(), from_cache: true }))
    }

    /// Waits until no other process builds this kernel, and prepares an empty work folder for it.
    pub(crate) fn lock(&self, hash: &str, reporter: &Reporter<'_>) -> Result<Slot, Error> {
        let path = self.root.join(format!(".{hash}.lock"));
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            reporter.report(Step::Wait, 0);
            flock(&lock, FlockOperation::LockExclusive).map_err(|errno| Error::io("lock", &path)(errno.into()))?;
        }
        let slot = Slot {
            work: self.root.join(format!(".{hash}.work")),
            entry: self.root.join(hash),
            log: self.root.join(format!(".{hash}.log")),
            _lock: lock,
        };
        slot.remove_work().map_err(Error::io("remove", &slot.work))?;
        fs::create_dir(&slot.work).map_err(Error::io("create", &slot.work))?;
        File::create(&slot.log).map_err(Error::io("create", &slot.log))?;
        Ok(slot)
    }
}

/// The right to build one kernel; dropping it removes the work folder.
pub(crate) struct Slot {
    work: PathBuf,
    entry: PathBuf,
    log: PathBuf,
    _lock: File,
}

impl Slot {
    pub(crate) fn work_dir(&self) -> &Path {
        &self.work
    }

    /// An empty file for the build's output.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Moves the results into the cache: all of them, or none.
    pub(crate) fn publish(&self, built: &Built) -> Result<(), Error> {
        let staged = self.work.join("entry");
        fs::create_dir(&staged).map_err(Error::io("create", &staged))?;
        for (from, name) in built.files() {
            fs::rename(from, staged.join(name)).map_err(Error::io("move", from))?;
        }
        built.manifest().write(&staged)?;
        if self.entry.exists() {
            // Only an entry without vmlinux comes here; a rename does not replace a folder with files in it.
            fs::remove_dir_all(&self.entry).map_err(Error::io("remove", &self.entry))?;
        }
        fs::rename(&staged, &self.entry).map_err(Error::io("create", &self.entry))
    }

    fn remove_work(&self) -> std::io::Result<()> {
        if self.work.exists() { fs::remove_dir_all(&self.work) } else { Ok(()) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // A folder that stays is removed by the next build of this kernel.
        let _ = self.remove_work();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment;

    fn keys(fragment: &str) -> Keys {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.config");
        fs::write(&path, fragment).unwrap();
        Keys::new(&fragment::load(&[path]).unwrap(), &Toolchain::find().unwrap())
    }

    #[test]
    fn the_key_follows_source_and_options_but_not_reasons() {
        let key = keys("CONFIG_TEST=1 # one reason").for_source("aa");
        assert_eq!(key.len(), 64);
        assert_eq!(key, keys("CONFIG_TEST=1 # another reason").for_source("aa"));
        assert_ne!(key, keys("CONFIG_TEST=2 # one reason").for_source("aa"));
        assert_ne!(key, keys("CONFIG_TEST=1 # one reason").for_source("ab"));
    }

    #[test]
    fn an_entry_without_a_kernel_is_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        fs::create_dir(folder.path().join("kernel/abc")).unwrap();
        assert!(store.get("abc").unwrap().is_none());
    }

    #[test]
    fn the_work_folder_is_empty_at_first_and_gone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let left_by_a_killed_build = folder.path().join("kernel/.abc.work/source");
        fs::create_dir_all(&left_by_a_killed_build).unwrap();
        let sink = |_: &crate::Progress| ();
        let slot = store.lock("abc", &Reporter::new(&sink)).unwrap();
        assert!(!left_by_a_killed_build.exists());
        let work = slot.work_dir().to_path_buf();
        assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
        drop(slot);
        assert!(!work.exists());
    }

    #[test]
    fn who_has_to_wait_for_another_build_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let quiet = |_: &crate::Progress| ();
        let first = store.lock("abc", &Reporter::new(&quiet)).unwrap();
        let (told, was_told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let sink = move |progress: &crate::Progress| told.send(progress.step).unwrap();
                store.lock("abc", &Reporter::new(&sink)).map(|_| ())
            });
            assert_eq!(was_told.recv(), Ok(Step::Wait));
            drop(first);
            waiting.join().unwrap().unwrap();
        });
    }
}
