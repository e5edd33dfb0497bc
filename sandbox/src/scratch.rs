//! The scratch disk: a sparse ext4 image that takes what a sandbox writes, without a name from the moment it exists.
//!
//! A formatted template per size is kept in the data directory (a few hundred KiB on disk) and its written parts are copied
//! for each sandbox. No journal: nothing of it outlives the VM, so there is nothing to recover. The inode tables are
//! marked as zeroed, which they are in a sparse file, so that the guest's kernel does not write them out in the background.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom};

/// Size of a scratch disk where nothing else is asked for.
pub const SCRATCH_DEFAULT_MIB: u32 = 10 * 1024;

/// The formatter's arguments; they are part of the template's name, so that a change makes a new one.
const FORMAT: &[&str] = &["-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-L", "scratch"];
const FORMAT_EXTENDED: &str = "lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard,root_owner=0:0";
/// Raised when [`FORMAT`] or [`FORMAT_EXTENDED`] change.
const TEMPLATE_VERSION: u32 = 1;
/// Where administrators' programs are, beside what PATH says.
const SYSTEM_DIRS: &[&str] = &["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Why there is no scratch disk.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The formatter is not installed.
    #[error("mkfs.ext4 is not installed: apt-get install e2fsprogs")]
    NoFormatter,
    /// The formatter failed.
    #[error("mkfs.ext4 failed on {}: {message}", path.display())]
    Format {
        /// The template being made.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// A file system operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ScratchError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Makes a formatted disk of `size_mib` that only the returned descriptor names.
///
/// # Errors
/// The template cannot be made or copied.
pub fn create(data_dir: &Path, size_mib: u32) -> Result<OwnedFd, ScratchError> {
    let dir = data_dir.join("scratch");
    std::fs::create_dir_all(&dir).map_err(ScratchError::io("create", &dir))?;
    let source = template(&dir, size_mib)?;
    let disk = unnamed_file(&dir).map_err(ScratchError::io("create a file in", &dir))?;
    copy_sparse(&source, &disk).map_err(ScratchError::io("copy the template in", &dir))?;
    Ok(disk.into())
}

/// Finds the formatter.
pub fn formatter() -> Option<PathBuf> {
    find_program("mkfs.ext4")
}

/// Finds an administrators' program in PATH or where such programs are.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.iter().map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}

/// The template of a size. It gets its name only when it is whole: other commands see all of it or nothing, and a command
/// that is killed leaves nothing.
fn template(dir: &Path, size_mib: u32) -> Result<File, ScratchError> {
    let path = dir.join(format!("template-v{TEMPLATE_VERSION}-{size_mib}.ext4"));
    match File::open(&path) {
        Ok(template) => return Ok(template),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(ScratchError::io("open", &path)(error)),
    }
    let template = unnamed_file(dir).map_err(ScratchError::io("create a file in", dir))?;
    template.set_len(u64::from(size_mib) << 20).map_err(ScratchError::io("size", &path))?;
    let descriptor = format!("/proc/{}/fd/{}", std::process::id(), template.as_raw_fd());
    format(Path::new(&descriptor), &path)?;
    // A name that outlives a power cut must not name an empty file.
    template.sync_all().map_err(ScratchError::io("write", &path))?;
    // Without a name (another command was faster, or the file system cannot do it) it still serves this once.
    let _not_kept = rustix::fs::linkat(CWD, &*descriptor, CWD, &path, AtFlags::SYMLINK_FOLLOW);
    Ok(template)
}

/// Formats the file behind `descriptor`, which is to become `path`.
fn format(descriptor: &Path, path: &Path) -> Result<(), ScratchError> {
    let formatter = formatter().ok_or(ScratchError::NoFormatter)?;
    let mut command = Command::new(&formatter);
    command.args(FORMAT).args(["-E", FORMAT_EXTENDED]).arg(descriptor);
    let output = command.output().map_err(ScratchError::io("run", &formatter))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ScratchError::Format { path: path.to_owned(), message })
}

/// A file that never has a name, or where the file system cannot do that, has none after this function.
fn unnamed_file(dir: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(dir, OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, mode) {
        Ok(fd) => return Ok(fd.into()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let name = dir.join(OsStr::new(&format!("disk-{}.partial", crate::runtime_dir::random_hex())));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&name, flags, mode)?;
    std::fs::remove_file(&name)?;
    Ok(fd.into())
}

/// Copies the written parts only: by reference where the file system can, else byte by byte.
fn copy_sparse(source: &File, target: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut offset = 0;
    while let Some((start, end)) = next_extent(source, offset)? {
        copy_range(source, target, start, end)?;
        offset = end;
    }
    Ok(())
}

/// The next written range at or after `offset`.
fn next_extent(file: &File, offset: u64) -> io::Result<Option<(u64, u64)>> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => Ok(Some((start, rustix::fs::seek(file, SeekFrom::Hole(start))?))),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy_range(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = start;
    while offset < end {
        let want = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = buffer.get_mut(..want).unwrap_or_default();
        source.read_exact_at(chunk, offset)?;
        target.write_all_at(chunk, offset)?;
        offset += chunk.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn a_disk_is_clean_sparse_and_without_a_name() {
        let data = tempfile::tempdir().unwrap();
        let disk = File::from(create(data.path(), 1024).unwrap());
        let metadata = disk.metadata().unwrap();
        assert_eq!(metadata.len(), 1 << 30);
        assert_eq!(metadata.nlink(), 0);
        assert!(metadata.blocks() * 512 < 4 << 20, "{} blocks", metadata.blocks());
        let checked = Command::new(find_program("e2fsck").unwrap())
            .args(["-fn", &format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd())])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }

    #[test]
    fn disks_share_nothing_but_the_template() {
        let data = tempfile::tempdir().unwrap();
        let first = File::from(create(data.path(), 64).unwrap());
        first.write_all_at(b"secret", 8 << 20).unwrap();
        let second = File::from(create(data.path(), 64).unwrap());
        let mut bytes = [1; 6];
        second.read_exact_at(&mut bytes, 8 << 20).unwrap();
        assert_eq!(bytes, [0; 6]);
        let names: Vec<_> = std::fs::read_dir(data.path().join("scratch")).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "only the template: {names:?}");
    }

    #[test]
    fn copies_data_between_holes() {
        let (source, target) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        source.set_len(4 << 20).unwrap();
        source.write_all_at(b"begin", 0).unwrap();
        source.write_all_at(b"middle", (2 << 20) + 7).unwrap();
        copy_sparse(&source, &target).unwrap();
        let read = |file: &File| {
            let mut bytes = vec![0; 4 << 20];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(read(&source) == read(&target));
        assert!(target.metadata().unwrap().blocks() * 512 < 1 << 20);
    }
}
