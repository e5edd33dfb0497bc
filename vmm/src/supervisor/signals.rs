//! Signals: SIGTERM ends the VM; those a terminal sends belong to the program in the foreground and are let pass.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::signal::register_signal_handler;

/// Readable after a SIGTERM. A signal handler needs a static.
static TERMINATE: OnceLock<OwnedFd> = OnceLock::new();

/// Handles the signals from now on; once per process.
pub(super) fn install() -> io::Result<()> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let _ = TERMINATE.set(event);
    register_signal_handler(libc::SIGTERM, on_terminate)?;
    for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        register_signal_handler(signal, on_terminal)?;
    }
    Ok(())
}

/// The descriptor that becomes readable.
pub(super) fn terminate() -> io::Result<BorrowedFd<'static>> {
    TERMINATE.get().map(AsFd::as_fd).ok_or_else(|| io::Error::other("signals are not installed"))
}

/// Forgets the SIGTERMs so far.
pub(super) fn clear() {
    if let Some(event) = TERMINATE.get() {
        // It is only called when the descriptor is readable, and it does not block.
        let _ = rustix::io::read(event, &mut [0; 8]);
    }
}

/// Async-signal-safe: an atomic load and one system call.
extern "C" fn on_terminate(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(event) = TERMINATE.get() {
        let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
    }
}

extern "C" fn on_terminal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
