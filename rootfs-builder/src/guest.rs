//! The guest image: an initramfs whose only program is the agent.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::manifest::{FileDigest, Manifest};
use crate::{Error, cpio, elf};

/// Folders the agent mounts something on, with their permissions.
const FOLDERS: &[(&str, u32)] = &[("dev", 0o755), ("proc", 0o555), ("run", 0o755), ("sys", 0o555), ("tmp", 0o1777)];

/// Device number of `/dev/kmsg`.
const KERNEL_LOG: (u32, u32) = (1, 11);

/// Writes the guest's initramfs with `agent` as `/init` to `out`, and returns what went into it.
///
/// The kernel opens `/dev/console` for `/init` before anything can mount `/dev`. Here it is the kernel's log: what the
/// agent says reaches the serial console all the same, and the serial port is not set up as a terminal, which would
/// cost the host 25 returns from the guest. The archive is not compressed, see README. `out` is replaced in one step: a
/// reader sees the old file or the new one.
///
/// # Errors
///
/// An agent that is not a static x86-64 program, and files that cannot be read or written.
pub fn initramfs(agent: &Path, out: &Path) -> Result<Manifest, Error> {
    let program = fs::read(agent).map_err(Error::io("read", agent))?;
    elf::check_static(&program).map_err(|why| Error::Agent { path: agent.to_path_buf(), why })?;

    let agent_digest = FileDigest::of_bytes(agent, &program)?;
    let mut archive = cpio::Archive::default();
    for (name, permissions) in FOLDERS {
        archive.folder(name, *permissions);
    }
    let (major, minor) = KERNEL_LOG;
    archive.character_device("dev/console", 0o600, major, minor);
    archive.file("init", 0o755, program);
    let bytes = [without_built_in_console()?, archive.to_bytes()?].concat();
    write_atomically(out, &bytes)?;
    Ok(Manifest::new(FileDigest::of_bytes(out, &bytes)?, agent_digest))
}

/// An archive that replaces the kernel's built-in `/dev/console` by a file. A device would not replace a device, and its
/// number would stay.
fn without_built_in_console() -> Result<Vec<u8>, Error> {
    let mut archive = cpio::Archive::default();
    archive.folder("dev", 0o755);
    archive.file("dev/console", 0o600, Vec::new());
    archive.to_bytes()
}

/// Writes a file that appears complete or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(Error::io("create a file in", folder))?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    file.persist(path).map_err(|error| Error::io("write", path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_agent_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, copy) = (folder.path().join("agent"), folder.path().join("renamed"));
        fs::write(&agent, elf::tiny(1)).unwrap();
        fs::write(&copy, elf::tiny(1)).unwrap();
        let (first, second) = (folder.path().join("1.cpio"), folder.path().join("2.cpio"));
        let manifest = initramfs(&agent, &first).unwrap();
        initramfs(&copy, &second).unwrap();
        assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
        assert_eq!(manifest.initramfs.bytes, fs::metadata(&first).unwrap().len());
        assert_eq!(manifest.agent.bytes, fs::metadata(&agent).unwrap().len());

        fs::write(&copy, [elf::tiny(1), vec![1]].concat()).unwrap();
        let other = initramfs(&copy, &second).unwrap();
        assert_ne!(manifest.initramfs.sha256, other.initramfs.sha256);
    }

    #[test]
    fn a_dynamic_agent_is_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("initramfs.cpio");
        let error = initramfs(&std::env::current_exe().unwrap(), &out).unwrap_err().to_string();
        assert!(error.contains("dynamically linked") && error.contains("crt-static"), "{error}");
        assert!(!out.exists());
    }
}
