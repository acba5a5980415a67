//! Turns of connections: how much of one is read before the others are served.
//!
//! A stack that reads as long as there is something to read would serve one busy connection for milliseconds and make a
//! task of each of its streams, while all the others wait.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is left of one connection's turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace(Arc<AtomicUsize>);

/// A connection that reads no more than its turn allows, and then goes to the end of the line.
#[derive(Debug)]
pub(super) struct Paced<I> {
    io: I,
    pace: Pace,
}

impl Pace {
    /// A new turn begins: at most [`TURN_BYTES`] may be read.
    pub(super) fn begin(&self) {
        self.0.store(TURN_BYTES, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn read(&self, bytes: usize) {
        // One task reads, so nothing is lost between load and store.
        self.0.store(self.left().saturating_sub(bytes), Ordering::Relaxed);
    }
}

impl<I> Paced<I> {
    /// Reads by the turns of `pace`.
    pub(super) fn new(io: I, pace: Pace) -> Self {
        Self { io, pace }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Paced<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicU32,
        task::{Wake, Waker},
    };

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
}
