//! The configuration of one VM: the JSON file that a sandbox hands to its vmm process.
//!
//! These are wire types: the vmm turns them into validated private types once, and refuses what is wrong with an error
//! that names the field and the value.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// File in [`VmConfig::runtime_dir`] to which a vmm writes its console buffer when it ends by itself (the guest powered
/// off, reset or panicked): the control socket is gone by then, and the last lines say why.
pub const CONSOLE_FILE: &str = "console.log";

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// Our own monitor on `/dev/kvm`.
    Kvm,
    /// QEMU's TCG, with our vsock and fs devices over vhost-user.
    Emulated,
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Emulated => "emulated",
        })
    }
}

/// One microVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// Decided by the caller; a vmm never falls back to another.
    pub accelerator: Accelerator,
    /// Uncompressed ELF `vmlinux` for x86-64 with a PVH note.
    pub kernel: PathBuf,
    /// Initial ramdisk, a cpio archive.
    pub initramfs: PathBuf,
    /// Words added to the end of the kernel command line.
    #[serde(default)]
    pub cmdline_extra: String,
    /// vCPUs, 1 to [`crate::wire::VCPUS_MAX`].
    pub vcpus: u32,
    /// Guest memory in MiB, [`crate::wire::MEMORY_MIN_MIB`] to the host's total.
    pub memory_mib: u32,
    /// Ask the host for transparent huge pages behind guest memory.
    #[serde(default)]
    pub huge_pages: bool,
    /// The vsock device.
    pub vsock: VsockConfig,
    /// virtio-fs devices, one per share.
    #[serde(default)]
    pub shares: Vec<ShareConfig>,
    /// virtio-blk devices, in order.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// UNIX stream socket on which the vmm serves [`crate::control`].
    pub control_socket: PathBuf,
    /// Bytes of serial console output that are kept, the newest.
    #[serde(default = "default_console_bytes")]
    pub console_bytes: u32,
    /// Directory of this VM's host state (sockets, config, log): removed by the vmm when its lifeline breaks.
    pub runtime_dir: PathBuf,
}

fn default_console_bytes() -> u32 {
    64 * 1024
}

/// The vsock device, with the hybrid UNIX-socket convention on the host's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// CID of the guest, 3 or more.
    pub guest_cid: u32,
    /// The socket on which the host connects (`CONNECT <port>\n`); the guest's connections arrive at `<uds>_<port>`.
    pub uds: PathBuf,
}

/// One virtio-fs device: a directory whose entries are host files or directories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareConfig {
    /// Mount tag, 1 to 36 bytes.
    pub tag: String,
    /// How the guest may cache.
    pub caching: Caching,
    /// What the root of the share holds.
    pub entries: Vec<ShareEntry>,
}

/// What a guest may keep of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Caching {
    /// Nothing in it changes while the VM lives: names, attributes and data are kept for ever, opens need no request.
    /// Every entry is read-only.
    Immutable,
    /// The host may change it: names and attributes are asked again, data is dropped on open.
    Live,
}

/// One entry of a share's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareEntry {
    /// File name in the share's root: no slash, not `.` or `..`, at most 255 bytes.
    pub name: String,
    /// Absolute host path of a directory or a regular file.
    pub source: PathBuf,
    /// Refuse writes, on the host's side.
    pub read_only: bool,
}

/// One virtio-blk device backed by a raw file or block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// Raw image; `/proc/self/fd/N` or `/dev/fd/N` names an inherited descriptor, such as that of an unlinked file.
    pub path: PathBuf,
    /// Refuse writes.
    pub read_only: bool,
    /// Serial the guest reads, 1 to 20 bytes of `[a-z0-9-]`.
    pub serial: String,
}
