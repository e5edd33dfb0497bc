//! Why a sandbox did not start or did not go on.

use std::fmt;
use std::io;
use std::time::Duration;

use bulkhead_protocols::vm::CONSOLE_FILE;

use crate::agent::AgentError;
use crate::runtime_dir::{RuntimeDir, RuntimeDirError};
use crate::scratch::ScratchError;
use crate::stdio::StdioError;
use crate::vmm_process::{SpawnError, VmmExit};

/// Most lines of a console that an error shows.
const CONSOLE_MAX_LINES: usize = 20;
/// Longest line of a console that an error shows, in characters.
const CONSOLE_LINE_MAX: usize = 300;
/// How the kernel announces its own end.
const PANIC_MARK: &str = "Kernel panic";

/// Why a sandbox could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The runtime directory.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// The scratch disk.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The vmm did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The configuration of the VM cannot be written.
    #[error("cannot write the VM's configuration as JSON")]
    Config(#[source] serde_json::Error),
    /// The socket for the agent's report cannot be made.
    #[error("cannot listen for the guest's report")]
    Listen(#[source] io::Error),
    /// The vmm refused the configuration.
    #[error("the vmm refused its configuration: {}", .0.reason())]
    Refused(VmmExit),
    /// The guest ended before it was asked to.
    #[error("{0}")]
    GuestEnded(GuestEnd),
    /// The agent never reported.
    #[error("the guest's agent did not answer within {} s{console}", timeout.as_secs())]
    StartTimedOut {
        /// How long was waited.
        timeout: Duration,
        /// What the guest said.
        console: ConsoleTail,
    },
    /// Something else than the agent reported.
    #[error("the guest reported {report} instead of being ready{console}")]
    UnexpectedReport {
        /// What came.
        report: String,
        /// What the guest said.
        console: ConsoleTail,
    },
    /// The agent refused, or does not answer although the VM runs.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A standard stream.
    #[error(transparent)]
    Stdio(#[from] StdioError),
}

/// How a VM ended that nobody had asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestEnd {
    exit: VmmExit,
    console: ConsoleTail,
}

impl GuestEnd {
    /// How a vmm ended, with the console's last lines where it left them.
    pub(super) fn read(exit: VmmExit, runtime_dir: &RuntimeDir) -> Self {
        let console = std::fs::read(runtime_dir.path().join(CONSOLE_FILE)).unwrap_or_default();
        Self { exit, console: ConsoleTail::from_bytes(&console) }
    }

    /// Whether the guest's kernel panicked.
    pub fn panicked(&self) -> bool {
        self.console.0.iter().any(|line| line.contains(PANIC_MARK))
    }
}

impl fmt::Display for GuestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.exit.signal(), self.exit.guest_ended()) {
            (Some(signal), _) => write!(f, "the VM ended: its vmm process was killed by signal {signal}")?,
            (None, true) if self.panicked() => f.write_str("the VM ended: its kernel panicked")?,
            (None, true) => f.write_str("the VM ended: the guest powered itself off")?,
            (None, false) => write!(f, "the VM ended: the vmm failed: {}", self.exit.reason())?,
        }
        write!(f, "{}", self.console)
    }
}

/// The last lines of a guest's console, made harmless for a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsoleTail(Vec<String>);

impl ConsoleTail {
    /// The last lines of `bytes`, which the guest wrote; of a kernel's panic, the lines from its message on, which the trace
    /// after it must not push out.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let harmless = |line: &str| -> String {
            line.chars().filter(|c| !c.is_control() || *c == '\t').take(CONSOLE_LINE_MAX).collect()
        };
        let mut lines: Vec<String> = text.lines().map(harmless).filter(|line| !line.trim().is_empty()).collect();
        let excess = lines.len().saturating_sub(CONSOLE_MAX_LINES);
        let panic = lines.iter().rposition(|line| line.contains(PANIC_MARK)).unwrap_or(excess);
        lines.drain(..excess.min(panic));
        lines.truncate(CONSOLE_MAX_LINES);
        Self(lines)
    }
}

/// Empty, or a heading and the lines, beginning on a new line.
impl fmt::Display for ConsoleTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str("\nlast lines of the guest's console:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_bounded_and_harmless() {
        let mut bytes = b"\x1b[2Jfirst\r\n\xff\n".to_vec();
        bytes.extend((0..50).flat_map(|n| format!("line {n}\n").into_bytes()));
        bytes.extend([b'x'; 5000]);
        let tail = ConsoleTail::from_bytes(&bytes);
        assert_eq!(tail.0.len(), CONSOLE_MAX_LINES);
        assert_eq!(tail.0.last().unwrap().len(), CONSOLE_LINE_MAX);
        let harmless = ConsoleTail::from_bytes(b"\x1b[2Jfirst\r\n").to_string();
        assert_eq!(harmless, "\nlast lines of the guest's console:\n  [2Jfirst");
        assert_eq!(ConsoleTail::from_bytes(b"\n \n").to_string(), "");
    }

    #[test]
    fn a_panic_is_shown_however_long_the_trace_after_it() {
        let mut text = "before\n".repeat(30) + "Kernel panic - not syncing: x\n";
        text += &" ? 0xffffffff81050399\n".repeat(40);
        let tail = ConsoleTail::from_bytes(text.as_bytes());
        assert_eq!(tail.0.len(), CONSOLE_MAX_LINES);
        assert_eq!(tail.0[0], "Kernel panic - not syncing: x");
        let short = ConsoleTail::from_bytes(b"cause\nKernel panic - not syncing: x\ntrace\n");
        assert_eq!(short.0, ["cause", "Kernel panic - not syncing: x", "trace"]);
    }
}
