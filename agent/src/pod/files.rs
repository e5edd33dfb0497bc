//! Removing what a container has left on the scratch disk, by a process of its own: the tree is hostile in depth and
//! size, and the agent has better things to do.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::reaper::Reaper;
use crate::sys::child::{self, ChildStart};

/// `argv[0]` of the remover.
pub(crate) const REMOVER_NAME: &std::ffi::CStr = c"remove-tree";

/// Removes `directory` and everything in it, as far as that works; what stays behind goes with the disk.
pub(super) async fn remove_tree(program: &OwnedFd, reaper: &Reaper, directory: String) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(tree) = rustix::fs::open(directory.as_str(), flags, Mode::empty()) else { return };
    let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else { return };
    let started = child::start(&ChildStart {
        program: program.as_fd(),
        name: REMOVER_NAME,
        namespaces: 0,
        cgroup: None,
        pid_namespace_of: None,
        stdio: [tree.as_fd(), null.as_fd(), null.as_fd()],
        passed: &[],
    });
    if let Ok(child) = started {
        let ended = reaper.expect(child.pid);
        if ended.await.is_ok() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// The remover itself: empties the directory that is its stdin, following no link. Returns the exit status.
pub(crate) fn run_remover() -> u8 {
    let entries = std::fs::read_dir("/proc/self/fd/0");
    let mut status = 0;
    for entry in entries.into_iter().flatten().flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed =
            if is_directory { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
        if removed.is_err() {
            status = 1;
        }
    }
    status
}
