//! The guest's I/O APIC: turns the redirection entries that the guest writes into message-signalled interrupts.
//!
//! KVM's own I/O APIC has 24 pins, and a kernel reads and writes each entry many times as it starts: almost 600 VM exits,
//! half of all. This one has a pin for each line in use, and its reads cost no exit: the guest sees a read-only page that
//! gives [`page_value`] whatever register is selected. The value is a true version register, and read as a redirection
//! entry it says "masked, edge-triggered, nothing pending"; kernels remember the entries they wrote, and look for pending
//! level-triggered interrupts only.
//!
//! With one vCPU the writes are deferred as well: an entry is written before the device behind it is told to go, and that
//! does not wait. With more vCPUs an interrupt can be moved away from a vCPU at any time, so writes are taken at once.
//!
//! Registers: Intel 82093AA, section 3.0. Messages: Intel SDM volume 3, section 11.11.

use std::sync::Arc;

use anyhow::Context as _;
use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

/// Offset of the register select register, and of the window to the selected one.
const SELECT: u64 = 0x00;
/// See [`SELECT`].
pub(super) const WINDOW: u64 = 0x10;
/// Bytes from the one to the end of the other.
pub(super) const REGISTERS_BYTES: u32 = 0x14;
/// The first redirection entry; each takes two registers.
const FIRST_ENTRY: u32 = 0x10;
const VERSION: u32 = 0x11;
const MASKED: u64 = 1 << 16;
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

/// What the guest reads in the window: version, and the last pin's number, which is odd, so that bit 16, the mask of a
/// redirection entry, is set.
pub(super) fn page_value(pins: u32) -> u32 {
    VERSION | (last_pin(pins) << 16)
}

/// A number of pins, at least `pins`, that [`page_value`] can express.
pub(super) fn round_pins(pins: u32) -> u32 {
    pins.next_multiple_of(2)
}

fn last_pin(pins: u32) -> u32 {
    pins.saturating_sub(1) & 0xff
}

/// The registers, plain, to be saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IoApicState {
    select: u32,
    /// Redirection entries by pin.
    entries: Vec<u64>,
}

impl IoApicState {
    fn new(pins: u32) -> Self {
        Self { select: 0, entries: vec![MASKED; pins as usize] }
    }

    /// Takes a write; says whether an interrupt's message may have changed.
    fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else { return false };
        match offset {
            SELECT => self.select = value & 0xff,
            WINDOW => return self.write_entry(value),
            _ => {}
        }
        false
    }

    fn write_entry(&mut self, value: u32) -> bool {
        let Some(register) = self.select.checked_sub(FIRST_ENTRY) else { return false };
        let Some(entry) = self.entries.get_mut(register as usize / 2) else { return false };
        let before = *entry;
        let value = u64::from(value);
        *entry = if register % 2 == 0 {
            (before & !u64::from(u32::MAX)) | value
        } else {
            (before & u64::from(u32::MAX)) | (value << 32)
        };
        message(before) != message(*entry)
    }

    /// The messages of all pins that are not masked, by pin.
    fn messages(&self) -> Vec<(u32, Message)> {
        (0..).zip(&self.entries).filter_map(|(pin, entry)| Some((pin, message(*entry)?))).collect()
    }
}

/// An interrupt as a write to the local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    address: u32,
    data: u32,
}

/// What a redirection entry sends; nothing if it is masked.
fn message(entry: u64) -> Option<Message> {
    if entry & MASKED != 0 {
        return None;
    }
    let [vector, modes, _, _, _, _, _, destination] = entry.to_le_bytes();
    let (delivery_mode, logical) = (u32::from(modes & 7), u32::from(modes >> 3 & 1));
    Some(Message {
        address: MESSAGE_ADDRESS | (u32::from(destination) << 12) | (logical << 2),
        data: u32::from(vector) | (delivery_mode << 8),
    })
}

/// The device, connected to KVM: pin `n` is raised through the irqfd of GSI `n`.
pub(super) struct IoApic {
    vm: Arc<VmFd>,
    state: IoApicState,
}

impl IoApic {
    /// All pins masked, whatever KVM's default routes are.
    pub(super) fn new(vm: Arc<VmFd>, pins: u32) -> anyhow::Result<Self> {
        let ioapic = Self { vm, state: IoApicState::new(pins) };
        ioapic.route()?;
        Ok(ioapic)
    }

    /// A vCPU wrote at `offset` of the registers' page.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> anyhow::Result<()> {
        if self.state.write(offset, data) { self.route() } else { Ok(()) }
    }

    fn route(&self) -> anyhow::Result<()> {
        let routes: Vec<_> = self.state.messages().into_iter().map(|(pin, message)| route(pin, message)).collect();
        let routes = KvmIrqRouting::from_entries(&routes).context("list the interrupt routes")?;
        self.vm.set_gsi_routing(&routes).context("KVM refuses an interrupt's route")
    }
}

fn route(pin: u32, message: Message) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi: pin, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address;
    entry.u.msi.data = message.data;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(state: &mut IoApicState, register: u32, value: u32) -> bool {
        assert!(!state.write(SELECT, &register.to_le_bytes()));
        state.write(WINDOW, &value.to_le_bytes())
    }

    #[test]
    fn what_is_read_is_a_version_register_and_a_masked_entry() {
        for pins in (1..24).map(round_pins) {
            let value = page_value(pins);
            assert_eq!((value & 0xff, value >> 16), (0x11, pins - 1));
            assert_eq!(message(u64::from(value)), None);
            assert_eq!(value & 0xff00, 0, "fixed, physical, edge, nothing pending");
        }
    }

    #[test]
    fn an_entry_becomes_a_message_when_it_is_unmasked() {
        let mut state = IoApicState::new(4);
        assert_eq!(state.messages(), []);
        assert!(!write(&mut state, 0x13, 3 << 24), "the destination of a masked entry");
        assert!(write(&mut state, 0x12, 0x0931));
        let message = Message { address: 0xfee0_3004, data: 0x131 };
        assert_eq!(state.messages(), [(1, message)]);
        assert!(!write(&mut state, 0x12, 0x0931), "nothing new");
        assert!(write(&mut state, 0x12, 0x1_0931));
        assert_eq!(state.messages(), []);
    }

    #[test]
    fn writes_to_other_registers_or_of_other_widths_change_nothing() {
        let mut state = IoApicState::new(2);
        for register in [0, 1, 0xf, 0x14, 0xff] {
            assert!(!write(&mut state, register, 0x31));
        }
        assert!(!state.write(SELECT, &[0x10]) && !state.write(0x40, &[0; 4]) && !state.write(WINDOW, &[0; 8]));
        assert_eq!(state.entries, IoApicState::new(2).entries);
    }
}
