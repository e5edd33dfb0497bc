//! The end of the guest.

use std::time::Duration;

use rustix::system::RebootCommand;

use crate::pod::Pod;

/// How long the answer to Shutdown may take to leave the guest.
const ANSWER_WAIT: Duration = Duration::from_millis(10);

/// Kills every process, gives back what was written to shares, and resets the machine, which ends the VM.
///
/// The scratch disk is not written back: it ends with the VM, and its dirty pages with it.
pub(crate) async fn shut_down(pod: &Pod) {
    let _ = crate::sys::signal::send_to_all(libc::SIGKILL);
    // The answer is on its way in other tasks; the reaper sees the killed in the meantime.
    tokio::time::sleep(ANSWER_WAIT).await;
    pod.release_storage();
    reset();
}

/// Resets the machine at once.
pub(crate) fn reset() {
    let _ = rustix::system::reboot(RebootCommand::Restart);
}
