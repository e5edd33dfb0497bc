//! A new container, from the inside: everything between birth in its namespaces and the wait for the start message.

use super::process::Prepared;
use super::report::{Doing, Failure};
use super::resolve::Root;
use super::{devices, files, masks, mounts, process, rootfs, terminal, user};
use crate::plan::ContainerPlan;
use crate::sys;

/// Builds the container around the calling process and moves into it.
pub(super) fn prepare_container(plan: &ContainerPlan) -> Result<Prepared, Failure> {
    own_session()?;
    process::set_oom_score(&plan.process)?;
    if plan.namespaces.cgroup {
        sys::namespace::unshare_cgroup().doing(|| "make a cgroup namespace".into())?;
    }
    if plan.namespaces.network {
        sys::network::loopback_up().doing(|| "bring up the loopback interface".into())?;
    }
    set_names(plan)?;
    let root = rootfs::mount_root(&plan.rootfs)?;
    build(plan, &root)
}

/// Fills the root file system, moves into it and finds out who the process is.
fn build(plan: &ContainerPlan, root: &Root) -> Result<Prepared, Failure> {
    let mut shape = mounts::mount_all(root, &plan.mounts, plan.namespaces.cgroup)?;
    if !shape.dev_is_bound {
        devices::populate(root)?;
    }
    devices::create(root, &plan.devices)?;
    files::write(root, &plan.files)?;
    write_sysctls(plan)?;
    let identity = user::resolve(root, &plan.process.user)?;
    process::make_cwd(root, &plan.process)?;
    let terminal = plan.process.terminal.map(|size| terminal::open(root, size, &identity)).transpose()?;
    if let Some(terminal) = &terminal {
        terminal::bind_console(root, terminal)?;
    }
    masks::mask(root, &plan.masked_paths)?;
    masks::make_read_only(root, &plan.readonly_paths)?;
    mounts::seal(&mut shape)?;
    let cwd = process::locate_cwd(root, &plan.process)?;
    rootfs::enter(root, &plan.rootfs)?;
    Ok(Prepared { identity, terminal, cwd })
}

/// A session of its own: no terminal of anybody else, no signals from outside.
pub(super) fn own_session() -> Result<(), Failure> {
    match rustix::process::setsid() {
        // Born as PID 1 of a namespace, a process may lead a session already.
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(error).doing(|| "start a session".into()),
    }
}

fn set_names(plan: &ContainerPlan) -> Result<(), Failure> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).asked(|| format!("hostname {name:?}"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).asked(|| format!("domainname {name:?}"))?;
    }
    Ok(())
}

/// Writes through the guest's own `/proc`: the files act on the namespaces of the writer.
fn write_sysctls(plan: &ContainerPlan) -> Result<(), Failure> {
    for (key, value) in &plan.sysctls {
        std::fs::write(format!("/proc/sys/{key}"), value)
            .asked(|| format!("linux.sysctl: set {key:?} to {value:?}"))?;
    }
    Ok(())
}
