//! The cpu and cpuset controllers.

use oci_spec::runtime::LinuxCpu;

use super::Setting;

/// Period of the bandwidth limit, in microseconds, that counts if none is given: the kernel's default.
const DEFAULT_PERIOD_US: u64 = 100_000;
/// Range of `cpu.shares` of cgroup version 1.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// `linux.resources.cpu`.
pub(super) fn settings(cpu: &LinuxCpu, all: &mut Vec<Setting>) -> Result<(), String> {
    if cpu.realtime_runtime().is_some_and(|us| us != 0) || cpu.realtime_period().is_some_and(|us| us != 0) {
        return Err("linux.resources.cpu.realtimeRuntime and realtimePeriod do not exist in cgroup version 2".into());
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        all.push(Setting::new("cpu.shares", "cpu.weight", weight_of_shares(shares)));
    }
    if cpu.quota().is_some() || cpu.period().is_some() {
        let period = cpu.period().filter(|us| *us != 0).unwrap_or(DEFAULT_PERIOD_US);
        let quota = match cpu.quota() {
            Some(us) if us > 0 => us.to_string(),
            _ => "max".to_owned(),
        };
        all.push(Setting::new("cpu.quota", "cpu.max", format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst() {
        all.push(Setting::new("cpu.burst", "cpu.max.burst", burst));
    }
    if let Some(idle) = cpu.idle() {
        all.push(Setting::new("cpu.idle", "cpu.idle", idle));
    }
    for (property, file, list) in [("cpu.cpus", "cpuset.cpus", cpu.cpus()), ("cpu.mems", "cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            all.push(Setting::new(property, file, list));
        }
    }
    Ok(())
}

/// Maps shares (2 to 262,144) to a weight (1 to 10,000) in the same straight line as runc and systemd.
fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(*SHARES.start(), *SHARES.end());
    1 + (shares - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxCpuBuilder;

    use super::*;

    fn translated(cpu: &LinuxCpu) -> Vec<(String, String)> {
        let mut all = Vec::new();
        settings(cpu, &mut all).unwrap();
        all.into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    #[test]
    fn quota_and_period_share_a_file() {
        let pair = |value: &str| vec![("cpu.max".to_owned(), value.to_owned())];
        let half = LinuxCpuBuilder::default().quota(50_000).period(100_000_u64).build().unwrap();
        assert_eq!(translated(&half), pair("50000 100000"));
        let quota_alone = LinuxCpuBuilder::default().quota(20_000).build().unwrap();
        assert_eq!(translated(&quota_alone), pair("20000 100000"));
        let unlimited = LinuxCpuBuilder::default().quota(-1).build().unwrap();
        assert_eq!(translated(&unlimited), pair("max 100000"));
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144, 1, u64::MAX].map(weight_of_shares), [1, 39, 10_000, 1, 10_000]);
    }

    #[test]
    fn realtime_is_refused() {
        let cpu = LinuxCpuBuilder::default().realtime_runtime(1000).build().unwrap();
        assert!(settings(&cpu, &mut Vec::new()).unwrap_err().contains("realtimeRuntime"));
    }
}
