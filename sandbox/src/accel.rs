//! Which accelerator runs a sandbox: decided by `vmm probe`, which runs instructions, never by the existence of a file.
//!
//! A probe's result is kept in the runtime directory under a key of all that it depends on (boot, vmm, `/dev/kvm`, QEMU,
//! user), so that it costs nothing after the first command.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bulkhead_protocols::control::ProbeReport;
use bulkhead_protocols::vm::Accelerator;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use crate::process_identity::boot_id;
use crate::runtime_dir::random_hex;
use crate::scratch::find_program;

/// How long a probe may take: QEMU starts slowly on a busy host.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest report that is read.
const REPORT_MAX_BYTES: u64 = 256 * 1024;
/// Name of QEMU's program.
pub const QEMU_PROGRAM: &str = "qemu-system-x86_64";

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceleratorChoice {
    /// Hardware where it works, else emulation.
    #[default]
    Auto,
    /// Hardware or an error.
    Kvm,
    /// Emulation or an error.
    Emulated,
}

/// Why there is no accelerator.
#[derive(Debug, thiserror::Error)]
pub enum AccelError {
    /// The vmm could not be asked.
    #[error("cannot ask {} whether the {accelerator} accelerator works", vmm.display())]
    Probe {
        /// The vmm's path.
        vmm: PathBuf,
        /// Which accelerator.
        accelerator: Accelerator,
        /// Why.
        source: io::Error,
    },
    /// The one asked for does not work.
    #[error("the {} accelerator does not work here: {}", report.accelerator, failure(report))]
    Unusable {
        /// The failed probe.
        report: ProbeReport,
    },
    /// None works.
    #[error(
        "no accelerator works here. kvm: {}. emulated: {}. `sandbox doctor` shows every check",
        failure(kvm),
        failure(emulated)
    )]
    None {
        /// The failed probe of KVM.
        kvm: ProbeReport,
        /// The failed probe of QEMU.
        emulated: ProbeReport,
    },
}

/// An accelerator that works, and why it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What will run the guest.
    pub accelerator: Accelerator,
    /// One sentence for the user.
    pub reason: String,
}

/// The failed check of a report with its remedy.
pub fn failure(report: &ProbeReport) -> String {
    match report.checks.iter().rev().find(|check| !check.ok) {
        Some(check) => {
            let fix = check.fix.as_ref().map(|fix| format!(" (fix: {fix})")).unwrap_or_default();
            format!("{}: {}{fix}", check.name, check.detail)
        }
        None => "the probe gave no reason".to_owned(),
    }
}

/// Asks a vmm about accelerators and remembers its answers in `run`.
#[derive(Clone, Debug)]
pub struct Prober {
    vmm: PathBuf,
    run: PathBuf,
}

/// A remembered answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    key: String,
    report: ProbeReport,
}

impl Prober {
    /// Asks the vmm at `vmm`, remembers in the existing directory `run`.
    pub fn new(vmm: &Path, run: &Path) -> Self {
        Self { vmm: vmm.to_owned(), run: run.to_owned() }
    }

    /// The accelerator for `choice`.
    ///
    /// # Errors
    /// It does not work here, with the failed check and its remedy.
    pub async fn decide(&self, choice: AcceleratorChoice) -> Result<Decision, AccelError> {
        match choice {
            AcceleratorChoice::Kvm => self.require(Accelerator::Kvm).await,
            AcceleratorChoice::Emulated => self.require(Accelerator::Emulated).await,
            AcceleratorChoice::Auto => {
                let kvm = self.probe(Accelerator::Kvm).await?;
                if kvm.usable {
                    return Ok(decision(Accelerator::Kvm, "instructions ran in a VM on /dev/kvm".to_owned()));
                }
                let emulated = self.probe_last_resort(Accelerator::Emulated).await?;
                if emulated.usable {
                    return Ok(decision(Accelerator::Emulated, format!("kvm does not work here: {}", failure(&kvm))));
                }
                Err(AccelError::None { kvm, emulated })
            }
        }
    }

    async fn require(&self, accelerator: Accelerator) -> Result<Decision, AccelError> {
        let report = self.probe_last_resort(accelerator).await?;
        if report.usable {
            Ok(decision(accelerator, "asked for".to_owned()))
        } else {
            Err(AccelError::Unusable { report })
        }
    }

    /// What is known about `accelerator`, from memory if nothing it depends on has changed.
    ///
    /// # Errors
    /// The vmm cannot be run, or prints no report.
    pub async fn probe(&self, accelerator: Accelerator) -> Result<ProbeReport, AccelError> {
        match self.recall(accelerator) {
            Some(report) => Ok(report),
            None => self.probe_now(accelerator).await,
        }
    }

    /// As [`Self::probe`], but a failure is not believed from memory: it may have had a reason that passed, such as load.
    async fn probe_last_resort(&self, accelerator: Accelerator) -> Result<ProbeReport, AccelError> {
        match self.recall(accelerator).filter(|report| report.usable) {
            Some(report) => Ok(report),
            None => self.probe_now(accelerator).await,
        }
    }

    fn recall(&self, accelerator: Accelerator) -> Option<ProbeReport> {
        let remembered: Remembered = serde_json::from_slice(&std::fs::read(self.file(accelerator)).ok()?).ok()?;
        (remembered.key == self.key(accelerator)).then_some(remembered.report)
    }

    /// Probes `accelerator` without looking at what is remembered.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub async fn probe_now(&self, accelerator: Accelerator) -> Result<ProbeReport, AccelError> {
        let key = self.key(accelerator);
        let run = tokio::time::timeout(PROBE_TIMEOUT, self.run_probe(accelerator)).await;
        let report = run.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let report = report.map_err(|source| AccelError::Probe { vmm: self.vmm.clone(), accelerator, source })?;
        self.remember(accelerator, Remembered { key, report: report.clone() });
        Ok(report)
    }

    async fn run_probe(&self, accelerator: Accelerator) -> io::Result<ProbeReport> {
        let mut command = tokio::process::Command::new(&self.vmm);
        command.args(["probe", "--accelerator", &accelerator.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut json = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(REPORT_MAX_BYTES).read_to_end(&mut json).await?;
        }
        let status = child.wait().await?;
        serde_json::from_slice(&json)
            .map_err(|error| io::Error::other(format!("it ended with {status} and printed no report: {error}")))
    }

    /// Everything a probe's result depends on.
    fn key(&self, accelerator: Accelerator) -> String {
        let subject = match accelerator {
            Accelerator::Kvm => Some(PathBuf::from("/dev/kvm")),
            Accelerator::Emulated => find_program(QEMU_PROGRAM),
        };
        let user = rustix::process::geteuid().as_raw();
        let boot = boot_id().unwrap_or_default();
        let subject = subject.as_deref().map(identity).unwrap_or_default();
        format!("{boot} uid {user} vmm {} subject {subject}", identity(&self.vmm))
    }

    fn file(&self, accelerator: Accelerator) -> PathBuf {
        self.run.join(format!("probe-{accelerator}.json"))
    }

    /// Written aside and renamed, so that commands at the same moment read all of it or nothing. A failure costs only the
    /// next command a probe.
    fn remember(&self, accelerator: Accelerator, remembered: Remembered) {
        let Ok(json) = serde_json::to_vec(&remembered) else { return };
        let partial = self.run.join(format!("probe-{}.partial", random_hex()));
        if std::fs::write(&partial, json).is_ok() && std::fs::rename(&partial, self.file(accelerator)).is_err() {
            let _left_over = std::fs::remove_file(&partial);
        }
    }
}

fn decision(accelerator: Accelerator, reason: String) -> Decision {
    Decision { accelerator, reason }
}

/// What tells a file from its next version.
fn identity(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(m) => format!(
            "{}:{}:{}:{}:{}.{}:{:o}:{}:{}",
            m.dev(),
            m.ino(),
            m.rdev(),
            m.size(),
            m.ctime(),
            m.ctime_nsec(),
            m.mode(),
            m.uid(),
            m.gid()
        ),
        Err(error) => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A vmm that counts how often it was asked, and finds only what `usable` names.
    fn prober(dir: &Path, usable: &str) -> Prober {
        let vmm = dir.join("vmm");
        let script = format!(
            "#!/bin/sh\necho $3 >>{0}/asked\nusable=false\ncase '{usable}' in *$3*) usable=true;; esac\n\
             echo '{{\"accelerator\":\"'$3'\",\"usable\":'$usable',\"checks\":[{{\"name\":\"try '$3'\",\"ok\":'$usable',\
             \"detail\":\"seen\",\"fix\":\"do this\"}}]}}'\n",
            dir.display()
        );
        std::fs::write(&vmm, script).unwrap();
        std::fs::set_permissions(&vmm, std::fs::Permissions::from_mode(0o700)).unwrap();
        Prober::new(&vmm, dir)
    }

    fn asked(dir: &Path) -> String {
        std::fs::read_to_string(dir.join("asked")).unwrap_or_default().replace('\n', " ")
    }

    #[tokio::test]
    async fn auto_prefers_kvm_and_falls_back_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let choice = prober(dir.path(), "kvm emulated").decide(AcceleratorChoice::Auto).await.unwrap();
        assert_eq!(choice.accelerator, Accelerator::Kvm);
        let dir = tempfile::tempdir().unwrap();
        let choice = prober(dir.path(), "emulated").decide(AcceleratorChoice::Auto).await.unwrap();
        assert_eq!(choice.accelerator, Accelerator::Emulated);
        assert!(choice.reason.contains("try kvm: seen (fix: do this)"), "{}", choice.reason);
    }

    #[tokio::test]
    async fn what_does_not_work_is_an_error_with_the_fix() {
        let dir = tempfile::tempdir().unwrap();
        let prober = prober(dir.path(), "");
        for choice in [AcceleratorChoice::Auto, AcceleratorChoice::Kvm, AcceleratorChoice::Emulated] {
            let error = prober.decide(choice).await.unwrap_err().to_string();
            assert!(error.contains("fix: do this"), "{error}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_remembered_until_the_vmm_changes() {
        let dir = tempfile::tempdir().unwrap();
        let first = prober(dir.path(), "emulated");
        for _ in 0..3 {
            first.decide(AcceleratorChoice::Auto).await.unwrap();
        }
        assert_eq!(asked(dir.path()), "kvm emulated ");
        let changed = prober(dir.path(), "kvm emulated");
        assert_eq!(changed.decide(AcceleratorChoice::Auto).await.unwrap().accelerator, Accelerator::Kvm);
        assert_eq!(asked(dir.path()), "kvm emulated kvm ");
    }
}
