//! PID 1: from the kernel's hand-over to a listening agent.
//!
//! ```text
//! kernel --> listen on vsock --> report ready --> root, mounts, cgroups, loopback --> serve for ever
//! ```
//! The report goes first because it takes the host a while to answer it: the guest is set up meanwhile, and the host's first
//! call waits in the listener's queue until that is done.
//!
//! Nothing is printed on the way: each byte of console output costs the host an exit. What goes wrong is printed and ends
//! the VM, as the host sees at once.

pub(crate) mod clock;
mod guest;
mod root;
mod shutdown;

use std::process::ExitCode;

use bulkhead_protocols::wire::{HOST_CID, READY_LINE, READY_PORT};
use tokio::io::AsyncWriteExt;
use tokio_vsock::{VsockAddr, VsockStream};

pub(crate) use shutdown::shut_down;

/// Bytes of a message, with room for the newline and what the kernel adds.
const RECORD_MAX: usize = 900;

/// When the agent began and when it was listening, in microseconds of CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BootTimes {
    pub(crate) started_us: u64,
    pub(crate) ready_us: u64,
}

/// Runs PID 1. Returns only if the guest cannot be set up; the VM ends then.
pub(crate) fn run() -> ExitCode {
    let started_us = clock::boottime_us();
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("{panic}"));
        shutdown::reset();
    }));
    if let Err(error) = set_up_and_serve(started_us) {
        say(&format!("cannot set up the guest: {error:#}"));
    }
    shutdown::reset();
    ExitCode::FAILURE
}

/// Prints a message to standard error, which is the kernel's log: one write is one record, `<2>` makes it critical, so
/// that it is printed in spite of `quiet`, and a record has 1,024 bytes at most.
fn say(message: &str) {
    let mut record = format!("<2>agent: {message}");
    let end = (0..=RECORD_MAX).rev().find(|end| record.is_char_boundary(*end)).unwrap_or(0);
    record.truncate(end);
    record.push('\n');
    // There is nowhere else to say it.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), record.as_bytes());
}

fn set_up_and_serve(started_us: u64) -> anyhow::Result<()> {
    let program = root::open_own_program()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let child_signals = crate::reaper::child_signals()?;
        let listeners = crate::server::listen::bind()?;
        let times = BootTimes { started_us, ready_us: clock::boottime_us() };
        let reported = tokio::spawn(report_ready());
        let_others_run().await;
        root::enter_tmpfs_root()?;
        guest::prepare().await?;
        crate::server::serve(listeners, program, child_signals, times).await?;
        reported.await??;
        std::future::pending::<()>().await;
        Ok(())
    })
}

/// Lets the report make progress between the steps of setting up.
async fn let_others_run() {
    tokio::task::yield_now().await;
}

/// Tells the host that connections are accepted from now on.
async fn report_ready() -> anyhow::Result<()> {
    use anyhow::Context;
    let mut host = VsockStream::connect(VsockAddr::new(HOST_CID, READY_PORT))
        .await
        .with_context(|| format!("connect to port {READY_PORT} of the host"))?;
    host.write_all(READY_LINE.as_bytes()).await.context("report ready")?;
    Ok(())
}
