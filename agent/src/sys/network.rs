//! Bringing the loopback interface up, the one piece of network every namespace needs.
#![allow(unsafe_code, reason = "SIOCSIFFLAGS is an ioctl on struct ifreq")]

use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `struct ifreq` of the kernel as SIOCSIFFLAGS reads it: 40 bytes.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    padding: [u8; 22],
}

/// Brings `lo` up in the network namespace of the caller.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(|_| Errno::INVAL)?;
    let mut request = InterfaceRequest { name: [0; libc::IFNAMSIZ], flags, padding: [0; 22] };
    for (slot, byte) in request.name.iter_mut().zip(b"lo") {
        *slot = *byte;
    }
    // SAFETY: the request reads a struct ifreq; `request` has its size and layout and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request) };
    if result < 0 { Err(super::fds::last_errno()) } else { Ok(()) }
}
