//! The transport without KVM: registers, page, and a device with a core that records what is asked of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::device::{MmioDevice, Wiring};
use super::page::RegisterPage;
use super::registers::{Effect, Registers, Violation};
use super::spec::{DEFERRABLE_WRITES, Register, feature, interrupt, status};
use super::state::{Phase, TransportState};
use crate::counters::Counters;
use crate::virtio::core::{CoreError, DeviceCore, Signals};

const DEVICE_TYPE: u32 = 42;
const DEVICE_FEATURE: u64 = 1 << 5;
const QUEUE_SIZES: [u16; 2] = [16, 256];
const ACKNOWLEDGED: u32 = status::ACKNOWLEDGE;
const DRIVER: u32 = ACKNOWLEDGED | status::DRIVER;
const FEATURES_OK: u32 = DRIVER | status::FEATURES_OK;
const LIVE: u32 = FEATURES_OK | status::DRIVER_OK;

fn registers() -> Registers {
    Registers::new(DEVICE_TYPE, DEVICE_FEATURE, &QUEUE_SIZES)
}

/// Up to FEATURES_OK, accepting VERSION_1 and the low half `low`.
fn negotiate(registers: &mut Registers, low: u32) {
    for (register, value) in [
        (Register::Status, ACKNOWLEDGED),
        (Register::Status, DRIVER),
        (Register::DriverFeaturesSel, 1),
        (Register::DriverFeatures, 1),
        (Register::DriverFeaturesSel, 0),
        (Register::DriverFeatures, low),
        (Register::Status, FEATURES_OK),
    ] {
        registers.write(register, value).unwrap();
    }
}

#[test]
fn identity_registers_are_those_of_a_modern_device() {
    let registers = registers();
    assert_eq!(registers.read(Register::MagicValue).to_le_bytes(), *b"virt");
    assert_eq!(registers.read(Register::Version), 2);
    assert_eq!(registers.read(Register::DeviceId), DEVICE_TYPE);
    assert_eq!(registers.read(Register::ShmLenLow), u32::MAX, "no shared memory region");
}

#[test]
fn features_are_offered_in_halves() {
    let mut registers = registers();
    let transport = feature::INDIRECT_DESC | feature::EVENT_IDX;
    assert_eq!(u64::from(registers.read(Register::DeviceFeatures)), DEVICE_FEATURE | transport);
    registers.write(Register::DeviceFeaturesSel, 1).unwrap();
    assert_eq!(registers.read(Register::DeviceFeatures), 1, "VERSION_1");
    registers.write(Register::DeviceFeaturesSel, 2).unwrap();
    assert_eq!(registers.read(Register::DeviceFeatures), 0);
}

#[test]
fn a_driver_reaches_live_step_by_step() {
    let mut registers = registers();
    negotiate(&mut registers, 1 << 5);
    assert_eq!(registers.read(Register::Status), FEATURES_OK);
    assert_eq!(registers.read(Register::InterruptStatus), 0);
    let effect = registers.write(Register::Status, LIVE).unwrap();
    assert_eq!(effect, Effect::Activate { features: feature::VERSION_1 | DEVICE_FEATURE });
    assert_eq!(registers.read(Register::InterruptStatus), interrupt::USED_BUFFER);
    assert_eq!(registers.write(Register::Status, LIVE), Ok(Effect::None), "activated once only");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut registers = registers();
    negotiate(&mut registers, 1 << 6);
    assert_eq!(registers.read(Register::Status), DRIVER, "FEATURES_OK stays clear");
    assert_eq!(registers.write(Register::Status, LIVE), Err(Violation::Status));
}

#[test]
fn a_driver_that_ignores_version_1_is_refused() {
    let mut registers = registers();
    for value in [ACKNOWLEDGED, DRIVER, FEATURES_OK] {
        registers.write(Register::Status, value).unwrap();
    }
    assert_eq!(registers.read(Register::Status), DRIVER);
}

#[test]
fn steps_cannot_be_skipped() {
    for skipping in [DRIVER, FEATURES_OK, LIVE, status::DRIVER_OK] {
        assert_eq!(registers().write(Register::Status, skipping), Err(Violation::Status));
    }
}

#[test]
fn queues_are_set_up_between_features_ok_and_driver_ok_only() {
    let mut registers = registers();
    assert_eq!(registers.write(Register::QueueSize, 16), Err(Violation::Phase));
    negotiate(&mut registers, 0);
    assert_eq!(registers.write(Register::QueueReady, 1), Err(Violation::Value), "no size yet");
    for bad in [0, 3, 32, 0x1_0010] {
        assert_eq!(registers.write(Register::QueueSize, bad), Err(Violation::Value), "{bad}");
    }
    registers.write(Register::QueueSize, 16).unwrap();
    registers.write(Register::QueueDescLow, 0x1000).unwrap();
    registers.write(Register::QueueDescHigh, 0x2).unwrap();
    registers.write(Register::QueueReady, 1).unwrap();
    assert_eq!(registers.read(Register::QueueReady), 1);
    assert_eq!(registers.state().queues[0].descriptors_gpa, 0x2_0000_1000);
    assert_eq!(registers.write(Register::QueueDescLow, 0), Err(Violation::Phase), "a ready queue is fixed");
    registers.write(Register::QueueSel, 1).unwrap();
    assert_eq!((registers.read(Register::QueueReady), registers.read(Register::QueueSizeMax)), (0, 256));
    registers.write(Register::QueueSel, 2).unwrap();
    assert_eq!(registers.read(Register::QueueSizeMax), 0, "there is no third queue");
    assert_eq!(registers.write(Register::QueueReady, 0), Err(Violation::NoQueue));
}

#[test]
fn reset_forgets_everything() {
    let mut registers = registers();
    negotiate(&mut registers, 0);
    registers.write(Register::QueueSel, 1).unwrap();
    registers.write(Register::QueueSize, 8).unwrap();
    assert_eq!(registers.write(Register::Status, 0), Ok(Effect::Reset));
    assert_eq!(registers.state(), self::registers().state());
}

#[test]
fn a_failed_driver_must_reset() {
    let mut registers = registers();
    negotiate(&mut registers, 0);
    assert_eq!(registers.write(Register::Status, FEATURES_OK | status::FAILED), Ok(Effect::Reset));
    assert_eq!(registers.read(Register::Status), FEATURES_OK | status::FAILED);
    assert_eq!(registers.write(Register::Status, LIVE), Err(Violation::Status));
    assert_eq!(registers.write(Register::Status, 0), Ok(Effect::Reset));
}

#[test]
fn read_only_registers_and_unknown_offsets_refuse_writes() {
    let mut registers = registers();
    for register in [Register::MagicValue, Register::DeviceFeatures, Register::InterruptStatus] {
        assert_eq!(registers.write(register, 1), Err(Violation::NotWritable));
    }
    assert_eq!(Register::at(0x02), None);
    assert_eq!(Register::at(0x100), None);
}

proptest! {
    /// The kernel may deliver these writes late: none may change what any register shows.
    #[test]
    fn deferrable_writes_change_nothing_that_is_read(writes in proptest::collection::vec((0_u64..0xb0, any::<u32>()), 1..50)) {
        let mut registers = registers();
        negotiate(&mut registers, 0);
        for (offset, value) in writes {
            let offset = offset & !3;
            let deferrable = DEFERRABLE_WRITES
                .iter()
                .any(|(first, bytes)| (*first..*first + u64::from(*bytes)).contains(&offset));
            let Some(register) = Register::at(offset).filter(|_| deferrable) else { continue };
            let before = Register::ALL.map(|register| registers.read(register));
            let _ = registers.write(register, value);
            prop_assert_eq!(before, Register::ALL.map(|register| registers.read(register)));
        }
    }

    /// Whatever a driver writes: no panic, and features beyond the offer are never accepted.
    #[test]
    fn any_sequence_of_writes_is_survived(writes in proptest::collection::vec((0_u64..0x100, prop_oneof![0_u32..16, any::<u32>()]), 1..200)) {
        let mut registers = registers();
        for (offset, value) in writes {
            let Some(register) = Register::at(offset & !3) else { continue };
            if let Ok(Effect::Activate { features }) = registers.write(register, value) {
                let offered = DEVICE_FEATURE | feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX;
                prop_assert_eq!(features & !offered, 0);
                prop_assert_ne!(features & feature::VERSION_1, 0);
            }
        }
    }
}

#[derive(Default)]
struct Record {
    activated: Vec<u64>,
    processed: Vec<usize>,
    resets: u32,
}

/// Uses one descriptor per kick, or fails when told to.
struct RecordingCore {
    record: Arc<Mutex<Record>>,
    fails: bool,
    events: OwnedFd,
}

impl DeviceCore for RecordingCore {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        DEVICE_FEATURE | feature::VERSION_1
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_space(&self) -> &[u8] {
        b"config"
    }

    fn activate(&mut self, accepted_features: u64) -> Result<(), CoreError> {
        self.record.lock().unwrap().activated.push(accepted_features);
        Ok(())
    }

    fn reset(&mut self) {
        self.record.lock().unwrap().resets += 1;
    }

    fn process_queue(
        &mut self,
        queue: usize,
        queues: &mut [&mut Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<Signals, CoreError> {
        self.record.lock().unwrap().processed.push(queue);
        if self.fails {
            return Err(CoreError::Protocol { queue, what: "told to fail".to_owned() });
        }
        let used = &mut queues[queue];
        while let Some(chain) = used.pop_descriptor_chain(memory) {
            used.add_used(memory, chain.head_index(), 0).unwrap();
        }
        let mut signals = Signals::NONE;
        signals.add(queue);
        Ok(signals)
    }

    fn host_events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }
}

/// A device and the ends of it that a guest and a host would hold.
struct Bench {
    device: MmioDevice,
    record: Arc<Mutex<Record>>,
    page: RegisterPage,
    interrupt: EventFd,
    kicks: Vec<EventFd>,
    memory: GuestMemoryMmap,
    counters: Counters,
}

impl Bench {
    fn new(fails: bool) -> Self {
        let words: Vec<AtomicU32> = (0..1024).map(|_| AtomicU32::new(0)).collect();
        let page = RegisterPage::new(Vec::leak(words));
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let (interrupt, kicks) = (event(), vec![event(), event()]);
        let record = Arc::<Mutex<Record>>::default();
        let events = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
        let core = RecordingCore { record: Arc::clone(&record), fails, events };
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let wiring = Wiring {
            kicks: kicks.iter().map(|kick| kick.try_clone().unwrap()).collect(),
            interrupt: interrupt.try_clone().unwrap(),
            page,
            epoll: Arc::new(vmm_sys_util::epoll::Epoll::new().unwrap()),
        };
        let counters = Counters::default();
        let device = MmioDevice::new("test", Box::new(core), memory.clone(), wiring, &counters);
        Self { device, record, page, interrupt, kicks, memory, counters }
    }

    fn write(&mut self, register: Register, value: u32) {
        self.device.write(register.offset(), &value.to_le_bytes());
    }

    fn shows(&self, register: Register) -> u32 {
        self.page.read(register.offset())
    }

    /// Sets both queues up at fixed places and goes live.
    fn go_live(&mut self, used_ring_gpa: u32) {
        for value in [ACKNOWLEDGED, DRIVER] {
            self.write(Register::Status, value);
        }
        self.write(Register::DriverFeaturesSel, 1);
        self.write(Register::DriverFeatures, 1);
        self.write(Register::Status, FEATURES_OK);
        for (queue, descriptors) in [(0, 0x1000), (1, 0x4000)] {
            self.write(Register::QueueSel, queue);
            self.write(Register::QueueSize, 16);
            self.write(Register::QueueDescLow, descriptors);
            self.write(Register::QueueDriverLow, descriptors + 0x1000);
            self.write(Register::QueueDeviceLow, descriptors + used_ring_gpa);
            self.write(Register::QueueReady, 1);
        }
        self.write(Register::Status, LIVE);
    }

    fn violations(&self) -> u64 {
        self.counters.snapshot()["virtio.test.violations"]
    }
}

#[test]
fn the_page_shows_what_a_read_would_give() {
    let mut bench = Bench::new(false);
    assert_eq!(bench.shows(Register::MagicValue).to_le_bytes(), *b"virt");
    assert_eq!(bench.page.read(0x100).to_le_bytes(), *b"conf");
    assert_eq!(bench.page.read(0x104).to_le_bytes(), *b"ig\0\0");
    bench.write(Register::QueueSel, 1);
    assert_eq!(bench.shows(Register::QueueSizeMax), 256);
    bench.go_live(0x2000);
    assert_eq!(bench.shows(Register::Status), LIVE);
    assert_eq!(bench.shows(Register::InterruptStatus), interrupt::USED_BUFFER);
    assert_eq!(bench.violations(), 0);
}

#[test]
fn going_live_activates_the_core_and_looks_at_every_queue() {
    let mut bench = Bench::new(false);
    bench.go_live(0x2000);
    assert_eq!(bench.record.lock().unwrap().activated, [feature::VERSION_1]);
    assert!(bench.kicks.iter().all(|kick| kick.read().is_ok()));
}

#[test]
fn a_kick_is_served_and_interrupts() {
    let mut bench = Bench::new(false);
    bench.device.kicked(1);
    assert!(bench.record.lock().unwrap().processed.is_empty(), "not live yet");
    bench.go_live(0x2000);
    bench.device.kicked(1);
    assert_eq!(bench.record.lock().unwrap().processed, [1]);
    assert_eq!(bench.interrupt.read().unwrap(), 1);
}

#[test]
fn rings_outside_memory_stop_the_device() {
    let mut bench = Bench::new(false);
    bench.go_live(0xf000_0000);
    assert_eq!(bench.shows(Register::Status), LIVE | status::DEVICE_NEEDS_RESET);
    assert_eq!(bench.shows(Register::InterruptStatus), interrupt::CONFIG_CHANGE);
    assert!(bench.record.lock().unwrap().activated.is_empty());
    assert!(bench.interrupt.read().is_ok(), "the driver is told");
    bench.write(Register::InterruptAck, interrupt::CONFIG_CHANGE);
    assert_eq!(bench.shows(Register::InterruptStatus), 0);
}

#[test]
fn a_failing_core_needs_a_reset_and_works_after_it() {
    let mut bench = Bench::new(true);
    bench.go_live(0x2000);
    bench.device.kicked(0);
    assert_eq!(bench.shows(Register::Status), LIVE | status::DEVICE_NEEDS_RESET);
    assert_eq!(bench.record.lock().unwrap().resets, 1, "its host side has ended");
    bench.device.kicked(0);
    assert_eq!(bench.record.lock().unwrap().processed, [0], "a stopped device is left alone");
    bench.write(Register::Status, 0);
    assert_eq!((bench.shows(Register::Status), bench.record.lock().unwrap().resets), (0, 2));
    bench.go_live(0x2000);
    assert_eq!(bench.shows(Register::Status), LIVE);
}

#[test]
fn writes_of_other_widths_or_places_are_counted_and_ignored() {
    let mut bench = Bench::new(false);
    bench.device.write(Register::Status.offset(), &[1]);
    bench.device.write(Register::Status.offset(), &1_u64.to_le_bytes());
    bench.device.write(0x100, &1_u32.to_le_bytes());
    bench.device.write(0xffc, &1_u32.to_le_bytes());
    assert_eq!((bench.violations(), bench.shows(Register::Status)), (4, 0));
}

#[test]
fn a_saved_device_goes_on_where_it_was() {
    let mut bench = Bench::new(false);
    bench.go_live(0x2000);
    // One buffer made available on queue 0, and taken.
    bench.memory.write_obj(1_u16, GuestAddress(0x2002)).unwrap();
    bench.device.kicked(0);
    let saved = serde_json::to_string(&bench.device.save()).unwrap();
    let state: TransportState = serde_json::from_str(&saved).unwrap();
    assert_eq!((state.registers.phase, state.rings[0].next_available, state.rings[0].next_used), (Phase::Live, 1, 1));

    let mut other = Bench::new(false);
    other.device.restore(state.clone()).unwrap();
    assert_eq!(other.shows(Register::Status), LIVE);
    assert_eq!(other.device.save(), state);
    assert_eq!(other.record.lock().unwrap().activated, [feature::VERSION_1]);
}

#[test]
fn a_state_of_another_device_is_refused() {
    let mut state = Bench::new(false).device.save();
    state.registers.queues.pop();
    assert!(Bench::new(false).device.restore(state).is_err());
}
