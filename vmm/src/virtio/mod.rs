//! virtio devices: cores that know queues and guest memory, and the mmio transport that serves them under KVM.

pub(crate) mod block;
pub(crate) mod chain;
pub(crate) mod core;
pub(crate) mod fs;
pub(crate) mod mmio;
pub(crate) mod rng;
pub(crate) mod vsock;
