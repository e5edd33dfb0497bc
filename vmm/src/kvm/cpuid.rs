//! What CPUID tells the guest: the host's processor as KVM can virtualize it, less what would only make the guest probe.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// EAX of leaf 0 at most: the leaves behind it (QoS, SGX, tracing, clocks, hybrid cores …) describe what a guest does
/// not get.
const BASIC_LEAF_MAX: u32 = 0xd;

/// Levels of processors, by APIC id.
const TOPOLOGY: u32 = 0xb;

const LEAF1_ECX_PDCM: u32 = 1 << 15;
const LEAF1_ECX_MONITOR: u32 = 1 << 3;
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
/// Debug store, thermal monitor: model-specific.
const LEAF1_EDX_MODEL_SPECIFIC: u32 = 1 << 21 | 1 << 22 | 1 << 29;
/// The APIC timer does not stop: no broadcast timer is needed.
const LEAF6_EAX_ARAT: u32 = 1 << 2;
/// Performance counters, performance time stamps, trace and lightweight profiling of AMD.
const EXT1_ECX_PROFILING: u32 = 1 << 10 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 28;
/// Nested virtualization (SVM): not offered.
const EXT1_ECX_SVM: u32 = 1 << 2;
/// Nested virtualization (VMX): not offered.
const LEAF1_ECX_VMX: u32 = 1 << 5;

/// The entries for one vCPU of `vcpus`, from what KVM supports.
pub(super) fn for_vcpu(supported: &CpuId, vcpu: u8, vcpus: u8) -> Result<CpuId, vmm_sys_util::fam::Error> {
    let entries: Vec<kvm_cpuid_entry2> = supported
        .as_slice()
        .iter()
        .filter(|entry| keeps_leaf(entry.function))
        .map(|entry| adjusted(*entry, vcpu, vcpus))
        // KVM lists the first level only, without content.
        .chain([0, 1].map(|level| topology(level, vcpu, vcpus)))
        .collect();
    CpuId::from_entries(&entries)
}

fn keeps_leaf(function: u32) -> bool {
    match function {
        0xa | TOPOLOGY => false,
        0..=BASIC_LEAF_MAX => true,
        0x4000_0000..=0x4000_ffff => true,
        // AMD: SVM, instruction-based sampling, lightweight profiling, counters and branch records.
        0x8000_000a | 0x8000_001b | 0x8000_001c | 0x8000_0022 => false,
        0x8000_0000.. => true,
        _ => false,
    }
}

fn adjusted(mut entry: kvm_cpuid_entry2, vcpu: u8, vcpus: u8) -> kvm_cpuid_entry2 {
    let siblings = u32::from(vcpus);
    match entry.function {
        0 => entry.eax = entry.eax.min(BASIC_LEAF_MAX),
        1 => {
            entry.ecx &= !(LEAF1_ECX_PDCM | LEAF1_ECX_MONITOR | LEAF1_ECX_VMX);
            entry.ecx |= LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
            entry.edx &= !(LEAF1_EDX_MODEL_SPECIFIC | LEAF1_EDX_HTT);
            if vcpus > 1 {
                entry.edx |= LEAF1_EDX_HTT;
            }
            entry.ebx = entry.ebx & 0xffff | siblings << 16 | u32::from(vcpu) << 24;
        }
        // Intel: cores of the package; each vCPU is a core with caches of its own, but for the last level.
        4 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { siblings.next_power_of_two() - 1 } else { 0 };
            if entry.eax & 0x1f != 0 {
                entry.eax = entry.eax & 0x3fff | sharing << 14 | (siblings.next_power_of_two() - 1) << 26;
            }
        }
        6 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (LEAF6_EAX_ARAT, 0, 0, 0),
        0x8000_0001 => entry.ecx &= !(EXT1_ECX_PROFILING | EXT1_ECX_SVM),
        // AMD: number of threads of the package, and width of the core id.
        0x8000_0008 => entry.ecx = (siblings - 1) | siblings.next_power_of_two().trailing_zeros() << 12,
        0x8000_001d => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { siblings - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14;
        }
        // AMD: extended APIC id, core id, one node.
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (vcpu.into(), vcpu.into(), 0),
        _ => {}
    }
    entry
}

/// One level of leaf 0xb: one thread per core, all cores in one package.
fn topology(level: u32, vcpu: u8, vcpus: u8) -> kvm_cpuid_entry2 {
    const THREAD_LEVEL: u32 = 1 << 8;
    const CORE_LEVEL: u32 = 2 << 8;
    let vcpus = u32::from(vcpus);
    let (eax, ebx, ecx) = if level == 0 {
        (0, 1, THREAD_LEVEL)
    } else {
        (vcpus.next_power_of_two().trailing_zeros(), vcpus, CORE_LEVEL | level)
    };
    kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index: level,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx,
        edx: vcpu.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> CpuId {
        let leaf =
            |function, index, eax, ecx, edx| kvm_cpuid_entry2 { function, index, eax, ecx, edx, ..Default::default() };
        let all = u32::MAX;
        CpuId::from_entries(&[
            leaf(0, 0, 0x20, 0, 0),
            leaf(1, 0, 0, all & !LEAF1_ECX_TSC_DEADLINE, all),
            leaf(0xa, 0, all, all, all),
            leaf(0xb, 0, 0, 0, 0),
            leaf(0x14, 0, all, all, all),
            leaf(0x4000_0000, 0, 0x4000_0001, 0, 0),
            leaf(0x8000_0008, 0, 0x3030, 0, 0),
            leaf(0x8000_0022, 0, all, all, all),
        ])
        .unwrap()
    }

    fn leaf(vcpu: u8, vcpus: u8, function: u32, index: u32) -> Option<kvm_cpuid_entry2> {
        let cpuid = for_vcpu(&supported(), vcpu, vcpus).unwrap();
        cpuid.as_slice().iter().find(|entry| (entry.function, entry.index) == (function, index)).copied()
    }

    #[test]
    fn each_vcpu_has_its_apic_id_in_every_place() {
        assert_eq!(leaf(3, 4, 1, 0).unwrap().ebx >> 16, 3 << 8 | 4);
        assert_eq!(leaf(3, 4, 0xb, 0).unwrap().edx, 3);
        let cores = leaf(3, 4, 0xb, 1).unwrap();
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (2, 4, 2 << 8 | 1));
        assert_eq!(leaf(3, 4, 0x8000_0008, 0).unwrap().ecx, 2 << 12 | 3);
        assert_eq!(leaf(0, 1, 1, 0).unwrap().edx & LEAF1_EDX_HTT, 0, "one vCPU has no siblings");
    }

    #[test]
    fn what_a_guest_does_not_get_is_hidden() {
        assert_eq!(leaf(0, 1, 0, 0).unwrap().eax, BASIC_LEAF_MAX);
        for hidden in [0xa, 0x14, 0x8000_0022] {
            assert!(leaf(0, 1, hidden, 0).is_none(), "{hidden:#x}");
        }
        let features = leaf(0, 1, 1, 0).unwrap().ecx;
        assert_eq!(features & (LEAF1_ECX_VMX | LEAF1_ECX_MONITOR | LEAF1_ECX_PDCM), 0);
        let needed = LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
        assert_eq!(features & needed, needed);
    }
}
