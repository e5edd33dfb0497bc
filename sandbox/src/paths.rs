//! Where things are: data (images, templates), runtime state, and the installed parts of Bulkhead.

use std::path::{Path, PathBuf};

/// The three directories everything else is found in; all absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Images and templates, kept across reboots (`BULKHEAD_DATA`).
    pub data: PathBuf,
    /// State of live sandboxes (`BULKHEAD_RUN`).
    pub run: PathBuf,
    /// Our own binaries and the guest (`BULKHEAD_LIB`).
    pub lib: PathBuf,
}

/// The files a VM is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assets {
    /// The monitor.
    pub vmm: PathBuf,
    /// Guest kernel, an ELF `vmlinux`.
    pub kernel: PathBuf,
    /// Guest image with the agent, a cpio archive.
    pub initramfs: PathBuf,
}

/// Why the directories or parts are not there.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// An override is not an absolute path.
    #[error("{variable}={value:?} is not an absolute path: set it to one or unset it")]
    NotAbsolute {
        /// Environment variable.
        variable: &'static str,
        /// What it holds.
        value: PathBuf,
    },
    /// A default needs a variable that is not set.
    #[error("cannot choose a directory for {what}: set {fix}")]
    NoDefault {
        /// Which directory.
        what: &'static str,
        /// Variables that help.
        fix: &'static str,
    },
    /// The running executable has no path.
    #[error("cannot find the installed parts beside the executable: set BULKHEAD_LIB")]
    NoExecutable(#[source] std::io::Error),
    /// A part is not installed.
    #[error(
        "{what} is missing at {}: install Bulkhead completely (`cargo xtask demo` builds it), or set BULKHEAD_LIB to the \
         folder that holds it",
        path.display()
    )]
    MissingAsset {
        /// Which part.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// The kernel of `--kernel` is not a file.
    #[error("kernel {} is not a file that can be read", path.display())]
    Kernel {
        /// What was given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Paths {
    /// The directories that environment, user and executable decide.
    ///
    /// # Errors
    /// An override is not absolute, or a default cannot be told.
    pub fn from_environment() -> Result<Self, PathsError> {
        let root = rustix::process::geteuid().is_root();
        Ok(Self { data: data_dir(root)?, run: run_dir(root)?, lib: lib_dir()? })
    }

    /// The files of a VM, each checked to be there; `kernel` replaces the installed one.
    ///
    /// # Errors
    /// [`PathsError::MissingAsset`] or [`PathsError::Kernel`].
    pub fn assets(&self, kernel: Option<&Path>) -> Result<Assets, PathsError> {
        let kernel = match kernel {
            Some(path) => custom_kernel(path)?,
            None => self.asset("the guest kernel", "vmlinux")?,
        };
        let initramfs = self.asset("the guest image", "initramfs.cpio")?;
        Ok(Assets { vmm: self.asset("the vmm", "vmm")?, kernel, initramfs })
    }

    /// The installed file `name`.
    ///
    /// # Errors
    /// [`PathsError::MissingAsset`].
    pub fn asset(&self, what: &'static str, name: &str) -> Result<PathBuf, PathsError> {
        let path = self.lib.join(name);
        if path.is_file() { Ok(path) } else { Err(PathsError::MissingAsset { what, path }) }
    }
}

fn custom_kernel(path: &Path) -> Result<PathBuf, PathsError> {
    let error = |source| PathsError::Kernel { path: path.to_owned(), source };
    let path = path.canonicalize().map_err(error)?;
    let file = std::fs::File::open(&path).map_err(error)?;
    if !file.metadata().map_err(error)?.is_file() {
        return Err(error(std::io::Error::other("it is not a regular file")));
    }
    Ok(path)
}

fn data_dir(root: bool) -> Result<PathBuf, PathsError> {
    if let Some(path) = override_of("BULKHEAD_DATA")? {
        return Ok(path);
    }
    if root {
        return Ok("/var/lib/bulkhead".into());
    }
    if let Some(path) = variable("XDG_DATA_HOME").filter(|path| path.is_absolute()) {
        return Ok(path.join("bulkhead"));
    }
    let home = variable("HOME").filter(|path| path.is_absolute());
    home.map(|home| home.join(".local/share/bulkhead"))
        .ok_or(PathsError::NoDefault { what: "images", fix: "BULKHEAD_DATA or HOME" })
}

fn run_dir(root: bool) -> Result<PathBuf, PathsError> {
    if let Some(path) = override_of("BULKHEAD_RUN")? {
        return Ok(path);
    }
    if root {
        return Ok("/run/bulkhead".into());
    }
    let runtime = variable("XDG_RUNTIME_DIR").filter(|path| path.is_absolute());
    runtime
        .map(|path| path.join("bulkhead"))
        .ok_or(PathsError::NoDefault { what: "runtime state", fix: "BULKHEAD_RUN or XDG_RUNTIME_DIR" })
}

fn lib_dir() -> Result<PathBuf, PathsError> {
    if let Some(path) = override_of("BULKHEAD_LIB")? {
        return Ok(path);
    }
    let executable = std::env::current_exe().map_err(PathsError::NoExecutable)?;
    let prefix = executable.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    Ok(prefix.join("lib/bulkhead"))
}

fn override_of(name: &'static str) -> Result<Option<PathBuf>, PathsError> {
    match variable(name) {
        Some(value) if !value.is_absolute() => Err(PathsError::NotAbsolute { variable: name, value }),
        other => Ok(other),
    }
}

/// A variable's value, where an empty one counts as none.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(lib: &Path) -> Paths {
        Paths { data: "/data".into(), run: "/run/x".into(), lib: lib.into() }
    }

    #[test]
    fn a_missing_part_is_named_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let error = paths(dir.path()).assets(None).unwrap_err().to_string();
        assert!(error.contains("the guest kernel") && error.contains("vmlinux"), "{error}");
    }

    #[test]
    fn a_kernel_of_the_user_replaces_the_installed_one() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vmm", "initramfs.cpio", "mine"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let assets = paths(dir.path()).assets(Some(&dir.path().join("mine"))).unwrap();
        assert_eq!(assets.kernel, dir.path().canonicalize().unwrap().join("mine"));
        let error = paths(dir.path()).assets(Some(dir.path())).unwrap_err();
        assert!(matches!(error, PathsError::Kernel { .. }), "{error}");
    }
}
