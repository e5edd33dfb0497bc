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

use super::{FsDevice, spec};
use crate::counters::Counters;
use crate::virtio::core::DeviceCore;

const ROOT: u64 = 1;
const REQUEST_GPA: u64 = 0x1_0000;
const REPLY_GPA: u64 = 0x8_0000;
const REPLY_LEN: u32 = 0x2000;

/// A device on a directory, and a guest's memory.
struct Guest {
    device: FsDevice,
    memory: GuestMemoryMmap,
    counters: Counters,
    _directory: tempfile::TempDir,
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
        let mut guest = Self { device, memory, counters, _directory: directory };
        // fuse_init_in: major, minor, max_readahead, flags: everything the first word can offer but INIT_EXT.
        let init: Vec<u8> = [7_u32, 41, 1 << 20, !(1 << 30)].iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(guest.call(spec::INIT, ROOT, &init).unwrap().0, 0);
        guest
    }

    fn call(&mut self, opcode: u32, node: u64, body: &[u8]) -> Reply {
        let mut request = Vec::new();
        request.extend(u32::try_from(spec::IN_HEADER_LEN + body.len()).unwrap().to_ne_bytes());
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
        self.memory.write_slice(&vec![0; 64], ring.start()).unwrap();
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
        (written >= spec::OUT_HEADER_LEN).then(|| {
            let mut reply = vec![0; written];
            self.memory.read_slice(&mut reply, GuestAddress(REPLY_GPA)).unwrap();
            let error = i32::from_ne_bytes(reply[4..8].try_into().unwrap());
            (-error, reply.split_off(spec::OUT_HEADER_LEN))
        })
    }

    fn lookup(&mut self, name: &str) -> Reply {
        self.call(spec::LOOKUP, ROOT, &[name.as_bytes(), b"\0"].concat())
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
    assert_eq!(guest.counted("negative_entries"), 1);
}

#[test]
fn a_live_share_is_asked_again() {
    let mut guest = Guest::new(Caching::Live);
    let (error, entry) = guest.lookup("file").unwrap();
    assert_eq!((error, word(&entry, 16), word(&entry, 24)), (0, 0, 0));
    assert_eq!(guest.lookup("absent").unwrap().0, libc::ENOENT);
}

#[test]
fn an_immutable_share_refuses_every_change() {
    let mut guest = Guest::new(Caching::Immutable);
    for opcode in [spec::MKDIR, spec::UNLINK, spec::CREATE, spec::SETATTR, spec::RENAME2, spec::WRITE, spec::SETXATTR] {
        assert_eq!(guest.call(opcode, ROOT, &[0; 64]).unwrap().0, libc::EROFS, "opcode {opcode}");
    }
    assert_eq!(guest.counted("refused"), 7);
}

#[test]
fn a_live_share_takes_changes_but_no_device_node() {
    let mut guest = Guest::new(Caching::Live);
    let mknod = |mode: u32, rdev: u32, name: &[u8]| {
        let words = [mode, rdev, 0, 0];
        [words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>().as_slice(), name].concat()
    };
    let disk = mknod(libc::S_IFBLK | 0o600, 0x801, b"disk\0");
    assert_eq!(guest.call(spec::MKNOD, ROOT, &disk).unwrap().0, libc::EPERM);
    let fifo = mknod(libc::S_IFIFO | 0o600, 0, b"fifo\0");
    assert_eq!(guest.call(spec::MKNOD, ROOT, &fifo).unwrap().0, 0);
}

#[test]
fn host_privileged_attributes_are_refused() {
    let mut guest = Guest::new(Caching::Live);
    let mut setxattr = vec![1, 0, 0, 0, 0, 0, 0, 0];
    setxattr.extend(b"trusted.overlay.opaque\0y");
    assert_eq!(guest.call(spec::SETXATTR, ROOT, &setxattr).unwrap().0, libc::EPERM);
    assert_eq!(guest.call(spec::REMOVEXATTR, ROOT, b"trusted.overlay.opaque\0").unwrap().0, libc::EPERM);
}

#[test]
fn names_do_not_lead_out_of_the_share() {
    let mut guest = Guest::new(Caching::Live);
    for name in ["../etc", "a/b", "/etc"] {
        assert_eq!(guest.lookup(name).unwrap().0, libc::EINVAL, "{name}");
    }
    let (error, parent) = guest.lookup("..").unwrap();
    assert_eq!(error, 0);
    let (_, root) = guest.lookup(".").unwrap();
    assert_eq!(word(&parent, 0), word(&root, 0), "the root is its own parent");
    // A symlink is read, never followed: opening it is refused.
    let (_, link) = guest.lookup("link").unwrap();
    assert_ne!(guest.call(spec::OPEN, word(&link, 0), &[0; 8]).unwrap().0, 0);
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
    assert_ne!(guest.call(spec::INIT, ROOT, &init).unwrap().0, 0, "initialised twice in one life");
    guest.device.reset();
    assert_eq!(guest.call(spec::INIT, ROOT, &init).unwrap().0, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_request_panics(opcode in 0_u32..60, node in 0_u64..4, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        // FUSE_DESTROY and the like included; whatever the bytes, the request is given back.
        let mut guest = Guest::new(Caching::Live);
        let _ = guest.call(opcode, node, &body);
    }
}
