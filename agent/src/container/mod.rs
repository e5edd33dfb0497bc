//! The helper `container-init`: the agent's program run again, single-threaded, to become a process of a container.
//!
//! ```text
//! agent                                   helper (born in its cgroup and its new pid, mount, … namespaces)
//!  |-- clone3 + execveat(self) ------------->|  fd 0..2 stdio, 3 job (memfd), 4 socket, 5 pidfd of the container's init
//!  |                                         |  new container: root file system, mounts, devices, pivot_root
//!  |                                         |  further process: setns
//!  |<-- Ready (+ terminal) or Failed --------|
//!  |-- START ------------------------------->|  user, capabilities, execve
//!  |<-- end of file: it runs; or Failed -----|
//! ```
//!
//! Everything in a container's root file system is hostile: paths in it are resolved by [`resolve`] only.
//! The helper owns no state beyond its own process.

mod capabilities;
mod devices;
mod execute;
mod files;
mod join;
mod masks;
mod mounts;
mod namespaces;
mod process;
mod report;
mod resolve;
mod rootfs;
mod terminal;
mod user;

use std::os::fd::{OwnedFd, RawFd};

pub(crate) use report::{Failure, FailureKind, Report, START};

use crate::plan::Job;
use crate::sys::child::FIRST_PASSED_FD;
use crate::sys::{fds, packet};
use report::Doing;

/// `argv[0]` of the helper, by which the program knows that it is not PID 1 of the guest.
pub(crate) const HELPER_NAME: &std::ffi::CStr = c"container-init";

/// Where the job is found.
const JOB_FD: RawFd = FIRST_PASSED_FD;
/// Where the socket to the agent is found.
const SOCKET_FD: RawFd = FIRST_PASSED_FD + 1;
/// Where a joining helper finds the pidfd of the container's first process.
const CONTAINER_FD: RawFd = FIRST_PASSED_FD + 2;

/// Runs the helper; returns only if it failed, with the exit status.
pub(crate) fn run() -> u8 {
    let Ok(socket) = fds::adopt_inherited(SOCKET_FD) else { return EXIT_INTERNAL };
    let failure = match become_process(&socket) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    let status = exit_status(failure.kind);
    // If the agent is gone there is nobody left to tell.
    let _ = send(&socket, &Report::Failed(failure), None);
    status
}

/// Exit status of a helper that failed for a reason of its own.
const EXIT_INTERNAL: u8 = 125;

/// What Wait answers for a process whose program could not be executed: a shell's numbers.
fn exit_status(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::NotFound => 127,
        FailureKind::NotExecutable => 126,
        FailureKind::Invalid | FailureKind::Internal => EXIT_INTERNAL,
    }
}

fn become_process(socket: &OwnedFd) -> Result<std::convert::Infallible, Failure> {
    // Nobody in the container may look into this process: it has seen the guest outside.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .doing(|| "hide the helper from the container".into())?;
    match read_job()? {
        Job::Create(plan) => {
            let prepared = namespaces::prepare_container(&plan)?;
            process::finish(socket, &plan.process, prepared)
        }
        Job::Join(plan) => {
            let container = fds::adopt_inherited(CONTAINER_FD).doing(|| "take over the container's pidfd".into())?;
            let prepared = join::enter_container(&plan, &container)?;
            process::finish(socket, &plan.process, prepared)
        }
    }
}

fn read_job() -> Result<Job, Failure> {
    let file = std::fs::File::from(fds::adopt_inherited(JOB_FD).doing(|| "take over the job".into())?);
    serde_json::from_reader(std::io::BufReader::new(file))
        .map_err(|error| Failure::new(FailureKind::Internal, format!("read the job: {error}")))
}

/// Tells the agent.
fn send(socket: &OwnedFd, report: &Report, passed: Option<&OwnedFd>) -> Result<(), Failure> {
    let message = serde_json::to_vec(report).map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
    packet::send(socket, &message, passed.map(std::os::fd::AsFd::as_fd)).doing(|| "tell the agent".into())
}
