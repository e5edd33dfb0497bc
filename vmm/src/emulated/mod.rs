//! The `emulated` accelerator: QEMU's TCG runs the guest's instructions, our device cores serve vsock and shares.
//!
//! ```text
//! vmm (this process) ── vhost-user sockets ──> QEMU (child: microvm, serial, disks, rng)
//!        main thread: console and error pipes, pidfd, stop         one worker per device
//! ```
//!
//! The order is forced by what each step needs. QEMU is started first, while this thread sees the host's files: it needs
//! its libraries and firmware. Then the thread is confined, before it makes the devices' threads. QEMU has been waiting
//! for their answers, and boots the guest.
//!
//! This module owns the child and the device threads; dropping it ends both.

mod boot_files;
mod command;
mod image;
mod probe;
mod process;
#[cfg(test)]
mod tests;
mod tsc;

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, ExitStatus};
use std::sync::Arc;

use anyhow::Context;
use bulkhead_protocols::control::Phase;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub(crate) use probe::probe;

use crate::accelerator::{Accelerator, GuestEnd, Session};
use crate::config::Config;
use crate::confine;
use crate::console::ConsoleBuffer;
use crate::vhost_user::{Endpoint, Failure, Served};
use crate::virtio::fs::FsDevice;
use crate::virtio::vsock::VsockDevice;
use boot_files::BootFiles;

/// Bytes of QEMU's own messages that are kept, the newest.
const MESSAGES_BYTES: usize = 4096;

/// A QEMU that has been started and waits for its devices, in a process that is confined to its shares.
pub(crate) struct Emulated {
    config: Config,
    vsock: Endpoint,
    vsock_listener: UnixListener,
    shares: Vec<(String, Endpoint)>,
    qemu: Qemu,
}

impl Emulated {
    /// Starts QEMU for `config` and confines the calling thread, which must be the main thread: QEMU dies with it.
    pub(crate) fn launch(config: Config) -> anyhow::Result<Self> {
        let vsock_listener = UnixListener::bind(&config.vsock.uds)
            .with_context(|| format!("cannot listen at vsock.uds {}", config.vsock.uds.display()))?;
        let endpoint = |name: &str| {
            Endpoint::new(name, &config.runtime_dir)
                .with_context(|| format!("cannot make a socket in {}", config.runtime_dir.display()))
        };
        let vsock = endpoint("vsock")?;
        let shares = config
            .shares
            .iter()
            .enumerate()
            .map(|(index, share)| Ok((share.tag.clone(), endpoint(&format!("fs{index}"))?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let boot_files = BootFiles::new(&config).context("cannot hand kernel and initramfs to QEMU")?;
        let line = command::CommandLine::new(&config, &boot_files, &vsock, &shares);
        let qemu = Qemu::spawn(&line)?;
        confine::enter(&config.shares, &config.runtime_dir)?;
        Ok(Self { config, vsock, vsock_listener, shares, qemu })
    }
}

impl Accelerator for Emulated {
    fn run(self: Box<Self>, session: &Session) -> anyhow::Result<GuestEnd> {
        let Self { config, vsock, vsock_listener, shares, mut qemu } = *self;
        session.set_guest_pid(qemu.child.id());
        let failure = Arc::new(Failure::new()?);
        let vsock_device =
            VsockDevice::new(config.vsock.guest_cid.get(), &config.vsock.uds, vsock_listener, &session.counters)
                .context("cannot make the vsock device")?;
        let mut served = vec![Served::start(vsock, Box::new(vsock_device), Arc::clone(&failure))?];
        for (share, (tag, endpoint)) in config.shares.iter().zip(shares) {
            let device = FsDevice::new(&tag, &confine::share_root(&tag), share.caching, &session.counters)
                .with_context(|| format!("cannot make the device of share {tag}"))?;
            served.push(Served::start(endpoint, Box::new(device), Arc::clone(&failure))?);
        }
        session.set_phase(Phase::Running);
        let end = qemu.watch(session, &failure);
        // The workers end with their sockets.
        qemu.kill();
        served.clear();
        end
    }
}

/// The child process with its pipes.
struct Qemu {
    child: Child,
    pidfd: OwnedFd,
    messages: ConsoleBuffer,
}

impl Qemu {
    fn spawn(line: &command::CommandLine<'_>) -> anyhow::Result<Self> {
        let child = process::spawn(command::PROGRAM, &line.arguments, &line.inherited).map_err(cannot_start)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("QEMU has no process id")?;
        Ok(Self { child, pidfd: pidfd_open(pid, PidfdFlags::empty())?, messages: ConsoleBuffer::new(MESSAGES_BYTES) })
    }

    /// Moves QEMU's output until it ends, is asked to, or a device fails.
    fn watch(&mut self, session: &Session, failure: &Failure) -> anyhow::Result<GuestEnd> {
        let mut console = self.child.stdout.take();
        let mut messages = self.child.stderr.take();
        loop {
            let mut descriptors = vec![
                PollFd::new(&self.pidfd, PollFlags::IN),
                PollFd::from_borrowed_fd(session.stop(), PollFlags::IN),
                PollFd::from_borrowed_fd(failure.event(), PollFlags::IN),
            ];
            let pipes = [console.as_ref().map(AsFd::as_fd), messages.as_ref().map(AsFd::as_fd)];
            descriptors.extend(pipes.iter().flatten().map(|pipe| PollFd::from_borrowed_fd(*pipe, PollFlags::IN)));
            match poll(&mut descriptors, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let fired: Vec<bool> = descriptors.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
            drop(descriptors);
            let fired = |index: usize| fired.get(index).copied().unwrap_or(false);
            let (exited, asked, failed) = (fired(0), fired(1), fired(2));
            let console_fired = console.is_some() && fired(3);
            let messages_fired = messages.is_some() && fired(3 + usize::from(console.is_some()));
            if console_fired && !forward(&mut console, &session.console) {
                console = None;
            }
            if messages_fired && !forward(&mut messages, &self.messages) {
                messages = None;
            }
            if failed && let Some(error) = failure.take() {
                return Err(error);
            }
            if asked {
                return Ok(GuestEnd::Asked);
            }
            if exited {
                while forward(&mut console, &session.console) {}
                while forward(&mut messages, &self.messages) {}
                return self.ended();
            }
        }
    }

    fn ended(&mut self) -> anyhow::Result<GuestEnd> {
        let status = self.child.wait()?;
        if status.success() {
            return Ok(GuestEnd::Stopped);
        }
        Err(qemu_failed(status, self.messages.tail(MESSAGES_BYTES).trim()))
    }

    fn kill(&mut self) {
        // Fails only if it has ended and was waited for.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Moves what a pipe holds; `false` at its end. Called when it is readable, or when its writer is gone.
fn forward(pipe: &mut Option<impl Read>, buffer: &ConsoleBuffer) -> bool {
    let Some(pipe) = pipe else { return false };
    let mut bytes = [0; 8192];
    loop {
        match pipe.read(&mut bytes) {
            Ok(0) => return false,
            Ok(len) => {
                buffer.push(bytes.get(..len).unwrap_or_default());
                return true;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

fn qemu_failed(status: ExitStatus, messages: &str) -> anyhow::Error {
    let said = if messages.is_empty() { "it said nothing".to_owned() } else { format!("it said: {messages}") };
    anyhow::anyhow!("QEMU failed ({status}); {said}")
}

fn cannot_start(error: std::io::Error) -> anyhow::Error {
    let program = command::PROGRAM;
    match error.kind() {
        ErrorKind::NotFound => {
            anyhow::anyhow!("{program} is not installed; install it with: apt-get install qemu-system-x86")
        }
        ErrorKind::PermissionDenied => anyhow::Error::new(error).context(format!(
            "cannot start {program} as a user of its own (run as root, outside a container without SYS_ADMIN)"
        )),
        _ => anyhow::Error::new(error).context(format!("cannot start {program}")),
    }
}
