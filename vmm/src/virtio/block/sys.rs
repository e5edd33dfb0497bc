//! Vectored I/O between a file and guest memory.
#![allow(unsafe_code, reason = "preadv and pwritev take raw pointers into guest memory")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;

/// Linux's `IOV_MAX`.
const IOVECS_MAX: usize = 1024;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the file to the guest.
    Read,
    /// From the guest to the file.
    Write,
}

/// Moves all bytes of the slices to or from the file at `offset`; a file that ends early is an error.
pub(super) fn transfer(
    file: &File,
    direction: Direction,
    slices: &[VolatileSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let mut iovecs: Vec<libc::iovec> = guards
        .iter()
        .filter(|guard| guard.len() > 0)
        .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
        .collect();
    let mut rest = iovecs.as_mut_slice();
    while !rest.is_empty() {
        let moved = transfer_some(file, direction, rest, offset)?;
        offset = offset.saturating_add(moved as u64);
        rest = advance(rest, moved);
    }
    Ok(())
}

fn transfer_some(file: &File, direction: Direction, iovecs: &[libc::iovec], offset: u64) -> io::Result<usize> {
    let count = i32::try_from(iovecs.len().min(IOVECS_MAX)).map_err(io::Error::other)?;
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    loop {
        // SAFETY: each vector is a slice of guest memory, mapped for the life of the process; the guest may change it
        // meanwhile, which the kernel does not mind and no reference of ours sees.
        let moved = unsafe {
            match direction {
                Direction::Read => libc::preadv(file.as_raw_fd(), iovecs.as_ptr(), count, offset),
                Direction::Write => libc::pwritev(file.as_raw_fd(), iovecs.as_ptr(), count, offset),
            }
        };
        match usize::try_from(moved) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => return Ok(moved),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Drops the first `moved` bytes.
fn advance(iovecs: &mut [libc::iovec], mut moved: usize) -> &mut [libc::iovec] {
    let finished = iovecs.iter().take_while(|iovec| {
        let fits = iovec.iov_len <= moved;
        if fits {
            moved -= iovec.iov_len;
        }
        fits
    });
    let finished = finished.count();
    let rest = iovecs.get_mut(finished..).unwrap_or_default();
    if let Some(first) = rest.first_mut() {
        first.iov_base = first.iov_base.wrapping_byte_add(moved);
        first.iov_len -= moved;
    }
    rest
}
