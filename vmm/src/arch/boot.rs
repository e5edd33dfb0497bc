//! Puts kernel, initramfs, command line and boot parameters into guest memory.

use std::io::{Seek, SeekFrom};

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::{layout, mptable, start_state};
use crate::config::{Initramfs, Kernel};

/// `boot_params.hdr.header`: the protocol's magic number, "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// `boot_params.hdr.boot_flag`.
const BOOT_FLAG: u16 = 0xaa55;
/// Boot protocol 2.12, the first with the 64-bit entry.
const PROTOCOL_VERSION: u16 = 0x020c;
/// `type_of_loader` without an assigned id.
const UNDEFINED_LOADER: u8 = 0xff;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
const PAGE_BYTES: u64 = 4096;

/// Guest memory could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// What is loaded does not fit where it must be.
    #[error("cannot place {what} in guest memory")]
    Placement {
        /// What was being placed.
        what: &'static str,
        /// Why.
        source: GuestMemoryError,
    },
    /// The file was there when the configuration was checked.
    #[error("cannot read {what}")]
    File {
        /// Which file.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The command line is longer than the kernel takes.
    #[error("the kernel command line has {bytes} bytes; the kernel takes {}: shorten cmdline_extra", layout::CMDLINE_BYTES_MAX - 1)]
    CmdlineTooLong {
        /// Its length.
        bytes: usize,
    },
    /// No room for the initramfs between kernel and end of memory.
    #[error("the initramfs ({bytes} bytes) does not fit between the kernel and the end of guest memory")]
    NoRoom {
        /// Its length.
        bytes: u64,
    },
}

/// What the guest is told about the machine it starts on.
pub(crate) struct Machine<'a> {
    /// Size of guest memory, as [`layout::ram`] lays it out.
    pub(crate) memory_bytes: u64,
    /// vCPUs.
    pub(crate) vcpus: u8,
    /// Virtio devices, whose interrupt lines begin at [`layout::FIRST_DEVICE_IRQ`].
    pub(crate) devices: u32,
    /// Kernel command line.
    pub(crate) cmdline: &'a str,
}

/// Fills guest memory with all the kernel needs to start.
pub(crate) fn load(
    memory: &GuestMemoryMmap,
    machine: &Machine<'_>,
    kernel: &Kernel,
    initramfs: &Initramfs,
) -> Result<(), BootError> {
    let &Machine { memory_bytes, vcpus, devices, cmdline } = machine;
    load_kernel(memory, kernel)?;
    let initramfs_gpa = load_initramfs(memory, memory_bytes, kernel.end_gpa(), initramfs)?;
    load_cmdline(memory, cmdline)?;
    let place = |what| move |source| BootError::Placement { what, source };
    let device_lines = layout::FIRST_DEVICE_IRQ..layout::FIRST_DEVICE_IRQ.saturating_add(devices);
    let mp_table = mptable::build(vcpus, std::iter::once(layout::SERIAL_IRQ).chain(device_lines));
    memory.write_slice(&mp_table, layout::MP_TABLE).map_err(place("the MP table"))?;
    start_state::write_tables(memory).map_err(place("page tables and GDT"))?;
    let parameters = parameters(memory_bytes, initramfs_gpa, initramfs.bytes, cmdline.len());
    memory.write_obj(parameters, layout::ZERO_PAGE).map_err(place("the boot parameters"))
}

fn load_kernel(memory: &GuestMemoryMmap, kernel: &Kernel) -> Result<(), BootError> {
    let mut file = &kernel.file;
    for segment in &kernel.segments {
        file.seek(SeekFrom::Start(segment.file_offset))
            .map_err(|source| BootError::File { what: "the kernel", source })?;
        let bytes = usize::try_from(segment.file_bytes).unwrap_or(usize::MAX);
        memory
            .read_exact_volatile_from(GuestAddress(segment.gpa), &mut file, bytes)
            .map_err(|source| BootError::Placement { what: "the kernel", source })?;
    }
    Ok(())
}

/// Loads the initramfs at the end of low memory, the farthest from the kernel, and returns its address.
fn load_initramfs(
    memory: &GuestMemoryMmap,
    memory_bytes: u64,
    kernel_end_gpa: u64,
    initramfs: &Initramfs,
) -> Result<u64, BootError> {
    let low_end = memory_bytes.min(layout::LOW_MEMORY_END);
    let no_room = BootError::NoRoom { bytes: initramfs.bytes };
    let gpa = match low_end.checked_sub(initramfs.bytes) {
        Some(gpa) if gpa & !(PAGE_BYTES - 1) >= kernel_end_gpa => gpa & !(PAGE_BYTES - 1),
        _ => return Err(no_room),
    };
    let mut file = &initramfs.file;
    file.rewind().map_err(|source| BootError::File { what: "the initramfs", source })?;
    let bytes = usize::try_from(initramfs.bytes).unwrap_or(usize::MAX);
    memory
        .read_exact_volatile_from(GuestAddress(gpa), &mut file, bytes)
        .map_err(|source| BootError::Placement { what: "the initramfs", source })?;
    Ok(gpa)
}

fn load_cmdline(memory: &GuestMemoryMmap, cmdline: &str) -> Result<(), BootError> {
    if cmdline.len() >= layout::CMDLINE_BYTES_MAX {
        return Err(BootError::CmdlineTooLong { bytes: cmdline.len() });
    }
    let place = |source| BootError::Placement { what: "the command line", source };
    memory.write_slice(cmdline.as_bytes(), layout::CMDLINE).map_err(place)?;
    let end = layout::CMDLINE.unchecked_add(cmdline.len() as u64);
    memory.write_obj(0_u8, end).map_err(place)
}

/// The zero page. All addresses in it are below 4 GiB by the layout.
fn parameters(memory_bytes: u64, initramfs_gpa: u64, initramfs_bytes: u64, cmdline_bytes: usize) -> boot_params {
    let mut parameters = boot_params::default();
    let low = |value: u64| u32::try_from(value).unwrap_or(0);
    parameters.hdr.header = HEADER_MAGIC;
    parameters.hdr.boot_flag = BOOT_FLAG;
    parameters.hdr.version = PROTOCOL_VERSION;
    parameters.hdr.type_of_loader = UNDEFINED_LOADER;
    parameters.hdr.cmd_line_ptr = low(layout::CMDLINE.raw_value());
    parameters.hdr.cmdline_size = low(cmdline_bytes as u64);
    parameters.hdr.ramdisk_image = low(initramfs_gpa);
    parameters.hdr.ramdisk_size = low(initramfs_bytes);
    let map = memory_map(memory_bytes);
    for (entry, (addr, size, type_)) in parameters.e820_table.iter_mut().zip(&map) {
        *entry = boot_e820_entry { addr: *addr, size: *size, type_: *type_ };
    }
    parameters.e820_entries = u8::try_from(map.len()).unwrap_or(0);
    parameters
}

/// The e820 map as (start, bytes, type).
pub(super) fn memory_map(memory_bytes: u64) -> Vec<(u64, u64, u32)> {
    let base_end = layout::MP_TABLE.raw_value();
    let mut map = vec![(0, base_end, E820_RAM), (base_end, layout::HIGH_MEMORY - base_end, E820_RESERVED)];
    for (start, bytes) in layout::ram(memory_bytes) {
        let skipped = layout::HIGH_MEMORY.saturating_sub(start.raw_value());
        map.push((start.raw_value() + skipped, bytes - skipped, E820_RAM));
    }
    map
}
