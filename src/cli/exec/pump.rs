//! Carries a child's output through the mask, on a thread of its own: a slow reader stops the child, not the hold.

use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionread,
};
use zeroize::Zeroizing;

use super::mask::{Masker, Patterns};

/// What is masked; secrets may be added while output flows.
pub type Shared = Arc<RwLock<Patterns>>;

/// The pumps of one child.
#[derive(Debug)]
pub struct Pumps {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pumps {
    /// No output is carried yet.
    #[must_use]
    pub fn new() -> Self {
        Self { is_over: Arc::default(), threads: Vec::new() }
    }

    /// Carries `from` to `to` from now on.
    pub fn carry(
        &mut self,
        from: impl Read + AsFd + Send + 'static,
        to: impl Write + Send + 'static,
        patterns: Shared,
    ) {
        let is_over = Arc::clone(&self.is_over);
        self.threads.push(std::thread::spawn(move || {
            // A reader who went away is no error of ours; the child learns of it by its closed pipe.
            let _ = carry(from, to, &patterns, &is_over);
        }));
    }

    /// The child has ended: returns when all that it wrote is out. Processes that it left behind and that keep its pipes
    /// open are not waited for.
    pub fn finish(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // It does not panic; if it did, its output is lost and the rest goes on.
            let _ = thread.join();
        }
    }
}

fn carry(mut from: impl Read + AsFd, mut to: impl Write, patterns: &Shared, is_over: &AtomicBool) -> io::Result<()> {
    let (mut masker, mut buffer) = (Masker::default(), Zeroizing::new(vec![0; 64 * 1024]));
    let mut left_behind: Option<(Instant, u64)> = None;
    loop {
        if is_over.load(Ordering::Relaxed) {
            // What lies in the pipe now is all of the child's; beyond it, what it left behind gets a short time.
            let (end, own) = match left_behind {
                Some(known) => known,
                None => (Instant::now() + LEFT_BEHIND, ioctl_fionread(&from)?),
            };
            if own == 0 && Instant::now() >= end {
                break;
            }
            left_behind = Some((end, own));
        }
        if !is_ready(&from)? {
            let out = if is_over.load(Ordering::Relaxed) { None } else { Some(masker.idle()) };
            match out {
                Some(out) => write(&mut to, &out)?,
                None => break,
            }
            continue;
        }
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        if let Some((_, own)) = &mut left_behind {
            *own = own.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        let out = {
            let patterns = patterns.read().unwrap_or_else(PoisonError::into_inner);
            masker.push(&patterns, buffer.get(..count).unwrap_or_default())
        };
        write(&mut to, &out)?;
    }
    let patterns = patterns.read().unwrap_or_else(PoisonError::into_inner);
    write(&mut to, &masker.finish(&patterns))
}

/// Whether there is something to read, or the end of it, before a short while has passed.
fn is_ready(from: &impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(from, PollFlags::IN)];
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: WHILE_NANOS })) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    to.write_all(bytes)?;
    to.flush()
}

/// How long processes that the child left behind may go on writing.
const LEFT_BEHIND: Duration = Duration::from_secs(2);
/// 100 ms.
const WHILE_NANOS: i64 = 100_000_000;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_a_child_left_behind_writes_on_and_is_not_waited_for() {
        let (mut writer, reader) = UnixStream::pair().expect("a pair");
        writer.write_all(b"its own\n").expect("written");
        // Ends when the pump closes its side.
        let left = std::thread::spawn(move || while writer.write_all(b"and on and on\n").is_ok() {});
        let began = Instant::now();
        let mut out = Vec::new();
        carry(reader, &mut out, &Shared::default(), &AtomicBool::new(true)).expect("carried");
        assert!(began.elapsed() < LEFT_BEHIND * 5);
        assert!(out.starts_with(b"its own\n"));
        left.join().expect("ended");
    }
}
