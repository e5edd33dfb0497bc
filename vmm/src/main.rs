//! `vmm`: one process per sandbox that runs one microVM.
//!
//! Exit status: 0 when the guest has ended or was asked to; 1 when the vmm failed; 2 when command line or configuration
//! are wrong, before anything is touched.

mod accelerator;
mod arch;
mod cli;
mod config;
mod confine;
mod console;
mod counters;
mod emulated;
mod kvm;
mod run;
mod supervisor;
mod vhost_user;
mod virtio;

fn main() -> std::process::ExitCode {
    cli::main()
}
