//! A request as the driver laid it out, taken apart without trust: any number of descriptors may hold any piece.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, VolatileSlice};

use super::spec;

/// Data segments a driver may use, as the configuration space says; header and status come on top.
pub(super) const DATA_SEGMENTS_MAX: usize = 254;
/// Bytes of data of one request at most: more than any driver's, and little to keep the device busy with.
const DATA_BYTES_MAX: u64 = 32 << 20;

/// One piece of guest memory.
type Segment = (GuestAddress, usize);

/// A request with its data.
#[derive(Debug)]
pub(super) struct Request {
    /// What is asked for.
    pub(super) kind: u32,
    /// First sector.
    pub(super) sector: u64,
    /// Data to write to the disk.
    pub(super) readable: Vec<Segment>,
    /// Room for data from the disk.
    pub(super) writable: Vec<Segment>,
    /// Where the status goes.
    pub(super) status_gpa: GuestAddress,
}

impl Request {
    /// Takes a chain apart; `None` if it has no header, no place for the status, or more data than is allowed. Then
    /// there is no answer either.
    pub(super) fn parse(chain: DescriptorChain<&GuestMemoryMmap>, memory: &GuestMemoryMmap) -> Option<Self> {
        let mut readable = Vec::new();
        let mut writable = Vec::new();
        for descriptor in chain {
            let segments = if descriptor.is_write_only() { &mut writable } else { &mut readable };
            if segments.len() > DATA_SEGMENTS_MAX {
                return None;
            }
            segments.push((descriptor.addr(), usize::try_from(descriptor.len()).ok()?));
        }
        let mut header = [0; spec::HEADER_BYTES];
        copy_front(&mut readable, memory, &mut header)?;
        let status_gpa = take_last_byte(&mut writable)?;
        if bytes(&readable) > DATA_BYTES_MAX || bytes(&writable) > DATA_BYTES_MAX {
            return None;
        }
        let (kind, rest) = header.split_first_chunk()?;
        let (_reserved, sector) = rest.split_first_chunk::<4>()?;
        Some(Self {
            kind: u32::from_le_bytes(*kind),
            sector: u64::from_le_bytes(*sector.first_chunk()?),
            readable,
            writable,
            status_gpa,
        })
    }
}

/// Bytes of all segments together.
pub(super) fn bytes(segments: &[Segment]) -> u64 {
    segments.iter().map(|(_, bytes)| *bytes as u64).sum()
}

/// The host memory behind the segments; `None` if any of it is not guest memory.
pub(super) fn slices<'a>(segments: &[Segment], memory: &'a GuestMemoryMmap) -> Option<Vec<VolatileSlice<'a>>> {
    let mut slices = Vec::with_capacity(segments.len());
    for (gpa, bytes) in segments {
        for slice in memory.get_slices(*gpa, *bytes) {
            slices.push(slice.ok()?);
        }
    }
    Some(slices)
}

/// Moves bytes off the front of the segments into `buffer`; `None` if there are not enough or memory is bad.
pub(super) fn copy_front(segments: &mut Vec<Segment>, memory: &GuestMemoryMmap, buffer: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let (gpa, bytes) = segments.first_mut()?;
        let part = (*bytes).min(buffer.len() - filled);
        memory.read_slice(buffer.get_mut(filled..filled + part)?, *gpa).ok()?;
        filled += part;
        *bytes -= part;
        *gpa = GuestAddress(gpa.0.checked_add(part as u64)?);
        if *bytes == 0 {
            segments.remove(0);
        }
    }
    Some(())
}

fn take_last_byte(segments: &mut Vec<Segment>) -> Option<GuestAddress> {
    let (gpa, bytes) = segments.last_mut()?;
    *bytes = bytes.checked_sub(1)?;
    let last = GuestAddress(gpa.0.checked_add(*bytes as u64)?);
    if *bytes == 0 {
        segments.pop();
    }
    Some(last)
}
