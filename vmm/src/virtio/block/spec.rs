//! Numbers of virtio-blk (virtio 1.2, section 5.2).

/// Device type.
pub(super) const DEVICE_TYPE: u32 = 2;
/// The unit of addresses and capacity, whatever the block size.
pub(super) const SECTOR_BYTES: u64 = 512;
/// Bytes of a request's header.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of the answer to [`GET_ID`].
pub(super) const ID_BYTES: usize = 20;
/// Bytes of one range of a discard request.
pub(super) const DISCARD_RANGE_BYTES: usize = 16;

/// Feature bits (section 5.2.3).
pub(super) mod feature {
    /// Number of data segments is bounded.
    pub(crate) const SEG_MAX: u64 = 1 << 2;
    /// Read-only.
    pub(crate) const RO: u64 = 1 << 5;
    /// Flush requests.
    pub(crate) const FLUSH: u64 = 1 << 9;
    /// Discard requests.
    pub(crate) const DISCARD: u64 = 1 << 13;
}

/// Read sectors.
pub(super) const IN: u32 = 0;
/// Write sectors.
pub(super) const OUT: u32 = 1;
/// Make what was written durable.
pub(super) const FLUSH: u32 = 4;
/// Tell the serial.
pub(super) const GET_ID: u32 = 8;
/// The content of sectors is no longer needed.
pub(super) const DISCARD: u32 = 11;

/// Done.
pub(super) const STATUS_OK: u8 = 0;
/// Failed or refused.
pub(super) const STATUS_IOERR: u8 = 1;
/// No such request.
pub(super) const STATUS_UNSUPPORTED: u8 = 2;

/// Offsets in the configuration space (section 5.2.4).
pub(super) mod config {
    /// Sectors, 64 bits.
    pub(crate) const CAPACITY: usize = 0;
    /// Data segments of a request, 32 bits.
    pub(crate) const SEG_MAX: usize = 12;
    /// Sectors of a discard range, 32 bits.
    pub(crate) const MAX_DISCARD_SECTORS: usize = 36;
    /// Ranges of a discard request, 32 bits.
    pub(crate) const MAX_DISCARD_SEG: usize = 40;
    /// Alignment of a discard range in sectors, 32 bits.
    pub(crate) const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    /// Bytes of the whole.
    pub(crate) const BYTES: usize = 60;
}
