//! Puts device cores on the mmio transport and connects them to KVM.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::Context as _;
use kvm_ioctls::{IoEventAddress, VmFd};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::sys;
use crate::arch::layout;
use crate::counters::Counters;
use crate::virtio::core::DeviceCore;
use crate::virtio::mmio::bus::MmioBus;
use crate::virtio::mmio::device::{MmioDevice, Wiring};
use crate::virtio::mmio::page::RegisterPage;
use crate::virtio::mmio::spec::{DEFERRABLE_WRITES, Register, interrupt};
use crate::virtio::mmio::worker;

/// A core with the name of its counters and its thread.
pub(super) type NamedCore = (String, Box<dyn DeviceCore>);

/// The devices of a VM, connected and running.
pub(super) struct Devices {
    /// Where vCPUs bring register writes.
    pub(super) bus: MmioBus,
    /// Words for the kernel command line that announce the devices.
    pub(super) cmdline: String,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// What connecting a device needs.
struct Board<'a> {
    vm: &'a VmFd,
    memory: &'a GuestMemoryMmap,
    stop: BorrowedFd<'a>,
    counters: &'a Counters,
    /// Written by the guest when it acknowledges an interrupt; nobody needs to know.
    acknowledged: EventFd,
}

impl Devices {
    /// Connects the cores in order, in memory slot `slot`; their threads run until `stop` is readable.
    pub(super) fn connect(
        vm: &VmFd,
        slot: u32,
        memory: &GuestMemoryMmap,
        cores: Vec<NamedCore>,
        stop: BorrowedFd<'_>,
        counters: &Counters,
    ) -> anyhow::Result<Self> {
        let pages = sys::map_register_pages(cores.len()).context("map the devices' register pages")?;
        sys::set_register_slot(vm, slot, layout::MMIO_BASE, &pages)
            .context("KVM refuses the read-only memory slot of the devices' registers")?;
        let board = Board { vm, memory, stop, counters, acknowledged: eventfd()? };
        let mut devices = Self { bus: MmioBus::default(), cmdline: String::new(), threads: Vec::new() };
        for ((index, (name, core)), page) in (0_u32..).zip(cores).zip(pages) {
            let gpa = layout::MMIO_BASE + u64::from(index) * layout::MMIO_PAGE_BYTES;
            let irq = layout::FIRST_DEVICE_IRQ + index;
            let (device, thread) =
                board.connect(&name, core, gpa, irq, page).with_context(|| format!("device {name}"))?;
            devices.bus.add(device);
            devices.threads.push(thread);
            devices.cmdline.push_str(&format!(" virtio_mmio.device=4K@{gpa:#x}:{irq}"));
        }
        Ok(devices)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.threads.len()).unwrap_or(u32::MAX)
    }

    /// Splits off what the vCPUs need; the rest waits for the devices' threads, after `stop`.
    pub(super) fn take_bus(&mut self) -> MmioBus {
        std::mem::take(&mut self.bus)
    }

    /// Waits for the devices' threads; `stop` must be readable.
    pub(super) fn join(self) -> anyhow::Result<()> {
        for thread in self.threads {
            let ended = thread.join().map_err(|_| anyhow::anyhow!("a device's thread panicked"))?;
            ended.context("a device's thread failed")?;
        }
        Ok(())
    }
}

type Connected = (Arc<Mutex<MmioDevice>>, JoinHandle<io::Result<()>>);

impl Board<'_> {
    fn connect(
        &self,
        name: &str,
        core: Box<dyn DeviceCore>,
        gpa: u64,
        irq: u32,
        page: RegisterPage,
    ) -> anyhow::Result<Connected> {
        let queues = core.queue_max_sizes().len();
        let kicks = (0..queues).map(|_| eventfd()).collect::<io::Result<Vec<_>>>()?;
        for (queue, kick) in (0_u32..).zip(&kicks) {
            let notify = IoEventAddress::Mmio(gpa + Register::QueueNotify.offset());
            self.vm.register_ioevent(kick, &notify, queue).context("connect a queue's kick")?;
        }
        let acknowledge = IoEventAddress::Mmio(gpa + Register::InterruptAck.offset());
        self.vm
            .register_ioevent(&self.acknowledged, &acknowledge, interrupt::USED_BUFFER)
            .context("connect the acknowledgement of interrupts")?;
        for (offset, bytes) in DEFERRABLE_WRITES {
            self.vm
                .register_coalesced_mmio(IoEventAddress::Mmio(gpa + offset), bytes)
                .context("let KVM collect register writes")?;
        }
        let interrupt = eventfd()?;
        self.vm.register_irqfd(&interrupt, layout::pin(irq)).context("connect the interrupt line")?;

        let epoll = worker::make_epoll(&kicks, self.stop)?;
        let thread_kicks = kicks.iter().map(EventFd::try_clone).collect::<io::Result<Vec<_>>>()?;
        let wiring = Wiring { kicks, interrupt, page, epoll: Arc::clone(&epoll) };
        let device = MmioDevice::new(name, core, self.memory.clone(), wiring, self.counters);
        let device = Arc::new(Mutex::new(device));
        let thread = worker::spawn(name, Arc::clone(&device), thread_kicks, epoll)?;
        Ok((device, thread))
    }
}

fn eventfd() -> io::Result<EventFd> {
    EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)
}
