//! The ring in which KVM collects writes that need no answer (KVM's coalesced MMIO and port I/O).
//!
//! Such a write costs a VM exit but no return to userspace. It is taken in, in order, before the next access that does
//! return: nothing the guest reads in between depends on it.
#![allow(unsafe_code, reason = "the ring is memory shared with the kernel")]

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::{KVM_COALESCED_MMIO_PAGE_OFFSET, kvm_coalesced_mmio, kvm_coalesced_mmio_ring};
use kvm_ioctls::VcpuFd;

const PAGE_BYTES: usize = 4096;
/// Entries that fit the page behind its two indices.
const ENTRIES: u32 = ((PAGE_BYTES - size_of::<kvm_coalesced_mmio_ring>()) / size_of::<kvm_coalesced_mmio>()) as u32;

/// The ring of a VM; one owner takes from it.
pub(super) struct DeferredWrites {
    ring: NonNull<kvm_coalesced_mmio_ring>,
}

// SAFETY: the mapping belongs to the process, not to a thread, and this is its only user.
unsafe impl Send for DeferredWrites {}

/// A collected write.
pub(super) struct DeferredWrite {
    /// Guest address or port.
    address: u64,
    is_port: bool,
    data: [u8; 8],
    len: usize,
}

/// Where a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Guest address.
    Mmio(u64),
    /// I/O port.
    Port(u16),
}

impl DeferredWrite {
    /// Where it went.
    pub(super) fn target(&self) -> Target {
        match u16::try_from(self.address) {
            Ok(port) if self.is_port => Target::Port(port),
            _ => Target::Mmio(self.address),
        }
    }

    /// What was written.
    pub(super) fn data(&self) -> &[u8] {
        self.data.get(..self.len).unwrap_or(&self.data)
    }
}

impl DeferredWrites {
    /// Maps the ring of the VM that `vcpu` belongs to; every vCPU of a VM shows the same one.
    pub(super) fn map(vcpu: &VcpuFd) -> io::Result<Self> {
        let offset = i64::from(KVM_COALESCED_MMIO_PAGE_OFFSET) * PAGE_BYTES as i64;
        // SAFETY: a new shared mapping of one page of the vCPU's file, which KVM keeps there for this purpose.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                offset,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(page.cast()).map(|ring| Self { ring }).ok_or_else(|| io::Error::other("mapped at address zero"))
    }

    /// The oldest write that has not been taken.
    pub(super) fn take(&mut self) -> Option<DeferredWrite> {
        let ring = self.ring.as_ptr();
        // SAFETY: both indices lie in the mapped page, are aligned, and are accessed atomically: the kernel writes `last`
        // from another processor.
        let (first, last) =
            unsafe { (AtomicU32::from_ptr(&raw mut (*ring).first), AtomicU32::from_ptr(&raw mut (*ring).last)) };
        let index = first.load(Ordering::Relaxed);
        if index == last.load(Ordering::Acquire) || index >= ENTRIES {
            return None;
        }
        // SAFETY: the entry lies in the page, as the index was checked; the kernel does not write it before `first` has
        // moved past it.
        let entry = unsafe { ring.add(1).cast::<kvm_coalesced_mmio>().add(index as usize).read() };
        first.store((index + 1) % ENTRIES, Ordering::Release);
        // SAFETY: both members of the union are plain numbers.
        let is_port = unsafe { entry.__bindgen_anon_1.pio } != 0;
        Some(DeferredWrite { address: entry.phys_addr, is_port, data: entry.data, len: entry.len as usize })
    }
}

impl Drop for DeferredWrites {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this size; nothing refers to it any more.
        unsafe { libc::munmap(self.ring.as_ptr().cast(), PAGE_BYTES) };
    }
}
