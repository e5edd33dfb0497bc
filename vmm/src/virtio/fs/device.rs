//! The device core: gives each request chain to the FUSE server and the answer back.
//!
//! It owns the server, which owns the share. Requests are answered in order, on the device's thread.

use std::path::Path;

use bulkhead_protocols::vm::Caching;
use fuse_backend_rs::api::filesystem::FileSystem;
use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::transport::{Reader, VirtioFsWriter, Writer};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::requests::Requests;
use super::share::Share;
use crate::counters::{Counter, Counters};
use crate::virtio::chain::next_chain;
use crate::virtio::core::{CoreError, DeviceCore, Signals};

/// Device type of a file-system device (virtio 1.2, section 5).
const DEVICE_TYPE: u32 = 26;
/// Bytes of the tag in the configuration space, padded with zeros (section 5.11.4).
const TAG_BYTES: usize = 36;
/// High-priority queue and request queue. A request of 1 MiB takes 256 descriptors and a few for its headers.
const QUEUE_SIZES: [u16; 2] = [128, 512];
const REQUEST_QUEUES: u32 = 1;

/// A virtio-fs device without its transport.
pub(crate) struct FsDevice {
    server: Server<std::sync::Arc<Share>>,
    share: std::sync::Arc<Share>,
    config: Vec<u8>,
    requests: Requests,
    bytes_to_guest: Counter,
    malformed: Counter,
}

impl FsDevice {
    /// A device for the share whose root is the directory `root`, as the process sees it now.
    ///
    /// `tag` is 1 to 36 bytes. Fails if `/proc/self` is missing or `root` is not UTF-8.
    pub(crate) fn new(tag: &str, root: &Path, caching: Caching, counters: &Counters) -> std::io::Result<Self> {
        let share = std::sync::Arc::new(Share::new(caching, root)?);
        let mut config = tag.as_bytes().to_vec();
        config.resize(TAG_BYTES, 0);
        config.extend(REQUEST_QUEUES.to_le_bytes());
        Ok(Self {
            server: Server::new(std::sync::Arc::clone(&share)),
            share,
            config,
            requests: Requests::new(tag, counters),
            bytes_to_guest: counters.counter(&format!("fs.{tag}.bytes_to_guest")),
            malformed: counters.counter(&format!("fs.{tag}.malformed")),
        })
    }

    /// Answers one request; returns the bytes of the answer, 0 where none is due.
    fn answer(&self, chain: DescriptorChain<&GuestMemoryMmap>, memory: &GuestMemoryMmap) -> Option<u32> {
        let reader = Reader::from_descriptor_chain(memory, chain.clone()).ok()?;
        let writer = VirtioFsWriter::new(memory, chain).ok()?;
        let answered = self.server.handle_message(reader, Writer::VirtioFs(writer), None, Some(&self.requests));
        // A request that is cut short or malformed has no answer: its sender is no Linux kernel, and gets its buffer back.
        let written = answered.unwrap_or_else(|_| {
            self.malformed.increment();
            0
        });
        self.bytes_to_guest.add(written as u64);
        u32::try_from(written).ok()
    }
}

impl DeviceCore for FsDevice {
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
        Ok(())
    }

    fn reset(&mut self) {
        self.share.destroy();
    }

    fn process_queue(
        &mut self,
        queue: usize,
        queues: &mut [&mut Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<Signals, CoreError> {
        let mut signals = Signals::NONE;
        let error = |source| CoreError::Queue { queue, source };
        let Some(ring) = queues.get_mut(queue).map(|ring| &mut **ring).filter(|ring| ring.ready()) else {
            return Ok(signals);
        };
        let mut used = false;
        while let Some(chain) = next_chain(ring, memory).map_err(error)? {
            let head = chain.head_index();
            let written = self
                .answer(chain, memory)
                .ok_or_else(|| CoreError::Protocol { queue, what: "a request outside guest memory".to_owned() })?;
            ring.add_used(memory, head, written).map_err(error)?;
            used = true;
        }
        if used && ring.needs_notification(memory).map_err(error)? {
            signals.add(queue);
        }
        Ok(signals)
    }
}
