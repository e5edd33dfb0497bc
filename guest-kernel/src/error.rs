//! What can go wrong in a kernel build, in words that say what to do.

use std::path::PathBuf;

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Programs or headers the kernel's build needs.
    #[error("the kernel build needs {what}; install it with: apt-get install {packages}")]
    MissingTools {
        /// Names of the programs and headers.
        what: String,
        /// Debian packages that have them, separated by blanks.
        packages: String,
    },
    /// None of the places had a source with the right digest.
    #[error("no kernel source: {}", tried.join("; "))]
    NoSource {
        /// What was tried, and for each why it did not do.
        tried: Vec<String>,
    },
    /// A tarball given by the user is not one of the pinned ones.
    #[error(
        "kernel source {} has sha256 {found}, expected {expected}; give the right file, or its own digest with --sha256",
        path.display()
    )]
    Digest {
        /// The tarball.
        path: PathBuf,
        /// Its digest.
        found: String,
        /// The digest, or digests, it should have had.
        expected: String,
    },
    /// A line of a fragment that cannot be read.
    #[error("{fragment}:{line}: {why}: {text:?}")]
    Fragment {
        /// File name.
        fragment: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        why: &'static str,
        /// The line.
        text: String,
    },
    /// Kconfig did not follow the fragments.
    #[error("the kernel configuration differs from guest-kernel/config:\n{}", violations.join("\n"))]
    Config {
        /// One line for each option.
        violations: Vec<String>,
    },
    /// A step of the build failed.
    #[error("{step} failed ({status}); the end of {}:\n{tail}", log.display())]
    Build {
        /// The command.
        step: String,
        /// Its exit status.
        status: String,
        /// The whole output.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The cache entry vanished between its publication and its use.
    #[error("kernel {hash} was removed from the cache while it was being used; run the build again")]
    Lost {
        /// Name of the entry.
        hash: String,
    },
    /// A manifest in the cache that cannot be read or written.
    #[error("cannot use {}; delete its folder and run the build again", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
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
