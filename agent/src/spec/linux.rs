//! The `linux` object, but for its resources.

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType};

use super::{SpecError, check_absolute, check_no_nul, mounts, path_text};
use crate::plan::{DevicePlan, Namespaces, Propagation};

/// The namespaces of a container, as the helper and `clone3` want them.
pub(crate) type NamespaceSet = Namespaces;

/// File mode of a device whose specification names none, as runc has it.
const DEFAULT_DEVICE_MODE: u32 = 0o666;
/// Longest host or domain name (uname(2)).
const NAME_MAX: usize = 64;

/// `linux.namespaces`: new ones only; a mount namespace is a must.
pub(super) fn namespaces(linux: &Linux) -> Result<NamespaceSet, SpecError> {
    let mut set = NamespaceSet::default();
    let mut mount = false;
    for namespace in linux.namespaces().iter().flatten() {
        let kind = namespace.typ();
        let slot = match kind {
            LinuxNamespaceType::Mount => &mut mount,
            LinuxNamespaceType::Pid => &mut set.pid,
            LinuxNamespaceType::Ipc => &mut set.ipc,
            LinuxNamespaceType::Uts => &mut set.uts,
            LinuxNamespaceType::Network => &mut set.network,
            LinuxNamespaceType::Cgroup => &mut set.cgroup,
            LinuxNamespaceType::User | LinuxNamespaceType::Time => {
                return Err(format!("linux.namespaces: type {kind} is not supported"));
            }
        };
        if std::mem::replace(slot, true) {
            return Err(format!("linux.namespaces: type {kind} is given twice"));
        }
    }
    if !mount {
        return Err("linux.namespaces: a container needs a mount namespace".into());
    }
    Ok(set)
}

/// `hostname` and `domainname`: they need a UTS namespace, or they would rename the guest.
pub(super) fn check_names(
    namespaces: &NamespaceSet,
    hostname: Option<&str>,
    domainname: Option<&str>,
) -> Result<(), SpecError> {
    for (property, name) in [("hostname", hostname), ("domainname", domainname)] {
        let Some(name) = name.filter(|name| !name.is_empty()) else { continue };
        check_no_nul(property, name)?;
        if name.len() > NAME_MAX {
            return Err(format!("{property} {name:?} is longer than {NAME_MAX} bytes"));
        }
        if !namespaces.uts {
            return Err(format!("{property} is set, but linux.namespaces has no uts namespace"));
        }
    }
    Ok(())
}

/// `linux.devices`.
pub(super) fn devices(linux: &Linux) -> Result<Vec<DevicePlan>, SpecError> {
    linux.devices().iter().flatten().map(device).collect()
}

fn device(device: &LinuxDevice) -> Result<DevicePlan, SpecError> {
    let path = path_text("linux.devices", device.path())?;
    check_absolute("linux.devices.path", &path)?;
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => return Err(format!("linux.devices: {path:?} has type a, which makes no node")),
    };
    let number = |name: &str, value: i64| {
        u32::try_from(value).map_err(|_| format!("linux.devices: {path:?} has {name} number {value}"))
    };
    let (major, minor) = if kind == libc::S_IFIFO {
        (0, 0)
    } else {
        (number("major", device.major())?, number("minor", device.minor())?)
    };
    let mode = device.file_mode().unwrap_or(DEFAULT_DEVICE_MODE) & 0o7777;
    let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    Ok(DevicePlan { path, kind, major, minor, mode, uid, gid })
}

/// `linux.sysctl`, with keys as paths below `/proc/sys`.
pub(super) fn sysctls(linux: &Linux) -> Result<Vec<(String, String)>, SpecError> {
    let mut found = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b'@');
        let path = if key.contains('/') { key.clone() } else { key.replace('.', "/") };
        if !key.bytes().all(plain) || path.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Err(format!("linux.sysctl: {key:?} is no name of a sysctl"));
        }
        check_no_nul("linux.sysctl", value)?;
        found.push((path, value.clone()));
    }
    // A map has no order of its own: a fixed one makes failures repeat.
    found.sort();
    Ok(found)
}

/// `linux.rootfsPropagation`.
pub(super) fn propagation(linux: &Linux) -> Result<Option<Propagation>, SpecError> {
    linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty()).map(mounts::root_propagation).transpose()
}

/// `linux.cgroupsPath`: relative or absolute, it is taken from the root of the hierarchy.
pub(super) fn cgroup_path(linux: &Linux) -> Result<Option<String>, SpecError> {
    let Some(path) = linux.cgroups_path() else { return Ok(None) };
    let path = path_text("linux.cgroupsPath", path)?;
    if path.is_empty() {
        return Ok(None);
    }
    check_no_nul("linux.cgroupsPath", &path)?;
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    if names.is_empty() || names.iter().any(|name| matches!(*name, "." | "..")) {
        return Err(format!("linux.cgroupsPath {path:?} is no path of a group"));
    }
    Ok(Some(names.join("/")))
}
