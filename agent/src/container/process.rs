//! The last part of becoming a process, the same for a container's first process and for later ones.

use std::convert::Infallible;
use std::os::fd::OwnedFd;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::execute;
use super::report::{Doing, Failure, FailureKind, Report, START};
use super::resolve::{Missing, Root};
use super::terminal::{self, Terminal};
use super::user::Identity;
use crate::plan::ProcessPlan;
use crate::sys::{limits, packet};

/// What earlier steps found out.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) identity: Identity,
    pub(super) terminal: Option<Terminal>,
    /// The working directory, opened with `O_PATH`.
    pub(super) cwd: OwnedFd,
}

/// File mode creation mask of a process whose specification names none.
const DEFAULT_UMASK: u32 = 0o022;

/// Reports readiness, waits for the start message and executes the program.
pub(super) fn finish(socket: &OwnedFd, plan: &ProcessPlan, prepared: Prepared) -> Result<Infallible, Failure> {
    let Prepared { identity, terminal, cwd } = prepared;
    match &terminal {
        Some(terminal) => terminal::take_control(terminal)?,
        None => give_stdio_to(&identity)?,
    }
    for limit in &plan.rlimits {
        limits::set(limit.resource, limit.soft, limit.hard)
            .asked(|| format!("process.rlimits: resource {} to {}:{}", limit.resource, limit.soft, limit.hard))?;
    }
    rustix::process::umask(Mode::from_raw_mode(plan.umask.unwrap_or(DEFAULT_UMASK)));
    rustix::process::fchdir(&cwd).asked(|| format!("process.cwd {:?}", plan.cwd))?;
    super::send(socket, &Report::Ready, terminal.as_ref().map(|terminal| &terminal.master))?;
    drop(terminal);
    wait_for_start(socket)?;
    execute::execute(plan, &identity)
}

/// Adjusts how likely the kernel's OOM killer takes this process; to be called while the guest's `/proc` is in place.
pub(super) fn set_oom_score(plan: &ProcessPlan) -> Result<(), Failure> {
    let Some(score) = plan.oom_score_adj else { return Ok(()) };
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
        .asked(|| format!("process.oomScoreAdj: set to {score}"))
}

/// Makes the working directory if the plan wants that.
pub(super) fn make_cwd(root: &Root, plan: &ProcessPlan) -> Result<(), Failure> {
    if plan.create_cwd {
        root.locate_or_make(&plan.cwd, Missing::Directory).asked(|| format!("make process.cwd {:?}", plan.cwd))?;
    }
    Ok(())
}

/// Opens the working directory.
pub(super) fn locate_cwd(root: &Root, plan: &ProcessPlan) -> Result<OwnedFd, Failure> {
    let cwd = &plan.cwd;
    match root.open(cwd, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(directory) => Ok(directory),
        Err(Errno::NOENT) => Err(Failure::invalid(format!("process.cwd {cwd:?} does not exist in the container"))),
        Err(Errno::NOTDIR) => Err(Failure::invalid(format!("process.cwd {cwd:?} is not a directory"))),
        Err(error) => Err(error).asked(|| format!("process.cwd {cwd:?}")),
    }
}

/// Lets the user reopen `/dev/stdout` and its like: pipes change their owner, `/dev/null` does not.
fn give_stdio_to(identity: &Identity) -> Result<(), Failure> {
    if identity.uid == 0 {
        return Ok(());
    }
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [std::os::fd::AsFd::as_fd(&stdin), std::os::fd::AsFd::as_fd(&stdout), std::os::fd::AsFd::as_fd(&stderr)] {
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd).doing(|| "look at stdio".into())?.st_mode);
        if kind == rustix::fs::FileType::Fifo {
            rustix::fs::fchown(fd, Some(Uid::from_raw(identity.uid)), None::<Gid>)
                .doing(|| "give stdio to the user".into())?;
        }
    }
    Ok(())
}

fn wait_for_start(socket: &OwnedFd) -> Result<(), Failure> {
    let (message, _) = packet::receive(socket).doing(|| "wait for the start".into())?;
    if message == START { Ok(()) } else { Err(Failure::new(FailureKind::Internal, "the agent gave up")) }
}
