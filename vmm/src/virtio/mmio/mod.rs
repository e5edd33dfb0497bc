//! The virtio-mmio transport under KVM (virtio 1.2, section 4.2).
//!
//! ```text
//!  guest reads a register ──▶ device's page, a read-only memory slot: no VM exit
//!  guest writes
//!    QueueNotify         ──▶ ioeventfd ──▶ device's thread ──▶ core ──▶ irqfd ──▶ guest
//!    InterruptACK = 1    ──▶ ioeventfd nobody reads: handled in the kernel
//!    deferrable register ──▶ collected by KVM (coalesced MMIO), taken in with the next write that traps
//!    anything else       ──▶ vCPU thread ──▶ registers change ──▶ page shows them
//! ```
//!
//! [`device::MmioDevice`] owns a device's registers, queues and core; [`bus::MmioBus`] finds the device of an address.

pub(crate) mod bus;
pub(crate) mod device;
pub(crate) mod page;
mod registers;
pub(crate) mod spec;
pub(crate) mod state;
#[cfg(test)]
mod tests;
pub(crate) mod worker;
