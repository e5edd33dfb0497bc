//! The device core: moves packets between the guest's queues and the muxer.
//!
//! It owns the muxer and the configuration space. Packets may be framed by descriptors in any way (virtio 1.2, section
//! 2.7.4); the header is copied once, so that a guest that changes it afterwards changes nothing here.

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::{Queue, QueueOwnedT, QueueT, Reader, Writer};
use vm_memory::GuestMemoryMmap;

use super::connection::PAYLOAD_MAX;
use super::muxer::Muxer;
use super::spec::{DEVICE_TYPE, HEADER_BYTES, Header, Op, RX_QUEUE, TX_QUEUE};
use crate::counters::{Counter, Counters};
use crate::virtio::chain::next_chain;
use crate::virtio::core::{CoreError, DeviceCore, Signals};

/// Queue sizes: receive, transmit, event. The guest keeps a 4 KiB buffer in each slot of the receive queue.
const QUEUE_SIZES: [u16; 3] = [128, 128, 8];
/// Longest path of a UNIX socket, without the closing zero.
const SUN_PATH_MAX: usize = 107;
/// The longest suffix that stands for a host port, `_4294967295`.
const PORT_SUFFIX_MAX: usize = 11;

/// A virtio-vsock device without its transport.
#[derive(Debug)]
pub(crate) struct VsockDevice {
    pub(super) muxer: Muxer,
    config: [u8; 8],
    scratch: Vec<u8>,
    meters: Meters,
}

#[derive(Debug)]
struct Meters {
    rx_packets: Counter,
    tx_packets: Counter,
    bytes_to_guest: Counter,
    bytes_from_guest: Counter,
}

impl VsockDevice {
    /// A device for `guest_cid` whose host clients connect to `listener`, which is bound at `uds`.
    ///
    /// Fails if `uds` leaves no room for a port's suffix, or if the process is out of descriptors.
    pub(crate) fn new(
        guest_cid: u32,
        uds: &Path,
        listener: UnixListener,
        counters: &Counters,
    ) -> std::io::Result<Self> {
        let longest = uds.as_os_str().as_bytes().len() + PORT_SUFFIX_MAX;
        if longest > SUN_PATH_MAX {
            let why = format!(
                "vsock socket path {} is too long: with the suffix of a port it has {longest} bytes, and a UNIX socket's \
                 path at most {SUN_PATH_MAX}",
                uds.display()
            );
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        }
        Ok(Self {
            muxer: Muxer::new(guest_cid, uds, listener, counters)?,
            config: u64::from(guest_cid).to_le_bytes(),
            scratch: vec![0; PAYLOAD_MAX],
            meters: Meters {
                rx_packets: counters.counter("vsock.rx_packets"),
                tx_packets: counters.counter("vsock.tx_packets"),
                bytes_to_guest: counters.counter("vsock.bytes_to_guest"),
                bytes_from_guest: counters.counter("vsock.bytes_from_guest"),
            },
        })
    }

    /// Moves packets both ways until neither side has one that the other can take.
    fn pump(&mut self, queues: &mut [&mut Queue], memory: &GuestMemoryMmap) -> Result<Signals, CoreError> {
        let mut signals = Signals::NONE;
        let mut transmitted = false;
        let mut received = false;
        loop {
            self.muxer.poll(Instant::now()).map_err(host_error("serve the host's vsock sockets"))?;
            let batch = match ready_queue(queues, TX_QUEUE) {
                Some(queue) => self.transmit(queue, memory)?,
                None => 0,
            };
            transmitted |= batch > 0;
            if let Some(queue) = ready_queue(queues, RX_QUEUE) {
                received |= self.receive(queue, memory)?;
            }
            if batch == 0 {
                break;
            }
        }
        for (index, used) in [(RX_QUEUE, received), (TX_QUEUE, transmitted)] {
            if let Some(queue) = ready_queue(queues, index)
                && used
                && queue.needs_notification(memory).map_err(queue_error(index))?
            {
                signals.add(index);
            }
        }
        Ok(signals)
    }

    /// Takes packets of the guest, one queue's worth at most so that the host's side gets its turn; returns how many.
    fn transmit(&mut self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<usize, CoreError> {
        let mut packets = 0;
        for _ in 0..queue.size() {
            let Some(chain) = next_chain(queue, memory).map_err(queue_error(TX_QUEUE))? else { break };
            let head = chain.head_index();
            let reader = Reader::new(memory, chain).map_err(queue_error(TX_QUEUE))?;
            self.take_packet(reader)?;
            queue.add_used(memory, head, 0).map_err(queue_error(TX_QUEUE))?;
            packets += 1;
        }
        Ok(packets)
    }

    fn take_packet(&mut self, mut reader: Reader<'_>) -> Result<(), CoreError> {
        let mut bytes = [0; HEADER_BYTES];
        reader.read_exact(&mut bytes).map_err(|_| protocol(TX_QUEUE, "a packet shorter than its header"))?;
        let header = Header::decode(&bytes).ok_or_else(|| protocol(TX_QUEUE, "a packet shorter than its header"))?;
        let len = if header.op == Some(Op::Data) { header.len as usize } else { 0 };
        let payload = self.scratch.get_mut(..len).ok_or_else(|| CoreError::Protocol {
            queue: TX_QUEUE,
            what: format!("a payload of {len} bytes, at most {PAYLOAD_MAX} fit"),
        })?;
        reader.read_exact(payload).map_err(|_| protocol(TX_QUEUE, "a packet shorter than its header says"))?;
        self.meters.tx_packets.increment();
        self.meters.bytes_from_guest.add(len as u64);
        self.muxer.on_packet(&header, payload).map_err(host_error("serve the host's vsock sockets"))
    }

    /// Fills receive buffers of the guest while there are packets for it; returns whether any was used.
    fn receive(&mut self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<bool, CoreError> {
        let mut used = false;
        while self.muxer.has_packets() {
            // Kicks of this queue are of interest only once it is empty, which is where this asks for them.
            let Some(chain) = next_chain(queue, memory).map_err(queue_error(RX_QUEUE))? else { break };
            let head = chain.head_index();
            let mut writer = Writer::new(memory, chain).map_err(queue_error(RX_QUEUE))?;
            let room = writer
                .available_bytes()
                .checked_sub(HEADER_BYTES)
                .ok_or_else(|| protocol(RX_QUEUE, "a buffer without room for a header"))?;
            let packet = self
                .muxer
                .next_packet(room, &mut self.scratch, Instant::now())
                .map_err(host_error("serve the host's vsock sockets"))?;
            let Some(header) = packet else {
                queue.go_to_previous_position();
                break;
            };
            let payload = self.scratch.get(..header.len as usize).unwrap_or_default();
            writer
                .write_all(&header.encode())
                .and_then(|()| writer.write_all(payload))
                .map_err(host_error("fill a vsock receive buffer"))?;
            let written = u32::try_from(writer.bytes_written()).unwrap_or(u32::MAX);
            queue.add_used(memory, head, written).map_err(queue_error(RX_QUEUE))?;
            self.meters.rx_packets.increment();
            self.meters.bytes_to_guest.add(u64::from(header.len));
            used = true;
        }
        Ok(used)
    }
}

impl DeviceCore for VsockDevice {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_space(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, _accepted_features: u64) -> Result<(), CoreError> {
        self.muxer.start().map_err(host_error("watch the vsock listener"))
    }

    fn reset(&mut self) {
        self.muxer.stop();
    }

    fn process_queue(
        &mut self,
        _queue: usize,
        queues: &mut [&mut Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<Signals, CoreError> {
        self.pump(queues, memory)
    }

    fn host_events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.muxer.events())
    }

    fn process_host_events(
        &mut self,
        queues: &mut [&mut Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<Signals, CoreError> {
        self.pump(queues, memory)
    }
}

/// The queue, if the driver has set it up: QEMU serves the event queue itself and never hands it over.
fn ready_queue<'a>(queues: &'a mut [&mut Queue], index: usize) -> Option<&'a mut Queue> {
    queues.get_mut(index).map(|queue| &mut **queue).filter(|queue| queue.ready())
}

fn protocol(queue: usize, what: &str) -> CoreError {
    CoreError::Protocol { queue, what: what.to_owned() }
}

fn queue_error(queue: usize) -> impl Fn(virtio_queue::Error) -> CoreError {
    move |source| CoreError::Queue { queue, source }
}

fn host_error(what: &'static str) -> impl Fn(std::io::Error) -> CoreError {
    move |source| CoreError::Host { what, source }
}
