//! What a virtio device is, apart from how its guest reaches it.
//!
//! A core knows queues and guest memory. A transport (`virtio::mmio` under KVM, `vhost_user` under QEMU) owns the queues
//! and the interrupts, calls the core on its device's thread, and raises the interrupts that the core's answer names.

use std::os::fd::BorrowedFd;

use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

/// Queues that now need an interrupt, as a set of indices below 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a queue that is not signalled stalls its driver"]
pub(crate) struct Signals(u32);

impl Signals {
    /// No queue.
    pub(crate) const NONE: Self = Self(0);

    /// Adds a queue to the set; an index of 32 or more does not exist and is ignored.
    pub(crate) fn add(&mut self, queue: usize) {
        self.0 |= u32::try_from(queue).ok().and_then(|queue| 1_u32.checked_shl(queue)).unwrap_or(0);
    }

    /// Whether the queue needs an interrupt.
    pub(crate) fn contains(self, queue: usize) -> bool {
        u32::try_from(queue).ok().and_then(|queue| self.0.checked_shr(queue)).is_some_and(|bits| bits & 1 == 1)
    }

    /// Whether any queue does.
    pub(crate) fn any(self) -> bool {
        self.0 != 0
    }
}

/// A device core failed in a way the device cannot continue from; the transport stops the device (DEVICE_NEEDS_RESET).
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoreError {
    /// The guest broke the virtio protocol.
    #[error("the guest broke the protocol on queue {queue}: {what}")]
    Protocol {
        /// Index of the queue.
        queue: usize,
        /// What was wrong.
        what: String,
    },
    /// The queue's rings lie outside guest memory or are inconsistent.
    #[error("queue {queue} is unusable")]
    Queue {
        /// Index of the queue.
        queue: usize,
        /// Why.
        source: virtio_queue::Error,
    },
    /// The host's side failed.
    #[error("{what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A virtio device without its transport. One thread at a time calls it.
pub(crate) trait DeviceCore: Send {
    /// Device type (virtio 1.2, section 5).
    fn device_type(&self) -> u32;

    /// Feature bits offered, `VIRTIO_F_VERSION_1` included, those of the transport not.
    fn features(&self) -> u64;

    /// Greatest size of each queue, powers of two.
    fn queue_max_sizes(&self) -> &[u16];

    /// The device's configuration space as the guest reads it; writes to it are ignored.
    fn config_space(&self) -> &[u8];

    /// The driver is ready with these accepted features; called before the first queue is processed, again after a reset.
    fn activate(&mut self, accepted_features: u64) -> Result<(), CoreError>;

    /// The driver reset the device: all host-side state that belongs to the driver's session goes.
    fn reset(&mut self);

    /// The guest kicked `queue`. `queues` are all of the device's, in order.
    fn process_queue(
        &mut self,
        queue: usize,
        queues: &mut [&mut Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<Signals, CoreError>;

    /// A descriptor (an epoll of the core's own) that is readable while the host's side has work; `None` for a core that
    /// only answers kicks.
    fn host_events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Does the host side's work, as far as the queues have room.
    fn process_host_events(
        &mut self,
        _queues: &mut [&mut Queue],
        _memory: &GuestMemoryMmap,
    ) -> Result<Signals, CoreError> {
        Ok(Signals::NONE)
    }
}
