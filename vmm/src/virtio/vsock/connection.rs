//! One stream between a UNIX socket of the host and a socket of the guest.
//!
//! ```text
//!                host client sent CONNECT           guest sent REQUEST
//!                          |                                |
//!                          v                                |
//!                     Requested --RESPONSE--> Established <-+
//!                        |                        |
//!          RST, timeout  |        host side over, | guest told (SHUTDOWN both)
//!                        v                        v
//!                      (gone) <--RST, timeout-- Closing
//! ```
//!
//! From every state a packet that is illegal there resets the connection. When the guest is done (RST, or SHUTDOWN of
//! both directions) while bytes of it still wait for a slow reader on the host, the socket lives on as a [`Drain`].
//!
//! The connection owns its socket, its buffer and its credit; the muxer owns the table, the timers and epoll.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::socket::HostSocket;
use super::spec::{Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// Bytes a guest may have in flight towards one host socket; also the greatest size of a connection's buffer.
pub(super) const BUF_ALLOC: u32 = 128 * 1024;
/// Greatest payload of one packet (Linux's `VIRTIO_VSOCK_MAX_PKT_BUF_SIZE`).
pub(super) const PAYLOAD_MAX: usize = 64 * 1024;
/// How long a guest may take to answer a REQUEST.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a guest may take to answer a SHUTDOWN of both directions with RST.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);

/// The two ports that name a connection of this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    /// Port on the host's side.
    pub(super) host: u32,
    /// Port on the guest's side.
    pub(super) guest: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The guest was sent, or is about to be sent, a REQUEST.
    Requested { deadline: Instant },
    /// Data flows.
    Established,
    /// The guest was told that both directions are over.
    Closing { deadline: Instant },
}

/// What a packet or an event did to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on.
    Keep,
    /// It is over; bytes that wait for the host are still to be delivered. `reset`: the guest gets a RST.
    Over {
        /// Whether the guest is to be told.
        reset: bool,
    },
}

/// What to send to the guest next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) op: Op,
    pub(super) flags: u32,
    /// Bytes of payload, at the start of the scratch buffer.
    pub(super) len: usize,
}

/// Bytes sent and granted towards the guest (section 5.10.6.3).
#[derive(Clone, Copy, Debug, Default)]
struct GuestCredit {
    buf_alloc: u32,
    fwd_cnt: u32,
    sent: u32,
    /// A CREDIT_REQUEST is out and unanswered.
    asked: bool,
}

impl GuestCredit {
    fn available(&self) -> usize {
        // A guest that claims to have consumed more than it was sent makes the difference huge: no credit, no harm.
        self.buf_alloc.saturating_sub(self.sent.wrapping_sub(self.fwd_cnt)) as usize
    }
}

/// Bytes received from the guest and passed on.
#[derive(Clone, Copy, Debug, Default)]
struct HostCredit {
    received: u32,
    forwarded: u32,
    /// `forwarded` as the guest was last told.
    advertised: u32,
}

/// A stream with a guest's socket at the other end.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ports: Ports,
    state: State,
    socket: HostSocket,
    guest_credit: GuestCredit,
    host_credit: HostCredit,
    /// Operations that wait for a receive buffer of the guest.
    pending: Pending,
    /// Directions the guest has closed.
    guest_closed: u32,
    /// Directions the host has closed, and the part of it the guest was told.
    host_closed: u32,
    host_closed_told: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    request: bool,
    response: bool,
    credit_update: bool,
}

impl Connection {
    /// A connection that a host client asked for.
    pub(super) fn to_guest(ports: Ports, stream: UnixStream, now: Instant) -> Self {
        let mut connection = Self::new(ports, stream, State::Requested { deadline: now + REQUEST_TIMEOUT });
        connection.pending.request = true;
        connection
    }

    /// A connection that the guest asked for with `request`.
    pub(super) fn from_guest(ports: Ports, stream: UnixStream, request: &Header) -> Self {
        let mut connection = Self::new(ports, stream, State::Established);
        connection.take_credit(request);
        connection.pending.response = true;
        connection
    }

    fn new(ports: Ports, stream: UnixStream, state: State) -> Self {
        Self {
            ports,
            state,
            socket: HostSocket::new(stream),
            guest_credit: GuestCredit::default(),
            host_credit: HostCredit::default(),
            pending: Pending::default(),
            guest_closed: 0,
            host_closed: 0,
            host_closed_told: 0,
        }
    }

    /// The one transition function: what a packet of the guest does. `payload` is what followed the header.
    pub(super) fn on_packet(&mut self, header: &Header, payload: &[u8]) -> Outcome {
        self.take_credit(header);
        match (self.state, header.op) {
            (_, Some(Op::Reset)) => Outcome::Over { reset: false },
            (State::Requested { .. }, Some(Op::Response)) => self.on_response(),
            (State::Established, Some(Op::Data)) => self.on_data(payload),
            (State::Closing { .. }, Some(Op::Data)) => self.on_late_data(payload),
            (State::Established | State::Closing { .. }, Some(Op::Shutdown)) => self.on_shutdown(header.flags),
            (State::Established | State::Closing { .. }, Some(Op::CreditUpdate)) => Outcome::Keep,
            (State::Established | State::Closing { .. }, Some(Op::CreditRequest)) => {
                self.pending.credit_update = true;
                Outcome::Keep
            }
            // A second REQUEST or RESPONSE, traffic before the RESPONSE, an unknown operation.
            _ => Outcome::Over { reset: true },
        }
    }

    fn take_credit(&mut self, header: &Header) {
        self.guest_credit.buf_alloc = header.buf_alloc;
        self.guest_credit.fwd_cnt = header.fwd_cnt;
        if self.guest_credit.available() > 0 {
            self.guest_credit.asked = false;
        }
    }

    fn on_response(&mut self) -> Outcome {
        self.state = State::Established;
        let accepted = format!("OK {}\n", self.ports.host);
        // The socket is new and empty: it takes a line of 15 bytes, or its client is gone.
        if self.socket.write_now(accepted.as_bytes()) { Outcome::Keep } else { Outcome::Over { reset: true } }
    }

    fn on_data(&mut self, payload: &[u8]) -> Outcome {
        let Ok(len) = u32::try_from(payload.len()) else { return Outcome::Over { reset: true } };
        let in_flight = self.host_credit.received.wrapping_sub(self.host_credit.forwarded);
        if self.guest_closed & SHUTDOWN_SEND != 0 || in_flight.saturating_add(len) > BUF_ALLOC {
            // Data after its own end, or more than it was granted.
            return Outcome::Over { reset: true };
        }
        self.host_credit.received = self.host_credit.received.wrapping_add(len);
        let forwarded = self.socket.send(payload);
        self.forwarded(forwarded);
        Outcome::Keep
    }

    fn on_late_data(&mut self, payload: &[u8]) -> Outcome {
        // The host client is gone: nobody is left to read this.
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.host_credit.received = self.host_credit.received.wrapping_add(len);
        self.host_credit.forwarded = self.host_credit.received;
        Outcome::Keep
    }

    fn on_shutdown(&mut self, flags: u32) -> Outcome {
        self.guest_closed |= flags & SHUTDOWN_BOTH;
        if self.guest_closed == SHUTDOWN_BOTH {
            return Outcome::Over { reset: true };
        }
        if self.guest_closed & SHUTDOWN_RECEIVE != 0 {
            self.socket.stop_reading();
        }
        if self.guest_closed & SHUTDOWN_SEND != 0 {
            self.socket.finish_writing();
        }
        Outcome::Keep
    }

    fn forwarded(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.host_credit.forwarded = self.host_credit.forwarded.wrapping_add(bytes);
        // Tell the guest before its view of our buffer runs low; every data packet tells it too.
        let as_seen = self.host_credit.received.wrapping_sub(self.host_credit.advertised);
        if self.host_credit.forwarded != self.host_credit.advertised && as_seen >= BUF_ALLOC / 2 {
            self.pending.credit_update = true;
        }
        self.note_host_end();
    }

    /// The socket became readable, writable, or was hung up by its client.
    pub(super) fn on_host_event(&mut self, readable: bool, writable: bool, hung_up: bool) {
        self.socket.readable |= readable;
        self.socket.hung_up |= hung_up;
        if writable {
            let forwarded = self.socket.flush();
            self.forwarded(forwarded);
        }
        self.note_host_end();
    }

    /// Learns from the socket which directions the host has closed.
    fn note_host_end(&mut self) {
        if self.socket.write_failed {
            self.host_closed |= SHUTDOWN_RECEIVE;
        }
        if self.socket.end_of_file {
            self.host_closed |= SHUTDOWN_SEND;
            if self.socket.hung_up {
                self.host_closed |= SHUTDOWN_RECEIVE;
            }
        }
    }

    /// When something must have happened, if anything must.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Requested { deadline } | State::Closing { deadline } => Some(deadline),
            State::Established => None,
        }
    }

    /// Whether [`Self::next_packet`] may have something to send.
    pub(super) fn wants_to_send(&self) -> bool {
        let pending = self.pending.request || self.pending.response || self.pending.credit_update;
        pending || self.may_read() || self.must_ask_for_credit() || self.has_news_of_the_end()
    }

    fn flowing(&self) -> bool {
        self.state == State::Established && !self.pending.response
    }

    fn may_read(&self) -> bool {
        self.flowing() && self.socket.readable && self.guest_credit.available() > 0
    }

    fn must_ask_for_credit(&self) -> bool {
        self.flowing() && self.socket.readable && self.guest_credit.available() == 0 && !self.guest_credit.asked
    }

    fn has_news_of_the_end(&self) -> bool {
        self.flowing() && self.host_closed != self.host_closed_told
    }

    /// Takes the next packet for the guest, if there is one; a payload of at most `room` bytes is put at the start of
    /// `scratch`.
    pub(super) fn next_packet(&mut self, room: usize, scratch: &mut [u8], now: Instant) -> Option<Packet> {
        if std::mem::take(&mut self.pending.request) {
            return Some(Packet { op: Op::Request, flags: 0, len: 0 });
        }
        if std::mem::take(&mut self.pending.response) {
            return Some(Packet { op: Op::Response, flags: 0, len: 0 });
        }
        if let Some(packet) = self.next_data(room, scratch) {
            return Some(packet);
        }
        if self.has_news_of_the_end() {
            self.host_closed_told = self.host_closed;
            if self.host_closed == SHUTDOWN_BOTH {
                self.state = State::Closing { deadline: now + CLOSE_TIMEOUT };
            }
            return Some(Packet { op: Op::Shutdown, flags: self.host_closed, len: 0 });
        }
        if self.must_ask_for_credit() {
            self.guest_credit.asked = true;
            return Some(Packet { op: Op::CreditRequest, flags: 0, len: 0 });
        }
        std::mem::take(&mut self.pending.credit_update).then_some(Packet { op: Op::CreditUpdate, flags: 0, len: 0 })
    }

    fn next_data(&mut self, room: usize, scratch: &mut [u8]) -> Option<Packet> {
        if !self.may_read() {
            return None;
        }
        let most = room.min(self.guest_credit.available()).min(scratch.len()).min(PAYLOAD_MAX);
        let len = self.socket.receive(scratch.get_mut(..most)?);
        self.note_host_end();
        if len == 0 {
            return None;
        }
        let sent = u32::try_from(len).unwrap_or(u32::MAX);
        self.guest_credit.sent = self.guest_credit.sent.wrapping_add(sent);
        Some(Packet { op: Op::Data, flags: 0, len })
    }

    /// `fwd_cnt` to put into a packet, which tells the guest all there is to tell about credit.
    pub(super) fn advertise_credit(&mut self) -> u32 {
        self.pending.credit_update = false;
        self.host_credit.advertised = self.host_credit.forwarded;
        self.host_credit.advertised
    }

    /// The host's socket.
    pub(super) fn stream(&self) -> &UnixStream {
        self.socket.stream()
    }

    /// Ends the connection; what still waits for the host's reader lives on.
    pub(super) fn into_drain(self) -> Option<Drain> {
        let drain = Drain { socket: self.socket };
        drain.socket.has_more_to_write().then_some(drain)
    }
}

/// The rest of a connection whose guest is done: bytes that a slow reader on the host has not taken yet.
#[derive(Debug)]
pub(super) struct Drain {
    socket: HostSocket,
}

impl Drain {
    /// The socket takes bytes again; returns whether more are left.
    pub(super) fn on_writable(&mut self) -> bool {
        self.socket.flush();
        self.socket.has_more_to_write()
    }

    /// The socket.
    pub(super) fn stream(&self) -> &UnixStream {
        self.socket.stream()
    }
}
