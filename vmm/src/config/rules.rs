//! The rule for each field of the configuration.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use bulkhead_protocols::vm::{Caching, DiskConfig, ShareConfig, ShareEntry};
use bulkhead_protocols::wire;

use super::{ConfigError, Disk, Entry, Initramfs, Kernel, Share};

/// Bytes of the longest `_<port>` that the hybrid vsock convention adds to a socket's path.
pub(super) const PORT_SUFFIX_BYTES: usize = "_4294967295".len();
/// `sockaddr_un.sun_path` with its terminating NUL.
const SOCKET_PATH_MAX: usize = 107;
/// A kernel command line is 2,047 bytes at most; the rest is for our own words.
const CMDLINE_EXTRA_MAX: usize = 1024;
/// virtio 1.2, section 5.11.4.
const TAG_MAX: usize = 36;
/// virtio 1.2, section 5.2.6.1.
const SERIAL_MAX: usize = 20;
/// Each device has an interrupt line of its own; vsock and rng take two.
const SHARES_AND_DISKS_MAX: u64 = crate::arch::layout::DEVICES_MAX as u64 - 2;
const MIB: u64 = 1 << 20;
/// Above kernel and initramfs, what the kernel needs for itself before it can free anything.
const BOOT_HEADROOM_BYTES: u64 = 16 * MIB;

/// Refuses a number outside `least..=most`; `unit` begins with a space.
pub(super) fn range(
    field: &'static str,
    value: u64,
    least: u64,
    most: u64,
    unit: &'static str,
) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange { field, value, least, most, unit })
    }
}

pub(super) fn memory_mib(memory_mib: u32) -> Result<u32, ConfigError> {
    let host = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion, reason = "the field's width differs between C libraries")]
    let host_mib = u64::from(host.totalram).saturating_mul(host.mem_unit.into()) / MIB;
    range("memory_mib", memory_mib.into(), wire::MEMORY_MIN_MIB.into(), host_mib.min(u32::MAX.into()), " MiB")?;
    Ok(memory_mib)
}

pub(super) fn vcpus(vcpus: u32) -> Result<u8, ConfigError> {
    range("vcpus", vcpus.into(), 1, wire::VCPUS_MAX.into(), "")?;
    u8::try_from(vcpus).map_err(|_| ConfigError::OutOfRange {
        field: "vcpus",
        value: vcpus.into(),
        least: 1,
        most: u8::MAX.into(),
        unit: "",
    })
}

pub(super) fn console_bytes(bytes: u32) -> Result<usize, ConfigError> {
    range("console_bytes", bytes.into(), 1024, 16 * MIB, " bytes")?;
    Ok(bytes as usize)
}

pub(super) fn cmdline(words: String) -> Result<String, ConfigError> {
    if words.len() > CMDLINE_EXTRA_MAX || !words.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(invalid("cmdline_extra", &words, "at most 1024 printable ASCII characters are allowed"));
    }
    Ok(words)
}

pub(super) fn initramfs(path: PathBuf) -> Result<Initramfs, ConfigError> {
    let file = open_regular("initramfs", &path)?;
    let bytes = file
        .metadata()
        .map_err(|source| ConfigError::Unreadable { field: "initramfs", path: path.clone(), source })?
        .len();
    if bytes == 0 {
        return Err(invalid("initramfs", &path.to_string_lossy(), "the file is empty"));
    }
    Ok(Initramfs { file, bytes })
}

/// Both must lie in the memory below the hole for devices, with room for the kernel to start.
pub(super) fn boot_files_fit(kernel: &Kernel, initramfs: &Initramfs, memory_mib: u32) -> Result<(), ConfigError> {
    let low_bytes = (u64::from(memory_mib) * MIB).min(crate::arch::layout::LOW_MEMORY_END);
    let needed = kernel.end_gpa().saturating_add(initramfs.bytes).saturating_add(BOOT_HEADROOM_BYTES);
    if needed > low_bytes {
        return Err(ConfigError::BootFilesTooLarge { memory_mib, needed_mib: needed.div_ceil(MIB) });
    }
    Ok(())
}

/// An absolute path that fits a UNIX socket address with `suffix_bytes` more, in a directory that exists.
pub(super) fn socket_path(field: &'static str, path: PathBuf, suffix_bytes: usize) -> Result<PathBuf, ConfigError> {
    let text = path.to_string_lossy();
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(invalid(field, &text, "must be the absolute path of a socket"));
    }
    if path.as_os_str().len().saturating_add(suffix_bytes) > SOCKET_PATH_MAX {
        return Err(invalid(field, &text, "is too long for a UNIX socket (107 bytes, port suffix included)"));
    }
    if !path.parent().is_some_and(Path::is_dir) {
        return Err(invalid(field, &text, "its directory does not exist"));
    }
    Ok(path)
}

pub(super) fn runtime_dir(path: PathBuf) -> Result<PathBuf, ConfigError> {
    let text = path.to_string_lossy();
    // It is removed with all it holds: a root or relative path there would be a disaster.
    if !path.is_absolute() || path.components().count() < 3 {
        return Err(invalid("runtime_dir", &text, "must be an absolute path at least two levels deep"));
    }
    if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(invalid("runtime_dir", &text, "is not an existing directory"));
    }
    Ok(path)
}

pub(super) fn shares(shares: Vec<ShareConfig>) -> Result<Vec<Share>, ConfigError> {
    let mut tags = HashSet::new();
    shares
        .into_iter()
        .map(|share| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if share.tag.is_empty() || share.tag.len() > TAG_MAX || !share.tag.bytes().all(plain) {
                return Err(invalid("shares.tag", &share.tag, "must be 1 to 36 characters of [A-Za-z0-9._-]"));
            }
            if !tags.insert(share.tag.clone()) {
                return Err(ConfigError::Duplicate { field: "shares.tag", value: share.tag });
            }
            Ok(Share { caching: share.caching, entries: entries(share.entries, share.caching)?, tag: share.tag })
        })
        .collect()
}

fn entries(entries: Vec<ShareEntry>, caching: Caching) -> Result<Vec<Entry>, ConfigError> {
    let mut names = HashSet::new();
    entries
        .into_iter()
        .map(|entry| {
            let dots = entry.name == "." || entry.name == "..";
            if entry.name.is_empty() || entry.name.len() > 255 || dots || entry.name.contains(['/', '\0']) {
                let rule = "must be a file name of 1 to 255 bytes without a slash, not `.` or `..`";
                return Err(invalid("shares.entries.name", &entry.name, rule));
            }
            if !names.insert(entry.name.clone()) {
                return Err(ConfigError::Duplicate { field: "shares.entries.name", value: entry.name });
            }
            if caching == Caching::Immutable && !entry.read_only {
                let rule = "must be read_only, as its share is immutable";
                return Err(invalid("shares.entries.read_only", &entry.name, rule));
            }
            share_source(&entry.source)?;
            Ok(Entry { name: entry.name, source: entry.source, read_only: entry.read_only })
        })
        .collect()
}

fn share_source(source: &Path) -> Result<(), ConfigError> {
    let field = "shares.entries.source";
    let text = source.to_string_lossy();
    if !source.is_absolute() {
        return Err(invalid(field, &text, "must be an absolute path"));
    }
    let metadata =
        source.metadata().map_err(|error| ConfigError::Unreadable { field, path: source.to_owned(), source: error })?;
    if !metadata.is_dir() && !metadata.is_file() {
        return Err(invalid(field, &text, "must be a directory or a regular file"));
    }
    Ok(())
}

pub(super) fn disks(disks: Vec<DiskConfig>) -> Result<Vec<Disk>, ConfigError> {
    let mut serials = HashSet::new();
    disks
        .into_iter()
        .map(|disk| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if disk.serial.is_empty() || disk.serial.len() > SERIAL_MAX || !disk.serial.bytes().all(plain) {
                return Err(invalid("disks.serial", &disk.serial, "must be 1 to 20 characters of [a-z0-9-]"));
            }
            if !serials.insert(disk.serial.clone()) {
                return Err(ConfigError::Duplicate { field: "disks.serial", value: disk.serial });
            }
            let file = open_disk(&disk)?;
            Ok(Disk { path: disk.path, file, read_only: disk.read_only, serial: disk.serial })
        })
        .collect()
}

fn open_disk(disk: &DiskConfig) -> Result<File, ConfigError> {
    let field = "disks.path";
    let unreadable = |source| ConfigError::Unreadable { field, path: disk.path.clone(), source };
    let mut options = File::options();
    options.read(true).write(!disk.read_only);
    // A FIFO must not hang the open; the type is checked below, and regular files ignore the flag.
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(&disk.path).map_err(unreadable)?;
    let file_type = file.metadata().map_err(unreadable)?.file_type();
    if !file_type.is_file() && !file_type.is_block_device() {
        return Err(invalid(field, &disk.path.to_string_lossy(), "must be a regular file or a block device"));
    }
    Ok(file)
}

pub(super) fn device_count(shares: usize, disks: usize) -> Result<(), ConfigError> {
    range("shares and disks", (shares + disks) as u64, 0, SHARES_AND_DISKS_MAX, "")
}

/// Opens a regular file for reading; a FIFO or device in its place is refused without hanging.
pub(super) fn open_regular(field: &'static str, path: &Path) -> Result<File, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { field, path: path.to_owned(), source };
    let mut options = File::options();
    options.read(true);
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(invalid(field, &path.to_string_lossy(), "must be a regular file"));
    }
    Ok(file)
}

/// Values are shown cut: they come from outside.
fn invalid(field: &'static str, value: &str, rule: &'static str) -> ConfigError {
    let mut value = value.to_owned();
    if let Some((cut, _)) = value.char_indices().nth(100) {
        value.truncate(cut);
        value.push('…');
    }
    ConfigError::Invalid { field, value, rule }
}
