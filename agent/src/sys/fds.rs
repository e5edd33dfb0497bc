//! File descriptors by number: adopting the ones a parent has left, and the last C-style results.
#![allow(unsafe_code, reason = "descriptors that are known by number only must be adopted")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// Turns the result of a raw system call made through libc into a `Result`.
pub(super) fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// The error of the libc call that just failed.
pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Takes over descriptor `number`, which this process inherited, and marks it close-on-exec.
pub(crate) fn adopt_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: F_SETFD takes an integer and touches no memory; it fails for a number that is not open.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    check(libc::c_long::from(result))?;
    // SAFETY: the number was just seen to be open, and the caller is the only one to adopt it: numbers are dealt out by
    // the parent (`child::FIRST_PASSED_FD`) and each is taken once, at the start of a single-threaded process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes every descriptor from `first` on close itself when this process executes a program.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC only sets flags; it takes integers alone.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_uint) };
    check(result).map(|_| ())
}

/// Makes `source` also descriptor 0, 1 or 2 (`target`), replacing what was there.
pub(crate) fn replace_stdio(source: &OwnedFd, target: RawFd) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: dup2 takes two integers; `source` is open, and 0 to 2 belong to no `OwnedFd` in this program.
    let result = unsafe { libc::dup2(source.as_raw_fd(), target) };
    check(libc::c_long::from(result)).map(|_| ())
}
