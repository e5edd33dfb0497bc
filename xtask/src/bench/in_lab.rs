//! The measurements under KVM; runs inside the lab.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bulkhead_protocols::vm::{Accelerator, DiskConfig, VmConfig, VsockConfig};
use bulkhead_protocols::wire::{GUEST_CID, LAYERS_TAG, VOLUMES_TAG};
use rustix::process::{Pid, Signal, kill_process};

use super::idle::IDLE_LINE;
use super::live::{Installation, Live};
use super::memory;
use super::results::{Boot, Boots, Kvm, Running, Work};
use super::trace::{Exits, Recording};
use super::vm::Vm;
use crate::step::step;

const ANSWERED: &str = "the agent answers";
/// Size of the file that is read.
const READ_MIB: u64 = 64;
/// Rounds over a file that the guest knows: a shell's own stat, open, read and close; then running a program.
const WARM_ROUNDS: u64 = 50;
const LOOK: &str = "test -s /etc/passwd && read -r line </etc/passwd";
const EXECUTE: &str = "/bin/true";
/// Calls to the agent that are counted, and the time between them, in which each comes to its end.
const CALLS: u64 = 20;
const CALL_GAP: Duration = Duration::from_millis(100);

/// By how much each counter of a vmm moved.
type Counters = BTreeMap<String, u64>;

/// What the measurements need.
pub(super) struct Lab<'a> {
    pub(super) installation: Installation<'a>,
    /// Guest image whose init sleeps.
    pub(super) idle_initramfs: &'a Path,
}

impl Lab<'_> {
    /// Runs every measurement.
    pub(super) fn measure(&self) -> anyhow::Result<Kvm> {
        let idle = step("boot a guest whose init sleeps", || self.boots(&self.idle_config(), Self::boot_idle))?;
        let (work, template, running) = step("let a sandbox work", || self.work())?;
        let sandbox = step("boot a sandbox's guest", || self.boots(&template, Self::boot_agent))?;
        let counts_instructions = Path::new("/sys/bus/event_source/devices/cpu").exists();
        Ok(Kvm { idle, sandbox, work, running, counts_instructions })
    }

    fn boots(
        &self,
        config: &VmConfig,
        boot: impl Fn(&Self, VmConfig) -> anyhow::Result<Boot>,
    ) -> anyhow::Result<Boots> {
        let with = |huge_pages| boot(self, VmConfig { huge_pages, ..config.clone() });
        Ok(Boots {
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
            huge_pages: with(true)?,
            small_pages: with(false)?,
        })
    }

    fn boot_idle(&self, config: VmConfig) -> anyhow::Result<Boot> {
        let ram_mib = config.memory_mib;
        let recording = Recording::start()?;
        let mut vm = Vm::start(&self.installation.vmm(), config)?;
        vm.wait_for_console(IDLE_LINE)?;
        let cost = memory::of_vmm(vm.pid(), ram_mib)?;
        Ok(Boot { until_init: recording.finish()?.until_init()?, until_agent: None, cost })
    }

    fn boot_agent(&self, mut config: VmConfig) -> anyhow::Result<Boot> {
        let ram_mib = config.memory_mib;
        // The disk of the sandbox that the configuration comes from is gone; the agent does not look into it to boot.
        let disk = self.installation.state.join("disk");
        File::create(&disk)?.set_len(64 << 20)?;
        config.disks.iter_mut().for_each(|config: &mut DiskConfig| config.path.clone_from(&disk));
        let recording = Recording::start()?;
        let mut vm = Vm::start(&self.installation.vmm(), config)?;
        vm.wait_for_agent()?;
        recording.mark(ANSWERED)?;
        let cost = memory::of_vmm(vm.pid(), ram_mib)?;
        let trace = recording.finish()?;
        Ok(Boot { until_init: trace.until_init()?, until_agent: Some(trace.until_mark(ANSWERED)?), cost })
    }

    fn idle_config(&self) -> VmConfig {
        VmConfig {
            accelerator: Accelerator::Kvm,
            kernel: self.installation.prefix.join("lib/bulkhead/vmlinux"),
            initramfs: self.idle_initramfs.to_owned(),
            cmdline_extra: String::new(),
            vcpus: 1,
            memory_mib: 128,
            huge_pages: true,
            // The vmm replaces the paths below by those of its own directory.
            vsock: VsockConfig { guest_cid: GUEST_CID, uds: "/".into() },
            shares: Vec::new(),
            disks: Vec::new(),
            control_socket: "/".into(),
            console_bytes: 4096,
            runtime_dir: "/".into(),
        }
    }

    /// Lets a sandbox work; returns its VM's configuration too, and what its processes took before the work began.
    fn work(&self) -> anyhow::Result<(Work, VmConfig, Running)> {
        let volume = self.installation.state.join("volume");
        std::fs::create_dir_all(&volume)?;
        std::fs::write(volume.join("file"), vec![b'x'; usize::try_from(READ_MIB << 20)?])?;
        let volume_argument = format!("{}:/data:ro", volume.display());
        let mut live = self.installation.shell(Accelerator::Kvm, &["--volume", &volume_argument])?;
        let template = live.config()?.clone();
        let running = Running {
            cli_pss_kib: memory::pss_kib(live.cli_pid())?,
            vmm: memory::of_vmm(live.vmm_pid()?, template.memory_mib)?,
        };

        let mut warm = |what: &str| -> anyhow::Result<Counters> {
            live.execute(&repeat(1, what))?;
            let counted = live.counted(|live| live.execute(&repeat(WARM_ROUNDS, what)))?;
            Ok(requests(&counted, LAYERS_TAG))
        };
        let (warm_requests, exec_requests) = (warm(LOOK)?, warm(EXECUTE)?);
        let read = live.counted(|live| live.execute("dd if=/data/file of=/dev/null bs=1M 2>/dev/null"))?;
        let (calls_exits, idle_exits) = calls(&mut live)?;
        let work = Work {
            warm_rounds: WARM_ROUNDS,
            warm_requests,
            exec_requests,
            read_mib: READ_MIB,
            read_requests: requests(&read, VOLUMES_TAG),
            read_kicks: device(&read, VOLUMES_TAG, "kicks")?,
            read_interrupts: device(&read, VOLUMES_TAG, "interrupts")?,
            calls: CALLS,
            calls_exits,
            idle_exits,
        };
        Ok((work, template, running))
    }
}

/// Has a shell repeat something.
fn repeat(rounds: u64, what: &str) -> String {
    format!("for i in $(seq {rounds}); do {what} || exit 1; done")
}

/// Requests for a share by operation, without those that did not come.
fn requests(counters: &Counters, tag: &str) -> Counters {
    let prefix = format!("fs.{tag}.");
    let of_tag = counters.iter().filter_map(|(name, count)| Some((name.strip_prefix(&prefix)?, *count)));
    let came = of_tag.filter(|(operation, count)| *count > 0 && !operation.starts_with("bytes_"));
    came.map(|(operation, count)| (operation.to_owned(), count)).collect()
}

/// What the transport counted for a share's device.
fn device(counters: &Counters, tag: &str, what: &str) -> anyhow::Result<u64> {
    let name = format!("virtio.fs.{tag}.{what}");
    counters.get(&name).copied().with_context(|| format!("the vmm has no counter {name}"))
}

/// VM exits of [`CALLS`] calls to the agent, and of as much time without any. The command passes SIGHUP on by a call, and
/// a shell that ignores it does nothing.
fn calls(live: &mut Live) -> anyhow::Result<(Exits, Exits)> {
    live.execute("trap '' HUP")?;
    let cli = i32::try_from(live.cli_pid()).ok().and_then(Pid::from_raw).context("no process id")?;
    let recording = Recording::start()?;
    recording.mark("idle")?;
    (0..CALLS).for_each(|_| std::thread::sleep(CALL_GAP));
    recording.mark("calls")?;
    for _ in 0..CALLS {
        kill_process(cli, Signal::HUP)?;
        std::thread::sleep(CALL_GAP);
    }
    recording.mark("end")?;
    let trace = recording.finish()?;
    Ok((trace.between("calls", "end")?, trace.between("idle", "calls")?))
}
