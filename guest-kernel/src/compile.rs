//! Runs the kernel's own build: unpack, configure, check, compile, strip.
//!
//! The same source, fragments and compiler give the same bytes: user, host, time and locale of the machine are kept
//! out of the result.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use sha2::{Digest, Sha256};

use crate::fragment::Fragments;
use crate::progress::{Reporter, Step};
use crate::source::{Found, sha256};
use crate::{BUILDER_REVISION, Error, Manifest, check};

/// What the build runs or includes, and the Debian package that has it.
const NEEDED: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("strip", "binutils"),
    ("make", "make"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
    ("/usr/include/stdlib.h", "libc6-dev"),
    ("/usr/include/libelf.h", "libelf-dev"),
];

/// Lines of the log that go into an error.
const TAIL_LINES: usize = 25;

/// Debian packages the build needs that are not installed, each once.
#[must_use]
pub fn missing_packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = missing().map(|(_, package)| package).collect();
    packages.dedup();
    packages
}

fn missing() -> impl Iterator<Item = (&'static str, &'static str)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    NEEDED.iter().copied().filter(move |(name, _)| {
        // `join` leaves an absolute name as it is.
        !folders.iter().any(|folder| folder.join(name).exists())
    })
}

/// The compiler and linker, which are part of the cache key.
#[derive(Debug, Clone)]
pub struct Toolchain {
    versions: Vec<String>,
}

impl Toolchain {
    /// Asks the tools for their versions.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTools`] with the packages to install.
    pub fn find() -> Result<Self, Error> {
        let (names, _): (Vec<_>, Vec<_>) = missing().unzip();
        if !names.is_empty() {
            return Err(Error::MissingTools { what: names.join(", "), packages: missing_packages().join(" ") });
        }
        let versions = ["gcc", "ld"].map(|tool| {
            let output =
                Command::new(tool).arg("--version").env("LC_ALL", "C").output().map_err(Error::io("run", tool))?;
            Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
        });
        Ok(Self { versions: versions.into_iter().collect::<Result<_, Error>>()? })
    }

    /// First line of each tool's version.
    #[must_use]
    pub fn versions(&self) -> &[String] {
        &self.versions
    }
}

/// One kernel to build.
pub(crate) struct Job<'a> {
    pub(crate) source: &'a Found,
    pub(crate) fragments: &'a Fragments,
    pub(crate) toolchain: &'a Toolchain,
    pub(crate) jobs: usize,
}

/// The files of a finished build, still in the work folder.
pub(crate) struct Built {
    files: Vec<(PathBuf, &'static str)>,
    manifest: Manifest,
}

impl Built {
    /// Where each file is, and its name in the cache.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.files.iter().map(|(path, name)| (path.as_path(), *name))
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}

impl Job<'_> {
    /// Builds in `work`, which must be empty; the output of every command is added to `log`.
    pub(crate) fn run(&self, work: &Path, log: &Path, reporter: &Reporter<'_>) -> Result<Built, Error> {
        let tree = Tree { source: work.join("source"), log: log.to_path_buf(), jobs: self.jobs };
        reporter.report(Step::Unpack, 0);
        tree.unpack(&self.source.path)?;
        reporter.report(Step::Configure, 0);
        let config = tree.configure(self.fragments)?;
        reporter.report(Step::Compile, 0);
        tree.compile(reporter)?;
        reporter.report(Step::Publish, 0);
        let vmlinux = tree.strip(&work.join("vmlinux"))?;
        let release = tree.source.join("include/config/kernel.release");
        let version = fs::read_to_string(&release).map_err(Error::io("read", &release))?;
        let manifest = Manifest {
            version: version.trim().to_owned(),
            source_version: self.source.version.clone(),
            source_sha256: self.source.sha256.clone(),
            fragments_sha256: hex::encode(Sha256::digest(self.fragments.to_kconfig())),
            toolchain: self.toolchain.versions().to_vec(),
            builder_revision: BUILDER_REVISION,
            vmlinux_sha256: sha256(&vmlinux)?,
            vmlinux_bytes: fs::metadata(&vmlinux).map_err(Error::io("read", &vmlinux))?.len(),
            config_sha256: sha256(&config)?,
        };
        let files = vec![
            (vmlinux, "vmlinux"),
            (config, "config"),
            (tree.source.join("System.map"), "System.map"),
            (tree.log, "build.log"),
        ];
        Ok(Built { files, manifest })
    }
}

/// An unpacked kernel source and the log of what is done to it.
struct Tree {
    source: PathBuf,
    log: PathBuf,
    jobs: usize,
}

impl Tree {
    fn unpack(&self, tarball: &Path) -> Result<(), Error> {
        fs::create_dir(&self.source).map_err(Error::io("create", &self.source))?;
        // The one top folder of the archive is named differently by each packager.
        let mut tar = Command::new("tar");
        tar.arg("--extract").arg("--strip-components=1").arg("--no-same-owner").arg("--directory").arg(&self.source);
        self.run(tar.arg("--file").arg(tarball), "unpacking the source", &mut |_| ())
    }

    /// Writes `.config` and checks it. Options the fragments do not name are off wherever that is possible.
    fn configure(&self, fragments: &Fragments) -> Result<PathBuf, Error> {
        let wanted = self.source.join("bulkhead.config");
        fs::write(&wanted, fragments.to_kconfig()).map_err(Error::io("write", &wanted))?;
        // Given this way, also options that only become visible through a fragment start as off, not as their default.
        let mut make = self.make();
        make.env("KCONFIG_ALLCONFIG", &wanted).arg("allnoconfig");
        self.run(&mut make, "make allnoconfig", &mut |_| ())?;
        self.run(self.make().arg("olddefconfig"), "make olddefconfig", &mut |_| ())?;
        let path = self.source.join(".config");
        let config = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let violations = check::violations(fragments, &config);
        if violations.is_empty() {
            return Ok(path);
        }
        Err(Error::Config { violations: violations.iter().map(ToString::to_string).collect() })
    }

    fn compile(&self, reporter: &Reporter<'_>) -> Result<(), Error> {
        let mut compiled = 0;
        self.run(self.make().arg(format!("--jobs={}", self.jobs.max(1))).arg("vmlinux"), "make vmlinux", &mut |line| {
            if line.starts_with("  CC ") || line.starts_with("  AS ") {
                compiled += 1;
                reporter.report(Step::Compile, compiled);
            }
        })
    }

    fn strip(&self, to: &Path) -> Result<PathBuf, Error> {
        let mut strip = Command::new("strip");
        strip.arg("--strip-all").arg("-o").arg(to).arg(self.source.join("vmlinux"));
        self.run(&mut strip, "strip vmlinux", &mut |_| ())?;
        Ok(to.to_path_buf())
    }

    /// `make` in the source, with nothing of this machine that could reach the result.
    fn make(&self) -> Command {
        let mut make = Command::new("make");
        make.current_dir(&self.source).arg("ARCH=x86_64");
        for name in
            ["MAKEFLAGS", "MFLAGS", "CROSS_COMPILE", "LLVM", "KCFLAGS", "KAFLAGS", "KBUILD_OUTPUT", "O", "V", "W"]
        {
            make.env_remove(name);
        }
        make.env("LC_ALL", "C")
            .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
            .env("KBUILD_BUILD_USER", "bulkhead")
            .env("KBUILD_BUILD_HOST", "bulkhead")
            .env("KBUILD_BUILD_VERSION", "1")
            // Set but empty: no "+" after the version because of a repository around the build folder.
            .env("LOCALVERSION", "");
        make
    }

    /// Runs a command with its output in the log, and shows each line of stdout to `on_line`.
    fn run(&self, command: &mut Command, step: &str, on_line: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let status = self.run_logged(command, on_line).map_err(Error::io("run", step))?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read(&self.log).unwrap_or_default();
        Err(Error::Build {
            step: step.to_owned(),
            status: status.to_string(),
            log: self.log.clone(),
            tail: tail(&String::from_utf8_lossy(&log)),
        })
    }

    fn run_logged(&self, command: &mut Command, on_line: &mut dyn FnMut(&str)) -> std::io::Result<ExitStatus> {
        let mut log = File::options().append(true).open(&self.log)?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.try_clone()?).spawn()?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line?;
                log.write_all(&line)?;
                log.write_all(b"\n")?;
                on_line(&String::from_utf8_lossy(&line));
            }
        }
        child.wait()
    }
}

/// The last lines of a log, without those that only tell what is being compiled.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.starts_with("  CC ") && !line.starts_with("  AR ")).collect();
    lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(folder: &Path) -> Tree {
        let log = folder.join("log");
        File::create(&log).unwrap();
        Tree { source: folder.to_path_buf(), log, jobs: 1 }
    }

    #[test]
    fn output_goes_to_the_log_and_to_the_caller() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = Vec::new();
        let tree = tree(folder.path());
        tree.run(Command::new("sh").args(["-c", "echo out; echo err >&2"]), "test", &mut |line| {
            lines.push(line.to_owned())
        })
        .unwrap();
        assert_eq!(lines, ["out"]);
        let log = fs::read_to_string(&tree.log).unwrap();
        assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
    }

    #[test]
    fn a_failed_step_shows_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let tree = tree(folder.path());
        let script = "for i in $(seq 100); do echo \"  CC file$i\"; done; echo 'x.c:1: error: bad'; exit 3";
        let error = tree.run(Command::new("sh").args(["-c", script]), "make", &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("make failed (exit status: 3)"), "{error}");
        assert!(error.ends_with("x.c:1: error: bad"), "{error}");
        assert!(!error.contains("CC file"), "{error}");
    }

    #[test]
    fn a_tarball_that_is_not_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let tarball = folder.path().join("x.tar.xz");
        fs::write(&tarball, "not an archive").unwrap();
        let mut tree = tree(folder.path());
        tree.source = folder.path().join("source");
        let error = tree.unpack(&tarball).unwrap_err().to_string();
        assert!(error.contains("unpacking the source failed"), "{error}");
    }
}
