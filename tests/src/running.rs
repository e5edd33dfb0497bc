//! Running the `sandbox` binary: what goes in, and what came out.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long any one command may take, in the slowest place where tests run.
pub const TIME_LIMIT: Duration = Duration::from_secs(240);

/// What a command reads from its stdin.
#[derive(Clone, Debug)]
pub enum Stdin {
    /// `/dev/null`.
    Null,
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
    /// A pipe that stays open and silent until the test writes to it or drops it.
    Open,
}

/// A command line that is about to be run.
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    removed: Vec<OsString>,
    stdin: Stdin,
    time_limit: Duration,
}

impl Invocation {
    /// `program` without arguments, in this process's environment.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            variables: Vec::new(),
            removed: Vec::new(),
            stdin: Stdin::Null,
            time_limit: TIME_LIMIT,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<S: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().into()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.into(), value.as_ref().into()));
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn without_variable(mut self, name: &str) -> Self {
        self.removed.push(name.into());
        self
    }

    /// Gives it a stdin.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Runs the whole under another program, such as `prlimit --nofile=64 --`.
    #[must_use]
    pub fn under<S: AsRef<str>>(mut self, program: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut all: Vec<OsString> = arguments.into_iter().map(|argument| argument.as_ref().into()).collect();
        all.push(self.program.into());
        all.append(&mut self.arguments);
        self.program = program.into();
        self.arguments = all;
        self
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn spawn(self) -> Running {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if matches!(self.stdin, Stdin::Null) { Stdio::null() } else { Stdio::piped() });
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", self.line()));
        let stdout = Collected::from(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Collected::from(child.stderr.take().expect("stderr is a pipe"));
        let mut stdin = child.stdin.take();
        if let Stdin::Bytes(bytes) = self.stdin.clone() {
            let mut pipe = stdin.take().expect("stdin is a pipe");
            // A command may end without reading all of it.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        Running { line: self.line(), child, stdin, stdout, stderr, begun: Instant::now(), limit: self.time_limit }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started or takes longer than its time limit.
    pub fn output(self) -> Outcome {
        self.spawn().wait()
    }

    /// The same as a [`Command`], its streams not set.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        for name in &self.removed {
            command.env_remove(name);
        }
        command
    }

    /// The command line, for messages.
    pub(crate) fn line(&self) -> String {
        let words = std::iter::once(self.program.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

/// The bytes a stream has brought so far, read by a thread of its own.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Collected {
    fn from(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count) = stream.read(&mut buffer) {
                if count == 0 {
                    return;
                }
                sink.lock().expect("no reader panics").extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panics")).into_owned()
    }

    fn all(self) -> Vec<u8> {
        self.reader.join().expect("no reader panics");
        std::mem::take(&mut *self.bytes.lock().expect("no reader panics"))
    }
}

/// A command that runs; killed when dropped.
pub struct Running {
    line: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Collected,
    stderr: Collected,
    begun: Instant,
    limit: Duration,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("pids are small")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it has been waited for already.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).expect("a pid"), signal).expect("the process can be signalled");
    }

    /// Writes to its open stdin.
    ///
    /// # Panics
    ///
    /// If stdin is not open.
    pub fn write(&mut self, bytes: &[u8]) {
        let pipe = self.stdin.as_mut().expect("the invocation asked for an open stdin");
        pipe.write_all(bytes).and_then(|()| pipe.flush()).expect("the command reads its stdin");
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until its stdout contains `text`.
    ///
    /// # Panics
    ///
    /// If it ends first or takes longer than its time limit.
    pub fn wait_for_stdout(&mut self, text: &str) {
        while !self.stdout.so_far().contains(text) {
            let ended = self.child.try_wait().expect("it can be waited for").is_some();
            if (ended && !self.stdout.so_far().contains(text)) || self.begun.elapsed() > self.limit {
                let seen = (self.stdout.so_far(), self.stderr.so_far());
                panic!("{} did not print {text:?}\nstdout: {}\nstderr: {}", self.line, seen.0, seen.1);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// If it takes longer than its time limit.
    pub fn wait(mut self) -> Outcome {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            if self.begun.elapsed() > self.limit {
                let _ = self.child.kill();
                let seen = (self.stdout.so_far(), self.stderr.so_far());
                panic!("{} did not end in {:?}\nstdout: {}\nstderr: {}", self.line, self.limit, seen.0, seen.1);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let elapsed = self.begun.elapsed();
        let stdout = self.stdout.all();
        let stderr = String::from_utf8_lossy(&self.stderr.all()).into_owned();
        Outcome { line: self.line, status, stdout, stderr, elapsed }
    }
}

/// What a command left when it ended.
#[derive(Debug)]
pub struct Outcome {
    line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to stdout.
    pub stdout: Vec<u8>,
    /// Everything it wrote to stderr, with what is not UTF-8 replaced.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
}

impl Outcome {
    /// stdout as text, with what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts the exit status.
    ///
    /// # Panics
    ///
    /// If it is another, or a signal ended the command.
    #[track_caller]
    pub fn exits(&self, expected: i32) -> &Self {
        assert_eq!(self.status.code(), Some(expected), "wrong exit status (signal {:?})\n{self}", self.status.signal());
        self
    }

    /// Asserts all of stdout.
    ///
    /// # Panics
    ///
    /// If it is anything else.
    #[track_caller]
    pub fn prints(&self, expected: &str) -> &Self {
        assert_eq!(self.text(), expected, "wrong stdout\n{self}");
        self
    }

    /// Asserts that each of `parts` is somewhere in stderr, in whatever case.
    ///
    /// # Panics
    ///
    /// If one is not.
    #[track_caller]
    pub fn complains<S: AsRef<str>>(&self, parts: impl IntoIterator<Item = S>) -> &Self {
        let stderr = self.stderr.to_lowercase();
        for part in parts {
            assert!(stderr.contains(&part.as_ref().to_lowercase()), "no {:?} in stderr\n{self}", part.as_ref());
        }
        self
    }

    /// Asserts that it failed as `sandbox` itself fails: status 125, nothing on stdout, no panic, a message that has
    /// each of `parts`.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[track_caller]
    pub fn fails_with<S: AsRef<str>>(&self, parts: impl IntoIterator<Item = S>) -> &Self {
        self.exits(125).prints("").complains(parts);
        assert!(!self.stderr.contains("panicked at"), "it panicked\n{self}");
        assert!(self.stderr.len() < 20_000, "{} bytes of message\n{self}", self.stderr.len());
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "command: {}\nended:   {} after {:?}", self.line, self.status, self.elapsed)?;
        write!(f, "stdout:  {}\nstderr:  {}", self.text(), self.stderr)
    }
}
