//! The one place that touches a child between fork and exec.
#![allow(unsafe_code, reason = "a pre_exec hook runs in a forked child; see SAFETY at the block")]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};

/// Gives the child a session of its own, so that a terminal's signals reach it only through us, and lets it inherit
/// `fds` under their own numbers. Every other descriptor stays close-on-exec, so a child started by another thread at the
/// same moment inherits none of them.
pub(crate) fn detach_and_pass(command: &mut Command, fds: Vec<OwnedFd>) {
    let hook = move || {
        rustix::process::setsid()?;
        for fd in &fds {
            fcntl_setfd(fd.as_fd(), FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the hook makes only async-signal-safe system calls (setsid, fcntl) on descriptors it owns; it allocates
    // nothing and takes no lock. An error is carried as an errno, without allocation.
    unsafe { command.pre_exec(hook) };
}
