//! Counting VM exits exactly: KVM's trace events in the kernel's ring buffer, cut where the guest or the host reached a
//! point of interest.
//!
//! The guest's first instruction in user space is found by its address, so that any guest can be measured unchanged;
//! points on the host are written into the same buffer ([`Recording::mark`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Where `init.sh` of the lab mounts it.
const TRACEFS: &str = "/sys/kernel/tracing";
/// KVM's events that are recorded: leaving the guest, and returning to the process that called KVM_RUN.
const EVENTS: [&str; 2] = ["kvm_exit", "kvm_userspace_exit"];
/// Room per CPU; a boot writes about 1 MiB.
const BUFFER_KIB: &str = "16384";
/// Addresses from here on are the kernel's half of x86-64's address space.
const KERNEL_HALF: u64 = 1 << 63;

/// A running recording; dropping it stops it.
pub(super) struct Recording {
    tracefs: PathBuf,
}

impl Recording {
    /// Empties the buffer and starts.
    pub(super) fn start() -> anyhow::Result<Self> {
        let recording = Self { tracefs: PathBuf::from(TRACEFS) };
        recording.write("tracing_on", "0")?;
        recording.write("buffer_size_kb", BUFFER_KIB)?;
        recording.write("trace", "")?;
        recording.enable("1")?;
        recording.write("tracing_on", "1")?;
        Ok(recording)
    }

    /// Notes in the buffer that `point` is reached now.
    pub(super) fn mark(&self, point: &str) -> anyhow::Result<()> {
        self.write("trace_marker", point)
    }

    /// Stops and returns what was recorded.
    pub(super) fn finish(self) -> anyhow::Result<Trace> {
        self.write("tracing_on", "0")?;
        let path = self.tracefs.join("trace");
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Trace::parse(&String::from_utf8_lossy(&text))
    }

    fn enable(&self, value: &str) -> anyhow::Result<()> {
        EVENTS.iter().try_for_each(|event| self.write(&format!("events/kvm/{event}/enable"), value))
    }

    fn write(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.tracefs.join(file);
        std::fs::write(&path, value).with_context(|| format!("cannot write {value:?} to {}", path.display()))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // The next recording empties the buffer anyway.
        let _ = self.write("tracing_on", "0").and_then(|()| self.enable("0"));
    }
}

/// What was recorded, in the order of time.
#[derive(Debug, Default)]
pub(super) struct Trace {
    events: Vec<Event>,
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A vCPU left the guest at `rip`.
    Exit { vcpu: u32, reason: String, rip: u64 },
    /// KVM_RUN returned.
    Return { reason: String },
    /// [`Recording::mark`].
    Mark { point: String },
}

/// Exits and returns to userspace up to some point, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Exits {
    pub(super) exits: BTreeMap<String, u64>,
    pub(super) returns: BTreeMap<String, u64>,
}

impl Exits {
    pub(super) fn total(&self) -> u64 {
        self.exits.values().sum()
    }

    pub(super) fn returns_total(&self) -> u64 {
        self.returns.values().sum()
    }
}

impl Trace {
    fn parse(text: &str) -> anyhow::Result<Self> {
        // The head says `in the buffer/written`: where they differ, the oldest events are gone and counts would be wrong.
        let entries = text.lines().find_map(|line| line.strip_prefix("# entries-in-buffer/entries-written:"));
        let entries = entries.and_then(|counts| counts.split_whitespace().next()).context("a trace without a head")?;
        let complete = entries.split_once('/').is_some_and(|(kept, written)| kept == written);
        anyhow::ensure!(complete, "the trace buffer was too small: it has {entries} events");
        Ok(Self { events: text.lines().filter_map(Event::parse).collect() })
    }

    /// Up to the moment when the guest's init ran its first instruction that left the guest.
    pub(super) fn until_init(&self) -> anyhow::Result<Exits> {
        let mut kernel_seen = false;
        let first = self.events.iter().position(|event| match event {
            // Before it uses its own addresses, the kernel runs at low ones too; further vCPUs start there.
            Event::Exit { vcpu: 0, rip, .. } => {
                kernel_seen |= *rip >= KERNEL_HALF;
                kernel_seen && *rip < KERNEL_HALF
            }
            _ => false,
        });
        self.until(first.context("the guest never ran a program")?)
    }

    /// Up to a mark.
    pub(super) fn until_mark(&self, point: &str) -> anyhow::Result<Exits> {
        self.until(self.position_of(point)?)
    }

    /// Between two marks.
    pub(super) fn between(&self, from: &str, to: &str) -> anyhow::Result<Exits> {
        let (from, to) = (self.position_of(from)?, self.position_of(to)?);
        Ok(count(self.events.get(from..to).unwrap_or_default()))
    }

    fn position_of(&self, point: &str) -> anyhow::Result<usize> {
        let mark = self.events.iter().position(|event| matches!(event, Event::Mark { point: found } if found == point));
        mark.with_context(|| format!("the trace has no mark {point:?}"))
    }

    fn until(&self, end: usize) -> anyhow::Result<Exits> {
        self.events.get(..end).map(count).context("the trace is shorter than its own events")
    }
}

fn count(events: &[Event]) -> Exits {
    let mut counted = Exits::default();
    for event in events {
        let (table, reason) = match event {
            Event::Exit { reason, .. } => (&mut counted.exits, reason),
            Event::Return { reason } => (&mut counted.returns, reason),
            Event::Mark { .. } => continue,
        };
        *table.entry(reason.clone()).or_default() += 1;
    }
    counted
}

impl Event {
    /// One line of the `trace` file: `task-pid [cpu] flags time: event: fields`.
    fn parse(line: &str) -> Option<Self> {
        if let Some((_, fields)) = line.split_once(": kvm_exit: ") {
            let word_after = |key: &str| {
                let mut words = fields.split_whitespace().skip_while(|word| *word != key);
                words.nth(1)
            };
            let rip = u64::from_str_radix(word_after("rip")?.trim_start_matches("0x"), 16).ok()?;
            let reason = word_after("reason")?.to_owned();
            return Some(Self::Exit { vcpu: word_after("vcpu")?.parse().ok()?, reason, rip });
        }
        if let Some((_, fields)) = line.split_once(": kvm_userspace_exit: reason ") {
            let reason = fields.split_whitespace().next()?.trim_start_matches("KVM_EXIT_").to_ascii_lowercase();
            return Some(Self::Return { reason });
        }
        let (_, point) = line.split_once(": tracing_mark_write: ")?;
        Some(Self::Mark { point: point.trim().to_owned() })
    }
}

/// Whether this machine lets us record KVM's events.
pub(super) fn is_available() -> bool {
    Path::new(TRACEFS).join("events/kvm/kvm_exit").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
# tracer: nop
#
# entries-in-buffer/entries-written: 9/9   #P:2
           vcpu0-210     [001] .....    12.000001: kvm_exit: vcpu 0 reason cpuid rip 0x1000123 info1 0x0 info2 0x0
           vcpu0-210     [001] .....    12.000002: kvm_exit: vcpu 0 reason npf rip 0xffffffff81000000 info1 0x0 info2 0x0
           vcpu1-211     [000] .....    12.000003: kvm_exit: vcpu 1 reason npf rip 0x9a000 info1 0x0 info2 0x0
           vcpu0-210     [001] .....    12.000004: kvm_userspace_exit: reason KVM_EXIT_MMIO (6)
           vcpu0-210     [001] .....    12.000005: kvm_exit: vcpu 0 reason npf rip 0xffffffff81000004 info1 0x0 info2 0x0
           vcpu0-210     [001] .....    12.000006: kvm_exit: vcpu 0 reason cpuid rip 0x401000 info1 0x0 info2 0x0
           <...>-77      [000] .....    12.000007: tracing_mark_write: ready
           vcpu0-210     [001] .....    12.000008: kvm_exit: vcpu 0 reason hlt rip 0xffffffff81000009 info1 0x0 info2 0x0
           <...>-77      [000] .....    12.000009: tracing_mark_write: end
";

    #[test]
    fn a_trace_is_cut_at_init_and_at_marks() {
        let trace = Trace::parse(TRACE).unwrap();
        let init = trace.until_init().unwrap();
        assert_eq!((init.total(), init.exits["npf"], init.exits["cpuid"]), (4, 3, 1));
        assert_eq!(init.returns, BTreeMap::from([("mmio".to_owned(), 1)]));
        assert_eq!(trace.until_mark("ready").unwrap().total(), 5);
        assert_eq!(trace.between("ready", "end").unwrap().exits, BTreeMap::from([("hlt".to_owned(), 1)]));
        assert!(trace.until_mark("never").is_err());
    }

    #[test]
    fn lost_events_are_an_error() {
        assert!(Trace::parse(&TRACE.replace("9/9", "9/21")).is_err());
    }
}
