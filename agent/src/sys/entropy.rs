//! Feeding the kernel's entropy pool with bytes that count.
#![allow(unsafe_code, reason = "RNDADDENTROPY is an ioctl on a variable-length structure")]

use std::os::fd::AsRawFd;

/// Most bytes taken at once.
pub(crate) const ENTROPY_MAX: usize = 512;

/// `struct rand_pool_info` of the kernel, with room for [`ENTROPY_MAX`] bytes.
#[repr(C)]
struct RandPoolInfo {
    entropy_bits: libc::c_int,
    buffer_bytes: libc::c_int,
    buffer: [u8; ENTROPY_MAX],
}

/// `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203_u32 as libc::Ioctl;

/// Mixes `bytes` (at most [`ENTROPY_MAX`]) into the pool and credits eight bits for each.
pub(crate) fn add_entropy(bytes: &[u8]) -> std::io::Result<()> {
    let mut pool = RandPoolInfo { entropy_bits: 0, buffer_bytes: 0, buffer: [0; ENTROPY_MAX] };
    let Some(target) = pool.buffer.get_mut(..bytes.len()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    target.copy_from_slice(bytes);
    let length = libc::c_int::try_from(bytes.len()).map_err(std::io::Error::other)?;
    pool.buffer_bytes = length;
    pool.entropy_bits = length.saturating_mul(8);
    let device = std::fs::File::options().write(true).open("/dev/urandom")?;
    // SAFETY: the request reads a rand_pool_info whose buffer holds `buffer_bytes` bytes; `pool` is one and outlives it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const pool) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
