//! The thread that writes the anchor, and answers the ends that waited for it.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Instant,
};

use super::{Anchor, LAG, Mark};
use crate::ledger::{
    refused::Refused,
    shared::{Hold, Shared},
    tx::Work,
};

/// Takes marks from the committer, writes the newest, then answers.
///
/// Several commits that wait cost one write. Dropping it writes the last mark as closed and ends the thread.
#[derive(Debug)]
pub struct Keeper {
    sender: Option<SyncSender<Covered>>,
    thread: Option<JoinHandle<()>>,
}

/// A commit, and the ends in it that wait for the anchor.
#[derive(Debug)]
struct Covered {
    mark: Mark,
    ends: Vec<Box<dyn Work>>,
}

/// An end that waits, and the revision of its commit.
type Waiting = (u64, Box<dyn Work>);

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(anchor: Arc<dyn Anchor>, shared: Arc<Shared>, opened: Mark) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_MOST);
        let writer = Writer { anchor, shared, latest: opened, written: None };
        let thread = std::thread::Builder::new().name("anchor".into()).spawn(move || writer.run(&receiver))?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Notes that `mark` is published; `ends` are answered once the anchor covers it.
    pub fn cover(&self, mark: Mark, ends: Vec<Box<dyn Work>>) {
        let Some(sender) = &self.sender else { return };
        if let Err(gone) = sender.send(Covered { mark, ends }) {
            gone.0.ends.into_iter().for_each(|end| end.finish(Err(Refused::Unanchored)));
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.sender.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the anchor's thread stopped unexpectedly");
        }
    }
}

struct Writer {
    anchor: Arc<dyn Anchor>,
    shared: Arc<Shared>,
    latest: Mark,
    written: Option<Mark>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Covered>) {
        // At once: a store that was never anchored is from now on, and a mark of a close is taken back.
        self.catch_up();
        let mut due = Instant::now() + LAG;
        loop {
            let mut ends = Vec::new();
            match receiver.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(covered) => {
                    self.take(covered, &mut ends);
                    while let Ok(covered) = receiver.try_recv() {
                        self.take(covered, &mut ends);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if ends.is_empty() && Instant::now() < due {
                continue;
            }
            let is_written = self.catch_up();
            due = Instant::now() + LAG;
            for (number, end) in ends {
                end.finish(if is_written { Ok(number) } else { Err(Refused::Unanchored) });
            }
        }
        self.latest.closed = true;
        self.catch_up();
    }

    fn take(&mut self, covered: Covered, ends: &mut Vec<Waiting>) {
        self.latest = covered.mark;
        ends.extend(covered.ends.into_iter().map(|end| (covered.mark.number, end)));
    }

    /// Writes the newest mark unless it is written; false when that fails: then nothing is begun until it succeeds.
    fn catch_up(&mut self) -> bool {
        if self.written == Some(self.latest) {
            return true;
        }
        let began = Instant::now();
        match self.anchor.write(&self.latest) {
            Ok(()) => {
                metrics::histogram!("mayfly_anchor_seconds").record(began.elapsed().as_secs_f64());
                self.written = Some(self.latest);
                self.shared.holds.clear(Hold::Unanchored);
                true
            }
            Err(error) => {
                if !self.shared.holds.has(Hold::Unanchored) {
                    tracing::error!(%error, anchor = self.anchor.place(), "the anchor cannot be written; nothing is issued");
                }
                self.shared.holds.set(Hold::Unanchored);
                false
            }
        }
    }
}

/// Commits that wait for the anchor at most; the committer waits then.
const WAITING_MOST: usize = 64;
