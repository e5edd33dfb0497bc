//! The device against a driver written out by hand: real queues, real FUSE messages, a real directory.

use std::os::unix::fs::symlink;

use bulkhead_protocols::vm::Caching;
use proptest::prelude::*;
use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use fuse_backend_rs::abi::fuse_abi::Opcode;

use super::FsDevice;
use crate::counters::Counters;
use crate::virtio::core::DeviceCore;

const ROOT: u64 = 1;
const REQUEST_GPA: u64 = 0x1_0000;
const REPLY_GPA: u64 = 0x8_0000;
const REPLY_LEN: u32 = 0x2000;
/// Bytes of `struct fuse_in_header` and `struct fuse_out_header`.
const IN_HEADER_LEN: usize = 40;
const OUT_HEADER_LEN: usize = 16;

/// A device on a directory, and a guest's memory.
struct Guest {
    device: FsDevice,
    memory: GuestMemoryMmap,
    counters: Counters,
    directory: tempfile::TempDir,
}

/// What came back: the error number (0 for success) and the bytes behind the header; `None` if there was no reply.
type Reply = Option<(i32, Vec<u8>)>;

impl Guest {
    fn new(caching: Caching) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), b"contents").unwrap();
        symlink("/etc/passwd", directory.path().join("link")).unwrap();
        let counters = Counters::default();
        let device = FsDevice::new("layers", directory.path(), caching, &counters).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let mut guest = Self { device, memory, counters, directory };
        // fuse_init_in: major, minor, max_readahead, flags: everything the first word can offer but INIT_EXT.
        let init: Vec<u8> = [7_u32, 41, 1 << 20, !(1 << 30)].iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(guest.call(Opcode::Init, ROOT, &init).unwrap().0, 0);
        guest
    }

    fn call(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Reply {
        self.call_number(opcode as u32, node, body)
    }

    fn call_number(&mut self, opcode: u32, node: u64, body: &[u8]) -> Reply {
        let mut request = Vec::new();
        request.extend(u32::try_from(IN_HEADER_LEN + body.len()).unwrap().to_ne_bytes());
        request.extend(opcode.to_ne_bytes());
        request.extend(7_u64.to_ne_bytes());
        request.extend(node.to_ne_bytes());
        request.extend([0; 16]);
        request.extend(body);
        self.send(&request)
    }

    /// Puts raw bytes on the request queue.
    fn send(&mut self, request: &[u8]) -> Reply {
        let ring = MockSplitQueue::new(&self.memory, 16);
        self.memory.write_slice(&[0; 64], ring.start()).unwrap();
        self.memory.write_slice(request, GuestAddress(REQUEST_GPA)).unwrap();
        self.memory.write_obj(0_u64, GuestAddress(REPLY_GPA)).unwrap();
        let write = u16::try_from(VRING_DESC_F_WRITE).unwrap();
        let descriptors = [
            RawDescriptor::from(Descriptor::new(REQUEST_GPA, u32::try_from(request.len()).unwrap(), 0, 0)),
            RawDescriptor::from(Descriptor::new(REPLY_GPA, REPLY_LEN, write, 0)),
        ];
        ring.build_desc_chain(&descriptors).unwrap();
        let mut requests: Queue = ring.create_queue().unwrap();
        let mut hiprio = Queue::new(16).unwrap();
        let _ = self.device.process_queue(1, &mut [&mut hiprio, &mut requests], &self.memory).unwrap();
        assert_eq!(ring.used().idx().load(), 1, "every request is given back");
        let written = ring.used().ring().ref_at(0).unwrap().load().len() as usize;
        (written >= OUT_HEADER_LEN).then(|| {
            let mut reply = vec![0; written];
            self.memory.read_slice(&mut reply, GuestAddress(REPLY_GPA)).unwrap();
            let error = i32::from_ne_bytes(reply[4..8].try_into().unwrap());
            (-error, reply.split_off(OUT_HEADER_LEN))
        })
    }

    fn lookup(&mut self, name: &str) -> Reply {
        self.call(Opcode::Lookup, ROOT, &[name.as_bytes(), b"\0"].concat())
    }

    fn counted(&self, what: &str) -> u64 {
        self.counters.snapshot()[&format!("fs.layers.{what}")]
    }
}

fn word(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

#[test]
fn an_immutable_share_is_remembered_for_ever() {
    let mut guest = Guest::new(Caching::Immutable);
    let (error, entry) = guest.lookup("file").unwrap();
    assert_eq!(error, 0);
    assert_ne!(word(&entry, 0), 0);
    assert!(word(&entry, 16) > 86_400 * 365, "names are valid for years");
    assert!(word(&entry, 24) > 86_400 * 365, "attributes are valid for years");
    assert_eq!(guest.counted("lookup"), 1);
}

#[test]
fn an_immutable_share_remembers_absent_names_too() {
    let mut guest = Guest::new(Caching::Immutable);
    let (error, entry) = guest.lookup("absent").unwrap();
    assert_eq!((error, word(&entry, 0)), (0, 0));
    assert!(word(&entry, 16) > 86_400 * 365);
}

#[test]
fn a_live_share_is_asked_again() {
    let mut guest = Guest::new(Caching::Live);
    let (error, entry) = guest.lookup("file").unwrap();
    assert_eq!((error, word(&entry, 16), word(&entry, 24)), (0, 0, 0));
    assert_eq!(guest.lookup("absent").unwrap().0, libc::ENOENT);
}

/// Well-formed bodies of requests that change something.
fn changes() -> Vec<(Opcode, Vec<u8>)> {
    let name = |zeros: usize| [vec![0; zeros], b"name\0".to_vec()].concat();
    vec![
        (Opcode::Setattr, vec![0; 88]),
        (Opcode::Symlink, b"name\0target\0".to_vec()),
        (Opcode::Mknod, name(16)),
        (Opcode::Mkdir, name(8)),
        (Opcode::Unlink, name(0)),
        (Opcode::Rmdir, name(0)),
        (Opcode::Rename, [name(8), name(0)].concat()),
        (Opcode::Rename2, [name(16), name(0)].concat()),
        (Opcode::Link, name(8)),
        (Opcode::Write, vec![0; 40]),
        (Opcode::Setxattr, name(8)),
        (Opcode::Removexattr, name(0)),
        (Opcode::Create, name(16)),
        (Opcode::Fallocate, vec![0; 32]),
    ]
}

#[test]
fn an_immutable_share_refuses_every_change() {
    let mut guest = Guest::new(Caching::Immutable);
    for (opcode, body) in changes() {
        assert_eq!(guest.call(opcode, ROOT, &body).unwrap().0, libc::EROFS, "opcode {opcode:?}");
    }
}

#[test]
fn a_live_share_takes_changes_but_no_device_node() {
    let mut guest = Guest::new(Caching::Live);
    let mknod = |mode: u32, rdev: u32, name: &[u8]| {
        let words = [mode, rdev, 0, 0];
        [words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>().as_slice(), name].concat()
    };
    let disk = mknod(libc::S_IFBLK | 0o600, 0x801, b"disk\0");
    assert_eq!(guest.call(Opcode::Mknod, ROOT, &disk).unwrap().0, libc::EPERM);
    let fifo = mknod(libc::S_IFIFO | 0o600, 0, b"fifo\0");
    assert_eq!(guest.call(Opcode::Mknod, ROOT, &fifo).unwrap().0, 0);
}

#[test]
fn host_privileged_attributes_are_refused() {
    let mut guest = Guest::new(Caching::Live);
    let mut setxattr = vec![1, 0, 0, 0, 0, 0, 0, 0];
    setxattr.extend(b"trusted.overlay.opaque\0y");
    assert_eq!(guest.call(Opcode::Setxattr, ROOT, &setxattr).unwrap().0, libc::EPERM);
    assert_eq!(guest.call(Opcode::Removexattr, ROOT, b"trusted.overlay.opaque\0").unwrap().0, libc::EPERM);
}

#[test]
fn names_do_not_lead_out_of_the_share() {
    let mut guest = Guest::new(Caching::Live);
    for name in ["../etc", "a/b", "/etc", "..", ".", ""] {
        assert_eq!(guest.lookup(name).unwrap().0, libc::EINVAL, "{name}");
    }
    // A symlink is read, never followed: opening it is refused.
    let (_, link) = guest.lookup("link").unwrap();
    assert_ne!(guest.call(Opcode::Open, word(&link, 0), &[0; 8]).unwrap().0, 0);
}

#[test]
fn a_request_without_a_header_has_no_reply() {
    let mut guest = Guest::new(Caching::Live);
    assert_eq!(guest.send(&[0; 12]), None);
    assert_eq!(guest.counted("malformed"), 1);
}

#[test]
fn a_reset_device_can_be_mounted_again() {
    let mut guest = Guest::new(Caching::Live);
    let init: Vec<u8> = [7_u32, 41, 1 << 20, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let (_, file) = guest.lookup("file").unwrap();
    guest.device.reset();
    assert_eq!(guest.call(Opcode::Init, ROOT, &init).unwrap().0, 0);
    let getattr = guest.call(Opcode::Getattr, word(&file, 0), &[0; 16]).unwrap();
    assert_eq!(getattr.0, libc::EBADF, "what the old driver knew is forgotten");
    assert_eq!(guest.lookup("file").unwrap().0, 0);
}

#[test]
fn a_fifo_on_the_host_is_never_opened() {
    let mut guest = Guest::new(Caching::Live);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        guest.directory.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let (error, fifo) = guest.lookup("fifo").unwrap();
    assert_eq!(error, 0);
    assert_eq!(guest.call(Opcode::Open, word(&fifo, 0), &[0; 8]).unwrap().0, libc::EBADF);
}

#[test]
fn a_huge_size_in_a_request_allocates_nothing() {
    let mut guest = Guest::new(Caching::Live);
    let size = u32::MAX.to_ne_bytes();
    let getxattr = [size.as_slice(), &[0; 4], b"user.absent\0"].concat();
    assert_eq!(guest.call(Opcode::Getxattr, ROOT, &getxattr).unwrap().0, libc::ENODATA);
    let listxattr = [size.as_slice(), &[0; 4]].concat();
    assert_eq!(guest.call(Opcode::Listxattr, ROOT, &listxattr).unwrap().0, 0);
}

#[test]
fn a_request_outside_guest_memory_stops_the_device() {
    let mut guest = Guest::new(Caching::Live);
    let ring = MockSplitQueue::new(&guest.memory, 16);
    guest.memory.write_slice(&[0; 64], ring.start()).unwrap();
    ring.build_desc_chain(&[RawDescriptor::from(Descriptor::new(1 << 40, 64, 0, 0))]).unwrap();
    let mut requests: Queue = ring.create_queue().unwrap();
    let mut hiprio = Queue::new(16).unwrap();
    assert!(guest.device.process_queue(1, &mut [&mut hiprio, &mut requests], &guest.memory).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_request_panics(opcode in 0_u32..60, node in 0_u64..4, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        // FUSE_DESTROY and the like included; whatever the bytes, the request is given back.
        let mut guest = Guest::new(Caching::Live);
        let _ = guest.call_number(opcode, node, &body);
    }
}
