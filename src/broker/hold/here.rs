//! Tasks that are held from within the broker, for a process on this host.

use std::time::Duration;

use super::{
    super::{Broker, event},
    book::Stream,
};
use crate::{
    ledger::{EndTask, Refused},
    model::{EndReason, Standing, TaskId},
};

/// A task that is held from within the broker.
#[derive(Debug)]
pub(in crate::broker) struct Held {
    id: TaskId,
    stream: Stream,
}

impl Held {
    /// Returns when it should be looked at.
    pub(in crate::broker) async fn due(&self, heartbeat: Duration) {
        tokio::select! {
            () = self.stream.woken() => {}
            () = tokio::time::sleep(heartbeat) => {}
        }
    }
}

impl Broker {
    /// Holds a task that was opened to be held; a stream that held it before gives way.
    pub(in crate::broker) fn hold_here(&self, id: TaskId) -> Held {
        let due = self.holds.at() + self.silence();
        let stream = self.holds.book().attach(id, due);
        self.holds.changed.notify_one();
        Held { id, stream }
    }

    /// Whether a task still is to be held; it is for another while then.
    pub(in crate::broker) fn goes_on_here(&self, held: &Held) -> bool {
        let standing = self.ledger.task(held.id).and_then(|task| match task {
            Some(task) => self.ledger.task_standing(&task, self.now()),
            None => Ok(Standing::Ended(EndReason::Expired)),
        });
        let due = self.holds.at() + self.silence();
        let mut book = self.holds.book();
        if !book.owns(held.id, &held.stream) {
            return false;
        }
        if let Ok(Standing::Ended(_)) = standing {
            book.forget(held.id, &held.stream);
            return false;
        }
        book.beat(held.id, &held.stream, due);
        true
    }

    /// Completes a task whose process has ended. Where that cannot be written, it is given up like any other whose holder
    /// is gone.
    pub(in crate::broker) async fn complete_here(&self, held: &Held, pid: i32) {
        if !self.holds.book().owns(held.id, &held.stream) {
            return;
        }
        let ended = self.end_here(held.id, pid).await;
        let mut book = self.holds.book();
        match ended {
            Ok(()) => book.forget(held.id, &held.stream),
            Err(error) => {
                tracing::warn!(%error, task = %held.id, "the task of a process that ended goes on for a moment");
                book.detach(held.id, &held.stream, self.holds.at() + self.settings.hold_grace);
                self.holds.changed.notify_one();
            }
        }
    }

    async fn end_here(&self, id: TaskId, pid: i32) -> Result<(), Refused> {
        let now = self.now();
        let Some(task) = self.ledger.task(id)? else { return Ok(()) };
        let mut event = event::own("task.completed", now);
        event::of_task(&mut event, &task);
        event.details.push(format!("process_ended={pid}"));
        let end = EndTask { task: id, why: EndReason::Completed, event, now };
        match self.ledger.end_task(end).await {
            Ok(_) | Err(Refused::Unknown) => Ok(()),
            Err(refused) => Err(refused),
        }
    }
}
