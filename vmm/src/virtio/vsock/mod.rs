//! virtio-vsock (virtio 1.2, section 5.10) whose host side is UNIX sockets.
//!
//! The hybrid convention of Firecracker, Cloud Hypervisor and Kata: a host client connects to one socket, writes
//! `CONNECT <port>\n`, reads `OK <host port>\n` when the guest has accepted, and owns a stream to that port. A guest that
//! connects to CID 2, port `N`, reaches the listener at `<socket>_<N>`.
//!
//! ```text
//! guest queues <-> device (chains, headers) <-> muxer (table, epoll, timers) <-> connection (state, credit) <-> socket
//! ```
//!
//! Nothing is lost under backpressure: a slow host reader fills the connection's buffer and then the guest's credit runs
//! out, a slow guest reader leaves bytes in the host's socket.

mod connection;
mod device;
mod handshake;
mod muxer;
mod socket;
mod spec;
#[cfg(test)]
mod tests;
mod timer;

pub(crate) use device::VsockDevice;
