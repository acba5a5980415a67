//! The process at the other end of a Unix socket, told apart from every later one that gets its number.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, LazyLock},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

use super::UnixProof;

/// One process. Its number may be given to another one after its end; this value is never taken for that one.
///
/// Not promised: that it did not hand its socket to another process. Who got one can ask only as long as the process
/// lives that the kernel named.
#[derive(Clone, Debug)]
pub struct Process(Arc<Seen>);

#[derive(Debug)]
struct Seen {
    pid: i32,
    /// Clock ticks from the boot of the host to its start.
    started: u64,
    /// Refers to this process for ever, and says when it has ended (pidfd_open(2)).
    handle: OwnedFd,
}

/// Why a process cannot be told apart.
#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    /// It is in a PID namespace that ours does not see.
    #[error("the kernel does not name the process; it runs in another PID namespace")]
    Namespace,
    /// It has ended, and another one may have its number.
    #[error("the process has ended")]
    Ended,
    /// The process of this number runs as another user or group: it is not the one that connected.
    #[error("the process of this number runs as user and group {found:?}, and {wanted:?} connected")]
    User {
        /// Whom it runs as: user and group.
        found: (u32, u32),
        /// Who connected.
        wanted: (u32, u32),
    },
    /// `/proc` does not say.
    #[error("/proc does not tell of the process; mount it without hidepid, or let the daemon see all processes")]
    Proc(#[source] io::Error),
}

impl Process {
    /// The process that connected. To be asked for when the connection is accepted.
    ///
    /// A handle is taken first, then it is seen who has the number, then that the handle's process still lives: all that
    /// was read is of one process. Between connect and accept its number may have gone to another process; one of
    /// another user or group is refused, and one of the same user and group is who it is taken for, since these are all
    /// that selectors tell apart. A process may become another user later: what it has is kept apart by who it was found
    /// to be, not by process alone.
    ///
    /// # Errors
    /// See [`Unseen`].
    pub fn of(proof: &UnixProof) -> Result<Self, Unseen> {
        let pid = proof.pid.filter(|pid| *pid > 0).and_then(Pid::from_raw).ok_or(Unseen::Namespace)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| Unseen::Ended)?;
        let number = pid.as_raw_nonzero().get();
        let started = started(number).map_err(Unseen::Proc)?;
        let found = user_and_group(number).map_err(Unseen::Proc)?;
        let seen = Self(Arc::new(Seen { pid: number, started, handle }));
        if !seen.lives() {
            return Err(Unseen::Ended);
        }
        let wanted = (proof.uid, proof.gid);
        if found != wanted {
            return Err(Unseen::User { found, wanted });
        }
        Ok(seen)
    }

    /// Whether it still runs.
    #[must_use]
    pub fn lives(&self) -> bool {
        let mut handle = [PollFd::new(&self.0.handle, PollFlags::IN)];
        // Readable once it has ended. Whatever else the kernel says, it does not say that the process lives.
        matches!(poll(&mut handle, Some(&Timespec::default())), Ok(0))
    }

    /// Returns when it has ended.
    pub async fn ended(&self) {
        if let Ok(watched) = self.watched()
            && watched.readable().await.is_ok()
        {
            return;
        }
        // Out of file descriptors: looked at now and then instead.
        while self.lives() {
            sleep(LOOK).await;
        }
    }

    #[allow(
        deprecated,
        reason = "its successor is unsafe, for types whose descriptor may change: an OwnedFd's does not"
    )]
    fn watched(&self) -> io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::with_interest(self.0.handle.as_fd().try_clone_to_owned()?, Interest::READABLE)
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// What tells it from every other process of the host, ever: its number, its start, and the host's boot.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{}:{}:{}", BOOT.trim_end(), self.0.pid, self.0.started)
    }
}

impl PartialEq for Process {
    fn eq(&self, other: &Self) -> bool {
        (self.0.pid, self.0.started) == (other.0.pid, other.0.started)
    }
}

impl Eq for Process {}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)). The second field is a name in parentheses that may hold anything.
fn started(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    field_22(&text).ok_or_else(|| io::Error::other("its stat has no start time"))
}

fn field_22(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// The effective user and group (`Uid:` and `Gid:` of `/proc/PID/status`), which are those that a Unix socket tells.
fn user_and_group(pid: i32) -> io::Result<(u32, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let both = effective(&text, "Uid:").zip(effective(&text, "Gid:"));
    both.ok_or_else(|| io::Error::other("its status has no user and group"))
}

fn effective(status: &str, field: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().nth(1)?.parse().ok()
}

/// The host's boot; where it is not told, processes of two boots are told apart by number and start alone.
static BOOT: LazyLock<String> =
    LazyLock::new(|| fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default());

/// How often a process is looked at where its end is not told.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that waits for its end.
    struct Sleeper(Child);

    impl Sleeper {
        fn new() -> Self {
            let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
            Self(child.expect("cat starts"))
        }

        fn proof(&self) -> UnixProof {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            UnixProof { uid, gid, pid: i32::try_from(self.0.id()).ok() }
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    async fn a_process_is_seen_until_its_end_and_its_number_alone_is_nobody() {
        let mut sleeper = Sleeper::new();
        let (proof, process) = (sleeper.proof(), Process::of(&sleeper.proof()).expect("seen"));
        assert!(process.lives() && process == Process::of(&proof).expect("seen again"));
        assert!(process.mark().ends_with(&format!(":{}:{}", process.pid(), process.0.started)));
        sleeper.0.kill().expect("ours");
        tokio::time::timeout(Duration::from_secs(20), process.ended()).await.expect("its end is told");
        assert!(!process.lives());
        // Not waited for, its number is still taken; it is dead all the same.
        assert!(matches!(Process::of(&proof), Err(Unseen::Ended)));
        sleeper.0.wait().expect("gone");
        assert!(matches!(Process::of(&proof), Err(Unseen::Ended)));
    }

    #[test]
    fn a_process_of_another_user_group_or_namespace_is_not_the_one_that_connected() {
        let sleeper = Sleeper::new();
        let proof = sleeper.proof();
        let own = (proof.uid, proof.gid);
        for other in [UnixProof { uid: proof.uid + 1, ..proof }, UnixProof { gid: proof.gid + 1, ..proof }] {
            assert!(matches!(Process::of(&other), Err(Unseen::User { found, .. }) if found == own), "{other:?}");
        }
        for pid in [None, Some(0), Some(-1)] {
            assert!(matches!(Process::of(&UnixProof { pid, ..proof }), Err(Unseen::Namespace)), "{pid:?}");
        }
    }

    #[test]
    fn a_name_in_stat_cannot_shift_the_start_time() {
        let stat = |name: &str| format!("7 ({name}) S 1 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 0 0");
        for name in ["cat", "a b", "x) S 1 2 3", "((", ""] {
            assert_eq!(field_22(&stat(name)), Some(4711), "{name}");
        }
        assert_eq!(field_22("7 cat S"), None);
        let status = "Name:\tUid:\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
        assert_eq!((effective(status, "Uid:"), effective(status, "Gid:")), (Some(2), Some(6)));
        assert_eq!(effective("Name:\tGid:\n", "Gid:"), None);
    }
}
