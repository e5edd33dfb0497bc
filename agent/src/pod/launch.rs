//! Starts a helper (`container-init`) and takes it to the point where it waits for its start.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::container::{Failure, FailureKind, HELPER_NAME, Report};
use crate::plan::Job;
use crate::reaper::{Ending, Reaper};
use crate::server::Refusal;
use crate::stdio::parking::ProcessStreams;
use crate::stdio::pump::{self, End};
use crate::sys::child::{self, Child, ChildStart};
use crate::sys::packet;
use crate::sys::watch::watch;

/// How long a helper may be silent: it has a few system calls to make.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// What to start, where.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) program: BorrowedFd<'a>,
    pub(super) job: &'a Job,
    /// `CLONE_NEW*` flags.
    pub(super) namespaces: u32,
    pub(super) cgroup: BorrowedFd<'a>,
    /// The first process of the container to be joined.
    pub(super) container: Option<BorrowedFd<'a>>,
    /// Whether the helper is born in that process's pid namespace.
    pub(super) joins_pid_namespace: bool,
    pub(super) terminal: bool,
}

/// A helper that waits for its start.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) child: Child,
    pub(super) gate: AsyncFd<OwnedFd>,
    pub(super) terminal: Option<End>,
}

/// What goes with a helper beside its process.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) ended: oneshot::Receiver<Ending>,
    pub(super) stdin_pump: Option<JoinHandle<()>>,
}

/// Starts the helper and waits until it is ready. If it fails, its process is gone or about to be.
pub(super) async fn launch(
    what: &Launch<'_>,
    streams: ProcessStreams,
    reaper: &Reaper,
) -> Result<(Launched, Attached), Refusal> {
    let pipes = Pipes::new(&streams, what.terminal).map_err(failed("make pipes for stdio"))?;
    let (child, socket) = start_helper(what, &pipes)?;
    // In the same step as the start: the reaper must not be first.
    let ended = reaper.expect(child.pid);
    let gate = watch(socket).map_err(failed("watch the helper's socket"))?;
    let master = match receive(&gate).await? {
        Some((Report::Ready, master)) => master,
        Some((Report::Failed(failure), _)) => return Err(refusal(failure)),
        None => return Err(Refusal::internal("the helper ended before the process was ready")),
    };
    let (terminal, stdin_pump) = if what.terminal {
        let master = master.ok_or_else(|| Refusal::internal("the helper sent no terminal"))?;
        let terminal = pump::end(master).map_err(failed("watch the terminal"))?;
        let stdin_pump = attach_terminal(&terminal, streams);
        (Some(terminal), stdin_pump)
    } else {
        (None, pipes.attach(streams).map_err(failed("watch stdio"))?)
    };
    Ok((Launched { child, gate, terminal }, Attached { ended, stdin_pump }))
}

/// Starts the helper with its job; returns the agent's end of the socket between them.
fn start_helper(what: &Launch<'_>, pipes: &Pipes) -> Result<(Child, OwnedFd), Refusal> {
    let job = job_file(what.job).map_err(failed("write the helper's job"))?;
    let (ours, theirs) = packet::pair().map_err(|error| failed("make a socket pair")(error.into()))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed("open /dev/null")(error.into()))?;
    let mut passed = vec![job.as_fd(), theirs.as_fd()];
    passed.extend(what.container);
    let stdio = [&pipes.stdin, &pipes.stdout, &pipes.stderr]
        .map(|pipe| pipe.as_ref().map_or(null.as_fd(), |(_, process_end)| process_end.as_fd()));
    let child = child::start(&ChildStart {
        program: what.program,
        name: HELPER_NAME,
        namespaces: what.namespaces,
        cgroup: Some(what.cgroup),
        pid_namespace_of: what.container.filter(|_| what.joins_pid_namespace),
        stdio,
        passed: &passed,
    })
    .map_err(start_refusal)?;
    Ok((child, ours))
}

fn failed(doing: &'static str) -> impl Fn(std::io::Error) -> Refusal {
    move |error| Refusal::internal(format!("{doing}: {error}"))
}

/// Waits for the helper's next report, [`HELPER_TIMEOUT`] at most; `None` when it has closed its socket.
///
/// A helper lives among the container's processes, which may stop it.
pub(super) async fn receive(gate: &AsyncFd<OwnedFd>) -> Result<Option<(Report, Option<OwnedFd>)>, Refusal> {
    tokio::time::timeout(HELPER_TIMEOUT, next_report(gate)).await.unwrap_or_else(|_| {
        Err(Refusal::internal("the helper that becomes the process does not answer; was it stopped?"))
    })
}

async fn next_report(gate: &AsyncFd<OwnedFd>) -> Result<Option<(Report, Option<OwnedFd>)>, Refusal> {
    let failed = failed("hear from the helper");
    loop {
        let mut ready = gate.readable().await.map_err(&failed)?;
        let Ok(result) = ready.try_io(|socket| packet::receive(socket).map_err(std::io::Error::from)) else { continue };
        let (message, passed) = match result {
            Ok((message, passed)) => (message, passed),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if message.is_empty() {
            return Ok(None);
        }
        let report = serde_json::from_slice(&message)
            .map_err(|error| Refusal::internal(format!("the helper's report is unreadable: {error}")))?;
        return Ok(Some((report, passed)));
    }
}

/// What the host is told of a helper's failure.
pub(super) fn refusal(failure: Failure) -> Refusal {
    match failure.kind {
        FailureKind::Invalid => Refusal::invalid(failure.message),
        FailureKind::NotFound | FailureKind::NotExecutable | FailureKind::Internal => {
            Refusal::internal(failure.message)
        }
    }
}

fn start_refusal(error: Errno) -> Refusal {
    match error {
        Errno::AGAIN | Errno::NOMEM => {
            Refusal::exhausted(format!("start a process: {error}; a limit of the container or the guest is reached"))
        }
        Errno::SRCH => Refusal::precondition("the container has ended"),
        _ => Refusal::internal(format!("start a process: {error}")),
    }
}

/// The job in a file without a name, to be read from its start.
fn job_file(job: &Job) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("job", MemfdFlags::CLOEXEC)?;
    let mut file = std::io::BufWriter::new(std::fs::File::from(fd));
    serde_json::to_writer(&mut file, job)?;
    file.flush()?;
    let fd = OwnedFd::from(file.into_inner().map_err(std::io::IntoInnerError::into_error)?);
    rustix::fs::seek(&fd, SeekFrom::Start(0))?;
    Ok(fd)
}

/// The agent's and the process's end of a pipe.
type Pipe = Option<(OwnedFd, OwnedFd)>;

/// Pipes for the streams that exist; with a terminal, none.
#[derive(Debug)]
struct Pipes {
    stdin: Pipe,
    stdout: Pipe,
    stderr: Pipe,
}

impl Pipes {
    fn new(streams: &ProcessStreams, terminal: bool) -> std::io::Result<Self> {
        let make = |wanted: bool| (wanted && !terminal).then(|| pipe_with(PipeFlags::CLOEXEC)).transpose();
        Ok(Self {
            stdin: make(streams.stdin.is_some())?.map(|(read, write)| (write, read)),
            stdout: make(streams.stdout.is_some())?,
            stderr: make(streams.stderr.is_some())?,
        })
    }

    /// Starts the pumps; the process's ends are closed on the agent's side. Returns that of stdin.
    fn attach(self, streams: ProcessStreams) -> std::io::Result<Option<JoinHandle<()>>> {
        for (pipe, stream) in [(self.stdout, streams.stdout), (self.stderr, streams.stderr)] {
            if let (Some((ours, _)), Some(stream)) = (pipe, stream) {
                pump::output(pump::end(ours)?, stream);
            }
        }
        match (self.stdin, streams.stdin) {
            (Some((ours, _)), Some(stream)) => Ok(Some(pump::input(stream, pump::end(ours)?))),
            _ => Ok(None),
        }
    }
}

fn attach_terminal(terminal: &End, streams: ProcessStreams) -> Option<JoinHandle<()>> {
    if let Some(stdout) = streams.stdout {
        pump::output(End::clone(terminal), stdout);
    }
    streams.stdin.map(|stdin| pump::input(stdin, End::clone(terminal)))
}
