//! What a guest boots from: kernel and initramfs in a form that QEMU, which runs as a user of its own, can open, and what
//! the kernel is told of this machine.

use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{MemfdFlags, memfd_create};

use super::tsc;
use crate::config::Config;

/// The files a guest boots from. QEMU opens them again by descriptor, which asks the file's mode for permission.
pub(super) struct BootFiles {
    pub(super) kernel: File,
    pub(super) initramfs: File,
    /// Kernel parameter for the rate of the time stamp counter; empty if that could not be measured.
    pub(super) tsc_parameter: String,
}

impl BootFiles {
    /// The files of `config`.
    pub(super) fn new(config: &Config) -> std::io::Result<Self> {
        Ok(Self {
            kernel: readable(&config.kernel.file)?,
            initramfs: readable(&config.initramfs.file)?,
            tsc_parameter: tsc::kernel_parameter().unwrap_or_default(),
        })
    }
}

/// The same file, or a copy in memory of one that not everybody may read.
fn readable(file: &File) -> std::io::Result<File> {
    const OTHERS_READ: u32 = 0o004;
    if file.metadata()?.permissions().mode() & OTHERS_READ != 0 {
        return file.try_clone();
    }
    let mut copy = File::from(memfd_create("boot-file", MemfdFlags::CLOEXEC)?);
    let mut original = file;
    original.rewind()?;
    std::io::copy(&mut original, &mut copy)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_private_file_becomes_one_that_all_may_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmlinux");
        std::fs::write(&path, "kernel").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let original = File::open(&path).unwrap();
        let mut copy = readable(&original).unwrap();
        assert_ne!(copy.metadata().unwrap().permissions().mode() & 0o004, 0);
        let mut contents = String::new();
        copy.rewind().unwrap();
        copy.read_to_string(&mut contents).unwrap();
        assert_eq!(contents, "kernel");
    }
}
