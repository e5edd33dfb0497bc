//! Which process a recorded pid meant, so that a recycled pid is never signalled.

use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, told apart from every other that had or will have its pid: by its start time within one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: u32,
    /// Start in clock ticks since boot (proc(5), `stat` field 22).
    pub start_ticks: u64,
    /// The boot that start time counts from.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// The identity of the process that now has `pid`.
    ///
    /// # Errors
    /// There is no such process, or `/proc` cannot be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start_ticks: start_ticks(pid)?, boot_id: boot_id()? })
    }

    /// Kills the process if it still lives, and nothing else; tells whether it did.
    ///
    /// # Errors
    /// The process lives and cannot be signalled.
    pub fn kill(&self) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        // The descriptor comes first: whatever it names cannot be replaced by another process afterwards, so that a
        // start time that matches now belongs to it or to nobody alive.
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if boot_id()? != self.boot_id || start_ticks(self.pid).ok() != Some(self.start_ticks) {
            return Ok(false);
        }
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The identifier of this boot of the host.
///
/// # Errors
/// `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
    let field = after_name.and_then(|rest| rest.split_ascii_whitespace().nth(19));
    field.and_then(|ticks| ticks.parse().ok()).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is malformed")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn kills_the_recorded_process() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        assert!(identity.kill().unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!identity.kill().unwrap(), "it is gone");
    }

    #[test]
    fn spares_a_process_that_got_the_pid_later() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let mut recorded = ProcessIdentity::of(child.id()).unwrap();
        recorded.start_ticks -= 1;
        assert!(!recorded.kill().unwrap());
        recorded.start_ticks += 1;
        recorded.boot_id = "another boot".into();
        assert!(!recorded.kill().unwrap());
        assert!(child.try_wait().unwrap().is_none(), "it still runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
