//! The mounts of the specification, in its order, each prepared detached and then put in its place.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use super::report::{Doing, Failure};
use super::resolve::{Missing, Root};
use super::rootfs::{attach_to, clone_tree, open_guest_path};
use crate::plan::{MountPlan, MountSource};
use crate::sys::mount_attr::{MountChange, change_mount};

/// What the mounts mean for later steps.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// `/dev` comes from elsewhere: nothing is made in it.
    pub(super) dev_is_bound: bool,
    /// Mounts under `/dev` that become read-only after the devices are made.
    sealed_later: Vec<(OwnedFd, MountChange)>,
}

/// Mounts everything.
pub(super) fn mount_all(root: &Root, plans: &[MountPlan], own_cgroup_root: bool) -> Result<Shape, Failure> {
    let mut shape = Shape::default();
    for plan in plans {
        mount_one(root, plan, own_cgroup_root, &mut shape).map_err(|failure| {
            Failure::new(failure.kind, format!("mount {:?}: {}", plan.destination, failure.message))
        })?;
    }
    Ok(shape)
}

/// Applies what had to wait until devices were made.
pub(super) fn seal(shape: &mut Shape) -> Result<(), Failure> {
    for (mount, change) in shape.sealed_later.drain(..) {
        change_mount(&mount, change, false).doing(|| "make the mount at /dev read-only".into())?;
    }
    Ok(())
}

fn mount_one(root: &Root, plan: &MountPlan, own_cgroup_root: bool, shape: &mut Shape) -> Result<(), Failure> {
    let is_dev = plan.destination.trim_end_matches('/') == "/dev";
    let (mount, missing) = match &plan.source {
        MountSource::Bind { path, recursive } => {
            shape.dev_is_bound |= is_dev;
            let source = open_guest_path(path).asked(|| format!("source {path:?}"))?;
            let missing = kind_of(&source).doing(|| format!("look at source {path:?}"))?;
            (clone_tree(&source, *recursive).doing(|| format!("clone source {path:?}"))?, missing)
        }
        MountSource::New { fs_type, source, options } => {
            (new_file_system(fs_type, source, options)?, Missing::Directory)
        }
        MountSource::Cgroup => (cgroup_tree(own_cgroup_root)?, Missing::Directory),
    };
    let mut change = plan.change;
    if is_dev && !shape.dev_is_bound && change.set & libc::MOUNT_ATTR_RDONLY != 0 {
        change.set &= !libc::MOUNT_ATTR_RDONLY;
        let later = rustix::io::fcntl_dupfd_cloexec(&mount, 0).doing(|| "keep the mount".into())?;
        shape.sealed_later.push((later, MountChange::set(libc::MOUNT_ATTR_RDONLY)));
    }
    apply(&mount, plan.recursive_change, true)?;
    apply(&mount, change, false)?;
    let place = root.locate_or_make(&plan.destination, missing).asked(|| "find or make the destination".into())?;
    refuse_root(root, &place)?;
    attach_to(&mount, &place).doing(|| "attach".into())?;
    if let Some(propagation) = plan.propagation {
        let change = MountChange { propagation: propagation.flag, ..MountChange::default() };
        apply(&mount, change, propagation.recursive)?;
    }
    Ok(())
}

/// A destination such as `/` or `/a/..` would hide the root that everything else is resolved in.
fn refuse_root(root: &Root, place: &OwnedFd) -> Result<(), Failure> {
    let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let same = identity(place).doing(|| "look at the destination".into())?
        == identity(root.directory()).doing(|| "look at the root".into())?;
    if same { Err(Failure::invalid("the destination is the container's root")) } else { Ok(()) }
}

fn apply(mount: &OwnedFd, change: MountChange, recursive: bool) -> Result<(), Failure> {
    if change.is_empty() {
        return Ok(());
    }
    change_mount(mount, change, recursive).doing(|| "set the mount's attributes".into())
}

fn kind_of(source: &OwnedFd) -> Result<Missing, rustix::io::Errno> {
    let mode = rustix::fs::fstat(source)?.st_mode;
    Ok(if FileType::from_raw_mode(mode) == FileType::Directory { Missing::Directory } else { Missing::File })
}

fn new_file_system(fs_type: &str, source: &str, options: &[(String, Option<String>)]) -> Result<OwnedFd, Failure> {
    let context = fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC).asked(|| format!("file system type {fs_type:?}"))?;
    fsconfig_set_string(&context, "source", source).asked(|| format!("source {source:?}"))?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        }
        .asked(|| {
            format!("option {key:?}{}", value.as_ref().map(|v| format!(" with value {v:?}")).unwrap_or_default())
        })?;
    }
    fsconfig_create(&context).asked(|| format!("make the {fs_type}"))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).doing(|| format!("mount the {fs_type}"))
}

/// With a cgroup namespace a new cgroup2 mount shows the container's tree only; without one, its directory is bound.
fn cgroup_tree(own_cgroup_root: bool) -> Result<OwnedFd, Failure> {
    if own_cgroup_root {
        return new_file_system("cgroup2", "cgroup", &[]);
    }
    let path = crate::cgroup::own_directory().doing(|| "find the container's cgroup".into())?;
    let directory =
        rustix::fs::open(path.as_path(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .doing(|| format!("open {}", path.display()))?;
    clone_tree(&directory, false).doing(|| format!("clone {}", path.display()))
}
