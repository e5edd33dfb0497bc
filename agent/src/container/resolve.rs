//! Paths inside a root file system that somebody hostile made.
//!
//! Every look-up goes through `openat2(2)` with `RESOLVE_IN_ROOT`: symbolic links and `..` stay inside, and magic links
//! (`/proc/self/fd/7`, `/proc/1/root`) are refused. What was looked up is used by descriptor, never by path again.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a look-up is repeated that a concurrent rename disturbed.
const RETRIES: u32 = 32;

/// The root directory of a container.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
}

/// What to make where a path leads to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Directory,
    File,
}

impl Root {
    /// Takes `directory`, opened with `O_PATH` or for reading, as the root.
    pub(super) fn new(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// The directory itself.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Opens `path`.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_at(&self.directory, path, flags)
    }

    /// Opens `path` to be used as a place only (`O_PATH`), following a symbolic link at its end.
    pub(super) fn locate(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH)
    }

    /// Like [`Root::locate`], but first makes what is missing: parent directories, and at the end a file or directory.
    pub(super) fn locate_or_make(&self, path: &str, missing: Missing) -> Result<OwnedFd, Errno> {
        match self.locate(path) {
            Err(Errno::NOENT) => self.make(path, missing),
            found => found,
        }
    }

    /// Opens the directory that holds the last component of `path`, making what is missing, and names that component.
    pub(super) fn parent_of<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Errno> {
        let trimmed = path.trim_end_matches('/');
        let (parent, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        if matches!(name, "" | "." | "..") {
            return Err(Errno::INVAL);
        }
        let parent = if parent.is_empty() { "/" } else { parent };
        Ok((self.locate_or_make(parent, Missing::Directory)?, name))
    }

    fn make(&self, path: &str, missing: Missing) -> Result<OwnedFd, Errno> {
        let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let mut at = self.open("/", OFlags::PATH | OFlags::DIRECTORY)?;
        let mut walked = String::new();
        for (index, name) in names.iter().enumerate() {
            walked.push('/');
            walked.push_str(name);
            let last = index + 1 == names.len();
            at = match self.open(&walked, OFlags::PATH) {
                Err(Errno::NOENT) if *name == ".." => return Err(Errno::NOENT),
                Err(Errno::NOENT) => Self::make_entry(&at, name, if last { missing } else { Missing::Directory })?,
                found => found?,
            };
        }
        Ok(at)
    }

    /// Makes `name` in `parent` and opens exactly what was made: a link that somebody put there meanwhile is refused.
    fn make_entry(parent: &OwnedFd, name: &str, missing: Missing) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match missing {
            Missing::Directory => {
                rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                rustix::fs::openat(parent, name, flags | OFlags::DIRECTORY, Mode::empty())
            }
            Missing::File => {
                let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(parent, name, create, Mode::from_raw_mode(0o644))?;
                rustix::fs::openat(parent, name, flags, Mode::empty())
            }
        }
    }

    fn open_at(&self, directory: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RETRIES {
            match rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(name: &str) -> (std::path::PathBuf, Root) {
        let path = std::env::temp_dir().join(format!("bulkhead-agent-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        let fd = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (path, Root::new(fd))
    }

    #[test]
    fn an_absolute_link_stays_inside() {
        let (path, root) = root("absolute");
        symlink("/etc", path.join("link")).unwrap();
        assert_eq!(root.locate("/link/passwd").unwrap_err(), Errno::NOENT);
        std::fs::create_dir(path.join("etc")).unwrap();
        root.locate_or_make("/link/made/file", Missing::File).unwrap();
        assert!(path.join("etc/made/file").is_file());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn dots_do_not_climb_out() {
        let (path, root) = root("dots");
        std::fs::create_dir_all(path.join("a")).unwrap();
        root.locate_or_make("/a/../../../../b", Missing::Directory).unwrap();
        assert!(path.join("b").is_dir());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_dangling_link_is_not_followed_when_making() {
        let (path, root) = root("dangling");
        symlink("/elsewhere/deep", path.join("link")).unwrap();
        assert!(root.locate_or_make("/link", Missing::File).is_err());
        assert!(!path.join("elsewhere").exists());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn magic_links_are_refused() {
        let root = Root::new(rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap());
        assert_eq!(root.locate("/proc/self/root/etc").unwrap_err(), Errno::LOOP);
        assert_eq!(root.locate("/proc/self/fd/0").unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn a_parent_needs_a_name_below_it() {
        let (path, root) = root("parent");
        assert!(root.parent_of("/").is_err());
        assert!(root.parent_of("/a/..").is_err());
        let (_, name) = root.parent_of("/a/b").unwrap();
        assert_eq!(name, "b");
        assert!(path.join("a").is_dir());
        std::fs::remove_dir_all(path).unwrap();
    }
}
