//! What a guest that breaks the protocol gets.

use std::io::Read;
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::driver::Driver;
use crate::virtio::core::CoreError;
use crate::virtio::vsock::connection::BUF_ALLOC;
use crate::virtio::vsock::muxer::{GUEST_SOCKETS_MAX, HOST_SOCKETS_MAX};
use crate::virtio::vsock::spec::{Header, Op, SHUTDOWN_SEND};

const PORTS: (u32, u32) = (1026, 5000);

fn accepted(driver: &mut Driver) -> UnixStream {
    let listener = driver.listen(PORTS.0);
    driver.send(Op::Request, PORTS, &[]);
    driver.wait_one();
    listener.accept().unwrap().0
}

fn is_reset(driver: &mut Driver) -> bool {
    driver.receive().iter().any(|(header, _)| header.op == Some(Op::Reset))
}

#[test]
fn more_than_its_credit_resets_the_stream() {
    let mut driver = Driver::new();
    let _stream = accepted(&mut driver);
    let chunk = vec![0; 65_536];
    let mut sent = 0;
    let mut reset = false;
    // The host's socket takes a few hundred KiB, our buffer 128; a guest that ignores credit is stopped there.
    while !reset && sent < 64 << 20 {
        driver.send(Op::Data, PORTS, &chunk);
        sent += chunk.len();
        reset = is_reset(&mut driver);
    }
    assert!(reset && sent > BUF_ALLOC as usize && sent < 4 << 20, "reset after {sent} bytes");
}

#[test]
fn illegal_packets_reset_the_stream() {
    for op in [Op::Request, Op::Response] {
        let mut driver = Driver::new();
        let mut stream = accepted(&mut driver);
        driver.send(op, PORTS, &[]);
        assert!(is_reset(&mut driver), "{op:?}");
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    let mut driver = Driver::new();
    let _stream = accepted(&mut driver);
    driver.send_shutdown(PORTS, SHUTDOWN_SEND);
    driver.send(Op::Data, PORTS, b"after the end");
    assert!(is_reset(&mut driver));
}

#[test]
fn unknown_operations_types_and_streams_are_reset() {
    let mut driver = Driver::new();
    let header = driver.header(Op::Data, 9, 9);
    for header in [header, Header { op: None, ..header }, Header { socket_type: 2, op: Some(Op::Request), ..header }] {
        driver.send_header(header, &[]);
        assert!(is_reset(&mut driver), "{header:?}");
    }
    driver.send(Op::Reset, (9, 9), &[]);
    assert!(driver.receive().is_empty(), "a reset is not answered");
}

#[test]
fn packets_under_a_false_name_are_dropped() {
    let mut driver = Driver::new();
    let header = driver.header(Op::Request, 9, 9);
    driver.send_header(Header { src_cid: 4, ..header }, &[]);
    driver.send_header(Header { dst_cid: 4, ..header }, &[]);
    assert!(driver.receive().is_empty());
    assert_eq!(driver.counted("dropped"), 2);
}

#[test]
fn malformed_chains_stop_the_device() {
    let mut driver = Driver::new();
    assert!(matches!(driver.send_bytes(&[0; 43]), Err(CoreError::Protocol { .. })), "shorter than a header");
    let mut driver = Driver::new();
    let header = Header { len: 100, ..driver.header(Op::Data, 9, 9) };
    assert!(matches!(driver.send_bytes(&header.encode()), Err(CoreError::Protocol { .. })), "payload missing");
    let mut driver = Driver::new();
    let header = Header { len: u32::MAX, ..driver.header(Op::Data, 9, 9) };
    assert!(matches!(driver.send_bytes(&header.encode()), Err(CoreError::Protocol { .. })), "payload too large");
    let mut driver = Driver::without_buffers();
    driver.post_buffer(43);
    let request = driver.header(Op::Request, 9, 9).encode();
    assert!(matches!(driver.send_bytes(&request), Err(CoreError::Protocol { .. })), "no room for a header");
}

#[test]
fn sockets_are_bounded_on_both_sides() {
    let mut driver = Driver::new();
    let listener = driver.listen(PORTS.0);
    let mut streams = Vec::new();
    for port in 0..u32::try_from(GUEST_SOCKETS_MAX).unwrap() {
        driver.send(Op::Request, (PORTS.0, port), &[]);
        assert!(!is_reset(&mut driver), "{port}");
        streams.push(listener.accept().unwrap());
    }
    driver.send(Op::Request, (PORTS.0, u32::MAX), &[]);
    assert!(is_reset(&mut driver));
    let mut clients = Vec::new();
    for _ in 0..=HOST_SOCKETS_MAX {
        clients.push(UnixStream::connect(driver.uds()).unwrap());
        driver.host_events();
    }
    let mut last = clients.pop().unwrap();
    assert_eq!(last.read(&mut [0; 1]).unwrap(), 0, "one too many");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_sequence_of_packets_panics(packets in proptest::collection::vec(any::<(u16, u8, u8, u32, u32, u32)>(), 1..40)) {
        let mut driver = Driver::new();
        let _listener = driver.listen(1);
        let _clients = [1, 2].map(|port| {
            let mut client = UnixStream::connect(driver.uds()).unwrap();
            std::io::Write::write_all(&mut client, format!("CONNECT {port}\nhello").as_bytes()).unwrap();
            driver.host_events();
            client
        });
        for (op, host, guest, flags, buf_alloc, fwd_cnt) in packets {
            // Few ports, so that packets meet streams.
            let host = if host % 2 == 0 { 1 } else { (1 << 30) + u32::from(host) % 3 };
            let mut header = driver.header(Op::Data, host, u32::from(guest) % 3).encode();
            header[30..32].copy_from_slice(&(op % 9).to_le_bytes());
            header[32..36].copy_from_slice(&flags.to_le_bytes());
            header[36..40].copy_from_slice(&buf_alloc.to_le_bytes());
            header[40..44].copy_from_slice(&fwd_cnt.to_le_bytes());
            driver.send_bytes(&header).unwrap();
            driver.receive();
        }
    }
}
