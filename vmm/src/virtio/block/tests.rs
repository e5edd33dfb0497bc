//! Requests as a driver lays them out, good and hostile.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use proptest::prelude::*;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{BlockDevice, spec};
use crate::counters::Counters;
use crate::virtio::core::DeviceCore;

const SECTORS: u64 = 16;
const HEADER: u64 = 0x8000;
const DATA: u64 = 0x9000;
const STATUS: u64 = 0xf000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// What the status byte holds before the device answers.
const UNANSWERED: u8 = 0xee;

fn disk() -> File {
    let mut file = tempfile::tempfile().unwrap();
    for sector in 0..SECTORS {
        file.write_all(&[u8::try_from(sector).unwrap(); 512]).unwrap();
    }
    file
}

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
}

struct Bench {
    device: BlockDevice,
    file: File,
    memory: GuestMemoryMmap,
    counters: Counters,
}

impl Bench {
    fn new(read_only: bool) -> Self {
        let file = disk();
        let counters = Counters::default();
        let device = BlockDevice::new(file.try_clone().unwrap(), read_only, "scratch", &counters).unwrap();
        Self { device, file, memory: memory(), counters }
    }

    fn header(&self, kind: u32, sector: u64) {
        self.memory.write_obj(kind, GuestAddress(HEADER)).unwrap();
        self.memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
        self.memory.write_obj(UNANSWERED, GuestAddress(STATUS)).unwrap();
    }

    /// Offers one chain; returns the status byte and the used length, if the chain came back.
    fn serve(&mut self, descriptors: &[(u64, u32, u16)]) -> (u8, Option<u32>) {
        let mock = MockSplitQueue::new(&self.memory, 16);
        let last = descriptors.len().saturating_sub(1);
        for (index, (address, len, flags)) in descriptors.iter().enumerate() {
            let index16 = u16::try_from(index).unwrap();
            let next = if index == last { 0 } else { NEXT };
            let descriptor = Descriptor::new(*address, *len, flags | next, index16 + 1);
            mock.desc_table().store(index16, RawDescriptor::from(descriptor)).unwrap();
        }
        mock.avail().ring().ref_at(0).unwrap().store(0_u16);
        mock.avail().idx().store(1);
        let mut queue: Queue = mock.create_queue().unwrap();
        let signals = self.device.process_queue(0, &mut [&mut queue], &self.memory).unwrap();
        let used = (mock.used().idx().load() == 1).then(|| mock.used().ring().ref_at(0).unwrap().load().len());
        assert_eq!(signals.contains(0), used.is_some());
        (self.memory.read_obj(GuestAddress(STATUS)).unwrap(), used)
    }

    /// A request of the usual shape.
    fn request(&mut self, kind: u32, sector: u64, bytes: u32, data_flags: u16) -> (u8, Option<u32>) {
        self.header(kind, sector);
        self.serve(&[(HEADER, 16, 0), (DATA, bytes, data_flags), (STATUS, 1, WRITE)])
    }

    fn sector(&mut self, sector: u64) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        self.file.seek(SeekFrom::Start(sector * 512)).unwrap();
        self.file.read_exact(&mut bytes).unwrap();
        bytes
    }
}

#[test]
fn reads_and_writes_move_whole_sectors() {
    let mut bench = Bench::new(false);
    assert_eq!(bench.request(spec::IN, 3, 1024, WRITE), (spec::STATUS_OK, Some(1025)));
    let mut data = [0; 1024];
    bench.memory.read_slice(&mut data, GuestAddress(DATA)).unwrap();
    assert_eq!((data[0], data[512]), (3, 4));

    bench.memory.write_slice(&[0xab; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(bench.request(spec::OUT, 15, 512, 0), (spec::STATUS_OK, Some(1)));
    assert_eq!(bench.sector(15), [0xab; 512]);
    assert_eq!(bench.sector(14), [14; 512]);
}

#[test]
fn a_request_may_be_cut_into_any_pieces() {
    let mut bench = Bench::new(false);
    bench.header(spec::IN, 1);
    let pieces =
        [(HEADER, 5, 0), (HEADER + 5, 11, 0), (DATA, 100, WRITE), (DATA + 0x1000, 412, WRITE), (STATUS, 1, WRITE)];
    assert_eq!(bench.serve(&pieces), (spec::STATUS_OK, Some(513)));
    let mut tail = [0; 412];
    bench.memory.read_slice(&mut tail, GuestAddress(DATA + 0x1000)).unwrap();
    assert_eq!(tail, [1; 412]);
}

#[test]
fn nothing_beyond_the_disk_is_touched() {
    let mut bench = Bench::new(false);
    for (sector, bytes) in [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 100)] {
        assert_eq!(bench.request(spec::IN, sector, bytes, WRITE), (spec::STATUS_IOERR, Some(1)), "{sector}");
        assert_eq!(bench.request(spec::OUT, sector, bytes, 0), (spec::STATUS_IOERR, Some(1)), "{sector}");
    }
    assert_eq!(bench.file.metadata().unwrap().len(), SECTORS * 512);
    assert_eq!(bench.counters.snapshot()["block.scratch.failures"], 10);
}

#[test]
fn a_read_only_disk_refuses_writes_and_says_so() {
    let mut bench = Bench::new(true);
    assert_ne!(bench.device.features() & spec::feature::RO, 0);
    assert_eq!(bench.request(spec::OUT, 0, 512, 0), (spec::STATUS_IOERR, Some(1)));
    assert_eq!(bench.request(spec::DISCARD, 0, 16, 0), (spec::STATUS_IOERR, Some(1)));
    assert_eq!(bench.sector(0), [0; 512]);
}

#[test]
fn the_serial_is_told_as_far_as_there_is_room() {
    let mut bench = Bench::new(false);
    assert_eq!(bench.request(spec::GET_ID, 0, 20, WRITE), (spec::STATUS_OK, Some(21)));
    let id: [u8; 20] = bench.memory.read_obj(GuestAddress(DATA)).unwrap();
    assert_eq!(&id, b"scratch\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bench.request(spec::GET_ID, 0, 4, WRITE), (spec::STATUS_OK, Some(5)));
}

#[test]
fn a_discarded_range_reads_as_zero() {
    let mut bench = Bench::new(false);
    bench.memory.write_obj(8_u64, GuestAddress(DATA)).unwrap();
    bench.memory.write_obj(8_u32, GuestAddress(DATA + 8)).unwrap();
    bench.memory.write_obj(0_u32, GuestAddress(DATA + 12)).unwrap();
    assert_eq!(bench.request(spec::DISCARD, 0, 16, 0), (spec::STATUS_OK, Some(1)));
    assert_eq!((bench.sector(7), bench.sector(8)), (vec![7; 512], vec![0; 512]));
    bench.memory.write_obj(u32::MAX, GuestAddress(DATA + 8)).unwrap();
    assert_eq!(bench.request(spec::DISCARD, 0, 16, 0).0, spec::STATUS_IOERR);
}

#[test]
fn other_requests_are_not_supported() {
    let mut bench = Bench::new(false);
    assert_eq!(bench.request(99, 0, 512, WRITE), (spec::STATUS_UNSUPPORTED, Some(1)));
    bench.header(spec::FLUSH, 0);
    assert_eq!(bench.serve(&[(HEADER, 16, 0), (STATUS, 1, WRITE)]), (spec::STATUS_OK, Some(1)));
}

#[test]
fn a_chain_without_header_or_status_gets_no_answer() {
    let mut bench = Bench::new(false);
    bench.header(spec::IN, 0);
    for chain in [
        vec![(STATUS, 1, WRITE)],
        vec![(HEADER, 15, 0), (STATUS, 1, WRITE)],
        vec![(HEADER, 16, 0)],
        vec![(HEADER, 16, 0), (STATUS, 0, WRITE)],
        vec![(u64::MAX - 3, 16, 0), (STATUS, 1, WRITE)],
    ] {
        assert_eq!(bench.serve(&chain), (UNANSWERED, Some(0)), "{chain:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any descriptors, pointing anywhere, with any flags, in any order and in circles: the device answers or drops them,
    /// never panics, never loops, and the file keeps its size.
    #[test]
    fn hostile_descriptors_are_survived(
        kind in 0_u32..14,
        sector in prop_oneof![0..SECTORS + 2, any::<u64>()],
        descriptors in proptest::collection::vec(
            (prop_oneof![0_u64..0x1_1000, any::<u64>()], prop_oneof![0_u32..0x1000, any::<u32>()],
             prop_oneof![Just(0), Just(NEXT), Just(WRITE), Just(NEXT | WRITE), Just(INDIRECT), any::<u16>()], 0_u16..18),
            1..16),
        available in 0_u16..20,
    ) {
        let mut bench = Bench::new(false);
        bench.header(kind, sector);
        let mock = MockSplitQueue::new(&bench.memory, 16);
        for (index, (address, len, flags, next)) in descriptors.iter().enumerate() {
            // The first descriptor often is a good header, so that the rest is reached.
            let descriptor = if index == 0 && len % 2 == 0 {
                Descriptor::new(HEADER, 16, NEXT, 1)
            } else {
                Descriptor::new(*address, *len, *flags, *next)
            };
            mock.desc_table().store(u16::try_from(index).unwrap(), RawDescriptor::from(descriptor)).unwrap();
        }
        mock.avail().idx().store(available);
        let mut queue: Queue = mock.create_queue().unwrap();
        let _ = bench.device.process_queue(0, &mut [&mut queue], &bench.memory);
        prop_assert_eq!(bench.file.metadata().unwrap().len(), SECTORS * 512);
        prop_assert!(queue.next_used() <= 16);
    }
}
