//! Numbers for the host.

use bulkhead_protocols::agent::StatsResponse;

use crate::cgroup::Cgroup;

/// The whole guest's.
pub(super) fn of_guest() -> StatsResponse {
    let mut stats = with_guest_memory();
    // Accounting of the root group is in a file of its own only for CPU time.
    stats.cpu_usage_us = Cgroup::root().keyed("cpu.stat", "usage_usec").unwrap_or(0);
    stats.memory_current_bytes = (stats.guest_total_kib - stats.guest_free_kib) * 1024;
    stats.pids_current = u64::from(rustix::system::sysinfo().procs);
    stats
}

/// A container's, with the guest's memory. What a controller does not tell is 0.
pub(super) fn of_container(cgroup: &Cgroup) -> StatsResponse {
    let mut stats = with_guest_memory();
    stats.cpu_usage_us = cgroup.keyed("cpu.stat", "usage_usec").unwrap_or(0);
    stats.memory_current_bytes = cgroup.number("memory.current").unwrap_or(0);
    stats.memory_peak_bytes = cgroup.number("memory.peak").unwrap_or(0);
    stats.pids_current = cgroup.number("pids.current").unwrap_or(0);
    stats.oom_kills = cgroup.oom_kills();
    stats
}

fn with_guest_memory() -> StatsResponse {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit);
    let mut stats = StatsResponse::new();
    stats.guest_total_kib = memory_total_kib();
    stats.guest_free_kib = (info.freeram * unit / 1024).min(stats.guest_total_kib);
    stats
}

/// Memory that the guest's kernel manages.
pub(crate) fn memory_total_kib() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit) / 1024
}
