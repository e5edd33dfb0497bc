//! The wire form of virtio vsock (virtio 1.2, section 5.10): constants and the packet header. No logic, no state.

/// Device type of a socket device (section 5).
pub(super) const DEVICE_TYPE: u32 = 19;
/// Queues in their order (section 5.10.2).
pub(super) const RX_QUEUE: usize = 0;
/// Packets from the guest.
pub(super) const TX_QUEUE: usize = 1;

/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(super) const TYPE_STREAM: u16 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender will not receive more data.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender will not send more data.
pub(super) const SHUTDOWN_SEND: u32 = 2;
/// Both directions are over.
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// Bytes of `struct virtio_vsock_hdr` on the wire.
pub(super) const HEADER_BYTES: usize = 44;

/// `enum virtio_vsock_op` (section 5.10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// `VIRTIO_VSOCK_OP_REQUEST`
    Request = 1,
    /// `VIRTIO_VSOCK_OP_RESPONSE`
    Response = 2,
    /// `VIRTIO_VSOCK_OP_RST`
    Reset = 3,
    /// `VIRTIO_VSOCK_OP_SHUTDOWN`
    Shutdown = 4,
    /// `VIRTIO_VSOCK_OP_RW`
    Data = 5,
    /// `VIRTIO_VSOCK_OP_CREDIT_UPDATE`
    CreditUpdate = 6,
    /// `VIRTIO_VSOCK_OP_CREDIT_REQUEST`
    CreditRequest = 7,
}

impl Op {
    fn decode(op: u16) -> Option<Self> {
        [
            Self::Request,
            Self::Response,
            Self::Reset,
            Self::Shutdown,
            Self::Data,
            Self::CreditUpdate,
            Self::CreditRequest,
        ]
        .into_iter()
        .find(|known| *known as u16 == op)
    }
}

/// `struct virtio_vsock_hdr`, in native byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// CID of the sender.
    pub(super) src_cid: u64,
    /// CID of the receiver.
    pub(super) dst_cid: u64,
    /// Port of the sender.
    pub(super) src_port: u32,
    /// Port of the receiver.
    pub(super) dst_port: u32,
    /// Bytes of payload that follow.
    pub(super) len: u32,
    /// Socket type, [`TYPE_STREAM`].
    pub(super) socket_type: u16,
    /// What the packet does; `None` for a number that the specification does not know.
    pub(super) op: Option<Op>,
    /// Flags of the operation, [`SHUTDOWN_SEND`] for instance.
    pub(super) flags: u32,
    /// Bytes of buffer the sender has for this stream.
    pub(super) buf_alloc: u32,
    /// Bytes of this stream the sender has consumed, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Reads a header from its little-endian wire form.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut rest = bytes.as_slice();
        Some(Self {
            src_cid: u64::from_le_bytes(take(&mut rest)?),
            dst_cid: u64::from_le_bytes(take(&mut rest)?),
            src_port: u32::from_le_bytes(take(&mut rest)?),
            dst_port: u32::from_le_bytes(take(&mut rest)?),
            len: u32::from_le_bytes(take(&mut rest)?),
            socket_type: u16::from_le_bytes(take(&mut rest)?),
            op: Op::decode(u16::from_le_bytes(take(&mut rest)?)),
            flags: u32::from_le_bytes(take(&mut rest)?),
            buf_alloc: u32::from_le_bytes(take(&mut rest)?),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)?),
        })
    }

    /// The little-endian wire form.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(self.src_cid.to_le_bytes());
        bytes.extend(self.dst_cid.to_le_bytes());
        bytes.extend(self.src_port.to_le_bytes());
        bytes.extend(self.dst_port.to_le_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.socket_type.to_le_bytes());
        bytes.extend(self.op.map_or(0, |op| op as u16).to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buf_alloc.to_le_bytes());
        bytes.extend(self.fwd_cnt.to_le_bytes());
        bytes
    }
}

/// Cuts the next `N` bytes off.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_offsets_of_the_specification() {
        let bytes: [u8; HEADER_BYTES] = std::array::from_fn(|offset| u8::try_from(offset).unwrap());
        let header = Header::decode(&bytes).unwrap();
        assert_eq!(header.src_cid, 0x0706_0504_0302_0100);
        assert_eq!(header.dst_cid, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(header.src_port, 0x1312_1110);
        assert_eq!(header.dst_port, 0x1716_1514);
        assert_eq!(header.len, 0x1b1a_1918);
        assert_eq!(header.socket_type, 0x1d1c);
        assert_eq!(header.op, None, "0x1f1e is no operation");
        assert_eq!(header.flags, 0x2322_2120);
        assert_eq!(header.buf_alloc, 0x2726_2524);
        assert_eq!(header.fwd_cnt, 0x2b2a_2928);
    }

    #[test]
    fn encoding_is_the_inverse_of_decoding() {
        let header = Header {
            src_cid: 2,
            dst_cid: 3,
            src_port: 1 << 30,
            dst_port: 1024,
            len: 65_536,
            socket_type: TYPE_STREAM,
            op: Some(Op::Shutdown),
            flags: SHUTDOWN_BOTH,
            buf_alloc: 131_072,
            fwd_cnt: u32::MAX,
        };
        let bytes: [u8; HEADER_BYTES] = header.encode().try_into().unwrap();
        assert_eq!(Header::decode(&bytes), Some(header));
    }
}
