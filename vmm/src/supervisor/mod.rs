//! The thread that watches the outside while the guest runs: control socket, lifeline, SIGTERM.
//!
//! It never takes part in running the guest; all it can do is ask the session to stop. If the lifeline breaks and the
//! guest does not end soon, it ends the process itself: nothing may survive its owner.

mod control;
mod lifeline;
mod signals;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulkhead_protocols::control::Phase;
use bulkhead_protocols::vm::Accelerator;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::accelerator::Session;
use control::{Client, Server};
pub(crate) use lifeline::Lifeline;

const STACK_BYTES: usize = 256 << 10;
/// How long a guest may take to end when nobody waits for it any more.
const GRACE: Duration = Duration::from_secs(2);
/// How often a supervisor whose lifeline broke looks whether the guest has ended.
const END_CHECK: Duration = Duration::from_millis(5);

/// What the supervisor watches and answers for.
pub(crate) struct Supervisor {
    /// The running VM.
    pub(crate) session: Arc<Session>,
    /// What runs it.
    pub(crate) accelerator: Accelerator,
    /// Where the control socket is made.
    pub(crate) control_socket: PathBuf,
    /// Removed when the lifeline breaks.
    pub(crate) runtime_dir: PathBuf,
    /// The owner's end of life.
    pub(crate) lifeline: Option<Lifeline>,
}

/// A running supervisor.
pub(crate) struct Supervision {
    lifeline_broke: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Supervision {
    /// Whether the owner is gone.
    pub(crate) fn lifeline_broke(&self) -> bool {
        self.lifeline_broke.load(Ordering::Acquire)
    }

    /// Waits until the supervisor of an ended guest, whose lifeline broke, has removed the runtime directory.
    pub(crate) fn join(self) {
        // A supervisor that panicked has nothing left to wait for.
        let _ = self.thread.join();
    }
}

impl Supervisor {
    /// Makes the control socket and starts watching.
    pub(crate) fn start(self) -> io::Result<Supervision> {
        let listener = UnixListener::bind(&self.control_socket).map_err(|error| {
            io::Error::new(error.kind(), format!("control socket {}: {error}", self.control_socket.display()))
        })?;
        listener.set_nonblocking(true)?;
        signals::install()?;
        let lifeline_broke = Arc::new(AtomicBool::new(false));
        let broke = Arc::clone(&lifeline_broke);
        let builder = std::thread::Builder::new().name("supervisor".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || {
            if let Err(error) = self.watch(&listener, &broke) {
                // Without its supervisor a VM could not be controlled any more.
                eprintln!("vmm: the supervisor failed: {error}");
                let _ = self.session.request_stop();
            }
        })?;
        Ok(Supervision { lifeline_broke, thread })
    }

    fn watch(&self, listener: &UnixListener, lifeline_broke: &AtomicBool) -> io::Result<()> {
        let server = Server::new(&self.session, self.accelerator);
        let mut clients: Vec<Client> = Vec::new();
        let mut deadline: Option<Instant> = None;
        loop {
            let ready = self.wait(listener, &clients, deadline)?;
            if ready.terminate {
                signals::clear();
                self.session.request_stop()?;
            }
            if ready.lifeline && deadline.is_none() {
                lifeline_broke.store(true, Ordering::Release);
                self.session.request_stop()?;
                deadline = Some(Instant::now() + GRACE);
            }
            if let Some(deadline) = deadline {
                let ended = self.session.phase() == Phase::Stopped;
                if ended || Instant::now() >= deadline {
                    remove_runtime_dir(&self.runtime_dir);
                    if ended {
                        return Ok(());
                    }
                    std::process::exit(1);
                }
            }
            for (client, events) in clients.iter_mut().zip(ready.clients) {
                client.serve(events, &server);
            }
            clients.retain(Client::is_open);
            if ready.listener {
                control::accept(listener, &mut clients)?;
            }
        }
    }

    fn wait(&self, listener: &UnixListener, clients: &[Client], deadline: Option<Instant>) -> io::Result<Ready> {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).min(END_CHECK);
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        let mut fds =
            vec![PollFd::new(listener, PollFlags::IN), PollFd::from_borrowed_fd(signals::terminate()?, PollFlags::IN)];
        // A broken lifeline stays readable: from then on only the deadline counts.
        let lifeline = self.lifeline.as_ref().filter(|_| deadline.is_none());
        fds.extend(lifeline.map(|lifeline| PollFd::new(lifeline, PollFlags::IN)));
        let fixed = fds.len();
        fds.extend(clients.iter().map(|client| PollFd::new(client, client.interest())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let fired = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            listener: fired(0),
            terminate: fired(1),
            lifeline: lifeline.is_some_and(|lifeline| fired(2) && lifeline.is_broken()),
            clients: fds.iter().skip(fixed).map(PollFd::revents).collect(),
        })
    }
}

/// What happened.
struct Ready {
    listener: bool,
    terminate: bool,
    lifeline: bool,
    clients: Vec<PollFlags>,
}

/// Removes a VM's host state; what cannot be removed is left to the next sweep.
fn remove_runtime_dir(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("vmm: cannot remove {}: {error}", path.display());
    }
}
