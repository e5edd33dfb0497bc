//! A guest's vsock driver, as far as the tests need one: it fills rings by hand and can lie.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::counters::Counters;
use crate::virtio::core::{CoreError, DeviceCore};
use crate::virtio::vsock::VsockDevice;
use crate::virtio::vsock::spec::{HEADER_BYTES, Header, Op, RX_QUEUE, TX_QUEUE, TYPE_STREAM};

pub(super) const GUEST_CID: u32 = 3;
const RING: u16 = 16;
const RX_BUFFER_BYTES: u32 = 4096;
/// Each ring has a 64 KiB area for its parts and 1 MiB for its buffers.
const RINGS_GPA: [u64; 2] = [0x10_0000, 0x20_0000];
const BUFFERS_GPA: [u64; 2] = [0x40_0000, 0x60_0000];
const BUFFER_STRIDE: u64 = 0x1_1000;
const WRITABLE: u16 = 2;

/// What came from the device: header and payload.
pub(super) type Received = (Header, Vec<u8>);

/// Device, rings and host directory.
pub(super) struct Driver {
    pub(super) device: VsockDevice,
    pub(super) directory: tempfile::TempDir,
    pub(super) counters: Counters,
    /// Buffer space and consumed bytes that packets of the guest announce.
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
    memory: GuestMemoryMmap,
    rx: Queue,
    tx: Queue,
    event: Queue,
    /// Next avail index of each ring, and the rx used index that was seen.
    avail: [u16; 2],
    seen: u16,
}

impl Driver {
    pub(super) fn new() -> Self {
        let mut driver = Self::without_buffers();
        for _ in 0..RING {
            driver.post_buffer(RX_BUFFER_BYTES);
        }
        driver
    }

    /// A driver that has not posted a receive buffer.
    pub(super) fn without_buffers() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let uds = directory.path().join("v.sock");
        let counters = Counters::default();
        let listener = UnixListener::bind(&uds).unwrap();
        let mut device = VsockDevice::new(GUEST_CID, &uds, listener, &counters).unwrap();
        device.activate(device.features()).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x80_0000)]).unwrap();
        let [rx, tx] = RINGS_GPA.map(queue);
        let event = Queue::new(RING).unwrap();
        let (avail, seen) = ([0; 2], 0);
        Self { device, directory, counters, buf_alloc: 1 << 20, fwd_cnt: 0, memory, rx, tx, event, avail, seen }
    }

    pub(super) fn uds(&self) -> PathBuf {
        self.directory.path().join("v.sock")
    }

    /// Listens where the guest finds a port of the host.
    pub(super) fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.directory.path().join(format!("v.sock_{port}"))).unwrap()
    }

    pub(super) fn counted(&self, what: &str) -> u64 {
        self.counters.snapshot()[&format!("vsock.{what}")]
    }

    /// Makes one more receive buffer available; the device is not told.
    pub(super) fn post_buffer(&mut self, bytes: u32) {
        self.make_available(RX_QUEUE, bytes, WRITABLE);
    }

    fn make_available(&mut self, ring: usize, bytes: u32, flags: u16) -> GuestAddress {
        let slot = self.avail[ring] % RING;
        let buffer = BUFFERS_GPA[ring] + u64::from(slot) * BUFFER_STRIDE;
        let descriptor = GuestAddress(RINGS_GPA[ring] + u64::from(slot) * 16);
        self.memory.write_obj(buffer, descriptor).unwrap();
        self.memory.write_obj(bytes, GuestAddress(descriptor.0 + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(descriptor.0 + 12)).unwrap();
        let avail = RINGS_GPA[ring] + 0x1000;
        self.memory.write_obj(slot, GuestAddress(avail + 4 + u64::from(slot) * 2)).unwrap();
        self.avail[ring] = self.avail[ring].wrapping_add(1);
        self.memory.write_obj(self.avail[ring], GuestAddress(avail + 2)).unwrap();
        GuestAddress(buffer)
    }

    pub(super) fn header(&self, op: Op, host_port: u32, guest_port: u32) -> Header {
        Header {
            src_cid: GUEST_CID.into(),
            dst_cid: 2,
            src_port: guest_port,
            dst_port: host_port,
            len: 0,
            socket_type: TYPE_STREAM,
            op: Some(op),
            flags: 0,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
        }
    }

    /// Sends a packet of one stream; `payload` goes with [`Op::Data`].
    pub(super) fn send(&mut self, op: Op, ports: (u32, u32), payload: &[u8]) {
        let header = self.header(op, ports.0, ports.1);
        self.send_header(Header { len: u32::try_from(payload.len()).unwrap(), ..header }, payload);
    }

    pub(super) fn send_shutdown(&mut self, ports: (u32, u32), flags: u32) {
        let header = self.header(Op::Shutdown, ports.0, ports.1);
        self.send_header(Header { flags, ..header }, &[]);
    }

    pub(super) fn send_header(&mut self, header: Header, payload: &[u8]) {
        self.send_bytes(&[&header.encode(), payload].concat()).unwrap();
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), CoreError> {
        let buffer = self.make_available(TX_QUEUE, u32::try_from(bytes.len()).unwrap(), 0);
        self.memory.write_slice(bytes, buffer).unwrap();
        self.kick(TX_QUEUE)
    }

    pub(super) fn kick(&mut self, queue: usize) -> Result<(), CoreError> {
        let mut queues = [&mut self.rx, &mut self.tx, &mut self.event];
        let _ = self.device.process_queue(queue, &mut queues, &self.memory)?;
        Ok(())
    }

    /// Lets the device see what happened on the host's side.
    pub(super) fn host_events(&mut self) {
        let mut queues = [&mut self.rx, &mut self.tx, &mut self.event];
        let _ = self.device.process_host_events(&mut queues, &self.memory).unwrap();
    }

    /// What the device has put into receive buffers, which are not posted again.
    pub(super) fn take_received(&mut self) -> Vec<Received> {
        let used = RINGS_GPA[RX_QUEUE] + 0x2000;
        let index: u16 = self.memory.read_obj(GuestAddress(used + 2)).unwrap();
        let mut received = Vec::new();
        while self.seen != index {
            let element = used + 4 + u64::from(self.seen % RING) * 8;
            let slot: u32 = self.memory.read_obj(GuestAddress(element)).unwrap();
            let len: u32 = self.memory.read_obj(GuestAddress(element + 4)).unwrap();
            let mut bytes = vec![0; len as usize];
            let buffer = BUFFERS_GPA[RX_QUEUE] + u64::from(slot) * BUFFER_STRIDE;
            self.memory.read_slice(&mut bytes, GuestAddress(buffer)).unwrap();
            let payload = bytes.split_off(HEADER_BYTES);
            received.push((Header::decode(bytes.first_chunk().unwrap()).unwrap(), payload));
            self.seen = self.seen.wrapping_add(1);
        }
        received
    }

    /// What the device has to say, with every buffer posted again, until it is silent.
    pub(super) fn receive(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            self.host_events();
            let received = self.take_received();
            if received.is_empty() {
                return all;
            }
            for _ in &received {
                self.post_buffer(RX_BUFFER_BYTES);
            }
            self.kick(RX_QUEUE).unwrap();
            all.extend(received);
        }
    }

    /// The same, until there is something.
    pub(super) fn wait(&mut self) -> Vec<Received> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let received = self.receive();
            if !received.is_empty() {
                return received;
            }
            assert!(Instant::now() < deadline, "the device stays silent");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The one packet the device has to say.
    pub(super) fn wait_one(&mut self) -> Received {
        let mut received = self.wait();
        assert_eq!(received.len(), 1, "{received:?}");
        received.remove(0)
    }
}

fn queue(ring: u64) -> Queue {
    let mut queue = Queue::new(RING).unwrap();
    queue.set_size(RING);
    queue.try_set_desc_table_address(GuestAddress(ring)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(ring + 0x1000)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(ring + 0x2000)).unwrap();
    queue.set_ready(true);
    queue
}
