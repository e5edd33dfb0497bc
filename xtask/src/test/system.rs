//! Running the system tests' executable on an accelerator.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::report::{self, Tally};
use crate::cargo;
use crate::dist::Dist;
use crate::paths::Paths;
use crate::process;

/// Modules whose tests run on this machine, and in the lab.
const ON_THIS_MACHINE: &[&str] = &["on_both::", "on_emulated::", "on_machine::"];
const IN_THE_LAB: &[&str] = &["on_both::", "on_kvm::"];

/// Tests at a time: each boots a VM, which is mostly computing.
const THREADS: &str = "--test-threads=2";

/// The test executable and what it tests.
pub(super) struct Suite<'a> {
    pub(super) dist: &'a Dist,
    /// Directory of the test images.
    pub(super) images: &'a Path,
    pub(super) executable: &'a Path,
    /// Only tests whose path contains this.
    pub(super) filter: Option<&'a str>,
}

/// Builds the executable.
pub(super) fn executable(paths: &Paths) -> anyhow::Result<PathBuf> {
    let mut found = cargo::test_executables(paths, &["--package", "bulkhead-tests", "--test", "lifecycle"])?;
    found.retain(|(name, _)| name == "lifecycle");
    found.pop().map(|(_, path)| path).context("cargo built no test executable named lifecycle")
}

impl Suite<'_> {
    /// On this machine.
    pub(super) fn emulated(&self) -> anyhow::Result<Tally> {
        let names = self.names(ON_THIS_MACHINE)?;
        let mut command = Command::new(self.executable);
        command.args(&names).args(["--exact", THREADS]);
        self.run(&mut command, "emulated", &names)
    }

    /// In the lab, all in one boot.
    pub(super) fn kvm(&self) -> anyhow::Result<Tally> {
        let names = self.names(IN_THE_LAB)?;
        let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
        command.args(["lab", "--"]).arg(self.executable).args(&names).args(["--exact", THREADS]);
        self.run(&mut command, "kvm", &names)
    }

    fn run(&self, command: &mut Command, accelerator: &str, names: &[String]) -> anyhow::Result<Tally> {
        if names.is_empty() {
            return Ok(Tally::default());
        }
        command
            .env("BULKHEAD_TEST_ACCEL", accelerator)
            .env("BULKHEAD_TEST_PREFIX", &self.dist.prefix)
            .env("BULKHEAD_TEST_IMAGES", self.images);
        let mut tally = report::run(command, "system tests")?;
        let seen = tally.passed + tally.failed.len() + tally.skipped.len();
        if seen < names.len() {
            tally.failed.push(format!("{} tests never reported how they went", names.len() - seen));
        }
        Ok(tally)
    }

    /// The names of the tests in `modules` that the filter lets through. A test in no module that names accelerators
    /// is an error: it would never run.
    fn names(&self, modules: &[&str]) -> anyhow::Result<Vec<String>> {
        let list = process::output(Command::new(self.executable).args(["--list", "--format=terse"]))?;
        let all = list.lines().filter_map(|line| line.strip_suffix(": test"));
        let mut names = Vec::new();
        for name in all {
            if !name.contains("::on_") {
                bail!("the test {name} is in no module that names its accelerators, such as on_both");
            }
            let here = modules.iter().any(|module| name.contains(module));
            if here && self.filter.is_none_or(|filter| name.contains(filter)) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}
