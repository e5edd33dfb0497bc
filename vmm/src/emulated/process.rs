//! The QEMU process: how it is started, as whom, and that it never outlives us.
//!
//! A guest that breaks out of QEMU finds itself a user without files, without a network, and under QEMU's own seccomp
//! filter, which forbids new processes and new privileges.

#![allow(unsafe_code, reason = "the only way to run code between fork and exec")]

use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Gid, Pid, Signal, Uid};
use rustix::thread::UnshareFlags;

/// User ids from here on belong to nobody (systemd's UIDS-GIDS gives them no use); our process id makes one that no other
/// sandbox has.
const FIRST_UID: u32 = 0x7000_0000;
/// `nobody`, where the range above is not mapped into our user namespace.
const NOBODY: u32 = 65534;

/// Starts `program` with pipes for its output and nothing inherited but `inherited`.
///
/// It dies with the calling thread, which must therefore be one that lives as long as the VM: the main thread.
pub(super) fn spawn(program: &str, arguments: &[OsString], inherited: &[BorrowedFd<'_>]) -> std::io::Result<Child> {
    let inherited: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = rustix::process::getpid();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let before_exec = move || {
        become_nobody(parent)?;
        bind_to_parent(parent)?;
        close_on_exec()?;
        for descriptor in &inherited {
            // SAFETY: the descriptors are open in the parent, of whose table this process has a copy; the borrow ends
            // before the program is executed.
            let descriptor = unsafe { BorrowedFd::borrow_raw(*descriptor) };
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock, no panic.
    unsafe { command.pre_exec(before_exec) };
    command.spawn()
}

/// Marks every descriptor but the standard ones to be closed: those we inherited ourselves have no such mark.
fn close_on_exec() -> std::io::Result<()> {
    // SAFETY: descriptors are only marked; this process uses none after it executes the program.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Takes network, host-wide IPC, groups, user and with it all capabilities away. A vmm that is not root has nothing to take.
fn become_nobody(vmm: Pid) -> rustix::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // SAFETY: descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWIPC) }?;
    rustix::thread::set_thread_groups(&[])?;
    match switch_user(FIRST_UID | vmm.as_raw_nonzero().get().unsigned_abs()) {
        Err(Errno::INVAL) => switch_user(NOBODY),
        result => result,
    }
}

fn switch_user(id: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Asks the kernel for SIGKILL at the parent's end. A change of user would undo it.
fn bind_to_parent(parent: Pid) -> rustix::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above took effect.
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH) }
}
