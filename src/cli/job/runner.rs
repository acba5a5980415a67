//! Processes by id and start time, so that an id which was used again is not taken for the one it was.

use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, getppid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::cli::failure::{Failure, Outcome};

/// One process, for as long as it lives.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Process {
    id: i32,
    /// Clock ticks after the boot (`proc_pid_stat(5)`).
    started: u64,
}

/// What `proc_pid_stat(5)` says of a process.
struct Stat {
    name: String,
    is_dead: bool,
    parent: i32,
    started: u64,
}

impl Process {
    /// This one.
    ///
    /// # Errors
    /// When the system does not show it.
    pub fn own() -> Outcome<Self> {
        Self::of(getpid().as_raw_nonzero().get())
    }

    /// A process that lives.
    ///
    /// # Errors
    /// When there is none of this id.
    pub fn of(id: i32) -> Outcome<Self> {
        let stat = stat(id).filter(|stat| !stat.is_dead);
        let stat = stat.ok_or_else(|| Failure::Usage(format!("there is no process {id}")))?;
        Ok(Self { id, started: stat.started })
    }

    /// The nearest process above this one that is a CI system's runner or agent.
    #[must_use]
    pub fn runner() -> Option<Self> {
        let mut id = getppid()?.as_raw_nonzero().get();
        for _ in 0..DEPTH {
            let found = stat(id)?;
            if RUNNERS.contains(&found.name.as_str()) {
                return Some(Self { id, started: found.started });
            }
            id = found.parent;
        }
        None
    }

    /// Whether it has ended; one that only its parent still knows of has.
    #[must_use]
    pub fn is_gone(self) -> bool {
        stat(self.id).is_none_or(|stat| stat.is_dead || stat.started != self.started)
    }

    /// Returns when it has ended, looked at every `pause`.
    pub async fn gone(self, pause: Duration) {
        while !self.is_gone() {
            sleep(pause).await;
        }
    }

    /// Returns whether it goes without being told before `patience` ends.
    pub async fn end_by_itself(self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.gone(Duration::from_millis(5))).await.is_ok()
    }

    /// Ends it; it has no say in that. Returns whether it is gone before `patience` ends.
    pub async fn end(self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while !self.is_gone() {
            if Instant::now() >= until {
                return false;
            }
            if let Some(pid) = Pid::from_raw(self.id) {
                // One that ended just now needs none.
                let _ = kill_process(pid, Signal::KILL);
            }
            sleep(Duration::from_millis(10)).await;
        }
        true
    }
}

fn stat(id: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    parse(&text)
}

/// The name may hold anything, blanks and brackets too, so the last bracket ends it.
fn parse(text: &str) -> Option<Stat> {
    let (front, rest) = text.rsplit_once(") ")?;
    let (_, name) = front.split_once('(')?;
    let mut words = rest.split_ascii_whitespace();
    let state = words.next()?;
    let parent = words.next()?.parse().ok()?;
    // The 22nd field; the state is the third.
    let started = words.nth(17)?.parse().ok()?;
    Some(Stat { name: name.to_owned(), is_dead: matches!(state, "Z" | "X"), parent, started })
}

/// Names of the processes that run jobs, as the kernel keeps them (15 bytes at most): GitHub's, GitLab's, Buildkite's,
/// CircleCI's.
const RUNNERS: [&str; 5] = ["Runner.Worker", "gitlab-runner", "buildkite-agent", "circleci-agent", "circleci"];
/// Further up nobody looks.
const DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_program_is_called() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1 1 1";
        let stat = parse(line).expect("whole");
        assert_eq!((stat.name.as_str(), stat.parent, stat.started, stat.is_dead), ("a) b (c", 7, 123_456, false));
        assert!(parse(&line.replace(" S ", " Z ")).expect("whole").is_dead);
        assert!(parse("42 (a").is_none() && parse("").is_none());
    }

    #[test]
    fn an_id_that_was_used_again_is_not_the_process_it_was() {
        let own = Process::own().expect("shown");
        assert!(!own.is_gone());
        assert!(Process { started: own.started + 1, ..own }.is_gone());
    }
}
