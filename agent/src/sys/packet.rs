//! Messages on a SEQPACKET socket pair, with at most one descriptor in tow.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

/// Longest message in bytes; a longer one is cut off by the receiver.
pub(crate) const MESSAGE_MAX: usize = 8 * 1024;

/// A connected pair: the first end does not block, the second does.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// Sends one message.
pub(crate) fn send(socket: impl AsFd, message: &[u8], passed: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = passed.map(|fd| [fd]);
    if let Some(fds) = &fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL).map(|_| ())
}

/// Receives one message; no bytes mean that the other end is closed.
pub(crate) fn receive(socket: impl AsFd) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
    let mut message = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut message)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    message.truncate(received.bytes);
    let passed = control.drain().find_map(|item| match item {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((message, passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_carry_a_descriptor() {
        let (ours, theirs) = pair().unwrap();
        assert_eq!(receive(&ours).unwrap_err(), Errno::AGAIN);
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&theirs, b"first", Some(writer.as_fd())).unwrap();
        send(&theirs, b"second", None).unwrap();
        drop((theirs, writer));
        let (message, passed) = receive(&ours).unwrap();
        assert_eq!(message, b"first");
        std::io::Write::write_all(&mut std::fs::File::from(passed.unwrap()), b"through").unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(receive(&ours).unwrap().0, b"second");
        assert!(receive(&ours).unwrap().0.is_empty());
    }
}
