//! A container's process with the user at its streams: signals, terminal size, deadline, and output to the last byte.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use sandbox::lifecycle::{Process, Sandbox};
use sandbox::signals::{Action, Escalation, TerminationSignals};
use sandbox::stdio::{InputPump, OutputPump, Streams};
use sandbox::terminal::TerminalSize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::outcome::Outcome;

/// How long a container that was killed may take to end and to have its output drained.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// SIGINT's number, for an exit status.
const INTERRUPT: i32 = 2;

/// The user's descriptors, connected to the process's streams.
pub(super) struct Attached {
    stdin: Option<InputPump>,
    outputs: Vec<(&'static str, OutputPump)>,
}

impl Attached {
    pub(super) fn new(streams: Streams) -> anyhow::Result<Self> {
        let mut outputs = Vec::new();
        if let Some(stream) = streams.stdout {
            outputs.push(("stdout", OutputPump::spawn("stdout", stream, duplicate(std::io::stdout())?)?));
        }
        if let Some(stream) = streams.stderr {
            outputs.push(("stderr", OutputPump::spawn("stderr", stream, duplicate(std::io::stderr())?)?));
        }
        let stdin = streams.stdin.map(|stream| InputPump::spawn("stdin", duplicate(std::io::stdin())?, stream));
        Ok(Self { stdin: stdin.transpose()?, outputs })
    }

    /// Returns when everything the process wrote is written here.
    pub(super) async fn drain(&mut self) -> anyhow::Result<()> {
        self.stdin = None;
        for (name, output) in &mut self.outputs {
            match output.finished().await {
                // Who reads us has had enough; the process was told in the same way.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                result => result.with_context(|| format!("cannot write the container's {name}"))?,
            }
        }
        Ok(())
    }
}

fn duplicate(fd: impl AsFd) -> std::io::Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned()
}

/// What came first.
enum Event<T> {
    Done(T),
    TimedOut,
    Insisted,
}

/// Passes on what the user does while something is awaited.
pub(super) struct Session<'run> {
    sandbox: &'run Sandbox,
    process: Process<'run>,
    signals: &'run mut TerminationSignals,
    resized: Option<Signal>,
    size: Option<TerminalSize>,
    escalation: Escalation,
    sending: FuturesUnordered<LocalBoxFuture<'run, ()>>,
}

impl<'run> Session<'run> {
    /// With `size`, the terminal's size as the process has it, later sizes are passed on.
    pub(super) fn new(
        sandbox: &'run Sandbox,
        process: Process<'run>,
        signals: &'run mut TerminationSignals,
        size: Option<TerminalSize>,
    ) -> anyhow::Result<Self> {
        let resized = size.map(|_| signal(SignalKind::window_change())).transpose();
        let resized = resized.context("cannot catch SIGWINCH")?;
        let session = Self {
            sandbox,
            process,
            signals,
            resized,
            size,
            escalation: Escalation::default(),
            sending: FuturesUnordered::new(),
        };
        Ok(session)
    }

    /// Follows the process to its end and its output to the last byte.
    pub(super) async fn run(mut self, attached: &mut Attached, timeout: Option<Duration>) -> anyhow::Result<Outcome> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        // The size may have changed between its first reading and the catching of its changes.
        self.resize();
        let process = self.process.clone();
        let status = match self.until(process.wait(), deadline).await {
            Event::Done(status) => status,
            Event::TimedOut => return Ok(self.end(attached).await),
            Event::Insisted => return Ok(self.abandon()),
        };
        // A guest that died has closed its streams, so its last output comes before the error.
        match self.until(attached.drain(), None).await {
            Event::Done(drained) => {
                let status = status?;
                drained?;
                Ok(Outcome::Exited(status))
            }
            Event::TimedOut | Event::Insisted => Ok(self.abandon()),
        }
    }

    /// Waits for `work`, and meanwhile passes on signals and sizes.
    async fn until<T>(&mut self, work: impl Future<Output = T>, deadline: Option<Instant>) -> Event<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Event::Done(done),
                signal = self.signals.next() => match self.escalation.take(signal) {
                    Action::Forward(signal) => self.forward(signal),
                    Action::End => return Event::Insisted,
                },
                () = next_size(&mut self.resized) => self.resize(),
                Some(()) = self.sending.next(), if !self.sending.is_empty() => {}
                () = sleep_until(deadline) => return Event::TimedOut,
            }
        }
    }

    /// Sends without waiting: a guest that does not answer must not keep the third interrupt from counting.
    fn forward(&self, signal: i32) {
        let process = self.process.clone();
        self.sending.push(Box::pin(async move {
            // The process may have ended just now; then its status follows.
            let _gone = process.signal(signal.unsigned_abs()).await;
        }));
    }

    fn resize(&mut self) {
        let now = TerminalSize::of(std::io::stdin()).or_else(|| TerminalSize::of(std::io::stdout()));
        if self.resized.is_none() || now == self.size {
            return;
        }
        self.size = now;
        if let Some(size) = now {
            let process = self.process.clone();
            self.sending.push(Box::pin(async move {
                let _gone = process.resize(size).await;
            }));
        }
    }

    /// Kills the container, and the VM if that does not help; what was written until then is still drained.
    async fn end(&mut self, attached: &mut Attached) -> Outcome {
        let killed = async {
            self.process.kill_all().await?;
            self.process.wait().await
        };
        if !matches!(tokio::time::timeout(KILL_GRACE, killed).await, Ok(Ok(_))) {
            self.sandbox.kill();
        }
        // A reader that has stopped reading does not keep the time-out from being one.
        let _drained = tokio::time::timeout(KILL_GRACE, attached.drain()).await;
        Outcome::TimedOut
    }

    fn abandon(&self) -> Outcome {
        self.sandbox.kill();
        Outcome::Interrupted(INTERRUPT)
    }
}

async fn next_size(resized: &mut Option<Signal>) {
    match resized {
        Some(resized) => drop(resized.recv().await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
