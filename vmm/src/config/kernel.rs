//! The kernel image: an ELF file that is fully checked before either accelerator is given it.
//!
//! Nothing in the file is trusted: offsets and sizes are checked against the file's length, addresses against each
//! other, and nothing is allocated by a size the file states.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{ConfigError, KernelError};

const ELF_MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXECUTABLE: u16 = 2;
const MACHINE_X86_64: u16 = 62;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// A vmlinux has about five.
const PROGRAM_HEADERS_MAX: u16 = 64;
/// A vmlinux's notes are a few hundred bytes.
const NOTES_BYTES_MAX: u64 = 64 << 10;
/// Note type of the 32-bit entry point (Linux, include/xen/interface/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
/// Where a bzImage's setup header has its magic number (Linux boot protocol).
const BZIMAGE_MAGIC_AT: u64 = 0x202;
/// The first MiB belongs to boot data and legacy areas.
const LOWEST_GPA: u64 = 1 << 20;

/// A kernel image that is complete and made for this machine.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Open for reading: the very file that was checked.
    pub(crate) file: File,
    /// Guest address of the 64-bit entry point, inside a segment.
    pub(crate) entry_gpa: u64,
    /// What is loaded, sorted by address, without overlap, from 1 MiB up; never empty.
    pub(crate) segments: Vec<Segment>,
}

/// One loadable part of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it is in the file.
    pub(crate) file_offset: u64,
    /// How much of it is in the file; the rest of its memory is zero.
    pub(crate) file_bytes: u64,
    /// Where it goes.
    pub(crate) gpa: u64,
    /// How much memory it takes, `file_bytes` or more.
    pub(crate) memory_bytes: u64,
}

impl Segment {
    /// The first address behind it.
    pub(crate) fn end_gpa(&self) -> u64 {
        self.gpa.saturating_add(self.memory_bytes)
    }
}

impl Kernel {
    /// Opens and checks an image.
    pub(crate) fn open(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { field: "kernel", path: path.to_owned(), source };
        let file = super::rules::open_regular("kernel", path)?;
        let length = file.metadata().map_err(unreadable)?.len();
        Image { file: &file, length }
            .parse()
            .map_err(|source| ConfigError::Kernel { path: path.to_owned(), source })
            .map(|(entry_gpa, segments)| Self { file, entry_gpa, segments })
    }

    /// The first address behind the kernel.
    pub(crate) fn end_gpa(&self) -> u64 {
        self.segments.last().map_or(LOWEST_GPA, Segment::end_gpa)
    }
}

/// A file with its length, read at checked places.
struct Image<'a> {
    file: &'a File,
    length: u64,
}

impl Image<'_> {
    fn parse(&self) -> Result<(u64, Vec<Segment>), KernelError> {
        let header = self.header()?;
        let mut segments = Vec::new();
        let mut has_pvh_note = false;
        for program_header in self.program_headers(&header)? {
            match field_u32(&program_header, 0) {
                SEGMENT_LOAD => segments.extend(self.segment(&program_header)?),
                SEGMENT_NOTE => has_pvh_note |= self.has_pvh_note(&program_header)?,
                _ => {}
            }
        }
        if !has_pvh_note {
            return Err(KernelError::NoPvhNote);
        }
        segments.sort_by_key(|segment| segment.gpa);
        let overlap = segments.iter().zip(segments.iter().skip(1)).any(|(low, high)| low.end_gpa() > high.gpa);
        if overlap {
            return Err(KernelError::Damaged { what: "segments overlap" });
        }
        let entry_gpa = field_u64(&header, 24);
        if !segments.iter().any(|segment| (segment.gpa..segment.end_gpa()).contains(&entry_gpa)) {
            return Err(KernelError::Damaged { what: "the entry point is outside every segment" });
        }
        Ok((entry_gpa, segments))
    }

    fn header(&self) -> Result<[u8; HEADER_BYTES], KernelError> {
        let mut magic = [0; 4];
        if self.length < 4 {
            return Err(KernelError::NotElf);
        }
        self.read(0, &mut magic, "ELF header")?;
        if magic != ELF_MAGIC {
            let mut setup = [0; 4];
            let is_bzimage = self.read(BZIMAGE_MAGIC_AT, &mut setup, "header").is_ok() && &setup == b"HdrS";
            return Err(if is_bzimage { KernelError::BzImage } else { KernelError::NotElf });
        }
        let mut header = [0; HEADER_BYTES];
        self.read(0, &mut header, "ELF header")?;
        match header[4] {
            CLASS_64 => {}
            1 => return Err(KernelError::Not64Bit { class: "32-bit" }),
            _ => return Err(KernelError::Damaged { what: "unknown class" }),
        }
        if header[5] != LITTLE_ENDIAN {
            return Err(KernelError::BigEndian);
        }
        let machine = field_u16(&header, 18);
        if machine != MACHINE_X86_64 {
            return Err(KernelError::OtherMachine { machine, name: machine_name(machine) });
        }
        let elf_type = field_u16(&header, 16);
        if elf_type != TYPE_EXECUTABLE {
            return Err(KernelError::NotExecutable { elf_type });
        }
        Ok(header)
    }

    fn program_headers(&self, header: &[u8]) -> Result<Vec<[u8; PROGRAM_HEADER_BYTES]>, KernelError> {
        if usize::from(field_u16(header, 54)) != PROGRAM_HEADER_BYTES {
            return Err(KernelError::Damaged { what: "program headers have an unknown size" });
        }
        let count = field_u16(header, 56);
        if count == 0 || count > PROGRAM_HEADERS_MAX {
            return Err(KernelError::Damaged { what: "no program headers, or more than a kernel has" });
        }
        let mut offset = field_u64(header, 32);
        let mut headers = Vec::with_capacity(count.into());
        for _ in 0..count {
            let mut program_header = [0; PROGRAM_HEADER_BYTES];
            self.read(offset, &mut program_header, "program headers")?;
            headers.push(program_header);
            offset = offset.saturating_add(PROGRAM_HEADER_BYTES as u64);
        }
        Ok(headers)
    }

    /// The segment a program header describes; none if it takes no memory.
    fn segment(&self, program_header: &[u8]) -> Result<Option<Segment>, KernelError> {
        let segment = Segment {
            file_offset: field_u64(program_header, 8),
            gpa: field_u64(program_header, 24),
            file_bytes: field_u64(program_header, 32),
            memory_bytes: field_u64(program_header, 40),
        };
        if segment.memory_bytes == 0 {
            return Ok(None);
        }
        self.within(segment.file_offset, segment.file_bytes, "segment")?;
        if segment.memory_bytes < segment.file_bytes {
            return Err(KernelError::Damaged { what: "a segment is larger in the file than in memory" });
        }
        if segment.gpa < LOWEST_GPA || segment.gpa.checked_add(segment.memory_bytes).is_none() {
            return Err(KernelError::Damaged { what: "a segment's address is below 1 MiB or wraps around" });
        }
        Ok(Some(segment))
    }

    /// Whether the notes of a segment have the 32-bit entry point that QEMU needs.
    fn has_pvh_note(&self, program_header: &[u8]) -> Result<bool, KernelError> {
        let offset = field_u64(program_header, 8);
        let length = field_u64(program_header, 32);
        self.within(offset, length, "notes")?;
        if length > NOTES_BYTES_MAX {
            return Err(KernelError::Damaged { what: "more notes than a kernel has" });
        }
        let mut notes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.read(offset, &mut notes, "notes")?;
        let mut rest = notes.as_slice();
        while let Some((header, body)) = rest.split_at_checked(12) {
            let (name_bytes, payload_bytes) = (field_u32(header, 0) as usize, field_u32(header, 4) as usize);
            let is_entry = field_u32(header, 8) == XEN_ELFNOTE_PHYS32_ENTRY && payload_bytes >= 4;
            if is_entry && body.get(..name_bytes) == Some(b"Xen\0") {
                return Ok(true);
            }
            let skip = name_bytes.next_multiple_of(4).saturating_add(payload_bytes.next_multiple_of(4));
            rest = body.get(skip..).unwrap_or_default();
        }
        Ok(false)
    }

    fn within(&self, offset: u64, bytes: u64, what: &'static str) -> Result<(), KernelError> {
        let end = offset.saturating_add(bytes);
        if end > self.length { Err(KernelError::Truncated { what, end, length: self.length }) } else { Ok(()) }
    }

    fn read(&self, offset: u64, bytes: &mut [u8], what: &'static str) -> Result<(), KernelError> {
        self.within(offset, bytes.len() as u64, what)?;
        self.file.read_exact_at(bytes, offset).map_err(|source| KernelError::Unreadable { source })
    }
}

/// Fields outside the slice read as zero; callers pass whole headers.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn field_u16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(field(bytes, offset))
}

fn field_u32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(field(bytes, offset))
}

fn field_u64(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(field(bytes, offset))
}

/// Usual names of the machines a kernel is likely to be built for (ELF specification, `e_machine`).
fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => "i386",
        8 => "MIPS",
        21 => "PowerPC 64",
        22 => "S/390",
        40 => "Arm",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => "another machine",
    }
}
