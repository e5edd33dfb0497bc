//! Finds the device that a guest address belongs to.

use std::sync::{Arc, Mutex, PoisonError};

use super::device::MmioDevice;
use crate::arch::layout;

/// The devices side by side, one page each, from [`layout::MMIO_BASE`] on.
#[derive(Default)]
pub(crate) struct MmioBus {
    devices: Vec<Arc<Mutex<MmioDevice>>>,
}

impl MmioBus {
    /// Adds the next device.
    pub(crate) fn add(&mut self, device: Arc<Mutex<MmioDevice>>) {
        self.devices.push(device);
    }

    /// A vCPU wrote to `gpa`; an address without a device is ignored, as on a bus.
    pub(crate) fn write(&self, gpa: u64, data: &[u8]) {
        let offset = gpa.wrapping_sub(layout::MMIO_BASE);
        let index = usize::try_from(offset / layout::MMIO_PAGE_BYTES).unwrap_or(usize::MAX);
        if let Some(device) = self.devices.get(index) {
            let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
            device.write(offset % layout::MMIO_PAGE_BYTES, data);
        }
    }
}
