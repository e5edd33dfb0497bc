//! The MP table, from which a kernel without ACPI learns its vCPUs, the I/O APIC and the interrupt lines
//! (Intel MultiProcessor Specification 1.4, chapter 4).

use super::layout;

const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 2;
const ISA_BUS: u8 = 0;
const ALL_LOCAL_APICS: u8 = 0xff;

const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;

const POINTER_BYTES: usize = 16;
const HEADER_BYTES: usize = 44;
/// What KVM's local APICs and I/O APIC report.
const APIC_VERSION: u8 = 0x14;

/// Floating pointer and table for `vcpus` processors, at [`layout::MP_TABLE`].
///
/// Processor and APIC ids are the vCPU's numbers, the I/O APIC's id the next one. Interrupts are edge-triggered and
/// active high, as the bus's default says (ISA). Only the `lines` in use are listed: the kernel programs each that is.
pub(crate) fn build(vcpus: u8, lines: impl Iterator<Item = u32>) -> Vec<u8> {
    let io_apic_id = vcpus;
    let mut entries = Vec::new();
    for vcpu in 0..vcpus {
        let flags = if vcpu == 0 { ENABLED | BOOT_PROCESSOR } else { ENABLED };
        entries.extend([PROCESSOR, vcpu, APIC_VERSION, flags]);
        // Signature and feature flags are informative: the kernel asks CPUID.
        entries.extend([0; 16]);
    }
    entries.extend([BUS, ISA_BUS]);
    entries.extend(b"ISA   ");
    entries.extend([IO_APIC, io_apic_id, APIC_VERSION, ENABLED]);
    entries.extend(layout::IOAPIC.to_le_bytes());
    let mut count = u16::from(vcpus) + 2;
    for line in lines {
        let [line, pin] = [line, layout::pin(line)].map(|number| u8::try_from(number).unwrap_or(0));
        entries.extend([IO_INTERRUPT, INT, 0, 0, ISA_BUS, line, io_apic_id, pin]);
        count += 1;
    }
    entries.extend([LOCAL_INTERRUPT, EXT_INT, 0, 0, ISA_BUS, 0, 0, 0]);
    entries.extend([LOCAL_INTERRUPT, NMI, 0, 0, ISA_BUS, 0, ALL_LOCAL_APICS, 1]);
    count += 2;

    let mut bytes = floating_pointer();
    bytes.extend(header(&entries, count));
    bytes.extend(entries);
    bytes
}

fn floating_pointer() -> Vec<u8> {
    let table = u32::try_from(layout::MP_TABLE.0).unwrap_or(0) + POINTER_BYTES as u32;
    let mut bytes = b"_MP_".to_vec();
    bytes.extend(table.to_le_bytes());
    // Length in paragraphs, revision 1.4, checksum, five feature bytes.
    bytes.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    set_checksum(&mut bytes, 10);
    bytes
}

fn header(entries: &[u8], count: u16) -> Vec<u8> {
    let length = u16::try_from(HEADER_BYTES + entries.len()).unwrap_or(0);
    let mut bytes = b"PCMP".to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend([4, 0]);
    bytes.extend(b"BULKHEAD");
    bytes.extend(b"microVM     ");
    bytes.extend([0; 6]);
    bytes.extend(count.to_le_bytes());
    bytes.extend(layout::LOCAL_APIC.to_le_bytes());
    bytes.extend([0; 4]);
    // The checksum covers header and entries together.
    let entries_sum = entries.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    set_checksum(&mut bytes, 7);
    if let Some(checksum) = bytes.get_mut(7) {
        *checksum = checksum.wrapping_sub(entries_sum);
    }
    bytes
}

/// Sets the byte at `position` so that all bytes add up to zero.
fn set_checksum(bytes: &mut [u8], position: usize) {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = bytes.get_mut(position) {
        *checksum = checksum.wrapping_sub(sum);
    }
}
