//! The lifeline: a pipe whose other end the VM's owner holds open as long as it lives.
#![allow(unsafe_code, reason = "an inherited descriptor is taken over by number")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The read end.
#[derive(Debug)]
pub(crate) struct Lifeline(OwnedFd);

impl Lifeline {
    /// Takes over the descriptor that the command line names; a number that is not open is refused.
    pub(crate) fn inherit(number: RawFd) -> io::Result<Self> {
        if number < 3 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "must not be a standard stream"));
        }
        // SAFETY: borrowed for two calls only; on a closed number they fail with EBADF.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)
            .map_err(|error| io::Error::other(format!("descriptor {number}: {error}")))?;
        rustix::io::ioctl_fionbio(borrowed, true)?;
        // SAFETY: open, as the calls above succeeded, and ours alone: it was inherited for this and this is called once,
        // before any other descriptor is made.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Whether the owner is gone, after the descriptor became readable; what it wrote is thrown away.
    pub(crate) fn is_broken(&self) -> bool {
        let mut discarded = [0; 64];
        match rustix::io::read(&self.0, &mut discarded) {
            Ok(0) => true,
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => true,
        }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
