//! Taking descriptor chains from a queue whose driver is not trusted.

use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

/// The next chain the driver made available; if there is none, the driver is asked to kick when there is.
///
/// Never loops: a driver whose ring contradicts itself gets an error or nothing.
pub(crate) fn next_chain<'a>(
    queue: &mut Queue,
    memory: &'a GuestMemoryMmap,
) -> Result<Option<DescriptorChain<&'a GuestMemoryMmap>>, Error> {
    if let Some(chain) = queue.iter(memory)?.next() {
        return Ok(Some(chain));
    }
    // A chain may have slipped in before the driver saw that it should kick.
    Ok(if queue.enable_notification(memory)? { queue.iter(memory)?.next() } else { None })
}
