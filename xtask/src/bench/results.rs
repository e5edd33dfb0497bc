//! What was measured, as the lab hands it to the machine that writes it down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::memory::Cost;
use super::trace::Exits;

/// What was measured under KVM.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kvm {
    /// 1 vCPU, 128 MiB, nothing shared, an init that sleeps.
    pub(super) idle: Boots,
    /// A sandbox as the `sandbox` command makes it.
    pub(super) sandbox: Boots,
    pub(super) work: Work,
    pub(super) running: Running,
    /// Whether the processor counts instructions.
    pub(super) counts_instructions: bool,
}

/// The processes of a sandbox whose container runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Running {
    /// The `sandbox` command, its share of what it shares (PSS).
    pub(super) cli_pss_kib: u64,
    pub(super) vmm: Cost,
}

/// The same boot with and without huge pages behind guest memory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Boots {
    pub(super) vcpus: u32,
    pub(super) memory_mib: u32,
    pub(super) huge_pages: Boot,
    pub(super) small_pages: Boot,
}

/// One boot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Boot {
    pub(super) until_init: Exits,
    /// For a guest with an agent.
    pub(super) until_agent: Option<Exits>,
    /// When it had booted.
    pub(super) cost: Cost,
}

/// What a running sandbox does for its container.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Work {
    /// Rounds of stat, open, read and close of a file that the guest had read before.
    pub(super) warm_rounds: u64,
    /// virtio-fs requests for the image's layers in these rounds, by operation.
    pub(super) warm_requests: BTreeMap<String, u64>,
    /// The same for as many runs of a program that had run before.
    pub(super) exec_requests: BTreeMap<String, u64>,
    /// Size of a file that was read from beginning to end.
    pub(super) read_mib: u64,
    pub(super) read_requests: BTreeMap<String, u64>,
    pub(super) read_kicks: u64,
    pub(super) read_interrupts: u64,
    /// Calls to the agent, each on its own.
    pub(super) calls: u64,
    /// VM exits in all of them.
    pub(super) calls_exits: Exits,
    /// VM exits in the same time without calls.
    pub(super) idle_exits: Exits,
}

/// What was measured on the machine itself, emulated.
#[derive(Debug)]
pub(super) struct Emulated {
    /// QEMU with the bare kernel, from its start to its end right after init, in milliseconds.
    pub(super) bare_ms: Vec<u64>,
    /// `sandbox run IMAGE true`, from command line to exit status.
    pub(super) sandbox_ms: Vec<u64>,
}
