//! `vmm run`: from the configuration file to the end of the guest.

use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bulkhead_protocols::control::Phase;
use bulkhead_protocols::vm;

use crate::accelerator::{Accelerator, GuestEnd, Session};
use crate::config::Config;
use crate::emulated::Emulated;
use crate::kvm::KvmAccelerator;
use crate::supervisor::{Lifeline, Supervisor};

/// Exit status for a command line or configuration that cannot be used; clap's own is the same.
const BAD_CONFIGURATION: u8 = 2;

/// Runs the VM to the process's exit status; what went wrong is one line on stderr.
pub(crate) fn main(config: &Path, lifeline_fd: Option<RawFd>) -> ExitCode {
    let lifeline = match lifeline_fd.map(Lifeline::inherit).transpose() {
        Ok(lifeline) => lifeline,
        Err(error) => return complain(BAD_CONFIGURATION, format_args!("--lifeline-fd: {error}")),
    };
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => return complain(BAD_CONFIGURATION, format_args!("{error}")),
    };
    match run(config, lifeline) {
        Ok(GuestEnd::Stopped | GuestEnd::Asked) => ExitCode::SUCCESS,
        Err(error) => complain(1, format_args!("{error:#}")),
    }
}

fn complain(status: u8, message: std::fmt::Arguments<'_>) -> ExitCode {
    eprintln!("vmm: {message}");
    ExitCode::from(status)
}

fn run(config: Config, lifeline: Option<Lifeline>) -> anyhow::Result<GuestEnd> {
    let session = Arc::new(Session::new(config.console_bytes).context("make the session")?);
    let runtime_dir = config.runtime_dir.clone();
    let supervisor = Supervisor {
        session: Arc::clone(&session),
        accelerator: config.accelerator,
        control_socket: config.control_socket.clone(),
        runtime_dir: runtime_dir.clone(),
        lifeline,
    };
    let supervision = supervisor.start().context("start the supervisor")?;
    let accelerator: Box<dyn Accelerator> = match config.accelerator {
        vm::Accelerator::Kvm => Box::new(KvmAccelerator::launch(config)?),
        vm::Accelerator::Emulated => Box::new(Emulated::launch(config)?),
    };
    let end = accelerator.run(&session);
    session.set_phase(Phase::Stopped);
    if supervision.lifeline_broke() {
        // This thread may be confined; the supervisor sees the host and removes what is left there.
        supervision.join();
    } else {
        // The control socket is about to close: whoever asks why the guest ended finds its last words here.
        std::fs::write(runtime_dir.join(vm::CONSOLE_FILE), session.console.tail(usize::MAX))
            .context("leave the console's output behind")?;
    }
    end
}
