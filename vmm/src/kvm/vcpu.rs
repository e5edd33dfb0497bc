//! One vCPU: its set-up, its thread, and what it does when the guest leaves to us.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;
use kvm_bindings::{CpuId, Msrs, kvm_msr_entry};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::deferred::{DeferredWrites, Target};
use super::ioapic::IoApic;
use super::ports::{PortEffect, Ports};
use crate::accelerator::GuestEnd;
use crate::arch::{layout, start_state};
use crate::counters::{Counter, Counters};
use crate::virtio::mmio::bus::MmioBus;

/// The exit loop is shallow; devices run on threads of their own, but for their set-up.
const STACK_BYTES: usize = 256 << 10;

const MSR_MISC_ENABLE: u32 = 0x1a0;
/// Tells the guest that string instructions are fast.
const MISC_ENABLE_FAST_STRING: u64 = 1;

/// What all vCPUs of a VM share.
pub(super) struct Shared {
    /// Virtio devices.
    pub(super) bus: MmioBus,
    /// I/O APIC.
    pub(super) ioapic: Mutex<IoApic>,
    /// I/O ports.
    pub(super) ports: Mutex<Ports>,
    /// Writes that KVM collected; locked while they and the access behind them are taken in, so that they stay in order.
    pub(super) deferred: Mutex<DeferredWrites>,
    /// Asks every vCPU to leave its loop.
    pub(super) stop: AtomicBool,
    /// Written by a vCPU that ends the guest.
    pub(super) ended: EventFd,
    /// How the guest ended, by the first vCPU that knows.
    pub(super) end: Mutex<Option<anyhow::Result<GuestEnd>>>,
    /// Returns to userspace.
    pub(super) exits: ExitCounters,
}

/// Returns to userspace by reason.
pub(super) struct ExitCounters {
    total: Counter,
    mmio: Counter,
    deferred_writes: Counter,
    io: Counter,
    shutdown: Counter,
    interrupted: Counter,
    other: Counter,
}

impl ExitCounters {
    pub(super) fn new(counters: &Counters) -> Self {
        Self {
            total: counters.counter("kvm.exit.total"),
            mmio: counters.counter("kvm.exit.mmio"),
            deferred_writes: counters.counter("kvm.deferred_writes"),
            io: counters.counter("kvm.exit.io"),
            shutdown: counters.counter("kvm.exit.shutdown"),
            interrupted: counters.counter("kvm.exit.interrupted"),
            other: counters.counter("kvm.exit.other"),
        }
    }
}

/// Gives a new vCPU its CPUID, registers and, for the boot vCPU, the entry point; others wait for the boot vCPU.
pub(super) fn configure(vcpu: &VcpuFd, cpuid: &CpuId, boot_entry_gpa: Option<u64>) -> anyhow::Result<()> {
    vcpu.set_cpuid2(cpuid).context("KVM refuses our CPUID")?;
    let misc_enable = kvm_msr_entry { index: MSR_MISC_ENABLE, data: MISC_ENABLE_FAST_STRING, ..Default::default() };
    let msrs = Msrs::from_entries(&[misc_enable]).context("list of MSRs")?;
    vcpu.set_msrs(&msrs).context("KVM refuses our MSRs")?;
    if let Some(entry_gpa) = boot_entry_gpa {
        let mut special = vcpu.get_sregs().context("read special registers")?;
        start_state::set_special_registers(&mut special);
        vcpu.set_sregs(&special).context("KVM refuses the start state's special registers")?;
        vcpu.set_regs(&start_state::registers(entry_gpa)).context("KVM refuses the start state's registers")?;
    }
    Ok(())
}

/// A running vCPU thread.
pub(super) struct VcpuThread(JoinHandle<()>);

impl VcpuThread {
    /// Whether it has left its loop.
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Makes it return from the guest, if it is in it at this moment.
    pub(super) fn kick(&self) {
        // Fails only if the thread has ended.
        let _ = self.0.kill(SIGRTMIN());
    }
}

/// Lets a kick interrupt KVM_RUN instead of ending the process; once per process.
pub(super) fn install_kick_handler() -> io::Result<()> {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), ignore).map_err(Into::into)
}

/// Starts the thread of vCPU `index`.
pub(super) fn spawn(index: u8, mut vcpu: VcpuFd, shared: Arc<Shared>) -> io::Result<VcpuThread> {
    let thread = std::thread::Builder::new().name(format!("vcpu{index}")).stack_size(STACK_BYTES);
    thread
        .spawn(move || {
            let end = run(&mut vcpu, &shared).with_context(|| format!("vCPU {index}"));
            let Some(end) = end.transpose() else { return };
            lock(&shared.end).get_or_insert(end);
            // The counter is far from full: it is written once per vCPU.
            let _ = shared.ended.write(1);
        })
        .map(VcpuThread)
}

/// Runs the guest until it ends or the VM is stopped (`None`).
fn run(vcpu: &mut VcpuFd, shared: &Shared) -> anyhow::Result<Option<GuestEnd>> {
    while !shared.stop.load(Ordering::Acquire) {
        let exit = vcpu.run();
        shared.exits.total.increment();
        match exit {
            Ok(VcpuExit::MmioWrite(gpa, data)) => {
                shared.exits.mmio.increment();
                let _in_order = take_deferred_writes(shared)?;
                write_mmio(shared, gpa, data)?;
            }
            Ok(VcpuExit::MmioRead(_, data)) => {
                shared.exits.mmio.increment();
                // Registers are read from their page; what comes here is an address without a device.
                data.fill(0xff);
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                shared.exits.io.increment();
                let _in_order = take_deferred_writes(shared)?;
                if lock(&shared.ports).write(port, data) == PortEffect::Reset {
                    return Ok(Some(GuestEnd::Stopped));
                }
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                shared.exits.io.increment();
                let _in_order = take_deferred_writes(shared)?;
                lock(&shared.ports).read(port, data);
            }
            Ok(VcpuExit::Shutdown | VcpuExit::SystemEvent(..)) => {
                shared.exits.shutdown.increment();
                return Ok(Some(GuestEnd::Stopped));
            }
            Ok(VcpuExit::Intr) => shared.exits.interrupted.increment(),
            Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {
                shared.exits.interrupted.increment();
            }
            Ok(other) => {
                shared.exits.other.increment();
                let what = format!("{other:?}");
                anyhow::bail!("the guest stopped for a reason that cannot be handled: {what}{}", where_is(vcpu));
            }
            Err(error) => return Err(error).context("KVM_RUN failed"),
        }
    }
    Ok(None)
}

/// Takes in the writes that KVM collected; until the guard is dropped, no other vCPU gets in between.
fn take_deferred_writes(shared: &Shared) -> anyhow::Result<MutexGuard<'_, DeferredWrites>> {
    let mut deferred = lock(&shared.deferred);
    while let Some(write) = deferred.take() {
        shared.exits.deferred_writes.increment();
        match write.target() {
            Target::Mmio(gpa) => write_mmio(shared, gpa, write.data())?,
            // None of the ports whose writes are deferred resets the VM.
            Target::Port(port) => {
                lock(&shared.ports).write(port, write.data());
            }
        }
    }
    Ok(deferred)
}

fn write_mmio(shared: &Shared, gpa: u64, data: &[u8]) -> anyhow::Result<()> {
    match gpa.checked_sub(layout::IOAPIC.into()) {
        Some(offset) if offset < layout::MMIO_PAGE_BYTES => lock(&shared.ioapic).write(offset, data),
        _ => {
            shared.bus.write(gpa, data);
            Ok(())
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the guest was, for a message.
fn where_is(vcpu: &VcpuFd) -> String {
    vcpu.get_regs().map(|registers| format!(" at rip {:#x}", registers.rip)).unwrap_or_default()
}
