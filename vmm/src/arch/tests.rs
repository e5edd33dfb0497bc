use super::{boot, layout, mptable};

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

#[test]
fn mp_table_has_the_specified_bytes_for_two_vcpus() {
    let table = mptable::build(2, 4..=6);
    let (pointer, rest) = table.split_at(16);
    assert_eq!(&pointer[..4], b"_MP_");
    assert_eq!(u32::from_le_bytes(pointer[4..8].try_into().unwrap()), 0x9fc10, "the table follows the pointer");
    assert_eq!((pointer[8], pointer[9]), (1, 4), "one paragraph, revision 1.4");
    assert_eq!(sum(pointer), 0);

    assert_eq!(&rest[..4], b"PCMP");
    assert_eq!(usize::from(u16::from_le_bytes([rest[4], rest[5]])), rest.len(), "base table length");
    assert_eq!(rest[6], 4, "revision 1.4");
    assert_eq!(sum(rest), 0);
    let entries = u16::from_le_bytes([rest[34], rest[35]]);
    assert_eq!(entries, 2 + 1 + 1 + 3 + 2);
    assert_eq!(&rest[36..40], &0xfee0_0000_u32.to_le_bytes());

    let entry = &rest[44..];
    assert_eq!(&entry[..4], &[0, 0, 0x14, 3], "vCPU 0 is enabled and boots");
    assert_eq!(&entry[20..24], &[0, 1, 0x14, 1], "vCPU 1 is enabled");
    assert_eq!(&entry[40..48], b"\x01\0ISA   ");
    assert_eq!(&entry[48..56], &[2, 2, 0x14, 1, 0, 0x10, 0xc0, 0xfe]);
    let line = &entry[56 + 8..][..8];
    assert_eq!(line, &[3, 0, 0, 0, 0, 5, 2, 1], "line 5 reaches pin 1 of the I/O APIC");
}

#[test]
fn mp_table_of_the_largest_vm_fits_its_kibibyte() {
    let most = u8::try_from(bulkhead_protocols::wire::VCPUS_MAX).unwrap();
    assert!(mptable::build(most, 0..24).len() <= 1024);
}

#[test]
fn memory_map_keeps_the_hole_free() {
    const GIB: u64 = 1 << 30;
    assert_eq!(boot::memory_map(128 << 20)[2..], [(1 << 20, 127 << 20, 1)]);
    assert_eq!(boot::memory_map(3 * GIB)[2..], [(1 << 20, 3 * GIB - (1 << 20), 1)]);
    assert_eq!(boot::memory_map(5 * GIB)[2..], [(1 << 20, 3 * GIB - (1 << 20), 1), (4 * GIB, 2 * GIB, 1)]);
    assert_eq!(boot::memory_map(128 << 20)[..2], [(0, 0x9fc00, 1), (0x9fc00, 0x60400, 2)]);
}

#[test]
fn device_pages_lie_in_the_hole() {
    let end = layout::MMIO_BASE + layout::DEVICES_MAX as u64 * layout::MMIO_PAGE_BYTES;
    assert!(layout::MMIO_BASE >= layout::LOW_MEMORY_END && end <= u64::from(layout::IOAPIC));
}
