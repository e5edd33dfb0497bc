//! The lab: a VM under QEMU's TCG, which emulates AMD's SVM, so that there is a real `kvm_amd` in it.
//!
//! ```text
//!  cargo xtask lab ──┬── virtiofsd: the host's root ──────────┐
//!                    ├── QEMU ── Debian's cloud kernel ── init.sh (PID 1) ── CMD
//!                    └── UNIX sockets <── virtio-serial ports: stdout, stderr, status (or a terminal on hvc0)
//! ```
//!
//! Inside, the host's whole root filesystem is visible; what is written to it stays in memory, except below the target
//! directory, the cache and what `--writable` names. `/tmp`, `/run` and `/var/lib/bulkhead` are in memory.
//! No network but loopback.

pub(crate) mod hold;
mod kernel;
mod machine;
mod relay;

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use self::kernel::LabKernel;
use self::machine::{Machine, MachineConfig};
use crate::packages;
use crate::paths::Paths;

const INIT: &str = include_str!("init.sh");

/// Variables of the caller's environment that a command in the lab sees too.
const PASSED_ENVIRONMENT: &[&str] = &["HOME", "PATH", "TERM", "LANG", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"];
/// Prefixes of further such variables.
const PASSED_PREFIXES: &[&str] = &["BULKHEAD_", "RUST_"];

/// Arguments of `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct LabArguments {
    /// Memory of the VM in MiB.
    #[arg(long, default_value_t = default_memory_mib())]
    memory_mib: u32,
    /// Virtual CPUs of the VM.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// A further directory of the host that the VM may write to; may be given again.
    #[arg(long, value_name = "DIR")]
    writable: Vec<PathBuf>,
    /// The command and its arguments; without one, a shell on the terminal.
    #[arg(last = true)]
    command: Vec<String>,
}

/// One command to run in a VM of its own.
pub(crate) struct LabRun {
    /// Memory of the VM in MiB.
    pub(crate) memory_mib: u32,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
    /// Directories of the host that the VM may write to.
    pub(crate) writable: Vec<PathBuf>,
    /// Variables set for the command, besides those that are passed on.
    pub(crate) environment: Vec<(String, String)>,
    /// Program and arguments; empty: a shell on the terminal.
    pub(crate) command: Vec<String>,
}

impl LabRun {
    /// `command` with the default size and the usual writable directories.
    pub(crate) fn new(paths: &Paths, command: Vec<String>) -> Self {
        let writable = vec![paths.target.clone(), paths.cache.clone()];
        Self { memory_mib: default_memory_mib(), cpus: 2, writable, environment: Vec::new(), command }
    }
}

/// 8 GiB, or half of the machine's memory if that is less.
pub(crate) fn default_memory_mib() -> u32 {
    let info = rustix::system::sysinfo();
    let total_mib = u64::from(info.mem_unit) * info.totalram / (1024 * 1024);
    u32::try_from(total_mib / 2).unwrap_or(u32::MAX).min(8192)
}

/// `cargo xtask lab`.
pub(crate) fn command(paths: &Paths, arguments: LabArguments) -> anyhow::Result<ExitCode> {
    prepare(paths)?;
    let mut run = LabRun::new(paths, arguments.command);
    run.memory_mib = arguments.memory_mib;
    run.cpus = arguments.cpus;
    for directory in arguments.writable {
        run.writable.push(std::fs::canonicalize(&directory).with_context(|| directory.display().to_string())?);
    }
    let status = execute(paths, &run)?;
    Ok(ExitCode::from(status))
}

/// Installs and downloads what the lab needs.
pub(crate) fn prepare(paths: &Paths) -> anyhow::Result<()> {
    packages::ensure(packages::LAB)?;
    LabKernel::prepare(&paths.cache).map(drop)
}

/// Boots a VM, runs the command in it with its output on ours, and returns its exit status.
pub(crate) fn execute(paths: &Paths, run: &LabRun) -> anyhow::Result<u8> {
    let interactive = run.command.is_empty();
    if interactive && !std::io::stdin().is_terminal() {
        bail!("stdin is not a terminal: give the command to run, as in `cargo xtask lab -- uname -a`");
    }
    let kernel = LabKernel::prepare(&paths.cache)?;
    let directory = tempfile::Builder::new().prefix("bulkhead-lab-").tempdir().context("cannot create a directory")?;
    write_boot_files(directory.path(), run)?;
    let config =
        MachineConfig { kernel: &kernel, directory: directory.path(), memory_mib: run.memory_mib, cpus: run.cpus };
    let machine = Machine::start(&config)?;
    let status = if interactive { relay::terminal(&machine)? } else { relay::output(&machine)? };
    let logs = machine.finish()?;
    match status {
        Some(status) => Ok(status),
        None => bail!("the lab's VM ended before the command did; the end of its logs:\n{logs}"),
    }
}

/// What `init.sh` needs: itself, the command, the writable directories, and this program for [`hold`].
fn write_boot_files(directory: &Path, run: &LabRun) -> anyhow::Result<()> {
    let init = directory.join("init.sh");
    std::fs::write(&init, INIT)?;
    std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755))?;
    // Not by its path, where a build may have put its successor meanwhile.
    std::fs::copy("/proc/self/exe", directory.join("xtask")).context("copy this program for the lab")?;
    let mut writable = String::new();
    for path in &run.writable {
        std::fs::create_dir_all(path)?;
        writeln!(writable, "{}", path.display())?;
    }
    std::fs::write(directory.join("writable"), writable)?;
    std::fs::write(directory.join("command"), command_script(run)?)?;
    if run.command.is_empty() {
        std::fs::write(directory.join("interactive"), "")?;
    }
    Ok(())
}

fn command_script(run: &LabRun) -> anyhow::Result<String> {
    let mut script = String::new();
    let passed = std::env::vars().filter(|(name, _)| {
        PASSED_ENVIRONMENT.contains(&name.as_str()) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    for (name, value) in passed.chain(run.environment.iter().cloned()) {
        writeln!(script, "export {name}={}", quoted(&value))?;
    }
    let here = std::env::current_dir().context("the current directory")?;
    writeln!(script, "cd {}", quoted(&here.to_string_lossy()))?;
    if run.command.is_empty() {
        if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin()) {
            writeln!(script, "stty rows {} cols {}", size.ws_row, size.ws_col)?;
        }
        writeln!(script, "exec \"${{SHELL:-/bin/bash}}\"")?;
    } else {
        let words: Vec<String> = run.command.iter().map(|word| quoted(word)).collect();
        writeln!(script, "exec {}", words.join(" "))?;
    }
    Ok(script)
}

/// `word` as one word of a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for word in ["plain", "", "two words", "it's", "$HOME `id` \\ \"x\"", "line\nbreak"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .expect("sh runs");
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
    }
}
