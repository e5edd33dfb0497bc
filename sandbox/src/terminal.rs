//! The user's terminal: raw while a process with a terminal runs, and as it was before whatever happens.
//!
//! The saved settings are the process's own, not a guard's: a panic hook and an exit path that skips destructors must reach
//! them too.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

static SAVED: Mutex<Option<Saved>> = Mutex::new(None);

struct Saved {
    terminal: OwnedFd,
    settings: Termios,
}

/// Characters of a terminal, 1 to 65535 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl TerminalSize {
    /// The size of the terminal behind `fd`; `None` if it is no terminal or does not know.
    pub fn of(fd: impl AsFd) -> Option<Self> {
        let size = tcgetwinsize(fd).ok()?;
        (size.ws_row > 0 && size.ws_col > 0).then_some(Self { rows: size.ws_row, columns: size.ws_col })
    }
}

/// While it lives, the terminal is raw.
#[derive(Debug)]
pub struct RawMode {
    _only_from_enter: (),
}

impl RawMode {
    /// Makes the terminal behind `fd` raw, and remembers how it was.
    ///
    /// # Errors
    /// It is no terminal, or one is raw already.
    pub fn enter(fd: impl AsFd) -> io::Result<Self> {
        let mut saved = saved();
        if saved.is_some() {
            return Err(io::Error::other("the terminal is raw already"));
        }
        let settings = tcgetattr(&fd)?;
        let terminal = fd.as_fd().try_clone_to_owned()?;
        let mut raw = settings.clone();
        raw.make_raw();
        *saved = Some(Saved { terminal, settings });
        drop(saved);
        let mode = Self { _only_from_enter: () };
        // If this fails half-way, dropping the guard sets everything back.
        // What was typed ahead is kept: it is for the guest.
        tcsetattr(fd, OptionalActions::Now, &raw)?;
        Ok(mode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Sets the terminal back to how it was; does nothing if it is not raw.
pub fn restore() {
    if let Some(Saved { terminal, settings }) = saved().take() {
        // A terminal that has hung up needs no settings.
        let _hung_up = tcsetattr(terminal, OptionalActions::Drain, &settings);
    }
}

/// Makes every later panic set the terminal back before it is reported.
pub fn restore_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        report(panic);
    }));
}

fn saved() -> MutexGuard<'static, Option<Saved>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, Winsize, tcsetwinsize};

    use super::*;

    /// Tests of the one saved state run one after another.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    fn terminal() -> (OwnedFd, std::fs::File) {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
        let terminal = std::fs::OpenOptions::new().read(true).write(true).open(name).unwrap();
        (controller, terminal)
    }

    fn is_raw(terminal: &std::fs::File) -> bool {
        let modes = tcgetattr(terminal).unwrap().local_modes;
        !modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    #[test]
    fn a_terminal_is_raw_only_while_the_guard_lives() {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (_controller, terminal) = terminal();
        let mode = RawMode::enter(&terminal).unwrap();
        assert!(is_raw(&terminal));
        assert!(RawMode::enter(&terminal).is_err(), "its settings must not be saved twice");
        drop(mode);
        assert!(!is_raw(&terminal));
    }

    #[test]
    fn a_panic_restores_it_before_any_destructor() {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (_controller, terminal) = terminal();
        restore_on_panic();
        let mode = std::mem::ManuallyDrop::new(RawMode::enter(&terminal).unwrap());
        let panicked = std::thread::spawn(|| panic!("on purpose")).join();
        let _back_to_the_default = std::panic::take_hook();
        assert!(panicked.is_err());
        assert!(!is_raw(&terminal));
        drop(std::mem::ManuallyDrop::into_inner(mode));
    }

    #[test]
    fn pipes_are_no_terminals() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        assert!(RawMode::enter(&read).is_err());
        assert_eq!(TerminalSize::of(&read), None);
    }

    #[test]
    fn a_size_of_zero_is_none() {
        let (controller, terminal) = terminal();
        assert_eq!(TerminalSize::of(&terminal), None);
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).unwrap();
        assert_eq!(TerminalSize::of(&terminal), Some(TerminalSize { rows: 24, columns: 80 }));
    }
}
