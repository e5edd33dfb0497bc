//! The register file of one device: what a write changes, and what the device's page shows.
//!
//! Owns [`RegistersState`] and nothing else: no queue, no memory, no KVM. A driver that breaks the rules is told so by a
//! [`Violation`], and the write changes nothing.

use super::spec::{MAGIC, Register, VENDOR, VERSION, feature, interrupt, status};
use super::state::{Phase, QueueRegisters, RegistersState};

/// What the device has to do after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing beyond showing the registers anew.
    None,
    /// Make the queues and start, with these accepted features.
    Activate {
        /// Accepted feature bits.
        features: u64,
    },
    /// Stop and forget the driver.
    Reset,
}

/// The driver broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// A read-only or unknown register was written, or the configuration space.
    #[error("write to a register that is not writable")]
    NotWritable,
    /// The status does not follow from the present one.
    #[error("illegal step of the device status")]
    Status,
    /// Features or queues were changed when they may not be.
    #[error("register written in the wrong phase")]
    Phase,
    /// The selected queue does not exist.
    #[error("no such queue")]
    NoQueue,
    /// A queue size or a value that is not allowed.
    #[error("value not allowed")]
    Value,
}

/// The register file.
#[derive(Debug)]
pub(crate) struct Registers {
    device_type: u32,
    offered_features: u64,
    queue_max_sizes: Vec<u16>,
    state: RegistersState,
}

impl Registers {
    /// A device after power-on. `device_features` are the core's; the transport's own are added here.
    pub(crate) fn new(device_type: u32, device_features: u64, queue_max_sizes: &[u16]) -> Self {
        Self {
            device_type,
            offered_features: device_features | feature::INDIRECT_DESC | feature::EVENT_IDX | feature::VERSION_1,
            queue_max_sizes: queue_max_sizes.to_vec(),
            state: power_on(queue_max_sizes.len()),
        }
    }

    /// The state to save.
    pub(crate) fn state(&self) -> &RegistersState {
        &self.state
    }

    /// Takes over a saved state; refused if it is not of a device like this one.
    pub(crate) fn restore(&mut self, state: RegistersState) -> Result<(), Violation> {
        if state.queues.len() != self.queue_max_sizes.len() || state.driver_features & !self.offered_features != 0 {
            return Err(Violation::Value);
        }
        self.state = state;
        Ok(())
    }

    /// What a read of the register gives.
    pub(crate) fn read(&self, register: Register) -> u32 {
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => VERSION,
            Register::DeviceId => self.device_type,
            Register::VendorId => VENDOR,
            Register::DeviceFeatures => half(self.offered_features, self.state.device_features_sel),
            Register::QueueSizeMax => {
                self.queue_max_sizes.get(self.state.queue_sel as usize).copied().map_or(0, u32::from)
            }
            Register::QueueReady => self.selected().map_or(0, |queue| u32::from(queue.ready)),
            Register::InterruptStatus => self.interrupt_status(),
            Register::Status => status_bits(self.state.phase),
            Register::ShmLenLow | Register::ShmLenHigh | Register::ShmBaseLow | Register::ShmBaseHigh => u32::MAX,
            _ => 0,
        }
    }

    /// Takes a write.
    pub(crate) fn write(&mut self, register: Register, value: u32) -> Result<Effect, Violation> {
        match register {
            Register::DeviceFeaturesSel => self.state.device_features_sel = value,
            Register::DriverFeaturesSel => self.state.driver_features_sel = value,
            Register::DriverFeatures => self.accept_features(value)?,
            Register::QueueSel => self.state.queue_sel = value,
            Register::QueueSize => self.set_queue_size(value)?,
            Register::QueueReady => self.set_queue_ready(value)?,
            Register::QueueDescLow => set_low(&mut self.idle_queue()?.descriptors_gpa, value),
            Register::QueueDescHigh => set_high(&mut self.idle_queue()?.descriptors_gpa, value),
            Register::QueueDriverLow => set_low(&mut self.idle_queue()?.available_gpa, value),
            Register::QueueDriverHigh => set_high(&mut self.idle_queue()?.available_gpa, value),
            Register::QueueDeviceLow => set_low(&mut self.idle_queue()?.used_gpa, value),
            Register::QueueDeviceHigh => set_high(&mut self.idle_queue()?.used_gpa, value),
            Register::InterruptAck => self.state.config_change &= value & interrupt::CONFIG_CHANGE == 0,
            Register::Status => return self.set_status(value),
            // There is no region to select.
            Register::ShmSel => {}
            _ => return Err(Violation::NotWritable),
        }
        Ok(Effect::None)
    }

    /// The device cannot go on; the driver learns it from the status and a configuration change.
    pub(crate) fn set_needs_reset(&mut self) {
        if matches!(self.state.phase, Phase::Live) {
            self.state.phase = Phase::NeedsReset;
            self.state.config_change = true;
        }
    }

    /// Whether kicks and host events are to be served.
    pub(crate) fn is_live(&self) -> bool {
        self.state.phase == Phase::Live
    }

    fn set_status(&mut self, written: u32) -> Result<Effect, Violation> {
        let acceptable = self.state.driver_features & !self.offered_features == 0
            && self.state.driver_features & feature::VERSION_1 != 0;
        let before = self.state.phase;
        let after = next_phase(before, written, acceptable)?;
        if after == Phase::Reset {
            self.state = power_on(self.queue_max_sizes.len());
            return Ok(Effect::Reset);
        }
        self.state.phase = after;
        if after == Phase::Live && before != Phase::Live {
            return Ok(Effect::Activate { features: self.state.driver_features });
        }
        // A driver that gives up on a working device wants it to stop.
        Ok(if matches!(after, Phase::Failed { .. }) { Effect::Reset } else { Effect::None })
    }

    fn accept_features(&mut self, value: u32) -> Result<(), Violation> {
        if self.state.phase != Phase::Driver {
            return Err(Violation::Phase);
        }
        match self.state.driver_features_sel {
            0 => set_low(&mut self.state.driver_features, value),
            1 => set_high(&mut self.state.driver_features, value),
            // Bits beyond 64 are not offered: accepting none of them is right.
            _ if value == 0 => {}
            _ => return Err(Violation::Value),
        }
        Ok(())
    }

    fn set_queue_size(&mut self, value: u32) -> Result<(), Violation> {
        let max_size = self.read(Register::QueueSizeMax);
        let size = u16::try_from(value).ok().filter(|size| size.is_power_of_two() && value <= max_size);
        let queue = self.idle_queue()?;
        queue.size = size.ok_or(Violation::Value)?;
        Ok(())
    }

    fn set_queue_ready(&mut self, value: u32) -> Result<(), Violation> {
        match value {
            0 => self.selected_mut()?.ready = false,
            1 => {
                let queue = self.idle_queue()?;
                if queue.size == 0 {
                    return Err(Violation::Value);
                }
                queue.ready = true;
            }
            _ => return Err(Violation::Value),
        }
        Ok(())
    }

    fn selected(&self) -> Option<&QueueRegisters> {
        self.state.queues.get(self.state.queue_sel as usize)
    }

    fn selected_mut(&mut self) -> Result<&mut QueueRegisters, Violation> {
        self.state.queues.get_mut(self.state.queue_sel as usize).ok_or(Violation::NoQueue)
    }

    /// The selected queue, if its set-up may be changed now.
    fn idle_queue(&mut self) -> Result<&mut QueueRegisters, Violation> {
        if self.state.phase != Phase::FeaturesOk {
            return Err(Violation::Phase);
        }
        let queue = self.selected_mut()?;
        if queue.ready { Err(Violation::Phase) } else { Ok(queue) }
    }

    /// "Used buffer" is shown as long as the device lives: the line is the device's own, so an interrupt always means
    /// that, and the driver's acknowledgement needs no answer.
    fn interrupt_status(&self) -> u32 {
        let used = if self.is_live() { interrupt::USED_BUFFER } else { 0 };
        let config = if self.state.config_change { interrupt::CONFIG_CHANGE } else { 0 };
        used | config
    }
}

fn power_on(queues: usize) -> RegistersState {
    RegistersState {
        phase: Phase::Reset,
        device_features_sel: 0,
        driver_features_sel: 0,
        driver_features: 0,
        queue_sel: 0,
        config_change: false,
        queues: vec![QueueRegisters::default(); queues],
    }
}

/// The one transition function of [`Phase`]. Drivers set one bit more with each write; to repeat a write is harmless.
pub(super) fn next_phase(phase: Phase, written: u32, features_acceptable: bool) -> Result<Phase, Violation> {
    const ACKNOWLEDGED: u32 = status::ACKNOWLEDGE;
    const DRIVER: u32 = ACKNOWLEDGED | status::DRIVER;
    const FEATURES_OK: u32 = DRIVER | status::FEATURES_OK;
    const LIVE: u32 = FEATURES_OK | status::DRIVER_OK;
    match (phase, written) {
        (_, 0) => Ok(Phase::Reset),
        (_, failed) if failed & status::FAILED != 0 => {
            Ok(Phase::Failed { status: status_bits(phase) | status::FAILED })
        }
        (Phase::Reset, ACKNOWLEDGED) => Ok(Phase::Acknowledged),
        (Phase::Acknowledged, DRIVER) => Ok(Phase::Driver),
        (Phase::Driver, FEATURES_OK) if features_acceptable => Ok(Phase::FeaturesOk),
        (Phase::Driver, FEATURES_OK) => Ok(Phase::Driver),
        (Phase::FeaturesOk, LIVE) => Ok(Phase::Live),
        (_, same) if same == status_bits(phase) => Ok(phase),
        _ => Err(Violation::Status),
    }
}

fn status_bits(phase: Phase) -> u32 {
    match phase {
        Phase::Reset => 0,
        Phase::Acknowledged => status::ACKNOWLEDGE,
        Phase::Driver => status::ACKNOWLEDGE | status::DRIVER,
        Phase::FeaturesOk => status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK,
        Phase::Live => status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK,
        Phase::NeedsReset => status_bits(Phase::Live) | status::DEVICE_NEEDS_RESET,
        Phase::Failed { status } => status,
    }
}

fn half(value: u64, selector: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    match selector {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_low(target: &mut u64, value: u32) {
    *target = *target & (u64::from(u32::MAX) << 32) | u64::from(value);
}

fn set_high(target: &mut u64, value: u32) {
    *target = *target & u64::from(u32::MAX) | u64::from(value) << 32;
}
