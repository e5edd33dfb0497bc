//! The 4 KiB page in which a guest reads a device's registers and configuration space.

use std::sync::atomic::{AtomicU32, Ordering};

/// A device's page. The guest reads it without a VM exit; only the device's transport writes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegisterPage(&'static [AtomicU32]);

impl RegisterPage {
    /// Wraps memory that lives as long as the process.
    pub(crate) fn new(words: &'static [AtomicU32]) -> Self {
        Self(words)
    }

    /// Shows a 32-bit value at a byte offset; one outside the page is ignored.
    pub(crate) fn show(&self, offset: u64, value: u32) {
        let word = usize::try_from(offset / 4).ok().and_then(|index| self.0.get(index));
        if let Some(word) = word {
            word.store(value.to_le(), Ordering::Release);
        }
    }

    /// Shows bytes from a byte offset (a multiple of 4) on, as far as the page goes.
    pub(crate) fn show_bytes(&self, offset: u64, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(4).enumerate() {
            let mut word = [0; 4];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.show(offset + index as u64 * 4, u32::from_le_bytes(word));
        }
    }

    /// Where the page is in this process.
    pub(crate) fn address(&self) -> *const AtomicU32 {
        self.0.as_ptr()
    }

    /// What the guest would read.
    #[cfg(test)]
    pub(crate) fn read(&self, offset: u64) -> u32 {
        u32::from_le(self.0[usize::try_from(offset / 4).unwrap()].load(Ordering::Acquire))
    }
}
