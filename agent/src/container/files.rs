//! The files that the host gives a container (`/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`): kept on a small tmpfs and
//! bound over the image's, so that the image stays as it is and a read-only root is no obstacle.

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::report::{Doing, Failure};
use super::resolve::{Missing, Root};
use super::rootfs::{attach_to, attach_to_path, clone_tree};
use crate::plan::FilePlan;
use crate::storage::CONTAINER_FILES_DIR;
use crate::sys::mount_attr::{MountChange, change_mount};

/// Writes and binds all files.
pub(super) fn write(root: &Root, files: &[FilePlan]) -> Result<(), Failure> {
    if files.is_empty() {
        return Ok(());
    }
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).doing(|| "prepare a tmpfs for files".into())?;
    fsconfig_set_string(&context, "mode", "0755").doing(|| "prepare a tmpfs for files".into())?;
    fsconfig_create(&context).doing(|| "make a tmpfs for files".into())?;
    let store = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .doing(|| "mount a tmpfs for files".into())?;
    // Only what is attached can be bound elsewhere. This place is left behind with the guest's root.
    attach_to_path(&store, CONTAINER_FILES_DIR).doing(|| format!("mount {CONTAINER_FILES_DIR}"))?;
    for (index, file) in files.iter().enumerate() {
        let what = || format!("files: {:?}", file.path);
        let name = index.to_string();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let target = rustix::fs::openat(&store, &name, flags, Mode::from_raw_mode(0o600)).doing(what)?;
        std::io::Write::write_all(&mut std::fs::File::from(rustix::io::dup(&target).doing(what)?), &file.contents)
            .doing(what)?;
        rustix::fs::fchmod(&target, Mode::from_raw_mode(file.mode)).doing(what)?;
        let place = root.locate_or_make(&file.path, Missing::File).asked(what)?;
        let view = clone_tree(&target, false).doing(what)?;
        change_mount(&view, MountChange::set(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV), false).doing(what)?;
        attach_to(&view, &place).doing(what)?;
    }
    Ok(())
}
