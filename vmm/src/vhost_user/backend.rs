//! The library's view of a device core: features, configuration space, kicks and host events.
//!
//! It owns the core. A device is activated by its first event with a queue that is set up, and reset when QEMU
//! negotiates features again, which it does on every start of the device.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringMutex, VringStateMutGuard, VringT};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use super::Failure;
use crate::virtio::core::{CoreError, DeviceCore, Signals};

/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// QEMU's virtio-mmio transport offers queues of this size whatever the device asks for, and Linux takes what is offered.
const QUEUE_SIZE_MAX: usize = 1024;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// One device as the vhost-user library calls it.
pub(super) struct Backend {
    name: String,
    features: u64,
    config: Vec<u8>,
    queues: usize,
    memory: Memory,
    device: Mutex<Device>,
    failure: Arc<Failure>,
    exit: (EventConsumer, EventNotifier),
}

struct Device {
    core: Box<dyn DeviceCore>,
    accepted_features: u64,
    active: bool,
    failed: bool,
}

impl Backend {
    pub(super) fn new(
        name: String,
        core: Box<dyn DeviceCore>,
        memory: Memory,
        failure: Arc<Failure>,
    ) -> io::Result<Self> {
        let ring_features = (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC);
        Ok(Self {
            name,
            features: core.features() | ring_features | PROTOCOL_FEATURES,
            config: core.config_space().to_vec(),
            queues: core.queue_max_sizes().len(),
            memory,
            device: Mutex::new(Device { core, accepted_features: 0, active: false, failed: false }),
            failure,
            exit: new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?,
        })
    }

    /// What the worker's epoll says when the core's host events are readable; the library keeps `0..=queues` to itself.
    pub(super) fn host_token(&self) -> u64 {
        self.queues as u64 + 1
    }

    fn run(&self, device: &mut Device, event: usize, vrings: &[VringMutex]) -> Result<(), CoreError> {
        let mut guards: Vec<_> = vrings.iter().map(VringT::get_mut).collect();
        if !guards.iter().any(|vring| vring.get_queue().ready()) {
            // The driver has stopped the device. Its host side ends too, or its events would be reported for ever.
            if std::mem::take(&mut device.active) {
                device.core.reset();
            }
            return Ok(());
        }
        if !device.active {
            device.core.activate(device.accepted_features)?;
            device.active = true;
        }
        let memory = self.memory.memory();
        let signals = {
            let mut queues: Vec<&mut Queue> = guards.iter_mut().map(|vring| vring.get_queue_mut()).collect();
            if event < self.queues {
                device.core.process_queue(event, &mut queues, &memory)?
            } else {
                device.core.process_host_events(&mut queues, &memory)?
            }
        };
        signal(signals, &guards)
    }
}

fn signal(signals: Signals, vrings: &[<VringMutex as VringStateMutGuard<'_, Memory>>::G]) -> Result<(), CoreError> {
    for (queue, vring) in vrings.iter().enumerate() {
        if signals.contains(queue) {
            vring.signal_used_queue().map_err(|source| CoreError::Host { what: "interrupt the guest", source })?;
        }
    }
    Ok(())
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        self.queues
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE_MAX
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn acked_features(&self, features: u64) {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        if device.active {
            device.core.reset();
            device.active = false;
        }
        device.accepted_features = features;
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The library has told the queues themselves.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let start = offset as usize;
        self.config.get(start..start.saturating_add(size as usize)).map(<[u8]>::to_vec).unwrap_or_default()
    }

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        // It is the one this backend was made with.
        Ok(())
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        Some((self.exit.0.try_clone().ok()?, self.exit.1.try_clone().ok()?))
    }

    fn handle_event(
        &self,
        device_event: u16,
        _events: EventSet,
        vrings: &[VringMutex],
        _thread_id: usize,
    ) -> io::Result<()> {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        if device.failed {
            return Ok(());
        }
        self.run(&mut device, device_event.into(), vrings).map_err(|error| {
            device.failed = true;
            self.failure.set(anyhow::Error::new(error).context(format!("device {} failed", self.name)));
            // Ends the worker: nothing of this device is served any more.
            io::Error::other("device failed")
        })
    }
}
