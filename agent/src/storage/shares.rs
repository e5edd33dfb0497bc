//! virtio-fs shares. Owns the set of tags that are mounted.

use std::collections::BTreeSet;

use rustix::mount::MountFlags;

use super::SHARES_ROOT;
use crate::server::Refusal;

/// Longest tag of a virtio-fs device (virtio 1.2, section 5.11.4).
const TAG_MAX: usize = 36;

/// How far the kernel reads ahead in a share, in KiB: as much as one request can ask for, so that a sequential reader
/// needs one request per MiB. The kernel's own 128 KiB make that eight.
const READ_AHEAD_KIB: u32 = 1024;

/// The shares that are mounted.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    mounted: BTreeSet<String>,
}

impl Shares {
    /// Mounts the share that `path` lies in; a path outside of [`SHARES_ROOT`] needs none.
    pub(crate) fn provide(&mut self, path: &str) -> Result<(), Refusal> {
        let Some(rest) = path.strip_prefix(SHARES_ROOT) else { return Ok(()) };
        let Some(rest) = rest.strip_prefix('/') else { return Ok(()) };
        let tag = rest.split('/').next().unwrap_or_default();
        if self.mounted.contains(tag) {
            return Ok(());
        }
        check_tag(tag)?;
        let directory = format!("{SHARES_ROOT}/{tag}");
        let failed = |error: std::io::Error| {
            Refusal::invalid(format!(
                "share {tag:?} (of path {path:?}) cannot be mounted, is there such a device? {error}"
            ))
        };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        rustix::mount::mount(tag, directory.as_str(), "virtiofs", MountFlags::NODEV, None)
            .map_err(|error| failed(error.into()))?;
        // Without it the share is slower, and no worse.
        let _ = widen_read_ahead(&directory);
        self.mounted.insert(tag.to_owned());
        Ok(())
    }

    /// Writes back what the guest has changed and unmounts, as far as that works.
    pub(crate) fn release(&mut self) {
        for tag in std::mem::take(&mut self.mounted) {
            let directory = format!("{SHARES_ROOT}/{tag}");
            if let Ok(file) = std::fs::File::open(&directory) {
                // A share that is gone has nothing to write to; the VM ends all the same.
                let _ = rustix::fs::syncfs(&file);
            }
            let _ = rustix::mount::unmount(directory.as_str(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn widen_read_ahead(directory: &str) -> std::io::Result<()> {
    let device = rustix::fs::stat(directory)?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD_KIB.to_string())
}

fn check_tag(tag: &str) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if tag.is_empty() || tag.len() > TAG_MAX || !tag.bytes().all(allowed) || tag == "." || tag == ".." {
        return Err(Refusal::invalid(format!("{tag:?} cannot be the tag of a share")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_cannot_lead_elsewhere() {
        for tag in ["", ".", "..", "a b", "ä", &"x".repeat(37)] {
            assert!(check_tag(tag).is_err(), "{tag:?}");
        }
        check_tag("layers").unwrap();
    }

    #[test]
    fn other_paths_need_no_share() {
        let mut shares = Shares::default();
        shares.provide("/tmp/x").unwrap();
        shares.provide(SHARES_ROOT).unwrap();
        shares.provide("/run/bulkhead/shares-of-mine/x").unwrap();
        assert!(shares.mounted.is_empty());
    }
}
