//! `cargo xtask test`: checks, unit tests, and the system tests on each accelerator.
//!
//! The same test executable runs twice: on this machine with the emulated accelerator, and in the lab with KVM. The
//! module a test is in says on which (see `tests/src/lib.rs`). The last line of the output counts everything.

mod report;
mod system;

use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use clap::ValueEnum;

use self::report::Tally;
use crate::paths::Paths;
use crate::step::step;
use crate::{cargo, check, dist, images, lab, packages};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct TestArguments {
    /// Where to run the system tests.
    #[arg(long, value_enum, default_value_t = Selection::Both)]
    accel: Selection,
    /// Only tests whose path contains this, and no checks.
    filter: Option<String>,
}

/// Accelerators to run the system tests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Selection {
    /// One after the other.
    Both,
    /// In the lab, with our own monitor.
    Kvm,
    /// On this machine, under QEMU.
    Emulated,
}

/// `cargo xtask test`.
pub(crate) fn command(paths: &Paths, arguments: &TestArguments) -> anyhow::Result<ExitCode> {
    packages::ensure(&[packages::TEST, packages::EMULATED].concat())?;
    if arguments.accel != Selection::Emulated {
        lab::prepare(paths)?;
    }
    let dist = dist::build(paths)?;
    let images = images::for_tests(paths)?;
    let executable = step("build the system tests", || system::executable(paths))?;
    let data = paths.target.join("test-data");
    let filter = arguments.filter.as_deref();
    let suite = system::Suite { dist: &dist, images: &images, executable: &executable, data: &data, filter };

    let mut parts: Vec<(&str, Tally)> = Vec::new();
    if filter.is_none() {
        parts.push(("checks", checks(paths)?));
    }
    parts.push(("unit tests", unit_tests(paths, filter)?));
    if arguments.accel != Selection::Kvm {
        parts.push(("system tests, emulated (this machine)", step("system tests, emulated", || suite.emulated())?));
    }
    if arguments.accel != Selection::Emulated {
        parts.push(("system tests, kvm (in the lab)", step("system tests, kvm", || suite.kvm())?));
    }
    Ok(report::print(&parts))
}

fn checks(paths: &Paths) -> anyhow::Result<Tally> {
    let (passed, failed) = check::run(paths)?;
    Ok(Tally { passed, failed, skipped: Vec::new() })
}

/// The tests beside the code, of every crate but the system tests'.
fn unit_tests(paths: &Paths, filter: Option<&str>) -> anyhow::Result<Tally> {
    step("unit tests", || {
        let mut test: Command = cargo::command(paths);
        test.args(["test", "--workspace", "--exclude", "bulkhead-tests", "--all-targets", "--no-fail-fast"]);
        test.arg("--").args(filter).stdin(Stdio::null());
        let (mut tally, status) = report::run(&mut test).context("cargo test")?;
        if !status.success() && tally.failed.is_empty() {
            tally.failed.push(format!("cargo test ended with {status} without saying which test failed"));
        }
        Ok(tally)
    })
}
