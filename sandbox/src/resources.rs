//! CPUs and memory of a sandbox: what the workload gets, and what its VM needs for that.

use std::num::NonZeroU32;

use bulkhead_protocols::wire::{MEMORY_MIN_MIB, VCPUS_MAX};

/// Memory of the workload where nothing else is asked for.
pub const MEMORY_DEFAULT_MIB: u32 = 512;
/// Guest memory that kernel and agent use themselves, before the part that grows with the VM.
const OVERHEAD_BASE_MIB: u32 = 48;
/// The kernel describes each 4 KiB page by 64 bytes; with page tables and reserves that makes one part in 32.
const OVERHEAD_DIVISOR: u32 = 32;
/// Least memory of a workload.
const WORKLOAD_MIN_MIB: u32 = MEMORY_MIN_MIB - OVERHEAD_BASE_MIB;
/// Period of the CPU quota (cgroup v2 `cpu.max`).
pub const CPU_PERIOD_US: u64 = 100_000;

/// CPU time in thousandths of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuLimit {
    milli: NonZeroU32,
}

/// Memory of the workload in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    workload_mib: u32,
    vm_mib: u32,
}

/// A size that cannot be had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ResourceError {
    /// CPUs out of range.
    #[error("{asked} CPUs: from 0.01 to {max} can be given on this host")]
    Cpus {
        /// What was asked for.
        asked: f64,
        /// The most.
        max: u32,
    },
    /// Memory out of range.
    #[error(
        "{asked_mib} MiB of memory: from {WORKLOAD_MIN_MIB} to {max_mib} MiB can be given on this host (its {host_mib} MiB \
         less what the guest's kernel and agent take)"
    )]
    Memory {
        /// What was asked for.
        asked_mib: u64,
        /// The most.
        max_mib: u32,
        /// All memory of the host.
        host_mib: u32,
    },
}

/// What the host has.
#[derive(Clone, Copy, Debug)]
pub struct HostCapacity {
    /// CPUs this process may run on.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
}

impl HostCapacity {
    /// This host's.
    pub fn of_this_host() -> Self {
        let info = rustix::system::sysinfo();
        let bytes = info.totalram.saturating_mul(u64::from(info.mem_unit.max(1)));
        let cpus =
            std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(VCPUS_MAX));
        Self { cpus, memory_mib: u32::try_from(bytes >> 20).unwrap_or(u32::MAX) }
    }
}

impl CpuLimit {
    /// One CPU.
    pub const ONE: Self = Self { milli: NonZeroU32::new(1000).unwrap() };

    /// `cpus` CPUs, such as 1.5.
    ///
    /// # Errors
    /// Less than 0.01, or more than the host has.
    pub fn new(cpus: f64, host: HostCapacity) -> Result<Self, ResourceError> {
        let max = host.cpus.clamp(1, VCPUS_MAX);
        if !(0.01..=f64::from(max)).contains(&cpus) {
            return Err(ResourceError::Cpus { asked: cpus, max });
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range above fits, thousandths are meant"
        )]
        let milli = (cpus * 1000.0).round() as u32;
        NonZeroU32::new(milli).map(|milli| Self { milli }).ok_or(ResourceError::Cpus { asked: cpus, max })
    }

    /// vCPUs of the VM: the next whole number.
    pub fn vcpus(self) -> u32 {
        self.milli.get().div_ceil(1000)
    }

    /// Microseconds of CPU time per [`CPU_PERIOD_US`], where that is less than the vCPUs give anyway.
    pub fn quota_us(self) -> Option<u64> {
        (!self.milli.get().is_multiple_of(1000)).then(|| u64::from(self.milli.get()) * CPU_PERIOD_US / 1000)
    }
}

impl MemoryLimit {
    /// `bytes` for the workload, rounded up to whole MiB.
    ///
    /// # Errors
    /// Less than kernel and agent can work beside, or more than the host has.
    pub fn new(bytes: u64, host: HostCapacity) -> Result<Self, ResourceError> {
        let asked_mib = bytes.div_ceil(1 << 20);
        let available = u64::from(host.memory_mib.saturating_sub(OVERHEAD_BASE_MIB));
        let max = available * u64::from(OVERHEAD_DIVISOR) / u64::from(OVERHEAD_DIVISOR + 1);
        let max_mib = u32::try_from(max).unwrap_or(u32::MAX);
        match u32::try_from(asked_mib) {
            Ok(workload_mib) if (WORKLOAD_MIN_MIB..=max_mib).contains(&workload_mib) => {
                let overhead = OVERHEAD_BASE_MIB + workload_mib / OVERHEAD_DIVISOR;
                Ok(Self { workload_mib, vm_mib: workload_mib + overhead })
            }
            _ => Err(ResourceError::Memory { asked_mib, max_mib, host_mib: host.memory_mib }),
        }
    }

    /// Limit of the workload's cgroup in bytes.
    pub fn workload_bytes(self) -> u64 {
        u64::from(self.workload_mib) << 20
    }

    /// Memory of the VM: the workload's and what kernel and agent take.
    pub fn vm_mib(self) -> u32 {
        self.vm_mib
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostCapacity = HostCapacity { cpus: 4, memory_mib: 8192 };

    #[test]
    fn cpus_become_vcpus_and_a_quota() {
        let limit = |cpus| CpuLimit::new(cpus, HOST).map(|limit| (limit.vcpus(), limit.quota_us()));
        assert_eq!(limit(1.0), Ok((1, None)));
        assert_eq!(limit(1.5), Ok((2, Some(150_000))));
        assert_eq!(limit(0.01), Ok((1, Some(1000))));
        assert_eq!(limit(4.0), Ok((4, None)));
        for wrong in [0.0, 0.009, -1.0, 4.001, f64::NAN, f64::INFINITY] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_vm_has_more_than_the_workload() {
        let limit = MemoryLimit::new(512 << 20, HOST).unwrap();
        assert_eq!((limit.workload_bytes(), limit.vm_mib()), (512 << 20, 512 + 48 + 16));
    }

    #[test]
    fn memory_out_of_range_is_refused_with_the_limits() {
        assert!(MemoryLimit::new(16 << 20, HOST).unwrap().vm_mib() >= MEMORY_MIN_MIB);
        let most = MemoryLimit::new(7897 << 20, HOST).unwrap();
        assert!(most.vm_mib() <= HOST.memory_mib);
        for wrong in [0, 15 << 20, 8192 << 20, u64::MAX] {
            let error = MemoryLimit::new(wrong, HOST).unwrap_err().to_string();
            assert!(error.contains("from 16 to 7897 MiB") && error.contains("8192"), "{error}");
        }
    }
}
