//! One virtio-mmio device: registers, queues and core together, behind the transport's lock.
//!
//! vCPU threads bring register writes, the device's own thread brings kicks and host events; both hold the lock, so the
//! core is called by one thread at a time and a reset is complete when the write that asked for it returns.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::page::RegisterPage;
use super::registers::{Effect, Registers, Violation};
use super::spec::{CONFIG_SPACE, Register, feature};
use super::state::{RingPosition, TransportState, restore_queue, save_ring};
use crate::counters::{Counter, Counters};
use crate::virtio::core::{CoreError, DeviceCore, Signals};

/// Epoll token of the core's host events; smaller ones are queue indices.
pub(super) const HOST_EVENTS: u64 = 1 << 32;
/// Epoll token of the stop descriptor.
pub(super) const STOP: u64 = 1 << 33;

/// The descriptors that connect a device to its guest and its thread.
pub(crate) struct Wiring {
    /// The guest writes QueueNotify: one per queue.
    pub(crate) kicks: Vec<EventFd>,
    /// Raises the device's interrupt line.
    pub(crate) interrupt: EventFd,
    /// Where the guest reads registers.
    pub(crate) page: RegisterPage,
    /// What the device's thread waits on.
    pub(crate) epoll: Arc<Epoll>,
}

/// A device on the mmio transport.
pub(crate) struct MmioDevice {
    name: String,
    core: Box<dyn DeviceCore>,
    registers: Registers,
    queues: Vec<Queue>,
    memory: GuestMemoryMmap,
    wiring: Wiring,
    host_events_watched: bool,
    failure_reported: bool,
    kicks: Counter,
    interrupts: Counter,
    violations: Counter,
}

impl MmioDevice {
    /// A device after power-on; `name` begins its counters' names (`virtio.<name>.…`).
    pub(crate) fn new(
        name: &str,
        core: Box<dyn DeviceCore>,
        memory: GuestMemoryMmap,
        wiring: Wiring,
        counters: &Counters,
    ) -> Self {
        let registers = Registers::new(core.device_type(), core.features(), core.queue_max_sizes());
        let device = Self {
            registers,
            core,
            queues: Vec::new(),
            memory,
            wiring,
            host_events_watched: false,
            failure_reported: false,
            kicks: counters.counter(&format!("virtio.{name}.kicks")),
            interrupts: counters.counter(&format!("virtio.{name}.interrupts")),
            violations: counters.counter(&format!("virtio.{name}.violations")),
            name: name.to_owned(),
        };
        for register in Register::ALL {
            device.wiring.page.show(register.offset(), device.registers.read(register));
        }
        device.wiring.page.show_bytes(CONFIG_SPACE, device.core.config_space());
        device
    }

    /// A vCPU wrote `data` at `offset` of the page. What breaks the protocol is counted and changes nothing.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let value = <[u8; 4]>::try_from(data).map(u32::from_le_bytes);
        let outcome = match (Register::at(offset), value) {
            (Some(register), Ok(value)) => self.registers.write(register, value),
            _ => Err(Violation::NotWritable),
        };
        match outcome {
            Ok(Effect::None) => {}
            Ok(Effect::Activate { features }) => {
                if let Err(error) = self.activate(features) {
                    self.fail(&error);
                }
            }
            Ok(Effect::Reset) => self.reset(),
            Err(_) => self.violations.increment(),
        }
        self.show_registers();
    }

    /// The guest kicked a queue; runs on the device's thread.
    pub(crate) fn kicked(&mut self, queue: usize) {
        self.kicks.increment();
        let ready = self.queues.get(queue).is_some_and(QueueT::ready);
        if self.registers.is_live() && ready {
            self.serve(|core, queues, memory| core.process_queue(queue, queues, memory));
        }
    }

    /// The core's host side has work; runs on the device's thread.
    pub(crate) fn host_events(&mut self) {
        if self.registers.is_live() {
            self.serve(|core, queues, memory| core.process_host_events(queues, memory));
        }
    }

    /// The state to save.
    #[cfg_attr(not(test), expect(dead_code, reason = "snapshots will call it; kept true by its test"))]
    pub(crate) fn save(&self) -> TransportState {
        TransportState { registers: self.registers.state().clone(), rings: self.queues.iter().map(save_ring).collect() }
    }

    /// Takes over a saved state; the core's own state is restored by the core.
    #[cfg_attr(not(test), expect(dead_code, reason = "snapshots will call it; kept true by its test"))]
    pub(crate) fn restore(&mut self, state: TransportState) -> Result<(), CoreError> {
        let protocol = |what: String| CoreError::Protocol { queue: 0, what };
        self.registers.restore(state.registers).map_err(|violation| protocol(violation.to_string()))?;
        if self.registers.is_live() {
            let features = self.registers.state().driver_features;
            self.make_queues(features, &state.rings)?;
            self.start(features)?;
        }
        self.show_registers();
        Ok(())
    }

    fn activate(&mut self, features: u64) -> Result<(), CoreError> {
        self.make_queues(features, &[])?;
        self.start(features)
    }

    fn make_queues(&mut self, features: u64, positions: &[RingPosition]) -> Result<(), CoreError> {
        self.queues.clear();
        let event_idx = features & feature::EVENT_IDX != 0;
        let sizes = self.core.queue_max_sizes();
        for (index, (registers, max_size)) in self.registers.state().queues.iter().zip(sizes).enumerate() {
            let position = positions.get(index).copied().unwrap_or(RingPosition::START);
            let queue = restore_queue(*max_size, registers, position, event_idx)
                .map_err(|source| CoreError::Queue { queue: index, source })?;
            if queue.ready() && !queue.is_valid(&self.memory) {
                return Err(CoreError::Protocol {
                    queue: index,
                    what: "its rings lie outside guest memory".to_owned(),
                });
            }
            self.queues.push(queue);
        }
        Ok(())
    }

    fn start(&mut self, features: u64) -> Result<(), CoreError> {
        self.core.activate(features)?;
        if let Some(events) = self.core.host_events() {
            let event = EpollEvent::new(EventSet::IN, HOST_EVENTS);
            self.wiring
                .epoll
                .ctl(ControlOperation::Add, events.as_raw_fd(), event)
                .map_err(|source| CoreError::Host { what: "watch the host's side", source })?;
            self.host_events_watched = true;
        }
        // A driver may have filled queues before the device was live.
        for kick in &self.wiring.kicks {
            kick.write(1).map_err(|source| CoreError::Host { what: "look at the queues", source })?;
        }
        Ok(())
    }

    fn serve(
        &mut self,
        work: impl FnOnce(&mut dyn DeviceCore, &mut [&mut Queue], &GuestMemoryMmap) -> Result<Signals, CoreError>,
    ) {
        let mut queues: Vec<&mut Queue> = self.queues.iter_mut().collect();
        match work(self.core.as_mut(), &mut queues, &self.memory) {
            Ok(signals) if signals.any() => self.interrupt(),
            Ok(_) => {}
            Err(error) => {
                self.fail(&error);
                self.show_registers();
            }
        }
    }

    fn interrupt(&self) {
        self.interrupts.increment();
        // An eventfd takes a write unless its counter is full, and then the interrupt is pending anyway.
        let _ = self.wiring.interrupt.write(1);
    }

    fn reset(&mut self) {
        self.unwatch_host_events();
        self.core.reset();
        self.queues.clear();
    }

    /// Stops a device whose core cannot go on, and tells the driver (virtio 1.2, section 2.1.2).
    fn fail(&mut self, error: &CoreError) {
        // A guest can repeat this at will: only the first time is worth a line.
        if !std::mem::replace(&mut self.failure_reported, true) {
            eprintln!("vmm: device {} stopped: {}", self.name, describe(error));
        }
        self.unwatch_host_events();
        // What the host's side has open would wait for an answer that does not come.
        self.core.reset();
        self.registers.set_needs_reset();
        self.interrupt();
    }

    fn unwatch_host_events(&mut self) {
        if std::mem::take(&mut self.host_events_watched)
            && let Some(events) = self.core.host_events()
        {
            // It was added by `start`; a failure would only mean that it is gone already.
            let _ = self.wiring.epoll.ctl(ControlOperation::Delete, events.as_raw_fd(), EpollEvent::default());
        }
    }

    fn show_registers(&self) {
        for register in Register::CHANGING {
            self.wiring.page.show(register.offset(), self.registers.read(register));
        }
    }
}

/// The error with its causes, on one line.
fn describe(error: &CoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
