//! Tells whether a file is a static x86-64 program (System V ABI, chapters 4 and 5).
//!
//! A guest whose `/init` needs a dynamic linker ends in a kernel panic that says "No such file"; the builder says why.

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EM_X86_64: u16 = 62;
const PT_INTERP: u32 = 3;
const PROGRAM_HEADER_SIZE: usize = 56;

/// `Err` with what is wrong if this is not a program the guest can start as its first.
pub(crate) fn check_static(file: &[u8]) -> Result<(), &'static str> {
    if !file.starts_with(MAGIC) {
        return Err("it is not an ELF file");
    }
    if file.get(4) != Some(&CLASS_64) || file.get(5) != Some(&LITTLE_ENDIAN) || u16_at(file, 18) != Some(EM_X86_64) {
        return Err("it is not a program for x86-64");
    }
    let truncated = "its ELF header is truncated";
    let table = u64_at(file, 32).and_then(|offset| usize::try_from(offset).ok()).ok_or(truncated)?;
    let entry_size = usize::from(u16_at(file, 54).ok_or(truncated)?);
    let count = usize::from(u16_at(file, 56).ok_or(truncated)?);
    if entry_size != PROGRAM_HEADER_SIZE || count == 0 {
        return Err("it has no program headers");
    }
    for index in 0..count {
        let offset = table.checked_add(index * PROGRAM_HEADER_SIZE).ok_or(truncated)?;
        if u32_at(file, offset).ok_or(truncated)? == PT_INTERP {
            return Err("it is dynamically linked");
        }
    }
    Ok(())
}

fn bytes_at<const N: usize>(file: &[u8], offset: usize) -> Option<[u8; N]> {
    file.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

fn u16_at(file: &[u8], offset: usize) -> Option<u16> {
    bytes_at(file, offset).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], offset: usize) -> Option<u32> {
    bytes_at(file, offset).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], offset: usize) -> Option<u64> {
    bytes_at(file, offset).map(u64::from_le_bytes)
}

/// The smallest file that passes: a header and one program header of type `segment`.
#[cfg(test)]
pub(crate) fn tiny(segment: u32) -> Vec<u8> {
    let mut file = vec![0; 64 + PROGRAM_HEADER_SIZE];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18] = 62;
    file[32] = 64;
    file[54] = 56;
    file[56] = 1;
    file[64..68].copy_from_slice(&segment.to_le_bytes());
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    const PT_LOAD: u32 = 1;

    #[test]
    fn a_static_program_passes() {
        assert_eq!(check_static(&tiny(PT_LOAD)), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(check_static(b"#!/bin/sh"), Err("it is not an ELF file"));
        assert_eq!(check_static(&tiny(PT_INTERP)), Err("it is dynamically linked"));
        let mut other_machine = tiny(PT_LOAD);
        other_machine[18] = 183;
        assert_eq!(check_static(&other_machine), Err("it is not a program for x86-64"));
        let this_test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(check_static(&this_test), Err("it is dynamically linked"));
    }

    #[test]
    fn no_truncation_is_accepted_or_panics() {
        let whole = tiny(PT_LOAD);
        for length in 0..whole.len() - PROGRAM_HEADER_SIZE + 4 {
            assert!(check_static(&whole[..length]).is_err(), "{length}");
        }
    }
}
