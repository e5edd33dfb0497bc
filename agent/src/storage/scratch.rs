//! The scratch disk: an ext4 file system on a virtio-blk device, found by its serial, that takes what containers write.
//! Owns which serial is mounted.

use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use super::SCRATCH_ROOT;
use crate::server::Refusal;

/// Longest serial of a virtio-blk device (virtio 1.2, section 5.2.6).
const SERIAL_MAX: usize = 20;

/// The scratch disk, once it is mounted.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    serial: Option<String>,
}

impl Scratch {
    /// Mounts the disk with that serial if need be, and makes a directory with `upper` and `work` for a container.
    pub(crate) fn prepare(&mut self, serial: &str, container_id: &str) -> Result<String, Refusal> {
        self.mount(serial)?;
        let directory = format!("{SCRATCH_ROOT}/{container_id}");
        for path in [directory.clone(), format!("{directory}/upper"), format!("{directory}/work")] {
            std::fs::create_dir(&path).map_err(|error| Refusal::internal(format!("make {path}: {error}")))?;
        }
        Ok(directory)
    }

    fn mount(&mut self, serial: &str) -> Result<(), Refusal> {
        match &self.serial {
            Some(mounted) if mounted == serial => return Ok(()),
            Some(mounted) => {
                return Err(Refusal::invalid(format!("scratch_serial {serial:?}: disk {mounted:?} is in use already")));
            }
            None => {}
        }
        let device = find(Path::new("/sys/block"), serial)?;
        std::fs::create_dir_all(SCRATCH_ROOT)
            .map_err(|error| Refusal::internal(format!("make {SCRATCH_ROOT}: {error}")))?;
        let flags = MountFlags::NOATIME | MountFlags::NODEV | MountFlags::NOSUID;
        rustix::mount::mount(device.as_path(), SCRATCH_ROOT, "ext4", flags, Some(c"discard")).map_err(|error| {
            Refusal::invalid(format!("scratch_serial {serial:?}: mount {} as ext4: {error}", device.display()))
        })?;
        self.serial = Some(serial.to_owned());
        Ok(())
    }
}

/// The device node of the disk with that serial.
fn find(blocks: &Path, serial: &str) -> Result<PathBuf, Refusal> {
    if serial.len() > SERIAL_MAX {
        return Err(Refusal::invalid(format!("scratch_serial {serial:?} is longer than {SERIAL_MAX} bytes")));
    }
    let entries =
        std::fs::read_dir(blocks).map_err(|error| Refusal::internal(format!("list {}: {error}", blocks.display())))?;
    for entry in entries.flatten() {
        let found = std::fs::read_to_string(entry.path().join("serial"));
        if found.is_ok_and(|found| found.trim_end_matches(['\n', '\0', ' ']) == serial) {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(Refusal::invalid(format!("scratch_serial {serial:?}: no disk of this guest has that serial")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_its_serial() {
        let blocks = std::env::temp_dir().join(format!("bulkhead-blocks-{}", std::process::id()));
        for (name, serial) in [("vda", "data\n"), ("vdb", "scratch\n")] {
            std::fs::create_dir_all(blocks.join(name)).unwrap();
            std::fs::write(blocks.join(name).join("serial"), serial).unwrap();
        }
        std::fs::create_dir_all(blocks.join("loop0")).unwrap();
        assert_eq!(find(&blocks, "scratch").unwrap(), Path::new("/dev/vdb"));
        assert!(find(&blocks, "scr").unwrap_err().to_string().contains("no disk"));
        assert!(find(&blocks, &"s".repeat(21)).is_err());
        std::fs::remove_dir_all(blocks).unwrap();
    }
}
