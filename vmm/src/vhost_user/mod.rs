//! Serves device cores over vhost-user, to a QEMU that runs the guest.
//!
//! ```text
//! Endpoint::new ──> fd for QEMU's command line         QEMU connects at once, waits for answers
//!      └──────────> Served::start ──> socket thread (protocol) + worker thread (kicks, host events) ──> core
//! ```
//!
//! One device has one socket and one worker; a mutex keeps "one thread at a time calls a core" true against the socket
//! thread. A core that fails stops its device for good and makes [`Failure`] readable.

mod backend;
mod failure;
#[cfg(test)]
mod tests;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use vhost_user_backend::{VhostUserDaemon, VringEpollHandler};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::virtio::core::DeviceCore;
use backend::Backend;
pub(crate) use failure::Failure;

/// A connected pair: QEMU's end is inherited by it, ours waits in a listener, as the library wants it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    name: String,
    listener: UnixListener,
    peer: OwnedFd,
}

impl Endpoint {
    /// Makes the pair; for a moment a socket named after the device exists in `directory`.
    pub(crate) fn new(name: &str, directory: &Path) -> std::io::Result<Self> {
        let path = directory.join(format!("vhost-{name}.sock"));
        let listener = UnixListener::bind(&path)?;
        let peer = UnixStream::connect(&path);
        std::fs::remove_file(&path)?;
        Ok(Self { name: name.to_owned(), listener, peer: peer?.into() })
    }

    /// The end that QEMU inherits.
    pub(crate) fn peer(&self) -> &OwnedFd {
        &self.peer
    }
}

/// A device that is being served, until it is dropped.
pub(crate) struct Served {
    workers: Vec<Arc<VringEpollHandler<Arc<Backend>>>>,
    /// Waits for the protocol's end, so that one that ends before QEMU does is not overlooked.
    protocol: Option<JoinHandle<()>>,
}

impl Served {
    /// Starts to serve `core` on `endpoint`. Its threads are made here: call it after the process is confined.
    pub(crate) fn start(endpoint: Endpoint, core: Box<dyn DeviceCore>, failure: Arc<Failure>) -> anyhow::Result<Self> {
        let Endpoint { name, listener, peer } = endpoint;
        // QEMU has its own copy by now; ours would keep the connection open after QEMU's end.
        drop(peer);
        let host_events = core.host_events().map(|events| events.as_raw_fd());
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let backend = Arc::new(Backend::new(name.clone(), core, memory.clone(), Arc::clone(&failure))?);
        let host_token = backend.host_token();
        let mut daemon = VhostUserDaemon::new(format!("vhost-{name}"), backend, memory)
            .map_err(|error| anyhow::anyhow!("cannot serve device {name} over vhost-user: {error}"))?;
        let workers = daemon.get_epoll_handlers();
        if let Some(events) = host_events {
            for worker in &workers {
                worker.register_listener(events, EventSet::IN, host_token)?;
            }
        }
        daemon
            .start(&mut listener.into())
            .map_err(|error| anyhow::anyhow!("cannot accept QEMU's connection for device {name}: {error}"))?;
        let protocol = std::thread::Builder::new().name(format!("wait-{name}")).spawn(move || {
            if let Err(error) = daemon.wait()
                && !qemu_is_gone(&error)
            {
                failure.set(anyhow::anyhow!("vhost-user protocol of device {name}: {error}"));
            }
        })?;
        Ok(Self { workers, protocol: Some(protocol) })
    }
}

/// QEMU's end of the socket closed, between two messages or inside one.
fn qemu_is_gone(error: &vhost_user_backend::Error) -> bool {
    use vhost::vhost_user::Error;
    matches!(
        error,
        vhost_user_backend::Error::HandleRequest(Error::Disconnected | Error::PartialMessage | Error::SocketBroken(_))
    )
}

impl Drop for Served {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.send_exit_event();
        }
        // A panic in it has been reported; there is nothing more to do at the end.
        let _ended = self.protocol.take().map(JoinHandle::join);
    }
}
