//! The device core of virtio-fs: takes requests off the queues, asks the policy, then the file server.

use std::io;
use std::path::{Path, PathBuf};

use bulkhead_protocols::vm::Caching;
use fuse_backend_rs::abi::fuse_abi::{InHeader, OutHeader};
use fuse_backend_rs::api::Vfs;
use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::transport::{Reader, VirtioFsWriter, Writer};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use super::{policy, server, spec};
use crate::counters::{Counter, Counters};
use crate::virtio::core::{CoreError, DeviceCore, Signals};

/// hiprio takes FORGET and INTERRUPT only; a request of 1 MiB needs 256 page descriptors and its headers.
const QUEUE_SIZES: [u16; 2] = [64, 1024];
/// Bytes of the tag in `struct virtio_fs_config`.
const TAG_LEN: usize = 36;

type Chain<'a> = DescriptorChain<&'a GuestMemoryMmap>;

/// One share as a virtio-fs device.
pub(crate) struct FsDevice {
    root: PathBuf,
    caching: Caching,
    config_space: [u8; TAG_LEN + 4],
    server: Server<Vfs>,
    requests: RequestCounters,
}

/// Requests by opcode (`fs.<tag>.<opcode>`), and those that were no request at all or refused.
struct RequestCounters {
    by_opcode: Vec<(u32, Counter)>,
    unknown: Counter,
    malformed: Counter,
    refused: Counter,
    negative: Counter,
}

impl FsDevice {
    /// Shares the directory `root` under `tag` (1 to 36 bytes).
    ///
    /// Call it where the share's mounts and `/proc` are visible. Fails if the directory cannot be opened.
    pub(crate) fn new(tag: &str, root: &Path, caching: Caching, counters: &Counters) -> io::Result<Self> {
        let mut config_space = [0; TAG_LEN + 4];
        let (name, request_queues) = config_space.split_at_mut(TAG_LEN);
        name.get_mut(..tag.len())
            .filter(|name| !name.is_empty())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("tag {tag:?} is not 1 to 36 bytes")))?
            .copy_from_slice(tag.as_bytes());
        request_queues.copy_from_slice(&1_u32.to_le_bytes());
        Ok(Self {
            root: root.to_owned(),
            caching,
            config_space,
            server: server::new(root, caching)?,
            requests: RequestCounters::new(tag, counters),
        })
    }

    /// Carries out one request; returns the bytes written to the guest.
    fn request(&self, chain: &Chain<'_>, memory: &GuestMemoryMmap) -> u32 {
        let mut prefix = [0; policy::PREFIX_LEN];
        let read = copy_from(chain, memory, &mut prefix);
        let prefix = prefix.get(..read).unwrap_or_default();
        let Some(header) = prefix.get(..size_of::<InHeader>()).and_then(InHeader::from_slice).copied() else {
            self.requests.malformed.increment();
            return 0;
        };
        self.requests.count(header.opcode);
        if let Some(errno) = policy::refusal(self.caching, header.opcode, prefix) {
            self.requests.refused.increment();
            return reply(chain, memory, &spec::error_reply(header.unique, errno.raw_os_error()));
        }
        let written = self.serve(chain, memory);
        if self.caching == Caching::Immutable && header.opcode == spec::LOOKUP && is_absent(chain, memory) {
            return self.negative_entry(chain, memory, header.unique).unwrap_or(written);
        }
        written
    }

    fn serve(&self, chain: &Chain<'_>, memory: &GuestMemoryMmap) -> u32 {
        let (Ok(reader), Ok(writer)) =
            (Reader::from_descriptor_chain(memory, chain.clone()), VirtioFsWriter::new(memory, chain.clone()))
        else {
            self.requests.malformed.increment();
            return 0;
        };
        match self.server.handle_message(reader, Writer::VirtioFs(writer), None, None) {
            Ok(written) => u32::try_from(written).unwrap_or(0),
            // The server answers what can be answered; what it cannot decode has no answer.
            Err(_) => {
                self.requests.malformed.increment();
                0
            }
        }
    }

    /// The file server reports an absent name as an error, which a guest does not remember. Where nothing changes, say so
    /// in the form it does: an overlay of many layers asks each of them for each name.
    fn negative_entry(&self, chain: &Chain<'_>, memory: &GuestMemoryMmap, unique: u64) -> Option<u32> {
        let room: u64 = chain.clone().writable().map(|descriptor| u64::from(descriptor.len())).sum();
        if room < spec::ENTRY_REPLY_LEN as u64 {
            return None;
        }
        self.requests.negative.increment();
        Some(reply(chain, memory, &spec::negative_entry(unique, server::FOREVER.as_secs())))
    }
}

impl DeviceCore for FsDevice {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC
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

    fn reset(&mut self) {
        // A server is initialised once in its life, and what the old driver opened is of no use to the next. The root
        // has been opened before; should that fail now, the old server refuses a second INIT, which fails the mount.
        if let Ok(server) = server::new(&self.root, self.caching) {
            self.server = server;
        }
    }

    fn process_queue(
        &mut self,
        index: usize,
        queues: &mut [&mut Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<Signals, CoreError> {
        let Some(queue) = queues.get_mut(index) else { return Ok(Signals::NONE) };
        let unusable = |source| CoreError::Queue { queue: index, source };
        let mut used = false;
        loop {
            queue.disable_notification(memory).map_err(unusable)?;
            while let Some(chain) = queue.pop_descriptor_chain(memory) {
                let head = chain.head_index();
                let written = self.request(&chain, memory);
                queue.add_used(memory, head, written).map_err(unusable)?;
                used = true;
            }
            if !queue.enable_notification(memory).map_err(unusable)? {
                break;
            }
        }
        let mut signals = Signals::NONE;
        if used && queue.needs_notification(memory).map_err(unusable)? {
            signals.add(index);
        }
        Ok(signals)
    }
}

impl RequestCounters {
    fn new(tag: &str, counters: &Counters) -> Self {
        let counter = |what: &str| counters.counter(&format!("fs.{tag}.{what}"));
        Self {
            by_opcode: spec::NAMES.iter().map(|(opcode, name)| (*opcode, counter(name))).collect(),
            unknown: counter("unknown"),
            malformed: counter("malformed"),
            refused: counter("refused"),
            negative: counter("negative_entries"),
        }
    }

    fn count(&self, opcode: u32) {
        let known = self.by_opcode.binary_search_by_key(&opcode, |(opcode, _)| *opcode);
        known
            .ok()
            .and_then(|index| self.by_opcode.get(index))
            .map_or(&self.unknown, |(_, counter)| counter)
            .increment();
    }
}

/// Copies the start of what the guest wrote into `buffer`; returns how much there was, short if memory is bad.
fn copy_from(chain: &Chain<'_>, memory: &GuestMemoryMmap, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    for descriptor in chain.clone().readable() {
        let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) else { break };
        let take = rest.len().min(descriptor.len() as usize);
        let Some(part) = rest.get_mut(..take) else { break };
        if memory.read_slice(part, descriptor.addr()).is_err() {
            break;
        }
        filled += take;
    }
    filled
}

/// Writes a whole reply; returns its length, or 0 if there is no room for it or memory is bad.
fn reply(chain: &Chain<'_>, memory: &GuestMemoryMmap, reply: &[u8]) -> u32 {
    let mut rest = reply;
    for descriptor in chain.clone().writable() {
        let (part, after) = rest.split_at(rest.len().min(descriptor.len() as usize));
        if memory.write_slice(part, descriptor.addr()).is_err() {
            return 0;
        }
        rest = after;
        if rest.is_empty() {
            return u32::try_from(reply.len()).unwrap_or(0);
        }
    }
    0
}

/// Whether the reply that stands in the chain is the error "no such entry".
fn is_absent(chain: &Chain<'_>, memory: &GuestMemoryMmap) -> bool {
    let first: Option<(GuestAddress, u32)> =
        chain.clone().writable().next().map(|descriptor| (descriptor.addr(), descriptor.len()));
    first
        .filter(|(_, len)| *len as usize >= spec::OUT_HEADER_LEN)
        .and_then(|(address, _)| memory.read_obj::<OutHeader>(address).ok())
        .is_some_and(|header| header.error == -libc::ENOENT)
}
