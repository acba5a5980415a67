//! A stream of answers that ends with its caller's proof, its connection or the server.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Sleep, sleep},
};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::{gate::Room, status};
use crate::broker::Refusal;

/// What a use case sends, until the first of: its end, a refusal, a cut proof, an expired proof, the server's stop.
#[derive(Debug)]
pub struct Outflow<T> {
    receiver: mpsc::Receiver<Result<T, Refusal>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    expiry: Option<Pin<Box<Sleep>>>,
    /// `None` once it has ended.
    room: Option<Room>,
    tell: fn(&Refusal) -> Status,
}

impl<T> Outflow<T> {
    pub(super) fn new(
        receiver: mpsc::Receiver<Result<T, Refusal>>,
        room: Room,
        cut: CancellationToken,
        drain: CancellationToken,
        life: Option<Duration>,
    ) -> Self {
        Self {
            receiver,
            cut: Box::pin(cut.cancelled_owned()),
            drain: Box::pin(drain.cancelled_owned()),
            expiry: life.map(|life| Box::pin(sleep(life))),
            room: Some(room),
            tell: status::of,
        }
    }

    /// The same with another way to tell of refusals.
    pub(super) fn telling(self, tell: fn(&Refusal) -> Status) -> Self {
        Self { tell, ..self }
    }

    fn broken(&mut self, cx: &mut Context<'_>) -> Option<Refusal> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Some(Refusal::Unproven("your proof was cut off"));
        }
        if self.expiry.as_mut().is_some_and(|expiry| expiry.as_mut().poll(cx).is_ready()) {
            return Some(Refusal::Unproven("your proof has expired; come again with a new one"));
        }
        if self.drain.as_mut().poll(cx).is_ready() {
            return Some(Refusal::Unavailable("the broker is stopping"));
        }
        None
    }

    fn end(&mut self, refusal: &Refusal) -> Poll<Option<Result<T, Status>>> {
        self.receiver.close();
        self.room = None;
        Poll::Ready(Some(Err((self.tell)(refusal))))
    }
}

impl<T> Stream for Outflow<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.room.is_none() {
            return Poll::Ready(None);
        }
        if let Some(refusal) = self.broken(cx) {
            return self.end(&refusal);
        }
        match self.receiver.poll_recv(cx) {
            Poll::Ready(Some(Ok(message))) => Poll::Ready(Some(Ok(message))),
            Poll::Ready(Some(Err(refusal))) => self.end(&refusal),
            Poll::Ready(None) => {
                self.room = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
