//! Between the VM's ports and our own stdin, stdout and stderr.

use std::io::{Read, Write};

use anyhow::Context;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::machine::Machine;

/// Copies the command's output to ours until the VM ends; the command's exit status, if the VM reported one.
pub(crate) fn output(machine: &Machine) -> anyhow::Result<Option<u8>> {
    std::thread::scope(|scope| {
        scope.spawn(|| copy(&machine.stdout, &mut std::io::stdout()));
        scope.spawn(|| copy(&machine.stderr, &mut std::io::stderr()));
        read_status(machine)
    })
}

/// Joins our terminal to the VM's until the shell ends.
pub(crate) fn terminal(machine: &Machine) -> anyhow::Result<Option<u8>> {
    let _raw = RawTerminal::enter()?;
    let input = machine.terminal.try_clone()?;
    // Blocked in a read of the terminal when the shell ends; it ends with the process.
    std::thread::spawn(move || copy(std::io::stdin(), &mut &input));
    std::thread::scope(|scope| {
        scope.spawn(|| copy(&machine.terminal, &mut std::io::stdout()));
        read_status(machine)
    })
}

/// Waits for the status, a decimal number, or for QEMU's end, which closes every port.
fn read_status(machine: &Machine) -> anyhow::Result<Option<u8>> {
    let mut text = String::new();
    (&machine.status).read_to_string(&mut text).context("cannot read the status port")?;
    Ok(text.trim().parse().ok())
}

/// Copies until either side closes. A closed stdout ends the copying, not the command.
fn copy(mut from: impl Read, to: &mut impl Write) {
    let mut buffer = [0_u8; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return };
        if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// Our terminal in raw mode; restored when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).context("cannot set the terminal")?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing more can be done if the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
