//! A credential that is replaced by a successor well before it ends.
//!
//! A successor is a lease of its own under the same task: whoever read the credential a moment ago can still use it until
//! its own end. For certificates the key stays the same, so that a successor replaces one file.

use std::{fmt, io, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Advice, Backoff, CallError, Link, Wanted,
    backoff::{random, share},
    credential::Credential,
    key::Key,
    task::idempotency_key,
};
use crate::pb;

/// A credential that renews itself until this is dropped or its task is over.
#[derive(Debug)]
pub struct Renewing {
    current: watch::Receiver<Arc<Credential>>,
    hurry: Arc<Notify>,
    worker: JoinHandle<()>,
}

/// What renews it.
struct Worker<H> {
    link: Arc<Link>,
    task_id: String,
    wanted: Wanted,
    key: Option<Key>,
    hand_over: H,
    current: watch::Sender<Arc<Credential>>,
    hurry: Arc<Notify>,
}

impl Renewing {
    pub(super) async fn start<H>(
        link: Arc<Link>,
        task_id: String,
        wanted: Wanted,
        patience: Duration,
        mut hand_over: H,
    ) -> Result<Self, CallError>
    where
        H: FnMut(&Credential) -> io::Result<()> + Send + 'static,
    {
        let key = key_for(&wanted)?;
        let first = issue(&link, &task_id, &wanted, key.as_ref(), patience).await?;
        hand_over(&first).map_err(CallError::Handover)?;
        let (sender, current) = watch::channel(Arc::new(first));
        let hurry = Arc::new(Notify::new());
        let worker = Worker { link, task_id, wanted, key, hand_over, current: sender, hurry: Arc::clone(&hurry) };
        Ok(Self { current, hurry, worker: tokio::spawn(worker.run()) })
    }

    /// The newest one, which may have ended when the broker was away for long.
    #[must_use]
    pub fn current(&self) -> Arc<Credential> {
        self.current.borrow().clone()
    }

    /// Each successor as it comes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Credential>> {
        self.current.clone()
    }

    /// One that lives: when the newest has ended, or nearly so, waits for a successor until `patience` ends.
    ///
    /// `None` when there is none by then.
    pub async fn live(&self, patience: Duration) -> Option<Arc<Credential>> {
        let mut current = self.watch();
        let lives =
            |credential: &Arc<Credential>| credential.ends() > Instant::now() + ALMOST.min(credential.life() / 10);
        if !lives(&current.borrow()) {
            self.hurry.notify_one();
        }
        let found = timeout(patience, current.wait_for(lives)).await;
        match found {
            Ok(Ok(found)) => Some(found.clone()),
            // None that lives longer will come: what is there is good until its end.
            Ok(Err(_)) | Err(_) => Some(self.current()).filter(|credential| credential.ends() > Instant::now()),
        }
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl<H: FnMut(&Credential) -> io::Result<()> + Send> Worker<H> {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut due = {
            let current = self.current.borrow();
            due(&current, random())
        };
        loop {
            let Some(at) = due else { return };
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.hurry.notified() => {}
                () = self.current.closed() => return,
            }
            due = match self.renew().await {
                Ok(at) => {
                    backoff.succeeded();
                    at
                }
                Err(error) if error.advice() == Advice::Over => return,
                Err(error) => {
                    tracing::warn!(task = %self.task_id, %error, "a credential could not be renewed; trying again");
                    Some(Instant::now() + backoff.pause())
                }
            };
        }
    }

    /// Puts a successor in its place and says when that one is due.
    async fn renew(&mut self) -> Result<Option<Instant>, CallError> {
        let next = issue(&self.link, &self.task_id, &self.wanted, self.key.as_ref(), Duration::ZERO).await?;
        (self.hand_over)(&next).map_err(CallError::Handover)?;
        let at = due(&next, random());
        self.current.send_replace(Arc::new(next));
        Ok(at)
    }
}

/// When a successor is due: between half and two thirds of a life; `None` when none could live longer.
///
/// Spread, so that credentials that were issued at one moment are not renewed at one moment, and early, so that a broker
/// may be away for a third of a life.
fn due(credential: &Credential, random: u64) -> Option<Instant> {
    if !credential.is_renewable() {
        return None;
    }
    let life = credential.life();
    let issued = credential.ends() - life;
    Some((issued + life / 2 + share(life / 6, random)).max(issued + LEAST_LIFE.min(life * 9 / 10)))
}

/// The key that is certified; tokens have none.
pub(super) fn key_for(wanted: &Wanted) -> Result<Option<Key>, CallError> {
    match wanted.kind {
        pb::CredentialKind::X509 => Key::fresh().map(Some),
        pb::CredentialKind::Unspecified
        | pb::CredentialKind::Jwt
        | pb::CredentialKind::Opaque
        | pb::CredentialKind::Secret => Ok(None),
    }
}

/// Asks for one credential under a task.
pub(super) async fn issue(
    link: &Link,
    task_id: &str,
    wanted: &Wanted,
    key: Option<&Key>,
    patience: Duration,
) -> Result<Credential, CallError> {
    let request = pb::IssueRequest { idempotency_key: idempotency_key(), ..wanted.request(task_id, key)? };
    let mut asked = Instant::now();
    let reply = link.call(patience, |mut broker| {
        asked = Instant::now();
        let request = request.clone();
        async move { broker.issue(request).await }
    });
    let reply = reply.await?;
    Credential::of(reply, key, asked)
}

impl<H> fmt::Debug for Worker<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("task", &self.task_id).finish_non_exhaustive()
    }
}

/// Nobody renews more often than this, unless a life is shorter.
const LEAST_LIFE: Duration = Duration::from_secs(1);
/// What ends so soon is not handed to anybody who asks for one that lives.
const ALMOST: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::workload::credential::tests::token;

    fn credential(seconds: i64, bound: pb::Bound) -> Credential {
        Credential::of(token("t", seconds, bound), None, Instant::now()).expect("whole")
    }

    proptest! {
        #[test]
        fn a_successor_is_due_in_the_middle_of_a_life(seconds in 1_i64..86_400, random: u64) {
            let credential = credential(seconds, pb::Bound::Requested);
            let issued = credential.ends() - credential.life();
            let after = due(&credential, random).expect("renewable") - issued;
            prop_assert!(after >= credential.life() / 2 && after < credential.life());
            prop_assert!(seconds < 3 || after <= credential.life() * 2 / 3 + Duration::from_micros(1));
        }
    }

    #[test]
    fn what_ends_with_its_task_has_no_successor() {
        assert!(due(&credential(60, pb::Bound::TaskDeadline), 0).is_none());
        assert!(due(&credential(60, pb::Bound::GrantExpiry), 0).is_none());
        assert!(due(&credential(60, pb::Bound::CallerProof), 0).is_some());
    }

    #[test]
    fn a_crowd_does_not_renew_at_one_moment() {
        let credential = credential(600, pb::Bound::Requested);
        let first = due(&credential, random());
        assert!((0..20).any(|_| due(&credential, random()) != first));
    }
}
