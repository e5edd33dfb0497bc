//! Running the system tests' executable on an accelerator.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

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

/// How often the lab is booted for one run of the tests.
const LAB_BOOTS_MAX: u32 = 3;

/// The test executable and what it tests.
pub(super) struct Suite<'a> {
    pub(super) dist: &'a Dist,
    /// Directory of the test images.
    pub(super) images: &'a Path,
    pub(super) executable: &'a Path,
    /// The image store of the tests on this machine; the lab has its own, in memory.
    pub(super) data: &'a Path,
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
        let mut tally = Tally::default();
        if !names.is_empty() {
            // Images of an earlier run would hide that they cannot be taken in any more.
            let _ = std::fs::remove_dir_all(self.data);
            let mut command = Command::new(self.executable);
            command.args(&names).args(["--exact", THREADS]).env("BULKHEAD_TEST_DATA", self.data);
            (tally, _) = self.run(&mut command, "emulated")?;
        }
        fail_silent(&mut tally, &names);
        Ok(tally)
    }

    /// In the lab, in one boot, unless the lab itself breaks down: its KVM runs on an emulated processor, where KVM's
    /// patching of its own code has been seen to trip over another CPU's stale translation. What had not run by then runs
    /// after another boot.
    pub(super) fn kvm(&self) -> anyhow::Result<Tally> {
        let names = self.names(IN_THE_LAB)?;
        let mut tally = Tally::default();
        for boot in 1..=LAB_BOOTS_MAX {
            let left: Vec<&String> = names.iter().filter(|name| !tally.knows(name)).collect();
            if left.is_empty() {
                break;
            }
            if boot > 1 {
                eprintln!("the lab broke down with {} tests left; boot {boot} of at most {LAB_BOOTS_MAX}", left.len());
            }
            let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
            command.args(["lab", "--"]).arg(self.executable).args(left).args(["--exact", THREADS]);
            tally.add(self.run(&mut command, "kvm")?.0);
        }
        fail_silent(&mut tally, &names);
        Ok(tally)
    }

    fn run(&self, command: &mut Command, accelerator: &str) -> anyhow::Result<(Tally, ExitStatus)> {
        command
            .env("BULKHEAD_TEST_ACCEL", accelerator)
            .env("BULKHEAD_TEST_PREFIX", &self.dist.prefix)
            .env("BULKHEAD_TEST_IMAGES", self.images);
        report::run(command)
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

/// A test that never said how it went has failed.
fn fail_silent(tally: &mut Tally, names: &[String]) {
    for name in names {
        if !tally.knows(name) {
            tally.failed.push(name.clone());
            eprintln!("{name} never said how it went");
        }
    }
}
