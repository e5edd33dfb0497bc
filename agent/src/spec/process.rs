//! The `process` object.

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

use super::document::Process;
use super::{SpecError, capability, check_absolute, check_no_nul};
use crate::plan::{ProcessPlan, RlimitPlan, TerminalPlan, UserPlan};

/// Range of `oom_score_adj` (proc(5)).
const OOM_SCORES: std::ops::RangeInclusive<i32> = -1000..=1000;

/// Checks everything that can be checked without looking into the container.
pub(super) fn plan(process: Process) -> Result<ProcessPlan, SpecError> {
    let terminal = process.terminal.unwrap_or(false).then(|| terminal(&process)).transpose()?;
    let rlimits = rlimits(process.rlimits.as_deref().unwrap_or_default())?;
    let (args, env) = (process.args.unwrap_or_default(), process.env.unwrap_or_default());
    if args.is_empty() {
        return Err("process.args is empty: there is nothing to run".into());
    }
    args.iter().try_for_each(|arg| check_no_nul("process.args", arg))?;
    env.iter().try_for_each(|entry| check_no_nul("process.env", entry))?;
    check_absolute("process.cwd", &process.cwd)?;
    if let Some(score) = process.oom_score_adj.filter(|score| !OOM_SCORES.contains(score)) {
        return Err(format!("process.oomScoreAdj is {score}, not within -1000 to 1000"));
    }
    let user = process.user;
    Ok(ProcessPlan {
        args,
        env,
        cwd: process.cwd,
        create_cwd: false,
        user: UserPlan::Ids {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
        },
        umask: user.umask(),
        capabilities: capability::plan(process.capabilities.as_ref())?,
        rlimits,
        no_new_privileges: process.no_new_privileges.unwrap_or(false),
        oom_score_adj: process.oom_score_adj,
        terminal,
    })
}

fn terminal(process: &Process) -> Result<TerminalPlan, SpecError> {
    let Some(size) = process.console_size else { return Ok(TerminalPlan::default()) };
    let fit = |name: &str, value: u64| {
        u16::try_from(value).map_err(|_| format!("process.consoleSize.{name} is {value}, more than 65535"))
    };
    Ok(TerminalPlan { rows: fit("height", size.height())?, columns: fit("width", size.width())? })
}

fn rlimits(limits: &[PosixRlimit]) -> Result<Vec<RlimitPlan>, SpecError> {
    let mut plans: Vec<RlimitPlan> = Vec::new();
    for limit in limits {
        let (kind, soft, hard) = (limit.typ(), limit.soft(), limit.hard());
        let resource = resource_number(kind);
        if soft > hard {
            return Err(format!("process.rlimits: {kind} has a soft limit of {soft} above the hard one of {hard}"));
        }
        if plans.iter().any(|plan| plan.resource == resource) {
            return Err(format!("process.rlimits: {kind} is given twice"));
        }
        plans.push(RlimitPlan { resource, soft, hard });
    }
    Ok(plans)
}

fn resource_number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}
