//! The guest's I/O ports: a serial port that only writes, and the reset line of a keyboard controller.
//!
//! A kernel writes to the serial port's set-up registers dozens of times before it prints anything. Those writes have no
//! effect that the guest could notice before it reads from the port, so KVM may collect them ([`DEFERRABLE_WRITES`]).

use std::io;
use std::sync::Arc;

use vm_superio::{Serial, Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::EventFd;

use crate::console::ConsoleBuffer;

const SERIAL: u16 = 0x3f8;
const SERIAL_END: u16 = SERIAL + 7;
const INTERVAL_TIMER: u16 = 0x40;
/// Command port of a keyboard controller.
const KEYBOARD_COMMAND: u16 = 0x64;
/// Pulses the processor's reset line.
const KEYBOARD_RESET: u8 = 0xfe;
/// Ports, as (first, count), whose writes KVM may collect until the guest next leaves to us: the serial port's FIFO, line
/// and modem control, and the interval timer, which is not there but is told to stop. Not the serial port's data and
/// interrupt enable registers: they raise interrupts.
pub(super) const DEFERRABLE_WRITES: [(u16, u32); 2] = [(SERIAL + 2, 3), (INTERVAL_TIMER, 4)];

/// What a read gives where no device answers.
const FLOATING: u8 = 0xff;

/// What a write to a port asks of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortEffect {
    /// Nothing more.
    None,
    /// The guest wants to be reset.
    Reset,
}

/// The ports; vCPUs share them behind a lock.
pub(super) struct Ports {
    serial: Serial<Interrupt, NoEvents, ConsoleWriter>,
}

impl Ports {
    /// A serial port whose output goes to `console`, with its interrupt line.
    pub(super) fn new(console: Arc<ConsoleBuffer>, interrupt: EventFd) -> Self {
        Self { serial: Serial::new(Interrupt(interrupt), ConsoleWriter(console)) }
    }

    /// A vCPU wrote bytes to a port (more than one for a string or a wide instruction).
    pub(super) fn write(&mut self, port: u16, data: &[u8]) -> PortEffect {
        match port {
            SERIAL..=SERIAL_END => {
                for byte in data {
                    // Fails only if the interrupt cannot be raised; the driver polls as well.
                    let _ = self.serial.write(serial_register(port), *byte);
                }
                PortEffect::None
            }
            KEYBOARD_COMMAND if data == [KEYBOARD_RESET] => PortEffect::Reset,
            _ => PortEffect::None,
        }
    }

    /// A vCPU reads from a port.
    pub(super) fn read(&mut self, port: u16, data: &mut [u8]) {
        match port {
            SERIAL..=SERIAL_END => data.iter_mut().for_each(|byte| *byte = self.serial.read(serial_register(port))),
            _ => data.fill(FLOATING),
        }
    }
}

fn serial_register(port: u16) -> u8 {
    u8::try_from(port.wrapping_sub(SERIAL)).unwrap_or(0)
}

/// An edge-triggered interrupt line.
struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The console buffer as the sink of the serial port.
struct ConsoleWriter(Arc<ConsoleBuffer>);

impl io::Write for ConsoleWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
