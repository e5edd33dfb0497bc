//! Signals by number: the types of rustix leave real-time signals out.
#![allow(unsafe_code, reason = "signal numbers beyond rustix's named ones")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Largest signal number of Linux on x86-64.
pub(crate) const SIGNAL_MAX: u32 = 64;

/// Sends `signal` to the process that `pidfd` refers to.
pub(crate) fn send_to(pidfd: impl AsFd, signal: u32) -> Result<(), Errno> {
    // SAFETY: integers and a null siginfo, which the kernel takes as "as kill(2) would".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    super::fds::check(result).map(|_| ())
}

/// Sends `signal` to every process except PID 1 and the caller.
pub(crate) fn send_to_all(signal: libc::c_int) -> Result<(), Errno> {
    // SAFETY: kill takes two integers.
    let result = unsafe { libc::kill(-1, signal) };
    super::fds::check(libc::c_long::from(result)).map(|_| ())
}

/// Sends `signal` to the process `pid`.
pub(crate) fn send_to_pid(pid: libc::pid_t, signal: u32) -> Result<(), Errno> {
    if pid <= 1 {
        return Err(Errno::PERM);
    }
    let signal = libc::c_int::try_from(signal).map_err(|_| Errno::INVAL)?;
    // SAFETY: kill takes two integers; a pid above 1 names one process, never a group or all.
    let result = unsafe { libc::kill(pid, signal) };
    super::fds::check(libc::c_long::from(result)).map(|_| ())
}

/// Gives SIGPIPE, which Rust's runtime ignores and execve would pass on as ignored, its default action back.
pub(crate) fn restore_sigpipe() {
    // SAFETY: SIG_DFL is always a valid disposition, and no handler of this process is replaced.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
