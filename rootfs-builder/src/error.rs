//! What can go wrong, in words that say what to do.

use std::path::PathBuf;

/// Why there is no initramfs or image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent cannot be the guest's first program.
    #[error(
        "{} cannot be the guest's /init: {why}; build it for x86_64-unknown-linux-gnu with \
         RUSTFLAGS=\"-C target-feature=+crt-static\"",
        path.display()
    )]
    Agent {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file does not fit the format it is to be stored in.
    #[error("{name} does not fit into the archive: {why}")]
    Archive {
        /// Its name in the archive.
        name: String,
        /// What is too large.
        why: &'static str,
    },
    /// An external program failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// The command.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote to stderr.
        output: String,
    },
    /// A program that is not installed.
    #[error("cannot run {program}; install it with: apt-get install {package}")]
    MissingProgram {
        /// Its name.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
        /// Why it did not run.
        source: std::io::Error,
    },
    /// apt has nothing to install from.
    #[error("apt knows no {wanted}: have a Debian archive in its sources and run apt-get update")]
    NoArchive {
        /// A package or release.
        wanted: String,
    },
    /// An entry of a tar archive that makes no sense in an image.
    #[error("unexpected entry {name:?} in {}: {why}", archive.display())]
    Entry {
        /// The archive.
        archive: PathBuf,
        /// The entry.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was to be done, as a verb.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err` on an I/O result: what was to be done with which file.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
