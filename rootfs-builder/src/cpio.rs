//! Writer of the "newc" cpio format, the one the kernel unpacks (Documentation/driver-api/early-userspace/
//! buffer-format.rst in the kernel's source).
//!
//! Owner, times and inode numbers are fixed and entries are sorted by name, so that equal contents are equal bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::Error;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";

const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFREG: u32 = 0o100_000;

/// Header fields and names are padded to this.
const ALIGNMENT: usize = 4;

/// An archive in the making. The caller adds the folders that lead to each entry.
#[derive(Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

impl Archive {
    /// `name` without a leading slash, here and below.
    pub(crate) fn folder(&mut self, name: &str, permissions: u32) {
        self.add(name, S_IFDIR | permissions, (0, 0), Vec::new());
    }

    pub(crate) fn file(&mut self, name: &str, permissions: u32, content: Vec<u8>) {
        self.add(name, S_IFREG | permissions, (0, 0), content);
    }

    pub(crate) fn character_device(&mut self, name: &str, permissions: u32, major: u32, minor: u32) {
        self.add(name, S_IFCHR | permissions, (major, minor), Vec::new());
    }

    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: Vec<u8>) {
        self.entries.insert(name.to_owned(), Entry { mode, device, content });
    }

    /// The archive's bytes.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let mut inode = 0;
        for (name, entry) in &self.entries {
            inode += 1;
            let size = u32::try_from(entry.content.len())
                .map_err(|_| Error::Archive { name: name.clone(), why: "files are limited to 4 GiB" })?;
            // Writing to a Vec cannot fail; the error is passed on all the same.
            write_entry(&mut out, inode, name, entry, size).map_err(Error::io("write", name))?;
        }
        let trailer = Entry { mode: 0, device: (0, 0), content: Vec::new() };
        write_entry(&mut out, 0, TRAILER, &trailer, 0).map_err(Error::io("write", TRAILER))?;
        Ok(out)
    }
}

fn write_entry(out: &mut Vec<u8>, inode: u32, name: &str, entry: &Entry, size: u32) -> io::Result<()> {
    let links = if entry.mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
    let (major, minor) = entry.device;
    let name_size = name.len() + 1;
    write!(out, "{MAGIC}{inode:08x}{:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}", entry.mode, 0, 0, 0)?;
    write!(out, "{:08x}{:08x}{major:08x}{minor:08x}{name_size:08x}{:08x}", 0, 0, 0)?;
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out);
    out.write_all(&entry.content)?;
    pad(out);
    Ok(())
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn archive() -> Archive {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"hello".to_vec());
        archive.character_device("dev/console", 0o600, 5, 1);
        archive.folder("dev", 0o755);
        archive
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let bytes = archive().to_bytes().unwrap();
        let first = &bytes[..6 + 13 * 8 + 4];
        let expected = concat!(
            "070701", "00000001", "000041ed", "00000000", "00000000", "00000002", "00000000", "00000000", "00000000",
            "00000000", "00000000", "00000000", "00000004", "00000000", "dev\0"
        );
        // 110 bytes of header, 4 of name, 2 of padding.
        assert_eq!(String::from_utf8_lossy(first), expected);
        assert_eq!(&bytes[114..116], [0, 0]);
        assert_eq!(&bytes[116..122], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn cpio_reads_what_was_written() {
        let mut child = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is installed");
        child.stdin.take().unwrap().write_all(&archive().to_bytes().unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let fields: Vec<Vec<_>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(fields[0][..], ["drwxr-xr-x", "2", "0", "0", "0", "Jan", "1", "1970", "dev"]);
        assert_eq!(fields[1][..], ["crw-------", "1", "0", "0", "5,", "1", "Jan", "1", "1970", "dev/console"]);
        assert_eq!(fields[2][..], ["-rwxr-xr-x", "1", "0", "0", "5", "Jan", "1", "1970", "init"]);
        assert_eq!(fields.len(), 3);
    }

    #[test]
    fn the_order_of_additions_does_not_matter() {
        let mut other = Archive::default();
        other.folder("dev", 0o755);
        other.character_device("dev/console", 0o600, 5, 1);
        other.file("init", 0o755, b"hello".to_vec());
        assert_eq!(other.to_bytes().unwrap(), archive().to_bytes().unwrap());
    }
}
