//! What streams are told: everything at once, and again in full whenever it changes.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::sleep,
};

use super::{
    super::{Broker, refusal::Refusal},
    Binding, ENDED, Local, NOBODY, TrustBundle, X509Svid, is_transient,
};
use crate::{
    ledger::Published,
    model::{ScopeId, Timestamp},
};

/// Every X.509-SVID of a process, the default one first, each with what its peers are checked with.
#[derive(Clone, Debug)]
pub struct Update(pub Vec<(Arc<X509Svid>, Arc<TrustBundle>)>);

impl PartialEq for Update {
    fn eq(&self, other: &Self) -> bool {
        let marks = |update: &Self| -> Vec<_> {
            update.0.iter().map(|(svid, bundle)| (svid.lease, bundle.roots_der.clone())).collect()
        };
        marks(self) == marks(other)
    }
}

/// What was found, and for how long that may be believed.
#[derive(Debug)]
pub(super) struct Seen<U> {
    pub(super) told: U,
    /// When something is to be replaced.
    until: Option<Timestamp>,
    /// Tasks and leases whose end changes it.
    scopes: Vec<ScopeId>,
}

/// What a stream gets.
type Told<U> = mpsc::Receiver<Result<U, Refusal>>;

impl Broker {
    /// Every X.509-SVID of a process, now.
    ///
    /// # Errors
    /// When it has none.
    pub async fn x509_now(self: &Arc<Self>, local: &Local) -> Result<Update, Refusal> {
        Ok(self.see_x509(local).await?.told)
    }

    /// Every X.509-SVID of a process, and again ahead of the end of each, when a bundle changes, and when one is ended.
    ///
    /// # Errors
    /// When it has none.
    pub async fn follow_x509(self: &Arc<Self>, local: Local) -> Result<Told<Update>, Refusal> {
        let look = |broker: Arc<Self>, local: Local| async move { broker.see_x509(&local).await };
        self.follow(local, look).await
    }

    /// The bundles of a process's trust domains, and again when one changes; `part` is what of them is of interest.
    ///
    /// # Errors
    /// When it has no identity.
    pub async fn follow_bundles<P>(
        self: &Arc<Self>,
        local: Local,
        part: fn(&TrustBundle) -> P,
    ) -> Result<Told<Vec<(String, P)>>, Refusal>
    where
        P: Clone + PartialEq + Send + 'static,
    {
        let look = move |broker: Arc<Self>, local: Local| async move {
            let bindings = broker.identities_of(&local, broker.now())?;
            let bundles = broker.bundles_of(&bindings)?;
            let told = bundles.iter().map(|bundle| (bundle.id.clone(), part(bundle))).collect();
            Ok(Seen { told, until: None, scopes: Vec::new() })
        };
        self.follow(local, look).await
    }

    /// The bundles of the tenants of some bindings, in their order.
    pub(super) fn bundles_of(&self, bindings: &[Binding]) -> Result<Vec<Arc<TrustBundle>>, Refusal> {
        let mut found: Vec<Arc<TrustBundle>> = Vec::new();
        for binding in bindings {
            let bundle = self.trust_bundle(&binding.tenant)?;
            if !found.iter().any(|known| known.id == bundle.id) {
                found.push(bundle);
            }
        }
        Ok(found)
    }

    async fn see_x509(self: &Arc<Self>, local: &Local) -> Result<Seen<Update>, Refusal> {
        let mut told = Vec::new();
        let mut why = NOBODY;
        for binding in self.identities_of(local, self.now())?.iter().filter(|binding| binding.has_x509) {
            match self.x509_svid(local, binding).await {
                Ok(svid) => told.push((svid, self.trust_bundle(&binding.tenant)?)),
                // One that is refused is no reason to withhold the others.
                Err(refusal) => {
                    tracing::debug!(%refusal, grant = %binding.name, "an identity is not served");
                    why = refusal;
                }
            }
        }
        if told.is_empty() {
            return Err(why);
        }
        let until = told.iter().map(|(svid, _)| svid.renew_at).min();
        let scopes = told.iter().flat_map(|(svid, _)| [ScopeId::task(svid.lease.task()), ScopeId::lease(svid.lease)]);
        let scopes = scopes.collect();
        Ok(Seen { told: Update(told), until, scopes })
    }

    async fn follow<U, F>(
        self: &Arc<Self>,
        local: Local,
        look: impl Fn(Arc<Self>, Local) -> F + Send + 'static,
    ) -> Result<Told<U>, Refusal>
    where
        U: Clone + PartialEq + Send + 'static,
        F: Future<Output = Result<Seen<U>, Refusal>> + Send,
    {
        // Before anything is looked at, so that nothing falls between.
        let mut feed = self.ledger.subscribe();
        let mut seen = look(Arc::clone(self), local.clone()).await?;
        let (to, told) = mpsc::channel(BUFFER);
        // There is room for the first.
        let _sent = to.try_send(Ok(seen.told.clone()));
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            let process = local.process.clone();
            let mut ended = pin!(process.ended());
            loop {
                let wait = seen.until.map_or(LOOK, |until| until.since(broker.now())).clamp(LEAST, LOOK);
                tokio::select! {
                    () = to.closed() => return,
                    () = broker.spiffe.stop.cancelled() => return,
                    () = ended.as_mut() => {
                        let _gone = to.send(Err(ENDED)).await;
                        return;
                    }
                    () = sleep(wait) => {}
                    published = feed.recv() => match published {
                        Ok(published) if !concerns(&published, &seen.scopes) => continue,
                        Ok(_) | Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    }
                }
                match look(Arc::clone(&broker), local.clone()).await {
                    Ok(fresh) => {
                        let is_news = fresh.told != seen.told;
                        seen = fresh;
                        if is_news && to.send(Ok(seen.told.clone())).await.is_err() {
                            return;
                        }
                    }
                    // What was told stays true until its end; it is looked at again soon.
                    Err(refusal) if is_transient(&refusal) => {
                        tracing::debug!(%refusal, "identities are not looked at for now");
                    }
                    Err(refusal) => {
                        let _gone = to.send(Err(refusal)).await;
                        return;
                    }
                }
            }
        });
        Ok(told)
    }
}

/// Whether a commit may change what is served: other tasks and leases end all the time.
fn concerns(published: &Published, scopes: &[ScopeId]) -> bool {
    published.feed.iter().any(|record| match ScopeId::from_slice(&record.scope_id) {
        Some(scope) => !scope.is_of_one_task() || scopes.contains(&scope),
        None => true,
    })
}

/// Updates that a slow reader may leave unread before the stream waits for it.
const BUFFER: usize = 2;
/// How often it is looked whether something changed that no commit tells: keys that come and go, a grant that expires.
const LOOK: Duration = Duration::from_secs(5);
/// And how seldom at least, where something is due and cannot be done.
const LEAST: Duration = Duration::from_millis(500);
