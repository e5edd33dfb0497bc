//! Takes from the calling thread, and from every thread it makes later, what running a guest does not need.
//!
//! ```text
//!  /                 tmpfs, read-only: nothing of the host's tree
//!  ├─ proc/self      fd and mountinfo: file handles are resolved through them
//!  ├─ shares/<tag>/  one mount per entry: nodev, nosuid, noexec, read-only where the configuration says so
//!  └─ <runtime_dir>  sockets and the console's last lines
//! ```
//!
//! A namespace belongs to a thread: the supervisor, started before, keeps the host's view and cleans up after us. QEMU,
//! started before, keeps its own. Whatever a guest makes the file server do happens in here.
//!
//! - `jail`: the mount namespace.
//! - `capabilities`: which capabilities are kept, and why.
//! - `sys`: the two system calls without a safe wrapper.

mod capabilities;
mod jail;
mod sys;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Share;

/// Confinement failed; the guest must not run.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine the vmm: {step}{}", remedy(source))]
pub(crate) struct ConfineError {
    step: String,
    source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        " (run as root, outside a container without SYS_ADMIN)"
    } else {
        ""
    }
}

/// Makes the share directories and confines the calling thread to them.
///
/// Call it once, on the thread that will make all device and vCPU threads, after everything else on the host has been
/// opened. [`share_root`] tells where each share is afterwards; `runtime_dir` stays where it is.
pub(crate) fn enter(shares: &[Share], runtime_dir: &Path) -> Result<(), ConfineError> {
    // Files that the guest has open cost a descriptor each.
    let limit = getrlimit(Resource::Nofile);
    let greatest = Rlimit { current: limit.maximum, maximum: limit.maximum };
    step(setrlimit(Resource::Nofile, greatest), || "raise the limit of open files".to_owned())?;
    jail::enter(shares, runtime_dir)?;
    capabilities::drop_unneeded()
}

/// The directory of a share, as a confined thread sees it.
pub(crate) fn share_root(tag: &str) -> PathBuf {
    Path::new("/shares").join(tag)
}

/// Names the step that failed.
fn step<T>(result: rustix::io::Result<T>, step: impl FnOnce() -> String) -> Result<T, ConfineError> {
    result.map_err(|errno| ConfineError { step: step(), source: errno.into() })
}
