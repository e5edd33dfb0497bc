//! The device core: one queue, requests carried out in order.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FallocateFlags, fallocate};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestMemoryMmap};

use super::request::{self, DATA_SEGMENTS_MAX, Request};
use super::spec::{self, SECTOR_BYTES, feature};
use super::sys::{self, Direction};
use crate::counters::{Counter, Counters};
use crate::virtio::chain::next_chain;
use crate::virtio::core::{CoreError, DeviceCore, Signals};

const QUEUE_SIZES: [u16; 1] = [256];
/// Sectors of one discard: a driver splits larger ones.
const DISCARD_SECTORS_MAX: u32 = 1 << 22;
/// Ranges of one discard request.
const DISCARD_RANGES_MAX: usize = 64;

/// One disk.
pub(crate) struct BlockDevice {
    file: File,
    read_only: bool,
    serial: [u8; spec::ID_BYTES],
    sectors: u64,
    /// Nobody can find the file again: what is written needs to last no longer than the VM.
    is_unlinked: bool,
    config_space: Vec<u8>,
    requests: Requests,
}

struct Requests {
    reads: Counter,
    writes: Counter,
    flushes: Counter,
    discards: Counter,
    failures: Counter,
    bytes: Counter,
}

impl BlockDevice {
    /// A disk on an open file of which whole sectors are used; `serial` has at most 20 bytes.
    ///
    /// Fails if the file's size cannot be found out.
    pub(crate) fn new(mut file: File, read_only: bool, serial: &str, counters: &Counters) -> io::Result<Self> {
        let metadata = file.metadata()?;
        // A block device has its size at its end, not in its metadata.
        let sectors = file.seek(SeekFrom::End(0))? / SECTOR_BYTES;
        let mut id = [0; spec::ID_BYTES];
        id.iter_mut().zip(serial.bytes()).for_each(|(to, from)| *to = from);
        let counter = |what: &str| counters.counter(&format!("block.{serial}.{what}"));
        Ok(Self {
            is_unlinked: metadata.is_file() && metadata.nlink() == 0,
            file,
            read_only,
            serial: id,
            sectors,
            config_space: config_space(sectors),
            requests: Requests {
                reads: counter("reads"),
                writes: counter("writes"),
                flushes: counter("flushes"),
                discards: counter("discards"),
                failures: counter("failures"),
                bytes: counter("bytes"),
            },
        })
    }

    /// Carries out a request and leaves its status; returns the bytes written to the guest.
    fn serve(&self, request: Request, memory: &GuestMemoryMmap) -> u32 {
        let status_gpa = request.status_gpa;
        let (status, written) = match self.carry_out(request, memory) {
            Ok(written) => (spec::STATUS_OK, written),
            Err(status) => {
                self.requests.failures.increment();
                (status, 0)
            }
        };
        // A status outside guest memory is the driver's loss.
        if memory.write_obj(status, status_gpa).is_ok() { written.saturating_add(1) } else { 0 }
    }

    fn carry_out(&self, request: Request, memory: &GuestMemoryMmap) -> Result<u32, u8> {
        match request.kind {
            spec::IN => {
                self.requests.reads.increment();
                self.transfer(Direction::Read, request.sector, &request.writable, memory)
            }
            spec::OUT if self.read_only => Err(spec::STATUS_IOERR),
            spec::OUT => {
                self.requests.writes.increment();
                self.transfer(Direction::Write, request.sector, &request.readable, memory).map(|_| 0)
            }
            spec::FLUSH => {
                self.requests.flushes.increment();
                if self.is_unlinked {
                    return Ok(0);
                }
                self.file.sync_data().map(|()| 0).map_err(|_| spec::STATUS_IOERR)
            }
            spec::GET_ID => self.write_id(&request, memory),
            spec::DISCARD if self.read_only => Err(spec::STATUS_IOERR),
            spec::DISCARD => {
                self.requests.discards.increment();
                self.discard(request, memory)
            }
            _ => Err(spec::STATUS_UNSUPPORTED),
        }
    }

    fn transfer(
        &self,
        direction: Direction,
        sector: u64,
        segments: &[(vm_memory::GuestAddress, usize)],
        memory: &GuestMemoryMmap,
    ) -> Result<u32, u8> {
        let bytes = request::bytes(segments);
        let offset = self.offset(sector, bytes)?;
        let slices = request::slices(segments, memory).ok_or(spec::STATUS_IOERR)?;
        sys::transfer(&self.file, direction, &slices, offset).map_err(|_| spec::STATUS_IOERR)?;
        self.requests.bytes.add(bytes);
        u32::try_from(bytes).map_err(|_| spec::STATUS_IOERR)
    }

    fn write_id(&self, request: &Request, memory: &GuestMemoryMmap) -> Result<u32, u8> {
        let (gpa, bytes) = request.writable.first().ok_or(spec::STATUS_IOERR)?;
        let id = self.serial.get(..*bytes).unwrap_or(&self.serial);
        memory.write_slice(id, *gpa).map_err(|_| spec::STATUS_IOERR)?;
        u32::try_from(id.len()).map_err(|_| spec::STATUS_IOERR)
    }

    /// Gives the space of each range back to the host; a file system that cannot is no failure (section 5.2.6.2).
    fn discard(&self, mut request: Request, memory: &GuestMemoryMmap) -> Result<u32, u8> {
        let ranges =
            usize::try_from(request::bytes(&request.readable)).unwrap_or(usize::MAX) / spec::DISCARD_RANGE_BYTES;
        if ranges == 0 || ranges > DISCARD_RANGES_MAX {
            return Err(spec::STATUS_IOERR);
        }
        for _ in 0..ranges {
            let mut range = [0; spec::DISCARD_RANGE_BYTES];
            request::copy_front(&mut request.readable, memory, &mut range).ok_or(spec::STATUS_IOERR)?;
            let [a, b, c, d, e, f, g, h, i, j, k, l, flags @ ..] = range;
            let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let sectors = u32::from_le_bytes([i, j, k, l]);
            if flags != [0; 4] {
                return Err(spec::STATUS_UNSUPPORTED);
            }
            let bytes = u64::from(sectors) * SECTOR_BYTES;
            let offset = self.offset(sector, bytes)?;
            if sectors > DISCARD_SECTORS_MAX {
                return Err(spec::STATUS_IOERR);
            }
            if bytes > 0 {
                // Only a hint: without holes the space stays taken.
                let _ = fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes);
            }
        }
        Ok(0)
    }

    /// Where a range begins in the file; refused unless it consists of whole sectors of the disk.
    fn offset(&self, sector: u64, bytes: u64) -> Result<u64, u8> {
        let end = sector.checked_add(bytes / SECTOR_BYTES).filter(|end| *end <= self.sectors);
        if end.is_none() || !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(spec::STATUS_IOERR);
        }
        Ok(sector * SECTOR_BYTES)
    }
}

impl DeviceCore for BlockDevice {
    fn device_type(&self) -> u32 {
        spec::DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        let access = if self.read_only { feature::RO } else { feature::DISCARD };
        1 << virtio_bindings::virtio_config::VIRTIO_F_VERSION_1 | feature::SEG_MAX | feature::FLUSH | access
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_space(&self) -> &[u8] {
        &self.config_space
    }

    fn activate(&mut self, _accepted_features: u64) -> Result<(), CoreError> {
        Ok(())
    }

    fn reset(&mut self) {}

    fn process_queue(
        &mut self,
        index: usize,
        queues: &mut [&mut Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<Signals, CoreError> {
        let Some(queue) = queues.get_mut(index) else { return Ok(Signals::NONE) };
        let unusable = |source| CoreError::Queue { queue: index, source };
        let mut used = false;
        queue.disable_notification(memory).map_err(unusable)?;
        while let Some(chain) = next_chain(queue, memory).map_err(unusable)? {
            let head = chain.head_index();
            let written = match Request::parse(chain, memory) {
                Some(request) => self.serve(request, memory),
                None => {
                    self.requests.failures.increment();
                    0
                }
            };
            queue.add_used(memory, head, written).map_err(unusable)?;
            used = true;
        }
        let mut signals = Signals::NONE;
        if used && queue.needs_notification(memory).map_err(unusable)? {
            signals.add(index);
        }
        Ok(signals)
    }
}

fn config_space(sectors: u64) -> Vec<u8> {
    use spec::config;
    let mut space = vec![0; config::BYTES];
    let mut put = |offset: usize, bytes: &[u8]| {
        space.iter_mut().skip(offset).zip(bytes).for_each(|(to, from)| *to = *from);
    };
    put(config::CAPACITY, &sectors.to_le_bytes());
    put(config::SEG_MAX, &u32::try_from(DATA_SEGMENTS_MAX).unwrap_or(1).to_le_bytes());
    put(config::MAX_DISCARD_SECTORS, &DISCARD_SECTORS_MAX.to_le_bytes());
    put(config::MAX_DISCARD_SEG, &u32::try_from(DISCARD_RANGES_MAX).unwrap_or(1).to_le_bytes());
    put(config::DISCARD_SECTOR_ALIGNMENT, &1_u32.to_le_bytes());
    space
}
