//! The QEMU process: how it is started and that it never outlives us.

#![allow(unsafe_code, reason = "the only way to run code between fork and exec")]

use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

/// Starts `program` with pipes for its output and nothing inherited but `inherited`.
///
/// It dies with the calling thread, which must therefore be one that lives as long as the VM: the main thread.
pub(super) fn spawn(program: &str, arguments: &[OsString], inherited: &[BorrowedFd<'_>]) -> std::io::Result<Child> {
    let inherited: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = rustix::process::getpid();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let before_exec = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above took effect.
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        for descriptor in &inherited {
            // SAFETY: the descriptors are open in the parent, which is suspended or has a copy of its own table; the
            // borrow ends before the child executes the program.
            let descriptor = unsafe { BorrowedFd::borrow_raw(*descriptor) };
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock, no panic.
    unsafe { command.pre_exec(before_exec) };
    command.spawn()
}
