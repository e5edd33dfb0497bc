//! The library's view of a real device core.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use vhost_user_backend::{VhostUserBackend, VringMutex, VringT};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use super::*;
use crate::counters::Counters;
use crate::virtio::vsock::VsockDevice;

struct Served {
    backend: Backend,
    failure: Arc<Failure>,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    _directory: tempfile::TempDir,
}

fn vsock() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let uds = directory.path().join("v.sock");
    let listener = UnixListener::bind(&uds).unwrap();
    let core = VsockDevice::new(3, &uds, listener, &Counters::default()).unwrap();
    let failure = Arc::new(Failure::new().unwrap());
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let backend = Backend::new("vsock".into(), Box::new(core), memory.clone(), Arc::clone(&failure)).unwrap();
    Served { backend, failure, memory, _directory: directory }
}

#[test]
fn the_configuration_space_is_read_within_its_bounds() {
    let backend = vsock().backend;
    assert_eq!(backend.get_config(0, 8), 3_u64.to_le_bytes());
    assert_eq!(backend.get_config(0, 2), [3, 0]);
    for (offset, size) in [(0, 9), (8, 1), (u32::MAX, 1), (1, u32::MAX)] {
        assert!(backend.get_config(offset, size).is_empty(), "{offset} {size}");
    }
}

#[test]
fn ring_features_are_offered_on_top_of_the_devices() {
    let features = vsock().backend.features();
    for bit in [VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX, 30] {
        assert_ne!(features & (1 << bit), 0, "bit {bit}");
    }
}

#[test]
fn a_device_that_fails_says_so_and_serves_no_more() {
    let Served { backend, failure, memory, _directory } = vsock();
    let vrings: Vec<_> = (0..3).map(|_| VringMutex::new(memory.clone(), 128).unwrap()).collect();
    backend.handle_event(0, EventSet::IN, &vrings, 0).unwrap();
    assert!(failure.take().is_none(), "queues that are not set up are left alone");
    // A ring that lies outside guest memory, of which there is none.
    vrings[1].set_queue_ready(true);
    backend.handle_event(1, EventSet::IN, &vrings, 0).unwrap_err();
    let error = format!("{:#}", failure.take().unwrap());
    assert!(error.contains("device vsock failed: queue 1 is unusable"), "{error}");
    backend.handle_event(1, EventSet::IN, &vrings, 0).unwrap();
    assert!(failure.take().is_none());
}

#[test]
fn an_endpoint_leaves_no_socket_behind() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::new("vsock", directory.path()).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(endpoint.listener.accept().is_ok(), "QEMU's connection waits already");
}
