//! A command on a pseudo-terminal of its own, as a person runs it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::running::{Invocation, TIME_LIMIT};

/// A terminal and the command that has it as its stdin, stdout, stderr and controlling terminal.
pub struct Terminal {
    controller: File,
    /// Kept open, so that the settings can be looked at after the command has ended.
    user_side: OwnedFd,
    screen: Arc<Mutex<Vec<u8>>>,
    child: Child,
    line: String,
    before: Termios,
}

impl Terminal {
    /// Starts `invocation` on a terminal of the given size.
    ///
    /// # Panics
    ///
    /// If there is no pseudo-terminal to be had or the command cannot be started.
    pub fn start(invocation: &Invocation, rows: u16, columns: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&controller).expect("a pty that is granted");
        unlockpt(&controller).expect("a pty that is unlocked");
        let name = ptsname(&controller, Vec::new()).expect("a pty with a name");
        let path = std::ffi::OsStr::from_bytes(name.as_bytes());
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let user_side = rustix::fs::open(path, flags, Mode::empty()).expect("the user's side of the pty");
        tcsetwinsize(&user_side, size(rows, columns)).expect("a terminal has a size");
        let before = tcgetattr(&user_side).expect("a terminal has settings");
        let stream = || user_side.try_clone().expect("a descriptor more");
        let line = invocation.line();
        // `setsid --ctty` makes the terminal the controlling one, without a process in between.
        let plain = invocation.command();
        let mut command = std::process::Command::new("setsid");
        command.arg("--ctty").arg(plain.get_program()).args(plain.get_args());
        for (variable, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        command.env("TERM", "xterm");
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("setsid runs");
        let controller = File::from(controller);
        let screen = Arc::new(Mutex::new(Vec::new()));
        read_into(&screen, controller.try_clone().expect("a descriptor more"));
        Self { controller, user_side, screen, child, line, before }
    }

    /// Types `text`.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn types(&mut self, text: &str) {
        self.controller.write_all(text.as_bytes()).expect("the terminal takes input");
    }

    /// Everything that has been shown.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("no reader panics")).into_owned()
    }

    /// Waits until `text` has been shown.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.shown().contains(text) {
            let ended = self.child.try_wait().expect("it can be waited for");
            if begun.elapsed() > TIME_LIMIT || ended.is_some() {
                // What the command wrote last may still be on its way.
                std::thread::sleep(Duration::from_millis(200));
                assert!(
                    self.shown().contains(text),
                    "{} ({ended:?}) did not show {text:?} but:\n{}",
                    self.line,
                    self.shown()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Changes the size, which sends SIGWINCH.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.controller, size(rows, columns)).expect("a terminal has a size");
    }

    /// Sends the command a signal.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("the process can be signalled");
    }

    /// Waits for the command's end.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(begun.elapsed() < TIME_LIMIT, "{} did not end; it showed:\n{}", self.line, self.shown());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asserts that the terminal's settings are what they were before the command began.
    ///
    /// # Panics
    ///
    /// If they are not.
    #[track_caller]
    pub fn assert_restored(&self) {
        let now = tcgetattr(&self.user_side).expect("a terminal has settings");
        assert_eq!(now.local_modes, self.before.local_modes, "local modes were not restored");
        assert_eq!(now.input_modes, self.before.input_modes, "input modes were not restored");
        assert_eq!(now.output_modes, self.before.output_modes, "output modes were not restored");
    }

    /// Whether the terminal is in raw mode: no echo, no line editing.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.user_side).expect("a terminal has settings").local_modes;
        !modes.intersects(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has usually ended by now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn read_into(screen: &Arc<Mutex<Vec<u8>>>, mut controller: File) {
    let screen = Arc::clone(screen);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count) = controller.read(&mut buffer) {
            if count == 0 {
                return;
            }
            screen.lock().expect("no reader panics").extend_from_slice(&buffer[..count]);
        }
    });
}
