//! `cargo xtask demo`: from nothing to a container's output from inside its own VM.

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::paths::Paths;
use crate::step::elapsed;
use crate::{dist, images, packages, process};

/// What runs in the container.
const SCRIPT: &str = "echo \"hello from $(cat /etc/hostname), process $$ of its own machine\"; uname -a; \
                      echo \"$(nproc) CPU, $(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo) MiB\"";

/// `cargo xtask demo`.
pub(crate) fn command(paths: &Paths) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    packages::ensure(packages::EMULATED)?;
    let dist = dist::build(paths)?;
    let image = images::demo(paths)?;
    let prepared = begun.elapsed();

    let mut run = Command::new(dist.sandbox());
    run.args(["run", "--rm", "--timings", &image.reference(), "sh", "-c", SCRIPT]).stdin(Stdio::null());
    eprintln!("==> {} run --rm --timings {} sh -c …", dist.sandbox().display(), image.reference());
    let started = Instant::now();
    let output = run.stderr(Stdio::inherit()).output().context("cannot start the sandbox command")?;
    let ran = started.elapsed();
    if !output.status.success() {
        bail!("the sandbox ended with {}", output.status);
    }

    let host = process::output(Command::new("uname").arg("-a"))?;
    println!(
        "\nprepared in {}, the sandbox ran in {} from command line to exit status",
        elapsed(prepared),
        elapsed(ran)
    );
    println!("host kernel:  {}", host.trim());
    println!("guest kernel: Linux {} (built here)", dist.guest.kernel_version);
    println!("output of the container:\n");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(ExitCode::SUCCESS)
}
