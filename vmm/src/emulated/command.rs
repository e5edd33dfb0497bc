//! QEMU's command line: which machine, which devices, and which descriptors it inherits.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bulkhead_protocols::wire::{KERNEL_CMDLINE, MEMORY_MIN_MIB};

use super::boot_files::BootFiles;
use crate::config::{Config, Disk};
use crate::vhost_user::Endpoint;

/// The program, found in PATH.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";
/// Translated code kept at most. QEMU's own bound is a gigabyte, which a sandbox's memory limit would have to carry.
const TRANSLATION_BUFFER_MIB: u32 = 256;

/// Arguments, and the descriptors they name.
#[derive(Default)]
pub(super) struct CommandLine<'a> {
    pub(super) arguments: Vec<OsString>,
    pub(super) inherited: Vec<BorrowedFd<'a>>,
}

impl<'a> CommandLine<'a> {
    /// The machine of `config`; `vsock` and `shares` are the devices that we serve.
    pub(super) fn new(
        config: &'a Config,
        boot_files: &'a BootFiles,
        vsock: &'a Endpoint,
        shares: &'a [(String, Endpoint)],
    ) -> Self {
        let mut line = Self::default();
        line.process();
        line.machine(config.memory_mib, config.vcpus);
        line.boot(boot_files, &config.cmdline_extra);
        line.console();
        line.vhost_user("vsock", "vhost-user-vsock-device", vsock);
        for (index, (tag, endpoint)) in shares.iter().enumerate() {
            let device = format!("vhost-user-fs-device,tag={}", escape(tag));
            line.vhost_user(&format!("fs{index}"), &device, endpoint);
        }
        for (index, disk) in config.disks.iter().enumerate() {
            line.disk(index, disk);
        }
        line.option("-object", "rng-builtin,id=rng");
        line.option("-device", "virtio-rng-device,rng=rng");
        line
    }

    /// The same machine without devices, which runs `kernel`.
    pub(super) fn of_throw_away_guest(kernel: &'a File) -> Self {
        let mut line = Self::default();
        line.process();
        line.machine(MEMORY_MIN_MIB, 1);
        let kernel = line.file(kernel);
        line.option("-kernel", kernel);
        line.console();
        line
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.arguments.push(name.into());
        self.arguments.push(value.into());
    }

    fn flag(&mut self, name: &str) {
        self.arguments.push(name.into());
    }

    fn inherit(&mut self, descriptor: BorrowedFd<'a>) -> i32 {
        self.inherited.push(descriptor);
        descriptor.as_raw_fd()
    }

    /// `/proc/self/fd/N` in QEMU: the very file that was checked.
    fn file(&mut self, file: &'a File) -> String {
        format!("/proc/self/fd/{}", self.inherit(file.as_fd()))
    }

    fn process(&mut self) {
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            self.flag(flag);
        }
        self.option("-display", "none");
        self.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    }

    fn machine(&mut self, memory_mib: u32, vcpus: u8) {
        // With ACPI on, devices are not on the kernel's command line, and a kernel without ACPI finds none.
        self.option("-M", "microvm,acpi=off,isa-serial=on,rtc=on,pit=on,pic=on,memory-backend=mem");
        self.option("-global", "virtio-mmio.force-legacy=false");
        self.option("-object", format!("memory-backend-memfd,id=mem,size={memory_mib}M,share=on"));
        self.option("-m", format!("{memory_mib}M"));
        self.option("-smp", vcpus.to_string());
        self.option("-cpu", "max");
        self.option("-accel", format!("tcg,thread=multi,tb-size={TRANSLATION_BUFFER_MIB}"));
    }

    fn boot(&mut self, files: &'a BootFiles, cmdline_extra: &str) {
        let kernel = self.file(&files.kernel);
        self.option("-kernel", kernel);
        let initramfs = self.file(&files.initramfs);
        self.option("-initrd", initramfs);
        let words = [KERNEL_CMDLINE, files.tsc_parameter.as_str(), cmdline_extra.trim()];
        self.option("-append", words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" "));
    }

    fn console(&mut self) {
        self.option("-chardev", "stdio,id=console,signal=off");
        self.option("-serial", "chardev:console");
    }

    fn vhost_user(&mut self, id: &str, device: &str, endpoint: &'a Endpoint) {
        let descriptor = self.inherit(endpoint.peer().as_fd());
        self.option("-chardev", format!("socket,id={id},fd={descriptor}"));
        self.option("-device", format!("{device},chardev={id}"));
    }

    fn disk(&mut self, index: usize, disk: &'a Disk) {
        let descriptor = self.inherit(disk.file.as_fd());
        self.option("-add-fd", format!("fd={descriptor},set={index}"));
        let read_only = if disk.read_only { "on" } else { "off" };
        self.option(
            "-blockdev",
            format!(
                "driver=raw,node-name=disk{index},read-only={read_only},discard=unmap,\
                 file.driver=file,file.filename=/dev/fdset/{index},file.locking=off,file.discard=unmap"
            ),
        );
        self.option("-device", format!("virtio-blk-device,drive=disk{index},serial={}", escape(&disk.serial)));
    }
}

/// QEMU's option parser ends a value at a comma; a doubled comma is one of the value.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}
