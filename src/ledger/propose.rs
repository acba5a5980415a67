//! The proposals by name.

use std::sync::Arc;

use super::{
    keys::StreamId,
    lanes::Lane,
    open::{Ledger, Receipt},
    ops::{self, apply::TrustCommit, end, issue, keys::KeyCommit, people, pickups, scope, task, upkeep},
    refused::Refused,
    shared::Hold,
    tx::Tx,
};
use crate::{
    model::{Digest, PersonId, ScopeId, Task, TaskId, TenantNumber, Timestamp},
    pb,
};

/// Proposals. Each returns once it is on disk and published.
#[expect(clippy::missing_errors_doc, reason = "every one: refused, with nothing done")]
impl Ledger {
    /// Begins a lease. With [`Refused::TooFast`] its task is suspended instead, unless the lease would have opened it.
    pub async fn issue(&self, draft: impl Into<Arc<issue::IssueDraft>>) -> Result<Receipt, Refused> {
        let draft = draft.into();
        let lane = Lane::Begin(draft.lease.id.tenant());
        match self.propose(lane, move |tx| issue::run(tx, &draft)).await? {
            (issue::Issued::Begun, receipt) => Ok(receipt),
            (issue::Issued::Suspended(tripped), _) => Err(Refused::TooFast(tripped)),
        }
    }

    /// Opens a task; answers with the one that the same idempotency key opened before. With [`Refused::TooFast`] the task
    /// above it is suspended instead.
    pub async fn open_task(&self, draft: task::OpenDraft) -> Result<(TaskId, Receipt), Refused> {
        let lane = Lane::Begin(draft.task.id.tenant());
        match self.propose(lane, move |tx| task::open(tx, &draft)).await? {
            (task::Opened::Task(id), receipt) => Ok((id, receipt)),
            (task::Opened::Suspended(tripped), _) => Err(Refused::TooFast(tripped)),
        }
    }

    /// Hands a waiting credential out, or ends its lease when its handle is misused.
    pub async fn pick_up(&self, draft: pickups::PickupDraft) -> Result<(pickups::PickedUp, Receipt), Refused> {
        let lane = Lane::Begin(draft.lease.tenant());
        self.propose(lane, move |tx| pickups::pick_up(tx, &draft)).await
    }

    /// Ends some leases that nobody picked up in time; whether there may be more.
    pub async fn lapse_pickups(&self, now: Timestamp) -> Result<bool, Refused> {
        Ok(self.propose(Lane::Background, move |tx| pickups::lapse(tx, now)).await?.0)
    }

    /// Notes that a task is held by a stream.
    pub async fn hold(&self, id: TaskId, now: Timestamp) -> Result<Task, Refused> {
        Ok(self.propose(Lane::Begin(id.tenant()), move |tx| task::hold(tx, id, now)).await?.0)
    }

    /// Ends a lease; false when it had ended before.
    pub async fn end_lease(&self, end: end::EndLease) -> Result<(bool, Receipt), Refused> {
        self.propose(Lane::End, move |tx| end::lease(tx, &end)).await
    }

    /// Ends a task; false when it had ended before.
    pub async fn end_task(&self, end: end::EndTask) -> Result<(bool, Receipt), Refused> {
        self.propose(Lane::End, move |tx| end::task(tx, &end)).await
    }

    /// Ends the past of a scope.
    pub async fn cut(&self, draft: scope::CutDraft) -> Result<(scope::Revoked, Receipt), Refused> {
        self.propose(Lane::End, move |tx| scope::cut(tx, &draft)).await
    }

    /// Bars a scope; false when it was.
    pub async fn bar(&self, draft: scope::BarDraft) -> Result<(bool, Receipt), Refused> {
        self.propose(Lane::End, move |tx| scope::bar(tx, &draft)).await
    }

    /// Lifts a bar; false when there was none.
    pub async fn lift(&self, draft: scope::BarDraft) -> Result<(bool, Receipt), Refused> {
        self.propose(Lane::End, move |tx| scope::lift(tx, &draft)).await
    }

    /// Reserves numbers for new tenants and returns the first.
    pub async fn reserve_tenants(&self, count: u32) -> Result<u32, Refused> {
        Ok(self.propose(Lane::End, move |tx| ops::apply::reserve(tx, count)).await?.0)
    }

    /// Changes the trust map; `publish` runs once it is on disk, before any decision can be made at the new revision.
    pub async fn apply(
        &self,
        commit: TrustCommit,
        publish: impl Fn() + Send + Sync + 'static,
    ) -> Result<Receipt, Refused> {
        Ok(self.publishing(move |tx| ops::apply::run(tx, &commit), publish).await?.1)
    }

    /// Writes a step of a key ring; `publish` as for [`Self::apply`].
    pub async fn step_keys(
        &self,
        commit: KeyCommit,
        publish: impl Fn() + Send + Sync + 'static,
    ) -> Result<Receipt, Refused> {
        Ok(self.publishing(move |tx| ops::keys::run(tx, &commit), publish).await?.1)
    }

    /// Writes what is known of people; `publish` as for [`Self::apply`].
    pub async fn put_people(
        &self,
        commit: people::PeopleCommit,
        publish: impl Fn() + Send + Sync + 'static,
    ) -> Result<Receipt, Refused> {
        Ok(self.publishing(move |tx| people::put(tx, &commit), publish).await?.1)
    }

    /// Begins a sign-in, whose token is spent with it.
    pub async fn sign_in(&self, draft: people::SignInDraft) -> Result<Receipt, Refused> {
        Ok(self.propose(Lane::End, move |tx| people::sign_in(tx, &draft)).await?.1)
    }

    /// Ends a sign-in; false when it had ended before.
    pub async fn sign_out(&self, id: PersonId, event: pb::Event, now: Timestamp) -> Result<(bool, Receipt), Refused> {
        self.propose(Lane::End, move |tx| people::sign_out(tx, &id, &event, now)).await
    }

    /// Remembers for a while that something came which may come once; refused when it had.
    pub async fn spend_once(&self, what: Digest, until: Timestamp, now: Timestamp) -> Result<Receipt, Refused> {
        Ok(self.propose(Lane::End, move |tx| people::spend_once(tx, &what, &[], until, now)).await?.1)
    }

    /// Writes events alone, in the lane of beginnings.
    pub async fn note(&self, events: Vec<pb::Event>, now: Timestamp) -> Result<Receipt, Refused> {
        let lane = Lane::Begin(TenantNumber::BROKER);
        Ok(self.propose(lane, move |tx| ops::keys::note(tx, &events, now)).await?.1)
    }

    /// Writes events of an operator's act, in the lane of ends.
    pub async fn note_act(&self, events: Vec<pb::Event>, now: Timestamp) -> Result<Receipt, Refused> {
        Ok(self.propose(Lane::End, move |tx| ops::keys::note(tx, &events, now)).await?.1)
    }

    /// Ends the hold of a store that was restored or put back; false when there was none.
    pub async fn confirm_store(
        &self,
        incarnation: u64,
        event: pb::Event,
        now: Timestamp,
    ) -> Result<(bool, Receipt), Refused> {
        let shared = Arc::clone(&self.shared);
        let lift = move || Hold::STORE.into_iter().for_each(|hold| shared.holds.clear(hold));
        self.publishing(move |tx| super::held::confirm(tx, incarnation, &event, now), lift).await
    }

    /// Removes a page of what ended in minutes before `before`, and log rows before revision `log_kept_from`.
    pub async fn sweep(
        &self,
        before: Timestamp,
        now: Timestamp,
        log_kept_from: u64,
    ) -> Result<upkeep::SweepReport, Refused> {
        Ok(self.propose(Lane::Background, move |tx| upkeep::sweep(tx, before, now, log_kept_from)).await?.0)
    }

    /// Takes the next step of the walk behind a cut.
    pub async fn walk(
        &self,
        scope: ScopeId,
        number: u64,
        tenant: Option<TenantNumber>,
    ) -> Result<upkeep::WalkReport, Refused> {
        Ok(self.propose(Lane::Background, move |tx| upkeep::walk(tx, scope, number, tenant)).await?.0)
    }

    /// Signs where every stream stands that moved since the last time.
    pub async fn checkpoint(&self, draft: upkeep::CheckpointDraft) -> Result<Option<pb::Checkpoint>, Refused> {
        let moved = Arc::clone(&self.moved);
        Ok(self.propose(Lane::Background, move |tx| upkeep::checkpoint(tx, &draft, &moved)).await?.0)
    }

    /// Says that a stream begins behind what is older than `before`; a checkpoint and then [`Self::drop_trimmed`] must
    /// follow when something is pending.
    pub async fn trim_stream(&self, id: StreamId, before: Timestamp) -> Result<upkeep::TrimReport, Refused> {
        let moved = Arc::clone(&self.moved);
        Ok(self.propose(Lane::Background, move |tx| upkeep::trim_stream(tx, id, before, &moved)).await?.0)
    }

    /// Removes some of what lies before a stream's beginning; how many events.
    pub async fn drop_trimmed(&self, id: StreamId) -> Result<u64, Refused> {
        Ok(self.propose(Lane::Background, move |tx| upkeep::drop_trimmed(tx, id)).await?.0)
    }

    /// Notes how far a sink has acknowledged.
    pub async fn acknowledge(&self, sink: String, number: u64) -> Result<(), Refused> {
        let body = move |tx: &mut Tx<'_>| {
            upkeep::acknowledge(tx, &sink, number);
            Ok(())
        };
        self.propose(Lane::Background, body).await.map(|((), _)| ())
    }

    /// An end whose `publish` runs once it is on disk, before anyone is told. `body` may run more than once.
    async fn publishing<T: Send + 'static>(
        &self,
        mut body: impl FnMut(&mut Tx<'_>) -> Result<T, Refused> + Send + 'static,
        publish: impl Fn() + Send + Sync + 'static,
    ) -> Result<(T, Receipt), Refused> {
        let publish = Arc::new(publish);
        let whole = move |tx: &mut Tx<'_>| {
            let done = body(tx)?;
            let publish = Arc::clone(&publish);
            tx.on_publish(move || publish());
            Ok(done)
        };
        self.propose(Lane::End, whole).await
    }
}
