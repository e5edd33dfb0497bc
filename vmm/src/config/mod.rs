//! The validated configuration of one VM.
//!
//! [`Config::load`] turns the wire form ([`VmConfig`]) into types that cannot hold a bad value, once, before anything on
//! the host is touched. Everything behind it trusts these types; every refusal names the field, the value and the rule.

mod error;
mod kernel;
mod rules;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};

use bulkhead_protocols::vm::{Accelerator, Caching, VmConfig};

pub(crate) use error::{ConfigError, KernelError};
pub(crate) use kernel::Kernel;

/// Most bytes of a configuration file: far beyond any real one, far below what would hurt.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// One microVM, every value checked.
#[derive(Debug)]
pub(crate) struct Config {
    /// What runs the guest.
    pub(crate) accelerator: Accelerator,
    /// The kernel, open and checked.
    pub(crate) kernel: Kernel,
    /// The initial ramdisk, open.
    pub(crate) initramfs: Initramfs,
    /// Printable words for the end of the kernel command line.
    pub(crate) cmdline_extra: String,
    /// 1 to [`bulkhead_protocols::wire::VCPUS_MAX`].
    pub(crate) vcpus: u8,
    /// Guest memory.
    pub(crate) memory_mib: u32,
    /// Back guest memory with transparent huge pages.
    pub(crate) huge_pages: bool,
    /// The vsock device.
    pub(crate) vsock: Vsock,
    /// virtio-fs devices; tags differ.
    pub(crate) shares: Vec<Share>,
    /// virtio-blk devices; serials differ.
    pub(crate) disks: Vec<Disk>,
    /// Where the control socket is made; nothing exists there yet.
    pub(crate) control_socket: PathBuf,
    /// Bound of the console buffer.
    pub(crate) console_bytes: usize,
    /// Existing directory that goes when the lifeline breaks.
    pub(crate) runtime_dir: PathBuf,
}

/// An initial ramdisk.
#[derive(Debug)]
pub(crate) struct Initramfs {
    /// Open for reading.
    pub(crate) file: File,
    /// Its length, at least 1.
    pub(crate) bytes: u64,
}

/// The vsock device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vsock {
    /// The guest's address.
    pub(crate) guest_cid: GuestCid,
    /// UNIX socket of the hybrid convention; its path leaves room for `_<port>`.
    pub(crate) uds: PathBuf,
}

/// A context id a guest may have (virtio 1.2, section 5.10.4): 0 to 2 and 2³²−1 are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GuestCid(u32);

impl GuestCid {
    /// The number.
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for GuestCid {
    type Error = ConfigError;

    fn try_from(cid: u32) -> Result<Self, ConfigError> {
        rules::range("vsock.guest_cid", cid.into(), 3, u64::from(u32::MAX) - 1, "")?;
        Ok(Self(cid))
    }
}

/// One virtio-fs device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// 1 to 36 bytes of `[A-Za-z0-9._-]`.
    pub(crate) tag: String,
    /// How the guest may cache; with [`Caching::Immutable`] every entry is read-only.
    pub(crate) caching: Caching,
    /// What the root holds; names differ.
    pub(crate) entries: Vec<Entry>,
}

/// One entry of a share's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// A file name: no slash, no NUL, not `.` or `..`, 1 to 255 bytes.
    pub(crate) name: String,
    /// Absolute path of an existing directory or regular file.
    pub(crate) source: PathBuf,
    /// Refuse writes.
    pub(crate) read_only: bool,
}

/// One virtio-blk device.
#[derive(Debug)]
pub(crate) struct Disk {
    /// As configured.
    pub(crate) path: PathBuf,
    /// A regular file or block device, open for reading, and for writing unless `read_only`.
    pub(crate) file: File,
    /// Refuse writes.
    pub(crate) read_only: bool,
    /// 1 to 20 bytes of `[a-z0-9-]`.
    pub(crate) serial: String,
}

impl Config {
    /// Reads and checks a configuration file.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { field: "--config", path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        rules::range("--config", bytes, 1, CONFIG_BYTES_MAX, " bytes")?;
        let wire: VmConfig =
            serde_json::from_reader(std::io::BufReader::new(std::io::Read::take(file, CONFIG_BYTES_MAX)))
                .map_err(|source| ConfigError::Malformed { path: path.to_owned(), source })?;
        Self::try_from(wire)
    }
}

impl TryFrom<VmConfig> for Config {
    type Error = ConfigError;

    fn try_from(wire: VmConfig) -> Result<Self, ConfigError> {
        let memory_mib = rules::memory_mib(wire.memory_mib)?;
        let vcpus = rules::vcpus(wire.vcpus)?;
        let kernel = Kernel::open(&wire.kernel)?;
        let initramfs = rules::initramfs(wire.initramfs)?;
        rules::boot_files_fit(&kernel, &initramfs, memory_mib)?;
        let config = Self {
            accelerator: wire.accelerator,
            kernel,
            initramfs,
            cmdline_extra: rules::cmdline(wire.cmdline_extra)?,
            vcpus,
            memory_mib,
            huge_pages: wire.huge_pages,
            vsock: Vsock {
                guest_cid: GuestCid::try_from(wire.vsock.guest_cid)?,
                uds: rules::socket_path("vsock.uds", wire.vsock.uds, rules::PORT_SUFFIX_BYTES)?,
            },
            shares: rules::shares(wire.shares)?,
            disks: rules::disks(wire.disks)?,
            control_socket: rules::socket_path("control_socket", wire.control_socket, 0)?,
            console_bytes: rules::console_bytes(wire.console_bytes)?,
            runtime_dir: rules::runtime_dir(wire.runtime_dir)?,
        };
        rules::device_count(config.shares.len(), config.disks.len())?;
        Ok(config)
    }
}
