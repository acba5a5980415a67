//! The child: started once, waited for, and with it any orphan that comes to this process when it is PID 1.

use std::{
    io::{self, ErrorKind},
    process::{Child, Command},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process, waitpid},
};

/// The command that runs.
#[derive(Debug)]
pub struct Running {
    /// Its process id, which stays its own until it was waited for.
    pub pid: Pid,
}

/// Why there is no child, as an exit code.
#[must_use]
pub fn code_of(error: &io::Error) -> u8 {
    if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
}

impl Running {
    /// Starts a command; returns its pipes as well, if it has any.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn start(command: &mut Command) -> io::Result<(Self, Child)> {
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the child has no process id"))?;
        Ok((Self { pid }, child))
    }

    /// Waits for all that have ended; the exit code when the child is among them: its own, or 128 and the signal that
    /// ended it.
    #[must_use]
    pub fn reap(&self) -> Option<u8> {
        loop {
            let (pid, status) = match waitpid(None, WaitOptions::NOHANG) {
                Ok(Some(found)) => found,
                Err(Errno::INTR) => continue,
                Ok(None) | Err(_) => return None,
            };
            if pid != self.pid {
                continue;
            }
            if let Some(code) = status.exit_status() {
                return Some(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
            }
            if let Some(signal) = status.terminating_signal() {
                return Some(of_signal(signal));
            }
        }
    }

    /// Sends a signal of ours.
    pub fn signal(&self, signal: Signal) {
        // A child that has just ended needs no signal.
        let _ = kill_process(self.pid, signal);
    }
}

/// The exit code that stands for a signal.
#[must_use]
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128))
}

/// What went wrong is ours: nothing of the command was run.
pub const OWN: u8 = 125;
/// The command is there and cannot be run.
pub const NOT_RUNNABLE: u8 = 126;
/// There is no such command.
pub const NOT_FOUND: u8 = 127;
