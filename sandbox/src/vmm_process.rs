//! The vmm process of one sandbox: spawned here, watched by one task, ended with us whatever happens to us.
//!
//! Three nets catch a vmm whose owner dies: its lifeline (a pipe whose other end only we hold) breaks and it removes
//! everything itself; QEMU below it has a parent-death signal; and the next command's sweep ends a vmm that hung.
//! The vmm has no parent-death signal of its own, since that would kill it before it could clean up.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr};
use tokio::sync::{mpsc, watch};

use crate::process_identity::ProcessIdentity;

/// Most bytes of a vmm's messages that are written to its log.
const LOG_MAX_BYTES: usize = 256 * 1024;
/// Newest bytes of its messages that are kept for an error.
const TAIL_MAX_BYTES: usize = 8 * 1024;
/// How long a grandchild may keep the message pipe open after the vmm has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
/// Exit status of a vmm that refused its configuration.
const REFUSED_STATUS: i32 = 2;

/// Why a vmm could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program did not start.
    #[error("cannot run {}", vmm.display())]
    Spawn {
        /// The vmm's path.
        vmm: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its log cannot be made.
    #[error("cannot create {}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How a vmm ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmExit {
    status: ExitStatus,
    /// The newest lines it wrote on stderr.
    pub messages: String,
}

impl VmmExit {
    /// The guest powered itself off, reset or panicked.
    pub fn guest_ended(&self) -> bool {
        self.status.success()
    }

    /// The vmm refused its configuration before it touched anything.
    pub fn refused(&self) -> bool {
        self.status.code() == Some(REFUSED_STATUS)
    }

    /// The signal that killed the vmm.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Its last line on stderr without a leading `vmm: `, or its status if it said nothing.
    pub fn reason(&self) -> String {
        let last = self.messages.lines().rev().map(str::trim).find(|line| !line.is_empty());
        match last {
            Some(line) => line.strip_prefix("vmm: ").unwrap_or(line).to_owned(),
            None => self.status.to_string(),
        }
    }
}

/// A running (or ended) vmm; dropping it ends the VM.
#[derive(Debug)]
pub struct VmmProcess {
    identity: Option<ProcessIdentity>,
    exit: watch::Receiver<Option<VmmExit>>,
    kill: mpsc::Sender<()>,
    _lifeline: OwnedFd,
}

impl VmmProcess {
    /// Starts `vmm run` with `config`; `inherited` are descriptors that the configuration names as `/proc/self/fd/N`.
    ///
    /// # Errors
    /// The program cannot be run. What it refuses shows in [`Self::exit`].
    pub fn spawn(vmm: &Path, config: &Path, log: &Path, inherited: Vec<OwnedFd>) -> Result<Self, SpawnError> {
        let error = |source| SpawnError::Spawn { vmm: vmm.to_owned(), source };
        let log_file = File::create(log).map_err(|source| SpawnError::Log { path: log.to_owned(), source })?;
        let (lifeline_read, lifeline) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| error(errno.into()))?;
        let mut command = Command::new(vmm);
        command.arg("run").arg("--config").arg(config);
        command.arg("--lifeline-fd").arg(lifeline_read.as_raw_fd().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir("/");
        let passed = inherited.into_iter().chain([lifeline_read]).collect();
        crate::sys::detach_and_pass(&mut command, passed);
        // The command, and with it our copy of the passed descriptors, is dropped at the end of this function.
        let child = tokio::process::Command::from(command).spawn().map_err(error)?;
        let identity = child.id().and_then(|pid| ProcessIdentity::of(pid).ok());
        let (exit_sender, exit) = watch::channel(None);
        let (kill, kill_requests) = mpsc::channel(1);
        tokio::spawn(watch_child(child, log_file, kill_requests, exit_sender));
        Ok(Self { identity, exit, kill, _lifeline: lifeline })
    }

    /// Which process it is, unless it ended before that could be read.
    pub fn identity(&self) -> Option<&ProcessIdentity> {
        self.identity.as_ref()
    }

    /// Returns when the process has ended.
    pub async fn exit(&self) -> VmmExit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        // The watching task publishes before it ends; it can only be missing when the runtime itself shuts down.
        ended.unwrap_or_else(|| VmmExit { status: ExitStatus::from_raw(0), messages: String::new() })
    }

    /// Kills the process; [`Self::exit`] tells when it is gone.
    pub fn kill(&self) {
        let _already_asked = self.kill.try_send(());
    }
}

async fn watch_child(
    mut child: Child,
    log: File,
    mut kill_requests: mpsc::Receiver<()>,
    exit: watch::Sender<Option<VmmExit>>,
) {
    let stderr = child.stderr.take();
    let mut messages = tokio::spawn(collect_messages(stderr, log));
    let mut killable = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            request = kill_requests.recv(), if killable => {
                // Without a sender left, nobody can ask any more: the lifeline is broken and ends the vmm.
                killable = request.is_some();
                if killable {
                    let _already_ended = child.start_kill();
                }
            }
        }
    };
    let messages = match tokio::time::timeout(DRAIN_TIMEOUT, &mut messages).await {
        Ok(collected) => collected.unwrap_or_default(),
        Err(_) => {
            messages.abort();
            String::new()
        }
    };
    // Waiting for one's own child fails only if somebody else reaped it; its status is lost then.
    let status = status.unwrap_or_else(|_| ExitStatus::from_raw(0x7f00));
    exit.send_replace(Some(VmmExit { status, messages }));
}

/// Drains the message pipe to its end, so that the vmm never blocks on it; keeps the first bytes in the log and the
/// newest in memory.
async fn collect_messages(stderr: Option<ChildStderr>, mut log: File) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let mut tail = Vec::new();
    let mut room = LOG_MAX_BYTES;
    let mut buffer = [0_u8; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let chunk = buffer.get(..count).unwrap_or_default();
        let logged = chunk.get(..count.min(room)).unwrap_or_default();
        room -= logged.len();
        let _full_disk_loses_only_the_log = log.write_all(logged);
        tail.extend_from_slice(chunk);
        let excess = tail.len().saturating_sub(TAIL_MAX_BYTES);
        tail.drain(..excess);
    }
    String::from_utf8_lossy(&tail).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Runs a shell script in place of the vmm; it sees `$1..` as `run --config C --lifeline-fd N`.
    fn spawn(dir: &Path, script: &str, inherited: Vec<OwnedFd>) -> VmmProcess {
        let program = dir.join("vmm");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        VmmProcess::spawn(&program, Path::new("/config"), &dir.join("log"), inherited).unwrap()
    }

    #[tokio::test]
    async fn a_refusal_shows_its_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let exit =
            spawn(dir.path(), "echo noise >&2; echo 'vmm: vcpus 0: at least 1' >&2; exit 2", vec![]).exit().await;
        assert!(exit.refused() && !exit.guest_ended());
        assert_eq!(exit.reason(), "vcpus 0: at least 1");
        assert!(std::fs::read_to_string(dir.path().join("log")).unwrap().contains("noise"));
    }

    #[tokio::test]
    async fn a_flood_of_messages_is_bounded_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let exit = spawn(dir.path(), "head -c 2000000 /dev/zero | tr '\\0' x >&2; echo end >&2", vec![]).exit().await;
        assert!(exit.guest_ended());
        assert!(exit.messages.len() <= TAIL_MAX_BYTES && exit.messages.ends_with("end\n"));
        assert_eq!(std::fs::metadata(dir.path().join("log")).unwrap().len(), LOG_MAX_BYTES as u64);
    }

    #[tokio::test]
    async fn the_lifeline_and_inherited_descriptors_reach_the_child() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"scratch").unwrap();
        let fd = OwnedFd::from(file);
        let number = fd.as_raw_fd();
        let script = format!("cat /proc/self/fd/{number} >&2; readlink /proc/self/fd/$5 >&2");
        let exit = spawn(dir.path(), &script, vec![fd]).exit().await;
        assert!(exit.messages.starts_with("scratchpipe:["), "{exit:?}");
    }

    #[tokio::test]
    async fn dropping_the_process_breaks_its_lifeline() {
        let dir = tempfile::tempdir().unwrap();
        let flag = dir.path().join("flag");
        // `cat` returns at the lifeline's end of file, as the vmm's own watch does.
        let vmm = spawn(dir.path(), &format!("cat </proc/self/fd/$5; echo gone >{}", flag.display()), vec![]);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!flag.exists());
        drop(vmm);
        for _ in 0..200 {
            if flag.exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the child outlived its lifeline");
    }

    #[tokio::test]
    async fn a_killed_vmm_is_told_from_a_guest_that_ended() {
        let dir = tempfile::tempdir().unwrap();
        let vmm = spawn(dir.path(), "exec sleep 100", vec![]);
        vmm.kill();
        let exit = vmm.exit().await;
        assert_eq!(exit.signal(), Some(9));
        assert!(!exit.guest_ended());
    }
}
