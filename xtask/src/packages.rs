//! Debian packages: what each command needs, and installing what is missing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::process;
use crate::step::step;

/// What `cargo xtask lab` needs: QEMU with its virtio-fs daemon, module tools, and `setpriv`.
pub(crate) const LAB: &[&str] = &["kmod", "qemu-system-x86", "qemu-system-common", "util-linux", "iproute2"];

/// What building the guest needs beyond what its kernel's builder asks for by itself.
pub(crate) const GUEST: &[&str] = &["curl", "gcc", "libc6-dev", "linux-source-6.12"];

/// What running a sandbox on the emulated accelerator needs.
pub(crate) const EMULATED: &[&str] = &["e2fsprogs", "qemu-system-x86"];

/// What making the demo's image needs.
pub(crate) const DEMO_IMAGE: &[&str] = &["busybox-static"];

/// What the tests' images and registry need.
pub(crate) const TEST: &[&str] =
    &["busybox-static", "cpio", "docker-registry", "mmdebstrap", "openssl", "procps", "skopeo", "util-linux"];

/// Installs those of `wanted` that are missing; without root, fails with the exact line that does it.
pub(crate) fn ensure(wanted: &[&str]) -> anyhow::Result<()> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        bail!("this is not a Debian system (no dpkg-query): install the equivalents of {}", wanted.join(" "));
    }
    let missing = missing(wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!(
            "Debian packages are missing and only root can install them; run:\n\n  \
             sudo apt-get install --no-install-recommends {list}\n"
        );
    }
    step(&format!("install Debian packages: {list}"), || {
        let mut install = apt_get(&["install", "--yes", "--no-install-recommends"]);
        install.args(&missing);
        if process::run_quiet(&mut install).is_ok() {
            return Ok(());
        }
        // Lists that are missing or too old name packages that cannot be found or fetched any more.
        process::run_quiet(&mut apt_get(&["update"]))?;
        process::run_quiet(&mut install)
    })
}

/// Fetches apt's package lists if there are none; making images from packages needs them.
pub(crate) fn ensure_lists() -> anyhow::Result<()> {
    let known = process::output(Command::new("apt-get").args(["indextargets", "Identifier: Packages"]))?;
    let files = known.lines().filter_map(|line| line.strip_prefix("Filename: "));
    // apt may keep a list compressed, which adds an ending to its name.
    let present =
        |file: &str| ["", ".lz4", ".xz", ".gz"].iter().any(|ending| Path::new(&format!("{file}{ending}")).exists());
    if files.into_iter().any(present) {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("apt has no package lists and only root can fetch them; run:\n\n  sudo apt-get update\n");
    }
    step("fetch apt's package lists", || process::run_quiet(&mut apt_get(&["update"])))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

fn missing<'a>(wanted: &[&'a str]) -> anyhow::Result<Vec<&'a str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .stdin(Stdio::null())
        .output()
        .context("cannot run dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(wanted.iter().copied().filter(|package| !installed.contains(package)).collect())
}
