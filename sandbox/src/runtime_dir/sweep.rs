//! Removes what sandboxes without an owner left: their vmm process and their directory.

use std::io;
use std::path::Path;

use super::{LOCK_FILE, RuntimeDirError, RuntimeRoot, VMM_FILE, open_lock, remove_dir, try_lock};
use crate::process_identity::ProcessIdentity;

/// Most bytes of a vmm record that are read.
const RECORD_MAX_BYTES: u64 = 4096;

/// What a sweep found and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Directories removed.
    pub directories: u32,
    /// vmm processes that had outlived their owner.
    pub vmms: u32,
}

impl RuntimeRoot {
    /// Removes every runtime directory whose owner is gone, and ends its vmm.
    ///
    /// Safe beside other commands: a directory is touched only with its lock held, and none is being made meanwhile.
    ///
    /// # Errors
    /// The directory cannot be listed, or a leftover cannot be removed.
    pub fn sweep(&self) -> Result<Swept, RuntimeDirError> {
        let mut swept = Swept::default();
        if self.directories()?.is_empty() {
            return Ok(swept);
        }
        let _guard = self.lock()?;
        for path in self.directories()? {
            let lock_path = path.join(LOCK_FILE);
            let lock = match open_lock(&lock_path) {
                Ok(lock) => lock,
                // Its vmm saw the lifeline break and removed it meanwhile, or it is no sandbox's directory.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(error) => return Err(RuntimeDirError::io("open", &lock_path)(error)),
            };
            if !try_lock(&lock).map_err(RuntimeDirError::io("lock", &lock_path))? {
                continue;
            }
            let killed = kill_recorded_vmm(&path).map_err(RuntimeDirError::io("end the vmm of", &path))?;
            swept.vmms += u32::from(killed);
            remove_dir(&path).map_err(RuntimeDirError::io("remove", &path))?;
            swept.directories += 1;
        }
        Ok(swept)
    }
}

fn kill_recorded_vmm(directory: &Path) -> io::Result<bool> {
    let Ok(file) = std::fs::File::open(directory.join(VMM_FILE)) else { return Ok(false) };
    // A record cut short by a crash names nobody: then the vmm's own lifeline is what ended it.
    let record: Option<ProcessIdentity> = serde_json::from_reader(io::Read::take(file, RECORD_MAX_BYTES)).ok();
    record.map_or(Ok(false), |vmm| vmm.kill())
}
