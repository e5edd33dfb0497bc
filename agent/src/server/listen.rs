//! The agent's vsock listeners. Only the host is listened to: a process of a container cannot reach them, not even on a
//! kernel whose vsock connects a guest with itself.

use std::time::Duration;

use bulkhead_protocols::wire::{AGENT_PORT, HOST_CID, STDIO_PORT};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};
use ttrpc::r#async::transport::Listener;

/// Pause after a failed accept (no descriptors left, for one), so that the failure does not eat the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Both listeners.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) rpc: VsockListener,
    pub(crate) stdio: VsockListener,
}

/// Begins to listen on both ports.
pub(crate) fn bind() -> std::io::Result<Listeners> {
    Ok(Listeners {
        rpc: VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, AGENT_PORT))?,
        stdio: VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, STDIO_PORT))?,
    })
}

/// The next connection from the host.
pub(crate) async fn accept(listener: &VsockListener) -> VsockStream {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if peer.cid() == HOST_CID => return stream,
            Ok(_) => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// The host's connections, for the RPC server.
pub(crate) fn connections(listener: VsockListener) -> Listener {
    Listener::new(futures::stream::unfold(listener, |listener| async move {
        let stream = accept(&listener).await;
        Some((Ok::<_, std::io::Error>(stream), listener))
    }))
}
