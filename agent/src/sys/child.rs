//! Starting the agent's own program again as a child that is born in its cgroup and namespaces.
//!
//! `clone3(2)` puts the child into the cgroup and into new namespaces in one step, so no process of a container ever runs
//! outside its limits, and the first process of a pid namespace is a direct child of PID 1. The agent has one thread,
//! so the child may do what a forked process of a single-threaded program may do; it does no more than arrange
//! descriptors and execute.
#![allow(unsafe_code, reason = "clone3 and execveat have no safe wrapper")]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// The number that the first of [`ChildStart::passed`] gets in the child; the next ones follow.
pub(crate) const FIRST_PASSED_FD: RawFd = 3;
/// Most descriptors that can be passed beside the three of stdio.
const PASSED_MAX: usize = 5;
/// Descriptors are moved above this number before they are put in place, so that none overwrites another.
const STAGING_FD: RawFd = 500;

/// `CLONE_INTO_CGROUP` of `linux/sched.h`; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How to start the child.
pub(crate) struct ChildStart<'a> {
    /// The program: an open file of it.
    pub(crate) program: BorrowedFd<'a>,
    /// What the program sees as `argv[0]`.
    pub(crate) name: &'a CStr,
    /// `CLONE_NEW*` namespaces the child is born in.
    pub(crate) namespaces: u32,
    /// cgroup the child is born in; `None`: the parent's.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// A process in whose pid namespace the child is born; `None`: the parent's, or a new one by `namespaces`.
    pub(crate) pid_namespace_of: Option<BorrowedFd<'a>>,
    /// stdin, stdout, stderr.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Descriptors that the child finds from [`FIRST_PASSED_FD`] on.
    pub(crate) passed: &'a [BorrowedFd<'a>],
}

/// A child that runs, or has ended and was not reaped yet.
#[derive(Debug)]
pub(crate) struct Child {
    /// Process id in the agent's pid namespace.
    pub(crate) pid: Pid,
    /// Refers to the process, also after its id was given to another.
    pub(crate) pidfd: OwnedFd,
}

/// Starts the child. Its failure to arrange descriptors or to execute shows as exit status 125.
pub(crate) fn start(how: &ChildStart<'_>) -> Result<Child, Errno> {
    if how.passed.len() > PASSED_MAX {
        return Err(Errno::INVAL);
    }
    let Some(target) = how.pid_namespace_of else { return clone_child(how) };
    // The pid namespace of future children is a property of the thread: set for this one clone.
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    let kind = rustix::thread::ThreadNameSpaceType::PROCESS_ID;
    rustix::thread::move_into_thread_name_spaces(target, kind)?;
    let child = clone_child(how);
    if rustix::thread::move_into_thread_name_spaces(own.as_fd(), kind).is_err() {
        // Every later child would be born in that container's namespace. Ending PID 1 ends the VM.
        std::process::abort();
    }
    child
}

fn clone_child(how: &ChildStart<'_>) -> Result<Child, Errno> {
    let mut fds = [-1; 3 + PASSED_MAX];
    let count = 3 + how.passed.len();
    for (slot, fd) in fds.iter_mut().zip(how.stdio.iter().chain(how.passed)) {
        *slot = fd.as_raw_fd();
    }
    let arguments = [how.name.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    let mut pidfd: RawFd = -1;
    let mut flags = u64::from(how.namespaces) | libc::CLONE_PIDFD as u64;
    let mut cgroup = 0;
    if let Some(fd) = how.cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = u64::try_from(fd.as_raw_fd()).unwrap_or(0);
    }
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        cgroup,
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a live clone_args of the given size. CLONE_VM is not set, so the child has its own copy of this
    // thread's memory and stack, as after fork(2); the process has one thread, so no lock is held by another.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if result == 0 {
        // SAFETY: this is the child; every pointer refers to its copy of the arrays above, which end in null.
        unsafe { become_program(how.program.as_raw_fd(), fds.get(..count).unwrap_or(&[]), &arguments, &environment) }
    }
    let raw = super::fds::check(result)?;
    let pid = i32::try_from(raw).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    // SAFETY: the kernel stored a new descriptor, which nobody else knows, because of CLONE_PIDFD.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd })
}

/// `struct clone_args` of the kernel, version 2.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Puts `fds` at 0, 1, 2, … and executes the program.
///
/// # Safety
/// To be called in a fresh child only; `arguments` and `environment` are arrays of C strings that end in null.
unsafe fn become_program(
    program: RawFd,
    fds: &[RawFd],
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
) -> ! {
    // SAFETY: only async-signal-safe calls on integers and on the arrays the caller vouches for.
    unsafe {
        let program = libc::fcntl(program, libc::F_DUPFD_CLOEXEC, STAGING_FD);
        let mut staged = [-1; 3 + PASSED_MAX];
        let mut failed = program < 0;
        for (slot, fd) in staged.iter_mut().zip(fds) {
            *slot = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, STAGING_FD);
            failed |= *slot < 0;
        }
        for (number, slot) in (0..).zip(staged.iter().take(fds.len())) {
            failed |= libc::dup2(*slot, number) < 0;
        }
        if !failed {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::syscall(
                libc::SYS_execveat,
                program,
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        libc::_exit(125)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustix::fs::{Mode, OFlags};
    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    #[test]
    fn a_child_has_its_descriptors_and_not_its_parents() {
        let shell = rustix::fs::open("/bin/sh", OFlags::PATH, Mode::empty()).unwrap();
        let (stdin, mut feed) = std::io::pipe().unwrap();
        let (mut output, stdout) = std::io::pipe().unwrap();
        let (passed, mut feed_passed) = std::io::pipe().unwrap();
        feed.write_all(b"echo $0; cat <&3; exit 9\n").unwrap();
        feed_passed.write_all(b"passed").unwrap();
        let child = start(&ChildStart {
            program: shell.as_fd(),
            name: c"name",
            namespaces: 0,
            cgroup: None,
            pid_namespace_of: None,
            stdio: [stdin.as_fd(), stdout.as_fd(), stdout.as_fd()],
            passed: &[passed.as_fd()],
        })
        .unwrap();
        // `cat` ends only if the child has not inherited the writing ends.
        drop((feed, feed_passed, stdout));
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        let status = waitpid(Some(child.pid), WaitOptions::empty()).unwrap().unwrap().1;
        assert_eq!((text.as_str(), status.exit_status()), ("name\npassed", Some(9)));
    }

    #[test]
    fn a_program_that_cannot_be_executed_shows_as_125() {
        let file = rustix::fs::open("/etc/passwd", OFlags::PATH, Mode::empty()).unwrap();
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).unwrap();
        let stdio = [null.as_fd(), null.as_fd(), null.as_fd()];
        let name = c"passwd";
        let (namespaces, cgroup, pid_namespace_of) = (0, None, None);
        let child = start(&ChildStart {
            program: file.as_fd(),
            name,
            namespaces,
            cgroup,
            pid_namespace_of,
            stdio,
            passed: &[],
        });
        let status = waitpid(Some(child.unwrap().pid), WaitOptions::empty()).unwrap().unwrap().1;
        assert_eq!(status.exit_status(), Some(125));
    }
}
