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
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    credit::{Credit, NOT_ADMITTED, SPENT},
    frames::FrameCount,
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
/// not admitted, and while its caller has spent its credit, it is not read for a while, so that a flood stands in the
/// sender's own buffers and not in our tasks.
#[derive(Debug)]
pub(super) struct Paced<I> {
    io: I,
    pace: Pace,
    pause: Option<Pin<Box<Sleep>>>,
    credit: Option<Arc<Credit>>,
    frames: FrameCount,
    /// Whether the credit was spent when it was looked at last.
    spent: bool,
    /// Bytes written that were not paid for yet.
    written: usize,
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
    /// Reads by the turns of `pace`, as long as there is credit.
    pub(super) fn new(io: I, pace: Pace, credit: Option<Arc<Credit>>) -> Self {
        // Whoever comes again has what it had.
        let spent = credit.as_ref().is_some_and(|credit| credit.is_spent(Instant::now()));
        Self { io, pace, pause: None, credit, frames: FrameCount::new(), spent, written: 0 }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
                self.spent = self.spent && self.credit.as_ref().is_some_and(|credit| credit.is_spent(Instant::now()));
            }
            let reason = match (self.pace.0.hasty.swap(false, Ordering::Relaxed), self.spent) {
                (true, _) => NOT_ADMITTED,
                (false, true) => SPENT,
                (false, false) => return Poll::Ready(()),
            };
            metrics::counter!("mayfly_reads_paused_total", "reason" => reason).increment(1);
            self.pause = Some(Box::pin(sleep(PAUSE)));
        }
    }

    fn has_read(&mut self, bytes: &[u8]) {
        self.pace.read(bytes.len());
        let Some(credit) = &self.credit else { return };
        let frames = self.frames.passed(bytes);
        if frames > 0 {
            self.spent = credit.spend(frames, Instant::now());
        }
    }

    fn has_written(&mut self, bytes: usize) {
        let Some(credit) = &self.credit else { return };
        self.written += bytes;
        if self.written >= BYTES_A_FRAME {
            credit.earn(u32::try_from(self.written / BYTES_A_FRAME).unwrap_or(u32::MAX));
            self.written %= BYTES_A_FRAME;
        }
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
        self.has_read(part.filled());
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Paced<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.has_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, parts))?;
        self.has_written(written);
        Poll::Ready(Ok(written))
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
/// How long a connection is not read after a request that was not admitted, or before its credit is looked at again: a
/// flood gets 160 KiB a second of each.
const PAUSE: Duration = Duration::from_millis(25);
/// What is written for a frame that the client may answer with: its stack opens windows and measures as it reads.
const BYTES_A_FRAME: usize = 1 << 10;

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
        let (mut paced, mut cx) = (Paced::new(&sent[..], turn.clone(), None), Context::from_waker(&waker));
        for (read, wakes) in [(TURN_BYTES, 1), (TURN_BYTES, 2), (9, 2)] {
            turn.begin();
            assert_eq!(drained(&mut paced, &mut cx), read);
            assert_eq!(woken.0.load(Ordering::Relaxed), wakes, "who has more to read is woken, and nobody else");
        }
    }

    #[tokio::test]
    async fn a_connection_that_floods_is_not_read_for_a_while_and_then_as_before() {
        let (sent, turn) = ([7; TURN_BYTES], Pace::default());
        let mut paced = Paced::new(&sent[..], turn.clone(), None);
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

    /// A client's preface, and so many frames of it that ask for nothing.
    fn pings(count: usize) -> Vec<u8> {
        let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &ping.repeat(count)].concat()
    }

    #[tokio::test]
    async fn who_has_spent_its_credit_is_not_read_until_some_has_grown_back() {
        let (sent, turn) = (pings(400), Pace::default());
        // 100 frames at once, and 50 a second more.
        let credit = Arc::new(Credit::new(50, 1, Instant::now()));
        let mut paced = Paced::new(&sent[..], turn.clone(), Some(Arc::clone(&credit)));
        let mut cx = Context::from_waker(Waker::noop());
        turn.begin();
        // What is in one turn was read before it was counted.
        assert_eq!(drained(&mut paced, &mut cx), 3_000, "two reads of the stack's");
        turn.begin();
        assert_eq!(drained(&mut paced, &mut cx), 0);
        let mut again = Paced::new(&sent[..], turn.clone(), Some(Arc::clone(&credit)));
        turn.begin();
        assert_eq!(drained(&mut again, &mut cx), 0, "nor on its next connection");
        credit.earn(1_000);
        turn.begin();
        assert_eq!(paced.read(&mut [0; 1_500]).await.unwrap(), 1_500, "who has credit again is read again");
    }

    #[tokio::test]
    async fn who_has_much_to_say_to_a_client_lets_it_answer() {
        let (credit, now) = (Arc::new(Credit::new(50, 1, Instant::now())), Instant::now());
        while !credit.spend(1, now) {}
        credit.earn(1);
        let mut paced = Paced::new(tokio::io::sink(), Pace::default(), Some(Arc::clone(&credit)));
        for _ in 0..10 {
            tokio::io::AsyncWriteExt::write_all(&mut paced, &[0; 1_000]).await.unwrap();
        }
        assert_eq!((0..100).take_while(|_| !credit.spend(1, now)).count(), 10_000 / BYTES_A_FRAME);
    }
}
