//! The agent: `/init` and PID 1 of every guest.
//!
//! One program with three parts, told apart by `argv[0]`, which only the kernel and the agent itself choose:
//! PID 1 ([`init`], [`server`], [`pod`]), the helper that becomes a container's process ([`container`]), and the remover of
//! what containers leave on the scratch disk.

mod cgroup;
mod container;
mod init;
mod plan;
mod pod;
mod reaper;
mod server;
mod spec;
mod stdio;
mod storage;
mod sys;

use std::process::ExitCode;

/// `argv[0]` that the kernel gives to the program it starts (`rdinit=/init`).
const INIT_NAME: &str = "/init";

fn main() -> ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    if name == INIT_NAME {
        return init::run();
    }
    if container::HELPER_NAME.to_str() == Ok(&name) {
        return ExitCode::from(container::run());
    }
    if pod::REMOVER_NAME.to_str() == Ok(&name) {
        return ExitCode::from(pod::run_remover());
    }
    eprintln!("agent {}: this is /init of a Bulkhead guest, to be started by its kernel", env!("CARGO_PKG_VERSION"));
    ExitCode::FAILURE
}
