//! Why a configuration is refused.

use std::path::PathBuf;

/// A value of the configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file could not be opened or examined.
    #[error("{field}: cannot read {}: {source}", path.display())]
    Unreadable {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not JSON of the expected shape.
    #[error("--config: {} is not a VM configuration: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A number outside its range.
    #[error("{field} = {value}{unit}: allowed is {least} to {most}{unit}")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// Least allowed.
        least: u64,
        /// Greatest allowed.
        most: u64,
        /// What the numbers count, with a leading space, or nothing.
        unit: &'static str,
    },
    /// A string or path that breaks a rule.
    #[error("{field} = {value:?}: {rule}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// Two entries with the same identity.
    #[error("{field} = {value:?}: appears twice; it must be unique")]
    Duplicate {
        /// Name of the field.
        field: &'static str,
        /// The repeated value.
        value: String,
    },
    /// The guest's memory cannot hold what is loaded into it.
    #[error("memory_mib = {memory_mib}: too small for kernel and initramfs, which need {needed_mib} MiB")]
    BootFilesTooLarge {
        /// Configured memory.
        memory_mib: u32,
        /// Least memory that would do.
        needed_mib: u64,
    },
    /// The kernel is not one we can start.
    #[error("kernel: {} {source}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KernelError,
    },
}

/// Why a kernel image is refused. The messages continue a sentence that begins with the file's path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    /// The first bytes are not those of an ELF file.
    #[error("is not an ELF file; an uncompressed x86-64 vmlinux is needed")]
    NotElf,
    /// A compressed image with a boot stub.
    #[error(
        "is a bzImage; the uncompressed vmlinux inside it is needed (the kernel's scripts/extract-vmlinux makes it)"
    )]
    BzImage,
    /// 32-bit, or no valid class.
    #[error("is a {class} ELF file; a 64-bit one is needed")]
    Not64Bit {
        /// What it is.
        class: &'static str,
    },
    /// Big-endian.
    #[error("is a big-endian ELF file; x86-64 is little-endian")]
    BigEndian,
    /// Built for another machine.
    #[error("is for {name} (ELF machine {machine}); x86-64 (62) is needed")]
    OtherMachine {
        /// `e_machine`.
        machine: u16,
        /// Its usual name.
        name: &'static str,
    },
    /// An object file, a shared library, a core dump.
    #[error("has ELF type {elf_type}; an executable (2) is needed")]
    NotExecutable {
        /// `e_type`.
        elf_type: u16,
    },
    /// The file ends before something its headers promise.
    #[error("is truncated: its {what} ends at byte {end}, the file at {length}")]
    Truncated {
        /// What is cut.
        what: &'static str,
        /// Where it would end.
        end: u64,
        /// Length of the file.
        length: u64,
    },
    /// Headers that contradict themselves.
    #[error("has a damaged ELF header: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// No PVH entry.
    #[error("has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY); build the kernel with CONFIG_PVH=y")]
    NoPvhNote,
    /// Reading failed.
    #[error("cannot be read: {source}")]
    Unreadable {
        /// Why.
        source: std::io::Error,
    },
}
