//! `sandbox run`: from the command line to the exit status.
//!
//! ```text
//! args ─> Request (checked) ─> image, accelerator, scratch disk ─> Sandbox ─> container ─> Session ─> Outcome ─> status
//! ```

mod args;
mod mounts;
mod outcome;
mod request;
mod session;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use bulkhead_protocols::vm::Accelerator;
use sandbox::image::Image;
use sandbox::lifecycle::{Sandbox, SandboxConfig, Started};
use sandbox::scratch::{self, SCRATCH_DEFAULT_MIB};
use sandbox::signals::TerminationSignals;
use sandbox::terminal::{self, RawMode, TerminalSize};
use sandbox::timings::{Phase, Timings};

pub(crate) use self::args::RunArgs;
use self::outcome::Outcome;
use self::request::Request;
use self::session::{Attached, Session};
use super::complain;
use super::context::HostContext;
use super::format::{Format, to_json};
use super::progress::progress;

/// Runs a command in a new sandbox to its exit status.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<u8> {
    let mut timings = Timings::start();
    let mut signals = TerminationSignals::catch().context("cannot catch signals")?;
    terminal::restore_on_panic();
    let request = Request::new(args)?;
    check_terminal(&request)?;
    let started = tokio::select! {
        biased;
        signal = signals.next() => return Ok(Outcome::Interrupted(signal).status()),
        started = start(&request, &mut timings) => started?,
    };
    // The image's layers are locked as long as it lives: until the sandbox is gone.
    let (image, sandbox) = started;
    let outcome = run_container(&request, &image, &sandbox, &mut signals, &mut timings).await;
    sandbox.shutdown().await;
    timings.mark("shut down");
    let outcome = outcome?;
    let memory_mib = request.memory.workload_bytes() >> 20;
    if let Some(message) = outcome.message(memory_mib, request.args.timeout) {
        complain(&message);
    }
    if let Some(format) = request.args.timings {
        report_timings(timings.phases(), format)?;
    }
    Ok(outcome.status())
}

fn check_terminal(request: &Request) -> anyhow::Result<()> {
    let wanted = request.args.tty && request.args.interactive;
    anyhow::ensure!(
        !wanted || std::io::stdin().is_terminal(),
        "-i and -t together need a terminal as stdin: leave -t out when input comes from a pipe or a file"
    );
    Ok(())
}

async fn start(request: &Request, timings: &mut Timings) -> anyhow::Result<(Image, Sandbox)> {
    let host = HostContext::open()?;
    let assets = host.paths.assets(request.args.kernel.as_deref())?;
    let decision = host.prober()?.decide(request.args.accel.into()).await?;
    timings.mark("check host");
    let progress = progress(request.args.quiet);
    let image = host.images()?.resolve(&request.source, request.args.pull.into(), progress).await?;
    // What the image lacks shows before a VM is started.
    request.container("checked", &image.config, image.layers.len(), None)?;
    timings.mark("find image");
    if decision.accelerator == Accelerator::Emulated && !request.args.quiet {
        complain("running emulated, which is slow; `sandbox doctor` says why");
    }
    let scratch = scratch::create(&host.paths.data, SCRATCH_DEFAULT_MIB)?;
    timings.mark("make scratch disk");
    let config = SandboxConfig {
        name: request.args.name.clone(),
        accelerator: decision.accelerator,
        assets,
        cpus: request.cpus,
        memory: request.memory,
        layers: image.layers.clone(),
        volumes: request.volumes.clone(),
        scratch,
        start_timeout: request.args.start_timeout,
    };
    let sandbox = Sandbox::start(&host.root, config, timings).await?;
    Ok((image, sandbox))
}

async fn run_container(
    request: &Request,
    image: &Image,
    sandbox: &Sandbox,
    signals: &mut TerminationSignals,
    timings: &mut Timings,
) -> anyhow::Result<Outcome> {
    let size =
        request.args.tty.then(|| TerminalSize::of(std::io::stdin()).or_else(|| TerminalSize::of(std::io::stdout())));
    let size = size.flatten();
    let config = request.container(sandbox.id().as_str(), &image.config, image.layers.len(), size)?;
    let create = async {
        let (container, streams) = sandbox.create_container(&config).await?;
        timings.mark("create container");
        let raw = request.args.tty && request.args.interactive;
        let raw = raw.then(|| RawMode::enter(std::io::stdin())).transpose().context("cannot make the terminal raw")?;
        let attached = Attached::new(streams).context("cannot connect the container's streams")?;
        let started = container.start().await?;
        timings.mark("start program");
        anyhow::Ok((raw, attached, started))
    };
    let (raw, mut attached, started) = tokio::select! {
        biased;
        signal = signals.next() => return Ok(Outcome::Interrupted(signal)),
        created = create => created?,
    };
    let outcome = match started {
        Started::Failed(failure) => Outcome::NotExecuted(failure),
        Started::Running(process) => {
            let session = Session::new(sandbox, process, signals, size)?;
            session.run(&mut attached, request.args.timeout).await?
        }
    };
    drop(raw);
    timings.mark("run program");
    Ok(outcome)
}

fn report_timings(phases: &[Phase], format: Format) -> anyhow::Result<()> {
    #[derive(serde::Serialize)]
    struct Report<'a> {
        phases: &'a [Phase],
    }
    if format == Format::Json {
        eprintln!("{}", to_json(Report { phases })?);
        return Ok(());
    }
    for Phase { name, took_us, ended_us } in phases {
        let ms = |us: u64| std::time::Duration::from_micros(us).as_secs_f64() * 1000.0;
        eprintln!("{name:20} {:9.1} ms  (at {:9.1} ms)", ms(*took_us), ms(*ended_us));
    }
    Ok(())
}
