//! virtio-rng: random bytes of the host's kernel (virtio 1.2, section 5.4).

#[cfg(test)]
mod tests;

use std::io::Write as _;

use rustix::rand::{GetRandomFlags, getrandom};
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::chain::next_chain;
use super::core::{CoreError, DeviceCore, Signals};
use crate::counters::{Counter, Counters};

const DEVICE_TYPE: u32 = 4;
const QUEUE_SIZES: [u16; 1] = [16];
/// Bytes of one answer at most; a driver that asks for more asks again. Linux asks for 64.
const ANSWER_BYTES_MAX: usize = 4096;

/// The entropy device.
pub(crate) struct RngDevice {
    bytes: Counter,
}

impl RngDevice {
    /// A device; it has no state.
    pub(crate) fn new(counters: &Counters) -> Self {
        Self { bytes: counters.counter("rng.bytes") }
    }

    /// Fills the chain as far as an answer goes; returns the bytes written, 0 for a chain outside guest memory.
    fn answer(&self, chain: DescriptorChain<&GuestMemoryMmap>, memory: &GuestMemoryMmap) -> Result<u32, CoreError> {
        let Ok(mut writer) = chain.writer(memory) else { return Ok(0) };
        let mut random = [0; ANSWER_BYTES_MAX];
        let wanted = writer.available_bytes().min(ANSWER_BYTES_MAX);
        let random = random.get_mut(..wanted).unwrap_or_default();
        let filled = getrandom(&mut *random, GetRandomFlags::empty())
            .map_err(|error| CoreError::Host { what: "get random bytes", source: error.into() })?;
        let written = writer.write(random.get(..filled).unwrap_or_default()).unwrap_or(0);
        self.bytes.add(written as u64);
        Ok(u32::try_from(written).unwrap_or(0))
    }
}

impl DeviceCore for RngDevice {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        1 << virtio_bindings::virtio_config::VIRTIO_F_VERSION_1
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn config_space(&self) -> &[u8] {
        &[]
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
            let written = self.answer(chain, memory)?;
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
