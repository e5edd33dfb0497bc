//! The control socket, spoken to over a real socket pair.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use bulkhead_protocols::control::{Phase, Response};

use super::control::{CLIENTS_MAX, Client, LINE_BYTES_MAX, Server, accept};
use super::*;

fn pair() -> (Client, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Client::new(ours).unwrap(), theirs)
}

fn answer(stream: &mut BufReader<UnixStream>) -> Response {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn requests_are_answered_in_order() {
    let session = Session::new(1024).unwrap();
    session.console.push(b"hello\n");
    session.counters.counter("a.b").add(7);
    let server = Server::new(&session, Accelerator::Kvm);
    let (mut client, mut stream) = pair();
    stream
        .write_all(
            b"{\"method\":\"state\"}\n{\"method\":\"counters\"}\n{\"method\":\"console_tail\",\"max_bytes\":100}\n",
        )
        .unwrap();
    client.serve(PollFlags::IN, &server);
    let mut stream = BufReader::new(stream);
    let pid = std::process::id();
    assert_eq!(answer(&mut stream), Response::State { phase: Phase::Starting, accelerator: Accelerator::Kvm, pid });
    assert_eq!(answer(&mut stream), Response::Counters { counters: [("a.b".to_owned(), 7)].into() });
    assert_eq!(answer(&mut stream), Response::ConsoleTail { text: "hello\n".to_owned() });
}

#[test]
fn shutdown_asks_the_session_to_stop() {
    let session = Session::new(1024).unwrap();
    let (mut client, mut stream) = pair();
    stream.write_all(b"{\"method\":\"shutdown\"}\n").unwrap();
    client.serve(PollFlags::IN, &Server::new(&session, Accelerator::Kvm));
    let mut fds = [PollFd::from_borrowed_fd(session.stop(), PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap(), 1);
    assert_eq!(answer(&mut BufReader::new(stream)), Response::Done);
}

#[test]
fn a_line_that_is_no_request_gets_an_error_and_the_client_stays() {
    let session = Session::new(1024).unwrap();
    let server = Server::new(&session, Accelerator::Kvm);
    let (mut client, mut stream) = pair();
    stream.write_all(b"\xff\xfe\n{\"method\":\"reboot\"}\n").unwrap();
    client.serve(PollFlags::IN, &server);
    let mut stream = BufReader::new(stream);
    for _ in 0..2 {
        assert!(matches!(answer(&mut stream), Response::Error { .. }));
    }
    assert!(client.is_open());
}

#[test]
fn a_line_without_end_is_hung_up_on() {
    let session = Session::new(1024).unwrap();
    let server = Server::new(&session, Accelerator::Kvm);
    let (mut client, mut stream) = pair();
    for _ in 0..2 {
        stream.write_all(&[b'x'; LINE_BYTES_MAX]).unwrap();
        client.serve(PollFlags::IN, &server);
    }
    assert!(!client.is_open());
}

#[test]
fn a_client_that_takes_no_answers_is_not_read_from() {
    let session = Session::new(4 << 20).unwrap();
    session.console.push(&vec![b'x'; 4 << 20]);
    let server = Server::new(&session, Accelerator::Kvm);
    let (mut client, mut stream) = pair();
    stream.write_all(b"{\"method\":\"console_tail\",\"max_bytes\":4194304}\n{\"method\":\"state\"}\n").unwrap();
    client.serve(PollFlags::IN, &server);
    assert_eq!(client.interest(), PollFlags::OUT);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    while client.interest() == PollFlags::OUT {
        client.serve(PollFlags::OUT, &server);
    }
    drop(client);
    let all = reader.join().unwrap();
    assert_eq!(all.iter().filter(|byte| **byte == b'\n').count(), 2, "both answers arrive");
}

#[test]
fn the_number_of_clients_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let _streams: Vec<_> = (0..CLIENTS_MAX + 3).map(|_| UnixStream::connect(dir.path().join("s")).unwrap()).collect();
    let mut clients = Vec::new();
    accept(&listener, &mut clients).unwrap();
    assert_eq!(clients.len(), CLIENTS_MAX);
}

#[test]
fn a_lifeline_breaks_when_its_other_end_closes() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let lifeline = Lifeline::inherit(std::os::fd::IntoRawFd::into_raw_fd(read)).unwrap();
    assert!(!lifeline.is_broken());
    drop(write);
    assert!(lifeline.is_broken());
}

#[test]
fn a_lifeline_that_is_not_open_is_refused() {
    assert!(Lifeline::inherit(1_000_000).is_err());
    assert!(Lifeline::inherit(0).is_err());
}
