//! The runtime state of sandboxes on the host: one directory each, owned by the process that holds its lock.
//!
//! ```text
//! <run>/lock                      held while a directory is made or swept, so that no half-made one is taken for dead
//! <run>/sandboxes/<id>/lock       held for life by the owner (CLI, shim); the kernel frees it when the owner dies
//!                     /name       the sandbox's name, if it has one
//!                     /vmm.json   which process the vmm is
//!                     /vm.json, control.sock, vsock.sock, vsock.sock_<port>, vmm.log, console.log
//! ```
//!
//! A directory whose lock is free has no owner any more: [`RuntimeRoot::sweep`] ends its vmm and removes it.

mod names;
mod sweep;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

pub use self::names::{NameError, SandboxId, SandboxName};
pub(crate) use self::names::{fill_random, random_hex};
pub use self::sweep::Swept;
use crate::process_identity::ProcessIdentity;

/// Longest runtime directory in bytes: a UNIX socket's address holds 107, and the longest name in it must fit.
const PATH_MAX_BYTES: usize = 107 - "/vsock.sock_4294967295".len();

/// Why runtime state could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// A live sandbox has the name.
    #[error("the name {name:?} is taken by the running sandbox {id}: choose another, or wait until that one has ended")]
    NameTaken {
        /// The name asked for.
        name: String,
        /// Who has it.
        id: String,
    },
    /// Sockets in it could not be bound.
    #[error(
        "{} is too long for a UNIX socket's address ({} bytes): set BULKHEAD_RUN to a shorter path",
        path.display(), path.as_os_str().len()
    )]
    PathTooLong {
        /// The directory.
        path: PathBuf,
    },
    /// A file system operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl RuntimeDirError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// The directory that holds the runtime directories of all sandboxes of one user.
#[derive(Clone, Debug)]
pub struct RuntimeRoot {
    run: PathBuf,
}

impl RuntimeRoot {
    /// Opens `run`, made with mode 0700 where it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(run: &Path) -> Result<Self, RuntimeDirError> {
        let root = Self { run: run.to_owned() };
        let sandboxes = root.sandboxes();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&sandboxes);
        made.map_err(RuntimeDirError::io("create", &sandboxes))?;
        Ok(root)
    }

    /// Makes the runtime directory of a new sandbox and takes its lock and name.
    ///
    /// # Errors
    /// The name is taken by a live sandbox, or a file cannot be made.
    pub fn create(&self, name: Option<&SandboxName>) -> Result<RuntimeDir, RuntimeDirError> {
        let _guard = self.lock()?;
        if let Some(name) = name {
            self.check_name(name)?;
        }
        let id = SandboxId::generate();
        let path = self.sandboxes().join(id.as_str());
        if path.as_os_str().len() > PATH_MAX_BYTES {
            return Err(RuntimeDirError::PathTooLong { path });
        }
        DirBuilder::new().mode(0o700).create(&path).map_err(RuntimeDirError::io("create", &path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = open_lock(&lock_path).and_then(|file| try_lock(&file).map(|_| file));
        let lock = lock.map_err(RuntimeDirError::io("lock", &lock_path))?;
        let dir = RuntimeDir { path, id, _lock: lock };
        if let Some(name) = name {
            dir.write(NAME_FILE, name.as_str().as_bytes())?;
        }
        Ok(dir)
    }

    fn check_name(&self, name: &SandboxName) -> Result<(), RuntimeDirError> {
        for path in self.directories()? {
            let holder = std::fs::read_to_string(path.join(NAME_FILE)).unwrap_or_default();
            if holder == name.as_str() && !is_free(&path) {
                let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(RuntimeDirError::NameTaken { name: name.as_str().to_owned(), id });
            }
        }
        Ok(())
    }

    /// The lock that serialises making and sweeping; freed on drop, or by the kernel when we die.
    fn lock(&self) -> Result<File, RuntimeDirError> {
        let path = self.run.join(LOCK_FILE);
        let file = open_lock(&path).map_err(RuntimeDirError::io("open", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| RuntimeDirError::io("lock", &path)(errno.into()))?;
        Ok(file)
    }

    fn directories(&self) -> Result<Vec<PathBuf>, RuntimeDirError> {
        let sandboxes = self.sandboxes();
        let entries = std::fs::read_dir(&sandboxes).map_err(RuntimeDirError::io("list", &sandboxes))?;
        Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
    }

    fn sandboxes(&self) -> PathBuf {
        self.run.join("sandboxes")
    }
}

const LOCK_FILE: &str = "lock";
const NAME_FILE: &str = "name";
const VMM_FILE: &str = "vmm.json";

/// The runtime directory of one live sandbox, owned by this process; removed on drop.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    id: SandboxId,
    _lock: File,
}

impl RuntimeDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the sandbox it belongs to.
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// Notes which process the vmm is, for a sweep after our death.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn record_vmm(&self, vmm: &ProcessIdentity) -> Result<(), RuntimeDirError> {
        let record = serde_json::to_vec(vmm).map_err(io::Error::other);
        let record = record.map_err(RuntimeDirError::io("write", &self.path.join(VMM_FILE)))?;
        self.write(VMM_FILE, &record)
    }

    /// Writes a file of the directory, readable by its owner only.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<(), RuntimeDirError> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| io::Write::write_all(&mut file, contents));
        written.map_err(RuntimeDirError::io("write", &path))
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // A vmm that saw its lifeline break may be removing the same files; what is left is swept by the next command.
        let _left_for_the_sweep = remove_dir(&self.path);
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Takes the lock if nobody has it.
fn try_lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether nobody owns the directory any more.
fn is_free(directory: &Path) -> bool {
    match OpenOptions::new().read(true).open(directory.join(LOCK_FILE)) {
        Ok(lock) => try_lock(&lock).unwrap_or(false),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Removes a directory tree that another process may be removing too.
fn remove_dir(path: &Path) -> io::Result<()> {
    for _ in 0..3 {
        match std::fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound && !path.exists() => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => return Err(error),
        }
    }
    std::fs::remove_dir_all(path)
}
