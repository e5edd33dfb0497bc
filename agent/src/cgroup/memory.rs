//! The memory controller.

use oci_spec::runtime::LinuxMemory;

use super::Setting;

/// `linux.resources.memory`.
pub(super) fn settings(memory: &LinuxMemory, all: &mut Vec<Setting>) -> Result<(), String> {
    if memory.disable_oom_killer() == Some(true) {
        return Err("linux.resources.memory.disableOOMKiller does not exist in cgroup version 2".into());
    }
    if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
        all.push(Setting::new("memory.limit", "memory.max", bytes_or_max("limit", limit)?));
    }
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        all.push(Setting::new("memory.swap", "memory.swap.max", swap_alone(swap, memory.limit())?));
    }
    if let Some(low) = memory.reservation().filter(|low| *low != 0) {
        all.push(Setting::new("memory.reservation", "memory.low", bytes_or_max("reservation", low)?));
    }
    Ok(())
}

fn bytes_or_max(name: &str, bytes: i64) -> Result<String, String> {
    match bytes {
        -1 => Ok("max".to_owned()),
        1.. => Ok(bytes.to_string()),
        _ => Err(format!("linux.resources.memory.{name} is {bytes}: a number of bytes, or -1 for no limit")),
    }
}

/// The specification counts memory and swap together, cgroup version 2 counts swap alone.
fn swap_alone(swap: i64, limit: Option<i64>) -> Result<String, String> {
    match (swap, limit) {
        (-1, _) => Ok("max".to_owned()),
        (1.., Some(limit @ 1..)) if swap >= limit => Ok((swap - limit).to_string()),
        (1.., Some(limit @ 1..)) => Err(format!(
            "linux.resources.memory.swap is {swap}, less than the limit of {limit}: it counts memory and swap together"
        )),
        _ => Err(format!("linux.resources.memory.swap is {swap} without a memory limit to take from it")),
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxMemoryBuilder;

    use super::*;

    #[test]
    fn swap_is_counted_apart_from_memory() {
        assert_eq!(swap_alone(300, Some(100)).unwrap(), "200");
        assert_eq!(swap_alone(100, Some(100)).unwrap(), "0");
        assert_eq!(swap_alone(-1, None).unwrap(), "max");
        assert!(swap_alone(50, Some(100)).is_err());
        assert!(swap_alone(50, None).is_err());
    }

    #[test]
    fn limits_are_translated() {
        let memory = LinuxMemoryBuilder::default().limit(1 << 20).reservation(-1).build().unwrap();
        let mut all = Vec::new();
        settings(&memory, &mut all).unwrap();
        let found: Vec<(&str, &str)> = all.iter().map(|s| (s.file.as_str(), s.value.as_str())).collect();
        assert_eq!(found, [("memory.max", "1048576"), ("memory.low", "max")]);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let memory = LinuxMemoryBuilder::default().limit(-7).build().unwrap();
        assert!(settings(&memory, &mut Vec::new()).unwrap_err().contains("memory.limit is -7"));
    }
}
