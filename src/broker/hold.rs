//! Held tasks: a task lives as long as its holder's stream, and a grace time beyond.
//!
//! One timer for all holds; it runs on the monotonic clock, so that no step of the wall clock ends a task.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, broadcast, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Broker, event, refusal::Refusal, who::Workload};
use crate::{
    identity::{Caller, Proof},
    ledger::{EndTask, Published, Refused},
    model::{EndReason, ScopeId, Standing, Task, TaskId, TenantNumber, Timestamp},
    pb,
};

mod book;
mod here;

use book::{Book, Stream};

/// Held tasks and when each is given up.
#[derive(Debug)]
pub struct Holds {
    most: usize,
    began: Instant,
    book: Mutex<Book>,
    /// The earliest due time may have changed.
    changed: Notify,
}

impl Holds {
    /// None yet; at most `most` tasks, and of one tenant at most half of them.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, began: Instant::now(), book: Mutex::default(), changed: Notify::new() }
    }

    /// Keeps room for one more held task while it is being opened.
    ///
    /// # Errors
    /// When as many are held, or about to be, as may be in all or of this tenant.
    pub fn room(&self, tenant: TenantNumber) -> Result<HoldRoom<'_>, Refusal> {
        let mut book = self.book();
        if !book.reserve(tenant, self.most) {
            return Err(TOO_MANY);
        }
        Ok(HoldRoom { holds: self, tenant })
    }

    /// Open streams.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.book().streams()
    }

    /// A task was not opened after all.
    pub(super) fn unexpect(&self, id: TaskId) {
        self.book().unexpect(id);
    }

    fn at(&self) -> Duration {
        self.began.elapsed()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for a held task that is being opened.
#[derive(Debug)]
pub struct HoldRoom<'a> {
    holds: &'a Holds,
    tenant: TenantNumber,
}

impl Drop for HoldRoom<'_> {
    fn drop(&mut self) {
        self.holds.book().give_back(self.tenant);
    }
}

/// What a holder is told.
type Told = mpsc::Sender<Result<pb::HoldTaskResponse, Refusal>>;

impl Broker {
    /// Expects a stream for a task that was opened to be held: without one within the grace time the task ends.
    pub fn expect_hold(&self, id: TaskId) {
        let due = self.holds.at() + self.settings.hold_grace;
        self.holds.book().expect(id, due);
        self.holds.changed.notify_one();
    }

    /// Expects the holders of before a restart.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn resume_holds(&self) -> Result<(), Refusal> {
        let mut after = Vec::new();
        loop {
            let (ids, next) = self.ledger.held(&after, PAGE)?;
            for id in ids {
                self.expect_hold(id);
            }
            let Some(next) = next else { return Ok(()) };
            after = next;
            tokio::task::yield_now().await;
        }
    }

    /// Holds a task: each message of `beats` is a heartbeat, and each is answered. A newer stream for the same task takes
    /// its place.
    ///
    /// # Errors
    /// When the caller is not the task's workload (which looks as if there were no such task), the task has ended, or too
    /// many are held.
    pub async fn hold_task(
        self: &Arc<Self>,
        caller: &Caller,
        first: pb::HoldTaskRequest,
        beats: mpsc::Receiver<()>,
    ) -> Result<mpsc::Receiver<Result<pb::HoldTaskResponse, Refusal>>, Refusal> {
        let now = self.now();
        let task = self.own_task(caller, &first.task_id)?;
        if matches!(caller.proof(), Proof::TaskKey(_)) && !task.held {
            return Err(Refusal::Unproven("a task's key goes on where the task was opened with hold = true"));
        }
        match self.ledger.task_standing(&task, now)? {
            Standing::Ended(why) => return Err(Refusal::Ended { what: "task", why }),
            // A suspended task keeps its holder, so that it is there when the suspension is lifted.
            Standing::Suspended if task.held => {}
            Standing::Suspended | Standing::Live => {
                self.mark_held(task.id, now).await?;
            }
        }
        let stream = {
            let mut book = self.holds.book();
            if !book.knows(task.id) && !book.has_room(task.id.tenant(), self.holds.most) {
                return Err(TOO_MANY);
            }
            book.attach(task.id, self.holds.at() + self.silence())
        };
        self.holds.changed.notify_one();
        let (told, answers) = mpsc::channel(ANSWERS);
        // There is room for the first answer.
        let _sent = told.try_send(Ok(self.beat_answer(&task)));
        tokio::spawn(Arc::clone(self).keep(caller.clone(), task.id, stream, beats, told));
        Ok(answers)
    }

    /// Writes that a task is held, once there is room, and expects its stream. It goes on when whoever asked has gone: a
    /// task that says it is held and that the book does not know would never be given up.
    async fn mark_held(self: &Arc<Self>, id: TaskId, now: Timestamp) -> Result<(), Refusal> {
        let broker = Arc::clone(self);
        let marking = async move {
            let is_known = broker.holds.book().knows(id);
            let _room = if is_known { None } else { Some(broker.holds.room(id.tenant())?) };
            let marked = broker.ledger.hold(id, now).await;
            // It is in force without its anchor, too.
            if matches!(marked, Ok(_) | Err(Refused::Unanchored)) {
                broker.expect_hold(id);
            }
            Ok(marked.map(drop)?)
        };
        tokio::spawn(marking).await.unwrap_or(Err(Refusal::Unavailable("the broker is stopping")))
    }

    /// Gives up holds that are due, and wakes streams whose tasks may have ended, until `stop`.
    pub async fn watch_holds(self: Arc<Self>, stop: CancellationToken) {
        let mut feed = self.ledger.subscribe();
        let mut ends = JoinSet::new();
        loop {
            let next = self.holds.book().next_due();
            let wait = next.map_or(IDLE, |due| due.saturating_sub(self.holds.at())).min(IDLE);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.holds.changed.notified() => {}
                published = feed.recv() => self.wake(published),
                Some(_) = ends.join_next() => {}
            }
            let room = ENDS_AT_ONCE.saturating_sub(ends.len());
            let due = self.holds.book().take_due(self.holds.at(), room);
            for id in due {
                let broker = Arc::clone(&self);
                ends.spawn(async move { broker.abandon(id).await });
            }
        }
    }

    /// Ends a task whose holder has gone; tried again a little later when the store is not there.
    async fn abandon(&self, id: TaskId) {
        match self.end_abandoned(id).await {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, task = %id, "an abandoned task could not be ended; trying again");
                let mut book = self.holds.book();
                if !book.knows(id) {
                    book.expect(id, self.holds.at() + RETRY);
                }
            }
        }
    }

    async fn end_abandoned(&self, id: TaskId) -> Result<(), Refused> {
        let now = self.now();
        let Some(task) = self.ledger.task(id)? else { return Ok(()) };
        let mut abandoned = event::own("task.abandoned", now);
        event::of_task(&mut abandoned, &task);
        let end = EndTask { task: id, why: EndReason::Abandoned, event: abandoned, now };
        match self.ledger.end_task(end).await {
            // It was swept meanwhile.
            Ok(_) | Err(Refused::Unknown) => Ok(()),
            Err(refused) => Err(refused),
        }
    }

    fn wake(&self, published: Result<Arc<Published>, broadcast::error::RecvError>) {
        let book = self.holds.book();
        let Ok(published) = published else {
            // Some were missed, so everything may have changed.
            return book.wake_all();
        };
        for record in &published.feed {
            match ScopeId::from_slice(&record.scope_id) {
                Some(scope) if scope.as_bytes().first() == Some(&LEASE_KIND) => {}
                Some(scope) if book.wake(scope) || scope.as_bytes().first() == Some(&TASK_KIND) => {}
                Some(_) | None => return book.wake_all(),
            }
        }
    }

    async fn keep(
        self: Arc<Self>,
        caller: Caller,
        id: TaskId,
        stream: Stream,
        mut beats: mpsc::Receiver<()>,
        told: Told,
    ) {
        loop {
            let is_beat = tokio::select! {
                beat = beats.recv() => match beat {
                    Some(()) => true,
                    None => break,
                },
                () = told.closed() => break,
                () = stream.woken() => false,
            };
            let look = self.look(&caller, id);
            if !self.holds.book().owns(id, &stream) {
                // A newer stream took over, or the task was given up: then it is ended right after.
                if let Ok(Look::Ended(last)) = look {
                    let _gone = told.try_send(Ok(last));
                }
                return;
            }
            match look {
                Ok(Look::Lives(task)) if is_beat => {
                    self.holds.book().beat(id, &stream, self.holds.at() + self.silence());
                    // A holder that does not read is one that is gone: its answers are not kept.
                    let _full = told.try_send(Ok(self.beat_answer(&task)));
                }
                Ok(Look::Lives(_)) => {}
                Ok(Look::Ended(last)) => {
                    self.holds.book().forget(id, &stream);
                    let _gone = told.try_send(Ok(last));
                    return;
                }
                Ok(Look::Unclear) => break,
                Err(refusal) => {
                    let _gone = told.try_send(Err(refusal));
                    break;
                }
            }
        }
        self.holds.book().detach(id, &stream, self.holds.at() + self.settings.hold_grace);
        self.holds.changed.notify_one();
    }

    fn look(&self, caller: &Caller, id: TaskId) -> Result<Look, Refusal> {
        let now = self.now();
        let Ok(found) = self.ledger.task(id) else { return Ok(Look::Unclear) };
        let Some(task) = found else { return Ok(Look::Ended(last(EndReason::Expired))) };
        let standing = self.ledger.task_standing(&task, now)?;
        if let Standing::Ended(why) = standing {
            return Ok(Look::Ended(last(why)));
        }
        if Self::proof_end(caller, Some(&task)).is_some_and(|end| end <= now) {
            return Err(Refusal::Unproven("what you proved yourself with has ended"));
        }
        // What suspends the task bars its holder's proof as well, and it is to be there when that is lifted. Nothing
        // begins meanwhile, and a cut of what opened the task ends it.
        if standing == Standing::Suspended && task.held {
            return Ok(Look::Lives(Box::new(task)));
        }
        self.check_proofs(caller)?;
        // A certificate of ours holds nothing once its lease is over.
        self.own_lease(caller, now)?;
        Ok(Look::Lives(Box::new(task)))
    }

    fn own_task(&self, caller: &Caller, id: &str) -> Result<Task, Refusal> {
        let unknown = || Refusal::Unknown("task");
        let id: TaskId = id.parse().map_err(|_| Refusal::invalid("task_id", "must be 24 lower-case hex digits"))?;
        let task = self.ledger.task(id)?.ok_or_else(unknown)?;
        let workload = self.workload(caller, &task.tenant, self.now()).map_err(|refusal| {
            let foreign = matches!(refusal, Refusal::Denied(_) | Refusal::Unproven(_));
            if foreign { unknown() } else { refusal }
        })?;
        if !may_hold(&workload, &task) {
            return Err(unknown());
        }
        Self::check_client_key(caller, &task, "task")?;
        Ok(task)
    }

    fn beat_answer(&self, task: &Task) -> pb::HoldTaskResponse {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        pb::HoldTaskResponse {
            heartbeat_seconds: seconds(self.settings.heartbeat),
            grace_seconds: seconds(self.settings.hold_grace),
            deadline: Some(event::stamp(task.deadline)),
            end_reason: pb::EndReason::Unspecified.into(),
        }
    }

    /// How long a stream may be silent before its task ends.
    fn silence(&self) -> Duration {
        self.settings.heartbeat * 2 + self.settings.hold_grace
    }
}

/// What a holder's stream finds of its task.
enum Look {
    Lives(Box<Task>),
    Ended(pb::HoldTaskResponse),
    /// The store did not say.
    Unclear,
}

fn last(why: EndReason) -> pb::HoldTaskResponse {
    pb::HoldTaskResponse { end_reason: i32::from(why.code()), ..Default::default() }
}

fn may_hold(workload: &Workload, task: &Task) -> bool {
    let confined = workload.confined_to().is_none_or(|to| to == task.id || Some(to) == task.parent);
    workload.name == task.workload && confined
}

const TOO_MANY: Refusal = Refusal::Unavailable("too many tasks are held");
/// Tasks read at once after a restart.
const PAGE: usize = 512;
/// Answers that wait for a slow reader.
const ANSWERS: usize = 4;
/// Abandoned tasks ended at once.
const ENDS_AT_ONCE: usize = 256;
const IDLE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);
/// First bytes of scope ids ([`crate::model::Scope::id`]).
const TASK_KIND: u8 = 7;
const LEASE_KIND: u8 = 8;

#[cfg(test)]
mod tests;
