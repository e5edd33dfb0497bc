//! Device nodes and links of `/dev`, and the devices that the specification adds.

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::report::{Doing, Failure};
use super::resolve::Root;
use crate::plan::DevicePlan;

/// The devices every container has (runtime-spec, "Default Devices"): name, major, minor.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The links every container has (runtime-spec, "Dev symbolic links", and ptmx of its own devpts).
const DEFAULT_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the default devices and links.
pub(super) fn populate(root: &Root) -> Result<(), Failure> {
    for (name, major, minor) in DEFAULT_DEVICES {
        let kind = libc::S_IFCHR;
        let path = format!("/dev/{name}");
        make_node(root, &DevicePlan { path, kind, major, minor, mode: 0o666, uid: 0, gid: 0 })?;
    }
    for (name, target) in DEFAULT_LINKS {
        make_link(root, name, target)?;
    }
    Ok(())
}

/// Makes the specification's devices.
pub(super) fn create(root: &Root, devices: &[DevicePlan]) -> Result<(), Failure> {
    devices.iter().try_for_each(|device| make_node(root, device))
}

fn make_node(root: &Root, device: &DevicePlan) -> Result<(), Failure> {
    let what = || format!("make device {:?}", device.path);
    let (parent, name) = root.parent_of(&device.path).asked(what)?;
    let kind = FileType::from_raw_mode(device.kind);
    let number = rustix::fs::makedev(device.major, device.minor);
    let mode = Mode::from_raw_mode(device.mode);
    match rustix::fs::mknodat(&parent, name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EXIST) => return accept_existing(&parent, name, device),
        Err(error) => return Err(error).doing(what),
    }
    // The umask took bits from the mode, and the creator owns the node.
    rustix::fs::chmodat(&parent, name, mode, AtFlags::empty()).doing(what)?;
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing(what)?;
    }
    Ok(())
}

/// An image may bring the node along: the same device is fine, anything else gives way.
fn accept_existing(parent: &std::os::fd::OwnedFd, name: &str, device: &DevicePlan) -> Result<(), Failure> {
    let what = || format!("make device {:?}", device.path);
    let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).doing(what)?;
    let same_kind = FileType::from_raw_mode(found.st_mode) == FileType::from_raw_mode(device.kind);
    if same_kind && (device.kind == libc::S_IFIFO || found.st_rdev == rustix::fs::makedev(device.major, device.minor)) {
        return Ok(());
    }
    rustix::fs::unlinkat(parent, name, AtFlags::empty()).doing(what)?;
    let number = rustix::fs::makedev(device.major, device.minor);
    let mode = Mode::from_raw_mode(device.mode);
    rustix::fs::mknodat(parent, name, FileType::from_raw_mode(device.kind), mode, number).doing(what)?;
    rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).doing(what)
}

fn make_link(root: &Root, name: &str, target: &str) -> Result<(), Failure> {
    let path = format!("/dev/{name}");
    let (parent, name) = root.parent_of(&path).asked(|| format!("make {path:?}"))?;
    match rustix::fs::symlinkat(target, &parent, name) {
        Err(Errno::EXIST) if name == "ptmx" => {
            // A ptmx from the image would lead to another instance of devpts than the container's.
            rustix::fs::unlinkat(&parent, name, AtFlags::empty()).doing(|| format!("replace {path:?}"))?;
            rustix::fs::symlinkat(target, &parent, name).doing(|| format!("link {path:?}"))
        }
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).doing(|| format!("link {path:?}")),
    }
}
