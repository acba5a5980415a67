//! Lets what is ready gather before a connection is looked after.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// Whose turn it is: that of the tasks that are ready, or of the connection behind them.
///
/// A connection is woken by each of its replies. Polled at once, it would write that one reply; polled behind the tasks
/// that are about to reply too, it writes theirs along: one system call, and one wake-up of the client, for many
/// replies. Where nothing else is ready the second poll follows at once, so a lone request waits for nothing.
#[derive(Debug, Default)]
pub(super) struct Turn {
    others: bool,
}

impl Turn {
    /// Lets the others go first after each wake-up, then polls.
    pub(super) fn poll<F: Future>(&mut self, context: &mut Context<'_>, future: Pin<&mut F>) -> Poll<F::Output> {
        self.others = !self.others;
        if self.others {
            // Woken while it runs, a task goes behind those that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        future.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn after_each_wake_up_the_others_go_first_and_the_future_is_polled_behind_them() {
        let (wakes, polls) = (Arc::new(Wakes::default()), AtomicUsize::new(0));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let mut work = pin!(future::poll_fn(|_| match polls.fetch_add(1, Ordering::Relaxed) {
            0 => Poll::Pending,
            _ => Poll::Ready(7),
        }));
        let mut turn = Turn::default();
        let mut seen = Vec::new();
        for _ in 0..4 {
            let outcome = turn.poll(&mut context, work.as_mut());
            seen.push((outcome, polls.load(Ordering::Relaxed), wakes.0.load(Ordering::Relaxed)));
        }
        let pending = Poll::Pending;
        assert_eq!(seen, [(pending, 0, 1), (pending, 1, 1), (pending, 1, 2), (Poll::Ready(7), 2, 2)]);
    }
}
