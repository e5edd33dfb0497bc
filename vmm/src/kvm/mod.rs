//! Our own monitor on `/dev/kvm`.
//!
//! ```text
//!  main thread ── waits for stop or the guest's end
//!  vcpuN       ── KVM_RUN; port I/O; register writes that trap
//!  one thread per device ── kicks, host events
//! ```
//!
//! [`KvmAccelerator::run`] builds the VM in this order: memory, devices, boot data, vCPUs. Nothing outlives the process.

mod cpuid;
mod deferred;
mod devices;
mod ioapic;
mod ports;
pub(crate) mod probe;
mod sys;
mod vcpu;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicBool, atomic::Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bulkhead_protocols::control::Phase;
use bulkhead_protocols::wire;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::accelerator::{Accelerator, GuestEnd, Session};
use crate::arch::{boot, layout};
use crate::config::Config;
use crate::confine;
use crate::counters::Counters;
use crate::virtio::block::BlockDevice;
use crate::virtio::fs::FsDevice;
use crate::virtio::rng::RngDevice;
use crate::virtio::vsock::VsockDevice;
use deferred::DeferredWrites;
use devices::{Devices, NamedCore};
use ioapic::IoApic;
use ports::Ports;
use sys::borrow;
use vcpu::{ExitCounters, Shared, VcpuThread};

/// A VM that KVM will run, in a thread that is confined to its shares.
pub(crate) struct KvmAccelerator {
    config: Config,
    kvm: Kvm,
    vsock_listener: UnixListener,
}

impl KvmAccelerator {
    /// Opens what is needed of the host and confines the calling thread, on which `run` must be called.
    pub(crate) fn launch(config: Config) -> anyhow::Result<Self> {
        let kvm = Kvm::new().context("open /dev/kvm (`vmm probe --accelerator kvm` tells why and what to do)")?;
        let uds = &config.vsock.uds;
        let vsock_listener = UnixListener::bind(uds).with_context(|| format!("make the socket {}", uds.display()))?;
        confine::enter(&config.shares, &config.runtime_dir)?;
        Ok(Self { config, kvm, vsock_listener })
    }
}

impl Accelerator for KvmAccelerator {
    fn run(self: Box<Self>, session: &Session) -> anyhow::Result<GuestEnd> {
        let Self { mut config, kvm, vsock_listener } = *self;
        let vm = Arc::new(create_vm(&kvm)?);
        let memory_bytes = u64::from(config.memory_mib) << 20;
        let memory = map_memory(memory_bytes, config.huge_pages).context("map guest memory")?;
        let slots = sys::set_ram_slots(&vm, &memory).context("KVM refuses guest memory")?;
        // Devices stop together with the guest, whoever asked for it.
        let devices_stop = eventfd()?;
        let cores = cores(&mut config, vsock_listener, &session.counters)?;
        let mut devices = Devices::connect(&vm, slots, &memory, cores, borrow(&devices_stop), &session.counters)?;

        let cmdline = cmdline(&devices.cmdline, &config.cmdline_extra);
        let machine = boot::Machine { memory_bytes, vcpus: config.vcpus, devices: devices.count(), cmdline: &cmdline };
        boot::load(&memory, &machine, &config.kernel, &config.initramfs)?;
        let vcpus = make_vcpus(&kvm, &vm, &config)?;
        let shared = Arc::new(share(&vm, &vcpus, slots + 1, session, &mut devices)?);
        let vcpus = start_vcpus(vcpus, &shared)?;
        session.set_phase(Phase::Running);

        let asked = wait_for_end(session, &shared)?;
        stop_vcpus(&shared, &vcpus);
        devices_stop.write(1).context("stop the devices")?;
        devices.join()?;
        let end = shared.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        match end {
            Some(end) => end,
            None if asked => Ok(GuestEnd::Asked),
            None => anyhow::bail!("the vCPUs ended without a reason"),
        }
    }
}

fn create_vm(kvm: &Kvm) -> anyhow::Result<VmFd> {
    for (capability, name) in [
        (Cap::ReadonlyMem, "read-only memory slots"),
        (Cap::Ioeventfd, "ioeventfd"),
        (Cap::Irqfd, "irqfd"),
        (Cap::CoalescedMmio, "coalesced MMIO"),
        (Cap::CoalescedPio, "coalesced port I/O"),
        (Cap::TscDeadlineTimer, "the TSC deadline timer"),
    ] {
        anyhow::ensure!(kvm.check_extension(capability), "this host's KVM lacks {name}");
    }
    let vm = kvm.create_vm().context("create a VM")?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).context("place KVM's identity map")?;
    vm.set_tss_address(layout::KVM_TSS).context("place KVM's TSS")?;
    vm.create_irq_chip().context("create the interrupt controllers")?;
    Ok(vm)
}

fn map_memory(bytes: u64, huge_pages: bool) -> anyhow::Result<GuestMemoryMmap> {
    let regions = layout::ram(bytes)
        .into_iter()
        .map(|(start, bytes)| sys::map_ram(start, usize::try_from(bytes)?, huge_pages).map_err(Into::into))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(GuestMemoryMmap::from_regions(regions)?)
}

/// The device cores the configuration asks for, in the order in which the guest finds them; takes the disks' files.
fn cores(config: &mut Config, vsock_listener: UnixListener, counters: &Counters) -> anyhow::Result<Vec<NamedCore>> {
    let vsock = VsockDevice::new(config.vsock.guest_cid.get(), &config.vsock.uds, vsock_listener, counters)
        .context("make the vsock device")?;
    let mut cores: Vec<NamedCore> = vec![("vsock".to_owned(), Box::new(vsock))];
    for share in &config.shares {
        let core = FsDevice::new(&share.tag, &confine::share_root(&share.tag), share.caching, counters)
            .with_context(|| format!("make the virtio-fs device of share {}", share.tag))?;
        cores.push((format!("fs.{}", share.tag), Box::new(core)));
    }
    for disk in config.disks.drain(..) {
        let core = BlockDevice::new(disk.file, disk.read_only, &disk.serial, counters)
            .with_context(|| format!("make a disk of {}", disk.path.display()))?;
        cores.push((format!("block.{}", disk.serial), Box::new(core)));
    }
    cores.push(("rng".to_owned(), Box::new(RngDevice::new(counters))));
    Ok(cores)
}

fn cmdline(devices: &str, extra: &str) -> String {
    let mut cmdline = format!("{}{devices}", wire::KERNEL_CMDLINE);
    if !extra.is_empty() {
        cmdline.push(' ');
        cmdline.push_str(extra);
    }
    cmdline
}

/// The vCPUs, ready to run; the first is at the kernel's entry.
fn make_vcpus(kvm: &Kvm, vm: &VmFd, config: &Config) -> anyhow::Result<Vec<VcpuFd>> {
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("ask KVM for the CPUID it supports")?;
    let make = |index: u8| {
        let vcpu = vm.create_vcpu(index.into()).context("create it")?;
        let cpuid = cpuid::for_vcpu(&supported, index, config.vcpus).context("list its CPUID entries")?;
        vcpu::configure(&vcpu, &cpuid, (index == 0).then_some(config.kernel.entry_gpa))?;
        Ok(vcpu)
    };
    (0..config.vcpus)
        .map(|index| make(index).map_err(|error: anyhow::Error| error.context(format!("set up vCPU {index}"))))
        .collect()
}

fn share(
    vm: &Arc<VmFd>,
    vcpus: &[VcpuFd],
    slot: u32,
    session: &Session,
    devices: &mut Devices,
) -> anyhow::Result<Shared> {
    let serial_interrupt = eventfd()?;
    let serial_pin = layout::pin(layout::SERIAL_IRQ);
    vm.register_irqfd(&serial_interrupt, serial_pin).context("connect the serial port's interrupt line")?;
    for (port, count) in ports::DEFERRABLE_WRITES {
        vm.register_coalesced_mmio(IoEventAddress::Pio(port.into()), count).context("let KVM collect port writes")?;
    }
    let deferred = vcpus.first().context("a VM without vCPUs")?;
    let deferred = DeferredWrites::map(deferred).context("map the ring of deferred writes")?;
    Ok(Shared {
        ioapic: Mutex::new(connect_ioapic(vm, slot, devices.count(), vcpus.len() == 1)?),
        bus: devices.take_bus(),
        ports: Mutex::new(Ports::new(Arc::clone(&session.console), serial_interrupt)),
        deferred: Mutex::new(deferred),
        stop: AtomicBool::new(false),
        ended: eventfd()?,
        end: Mutex::new(None),
        exits: ExitCounters::new(&session.counters),
    })
}

/// Makes the I/O APIC for the serial port and the devices, its page in memory slot `slot`.
fn connect_ioapic(vm: &Arc<VmFd>, slot: u32, devices: u32, defer_writes: bool) -> anyhow::Result<IoApic> {
    let last_irq = layout::SERIAL_IRQ + devices;
    let pins = ioapic::round_pins(layout::pin(last_irq) + 1);
    let pages = sys::map_register_pages(1).context("map the I/O APIC's page")?;
    for page in &pages {
        page.show(ioapic::WINDOW, ioapic::page_value(pins));
    }
    sys::set_register_slot(vm, slot, layout::IOAPIC.into(), &pages).context("KVM refuses the I/O APIC's page")?;
    if defer_writes {
        let registers = IoEventAddress::Mmio(layout::IOAPIC.into());
        vm.register_coalesced_mmio(registers, ioapic::REGISTERS_BYTES).context("let KVM collect I/O APIC writes")?;
    }
    IoApic::new(Arc::clone(vm), pins)
}

fn start_vcpus(vcpus: Vec<VcpuFd>, shared: &Arc<Shared>) -> anyhow::Result<Vec<VcpuThread>> {
    vcpu::install_kick_handler().context("handle the vCPUs' kick signal")?;
    let threads = (0_u8..).zip(vcpus).map(|(index, vcpu)| vcpu::spawn(index, vcpu, Arc::clone(shared)));
    threads.collect::<io::Result<_>>().context("start a vCPU's thread")
}

/// Waits until a vCPU ends the guest (false) or the session asks for it (true).
fn wait_for_end(session: &Session, shared: &Shared) -> anyhow::Result<bool> {
    use rustix::event::{PollFd, PollFlags, poll};
    let stop = session.stop();
    let ended = borrow(&shared.ended);
    loop {
        let mut fds = [PollFd::from_borrowed_fd(stop, PollFlags::IN), PollFd::from_borrowed_fd(ended, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("wait for the guest"),
        }
        let [stop, ended] = fds.map(|fd| !fd.revents().is_empty());
        if stop || ended {
            return Ok(stop && !ended);
        }
    }
}

/// Gets every vCPU out of the guest. A kick that arrives just before KVM_RUN is lost, so it is repeated.
fn stop_vcpus(shared: &Shared, vcpus: &[VcpuThread]) {
    shared.stop.store(true, Ordering::Release);
    while vcpus.iter().any(|vcpu| !vcpu.is_finished()) {
        vcpus.iter().filter(|vcpu| !vcpu.is_finished()).for_each(VcpuThread::kick);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn eventfd() -> io::Result<EventFd> {
    EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
}
