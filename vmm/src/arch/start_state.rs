//! Registers, page tables and descriptor table with which the boot vCPU enters the kernel.
//!
//! The 64-bit boot protocol wants long mode, the first GiB mapped to itself, flat segments with the selectors 0x10
//! (code) and 0x18 (data), interrupts off, and the zero page's address in RSI.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Address, Bytes, GuestMemoryError, GuestMemoryMmap};

use super::layout;

const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
/// Present, long-mode code, execute/read, accessed.
const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
/// Present, data, read/write, accessed.
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;

const PRESENT_WRITABLE: u64 = 0x3;
const LARGE_PAGE: u64 = 0x80;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const ENTRIES: u64 = 512;

const CR0_PROTECTION: u64 = 1 << 0;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE_ENABLE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
/// The bit of RFLAGS that is always one.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// Writes descriptor table and page tables.
pub(crate) fn write_tables(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    for (index, descriptor) in [0, 0, CODE_DESCRIPTOR, DATA_DESCRIPTOR].into_iter().enumerate() {
        memory.write_obj::<u64>(descriptor, layout::GDT.unchecked_add(index as u64 * 8))?;
    }
    memory.write_obj(layout::PAGE_DIRECTORY_POINTERS.raw_value() | PRESENT_WRITABLE, layout::PML4)?;
    memory.write_obj(layout::PAGE_DIRECTORY.raw_value() | PRESENT_WRITABLE, layout::PAGE_DIRECTORY_POINTERS)?;
    for index in 0..ENTRIES {
        let entry = (index * LARGE_PAGE_BYTES) | PRESENT_WRITABLE | LARGE_PAGE;
        memory.write_obj(entry, layout::PAGE_DIRECTORY.unchecked_add(index * 8))?;
    }
    Ok(())
}

/// General registers of the boot vCPU.
pub(crate) fn registers(entry_gpa: u64) -> kvm_regs {
    kvm_regs {
        rip: entry_gpa,
        rsi: layout::ZERO_PAGE.raw_value(),
        rsp: layout::BOOT_STACK.raw_value(),
        rbp: layout::BOOT_STACK.raw_value(),
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    }
}

/// Changes the reset state's special registers to those of the boot vCPU.
pub(crate) fn set_special_registers(registers: &mut kvm_sregs) {
    set_segments(registers, true);
    registers.cr3 = layout::PML4.raw_value();
    registers.cr4 |= CR4_PHYSICAL_ADDRESS_EXTENSION;
    registers.cr0 |= CR0_PROTECTION | CR0_EXTENSION_TYPE | CR0_PAGING;
    registers.efer |= EFER_LONG_MODE_ENABLE | EFER_LONG_MODE_ACTIVE;
}

/// Changes the reset state's special registers to 32-bit protected mode without paging, with the same descriptor table.
pub(crate) fn set_protected_mode(registers: &mut kvm_sregs) {
    set_segments(registers, false);
    registers.cr0 |= CR0_PROTECTION | CR0_EXTENSION_TYPE;
}

fn set_segments(registers: &mut kvm_sregs, long_mode: bool) {
    let data = segment(DATA_SELECTOR, 0x3, false);
    registers.cs = segment(CODE_SELECTOR, 0xb, long_mode);
    (registers.ds, registers.es, registers.fs, registers.gs, registers.ss) = (data, data, data, data, data);
    registers.gdt.base = layout::GDT.raw_value();
    registers.gdt.limit = 4 * 8 - 1;
    registers.idt.base = 0;
    registers.idt.limit = 0;
}

/// A flat segment as the descriptor of that selector would load it.
fn segment(selector: u16, type_: u8, long_mode: bool) -> kvm_segment {
    kvm_segment {
        selector,
        type_,
        base: 0,
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        l: u8::from(long_mode),
        db: u8::from(!long_mode),
        ..Default::default()
    }
}
