//! The thread of one device: waits for kicks and for the host's side, and calls the device.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::device::{HOST_EVENTS, MmioDevice, STOP};

/// Enough for any core: buffers live on the heap or in guest memory.
const STACK_BYTES: usize = 256 << 10;

/// Makes the descriptor on which a device's thread waits.
pub(crate) fn make_epoll(kicks: &[EventFd], stop: BorrowedFd<'_>) -> io::Result<Arc<Epoll>> {
    let epoll = Epoll::new()?;
    for (queue, kick) in (0_u64..).zip(kicks) {
        epoll.ctl(ControlOperation::Add, kick.as_raw_fd(), EpollEvent::new(EventSet::IN, queue))?;
    }
    epoll.ctl(ControlOperation::Add, stop.as_raw_fd(), EpollEvent::new(EventSet::IN, STOP))?;
    Ok(Arc::new(epoll))
}

/// Starts the thread; it ends when the stop descriptor is readable.
pub(crate) fn spawn(
    name: &str,
    device: Arc<Mutex<MmioDevice>>,
    kicks: Vec<EventFd>,
    epoll: Arc<Epoll>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || serve(&device, &kicks, &epoll))
}

fn serve(device: &Mutex<MmioDevice>, kicks: &[EventFd], epoll: &Epoll) -> io::Result<()> {
    let mut events = vec![EpollEvent::default(); kicks.len() + 2];
    loop {
        let count = match epoll.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for event in events.iter().take(count) {
            let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
            match event.data() {
                STOP => return Ok(()),
                HOST_EVENTS => device.host_events(),
                queue => {
                    let queue = usize::try_from(queue).unwrap_or(usize::MAX);
                    if let Some(kick) = kicks.get(queue) {
                        // Non-blocking; it was readable, and nobody else reads it.
                        let _ = kick.read();
                        device.kicked(queue);
                    }
                }
            }
        }
    }
}
