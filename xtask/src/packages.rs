//! Debian packages: what each command needs, and installing what is missing.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::process;
use crate::step::step;

/// What `cargo xtask lab` needs: QEMU with its virtio-fs daemon, module tools, and `setpriv`.
pub(crate) const LAB: &[&str] = &["kmod", "qemu-system-x86", "qemu-system-common", "util-linux", "iproute2"];

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
