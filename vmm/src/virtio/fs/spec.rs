//! The part of the FUSE protocol (Linux `include/uapi/linux/fuse.h`, version 7.41) that this device reads and writes itself.

use fuse_backend_rs::abi::fuse_abi::{Attr, EntryOut, OutHeader};
use vm_memory::ByteValued;

macro_rules! opcodes {
    ($($constant:ident = $number:literal, $name:literal;)*) => {
        $(pub(super) const $constant: u32 = $number;)*

        /// Every opcode with the name its counter bears.
        pub(super) const NAMES: &[(u32, &str)] = &[$(($constant, $name)),*];
    };
}

opcodes! {
    LOOKUP = 1, "lookup";
    FORGET = 2, "forget";
    GETATTR = 3, "getattr";
    SETATTR = 4, "setattr";
    READLINK = 5, "readlink";
    SYMLINK = 6, "symlink";
    MKNOD = 8, "mknod";
    MKDIR = 9, "mkdir";
    UNLINK = 10, "unlink";
    RMDIR = 11, "rmdir";
    RENAME = 12, "rename";
    LINK = 13, "link";
    OPEN = 14, "open";
    READ = 15, "read";
    WRITE = 16, "write";
    STATFS = 17, "statfs";
    RELEASE = 18, "release";
    FSYNC = 20, "fsync";
    SETXATTR = 21, "setxattr";
    GETXATTR = 22, "getxattr";
    LISTXATTR = 23, "listxattr";
    REMOVEXATTR = 24, "removexattr";
    FLUSH = 25, "flush";
    INIT = 26, "init";
    OPENDIR = 27, "opendir";
    READDIR = 28, "readdir";
    RELEASEDIR = 29, "releasedir";
    FSYNCDIR = 30, "fsyncdir";
    GETLK = 31, "getlk";
    SETLK = 32, "setlk";
    SETLKW = 33, "setlkw";
    ACCESS = 34, "access";
    CREATE = 35, "create";
    INTERRUPT = 36, "interrupt";
    BMAP = 37, "bmap";
    DESTROY = 38, "destroy";
    IOCTL = 39, "ioctl";
    POLL = 40, "poll";
    BATCH_FORGET = 42, "batch_forget";
    FALLOCATE = 43, "fallocate";
    READDIRPLUS = 44, "readdirplus";
    RENAME2 = 45, "rename2";
    LSEEK = 46, "lseek";
    COPY_FILE_RANGE = 47, "copy_file_range";
    SETUP_MAPPING = 48, "setup_mapping";
    REMOVE_MAPPING = 49, "remove_mapping";
    SYNCFS = 50, "syncfs";
    TMPFILE = 51, "tmpfile";
    STATX = 52, "statx";
}

/// Bytes of `struct fuse_in_header`, which begins every request.
pub(super) const IN_HEADER_LEN: usize = 40;
/// Bytes of `struct fuse_out_header`, which begins every reply.
pub(super) const OUT_HEADER_LEN: usize = size_of::<OutHeader>();
/// Bytes of the reply to LOOKUP.
pub(super) const ENTRY_REPLY_LEN: usize = OUT_HEADER_LEN + size_of::<EntryOut>();

/// A reply that carries nothing but an error number.
pub(super) fn error_reply(unique: u64, errno: i32) -> [u8; OUT_HEADER_LEN] {
    let mut reply = [0; OUT_HEADER_LEN];
    reply.copy_from_slice(OutHeader { len: OUT_HEADER_LEN as u32, error: -errno, unique }.as_slice());
    reply
}

/// A reply to LOOKUP that lets the guest remember for `valid_s` seconds that the name does not exist (node id 0).
pub(super) fn negative_entry(unique: u64, valid_s: u64) -> [u8; ENTRY_REPLY_LEN] {
    let header = OutHeader { len: ENTRY_REPLY_LEN as u32, error: 0, unique };
    let entry = EntryOut { entry_valid: valid_s, attr: Attr::default(), ..EntryOut::default() };
    let mut reply = [0; ENTRY_REPLY_LEN];
    let (head, body) = reply.split_at_mut(OUT_HEADER_LEN);
    head.copy_from_slice(header.as_slice());
    body.copy_from_slice(entry.as_slice());
    reply
}
