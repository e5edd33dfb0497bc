//! The unsafe calls that KVM needs: memory mapped once and kept for the life of the process, and the slots over it.
#![allow(unsafe_code, reason = "guest memory is mapped and given to KVM by address")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU32;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::virtio::mmio::page::RegisterPage;

/// Size of an x86 huge page, and the alignment that lets guest and host use them alike.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Maps a range of guest RAM: private, zero, taken from the host as it is touched.
///
/// `huge_pages` asks for transparent huge pages, or forbids them whatever the host's default is.
pub(super) fn map_ram(start: GuestAddress, bytes: usize, huge_pages: bool) -> io::Result<GuestRegionMmap> {
    let address = map_aligned(bytes, HUGE_PAGE_BYTES)?;
    let advice = if huge_pages { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    for advice in [advice, libc::MADV_DONTDUMP] {
        // A kernel without transparent huge pages refuses the advice, and there is nothing to forbid or to ask for.
        // SAFETY: the range was mapped by us just now, and these kinds of advice do not change its content.
        let _ = unsafe { libc::madvise(address, bytes, advice) };
    }
    // SAFETY: the mapping has this size and protection, and is never unmapped.
    let region = unsafe {
        MmapRegion::build_raw(
            address.cast(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE,
        )
    };
    let region = region.map_err(io::Error::other)?;
    GuestRegionMmap::new(region, start).ok_or_else(|| io::Error::other("guest memory wraps around"))
}

/// Maps `count` zeroed 4 KiB pages, one per device, to be shown to the guest side by side.
pub(super) fn map_register_pages(count: usize) -> io::Result<Vec<RegisterPage>> {
    const WORDS: usize = 1024;
    let address = map_aligned(count * WORDS * 4, 4096)?.cast::<AtomicU32>();
    // SAFETY: mapped just now with this size, page-aligned, zeroed (a valid value), never unmapped, and accessed through
    // atomics only; the guest can only read it.
    let words: &'static [AtomicU32] = unsafe { std::slice::from_raw_parts(address, count * WORDS) };
    Ok(words.chunks_exact(WORDS).map(RegisterPage::new).collect())
}

/// Gives guest RAM to KVM, in slots from 0 on; returns the number of slots used.
pub(super) fn set_ram_slots(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<u32, kvm_ioctls::Error> {
    let mut slot = 0;
    for region in memory.iter() {
        let description = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region came from `map_ram`: it is mapped with this size for the life of the process.
        unsafe { vm.set_user_memory_region(description)? };
        slot += 1;
    }
    Ok(slot)
}

/// Shows the register pages to the guest from `gpa` on, read-only: writes trap.
pub(super) fn set_register_slot(
    vm: &VmFd,
    slot: u32,
    gpa: u64,
    pages: &[RegisterPage],
) -> Result<(), kvm_ioctls::Error> {
    let Some(first) = pages.first() else { return Ok(()) };
    let description = kvm_userspace_memory_region {
        slot,
        flags: KVM_MEM_READONLY,
        guest_phys_addr: gpa,
        memory_size: pages.len() as u64 * 4096,
        userspace_addr: first.address() as u64,
    };
    // SAFETY: the pages came from one call of `map_register_pages`: they lie side by side, mapped for the life of the
    // process.
    unsafe { vm.set_user_memory_region(description) }
}

/// Maps private anonymous memory at a multiple of `alignment`, a power of two and a multiple of the page size.
fn map_aligned(bytes: usize, alignment: usize) -> io::Result<*mut libc::c_void> {
    let padded = bytes.checked_add(alignment).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            padded,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let head = start.align_offset(alignment);
    let aligned = start.wrapping_byte_add(head);
    let end = aligned.wrapping_byte_add(bytes);
    // SAFETY: both pieces lie inside the mapping made above and outside the part that is kept; an empty piece is
    // refused by the kernel without effect.
    unsafe {
        libc::munmap(start, head);
        libc::munmap(end, padded - head - bytes);
    }
    Ok(aligned)
}

/// The event's descriptor, borrowed as long as the event.
pub(super) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open and owned by `event`, which outlives the result.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
