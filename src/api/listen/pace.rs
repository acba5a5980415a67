//! Turns of connections: how much of one is read before the others are served.
//!
//! A stack that reads as long as there is something to read would serve one busy connection for milliseconds and make a
//! task of each of its streams, while all the others wait.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// What is left of one connection's turn, and whether the next has to wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace(Arc<State>);

#[derive(Debug, Default)]
struct State {
    left: AtomicUsize,
    hasty: AtomicBool,
}

/// A connection that reads no more than its turn allows, and then goes to the end of the line. After a request that was
/// not admitted it is not read for a while, so that a flood stands in the sender's own buffers and not in our tasks.
#[derive(Debug)]
pub(super) struct Paced<I> {
    io: I,
    pace: Pace,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// A new turn begins: at most [`TURN_BYTES`] may be read.
    pub(super) fn begin(&self) {
        self.0.left.store(TURN_BYTES, Ordering::Relaxed);
    }

    /// A request was not admitted: after what was read already, nothing is for [`PAUSE`].
    pub(super) fn slow_down(&self) {
        self.0.hasty.store(true, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.0.left.load(Ordering::Relaxed)
    }

    fn read(&self, bytes: usize) {
        // One task reads, so nothing is lost between load and store.
        self.0.left.store(self.left().saturating_sub(bytes), Ordering::Relaxed);
    }
}

impl<I> Paced<I> {
    /// Reads by the turns of `pace`.
    pub(super) fn new(io: I, pace: Pace) -> Self {
        Self { io, pace, pause: None }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pause.is_none() && self.pace.0.hasty.swap(false, Ordering::Relaxed) {
            self.pause = Some(Box::pin(sleep(PAUSE)));
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Paced<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pause(cx));
        let left = self.pace.left();
        if left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let most = left.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        self.pace.read(read);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Paced<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What is read in one turn: some ten requests of usual size.
const TURN_BYTES: usize = 4 << 10;
/// How long a connection is not read after a request that was not admitted: a flood gets 160 KiB a second of each.
const PAUSE: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::AtomicU32,
        task::{Wake, Waker},
        time::Instant,
    };

    use tokio::io::AsyncReadExt;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads until it has to wait; the bytes that came.
    fn drained(paced: &mut Paced<&[u8]>, cx: &mut Context<'_>) -> usize {
        let mut read = 0;
        loop {
            let mut room = [0; 1_500];
            let mut buf = ReadBuf::new(&mut room);
            match Pin::new(&mut *paced).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => read += buf.filled().len(),
                Poll::Ready(_) | Poll::Pending => return read,
            }
        }
    }

    #[test]
    fn a_connection_reads_its_turn_and_not_one_byte_more_and_comes_again() {
        let (sent, turn, woken) = ([7; TURN_BYTES * 2 + 9], Pace::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let (mut paced, mut cx) = (Paced::new(&sent[..], turn.clone()), Context::from_waker(&waker));
        for (read, wakes) in [(TURN_BYTES, 1), (TURN_BYTES, 2), (9, 2)] {
            turn.begin();
            assert_eq!(drained(&mut paced, &mut cx), read);
            assert_eq!(woken.0.load(Ordering::Relaxed), wakes, "who has more to read is woken, and nobody else");
        }
    }

    #[tokio::test]
    async fn a_connection_that_floods_is_not_read_for_a_while_and_then_as_before() {
        let (sent, turn) = ([7; TURN_BYTES], Pace::default());
        let mut paced = Paced::new(&sent[..], turn.clone());
        let mut room = [0; 100];
        turn.begin();
        assert_eq!(paced.read(&mut room).await.unwrap(), 100);
        // Said once or often, it is one pause.
        (0..9).for_each(|_| turn.slow_down());
        let began = Instant::now();
        assert_eq!(paced.read(&mut room).await.unwrap(), 100);
        assert!(began.elapsed() >= PAUSE);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(paced.read(&mut room)).poll(&mut cx).is_ready());
    }
}
