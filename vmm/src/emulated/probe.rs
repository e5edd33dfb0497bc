//! Whether QEMU can run a guest of ours here: found, new enough, with our machine and devices, and with a few
//! instructions really run.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_protocols::control::{ProbeCheck, ProbeReport};
use bulkhead_protocols::vm::Accelerator;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::command::{self, CommandLine};
use super::{image, process};

/// The oldest version with everything on our command line.
const LEAST_VERSION: (u32, u32) = (7, 2);
/// How long the throw-away guest may take; it takes less than a second on any machine worth the name.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Devices that our command line names.
const DEVICES: [&str; 4] =
    ["vhost-user-vsock-device", "vhost-user-fs-device", "virtio-blk-device", "virtio-rng-device"];
const INSTALL: &str = "apt-get install qemu-system-x86";

/// A check's finding, or what is wrong and how to mend it.
type Finding = Result<String, (String, Option<String>)>;

type Step = fn() -> Finding;

/// Tries the emulated accelerator, step by step until one fails.
pub(crate) fn probe() -> ProbeReport {
    let steps: [(&str, Step); 4] = [
        ("find qemu-system-x86_64", version),
        ("find the microvm machine", machine),
        ("find the virtio devices", devices),
        ("run a throw-away guest", throw_away_guest),
    ];
    let mut checks = Vec::new();
    let mut usable = true;
    for (name, step) in steps {
        let (ok, detail, fix) = match step() {
            Ok(detail) => (true, detail, None),
            Err((detail, fix)) => (false, detail, fix),
        };
        checks.push(ProbeCheck { name: name.to_owned(), ok, detail, fix });
        if !ok {
            usable = false;
            break;
        }
    }
    ProbeReport { accelerator: Accelerator::Emulated, usable, checks }
}

fn reinstall() -> Option<String> {
    Some(INSTALL.to_owned())
}

fn ask(arguments: &[&str]) -> Result<String, (String, Option<String>)> {
    let output = Command::new(command::PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| (format!("{}: {error}", command::PROGRAM), reinstall()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err((format!("{} {}: {said}", command::PROGRAM, arguments.join(" ")), reinstall()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn version() -> Finding {
    let said = ask(&["--version"])?;
    let first = said.lines().next().unwrap_or_default().to_owned();
    match parse_version(&first) {
        Some(version) if version >= LEAST_VERSION => Ok(first),
        Some(_) => {
            let (major, minor) = LEAST_VERSION;
            Err((format!("{first} is too old: {major}.{minor} or newer is needed"), reinstall()))
        }
        None => Err((format!("its version cannot be told from {first:?}"), reinstall())),
    }
}

/// `QEMU emulator version 7.2.22 (Debian …)`
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.strip_prefix("QEMU emulator version ")?.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn machine() -> Finding {
    let said = ask(&["-M", "help"])?;
    match said.lines().find(|line| line.starts_with("microvm")) {
        Some(line) => Ok(line.trim().to_owned()),
        None => Err(("this QEMU is built without microvm".to_owned(), reinstall())),
    }
}

fn devices() -> Finding {
    let said = ask(&["-M", "microvm", "-device", "help"])?;
    let missing: Vec<&str> = DEVICES.into_iter().filter(|device| !said.contains(&format!("\"{device}\""))).collect();
    if missing.is_empty() {
        Ok(DEVICES.join(", "))
    } else {
        Err((format!("this QEMU is built without {}", missing.join(", ")), reinstall()))
    }
}

fn throw_away_guest() -> Finding {
    let started = Instant::now();
    match run_guest() {
        Ok(output) if output.ends_with(image::MESSAGE) => {
            Ok(format!("its instructions ran as they should, in {} ms", started.elapsed().as_millis()))
        }
        Ok(output) => {
            let output = String::from_utf8_lossy(&output).trim().to_owned();
            Err((format!("QEMU did not run it within {} s, and said: {output:?}", TIME_LIMIT.as_secs()), None))
        }
        Err(error) => Err((format!("it could not be started: {error}"), None)),
    }
}

/// Runs the image on the machine that sandboxes get; returns what came out, serial port and QEMU's own complaints.
fn run_guest() -> std::io::Result<Vec<u8>> {
    let memfd = rustix::fs::memfd_create("probe", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut kernel = std::fs::File::from(memfd);
    kernel.write_all(&image::build()?)?;
    let line = CommandLine::of_throw_away_guest(&kernel);
    let mut qemu = process::spawn(command::PROGRAM, &line.arguments, &line.inherited)?;
    let mut output = Vec::new();
    let ended = match qemu.stdout.take() {
        Some(mut console) => read_until_end(&mut console, &mut output),
        None => Ok(()),
    };
    // It has ended by itself, or must now.
    qemu.kill()?;
    if output.is_empty()
        && let Some(messages) = qemu.stderr.take()
    {
        messages.take(4096).read_to_end(&mut output)?;
    }
    qemu.wait()?;
    ended.map(|()| output)
}

/// Reads to the end of the output or of the time; a guest gone wild fills no more than a few pages.
fn read_until_end(console: &mut (impl Read + AsFd), output: &mut Vec<u8>) -> std::io::Result<()> {
    let deadline = Instant::now() + TIME_LIMIT;
    while output.len() < 4096 {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        if poll(&mut [PollFd::new(console, PollFlags::IN)], Some(&timeout))? == 0 {
            break;
        }
        let mut bytes = [0; 512];
        let len = console.read(&mut bytes)?;
        if len == 0 {
            break;
        }
        output.extend(bytes.get(..len).unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"), Some((7, 2)));
        assert_eq!(parse_version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert!((10, 0) >= LEAST_VERSION && (7, 1) < LEAST_VERSION);
        assert_eq!(parse_version("qemu: command not found"), None);
    }
}
