//! Finds out whether this host's KVM runs a guest's instructions, by running some.
//!
//! That `/dev/kvm` exists proves nothing: some hosts offer a KVM that cannot run an unmodified guest, and it fails, or hangs,
//! only when a vCPU enters. So a throw-away VM goes the way of a kernel's first instructions, under a time limit.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bulkhead_protocols::control::{ProbeCheck, ProbeReport};
use bulkhead_protocols::vm::Accelerator;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{cpuid, create_vm, map_memory, sys};
use crate::arch::start_state;

const DEVICE: &str = "/dev/kvm";
/// The one API version there has ever been since it became stable.
const API_VERSION: i32 = 12;
/// A working KVM needs microseconds.
const TIME_LIMIT: Duration = Duration::from_secs(5);

const MEMORY_BYTES: u64 = 4 << 20;
const CODE: GuestAddress = GuestAddress(0x10_0000);
const RESULT: GuestAddress = GuestAddress(0x11_0000);
const SIGNATURE: GuestAddress = GuestAddress(0x11_0008);
const WRITTEN: u64 = 0x1122_3344_5566_7788;
const PORT: u16 = 0x10;
const PORT_VALUE: u8 = 0x5a;
const EXCHANGED_AT: GuestAddress = GuestAddress(0x11_0010);
const EXCHANGED: u64 = 0x600d;
/// EBX of CPUID leaf 0x4000_0000 under KVM.
const KVM_SIGNATURE: &[u8; 4] = b"KVMK";

/// From 32-bit protected mode into long mode as a kernel goes, then a memory write, CPUID, the double-width exchange that
/// the kernel's allocator lives on (a KVM that emulates kernel code may lack it), a port write and HLT.
#[rustfmt::skip]
const PROGRAM: [u8; 99] = [
    0x0f, 0x20, 0xe0,                         // mov eax, cr4
    0x83, 0xc8, 0x20,                         // or eax, PAE
    0x0f, 0x22, 0xe0,                         // mov cr4, eax
    0xb8, 0x00, 0x90, 0x00, 0x00,             // mov eax, layout::PML4
    0x0f, 0x22, 0xd8,                         // mov cr3, eax
    0xb9, 0x80, 0x00, 0x00, 0xc0,             // mov ecx, EFER
    0x0f, 0x32,                               // rdmsr
    0x0d, 0x00, 0x01, 0x00, 0x00,             // or eax, LME
    0x0f, 0x30,                               // wrmsr
    0x0f, 0x20, 0xc0,                         // mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80,             // or eax, PG
    0x0f, 0x22, 0xc0,                         // mov cr0, eax
    0xea, 0x31, 0x00, 0x10, 0x00, 0x10, 0x00, // jmp 0x10:0x100031, 64-bit code from here
    0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // mov rax, WRITTEN
    0xbf, 0x00, 0x00, 0x11, 0x00,             // mov edi, RESULT
    0x48, 0x89, 0x07,                         // mov [rdi], rax
    0xb8, 0x00, 0x00, 0x00, 0x40,             // mov eax, 0x40000000
    0x0f, 0xa2,                               // cpuid
    0x89, 0x5f, 0x08,                         // mov [rdi + 8], ebx
    0x31, 0xc0,                               // xor eax, eax
    0x31, 0xd2,                               // xor edx, edx
    0xbb, 0x0d, 0x60, 0x00, 0x00,             // mov ebx, EXCHANGED
    0x31, 0xc9,                               // xor ecx, ecx
    0xf0, 0x48, 0x0f, 0xc7, 0x4f, 0x10,       // lock cmpxchg16b [rdi + 16]
    0xb0, 0x5a,                               // mov al, PORT_VALUE
    0xe6, 0x10,                               // out PORT, al
    0xf4,                                     // hlt
];

const FIX_MISSING: &str = "load the module (modprobe kvm-intel or modprobe kvm-amd); on a virtual machine, enable nested \
                           virtualisation for it first; or use --accel emulated";
const FIX_PERMISSION: &str = "add yourself to the group kvm (usermod -aG kvm USER) and log in again, or run as root; or \
                              use --accel emulated";
const FIX_UNUSABLE: &str = "this host's KVM cannot run ordinary guests (on a virtual machine, nested virtualisation may \
                            be missing): use --accel emulated";

/// Tries `/dev/kvm`, from the file to a guest's instructions; the first failed check is the last.
pub(crate) fn probe() -> ProbeReport {
    let mut checks = Vec::new();
    let usable = try_all(&mut checks).is_some();
    ProbeReport { accelerator: Accelerator::Kvm, usable, checks }
}

fn try_all(checks: &mut Vec<ProbeCheck>) -> Option<()> {
    note(checks, "open /dev/kvm", open_device())?;
    let version = Kvm::new().map_err(anyhow::Error::from).and_then(|kvm| {
        let version = kvm.get_api_version();
        ensure!(version == API_VERSION, "its API has version {version}; {API_VERSION} is needed");
        Ok((kvm, format!("API version {version}")))
    });
    let kvm = note(checks, "ask KVM for its version", version.map_err(unusable))?;
    let created = create_vm(&kvm).map(|vm| {
        // Only to see that it can be made: the instructions below run in a simpler one.
        drop(vm);
        ((), "interrupt controllers, irqfd, ioeventfd and read-only memory are there".to_owned())
    });
    note(checks, "create a virtual machine", created.map_err(unusable))?;
    note(checks, "run a guest's instructions", run_within_limit(kvm).map_err(unusable))
}

type Outcome<T> = Result<(T, String), (String, &'static str)>;

fn note<T>(checks: &mut Vec<ProbeCheck>, name: &str, outcome: Outcome<T>) -> Option<T> {
    let (value, ok, detail, fix) = match outcome {
        Ok((value, detail)) => (Some(value), true, detail, None),
        Err((detail, fix)) => (None, false, detail, Some(fix.to_owned())),
    };
    checks.push(ProbeCheck { name: name.to_owned(), ok, detail, fix });
    value
}

fn unusable(error: anyhow::Error) -> (String, &'static str) {
    (format!("{error:#}"), FIX_UNUSABLE)
}

fn open_device() -> Outcome<()> {
    match File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => Ok(((), "it exists and may be used".to_owned())),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err((error.to_string(), FIX_PERMISSION)),
        // A device node without its driver answers ENODEV or ENXIO.
        Err(error) => Err((format!("{error}{}", processor_note()), FIX_MISSING)),
    }
}

fn processor_note() -> &'static str {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        "; this processor can run guests (vmx or svm in /proc/cpuinfo)"
    } else {
        "; this processor shows neither vmx nor svm in /proc/cpuinfo"
    }
}

/// Runs the program on a thread of its own: a KVM that hangs hangs that thread, which ends with the process.
fn run_within_limit(kvm: Kvm) -> anyhow::Result<((), String)> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        // Nobody listens any more once the time is over.
        let _ = sender.send(run_program(&kvm));
    })?;
    match receiver.recv_timeout(TIME_LIMIT) {
        Ok(outcome) => outcome.map(|()| ((), "long mode, memory, CPUID, port and HLT work".to_owned())),
        Err(_) => anyhow::bail!("the guest made no progress within {} s", TIME_LIMIT.as_secs()),
    }
}

fn run_program(kvm: &Kvm) -> anyhow::Result<()> {
    let vm = kvm.create_vm().context("create a VM")?;
    let memory = map_memory(MEMORY_BYTES, false)?;
    sys::set_ram_slots(&vm, &memory).context("give it memory")?;
    start_state::write_tables(&memory)?;
    memory.write_slice(&PROGRAM, CODE)?;
    let mut vcpu = vm.create_vcpu(0).context("create a vCPU")?;
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("ask for the supported CPUID")?;
    vcpu.set_cpuid2(&cpuid::for_vcpu(&supported, 0, 1)?).context("set its CPUID")?;
    let mut special = vcpu.get_sregs().context("read its registers")?;
    start_state::set_protected_mode(&mut special);
    vcpu.set_sregs(&special).context("set its special registers")?;
    vcpu.set_regs(&start_state::registers(CODE.0)).context("set its registers")?;

    let mut port_value = None;
    while let Some(value) = step(&mut vcpu)? {
        ensure!(port_value.replace(value).is_none(), "the guest wrote to the port twice");
    }
    ensure!(port_value == Some(PORT_VALUE), "the guest halted without its write to the port");
    check_memory(&memory)
}

/// Runs to the next port write (its value) or to HLT (`None`).
fn step(vcpu: &mut VcpuFd) -> anyhow::Result<Option<u8>> {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(PORT, [value])) => return Ok(Some(*value)),
            Ok(VcpuExit::Hlt) => return Ok(None),
            Ok(VcpuExit::Intr) => {}
            Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {}
            Ok(exit) => {
                let exit = format!("{exit:?}");
                let at = vcpu.get_regs().map(|registers| registers.rip).unwrap_or_default();
                anyhow::bail!("the guest failed at rip {at:#x}: {exit}");
            }
            Err(error) => return Err(error).context("KVM_RUN failed"),
        }
    }
}

fn check_memory(memory: &GuestMemoryMmap) -> anyhow::Result<()> {
    let written: u64 = memory.read_obj(RESULT)?;
    ensure!(written == WRITTEN, "the guest wrote {written:#x} to memory instead of {WRITTEN:#x}");
    let exchanged: u64 = memory.read_obj(EXCHANGED_AT)?;
    ensure!(exchanged == EXCHANGED, "the guest exchanged {exchanged:#x} into memory instead of {EXCHANGED:#x}");
    let signature: [u8; 4] = memory.read_obj(SIGNATURE)?;
    ensure!(&signature == KVM_SIGNATURE, "CPUID showed the guest {signature:?} instead of KVM's signature");
    Ok(())
}
