//! What runs a guest's instructions, seen from `main`: one trait, and what every implementation shares with the
//! control socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use bulkhead_protocols::control::Phase;

use crate::console::ConsoleBuffer;
use crate::counters::Counters;

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestEnd {
    /// It powered off, reset or triple-faulted: by itself, the caller knows whether that was expected.
    Stopped,
    /// The session's stop descriptor asked for it.
    Asked,
}

/// An accelerator that holds a validated configuration and is ready to run it.
pub(crate) trait Accelerator {
    /// Builds the VM and runs the guest to its end, on the calling (main) thread and those it makes.
    ///
    /// Returns soon after `session.stop` becomes readable. When it returns, the guest is gone and the console holds all
    /// it wrote.
    fn run(self: Box<Self>, session: &Session) -> anyhow::Result<GuestEnd>;
}

/// What the control socket and the accelerator share.
pub(crate) struct Session {
    /// All counters of this process.
    pub(crate) counters: Arc<Counters>,
    /// The newest output of the serial console.
    pub(crate) console: Arc<ConsoleBuffer>,
    stop: OwnedFd,
    phase: AtomicU8,
    pid: AtomicU32,
}

impl Session {
    /// Makes a session whose guest has not begun; `console_bytes` bounds what is kept of the console.
    pub(crate) fn new(console_bytes: usize) -> std::io::Result<Self> {
        Ok(Self {
            counters: Arc::default(),
            console: Arc::new(ConsoleBuffer::new(console_bytes)),
            stop: rustix::event::eventfd(
                0,
                rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
            )?,
            phase: AtomicU8::new(Phase::Starting as u8),
            pid: AtomicU32::new(std::process::id()),
        })
    }

    /// Asks the accelerator to end the guest; may be called from any thread, any number of times.
    pub(crate) fn request_stop(&self) -> std::io::Result<()> {
        match rustix::io::write(&self.stop, &1_u64.to_ne_bytes()) {
            // A full counter is as readable as any other.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Readable, and never drained, from the first [`Self::request_stop`] on.
    pub(crate) fn stop(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    /// What the guest is doing.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            phase if phase == Phase::Starting as u8 => Phase::Starting,
            phase if phase == Phase::Running as u8 => Phase::Running,
            _ => Phase::Stopped,
        }
    }

    /// Tells what the guest is doing.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The process that runs the guest's instructions.
    pub(crate) fn guest_pid(&self) -> u32 {
        self.pid.load(Ordering::Acquire)
    }

    /// Names another process than this one as the guest's.
    pub(crate) fn set_guest_pid(&self, pid: u32) {
        self.pid.store(pid, Ordering::Release);
    }
}
