//! Where everything is in the guest's physical address space.
//!
//! ```text
//!        0  boot data: GDT, zero page, page tables, command line (free memory to the kernel afterwards)
//!  0x9fc00  MP table, in the last KiB of base memory where Linux looks for it; reserved
//!    1 MiB  RAM: the kernel at its link address (16 MiB), the initramfs at the end
//!    3 GiB  hole: register pages of the virtio-mmio devices (0xd000_0000), IOAPIC, LAPIC, KVM's own pages
//!    4 GiB  the rest of RAM
//! ```

use vm_memory::GuestAddress;

/// Global descriptor table of the start state, four entries.
pub(crate) const GDT: GuestAddress = GuestAddress(0x500);
/// `boot_params`, one page.
pub(crate) const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
/// Page tables of the start state: PML4, page directory pointers, one page directory.
pub(crate) const PML4: GuestAddress = GuestAddress(0x9000);
/// Second level.
pub(crate) const PAGE_DIRECTORY_POINTERS: GuestAddress = GuestAddress(0xa000);
/// Third level: 512 pages of 2 MiB.
pub(crate) const PAGE_DIRECTORY: GuestAddress = GuestAddress(0xb000);
/// Stack of the start state grows down from here; the kernel sets its own at once.
pub(crate) const BOOT_STACK: GuestAddress = GuestAddress(0x8ff0);
/// Kernel command line.
pub(crate) const CMDLINE: GuestAddress = GuestAddress(0x2_0000);
/// Linux's `COMMAND_LINE_SIZE` on x86, the NUL included.
pub(crate) const CMDLINE_BYTES_MAX: usize = 2048;

/// The MP floating pointer: Linux scans the last KiB of base memory, 639 KiB.
pub(crate) const MP_TABLE: GuestAddress = GuestAddress(0x9_fc00);
/// Where extended memory begins.
pub(crate) const HIGH_MEMORY: u64 = 1 << 20;

/// End of RAM below the hole.
pub(crate) const LOW_MEMORY_END: u64 = 3 << 30;
/// Where RAM goes on above the hole.
pub(crate) const HIGH_MEMORY_ABOVE_HOLE: u64 = 4 << 30;

/// Register pages of the virtio-mmio devices, [`MMIO_PAGE_BYTES`] each, side by side.
pub(crate) const MMIO_BASE: u64 = 0xd000_0000;
/// A device takes one page, so that a read-only memory slot can back it.
pub(crate) const MMIO_PAGE_BYTES: u64 = 0x1000;

/// Our I/O APIC; the page before it is where KVM's is.
pub(crate) const IOAPIC: u32 = 0xfec0_1000;
/// Local APIC, the reset value of its base.
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// Intel's KVM needs four pages of guest address space: one identity map and a three-page TSS behind it.
pub(crate) const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
/// See [`KVM_IDENTITY_MAP`].
pub(crate) const KVM_TSS: usize = 0xfeff_d000;

/// Interrupt line of the serial port.
pub(crate) const SERIAL_IRQ: u32 = 4;
/// First interrupt line for a virtio device; those below belong to legacy devices by convention.
pub(crate) const FIRST_DEVICE_IRQ: u32 = 5;
/// Last interrupt line for a device.
const LAST_IRQ: u32 = 23;
/// Lines below this are numbered by the ISA bus; the numbers of those from here on are the I/O APIC's.
const ISA_IRQS: u32 = 16;
/// Devices of one VM: an edge-triggered line each.
pub(crate) const DEVICES_MAX: usize = (LAST_IRQ - FIRST_DEVICE_IRQ + 1) as usize;

/// The I/O APIC's pin of an interrupt line: as few pins as possible, since a kernel initializes each.
pub(crate) fn pin(irq: u32) -> u32 {
    if irq < ISA_IRQS { irq.saturating_sub(SERIAL_IRQ) } else { irq }
}

/// RAM of a guest with `memory_bytes`, as (start, bytes), split around the hole.
pub(crate) fn ram(memory_bytes: u64) -> Vec<(GuestAddress, u64)> {
    let low = memory_bytes.min(LOW_MEMORY_END);
    let mut ranges = vec![(GuestAddress(0), low)];
    if memory_bytes > low {
        ranges.push((GuestAddress(HIGH_MEMORY_ABOVE_HOLE), memory_bytes - low));
    }
    ranges
}
