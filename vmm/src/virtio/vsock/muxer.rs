//! All sockets of one vsock device: who is connected, who has something to send, who is late.
//!
//! The muxer owns every host socket, the table of connections, and an epoll of its own, which the transport watches. It
//! knows packets but neither queues nor guest memory. Everything a guest can make it keep is bounded: connections,
//! bytes per connection, resets on their way.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulkhead_protocols::wire::HOST_CID;
use rustix::event::{Timespec, epoll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::connection::{BUF_ALLOC, Connection, Drain, Outcome, Ports};
use super::handshake::{Handshake, Line};
use super::spec::{Header, Op, TYPE_STREAM};
use super::timer::Timer;
use crate::counters::{Counter, Counters};

/// Sockets that host clients may hold.
pub(super) const HOST_SOCKETS_MAX: usize = 768;
/// Sockets that the guest may hold, those included whose last bytes wait for a reader on the host. Together with
/// [`BUF_ALLOC`] and [`HOST_SOCKETS_MAX`] this bounds what a guest can make us keep to 128 MiB.
pub(super) const GUEST_SOCKETS_MAX: usize = 256;
/// Resets that wait for a receive buffer; a guest that earns more without taking them loses the newest.
const RESETS_MAX: usize = 1024;
/// First host port of connections that host clients make (the convention of Firecracker and its followers).
pub(super) const FIRST_HOST_PORT: u32 = 1 << 30;
/// How soon to accept again when the host ran out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const LISTENER: u64 = 0;
const TIMER: u64 = 1;
const FIRST_SOCKET: u64 = 2;

#[derive(Debug)]
enum Kind {
    /// A host client that has not named its port.
    Handshake(Handshake),
    /// A stream with the guest.
    Connection(Box<Connection>),
    /// The guest is done, the host's reader is not.
    Drain(Drain),
}

#[derive(Debug)]
struct Socket {
    kind: Kind,
    /// Whom it counts against.
    by_guest: bool,
    /// It is in the queue of those that have something to send.
    queued: bool,
}

#[derive(Debug)]
struct Meters {
    connections: Counter,
    resets: Counter,
    refused: Counter,
    dropped: Counter,
}

/// The sockets of one device.
#[derive(Debug)]
pub(super) struct Muxer {
    guest_cid: u64,
    uds: PathBuf,
    listener: UnixListener,
    epoll: OwnedFd,
    timer: Timer,
    sockets: BTreeMap<u64, Socket>,
    by_ports: BTreeMap<Ports, u64>,
    /// Sockets that may have a packet for the guest, in the order they are served.
    ready: VecDeque<u64>,
    resets: VecDeque<Ports>,
    next_socket: u64,
    next_host_port: u32,
    meters: Meters,
}

impl Muxer {
    /// Takes over a listening socket bound at `uds`; nothing is accepted before [`Self::start`].
    pub(super) fn new(guest_cid: u32, uds: &Path, listener: UnixListener, counters: &Counters) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = Timer::new()?;
        epoll::add(&epoll, timer.expired(), epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        Ok(Self {
            guest_cid: u64::from(guest_cid),
            uds: uds.to_owned(),
            listener,
            epoll,
            timer,
            sockets: BTreeMap::new(),
            by_ports: BTreeMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            next_socket: FIRST_SOCKET,
            next_host_port: FIRST_HOST_PORT,
            meters: Meters {
                connections: counters.counter("vsock.connections"),
                resets: counters.counter("vsock.resets"),
                refused: counters.counter("vsock.refused"),
                dropped: counters.counter("vsock.dropped"),
            },
        })
    }

    /// Readable while [`Self::poll`] has something to do.
    pub(super) fn events(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// The guest is there: host clients are let in.
    pub(super) fn start(&mut self) -> io::Result<()> {
        // Edge-triggered: with a full table or no descriptors a level would spin.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, &self.listener, epoll::EventData::new_u64(LISTENER), flags)?)
    }

    /// The guest is gone: every stream ends.
    pub(super) fn stop(&mut self) {
        // Fails only if it was not started.
        let _not_started = epoll::delete(&self.epoll, &self.listener);
        self.timer.cancel();
        self.sockets.clear();
        self.by_ports.clear();
        self.ready.clear();
        self.resets.clear();
    }

    /// Takes in what happened on the host's side.
    pub(super) fn poll(&mut self, now: Instant) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&at_once)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in events {
            match event.data.u64() {
                LISTENER => self.accept(now)?,
                TIMER => self.on_timer(now)?,
                id => self.on_socket_event(id, event.flags, now)?,
            }
        }
        Ok(())
    }

    fn accept(&mut self, now: Instant) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) if self.count(false) < HOST_SOCKETS_MAX => {
                    stream.set_nonblocking(true)?;
                    let handshake = Handshake::new(stream, now);
                    let deadline = handshake.deadline;
                    self.insert(Kind::Handshake(handshake), false)?;
                    self.timer.wake_at(deadline, now)?;
                }
                // Closed at once: the client sees it and can say so.
                Ok(_) => self.meters.refused.increment(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A client that left again, or no descriptors for now.
                Err(_) => return self.timer.wake_at(now + ACCEPT_RETRY, now),
            }
        }
    }

    fn count(&self, by_guest: bool) -> usize {
        self.sockets.values().filter(|socket| socket.by_guest == by_guest).count()
    }

    fn insert(&mut self, kind: Kind, by_guest: bool) -> io::Result<u64> {
        let id = self.next_socket;
        self.next_socket += 1;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let stream = match &kind {
            Kind::Handshake(handshake) => &handshake.stream,
            Kind::Connection(connection) => connection.stream(),
            Kind::Drain(drain) => drain.stream(),
        };
        epoll::add(&self.epoll, stream, epoll::EventData::new_u64(id), flags)?;
        self.sockets.insert(id, Socket { kind, by_guest, queued: false });
        Ok(id)
    }

    fn on_socket_event(&mut self, id: u64, flags: epoll::EventFlags, now: Instant) -> io::Result<()> {
        let hung_up = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        let readable = hung_up || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP);
        let writable = hung_up || flags.contains(epoll::EventFlags::OUT);
        // An event may outlive its socket within one batch.
        let Some(socket) = self.sockets.get_mut(&id) else { return Ok(()) };
        match &mut socket.kind {
            Kind::Handshake(handshake) => match handshake.read_line() {
                Line::Incomplete => {}
                Line::Refused => self.refuse(id),
                Line::Port(guest_port) => self.connect_to_guest(id, guest_port, hung_up, now)?,
            },
            Kind::Connection(connection) => {
                connection.on_host_event(readable, writable, hung_up);
                self.queue(id);
            }
            Kind::Drain(drain) => {
                if !drain.on_writable() || hung_up {
                    self.sockets.remove(&id);
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, id: u64) {
        self.meters.refused.increment();
        self.sockets.remove(&id);
    }

    /// The client has named its port: the handshake becomes a connection under the same id.
    fn connect_to_guest(&mut self, id: u64, guest: u32, hung_up: bool, now: Instant) -> io::Result<()> {
        let Some(ports) = self.free_host_port(guest) else {
            self.refuse(id);
            return Ok(());
        };
        let Some(Socket { kind: Kind::Handshake(handshake), .. }) = self.sockets.remove(&id) else { return Ok(()) };
        let mut connection = Connection::to_guest(ports, handshake.stream, now);
        // The edges that told of what follows the line are past.
        connection.on_host_event(true, false, hung_up);
        let deadline = connection.deadline();
        let kind = Kind::Connection(Box::new(connection));
        self.sockets.insert(id, Socket { kind, by_guest: false, queued: false });
        self.by_ports.insert(ports, id);
        self.meters.connections.increment();
        self.queue(id);
        deadline.map_or(Ok(()), |deadline| self.timer.wake_at(deadline, now))
    }

    fn free_host_port(&mut self, guest: u32) -> Option<Ports> {
        // One more than the sockets that could be in the way.
        for _ in 0..=HOST_SOCKETS_MAX + GUEST_SOCKETS_MAX {
            let ports = Ports { host: self.next_host_port, guest };
            self.next_host_port = self.next_host_port.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.by_ports.contains_key(&ports) {
                return Some(ports);
            }
        }
        None
    }

    /// Takes in a packet of the guest.
    pub(super) fn on_packet(&mut self, header: &Header, payload: &[u8]) -> io::Result<()> {
        if header.src_cid != self.guest_cid || header.dst_cid != u64::from(HOST_CID) {
            // Like vhost in the kernel: a packet under a false name gets no answer.
            self.meters.dropped.increment();
            return Ok(());
        }
        let ports = Ports { host: header.dst_port, guest: header.src_port };
        let id = self.by_ports.get(&ports).copied();
        let connection = id.and_then(|id| match &mut self.sockets.get_mut(&id)?.kind {
            Kind::Connection(connection) => Some((id, connection)),
            _ => None,
        });
        match connection {
            _ if header.socket_type != TYPE_STREAM => self.reset(ports),
            Some((id, connection)) => match connection.on_packet(header, payload) {
                Outcome::Keep => self.queue(id),
                Outcome::Over { reset } => self.finish(id, ports, reset),
            },
            None if header.op == Some(Op::Request) => return self.connect_to_host(ports, header),
            None if header.op == Some(Op::Reset) => {}
            None => self.reset(ports),
        }
        Ok(())
    }

    fn connect_to_host(&mut self, ports: Ports, request: &Header) -> io::Result<()> {
        let stream = if self.count(true) < GUEST_SOCKETS_MAX { connect_uds(&self.uds, ports.host) } else { None };
        let Some(stream) = stream else {
            self.meters.refused.increment();
            self.reset(ports);
            return Ok(());
        };
        let connection = Connection::from_guest(ports, stream, request);
        let id = self.insert(Kind::Connection(Box::new(connection)), true)?;
        self.by_ports.insert(ports, id);
        self.meters.connections.increment();
        self.queue(id);
        Ok(())
    }

    fn finish(&mut self, id: u64, ports: Ports, reset: bool) {
        self.by_ports.remove(&ports);
        if let Some(Socket { kind: Kind::Connection(connection), by_guest, .. }) = self.sockets.remove(&id)
            && let Some(drain) = connection.into_drain()
        {
            self.sockets.insert(id, Socket { kind: Kind::Drain(drain), by_guest, queued: false });
        }
        if reset {
            self.reset(ports);
        }
    }

    fn reset(&mut self, ports: Ports) {
        self.meters.resets.increment();
        if self.resets.len() < RESETS_MAX {
            self.resets.push_back(ports);
        }
    }

    fn queue(&mut self, id: u64) {
        if let Some(Socket { kind: Kind::Connection(connection), queued, .. }) = self.sockets.get_mut(&id)
            && !*queued
            && connection.wants_to_send()
        {
            *queued = true;
            self.ready.push_back(id);
        }
    }

    /// Whether [`Self::next_packet`] may have a packet.
    pub(super) fn has_packets(&self) -> bool {
        !self.resets.is_empty() || !self.ready.is_empty()
    }

    /// The next packet for the guest: one from each socket in turn. A payload, at most `room` bytes, is put at the start
    /// of `scratch`.
    pub(super) fn next_packet(&mut self, room: usize, scratch: &mut [u8], now: Instant) -> io::Result<Option<Header>> {
        if let Some(ports) = self.resets.pop_front() {
            return Ok(Some(self.header(ports, Op::Reset)));
        }
        while let Some(id) = self.ready.pop_front() {
            let Some(Socket { kind: Kind::Connection(connection), queued, .. }) = self.sockets.get_mut(&id) else {
                continue;
            };
            *queued = false;
            let packet = connection.next_packet(room, scratch, now);
            let ports = connection.ports;
            let fwd_cnt = packet.map(|_| connection.advertise_credit());
            let deadline = connection.deadline();
            self.queue(id);
            if let Some(deadline) = deadline {
                self.timer.wake_at(deadline, now)?;
            }
            if let (Some(packet), Some(fwd_cnt)) = (packet, fwd_cnt) {
                let len = u32::try_from(packet.len).unwrap_or(u32::MAX);
                let header = self.header(ports, packet.op);
                return Ok(Some(Header { len, flags: packet.flags, fwd_cnt, ..header }));
            }
        }
        Ok(None)
    }

    fn header(&self, ports: Ports, op: Op) -> Header {
        Header {
            src_cid: u64::from(HOST_CID),
            dst_cid: self.guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            len: 0,
            socket_type: TYPE_STREAM,
            op: Some(op),
            flags: 0,
            buf_alloc: BUF_ALLOC,
            fwd_cnt: 0,
        }
    }

    /// Ends what is late at `now`.
    pub(super) fn on_timer(&mut self, now: Instant) -> io::Result<()> {
        self.timer.disarm();
        let mut next = None;
        let mut late = Vec::new();
        for (id, socket) in &self.sockets {
            let deadline = match &socket.kind {
                Kind::Handshake(handshake) => Some(handshake.deadline),
                Kind::Connection(connection) => connection.deadline(),
                Kind::Drain(_) => None,
            };
            match deadline {
                Some(deadline) if deadline <= now => late.push(*id),
                Some(deadline) => next = Some(next.map_or(deadline, |next: Instant| next.min(deadline))),
                None => {}
            }
        }
        for id in late {
            match self.sockets.get(&id).map(|socket| &socket.kind) {
                Some(Kind::Connection(connection)) => {
                    let ports = connection.ports;
                    self.finish(id, ports, true);
                }
                _ => self.refuse(id),
            }
        }
        if let Some(next) = next {
            self.timer.wake_at(next, now)?;
        }
        // The listener's edge may have been lost to a lack of descriptors.
        self.accept(now)
    }
}

/// Connects to the UNIX socket that stands for a port of the host; `None` if nobody listens or its backlog is full.
fn connect_uds(uds: &Path, port: u32) -> Option<UnixStream> {
    let mut path = uds.as_os_str().to_owned();
    path.push(format!("_{port}"));
    let address = SocketAddrUnix::new(PathBuf::from(path)).ok()?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &address).ok()?;
    Some(socket.into())
}
