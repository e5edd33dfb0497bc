//! Refusals: each names the field, the value, and what is allowed.

use std::path::{Path, PathBuf};

use bulkhead_protocols::vm::{DiskConfig, ShareConfig, ShareEntry, VsockConfig};
use proptest::prelude::*;

use super::*;

const NOTE_AT: usize = 64 + 2 * 56;
const CODE_AT: usize = 0x1000;

/// A minimal kernel: a note segment and a loadable one at 16 MiB.
fn kernel_image() -> Vec<u8> {
    let mut image = vec![0; CODE_AT + 0x100];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(24, &0x100_0000_u64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &2_u16.to_le_bytes());
    program_header(&mut put, 64, 4, NOTE_AT as u64, 0, 20, 20);
    program_header(&mut put, 64 + 56, 1, CODE_AT as u64, 0x100_0000, 0x100, 0x2000);
    put(NOTE_AT, &4_u32.to_le_bytes());
    put(NOTE_AT + 4, &4_u32.to_le_bytes());
    put(NOTE_AT + 8, &18_u32.to_le_bytes());
    put(NOTE_AT + 12, b"Xen\0");
    image
}

fn program_header(
    put: &mut impl FnMut(usize, &[u8]),
    at: usize,
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
) {
    put(at, &kind.to_le_bytes());
    put(at + 8, &offset.to_le_bytes());
    put(at + 24, &address.to_le_bytes());
    put(at + 32, &file_bytes.to_le_bytes());
    put(at + 40, &memory_bytes.to_le_bytes());
}

/// A directory with everything a good configuration names.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vmlinux"), kernel_image()).unwrap();
        std::fs::write(dir.path().join("initramfs"), b"070701").unwrap();
        std::fs::write(dir.path().join("disk"), [0; 4096]).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn wire(&self) -> VmConfig {
        VmConfig {
            accelerator: Accelerator::Kvm,
            kernel: self.path("vmlinux"),
            initramfs: self.path("initramfs"),
            cmdline_extra: String::new(),
            vcpus: 1,
            memory_mib: 128,
            huge_pages: false,
            vsock: VsockConfig { guest_cid: 3, uds: self.path("vsock") },
            shares: vec![self.share("layers")],
            disks: vec![self.disk("scratch")],
            control_socket: self.path("control"),
            console_bytes: 65536,
            runtime_dir: self.dir.path().to_owned(),
        }
    }

    fn share(&self, tag: &str) -> ShareConfig {
        let entry = ShareEntry { name: "a".to_owned(), source: self.dir.path().to_owned(), read_only: true };
        ShareConfig { tag: tag.to_owned(), caching: Caching::Immutable, entries: vec![entry] }
    }

    fn disk(&self, serial: &str) -> DiskConfig {
        DiskConfig { path: self.path("disk"), read_only: false, serial: serial.to_owned() }
    }

    /// The message with which a changed configuration is refused.
    fn refusal(&self, change: impl FnOnce(&mut VmConfig)) -> String {
        let mut wire = self.wire();
        change(&mut wire);
        Config::try_from(wire).expect_err("must be refused").to_string()
    }

    fn kernel_refusal(&self, image: &[u8]) -> String {
        std::fs::write(self.path("bad"), image).unwrap();
        self.refusal(|wire| wire.kernel = self.path("bad"))
    }
}

#[test]
fn a_good_configuration_is_accepted() {
    let config = Config::try_from(Host::new().wire()).unwrap();
    assert_eq!(config.kernel.entry_gpa, 0x100_0000);
    assert_eq!(config.kernel.end_gpa(), 0x100_2000);
    assert_eq!(config.vsock.guest_cid.get(), 3);
}

#[test]
fn numbers_out_of_range_name_value_and_range() {
    let host = Host::new();
    assert!(host.refusal(|wire| wire.memory_mib = 63).contains("memory_mib = 63 MiB: allowed is 64 to"));
    assert!(host.refusal(|wire| wire.memory_mib = u32::MAX).contains("memory_mib = 4294967295 MiB"));
    assert_eq!(host.refusal(|wire| wire.vcpus = 0), "vcpus = 0: allowed is 1 to 32");
    assert_eq!(host.refusal(|wire| wire.vcpus = 33), "vcpus = 33: allowed is 1 to 32");
    assert!(host.refusal(|wire| wire.vsock.guest_cid = 2).starts_with("vsock.guest_cid = 2: allowed is 3 to"));
    assert!(host.refusal(|wire| wire.vsock.guest_cid = u32::MAX).starts_with("vsock.guest_cid = 4294967295"));
    assert!(host.refusal(|wire| wire.console_bytes = 0).starts_with("console_bytes = 0 bytes"));
}

#[test]
fn names_and_identities_are_checked() {
    let host = Host::new();
    for tag in ["", "a b", "ä", &"x".repeat(37)] {
        assert!(host.refusal(|wire| wire.shares[0].tag = tag.to_owned()).starts_with("shares.tag = "), "{tag}");
    }
    for name in ["", ".", "..", "a/b", "a\0", &"x".repeat(256)] {
        let message = host.refusal(|wire| wire.shares[0].entries[0].name = name.to_owned());
        assert!(message.starts_with("shares.entries.name = "), "{message}");
    }
    for serial in ["", "Upper", "under_score", "much-too-long-a-serial"] {
        assert!(host.refusal(|wire| wire.disks[0].serial = serial.to_owned()).starts_with("disks.serial = "));
    }
    let twice = host.refusal(|wire| wire.shares.push(host.share("layers")));
    assert_eq!(twice, "shares.tag = \"layers\": appears twice; it must be unique");
    assert!(host.refusal(|wire| wire.disks.push(host.disk("scratch"))).contains("\"scratch\": appears twice"));
    let writable = host.refusal(|wire| wire.shares[0].entries[0].read_only = false);
    assert!(writable.contains("must be read_only"), "{writable}");
    let many = host.refusal(|wire| wire.disks = (0..20).map(|n| host.disk(&n.to_string())).collect());
    assert_eq!(many, "shares and disks = 21: allowed is 0 to 17");
}

#[test]
fn files_that_are_missing_or_of_another_kind_are_named() {
    let host = Host::new();
    let missing = host.refusal(|wire| wire.kernel = "/nonexistent/vmlinux".into());
    assert_eq!(missing, "kernel: cannot read /nonexistent/vmlinux: No such file or directory (os error 2)");
    assert!(host.refusal(|wire| wire.initramfs = "/nonexistent".into()).starts_with("initramfs: cannot read"));
    assert!(host.refusal(|wire| wire.initramfs = "/".into()).contains("must be a regular file"));
    assert!(host.refusal(|wire| wire.disks[0].path = "/dev/null".into()).contains("a regular file or a block device"));
    assert!(host.refusal(|wire| wire.shares[0].entries[0].source = "/dev/null".into()).contains("a directory or"));
    assert!(host.refusal(|wire| wire.shares[0].entries[0].source = "relative".into()).contains("absolute"));
    assert!(host.refusal(|wire| wire.runtime_dir = "/".into()).contains("two levels deep"));
    assert!(host.refusal(|wire| wire.control_socket = "/nonexistent/s".into()).contains("directory does not exist"));
    let long = Path::new("/tmp").join("x".repeat(93));
    assert!(host.refusal(|wire| wire.vsock.uds = long.clone()).contains("too long for a UNIX socket"));
    std::fs::write(host.path("empty"), []).unwrap();
    assert!(host.refusal(|wire| wire.initramfs = host.path("empty")).contains("is empty"));
}

#[test]
fn an_unknown_field_or_no_json_is_refused_with_its_place() {
    let host = Host::new();
    let path = host.path("vm.json");
    let mut wire = serde_json::to_value(host.wire()).unwrap();
    wire["memroy_mib"] = 1.into();
    std::fs::write(&path, wire.to_string()).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("unknown field `memroy_mib`"));
    std::fs::write(&path, "not json").unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("is not a VM configuration: expected"));
    std::fs::write(&path, "").unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("--config = 0 bytes"));
}

#[test]
fn words_for_the_command_line_are_printable_and_bounded() {
    let host = Host::new();
    assert!(host.refusal(|wire| wire.cmdline_extra = "a\nb".to_owned()).starts_with("cmdline_extra = \"a\\nb\""));
    let long = host.refusal(|wire| wire.cmdline_extra = "x".repeat(1025));
    assert!(long.len() < 300, "a long value is shown cut");
}

#[test]
fn kernels_that_cannot_be_started_are_refused_with_the_reason() {
    let host = Host::new();
    let changed = |at: usize, bytes: &[u8]| {
        let mut image = kernel_image();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        host.kernel_refusal(&image)
    };
    assert!(host.kernel_refusal(b"#!/bin/sh\n").contains("is not an ELF file"));
    assert!(host.kernel_refusal(b"").contains("is not an ELF file"));
    let mut bzimage = vec![0; 0x300];
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    assert!(host.kernel_refusal(&bzimage).contains("is a bzImage"));
    assert!(changed(4, &[1]).contains("is a 32-bit ELF file"));
    assert!(changed(5, &[2]).contains("big-endian"));
    assert!(changed(18, &183_u16.to_le_bytes()).contains("is for AArch64 (ELF machine 183)"));
    assert!(changed(16, &1_u16.to_le_bytes()).contains("ELF type 1"));
    assert!(changed(NOTE_AT + 8, &[17]).contains("has no PVH entry note"));
    assert!(changed(24, &0_u64.to_le_bytes()).contains("entry point is outside"));
    assert!(changed(64 + 56 + 24, &0x1000_u64.to_le_bytes()).contains("below 1 MiB"));
    assert!(changed(56, &[0, 0]).contains("no program headers"));
}

#[test]
fn a_truncated_kernel_is_refused_wherever_it_is_cut() {
    let host = Host::new();
    let image = kernel_image();
    for cut in [5, 63, 64, 100, NOTE_AT, NOTE_AT + 19, CODE_AT, image.len() - 1] {
        let message = host.kernel_refusal(&image[..cut]);
        assert!(message.contains("is truncated"), "cut at {cut}: {message}");
    }
}

#[test]
fn kernel_and_initramfs_must_fit() {
    let host = Host::new();
    let mut image = kernel_image();
    image[64 + 56 + 40..][..8].copy_from_slice(&(200_u64 << 20).to_le_bytes());
    assert_eq!(host.kernel_refusal(&image), "memory_mib = 128: too small for kernel and initramfs, which need 233 MiB");
}

proptest! {
    #[test]
    fn a_damaged_kernel_never_panics(damage in proptest::collection::vec((0_usize..NOTE_AT + 20, any::<u8>()), 1..20)) {
        let host = Host::new();
        let mut image = kernel_image();
        for (at, byte) in damage {
            image[at] = byte;
        }
        std::fs::write(host.path("vmlinux"), image).unwrap();
        if let Ok(kernel) = Kernel::open(&host.path("vmlinux")) {
            prop_assert!(kernel.segments.iter().all(|segment| segment.gpa >= 1 << 20));
        }
    }
}
