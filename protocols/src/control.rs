//! The vmm's control socket: one JSON object per line each way, a response per request, in order.

use serde::{Deserialize, Serialize};

use crate::vm::Accelerator;

/// A question to the vmm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What the VM is doing.
    State,
    /// All counters.
    Counters,
    /// The newest lines of the serial console.
    ConsoleTail {
        /// At most this many bytes, cut at a line's start where there is one.
        max_bytes: u32,
    },
    /// End the VM now, without asking the guest.
    Shutdown,
}

/// The vmm's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case", deny_unknown_fields)]
pub enum Response {
    /// To [`Request::State`].
    State {
        /// Whether the guest runs.
        phase: Phase,
        /// Which accelerator runs it.
        accelerator: Accelerator,
        /// Process that runs the guest's instructions: the vmm itself, or QEMU.
        pid: u32,
    },
    /// To [`Request::Counters`].
    Counters {
        /// Name and value, sorted by name; names are `<part>.<what>` such as `kvm.exit.mmio` or `fs.layers.lookup`.
        counters: std::collections::BTreeMap<String, u64>,
    },
    /// To [`Request::ConsoleTail`].
    ConsoleTail {
        /// Console bytes, with what is not UTF-8 replaced.
        text: String,
    },
    /// To [`Request::Shutdown`].
    Done,
    /// The request was not understood or failed.
    Error {
        /// What and why.
        message: String,
    },
}

/// Phases of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Devices are made, the guest has not begun.
    Starting,
    /// The guest runs.
    Running,
    /// The guest has ended; the process is about to.
    Stopped,
}

/// What `vmm probe --accelerator …` prints as JSON on stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// The accelerator that was tried.
    pub accelerator: Accelerator,
    /// Whether a guest's instructions ran as they should.
    pub usable: bool,
    /// What was found, one check a line, the failed one last.
    pub checks: Vec<ProbeCheck>,
}

/// One step of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeCheck {
    /// What was tried, such as `open /dev/kvm`.
    pub name: String,
    /// Whether it went well.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// The exact remedy, if it failed and there is one.
    pub fix: Option<String>,
}
