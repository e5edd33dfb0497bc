//! The measurements as the tables of docs/benchmarks.md, with the budgets they are judged by.

use std::collections::{BTreeMap, BTreeSet};

use super::results::{Boot, Boots, Emulated, Kvm};
use super::table::Table;
use super::trace::Exits;

/// Sizes of what a guest boots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) kernel_bytes: u64,
    pub(super) initramfs_bytes: u64,
}

/// Everything, as Markdown.
pub(super) fn render(kvm: &Kvm, emulated: &Emulated, sizes: Sizes) -> String {
    let sections = [
        ("Budgets", budgets(kvm, emulated)),
        ("VM exits by reason", exits(kvm)),
        ("Memory and time", costs(kvm, sizes)),
        ("A sandbox at work", work(kvm)),
        ("Cold start, emulated", cold_start(emulated)),
    ];
    sections.map(|(title, body)| format!("### {title}\n\n{body}")).join("\n")
}

fn budgets(kvm: &Kvm, emulated: &Emulated) -> String {
    let mut table = Table::new(["what", "budget", "measured", "verdict"]);
    let mut judge = |what: &str, budget: f64, measured: f64, unit: &str| {
        let verdict = if measured <= budget { "met" } else { "MISSED" };
        let show =
            |value: f64| if value.fract() == 0.0 { format!("{value}{unit}") } else { format!("{value:.1}{unit}") };
        table.row([what.to_owned(), format!("≤ {}", show(budget)), show(measured), verdict.to_owned()]);
    };
    let (idle, sandbox, work) = (&kvm.idle.huge_pages, &kvm.sandbox.huge_pages, &kvm.work);
    let mib = |kib: u64| float(kib) / 1024.0;
    let returns = sandbox.until_agent.as_ref().map_or(0, Exits::returns_total);
    judge("VM exits until an init that sleeps, 1 vCPU, 128 MiB", 1200.0, float(idle.until_init.total()), "");
    judge("returns to userspace until the agent answers", 64.0, float(returns), "");
    let guest = kvm.sandbox.small_pages.cost.guest_resident_kib;
    judge("guest memory when the agent answers, small pages", 8.0, mib(guest), " MiB");
    let processes = kvm.running.vmm.process_pss_kib + kvm.running.cli_pss_kib;
    judge("memory of our processes beyond guest RAM (PSS)", 5.0, mib(processes), " MiB");
    judge("virtio-fs requests for a warm file in a layer", 0.0, float(work.warm_requests.values().sum()), "");
    let per_mib = |count: u64| float(count) / float(work.read_mib);
    judge("virtio-fs kicks per MiB read in sequence", 1.0, per_mib(work.read_kicks), "");
    judge("virtio-fs interrupts per MiB read in sequence", 1.0, per_mib(work.read_interrupts), "");
    let own = work.calls_exits.total().saturating_sub(work.idle_exits.total());
    judge("VM exits of one call to the agent", 3.0, float(own) / float(work.calls), "");
    let ratio = float(median(&emulated.sandbox_ms)) / float(median(&emulated.bare_ms));
    judge("cold `sandbox run`, emulated, against the bare kernel", 2.0, ratio, "×");
    table.render()
}

fn exits(kvm: &Kvm) -> String {
    let points: Vec<(&str, &Exits)> = [
        ("idle: init", Some(&kvm.idle.huge_pages.until_init)),
        ("idle, small pages: init", Some(&kvm.idle.small_pages.until_init)),
        ("sandbox: init", Some(&kvm.sandbox.huge_pages.until_init)),
        ("sandbox: agent", kvm.sandbox.huge_pages.until_agent.as_ref()),
        ("sandbox, small pages: agent", kvm.sandbox.small_pages.until_agent.as_ref()),
    ]
    .into_iter()
    .filter_map(|(name, exits)| Some((name, exits?)))
    .collect();
    let mut table = Table::new(["until"].into_iter().chain(points.iter().map(|(name, _)| *name)));
    let mut row = |name: String, value: &dyn Fn(&Exits) -> u64| {
        table.row([name].into_iter().chain(points.iter().map(|(_, exits)| value(exits).to_string())));
    };
    row("**VM exits**".to_owned(), &Exits::total);
    for reason in reasons(&points, |exits| exits.exits.keys()) {
        row(reason.clone(), &|exits| exits.exits.get(&reason).copied().unwrap_or_default());
    }
    row("**returns to userspace**".to_owned(), &Exits::returns_total);
    for reason in reasons(&points, |exits| exits.returns.keys()) {
        row(format!("to userspace: {reason}"), &|exits| exits.returns.get(&reason).copied().unwrap_or_default());
    }
    table.render()
}

fn reasons<'a, K: Iterator<Item = &'a String>>(
    points: &[(&str, &'a Exits)],
    keys: impl Fn(&'a Exits) -> K,
) -> BTreeSet<String> {
    points.iter().flat_map(|(_, exits)| keys(exits)).cloned().collect()
}

fn costs(kvm: &Kvm, sizes: Sizes) -> String {
    let columns: [(&str, &Boots, &Boot); 4] = [
        ("idle", &kvm.idle, &kvm.idle.huge_pages),
        ("idle, small pages", &kvm.idle, &kvm.idle.small_pages),
        ("sandbox", &kvm.sandbox, &kvm.sandbox.huge_pages),
        ("sandbox, small pages", &kvm.sandbox, &kvm.sandbox.small_pages),
    ];
    let mut table = Table::new(["when booted"].into_iter().chain(columns.iter().map(|(name, ..)| *name)));
    let mut row = |name: &str, value: &dyn Fn(&Boots, &Boot) -> String| {
        table.row([name.to_owned()].into_iter().chain(columns.iter().map(|(_, boots, boot)| value(boots, boot))));
    };
    row("vCPUs", &|boots, _| boots.vcpus.to_string());
    row("guest memory, MiB", &|boots, _| boots.memory_mib.to_string());
    row("of it touched, KiB", &|_, boot| boot.cost.guest_resident_kib.to_string());
    row("vmm beyond guest memory (PSS), KiB", &|_, boot| boot.cost.process_pss_kib.to_string());
    row("CPU time of the vmm with its guest, ms", &|_, boot| (boot.cost.cpu_us / 1000).to_string());
    let counting = if kvm.counts_instructions {
        "The processor counts instructions, but they are not measured yet."
    } else {
        "The lab's emulated processor has no performance counters, so instructions are not measured."
    };
    format!(
        "{}\nWhile a container runs, beyond guest memory (PSS): vmm {} KiB, the `sandbox` command {} KiB.\n\
         Guest kernel: {} bytes; initramfs: {} bytes. {counting}\n",
        table.render(),
        kvm.running.vmm.process_pss_kib,
        kvm.running.cli_pss_kib,
        sizes.kernel_bytes,
        sizes.initramfs_bytes
    )
}

fn work(kvm: &Kvm) -> String {
    let work = &kvm.work;
    let mut table = Table::new(["work", "what", "count"]);
    let rounds = format!("{} × stat, open, read, close of a warm file in a layer", work.warm_rounds);
    table.row([rounds, "virtio-fs requests".to_owned(), by_operation(&work.warm_requests)]);
    let runs = format!("{} × a program in a layer run again", work.warm_rounds);
    table.row([runs, "virtio-fs requests".to_owned(), by_operation(&work.exec_requests)]);
    let read = format!("{} MiB read in sequence from a volume", work.read_mib);
    for (what, count) in [
        ("requests", by_operation(&work.read_requests)),
        ("kicks", work.read_kicks.to_string()),
        ("interrupts", work.read_interrupts.to_string()),
    ] {
        table.row([read.clone(), format!("virtio-fs {what}"), count]);
    }
    for (name, exits) in [
        (format!("{} calls to the agent", work.calls), &work.calls_exits),
        ("as long without".into(), &work.idle_exits),
    ] {
        table.row([name.clone(), "VM exits".to_owned(), exits.total().to_string()]);
        table.row([name, "returns to userspace".to_owned(), exits.returns_total().to_string()]);
    }
    table.render()
}

/// Such as `502 (open 1, read 501)`.
fn by_operation(requests: &BTreeMap<String, u64>) -> String {
    let total: u64 = requests.values().sum();
    let parts: Vec<String> = requests.iter().map(|(operation, count)| format!("{operation} {count}")).collect();
    if parts.is_empty() { total.to_string() } else { format!("{total} ({})", parts.join(", ")) }
}

fn cold_start(emulated: &Emulated) -> String {
    let mut table = Table::new(["what", "median, ms", "lowest, ms", "highest, ms"]);
    for (name, times) in
        [("QEMU with the bare kernel to init", &emulated.bare_ms), ("`sandbox run … true`", &emulated.sandbox_ms)]
    {
        let bound = |value: Option<&u64>| value.copied().unwrap_or_default().to_string();
        let row = [median(times).to_string(), bound(times.iter().min()), bound(times.iter().max())];
        table.row([name.to_owned()].into_iter().chain(row));
    }
    table.render()
}

fn median(times: &[u64]) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts and sizes are far below 2^52")]
fn float(value: u64) -> f64 {
    value as f64
}
