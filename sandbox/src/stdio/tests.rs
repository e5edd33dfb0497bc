use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_getfd};
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;

fn pipe() -> (std::fs::File, std::fs::File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (read.into(), write.into())
}

#[tokio::test]
async fn output_is_complete_with_a_slow_reader_that_cannot_block() {
    let (mut reader, writer) = pipe();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    let (guest, host) = UnixStream::pair().unwrap();
    let mut pump = OutputPump::spawn("stdout", host, writer.into()).unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let copy = sent.clone();
    let sender = std::thread::spawn(move || {
        let mut guest = guest;
        guest.write_all(&copy).unwrap();
    });
    let receiver = std::thread::spawn(move || {
        let mut got = Vec::new();
        let mut buffer = [0; 7000];
        loop {
            let count = reader.read(&mut buffer).unwrap();
            if count == 0 {
                return got;
            }
            got.extend_from_slice(&buffer[..count]);
            std::thread::sleep(Duration::from_micros(300));
        }
    });
    pump.finished().await.unwrap();
    sender.join().unwrap();
    assert!(receiver.join().unwrap() == sent);
}

#[tokio::test]
async fn a_reader_that_goes_away_closes_the_guests_stream() {
    let (reader, writer) = pipe();
    drop(reader);
    let (mut guest, host) = UnixStream::pair().unwrap();
    let mut pump = OutputPump::spawn("stdout", host, writer.into()).unwrap();
    guest.write_all(b"x").unwrap();
    let error = pump.finished().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(guest.read(&mut [0]).unwrap(), 0, "the guest sees the end");
    assert_eq!(guest.write(b"y").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn input_ends_with_a_half_close() {
    let (reader, mut writer) = pipe();
    let (mut guest, host) = UnixStream::pair().unwrap();
    let _pump = InputPump::spawn("stdin", reader.into(), host).unwrap();
    writer.write_all(b"hello").unwrap();
    drop(writer);
    let mut got = String::new();
    guest.read_to_string(&mut got).unwrap();
    assert_eq!(got, "hello");
}

#[test]
fn input_stops_without_end_of_file_when_dropped() {
    let (reader, _writer) = pipe();
    let (mut guest, host) = UnixStream::pair().unwrap();
    let pump = InputPump::spawn("stdin", reader.into(), host).unwrap();
    drop(pump);
    assert_eq!(guest.read(&mut [0]).unwrap(), 0);
}

#[test]
fn input_is_left_to_others_once_the_process_has_closed_its_own() {
    let (reader, mut writer) = pipe();
    let rest: OwnedFd = reader.try_clone().unwrap().into();
    let (guest, host) = UnixStream::pair().unwrap();
    drop(guest);
    let pump = InputPump::spawn("stdin", reader.into(), host).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    writer.write_all(b"for the next command").unwrap();
    drop(writer);
    let mut got = String::new();
    std::fs::File::from(rest).read_to_string(&mut got).unwrap();
    assert_eq!(got, "for the next command");
    drop(pump);
}

#[test]
fn files_are_valid_sources() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
    let (mut guest, host) = UnixStream::pair().unwrap();
    let _pump = InputPump::spawn("stdin", file.into(), host).unwrap();
    let mut got = Vec::new();
    guest.read_to_end(&mut got).unwrap();
    assert_eq!(got, [7; 100_000]);
}
