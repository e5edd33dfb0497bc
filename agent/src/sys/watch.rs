//! Descriptors in tokio's event loop.
#![allow(unsafe_code, reason = "AsyncFd::register asks its caller to keep the descriptor open")]

use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a non-blocking descriptor with the event loop of the calling task.
pub(crate) fn watch(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps its descriptor open and the same until it is dropped, and AsyncFd hands out shared
    // references only, deregistering before it drops what it holds.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
