use virtio_queue::Queue;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;

const BUFFER: u64 = 0x8000;
const WRITE: u16 = 2;

/// Offers one descriptor; returns the used length.
fn serve(device: &mut RngDevice, memory: &GuestMemoryMmap, address: u64, len: u32, flags: u16) -> u32 {
    let mock = MockSplitQueue::new(memory, 16);
    let descriptor = Descriptor::new(address, len, flags, 0);
    mock.desc_table().store(0, RawDescriptor::from(descriptor)).unwrap();
    mock.avail().ring().ref_at(0).unwrap().store(0_u16);
    mock.avail().idx().store(1);
    let mut queue: Queue = mock.create_queue().unwrap();
    let signals = device.process_queue(0, &mut [&mut queue], memory).unwrap();
    assert!(signals.contains(0));
    assert_eq!(mock.used().idx().load(), 1);
    mock.used().ring().ref_at(0).unwrap().load().len()
}

#[test]
fn a_buffer_is_filled_with_bytes_that_differ() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let mut device = RngDevice::new(&Counters::default());
    assert_eq!(serve(&mut device, &memory, BUFFER, 64, WRITE), 64);
    let first: [u8; 32] = memory.read_obj(GuestAddress(BUFFER)).unwrap();
    let second: [u8; 32] = memory.read_obj(GuestAddress(BUFFER + 32)).unwrap();
    assert_ne!(first, [0; 32]);
    assert_ne!(first, second);
    assert_eq!(memory.read_obj::<u8>(GuestAddress(BUFFER + 64)).unwrap(), 0, "nothing beyond the buffer");
}

#[test]
fn an_answer_is_bounded() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
    let mut device = RngDevice::new(&Counters::default());
    assert_eq!(serve(&mut device, &memory, BUFFER, 0x8_0000, WRITE), 4096);
}

#[test]
fn buffers_that_cannot_be_written_get_nothing() {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let mut device = RngDevice::new(&Counters::default());
    assert_eq!(serve(&mut device, &memory, BUFFER, 64, 0), 0, "read-only");
    assert_eq!(serve(&mut device, &memory, 0xffff_0000, 64, WRITE), 0, "outside memory");
    assert_eq!(serve(&mut device, &memory, u64::MAX - 4, 64, WRITE), 0, "wraps around");
}
