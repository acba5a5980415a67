//! A task that is held open, and completed on every way out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{CallError, Holding, Link, Renewing, backoff, credential::Credential, hold::Holder, link::Calls, renewing};
use crate::pb;

/// What a task is opened for. Words and limits are those of the contract's `OpenTaskRequest`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Work {
    /// The tenant to act in.
    pub tenant: String,
    /// The partner that acts.
    pub partner: String,
    /// Why, as the grant lists it.
    pub purpose: String,
    /// The task this one dies with; empty for none.
    pub parent_task_id: String,
    /// Seconds until it ends by itself; 0 for the grant's longest.
    pub deadline_seconds: u32,
    /// Where people see the job; empty for nowhere. See [`super::ambient_job_url`].
    pub job_url: String,
    /// What sort of work it is, for policies; empty for none.
    pub task_type: String,
    /// What it is about, for policies. Operators see them: no place for secrets.
    pub parameters: BTreeMap<String, String>,
    /// The approval that the task uses, where a grant needs one; empty for none.
    pub approval_id: String,
}

/// An open task. It is held until [`Task::complete`] or the drop, which completes it as well as it can; should this
/// process die, the hold breaks and the broker ends the task after its grace time.
#[derive(Debug)]
pub struct Task {
    /// As the broker opened it.
    pub opened: pb::Task,
    link: Arc<Link>,
    holding: watch::Receiver<Holding>,
    holder: JoinHandle<()>,
    is_completed: bool,
}

impl Task {
    /// Opens a task and begins to hold it. A broker that is away is tried until `patience` ends.
    ///
    /// # Errors
    /// When the broker refuses or cannot be reached. Should the answer be lost, the task is not held and ends by itself.
    pub async fn open(link: Arc<Link>, work: &Work, patience: Duration) -> Result<Self, CallError> {
        let request = pb::OpenTaskRequest {
            tenant: work.tenant.clone(),
            partner: work.partner.clone(),
            purpose: work.purpose.clone(),
            parent_task_id: work.parent_task_id.clone(),
            deadline_seconds: work.deadline_seconds,
            idempotency_key: idempotency_key(),
            hold: true,
            job_url: work.job_url.clone(),
            task_type: work.task_type.clone(),
            parameters: work.parameters.clone(),
            approval_id: work.approval_id.clone(),
            ..pb::OpenTaskRequest::default()
        };
        let open = |mut broker: Calls| {
            let request = request.clone();
            async move { broker.open_task(request).await }
        };
        let opened = link.call(patience, open).await?.task.ok_or(CallError::Incomplete("task"))?;
        link.go_on_with(&opened.task_id, false)?;
        let (said, holding) = watch::channel(Holding::Starting);
        let holder = Holder { link: Arc::clone(&link), task_id: opened.task_id.clone(), said };
        let holder = tokio::spawn(holder.run());
        Ok(Self { opened, link, holding, holder, is_completed: false })
    }

    /// The task's id, 24 hex digits. Not a secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.opened.task_id
    }

    /// What is known of the hold, as it changes.
    #[must_use]
    pub fn holding(&self) -> watch::Receiver<Holding> {
        self.holding.clone()
    }

    /// Returns when the hold stands or the task is over.
    pub async fn settled(&self) -> Holding {
        let mut holding = self.holding();
        let settled = |holding: &Holding| matches!(holding, Holding::Held | Holding::Over(_));
        // The sender goes only with the holder, whose last word stays readable.
        let found = holding.wait_for(settled).await.map(|found| found.clone());
        found.unwrap_or_else(|_| self.holding.borrow().clone())
    }

    /// Issues one credential that is not renewed.
    ///
    /// # Errors
    /// When the broker refuses, or cannot be reached while `patience` lasts.
    pub async fn issue(&self, wanted: &super::Wanted, patience: Duration) -> Result<Credential, CallError> {
        let key = renewing::key_for(wanted)?;
        renewing::issue(&self.link, self.id(), wanted, key.as_ref(), patience).await
    }

    /// Issues one credential that is renewed until it is dropped or the task is over. Each credential, the first
    /// included, is passed to `hand_over` before anyone else sees it.
    ///
    /// # Errors
    /// When the broker refuses, or cannot be reached while `patience` lasts, or `hand_over` fails.
    pub async fn renewing(
        &self,
        wanted: super::Wanted,
        patience: Duration,
        hand_over: impl FnMut(&Credential) -> std::io::Result<()> + Send + 'static,
    ) -> Result<Renewing, CallError> {
        Renewing::start(Arc::clone(&self.link), self.id().to_owned(), wanted, patience, hand_over).await
    }

    /// Ends the task and everything under it; false when it had ended before. A broker that is away is tried until
    /// `patience` ends: then the task ends by itself, after the grace time.
    ///
    /// # Errors
    /// When the broker could not be told.
    pub async fn complete(mut self, patience: Duration) -> Result<bool, CallError> {
        self.is_completed = true;
        let done = complete(&self.link, self.id().to_owned(), patience).await;
        self.holder.abort();
        done
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.is_completed {
            return;
        }
        self.holder.abort();
        let (link, id) = (Arc::clone(&self.link), self.id().to_owned());
        // Without a runtime the broken hold ends it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let done = timeout(ON_DROP, complete(&link, id, ON_DROP)).await;
                if !matches!(done, Ok(Ok(_))) {
                    tracing::debug!("a dropped task is left to its grace time");
                }
            });
        }
    }
}

async fn complete(link: &Link, task_id: String, patience: Duration) -> Result<bool, CallError> {
    let began = Instant::now();
    let request = pb::CompleteTaskRequest { task_id };
    let done = link.call(patience, |mut broker| {
        let request = request.clone();
        async move { broker.complete_task(request).await }
    });
    let done = done.await?.ended_now;
    tracing::debug!(milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), "completed");
    Ok(done)
}

/// One that nobody else uses: 128 bits that differ from call to call.
pub(super) fn idempotency_key() -> String {
    format!("{:016x}{:016x}", backoff::random(), backoff::random())
}

const ON_DROP: Duration = Duration::from_secs(5);
