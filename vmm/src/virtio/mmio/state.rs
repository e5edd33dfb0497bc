//! All state of a device's transport, plain and serializable, so that a snapshot can hold it.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};

/// How far driver and device have come (virtio 1.2, sections 2.1 and 3.1.1).
///
/// ```text
///  Reset ─ACKNOWLEDGE─▶ Acknowledged ─DRIVER─▶ Driver ─FEATURES_OK─▶ FeaturesOk ─DRIVER_OK─▶ Live
///    ▲                                           │ features not offered, or no VERSION_1:      │ device error
///    │                                           ▼ the bit stays clear                         ▼
///    └── the driver writes 0, in any phase     Driver                                     NeedsReset
///                                  the driver writes FAILED, in any phase ──▶ Failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// As after power-on.
    Reset,
    /// The driver has seen the device.
    Acknowledged,
    /// It is choosing features.
    Driver,
    /// Features are agreed; queues are being set up.
    FeaturesOk,
    /// The device works.
    Live,
    /// The device met an error; only a reset helps.
    NeedsReset,
    /// The driver gave up; only a reset helps.
    Failed {
        /// Status bits the driver left.
        status: u32,
    },
}

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistersState {
    /// Where initialization stands.
    pub(crate) phase: Phase,
    /// DeviceFeaturesSel.
    pub(crate) device_features_sel: u32,
    /// DriverFeaturesSel.
    pub(crate) driver_features_sel: u32,
    /// Both halves of DriverFeatures.
    pub(crate) driver_features: u64,
    /// QueueSel.
    pub(crate) queue_sel: u32,
    /// A configuration change the driver has not acknowledged.
    pub(crate) config_change: bool,
    /// Each queue's registers.
    pub(crate) queues: Vec<QueueRegisters>,
}

/// The registers of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueueRegisters {
    /// Size in descriptors, 0 until chosen.
    pub(crate) size: u16,
    /// QueueReady.
    pub(crate) ready: bool,
    /// Guest address of the descriptor table.
    pub(crate) descriptors_gpa: u64,
    /// Guest address of the available ring.
    pub(crate) available_gpa: u64,
    /// Guest address of the used ring.
    pub(crate) used_gpa: u64,
}

/// Where a live queue stands in its rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RingPosition {
    /// Next entry of the available ring.
    pub(crate) next_available: u16,
    /// Next entry of the used ring.
    pub(crate) next_used: u16,
}

/// A device's transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransportState {
    /// The registers.
    pub(crate) registers: RegistersState,
    /// One for each queue while the device is live, else none.
    pub(crate) rings: Vec<RingPosition>,
}

/// Where a queue stands.
pub(crate) fn save_ring(queue: &Queue) -> RingPosition {
    RingPosition { next_available: queue.next_avail(), next_used: queue.next_used() }
}

/// Makes a queue from its registers; `position` is where it stood when it was saved, or its start.
///
/// Fails if an address is misaligned or the size is not a power of two up to `max_size`; a queue that is not ready is
/// made as it is after a reset.
pub(crate) fn restore_queue(
    max_size: u16,
    registers: &QueueRegisters,
    position: RingPosition,
    event_idx: bool,
) -> Result<Queue, virtio_queue::Error> {
    if !registers.ready {
        return Queue::new(max_size);
    }
    Queue::try_from(QueueState {
        max_size,
        next_avail: position.next_available,
        next_used: position.next_used,
        event_idx_enabled: event_idx,
        size: registers.size,
        ready: true,
        desc_table: registers.descriptors_gpa,
        avail_ring: registers.available_gpa,
        used_ring: registers.used_gpa,
    })
}

impl RingPosition {
    /// The beginning of both rings.
    pub(crate) const START: Self = Self { next_available: 0, next_used: 0 };
}
