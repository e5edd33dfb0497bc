//! Numbers of the virtio-mmio transport (virtio 1.2, sections 2.1, 4.2.2 and 6).

/// Offset of a 32-bit register in the device's page (section 4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Register {
    /// "virt".
    MagicValue = 0x00,
    /// 2: not legacy.
    Version = 0x04,
    /// Device type.
    DeviceId = 0x08,
    /// Ours.
    VendorId = 0x0c,
    /// 32 offered feature bits, as selected.
    DeviceFeatures = 0x10,
    /// Which 32.
    DeviceFeaturesSel = 0x14,
    /// 32 accepted feature bits, as selected.
    DriverFeatures = 0x20,
    /// Which 32.
    DriverFeaturesSel = 0x24,
    /// The queue that the registers below are about.
    QueueSel = 0x30,
    /// Greatest size of the selected queue, 0 if there is no such queue.
    QueueSizeMax = 0x34,
    /// Size the driver chose.
    QueueSize = 0x38,
    /// Whether the selected queue is in use.
    QueueReady = 0x44,
    /// Index of a queue with new buffers.
    QueueNotify = 0x50,
    /// Why there was an interrupt.
    InterruptStatus = 0x60,
    /// Which reasons the driver has dealt with.
    InterruptAck = 0x64,
    /// Device status.
    Status = 0x70,
    /// Descriptor table, low and high half.
    QueueDescLow = 0x80,
    /// High half.
    QueueDescHigh = 0x84,
    /// Available ring.
    QueueDriverLow = 0x90,
    /// High half.
    QueueDriverHigh = 0x94,
    /// Used ring.
    QueueDeviceLow = 0xa0,
    /// High half.
    QueueDeviceHigh = 0xa4,
    /// Selects a shared memory region; there are none.
    ShmSel = 0xac,
    /// Length of that region: all ones for none.
    ShmLenLow = 0xb0,
    /// High half.
    ShmLenHigh = 0xb4,
    /// Its address: all ones for none.
    ShmBaseLow = 0xb8,
    /// High half.
    ShmBaseHigh = 0xbc,
    /// Changes with the configuration space, which never does.
    ConfigGeneration = 0xfc,
}

impl Register {
    /// Every register, by offset.
    pub(crate) const ALL: [Self; 28] = [
        Self::MagicValue,
        Self::Version,
        Self::DeviceId,
        Self::VendorId,
        Self::DeviceFeatures,
        Self::DeviceFeaturesSel,
        Self::DriverFeatures,
        Self::DriverFeaturesSel,
        Self::QueueSel,
        Self::QueueSizeMax,
        Self::QueueSize,
        Self::QueueReady,
        Self::QueueNotify,
        Self::InterruptStatus,
        Self::InterruptAck,
        Self::Status,
        Self::QueueDescLow,
        Self::QueueDescHigh,
        Self::QueueDriverLow,
        Self::QueueDriverHigh,
        Self::QueueDeviceLow,
        Self::QueueDeviceHigh,
        Self::ShmSel,
        Self::ShmLenLow,
        Self::ShmLenHigh,
        Self::ShmBaseLow,
        Self::ShmBaseHigh,
        Self::ConfigGeneration,
    ];

    /// The registers whose value a write or an event can change; all others always read the same.
    pub(crate) const CHANGING: [Self; 5] =
        [Self::DeviceFeatures, Self::QueueSizeMax, Self::QueueReady, Self::InterruptStatus, Self::Status];

    /// Its offset in the page.
    pub(crate) const fn offset(self) -> u64 {
        self as u64
    }

    /// The register at an offset, if there is one.
    pub(crate) fn at(offset: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|register| register.offset() == offset)
    }
}

/// Offsets, as (first, bytes), of registers whose writes change nothing that a driver reads back: the kernel may collect
/// them until the next write that does.
pub(crate) const DEFERRABLE_WRITES: [(u64, u32); 4] = [
    (Register::DriverFeatures.offset(), 8),
    (Register::QueueSize.offset(), 4),
    (Register::QueueDescLow.offset(), 0x28),
    (Register::ShmSel.offset(), 4),
];

/// Where the device's configuration space begins.
pub(crate) const CONFIG_SPACE: u64 = 0x100;

/// "virt", little-endian.
pub(crate) const MAGIC: u32 = 0x7472_6976;
/// Version of the register layout.
pub(crate) const VERSION: u32 = 2;
/// "BLKH", little-endian; drivers ignore it.
pub(crate) const VENDOR: u32 = 0x484b_4c42;

/// Device status bits (section 2.1).
pub(crate) mod status {
    /// The driver has noticed the device.
    pub(crate) const ACKNOWLEDGE: u32 = 1;
    /// It knows how to drive it.
    pub(crate) const DRIVER: u32 = 2;
    /// It is set up.
    pub(crate) const DRIVER_OK: u32 = 4;
    /// Features are agreed.
    pub(crate) const FEATURES_OK: u32 = 8;
    /// The device has an error it cannot recover from.
    pub(crate) const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub(crate) const FAILED: u32 = 128;
}

/// Bits of InterruptStatus and InterruptACK.
pub(crate) mod interrupt {
    /// A buffer was used.
    pub(crate) const USED_BUFFER: u32 = 1;
    /// Configuration or status changed.
    pub(crate) const CONFIG_CHANGE: u32 = 2;
}

/// Feature bits the transport offers by itself (section 6), and the one it insists on.
pub(crate) mod feature {
    /// Descriptors that point to a table of descriptors.
    pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
    /// Interrupt and kick suppression by index.
    pub(crate) const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device.
    pub(crate) const VERSION_1: u64 = 1 << 32;
}
