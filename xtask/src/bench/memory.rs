//! What a process costs its host, from `/proc`: memory behind the guest's RAM, the rest of the process, CPU time.

use std::path::Path;

use anyhow::Context;

/// Memory and time of one vmm process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Cost {
    /// Guest memory that the host had to provide.
    pub(super) guest_resident_kib: u64,
    /// The process without guest memory, its share of what it shares (PSS).
    pub(super) process_pss_kib: u64,
    /// CPU time of all its threads, the guest's included.
    pub(super) cpu_us: u64,
}

/// What process `pid`, whose guest has `ram_mib` MiB, has cost up to now.
pub(super) fn of_vmm(pid: u32, ram_mib: u32) -> anyhow::Result<Cost> {
    let smaps = read(pid, "smaps")?;
    let mappings = parse(&smaps);
    let ram = mappings.iter().max_by_key(|mapping| mapping.size_kib).context("a process without memory")?;
    anyhow::ensure!(ram.size_kib >= u64::from(ram_mib) * 1024, "process {pid} maps no {ram_mib} MiB of guest memory");
    let pss_kib: u64 = mappings.iter().map(|mapping| mapping.pss_kib).sum();
    Ok(Cost { guest_resident_kib: ram.resident_kib, process_pss_kib: pss_kib - ram.pss_kib, cpu_us: cpu_us(pid)? })
}

/// The whole process, its share of what it shares.
pub(super) fn pss_kib(pid: u32) -> anyhow::Result<u64> {
    Ok(parse(&read(pid, "smaps")?).iter().map(|mapping| mapping.pss_kib).sum())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Mapping {
    size_kib: u64,
    resident_kib: u64,
    pss_kib: u64,
}

/// `/proc/PID/smaps`: per mapping a line with its address range, then lines `Name: N kB`.
fn parse(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let Some(name) = name.strip_suffix(':') else {
            mappings.push(Mapping::default());
            continue;
        };
        let (Some(mapping), Ok(kib)) = (mappings.last_mut(), value.parse()) else { continue };
        match name {
            "Size" => mapping.size_kib = kib,
            "Rss" => mapping.resident_kib = kib,
            "Pss" => mapping.pss_kib = kib,
            _ => {}
        }
    }
    mappings
}

/// The first number of each thread's `schedstat` is its time on a CPU in nanoseconds.
fn cpu_us(pid: u32) -> anyhow::Result<u64> {
    let mut total_ns: u64 = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ends between the listing and the reading has no file any more.
        let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let ns: u64 = text.split_whitespace().next().unwrap_or_default().parse().context("schedstat")?;
        total_ns += ns;
    }
    Ok(total_ns / 1000)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = Path::new("/proc").join(pid.to_string()).join(file);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_told_apart() {
        let smaps = "\
7f0000000000-7f0008000000 rw-p 00000000 00:00 0 \n\
Size:             131072 kB\nRss:               6200 kB\nPss:               6200 kB\nVmFlags: rd wr\n\
55d0c0000000-55d0c0100000 r-xp 00000000 fe:00 12 /usr/bin/x\n\
Size:               1024 kB\nRss:                512 kB\nPss:                256 kB\nPss_Dirty: 9 kB\n";
        let [ram, code] = parse(smaps).try_into().unwrap();
        assert_eq!(ram, Mapping { size_kib: 131_072, resident_kib: 6200, pss_kib: 6200 });
        assert_eq!(code, Mapping { size_kib: 1024, resident_kib: 512, pss_kib: 256 });
    }

    #[test]
    fn this_process_has_memory_and_has_run() {
        let pid = std::process::id();
        assert!(pss_kib(pid).unwrap() > 100 && cpu_us(pid).unwrap() > 0);
    }
}
