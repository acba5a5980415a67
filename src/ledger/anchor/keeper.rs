//! The thread that writes the anchor, and answers the ends that waited for it.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
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
/// Several commits that wait cost one write. The committer never waits for it: an anchor that hangs must not keep a
/// revocation from being in force, only from being acknowledged. Dropping it writes the last mark as closed and ends the
/// thread.
#[derive(Debug)]
pub struct Keeper {
    slate: Arc<Slate>,
    thread: Option<JoinHandle<()>>,
}

/// What committer and writer share.
#[derive(Debug)]
struct Slate {
    anchor: Arc<dyn Anchor>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The newest commit.
    latest: Mark,
    /// Not covered yet.
    ends: Vec<Waiting>,
    /// Covered by the write that goes on now.
    covered: Vec<Waiting>,
    /// When the write that goes on now began.
    writing: Option<Instant>,
    closed: bool,
    /// Nobody writes any more.
    gone: bool,
}

/// An end that waits, and the revision of its commit.
type Waiting = (u64, Box<dyn Work>);

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(anchor: Arc<dyn Anchor>, shared: Arc<Shared>, opened: Mark) -> std::io::Result<Self> {
        let state =
            State { latest: opened, ends: Vec::new(), covered: Vec::new(), writing: None, closed: false, gone: false };
        let slate = Arc::new(Slate { anchor, shared, state: Mutex::new(state), changed: Condvar::new() });
        let writer = Writer { slate: Arc::clone(&slate), written: None };
        let thread = std::thread::Builder::new().name("anchor".into()).spawn(move || writer.run())?;
        Ok(Self { slate, thread: Some(thread) })
    }

    /// Notes that `mark` is published; `ends` are answered once the anchor covers it. Never waits for the anchor.
    pub fn cover(&self, mark: Mark, ends: Vec<Box<dyn Work>>) {
        let mut state = self.slate.lock();
        state.latest = mark;
        if state.gone || state.ends.len() + ends.len() > ENDS_MOST {
            drop(state);
            self.slate.shared.holds.set(Hold::Unanchored);
            ends.into_iter().for_each(|end| end.finish(Err(Refused::Unanchored)));
            return;
        }
        if !ends.is_empty() {
            state.ends.extend(ends.into_iter().map(|end| (mark.number, end)));
            self.slate.changed.notify_one();
        }
    }

    /// Begins nothing, and lets no end wait longer, while a write takes longer than its anchor's patience.
    pub fn look_after(&self) {
        let mut state = self.slate.lock();
        if state.writing.is_none_or(|began| began.elapsed() < self.slate.anchor.patience()) {
            return;
        }
        let place = self.slate.anchor.place();
        if !self.slate.shared.holds.has(Hold::Unanchored) {
            tracing::error!(anchor = place, "a write of the anchor hangs; nothing is issued");
        }
        // Under the lock, so that the end of that write clears it.
        self.slate.shared.holds.set(Hold::Unanchored);
        let ends = state.take_ends();
        drop(state);
        ends.into_iter().for_each(|(_, end)| end.finish(Err(Refused::Unanchored)));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.slate.lock().closed = true;
        self.slate.changed.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the anchor's thread stopped unexpectedly");
        }
    }
}

impl Slate {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    slate: Arc<Slate>,
    written: Option<Mark>,
}

impl Writer {
    fn run(mut self) {
        // At once: a store that was never anchored is from now on, and a mark of a close is taken back.
        self.catch_up(false);
        let mut due = Instant::now() + LAG;
        loop {
            let mut state = self.slate.lock();
            while state.ends.is_empty() && !state.closed && Instant::now() < due {
                let left = due.saturating_duration_since(Instant::now());
                state = self.slate.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            let is_closed = state.closed;
            drop(state);
            self.catch_up(is_closed);
            if is_closed {
                return;
            }
            due = Instant::now() + LAG;
        }
    }

    /// Writes the newest mark unless it is written, and answers the ends that it covers. When that fails nothing is begun
    /// until it succeeds.
    fn catch_up(&mut self, is_closing: bool) {
        let slate = Arc::clone(&self.slate);
        let mut state = slate.lock();
        let mark = Mark { closed: is_closing, ..state.latest };
        state.covered = std::mem::take(&mut state.ends);
        let began = Instant::now();
        let mut outcome = Ok(());
        if self.written != Some(mark) {
            state.writing = Some(began);
            drop(state);
            outcome = slate.anchor.write(&mark);
            metrics::histogram!("mayfly_anchor_seconds").record(began.elapsed().as_secs_f64());
            state = slate.lock();
            state.writing = None;
        }
        let ends = std::mem::take(&mut state.covered);
        let is_written = outcome.is_ok();
        match outcome {
            Ok(()) => {
                self.written = Some(mark);
                slate.shared.holds.clear(Hold::Unanchored);
            }
            Err(error) => {
                if !slate.shared.holds.has(Hold::Unanchored) {
                    let anchor = slate.anchor.place();
                    tracing::error!(%error, anchor, "the anchor cannot be written; nothing is issued");
                }
                slate.shared.holds.set(Hold::Unanchored);
            }
        }
        drop(state);
        for (number, end) in ends {
            end.finish(if is_written { Ok(number) } else { Err(Refused::Unanchored) });
        }
    }
}

impl Drop for Writer {
    /// However it ended: nothing is issued without an anchor, and no end is left without an answer.
    fn drop(&mut self) {
        let mut state = self.slate.lock();
        state.gone = true;
        let ends = state.take_ends();
        if !state.closed {
            self.slate.shared.holds.set(Hold::Unanchored);
        }
        drop(state);
        ends.into_iter().for_each(|(_, end)| end.finish(Err(Refused::Unanchored)));
    }
}

impl State {
    fn take_ends(&mut self) -> Vec<Waiting> {
        let mut ends = std::mem::take(&mut self.covered);
        ends.append(&mut self.ends);
        ends
    }
}

/// Ends that wait for the anchor at most; those beyond are told that it does not cover them.
const ENDS_MOST: usize = 16_384;
