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

    /// The process above this one that goes when the job goes: the nearest one that is a CI system's runner or agent, or
    /// what a service that runs one job after the other has started for this one.
    #[must_use]
    pub fn runner() -> Option<Self> {
        runner_above(getppid()?.as_raw_nonzero().get(), stat)
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

/// Looks at `id` and what is above it, as `stat` shows them.
fn runner_above(mut id: i32, stat: impl Fn(i32) -> Option<Stat>) -> Option<Process> {
    let mut below: Option<Process> = None;
    for _ in 0..DEPTH {
        let found = stat(id)?;
        let this = Process { id, started: found.started };
        if SERVICES.contains(&found.name.as_str()) {
            return below.or(Some(this));
        }
        if RUNNERS.contains(&found.name.as_str()) {
            return Some(this);
        }
        (below, id) = (Some(this), found.parent);
    }
    None
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

/// Names of the processes that run one job and go with it, as the kernel keeps them (15 bytes at most): GitHub's,
/// Buildkite's, CircleCI's. The service above Buildkite's has its name too, and the nearest one counts.
const RUNNERS: [&str; 4] = ["Runner.Worker", "buildkite-agent", "circleci-agent", "circleci"];
/// Those that outlive their jobs and start each in a process of its own: GitLab's (shell executor), for `before_script` and
/// `script` together.
const SERVICES: [&str; 1] = ["gitlab-runner"];
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
    fn a_job_goes_with_its_own_process_and_not_with_the_service_that_runs_them_all() {
        // What is above `mayfly job start`, which is 9; each line is a process and its parent.
        let check = |above: &[(i32, &str, i32)], want: Option<i32>| {
            let stat = |id| {
                let (id, name, parent) = above.iter().copied().find(|(known, ..)| *known == id)?;
                let started = u64::try_from(id).ok()?;
                Some(Stat { name: name.to_owned(), is_dead: false, parent, started })
            };
            assert_eq!(runner_above(9, stat).map(|found| found.id), want, "{above:?}");
        };
        let start = (9, "mayfly", 8);
        check(&[start, (8, "bash", 7), (7, "su", 6), (6, "gitlab-runner", 1), (1, "systemd", 0)], Some(7));
        check(&[start, (8, "gitlab-runner", 1), (1, "systemd", 0)], Some(9));
        check(&[start, (8, "sh", 7), (7, "Runner.Worker", 6), (6, "Runner.Listener", 1)], Some(7));
        check(&[start, (8, "sh", 7), (7, "buildkite-agent", 6), (6, "buildkite-agent", 1)], Some(7));
        check(&[start, (8, "sh", 1), (1, "systemd", 0)], None);
    }

    #[test]
    fn an_id_that_was_used_again_is_not_the_process_it_was() {
        let own = Process::own().expect("shown");
        assert!(!own.is_gone());
        assert!(Process { started: own.started + 1, ..own }.is_gone());
    }
}
