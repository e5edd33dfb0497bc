//! A sandbox made by the `sandbox` command whose shell waits for commands, to be measured while it works.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use bulkhead_protocols::control::{Request, Response};
use bulkhead_protocols::vm::{Accelerator, VmConfig};

use super::vm::ask;

/// What the shell prints when a command has ended.
const DONE: &str = "bench: done";

/// The installation and directories that `sandbox` commands use.
pub(super) struct Installation<'a> {
    /// Prefix of the installation.
    pub(super) prefix: &'a Path,
    /// Holds the image store and the runtime directories.
    pub(super) state: &'a Path,
    /// Image with busybox.
    pub(super) image: &'a str,
}

impl Installation<'_> {
    /// `sandbox run --accel … ARGUMENTS`, before the image's name.
    pub(super) fn run(&self, accelerator: Accelerator, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.prefix.join("bin/sandbox"));
        command.env("BULKHEAD_RUN", self.state.join("run")).env("BULKHEAD_DATA", self.state.join("data"));
        command.args(["run", "--quiet", "--accel", &accelerator.to_string()]).args(arguments);
        command
    }

    /// The vmm.
    pub(super) fn vmm(&self) -> PathBuf {
        self.prefix.join("lib/bulkhead/vmm")
    }

    /// Starts a sandbox with a shell that waits for commands.
    pub(super) fn shell(&self, accelerator: Accelerator, arguments: &[&str]) -> anyhow::Result<Live> {
        let mut command = self.run(accelerator, arguments);
        command.args(["--interactive", self.image, "sh"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the sandbox command")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut live = Live { child, stdin, stdout, config: None };
        live.execute("true")?;
        live.config = Some(self.sole_config()?);
        Ok(live)
    }

    /// The VM configuration of the one sandbox that runs.
    fn sole_config(&self) -> anyhow::Result<VmConfig> {
        let sandboxes = self.state.join("run/sandboxes");
        let mut entries = std::fs::read_dir(&sandboxes).with_context(|| sandboxes.display().to_string())?;
        let directory = entries.next().context("the sandbox has no runtime directory")??.path();
        let file = directory.join("vm.json");
        serde_json::from_slice(&std::fs::read(&file)?).with_context(|| file.display().to_string())
    }
}

/// A running sandbox; killed when dropped, and its VM with it.
pub(super) struct Live {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    config: Option<VmConfig>,
}

impl Live {
    /// The configuration that the command wrote for its VM.
    pub(super) fn config(&self) -> anyhow::Result<&VmConfig> {
        self.config.as_ref().context("no configuration")
    }

    /// The `sandbox` command.
    pub(super) fn cli_pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that runs the guest.
    pub(super) fn vmm_pid(&self) -> anyhow::Result<u32> {
        match ask(&self.config()?.control_socket, Request::State)? {
            Response::State { pid, .. } => Ok(pid),
            other => anyhow::bail!("the vmm answered {other:?}"),
        }
    }

    /// Has the shell run `script`, and waits until it has.
    pub(super) fn execute(&mut self, script: &str) -> anyhow::Result<()> {
        writeln!(self.stdin, "{{ {script}; }} >/dev/null && echo {DONE}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        anyhow::ensure!(line.trim() == DONE, "{script:?} failed in the sandbox: {line:?}");
        Ok(())
    }

    /// How far `work` moved each counter.
    pub(super) fn counted(
        &mut self,
        work: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<BTreeMap<String, u64>> {
        let before = self.counters()?;
        work(self)?;
        let mut after = self.counters()?;
        after.iter_mut().for_each(|(name, value)| *value -= before.get(name).copied().unwrap_or_default());
        Ok(after)
    }

    fn counters(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        match ask(&self.config()?.control_socket, Request::Counters)? {
            Response::Counters { counters } => Ok(counters),
            other => anyhow::bail!("the vmm answered {other:?}"),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
