//! `sandbox doctor`: each thing a sandbox needs, whether it is there, the choice of accelerator, and the fix.

use std::path::Path;

use bulkhead_protocols::control::{ProbeCheck, ProbeReport};
use bulkhead_protocols::vm::Accelerator;
use clap::Args;
use sandbox::accel::{Prober, failure};
use sandbox::paths::Paths;
use sandbox::resources::HostCapacity;
use sandbox::runtime_dir::RuntimeRoot;
use sandbox::scratch;
use serde::Serialize;

use super::format::{human_bytes, print, print_json};
use super::version::{manifest, text};

/// Free space below which an image of ordinary size may not fit.
const FREE_LOW_BYTES: u64 = 2 << 30;

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// Whether `sandbox run` can work here.
    usable: bool,
    /// What `--accel auto` takes; null if nothing works.
    accelerator: Option<Accelerator>,
    /// Why.
    reason: String,
    groups: Vec<Group>,
}

#[derive(Serialize)]
struct Group {
    name: &'static str,
    checks: Vec<ProbeCheck>,
}

/// Checks everything now, without what earlier commands remember; exit status 0 if some accelerator works.
pub(crate) async fn doctor(args: &DoctorArgs) -> anyhow::Result<u8> {
    let paths = Paths::from_environment()?;
    let report = examine(&paths).await;
    if args.json {
        print_json(&report)?;
    } else {
        print(&render(&report))?;
    }
    Ok(u8::from(!report.usable))
}

async fn examine(paths: &Paths) -> Report {
    let host = Group { name: "host", checks: vec![user(), capacity(), run_dir(paths), data_dir(paths), formatter()] };
    let parts = Group { name: "installed parts", checks: parts(paths) };
    let prober = Prober::new(&paths.lib.join("vmm"), &paths.run);
    let kvm = probe(&prober, Accelerator::Kvm).await;
    let emulated = probe(&prober, Accelerator::Emulated).await;
    let (accelerator, reason) = choose(&kvm, &emulated);
    let needed = host.checks.iter().chain(&parts.checks).all(|check| check.ok);
    Report {
        usable: needed && accelerator.is_some(),
        accelerator,
        reason,
        groups: vec![
            host,
            parts,
            Group { name: "kvm accelerator", checks: kvm.checks },
            Group { name: "emulated accelerator", checks: emulated.checks },
        ],
    }
}

fn choose(kvm: &ProbeReport, emulated: &ProbeReport) -> (Option<Accelerator>, String) {
    if kvm.usable {
        (Some(Accelerator::Kvm), "instructions ran in a VM on /dev/kvm".to_owned())
    } else if emulated.usable {
        (Some(Accelerator::Emulated), format!("kvm does not work here: {}", failure(kvm)))
    } else {
        (None, format!("kvm: {}; emulated: {}", failure(kvm), failure(emulated)))
    }
}

async fn probe(prober: &Prober, accelerator: Accelerator) -> ProbeReport {
    match prober.probe_now(accelerator).await {
        Ok(report) => report,
        Err(error) => {
            let detail = format!("{:#}", anyhow::Error::new(error));
            let check = check("probe", Err((detail, "install Bulkhead completely: `cargo xtask demo` builds it")));
            ProbeReport { accelerator, usable: false, checks: vec![check] }
        }
    }
}

/// A check with what was seen, or with what is wrong and the fix.
fn check(name: &str, result: Result<String, (String, &str)>) -> ProbeCheck {
    let (ok, detail, fix) = match result {
        Ok(detail) => (true, detail, None),
        Err((detail, fix)) => (false, detail, Some(fix.to_owned())),
    };
    ProbeCheck { name: name.to_owned(), ok, detail, fix }
}

fn user() -> ProbeCheck {
    let uid = rustix::process::geteuid();
    let result = if uid.is_root() {
        Ok("root".to_owned())
    } else {
        Err((format!("uid {}: layers keep their owners, which only root can set", uid.as_raw()), "run it with sudo"))
    };
    check("user", result)
}

fn capacity() -> ProbeCheck {
    let host = HostCapacity::of_this_host();
    check("capacity", Ok(format!("{} CPUs, {} MiB of memory", host.cpus, host.memory_mib)))
}

fn run_dir(paths: &Paths) -> ProbeCheck {
    let opened = RuntimeRoot::open(&paths.run).and_then(|root| root.sweep());
    let result = match opened {
        Ok(_) => Ok(paths.run.display().to_string()),
        Err(error) => {
            Err((format!("{:#}", anyhow::Error::new(error)), "set BULKHEAD_RUN to a directory that can be written"))
        }
    };
    check("runtime directory", result)
}

fn data_dir(paths: &Paths) -> ProbeCheck {
    let made = std::fs::create_dir_all(&paths.data).and_then(|()| free_bytes(&paths.data));
    let place = paths.data.display();
    let result = match made {
        Ok(free) if free >= FREE_LOW_BYTES => Ok(format!("{place}, {} free", human_bytes(free))),
        Ok(free) => Err((
            format!("{place} has only {} free", human_bytes(free)),
            "free some space (`sandbox rmi`), or set BULKHEAD_DATA to a directory on a larger disk",
        )),
        Err(error) => Err((format!("{place}: {error}"), "set BULKHEAD_DATA to a directory that can be written")),
    };
    check("image store", result)
}

fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let statistics = rustix::fs::statvfs(path)?;
    Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

fn formatter() -> ProbeCheck {
    let found = scratch::formatter().map(|path| path.display().to_string());
    check("mkfs.ext4", found.ok_or(("not found".to_owned(), "apt-get install e2fsprogs")))
}

fn parts(paths: &Paths) -> Vec<ProbeCheck> {
    let manifest = manifest(paths);
    let part = |name: &str, file: &'static str, version: String| match paths.asset("it", file) {
        Ok(path) => check(name, Ok(format!("{} ({version})", path.display()))),
        Err(_) => check(
            name,
            Err((
                format!("{} is missing", paths.lib.join(file).display()),
                "`cargo xtask demo` builds it; or set BULKHEAD_LIB",
            )),
        ),
    };
    vec![
        part("vmm", "vmm", format!("version {}", env!("CARGO_PKG_VERSION"))),
        part("guest kernel", "vmlinux", format!("Linux {}", text(&manifest, "/kernel/version"))),
        part("guest image", "initramfs.cpio", format!("version {}", text(&manifest, "/version"))),
    ]
}

fn render(report: &Report) -> String {
    let mut text = String::new();
    for group in &report.groups {
        text += &format!("{}\n", group.name);
        for check in &group.checks {
            let mark = if check.ok { "ok  " } else { "FAIL" };
            text += &format!("  {mark}  {}: {}\n", check.name, check.detail);
            if let (false, Some(fix)) = (check.ok, &check.fix) {
                text += &format!("        fix: {fix}\n");
            }
        }
    }
    let choice = report.accelerator.map_or("none".to_owned(), |accelerator| accelerator.to_string());
    text + &format!("accelerator: {choice}\n  why: {}", report.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(accelerator: Accelerator, usable: bool) -> ProbeReport {
        let step = check("step", if usable { Ok("seen".into()) } else { Err(("missing".into(), "get it")) });
        ProbeReport { accelerator, usable, checks: vec![step] }
    }

    #[test]
    fn hardware_is_preferred_and_the_reason_names_the_failed_step() {
        let (kvm, emulated) = (report(Accelerator::Kvm, true), report(Accelerator::Emulated, true));
        assert_eq!(choose(&kvm, &emulated).0, Some(Accelerator::Kvm));
        let kvm = report(Accelerator::Kvm, false);
        let (choice, reason) = choose(&kvm, &emulated);
        assert_eq!(choice, Some(Accelerator::Emulated));
        assert!(reason.contains("step: missing (fix: get it)"), "{reason}");
        assert_eq!(choose(&kvm, &report(Accelerator::Emulated, false)).0, None);
    }

    #[test]
    fn a_failed_check_is_shown_with_its_fix() {
        let groups = vec![Group { name: "kvm accelerator", checks: report(Accelerator::Kvm, false).checks }];
        let text = render(&Report { usable: false, accelerator: None, reason: "x".into(), groups });
        assert!(text.contains("FAIL  step: missing\n        fix: get it\n"), "{text}");
        assert!(text.ends_with("accelerator: none\n  why: x"), "{text}");
    }
}
