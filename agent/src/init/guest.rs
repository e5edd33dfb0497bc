//! What every guest has before the first container: file systems of the kernel, cgroups, loopback.

use anyhow::Context;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount};

use crate::cgroup::{CGROUP_ROOT, enable_controllers};
use crate::storage::{CONTAINER_FILES_DIR, CONTAINER_ROOT_DIR, SHARES_ROOT};

/// The mounts, in order: type, directory, flags, options. Their directories exist or are made first.
const MOUNTS: [(&str, &str, MountFlags, &std::ffi::CStr); 7] = [
    ("proc", "/proc", SAFE, c""),
    ("sysfs", "/sys", SAFE, c""),
    ("cgroup2", CGROUP_ROOT, SAFE, c"nsdelegate"),
    ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
    ("devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), c"mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", MountFlags::NOSUID.union(MountFlags::NODEV), c"mode=1777"),
    ("mqueue", "/dev/mqueue", SAFE, c""),
];
/// For what holds neither programs nor devices.
const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What a container sees that has no UTS namespace.
const HOSTNAME: &[u8] = b"bulkhead";

/// Directories that are made once everything is mounted.
const DIRECTORIES: [&str; 3] = [SHARES_ROOT, CONTAINER_ROOT_DIR, CONTAINER_FILES_DIR];

/// Kernel settings unlike the kernel's own defaults: file below `/proc/sys` and value.
///
/// The guest is bounded by its memory, and containers by limits of their own: numbers of things need no bound here.
const SYSCTLS: [(&str, &str); 2] = [("kernel/pid_max", "4194304"), ("fs/inotify/max_user_instances", "8192")];

/// Sets the guest up.
pub(super) async fn prepare() -> anyhow::Result<()> {
    for (fs_type, directory, flags, options) in MOUNTS {
        make_directory(directory)?;
        mount(fs_type, directory, fs_type, flags, Some(options))
            .with_context(|| format!("mount {fs_type} at {directory}"))?;
    }
    super::let_others_run().await;
    for directory in DIRECTORIES {
        std::fs::create_dir_all(directory).with_context(|| format!("make {directory}"))?;
    }
    enable_controllers(std::path::Path::new(CGROUP_ROOT)).map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    super::let_others_run().await;
    for (file, value) in SYSCTLS {
        // A kernel of the user's choice may lack one; none is worth a guest.
        let _ = std::fs::write(format!("/proc/sys/{file}"), value);
    }
    super::let_others_run().await;
    rustix::system::sethostname(HOSTNAME).context("name the guest")?;
    crate::sys::network::loopback_up().context("bring up the loopback interface")
}

fn make_directory(path: &str) -> anyhow::Result<()> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("make {path}")),
    }
}
