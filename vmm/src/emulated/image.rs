//! The guest of the probe: the smallest ELF kernel with a PVH entry that says something and stops.

use std::io::Write;

/// What the guest writes to its serial port.
pub(super) const MESSAGE: &[u8] = b"BULKHEAD PROBE\n";

/// Where the file is loaded, as a whole.
const LOAD_GPA: u32 = 0x10_0000;
const HEADER_BYTES: u16 = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;
const NOTE_OFFSET: u32 = HEADER_BYTES as u32 + 2 * PROGRAM_HEADER_BYTES as u32;
/// Three words, the name `Xen` and an address of eight bytes.
const NOTE_BYTES: u32 = 24;
const CODE_OFFSET: u32 = NOTE_OFFSET + NOTE_BYTES;
const CODE_BYTES: u32 = 25;
const MESSAGE_OFFSET: u32 = CODE_OFFSET + CODE_BYTES;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the address at which a PVH loader starts the kernel, in 32-bit protected mode.
const NOTE_TYPE: u32 = 18;

/// The image, a few hundred bytes.
pub(super) fn build() -> std::io::Result<Vec<u8>> {
    let mut image = Vec::new();
    let message = [MESSAGE, &[0]].concat();
    let total_bytes = MESSAGE_OFFSET + u32::try_from(message.len()).unwrap_or(u32::MAX);
    header(&mut image)?;
    // PT_LOAD, readable, writable and executable; PT_NOTE, readable.
    program_header(&mut image, [1, 7], [0, total_bytes], 4096)?;
    program_header(&mut image, [4, 4], [NOTE_OFFSET, NOTE_BYTES], 4)?;
    for word in [4, 8, NOTE_TYPE] {
        image.write_all(&word.to_le_bytes())?;
    }
    image.write_all(b"Xen\0")?;
    image.write_all(&u64::from(LOAD_GPA + CODE_OFFSET).to_le_bytes())?;
    code(&mut image)?;
    image.write_all(&message)?;
    Ok(image)
}

fn header(image: &mut Vec<u8>) -> std::io::Result<()> {
    // 64-bit, little-endian, version 1.
    image.write_all(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")?;
    // An executable for x86-64.
    for half in [2_u16, 62] {
        image.write_all(&half.to_le_bytes())?;
    }
    image.write_all(&1_u32.to_le_bytes())?;
    // Entry, program headers, section headers.
    for address in [u64::from(LOAD_GPA + CODE_OFFSET), u64::from(HEADER_BYTES), 0] {
        image.write_all(&address.to_le_bytes())?;
    }
    image.write_all(&0_u32.to_le_bytes())?;
    for half in [HEADER_BYTES, PROGRAM_HEADER_BYTES, 2, 0, 0, 0] {
        image.write_all(&half.to_le_bytes())?;
    }
    Ok(())
}

fn program_header(image: &mut Vec<u8>, kind: [u32; 2], extent: [u32; 2], align: u64) -> std::io::Result<()> {
    for word in kind {
        image.write_all(&word.to_le_bytes())?;
    }
    let [offset, bytes] = extent.map(u64::from);
    let gpa = u64::from(LOAD_GPA) + offset;
    for long in [offset, gpa, gpa, bytes, bytes, align] {
        image.write_all(&long.to_le_bytes())?;
    }
    Ok(())
}

/// 32-bit code: writes the message byte by byte to the first serial port, then faults three times, which ends the VM.
fn code(image: &mut Vec<u8>) -> std::io::Result<()> {
    image.write_all(&[0xbe])?; // mov esi, message
    image.write_all(&(LOAD_GPA + MESSAGE_OFFSET).to_le_bytes())?;
    image.write_all(&[0x66, 0xba, 0xf8, 0x03])?; // mov dx, 0x3f8
    image.write_all(&[0xac])?; // next: lodsb
    image.write_all(&[0x84, 0xc0])?; // test al, al
    image.write_all(&[0x74, 0x03])?; // jz done
    image.write_all(&[0xee])?; // out dx, al
    image.write_all(&[0xeb, 0xf8])?; // jmp next
    image.write_all(&[0x0f, 0x01, 0x1d])?; // done: lidt [zeros behind the message]: a table without entries
    image.write_all(&(LOAD_GPA + MESSAGE_OFFSET + 1024).to_le_bytes())?;
    image.write_all(&[0xcc]) // int3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_and_the_message_are_where_the_headers_say() {
        let image = build().unwrap();
        let entry = u64::from_le_bytes(image[24..32].try_into().unwrap()) - u64::from(LOAD_GPA);
        assert_eq!(image[usize::try_from(entry).unwrap()], 0xbe);
        let message = u32::from_le_bytes(image[CODE_OFFSET as usize + 1..][..4].try_into().unwrap()) - LOAD_GPA;
        assert_eq!(image.len(), MESSAGE_OFFSET as usize + MESSAGE.len() + 1);
        assert_eq!(&image[message as usize..], [MESSAGE, b"\0"].concat());
    }
}
