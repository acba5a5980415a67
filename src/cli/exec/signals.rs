//! Signals that come to this process, each with who sent it.
//!
//! The child stays in this process's group, so that a terminal's Ctrl-C, Ctrl-\, Ctrl-Z and change of size reach it from
//! the terminal itself: these are not passed on a second time. What any process sends to this one is.

use std::{fmt, io, thread};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::signal,
    iterator::{Handle, SignalsInfo, exfiltrator::origin::WithOrigin},
    low_level::{emulate_default_handler, siginfo::Cause},
};
use tokio::sync::mpsc;

use crate::cli::failure::{Failure, Outcome};

/// What was heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heard {
    /// Its number.
    pub signal: i32,
    /// Whether the kernel sent it, as it does for a terminal's keys.
    pub by_terminal: bool,
}

/// Listens from its making to its drop; signals that come meanwhile wait.
pub struct Signals {
    heard: mpsc::UnboundedReceiver<Heard>,
    handle: Handle,
}

impl Signals {
    /// Listens from now on to all that can be passed on, but for what this process was started to ignore (`nohup`): the
    /// child ignores that too.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn listen() -> Outcome<Self> {
        let failed = |error: io::Error| Failure::io("listen for signals", error);
        let ignored = ignored().map_err(failed)?;
        let wanted = PASSED_ON.iter().copied().filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut infos = SignalsInfo::<WithOrigin>::new(wanted.chain([signal::SIGCHLD])).map_err(failed)?;
        let handle = infos.handle();
        let (sender, heard) = mpsc::unbounded_channel();
        let listen = move || {
            for origin in infos.forever() {
                let by_terminal = origin.cause == Cause::Kernel;
                if sender.send(Heard { signal: origin.signal, by_terminal }).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(listen).map_err(failed)?;
        Ok(Self { heard, handle })
    }

    /// The next one. Can be dropped and asked again.
    pub async fn next(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            // The thread lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// The next one that asks for an end. Earlier ones are kept for the child in `others`.
    pub async fn fatal(&mut self, others: &mut Vec<Heard>) -> i32 {
        loop {
            let heard = self.next().await;
            if heard.is_fatal() {
                return heard.signal;
            }
            if heard.signal != signal::SIGCHLD {
                others.push(heard);
            }
        }
    }
}

impl Heard {
    /// A child has changed.
    #[must_use]
    pub fn is_child(self) -> bool {
        self.signal == signal::SIGCHLD
    }

    /// Asks a program to end.
    #[must_use]
    pub fn is_fatal(self) -> bool {
        let asks = [signal::SIGHUP, signal::SIGINT, signal::SIGQUIT, signal::SIGABRT, signal::SIGTERM, signal::SIGXCPU];
        asks.contains(&self.signal) || self.signal == POWER
    }

    /// Lets the child have it, unless its terminal has done so already.
    pub fn pass_on(self, child: Pid) {
        if self.by_terminal && self.signal == signal::SIGTSTP {
            // The child is stopped already; we follow, so that the shell notices.
            let _ = emulate_default_handler(signal::SIGTSTP);
            return;
        }
        let reached = matches!(self.signal, signal::SIGINT | signal::SIGQUIT | signal::SIGWINCH);
        if self.by_terminal && reached {
            return;
        }
        if let Some(signal) = Signal::from_named_raw(self.signal) {
            // A child that has just ended needs no signal.
            let _ = kill_process(child, signal);
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

/// One bit a signal that this process ignores (`proc_pid_status(5)`, `SigIgn`).
fn ignored() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    Ok(u64::from_str_radix(mask.trim(), 16).unwrap_or(0))
}

/// The host is about to lose its power; `lxc-stop` asks a container's first process to end so. Linux only.
const POWER: i32 = Signal::POWER.as_raw();

/// All that can be caught and says something to a program. Not those of a process's own faults, those by which a terminal
/// stops its background, and real-time ones, which no library sends without unsafe code.
pub const PASSED_ON: [i32; 17] = [
    signal::SIGHUP,
    signal::SIGINT,
    signal::SIGQUIT,
    signal::SIGUSR1,
    signal::SIGUSR2,
    signal::SIGALRM,
    signal::SIGTERM,
    signal::SIGCONT,
    signal::SIGTSTP,
    signal::SIGURG,
    signal::SIGVTALRM,
    signal::SIGWINCH,
    signal::SIGIO,
    signal::SIGABRT,
    signal::SIGPROF,
    signal::SIGXCPU,
    POWER,
];
