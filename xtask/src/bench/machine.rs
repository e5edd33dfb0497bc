//! The measurement on this machine itself, emulated: a whole `sandbox run` beside the bare kernel under the same QEMU.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context;
use bulkhead_protocols::vm::{Accelerator, VmConfig};
use bulkhead_protocols::wire::KERNEL_CMDLINE;

use super::idle::RESTART;
use super::live::Installation;
use super::results::Emulated;
use crate::process;

/// Times that each is run; the median counts.
const ROUNDS: usize = 5;

/// Runs both in turn, so that a busy machine slows both alike.
pub(super) fn measure(installation: &Installation<'_>, idle_initramfs: &Path) -> anyhow::Result<Emulated> {
    // Unpacks the image too, and makes the probe of the accelerator that later commands remember.
    let config = installation.shell(Accelerator::Emulated, &[])?.config()?.clone();
    let mut measured = Emulated { bare_ms: Vec::new(), sandbox_ms: Vec::new() };
    for _ in 0..ROUNDS {
        measured.bare_ms.push(took_ms(&mut bare(&config, idle_initramfs))?);
        let mut sandbox = installation.run(Accelerator::Emulated, &[]);
        sandbox.args([installation.image, "true"]);
        measured.sandbox_ms.push(took_ms(&mut sandbox)?);
    }
    Ok(measured)
}

/// QEMU with the machine that the emulated accelerator gives a sandbox, without its devices.
fn bare(config: &VmConfig, initramfs: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "null"]);
    qemu.args(["-M", "microvm,acpi=off,isa-serial=on,rtc=on,pit=on,pic=on", "-cpu", "max"]);
    qemu.args(["-accel", "tcg,thread=multi,tb-size=256"]);
    qemu.args(["-m", &format!("{}M", config.memory_mib), "-smp", &config.vcpus.to_string()]);
    qemu.arg("-kernel").arg(&config.kernel).arg("-initrd").arg(initramfs);
    qemu.args(["-append", &format!("{KERNEL_CMDLINE} {} {RESTART}", config.cmdline_extra)]);
    qemu
}

fn took_ms(command: &mut Command) -> anyhow::Result<u64> {
    let begun = Instant::now();
    process::run_quiet(command.stdin(Stdio::null()))?;
    u64::try_from(begun.elapsed().as_millis()).context("an endless command")
}
