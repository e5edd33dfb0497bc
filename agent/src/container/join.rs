//! A further process of a running container: from birth in its cgroup and pid namespace into its other namespaces.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::namespaces::own_session;
use super::process::{self, Prepared};
use super::report::{Doing, Failure};
use super::resolve::Root;
use super::{terminal, user};
use crate::plan::{JoinPlan, Namespaces};

/// Moves the calling process into the namespaces of the process that `container` refers to, all in one step.
pub(super) fn enter_container(plan: &JoinPlan, container: &OwnedFd) -> Result<Prepared, Failure> {
    own_session()?;
    process::set_oom_score(&plan.process)?;
    move_into_thread_name_spaces(container.as_fd(), joined(plan.namespaces))
        .doing(|| "join the container's namespaces".into())?;
    let directory = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open the container's root".into())?;
    let root = Root::new(directory);
    let identity = user::resolve(&root, &plan.process.user)?;
    process::make_cwd(&root, &plan.process)?;
    let cwd = process::locate_cwd(&root, &plan.process)?;
    let terminal = plan.process.terminal.map(|size| terminal::open(&root, size, &identity)).transpose()?;
    Ok(Prepared { identity, terminal, cwd })
}

/// The pid namespace is not among them: the helper was born in it.
fn joined(own: Namespaces) -> ThreadNameSpaceType {
    let mut kinds = ThreadNameSpaceType::MOUNT;
    kinds.set(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, own.ipc);
    kinds.set(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME, own.uts);
    kinds.set(ThreadNameSpaceType::NETWORK, own.network);
    kinds.set(ThreadNameSpaceType::CONTROL_GROUP, own.cgroup);
    kinds
}
