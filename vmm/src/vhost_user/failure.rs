//! The first failure of any device of a VM, and a descriptor that becomes readable with it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// Where device workers leave the reason why the VM cannot go on.
#[derive(Debug)]
pub(crate) struct Failure {
    event: OwnedFd,
    first: Mutex<Option<anyhow::Error>>,
}

impl Failure {
    /// None so far.
    pub(crate) fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, first: Mutex::default() })
    }

    /// Leaves a reason; only the first counts.
    pub(crate) fn set(&self, error: anyhow::Error) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        // Cannot fail: the counter is far from full.
        let _written = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Takes the reason, if there is one.
    pub(crate) fn take(&self) -> Option<anyhow::Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Readable once there is a reason.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
