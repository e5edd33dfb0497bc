//! What well-behaved guests and clients see.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::driver::{Driver, Received};
use crate::virtio::core::DeviceCore;
use crate::virtio::vsock::connection::BUF_ALLOC;
use crate::virtio::vsock::muxer::FIRST_HOST_PORT;
use crate::virtio::vsock::spec::{Op, RX_QUEUE, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

const AGENT: u32 = 1024;
/// Ports of the first connection a host client makes.
const FIRST: (u32, u32) = (FIRST_HOST_PORT, AGENT);
/// Ports of a connection that a guest makes.
const READY: (u32, u32) = (1026, 5000);

fn client(driver: &Driver, line: &str) -> UnixStream {
    let mut client = UnixStream::connect(driver.uds()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.write_all(line.as_bytes()).unwrap();
    client
}

/// A host client's stream to the agent.
fn connected(driver: &mut Driver) -> UnixStream {
    let mut client = client(driver, "CONNECT 1024\n");
    assert_eq!(driver.wait_one().0.op, Some(Op::Request));
    driver.send(Op::Response, FIRST, &[]);
    let mut line = [0; 14];
    client.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"OK 1073741824\n");
    client
}

/// A stream that the guest has opened.
fn accepted(driver: &mut Driver) -> UnixStream {
    let listener = driver.listen(READY.0);
    driver.send(Op::Request, READY, &[]);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(driver.wait_one().0.op, Some(Op::Response));
    stream
}

fn ops(received: &[Received]) -> Vec<Op> {
    received.iter().filter_map(|(header, _)| header.op).collect()
}

fn payload(received: &[Received]) -> Vec<u8> {
    received.iter().flat_map(|(_, payload)| payload.clone()).collect()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

#[test]
fn a_host_client_reaches_a_port_of_the_guest() {
    let mut driver = Driver::new();
    let mut client = client(&driver, "CONNECT 1024\nearly");
    let (request, _) = driver.wait_one();
    assert_eq!((request.op, request.src_cid, request.dst_cid), (Some(Op::Request), 2, 3));
    assert_eq!((request.src_port, request.dst_port), FIRST);
    assert_eq!(request.buf_alloc, BUF_ALLOC);
    driver.send(Op::Response, FIRST, &[]);
    assert_eq!(payload(&driver.wait()), b"early", "what follows the line belongs to the stream");
    driver.send(Op::Data, FIRST, b"answer");
    let mut line = [0; 20];
    client.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"OK 1073741824\nanswer");
}

#[test]
fn a_port_nobody_listens_on_closes_the_client() {
    let mut driver = Driver::new();
    let mut client = client(&driver, "CONNECT 77\n");
    driver.wait_one();
    driver.send(Op::Reset, (FIRST_HOST_PORT, 77), &[]);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_line_that_is_none_closes_the_client() {
    let mut driver = Driver::new();
    let mut client = client(&driver, "GET / HTTP/1.1\n");
    driver.host_events();
    driver.host_events();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(driver.counted("refused"), 1);
}

#[test]
fn a_guest_reaches_a_listener_of_the_host() {
    let mut driver = Driver::new();
    let mut stream = accepted(&mut driver);
    driver.send(Op::Data, READY, b"BULKHEAD READY 1\n");
    driver.send_shutdown(READY, SHUTDOWN_BOTH);
    let mut line = String::new();
    stream.read_to_string(&mut line).unwrap();
    assert_eq!(line, "BULKHEAD READY 1\n");
    assert_eq!(ops(&driver.receive()), [Op::Reset], "the guest need not wait for its close");
}

#[test]
fn a_guest_is_reset_where_nobody_listens() {
    let mut driver = Driver::new();
    driver.send(Op::Request, READY, &[]);
    let (reset, _) = driver.wait_one();
    assert_eq!((reset.op, reset.src_port, reset.dst_port), (Some(Op::Reset), READY.0, READY.1));
    // A socket file whose listener is gone.
    drop(driver.listen(READY.0));
    driver.send(Op::Request, READY, &[]);
    assert_eq!(driver.wait_one().0.op, Some(Op::Reset));
}

#[test]
fn a_listener_with_a_full_backlog_does_not_stall_the_device() {
    let mut driver = Driver::new();
    let listener = driver.listen(READY.0);
    rustix::net::listen(&listener, 0).unwrap();
    let mut resets = 0;
    for port in 0..8 {
        driver.send(Op::Request, (READY.0, 6000 + port), &[]);
        resets += ops(&driver.receive()).iter().filter(|op| **op == Op::Reset).count();
    }
    assert!(resets >= 6, "{resets}");
}

#[test]
fn nothing_is_lost_when_the_host_reads_slowly() {
    let mut driver = Driver::new();
    let mut stream = accepted(&mut driver);
    let sent = pattern(1 << 20);
    let (mut next, mut used, mut stalled) = (0, 0_u32, 0);
    let mut read = Vec::<u8>::new();
    while read.len() < sent.len() {
        // As Linux does: no more than the credit, and credit comes with every packet.
        let credit = (BUF_ALLOC - (u32::try_from(next).unwrap() - used)) as usize;
        let len = credit.min(16_384).min(sent.len() - next);
        if len > 0 {
            driver.send(Op::Data, READY, &sent[next..next + len]);
            next += len;
        } else {
            stalled += 1;
            let mut bytes = [0; 50_000];
            let len = stream.read(&mut bytes).unwrap();
            read.extend(&bytes[..len]);
        }
        for (header, _) in driver.receive() {
            assert_ne!(header.op, Some(Op::Reset));
            used = header.fwd_cnt;
        }
    }
    assert!(stalled > 4, "the reader was slower than the guest");
    assert!(read == sent);
}

#[test]
fn nothing_is_lost_when_the_guest_reads_slowly() {
    let mut driver = Driver::new();
    driver.buf_alloc = 10_000;
    let mut client = connected(&mut driver);
    let sent = pattern(300_000);
    let mut read = Vec::new();
    let (mut written, mut asked) = (0, 0);
    client.set_nonblocking(true).unwrap();
    while read.len() < sent.len() {
        match client.write(&sent[written..]) {
            Ok(len) => written += len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let received = driver.receive();
        asked += ops(&received).iter().filter(|op| **op == Op::CreditRequest).count();
        read.extend(payload(&received));
        let in_flight = read.len() - driver.fwd_cnt as usize;
        assert!(in_flight <= 10_000, "{in_flight} bytes are more than the guest has room for");
        if received.is_empty() || in_flight == 10_000 {
            driver.fwd_cnt = u32::try_from(read.len()).unwrap();
            driver.send(Op::CreditUpdate, FIRST, &[]);
        }
    }
    assert!(asked > 1);
    assert!(read == sent);
}

#[test]
fn a_client_that_has_written_all_can_still_read() {
    let mut driver = Driver::new();
    let mut client = connected(&mut driver);
    client.write_all(b"request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let received = driver.wait();
    assert_eq!(ops(&received), [Op::Data, Op::Shutdown], "the end comes after the data");
    assert_eq!(received[1].0.flags, SHUTDOWN_SEND);
    driver.send(Op::Data, FIRST, b"reply");
    driver.send_shutdown(FIRST, SHUTDOWN_BOTH);
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "reply");
}

#[test]
fn a_guest_that_has_written_all_can_still_read() {
    let mut driver = Driver::new();
    let mut client = connected(&mut driver);
    driver.send(Op::Data, FIRST, b"all");
    driver.send_shutdown(FIRST, SHUTDOWN_SEND);
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "all");
    client.write_all(b"more").unwrap();
    assert_eq!(payload(&driver.wait()), b"more");
}

#[test]
fn a_guest_that_reads_no_more_breaks_the_clients_pipe() {
    let mut driver = Driver::new();
    let mut client = connected(&mut driver);
    driver.send_shutdown(FIRST, SHUTDOWN_RECEIVE);
    assert_eq!(client.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    driver.send(Op::Data, FIRST, b"still");
    let mut still = [0; 5];
    client.read_exact(&mut still).unwrap();
    assert_eq!(&still, b"still");
}

#[test]
fn what_a_guest_wrote_before_it_closed_arrives() {
    let mut driver = Driver::new();
    let mut stream = accepted(&mut driver);
    // Fill the host's socket, then our buffer.
    let mut sent = Vec::new();
    let mut used = 0;
    while (sent.len() - used as usize) + 8192 <= BUF_ALLOC as usize {
        let chunk = pattern(8192);
        driver.send(Op::Data, READY, &chunk);
        sent.extend(chunk);
        used = driver.receive().last().map_or(used, |(header, _)| header.fwd_cnt);
    }
    driver.send_shutdown(READY, SHUTDOWN_BOTH);
    assert_eq!(ops(&driver.receive()), [Op::Reset]);
    // The ports are free again while the rest drains.
    driver.send(Op::Request, READY, &[]);
    assert_eq!(driver.wait_one().0.op, Some(Op::Reset), "its listener is gone by now");
    let reader = std::thread::spawn(move || {
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        read
    });
    while !reader.is_finished() {
        driver.host_events();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn a_client_that_leaves_is_reported_and_forgotten() {
    let mut driver = Driver::new();
    let mut client = connected(&mut driver);
    client.write_all(b"last words").unwrap();
    drop(client);
    let received = driver.wait();
    assert_eq!(payload(&received), b"last words");
    assert_eq!((*ops(&received).last().unwrap(), received.last().unwrap().0.flags), (Op::Shutdown, SHUTDOWN_BOTH));
    driver.send(Op::Data, FIRST, b"nobody is left");
    driver.send(Op::Reset, FIRST, &[]);
    assert!(!ops(&driver.receive()).contains(&Op::Reset));
    // The same ports mean nothing now.
    driver.send(Op::Data, FIRST, b"x");
    assert_eq!(driver.wait_one().0.op, Some(Op::Reset));
}

#[test]
fn a_guest_that_never_answers_loses_the_client() {
    let mut driver = Driver::new();
    let mut silent = client(&driver, "CONNECT 1024\n");
    driver.wait_one();
    let mut unfinished = client(&driver, "CONNECT 10");
    driver.host_events();
    driver.device.muxer.on_timer(Instant::now() + Duration::from_secs(4)).unwrap();
    silent.set_nonblocking(true).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock, "not yet");
    driver.device.muxer.on_timer(Instant::now() + Duration::from_secs(6)).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(unfinished.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset, "its line is unread");
    assert_eq!(driver.wait_one().0.op, Some(Op::Reset));
}

#[test]
fn busy_streams_take_turns() {
    let mut driver = Driver::without_buffers();
    let mut clients = Vec::new();
    for index in 0..3 {
        clients.push(client(&driver, "CONNECT 1024\n"));
        driver.host_events();
        driver.host_events();
        driver.post_buffer(4096);
        driver.kick(RX_QUEUE).unwrap();
        assert_eq!(driver.take_received()[0].0.op, Some(Op::Request));
        driver.send(Op::Response, (FIRST_HOST_PORT + index, AGENT), &[]);
    }
    for client in &mut clients {
        client.write_all(&pattern(100_000)).unwrap();
    }
    driver.host_events();
    let mut order = Vec::new();
    for _ in 0..9 {
        driver.post_buffer(4096);
        driver.kick(RX_QUEUE).unwrap();
        order.extend(driver.take_received().iter().map(|(header, _)| header.src_port - FIRST_HOST_PORT));
    }
    for turn in order.chunks_exact_mut(3) {
        turn.sort_unstable();
        assert_eq!(turn, [0, 1, 2]);
    }
}

#[test]
fn packets_wait_for_a_receive_buffer() {
    let mut driver = Driver::without_buffers();
    let _client = client(&driver, "CONNECT 1024\n");
    for _ in 0..3 {
        driver.host_events();
    }
    assert!(driver.take_received().is_empty());
    driver.post_buffer(4096);
    driver.kick(RX_QUEUE).unwrap();
    assert_eq!(ops(&driver.take_received()), [Op::Request]);
}

#[test]
fn a_reset_ends_every_stream_and_the_device_starts_again() {
    let mut driver = Driver::new();
    let mut client = connected(&mut driver);
    driver.device.reset();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    driver.device.activate(0).unwrap();
    let _second = self::client(&driver, "CONNECT 1024\n");
    assert_eq!(driver.wait_one().0.op, Some(Op::Request));
}
