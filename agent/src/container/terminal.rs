//! A process's terminal: a pair of the container's own devpts.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Gid, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::report::{Doing, Failure};
use super::resolve::{Missing, Root};
use super::rootfs::{attach_to, clone_tree};
use super::user::Identity;
use crate::plan::TerminalPlan;
use crate::sys::fds;

/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS_MAGIC: u64 = 0x1cd1;
/// Device number of `ptmx`.
const PTMX: (u32, u32) = (5, 2);

/// Both ends of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    /// The agent's end.
    pub(super) master: OwnedFd,
    slave: OwnedFd,
}

/// Opens a terminal of the given size in the container's devpts, owned by the process's user.
pub(super) fn open(root: &Root, size: TerminalPlan, identity: &Identity) -> Result<Terminal, Failure> {
    let master = open_ptmx(root)?;
    rustix::pty::unlockpt(&master).doing(|| "unlock the terminal".into())?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .doing(|| "open the terminal".into())?;
    if size != TerminalPlan::default() {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).doing(|| "set the terminal's size".into())?;
    }
    rustix::fs::fchown(&slave, Some(Uid::from_raw(identity.uid)), None::<Gid>)
        .doing(|| "give the terminal to the user".into())?;
    Ok(Terminal { master, slave })
}

/// Shows the terminal as `/dev/console`.
pub(super) fn bind_console(root: &Root, terminal: &Terminal) -> Result<(), Failure> {
    let place = root.locate_or_make("/dev/console", Missing::File).doing(|| "make /dev/console".into())?;
    let view = clone_tree(&terminal.slave, false).doing(|| "bind the terminal".into())?;
    attach_to(&view, &place).doing(|| "bind the terminal to /dev/console".into())
}

/// Makes the terminal stdin, stdout, stderr and the controlling terminal of this session.
pub(super) fn take_control(terminal: &Terminal) -> Result<(), Failure> {
    rustix::process::ioctl_tiocsctty(&terminal.slave).doing(|| "take control of the terminal".into())?;
    for number in 0..=2 {
        fds::replace_stdio(&terminal.slave, number).doing(|| "attach the terminal".into())?;
    }
    Ok(())
}

/// The container may have put anything at that path: only a real ptmx of a devpts is used.
fn open_ptmx(root: &Root) -> Result<OwnedFd, Failure> {
    let missing = "process.terminal needs a devpts mounted at /dev/pts";
    let place = root.locate("/dev/pts/ptmx").asked(|| missing.into())?;
    let stat = rustix::fs::fstat(&place).doing(|| missing.into())?;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let magic = rustix::fs::fstatfs(&place).doing(|| missing.into())?.f_type;
    let real = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && device == PTMX
        && u64::try_from(magic) == Ok(DEVPTS_MAGIC);
    if !real {
        return Err(Failure::invalid(missing));
    }
    root.open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK).doing(|| "open a terminal".into())
}
