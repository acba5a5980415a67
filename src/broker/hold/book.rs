//! Which tasks are held by which stream, and when each is due to be given up: no clock, no store.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;

use crate::model::{Scope, ScopeId, TaskId, TenantNumber};

/// Held tasks. Times are durations since one fixed moment.
#[derive(Debug, Default)]
pub(super) struct Book {
    tasks: HashMap<TaskId, Held>,
    due: BTreeSet<(Duration, TaskId)>,
    scopes: HashMap<ScopeId, TaskId>,
    next: u64,
    /// Tasks that are held or being opened to be held, by tenant.
    tenants: HashMap<TenantNumber, usize>,
    /// Tasks that are being opened and will be held.
    opening: usize,
}

#[derive(Debug)]
struct Held {
    due: Duration,
    stream: Option<Stream>,
}

/// One stream of a task's holder.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    number: u64,
    wake: Arc<Notify>,
}

impl Stream {
    /// Returns when the task should be looked at.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Book {
    /// Held tasks.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether one more of the tenant's fits among `most`, of which it gets half.
    pub(super) fn has_room(&self, tenant: TenantNumber, most: usize) -> bool {
        let own = self.tenants.get(&tenant).copied().unwrap_or(0);
        self.len() + self.opening < most && own < (most / 2).max(1)
    }

    /// Keeps room for one more of the tenant's among `most`, until it is given back; false when there is none.
    pub(super) fn reserve(&mut self, tenant: TenantNumber, most: usize) -> bool {
        let has_room = self.has_room(tenant, most);
        if has_room {
            self.opening += 1;
            self.count(tenant);
        }
        has_room
    }

    /// Gives back what [`Self::reserve`] kept.
    pub(super) fn give_back(&mut self, tenant: TenantNumber) {
        self.opening = self.opening.saturating_sub(1);
        self.discount(tenant);
    }

    /// Those with a stream.
    pub(super) fn streams(&self) -> usize {
        self.tasks.values().filter(|held| held.stream.is_some()).count()
    }

    /// Whether a task is held or expected to be.
    pub(super) fn knows(&self, id: TaskId) -> bool {
        self.tasks.contains_key(&id)
    }

    /// Expects a stream until `due`, unless there is one.
    pub(super) fn expect(&mut self, id: TaskId, due: Duration) {
        if !self.knows(id) {
            self.put(id, Held { due, stream: None });
        }
    }

    /// Expects none any more, unless there is one.
    pub(super) fn unexpect(&mut self, id: TaskId) {
        if self.tasks.get(&id).is_some_and(|held| held.stream.is_none()) {
            self.remove(id);
        }
    }

    /// A new stream takes a task over.
    pub(super) fn attach(&mut self, id: TaskId, due: Duration) -> Stream {
        self.next += 1;
        let stream = Stream { number: self.next, wake: Arc::default() };
        let before = self.put(id, Held { due, stream: Some(stream.clone()) });
        if let Some(stream) = before.and_then(|held| held.stream) {
            stream.wake.notify_one();
        }
        stream
    }

    /// Whether a stream is still the task's.
    pub(super) fn owns(&self, id: TaskId, stream: &Stream) -> bool {
        let current = self.tasks.get(&id).and_then(|held| held.stream.as_ref());
        current.is_some_and(|current| current.number == stream.number)
    }

    /// A stream is alive until `due`.
    pub(super) fn beat(&mut self, id: TaskId, stream: &Stream, due: Duration) {
        if self.owns(id, stream) {
            self.put(id, Held { due, stream: Some(stream.clone()) });
        }
    }

    /// A stream ended: a successor is expected until `due`.
    pub(super) fn detach(&mut self, id: TaskId, stream: &Stream, due: Duration) {
        if self.owns(id, stream) {
            self.put(id, Held { due, stream: None });
        }
    }

    /// The task of a stream has ended.
    pub(super) fn forget(&mut self, id: TaskId, stream: &Stream) {
        if self.owns(id, stream) {
            self.remove(id);
        }
    }

    /// When the next task is to be given up.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes out what is due, at most `most`, and wakes its streams.
    pub(super) fn take_due(&mut self, at: Duration, most: usize) -> Vec<TaskId> {
        let due: Vec<TaskId> =
            self.due.iter().take_while(|(due, _)| *due <= at).take(most).map(|(_, id)| *id).collect();
        for id in &due {
            if let Some(stream) = self.remove(*id).and_then(|held| held.stream) {
                stream.wake.notify_one();
            }
        }
        due
    }

    /// Wakes the stream of the task with this scope; false when none is held.
    pub(super) fn wake(&self, scope: ScopeId) -> bool {
        let held = self.scopes.get(&scope).and_then(|id| self.tasks.get(id));
        if let Some(stream) = held.and_then(|held| held.stream.as_ref()) {
            stream.wake.notify_one();
        }
        held.is_some()
    }

    /// Wakes every stream.
    pub(super) fn wake_all(&self) {
        self.tasks.values().filter_map(|held| held.stream.as_ref()).for_each(|stream| stream.wake.notify_one());
    }

    fn put(&mut self, id: TaskId, held: Held) -> Option<Held> {
        self.due.insert((held.due, id));
        self.scopes.insert(Scope::Task(id).id(), id);
        let due = held.due;
        let before = self.tasks.insert(id, held);
        if before.is_none() {
            self.count(id.tenant());
        }
        if let Some(before) = before.as_ref().filter(|before| before.due != due) {
            self.due.remove(&(before.due, id));
        }
        before
    }

    fn remove(&mut self, id: TaskId) -> Option<Held> {
        let held = self.tasks.remove(&id)?;
        self.due.remove(&(held.due, id));
        self.scopes.remove(&Scope::Task(id).id());
        self.discount(id.tenant());
        Some(held)
    }

    fn count(&mut self, tenant: TenantNumber) {
        *self.tenants.entry(tenant).or_default() += 1;
    }

    fn discount(&mut self, tenant: TenantNumber) {
        let left = self.tenants.get(&tenant).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            self.tenants.remove(&tenant);
        } else {
            self.tenants.insert(tenant, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantNumber;

    fn id() -> TaskId {
        TaskId::fresh(TenantNumber::new(1).expect("number")).expect("entropy")
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_expected_hold_is_due_at_its_time_and_not_before() {
        let (mut book, id) = (Book::default(), id());
        book.expect(id, seconds(10));
        assert_eq!(book.next_due(), Some(seconds(10)));
        assert!(book.take_due(seconds(9), 9).is_empty());
        assert_eq!(book.take_due(seconds(10), 9), [id]);
        assert!(book.take_due(seconds(99), 9).is_empty() && !book.knows(id) && book.next_due().is_none());
    }

    #[test]
    fn a_resumed_hold_lives() {
        let (mut book, id) = (Book::default(), id());
        let first = book.attach(id, seconds(16));
        book.detach(id, &first, seconds(20));
        let second = book.attach(id, seconds(30));
        assert!(book.take_due(seconds(29), 9).is_empty());
        // What the old stream says counts no more.
        book.beat(id, &first, seconds(99));
        book.detach(id, &first, seconds(0));
        book.forget(id, &first);
        assert!(book.owns(id, &second) && !book.owns(id, &first));
        book.beat(id, &second, seconds(40));
        assert!(book.take_due(seconds(39), 9).is_empty());
        assert_eq!(book.take_due(seconds(40), 9), [id]);
    }

    #[test]
    fn an_expectation_does_not_shorten_a_hold() {
        let (mut book, id) = (Book::default(), id());
        book.attach(id, seconds(16));
        book.expect(id, seconds(1));
        assert_eq!((book.next_due(), book.streams()), (Some(seconds(16)), 1));
    }

    #[test]
    fn one_tenant_gets_half_and_leaves_no_trace() {
        let tenant = |number| TenantNumber::new(number).expect("number");
        let mut book = Book::default();
        let ids: Vec<_> = (0..3).map(|_| id()).collect();
        ids.iter().for_each(|id| book.expect(*id, seconds(10)));
        assert!(book.reserve(tenant(1), 8));
        assert!(!book.reserve(tenant(1), 8), "more than half");
        assert!(book.reserve(tenant(2), 8), "another tenant");
        book.give_back(tenant(1));
        book.give_back(tenant(2));
        assert!(book.reserve(tenant(1), 8));
        book.give_back(tenant(1));
        assert_eq!(book.take_due(seconds(10), 9).len(), 3);
        assert!(book.tenants.is_empty() && book.opening == 0);
    }
}
