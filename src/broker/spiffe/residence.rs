//! What a process on this host has under one binding: its task, its certificate, its tokens.
//!
//! All its streams share them, so that a client that connects anew does not use up its grant's quota. The task is held by
//! the process itself: it goes on over broken connections and over a restart of the broker, after which the process finds
//! it again by what it is; and it ends when the process does.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    super::{Broker, refusal::Refusal, view},
    Binding, ENDED, Local, is_transient, renew_at,
    tokens::JwtSvid,
};
use crate::{
    identity::{Process, Proof},
    mint::SecretBytes,
    model::{GrantName, LeaseId, Task, TaskId, TenantNumber, Timestamp, WorkloadName, id::hex},
    pb,
};

/// An X.509-SVID with its private key.
#[derive(Debug)]
pub struct X509Svid {
    /// Its name.
    pub spiffe_id: String,
    /// The certificate first, then its issuers without the root; DER.
    pub chain_der: Vec<Vec<u8>>,
    /// The private key in PKCS#8.
    pub key: SecretBytes,
    /// Tells the caller's SVIDs apart.
    pub hint: String,
    /// Its lease.
    pub lease: LeaseId,
    /// When it is replaced.
    pub renew_at: Timestamp,
}

/// Processes that have something, and what.
#[derive(Debug, Default)]
pub(super) struct Residences(Mutex<HashMap<Place, Kept>>);

/// Where something is kept: a process may become another user, and is then another workload.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Place {
    /// The user that it was found to be; `None` for none.
    user: Option<u32>,
    /// The process's boot, number and start.
    mark: String,
    tenant: TenantNumber,
    workload: WorkloadName,
    grant: GrantName,
}

impl Place {
    fn of(local: &Local, binding: &Binding) -> Self {
        let user = match local.caller.proof() {
            Proof::Unix(proof) => Some(proof.uid),
            Proof::Certificate(_) | Proof::Federated(_) | Proof::TaskKey(_) => None,
        };
        Self {
            user,
            mark: local.process.mark(),
            tenant: binding.tenant.number,
            workload: binding.workload.clone(),
            grant: binding.name.clone(),
        }
    }
}

/// What is kept at one place, and how many ask for more of it now.
#[derive(Debug, Default)]
struct Kept {
    residence: Arc<Residence>,
    visits: usize,
}

/// What one process has under one binding. One at a time asks for more of it.
#[derive(Debug, Default)]
pub(super) struct Residence {
    state: tokio::sync::Mutex<State>,
    /// Cancelled when it is given up: nobody watches its process any more.
    given_up: CancellationToken,
}

/// Somebody who asks for more of what is kept at a place. When the last one leaves and nothing is kept, the place is free
/// again: what is refused takes no room.
#[derive(Debug)]
pub(super) struct Visit {
    broker: Arc<Broker>,
    place: Place,
    residence: Arc<Residence>,
}

impl Visit {
    pub(super) async fn state(&self) -> tokio::sync::MutexGuard<'_, State> {
        self.residence.state.lock().await
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.broker.spiffe.residences.leave(&self.place, &self.residence);
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    task: Option<TaskId>,
    x509: Option<Arc<X509Svid>>,
    /// By audiences, sorted.
    pub(super) tokens: BTreeMap<Vec<String>, Arc<JwtSvid>>,
}

impl State {
    fn is_empty(&self) -> bool {
        self.task.is_none() && self.x509.is_none() && self.tokens.is_empty()
    }
}

impl Residences {
    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Kept>> {
        // Every change under the lock is one insert, remove or count.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept at a place, counted as visited, and whether it is new there.
    ///
    /// # Errors
    /// When too much is kept, of all or of this user; when the process has ended.
    fn enter(&self, place: &Place, lives: impl FnOnce() -> bool) -> Result<(Arc<Residence>, bool), Refusal> {
        let mut all = self.lock();
        if let Some(known) = all.get_mut(place) {
            known.visits += 1;
            return Ok((Arc::clone(&known.residence), false));
        }
        if all.len() >= RESIDENCES {
            return Err(Refusal::Unavailable("too many processes have identities"));
        }
        if all.keys().filter(|known| known.user == place.user).count() >= OF_ONE_USER {
            return Err(Refusal::Unavailable("too many processes of this user have identities"));
        }
        // Under the lock: who leaves is taken out behind it.
        if !lives() {
            return Err(ENDED);
        }
        let fresh = Kept { visits: 1, ..Kept::default() };
        let residence = Arc::clone(&fresh.residence);
        all.insert(place.clone(), fresh);
        Ok((residence, true))
    }

    /// A visit is over.
    fn leave(&self, place: &Place, residence: &Arc<Residence>) {
        let mut all = self.lock();
        // Another one may be in its place by now.
        let Some(known) = all.get_mut(place).filter(|known| Arc::ptr_eq(&known.residence, residence)) else { return };
        known.visits = known.visits.saturating_sub(1);
        if known.visits == 0 && residence.state.try_lock().is_ok_and(|state| state.is_empty()) {
            all.remove(place);
            residence.given_up.cancel();
        }
    }

    /// Its process has ended.
    fn remove(&self, place: &Place, residence: &Weak<Residence>) {
        let mut all = self.lock();
        if all.get(place).is_some_and(|known| std::ptr::eq(Arc::as_ptr(&known.residence), residence.as_ptr())) {
            all.remove(place);
        }
    }
}

impl Broker {
    /// What a process has under a binding.
    ///
    /// # Errors
    /// When too many processes have something, or it has ended.
    pub(super) fn residence(self: &Arc<Self>, local: &Local, binding: &Binding) -> Result<Visit, Refusal> {
        let place = Place::of(local, binding);
        let (residence, is_new) = self.spiffe.residences.enter(&place, || local.process.lives())?;
        if is_new {
            let (broker, process) = (Arc::clone(self), local.process.clone());
            let (given_up, kept, place) = (residence.given_up.clone(), Arc::downgrade(&residence), place.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = process.ended() => {}
                    () = broker.spiffe.stop.cancelled() => {}
                    () = given_up.cancelled() => return,
                }
                broker.spiffe.residences.remove(&place, &kept);
            });
        }
        Ok(Visit { broker: Arc::clone(self), place, residence })
    }

    /// A process's certificate under a binding: the one that it has until that is to be replaced, then a new one. Where
    /// none can be made for a while, the one that it has until its end.
    ///
    /// # Errors
    /// When there is none and none can be made; when what it has was ended.
    pub(super) async fn x509_svid(
        self: &Arc<Self>,
        local: &Local,
        binding: &Binding,
    ) -> Result<Arc<X509Svid>, Refusal> {
        let residence = self.residence(local, binding)?;
        let mut state = residence.state().await;
        let now = self.now();
        let current = match state.x509.take() {
            Some(current) if self.is_live(current.lease, now)? => Some(current),
            Some(_) | None => None,
        };
        if let Some(current) = current.as_ref().filter(|current| now < current.renew_at) {
            state.x509 = Some(Arc::clone(current));
            return Ok(Arc::clone(current));
        }
        let made = match (self.new_x509_svid(local, binding, &mut state).await, current) {
            (Ok(fresh), _) => Arc::new(fresh),
            (Err(refusal), Some(current)) if is_transient(&refusal) => {
                tracing::warn!(%refusal, grant = %binding.name, "an SVID is not replaced yet");
                current
            }
            (Err(refusal), _) => return Err(refusal),
        };
        state.x509 = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn new_x509_svid(
        self: &Arc<Self>,
        local: &Local,
        binding: &Binding,
        state: &mut State,
    ) -> Result<X509Svid, Refusal> {
        let domain = self.settings.trust_domain.of_tenant(binding.tenant.trust.name());
        let request = pb::IssueRequest {
            kind: pb::CredentialKind::X509.into(),
            audiences: vec![format!("spiffe://{domain}")],
            generate_key: true,
            ..Default::default()
        };
        let (lease, renew_at, credential) = self.issue_under(local, binding, state, request).await?;
        let Some(pb::issue_response::Credential::X509(made)) = credential else { return Err(OTHER_KIND) };
        Ok(X509Svid {
            spiffe_id: made.spiffe_id,
            chain_der: made.chain_der,
            key: SecretBytes::new(made.private_key_der),
            hint: binding.hint(),
            lease,
            renew_at,
        })
    }

    /// Issues an SVID under a binding, in the process's task.
    pub(super) async fn issue_under(
        self: &Arc<Self>,
        local: &Local,
        binding: &Binding,
        state: &mut State,
        wanted: pb::IssueRequest,
    ) -> Result<(LeaseId, Timestamp, Option<pb::issue_response::Credential>), Refusal> {
        let task = self.residents_task(local, binding, state).await?;
        let request = pb::IssueRequest { task_id: task.to_string(), grant: binding.name.to_string(), ..wanted };
        let reply = self.issue_as(&local.caller, request, true).await?;
        let id: LeaseId = view::id("lease_id", &reply.lease.map(|lease| lease.lease_id).unwrap_or_default())?;
        let lease = self.ledger.lease(id)?.ok_or(Refusal::Unknown("lease"))?;
        let spread = id.as_bytes().last().copied().unwrap_or_default();
        Ok((id, renew_at(lease.issued, lease.expires, spread), reply.credential))
    }

    /// The process's task under a binding: the one that it has while that has time left, else a new one, or the one that
    /// it had before a restart of the broker.
    async fn residents_task(
        self: &Arc<Self>,
        local: &Local,
        binding: &Binding,
        state: &mut State,
    ) -> Result<TaskId, Refusal> {
        if let Some(id) = state.task
            && self.has_time(id, binding)?.is_some()
        {
            return Ok(id);
        }
        for attempt in 0..=OPENED_BEFORE {
            // A key names a task for good, also when that has ended: then the next one is asked for, at last without.
            let key = if attempt == OPENED_BEFORE { String::new() } else { self.opening_key(local, binding, attempt) };
            let request = pb::OpenTaskRequest {
                tenant: binding.tenant.trust.name().to_string(),
                partner: binding.partner.to_string(),
                purpose: binding.purpose.to_string(),
                hold: true,
                idempotency_key: key,
                ..Default::default()
            };
            let opened = self.open_task(&local.caller, request).await?;
            let id: TaskId = view::id("task_id", &opened.task.map(|task| task.task_id).unwrap_or_default())?;
            if self.has_time(id, binding)?.is_some() {
                state.task = Some(id);
                self.hold_for(local.process.clone(), id);
                return Ok(id);
            }
        }
        Err(Refusal::Unavailable("the task of this process ends at once"))
    }

    /// What a process asks for its task by: the same after a restart of the broker, another for every other process, and
    /// for the broker alone to know, so that nobody else can ask for that task.
    fn opening_key(&self, local: &Local, binding: &Binding, attempt: u8) -> String {
        let mark = local.process.mark();
        let parts = [
            mark.as_str(),
            binding.tenant.trust.name().as_str(),
            binding.workload.as_str(),
            binding.name.as_str(),
            binding.partner.as_str(),
            binding.purpose.as_str(),
        ];
        // Each part ends in a byte that none of them can hold.
        let framed: Vec<u8> = parts.iter().flat_map(|part| part.bytes().chain([0xff])).chain([attempt]).collect();
        hex(&self.rings.seal().process_key().tag(&[&framed]))
    }

    /// A task that lives, and long enough for half of an SVID's life.
    fn has_time(&self, id: TaskId, binding: &Binding) -> Result<Option<Task>, Refusal> {
        let now = self.now();
        let Some(task) = self.ledger.task(id)? else { return Ok(None) };
        let needed = Duration::from_secs(u64::from(binding.ttl)) / 2;
        let has_time = task.deadline.since(now) >= needed && self.ledger.task_standing(&task, now)?.is_live();
        Ok(has_time.then_some(task))
    }

    /// Holds a task for as long as a process lives, and then completes it.
    fn hold_for(self: &Arc<Self>, process: Process, id: TaskId) {
        let broker = Arc::clone(self);
        let held = self.hold_here(id);
        tokio::spawn(async move {
            let mut ended = pin!(process.ended());
            loop {
                let has_ended = tokio::select! {
                    () = broker.spiffe.stop.cancelled() => return,
                    () = ended.as_mut() => true,
                    () = held.due(broker.settings.heartbeat) => false,
                };
                if has_ended {
                    return broker.complete_here(&held, process.pid()).await;
                }
                if !broker.goes_on_here(&held) {
                    return;
                }
            }
        });
    }
}

const OTHER_KIND: Refusal = Refusal::Unavailable("another kind of credential was made");
/// Processes that may have something, times what each has.
const RESIDENCES: usize = 20_000;
/// Those of one user: nobody takes all places.
const OF_ONE_USER: usize = RESIDENCES / 8;
/// Tasks of one process and binding that are known by a key.
const OPENED_BEFORE: u8 = 4;

#[cfg(test)]
impl Residences {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Forgets all, as a restart does.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(user: u32, process: usize) -> Place {
        Place {
            user: Some(user),
            mark: process.to_string(),
            tenant: TenantNumber::new(1).expect("a number"),
            workload: "w".parse().expect("a name"),
            grant: "mesh".parse().expect("a name"),
        }
    }

    #[test]
    fn one_user_takes_its_share_of_places_and_leaves_the_others_theirs() {
        let all = Residences::default();
        for process in 0..OF_ONE_USER {
            assert!(all.enter(&place(1, process), || true).expect("has room").1);
        }
        assert!(matches!(all.enter(&place(1, OF_ONE_USER), || true), Err(Refusal::Unavailable(_))));
        assert!(!all.enter(&place(1, 0), || true).expect("has its place").1);
        assert!(all.enter(&place(2, 0), || true).expect("has room").1);
        assert!(all.enter(&place(3, 0), || false).is_err(), "it has ended");
    }

    #[test]
    fn a_place_where_nothing_is_kept_is_free_when_the_last_one_leaves() {
        let (all, here) = (Residences::default(), place(1, 1));
        let (first, _) = all.enter(&here, || true).expect("entered");
        let (second, is_new) = all.enter(&here, || true).expect("entered");
        assert!(!is_new && Arc::ptr_eq(&first, &second));
        all.leave(&here, &first);
        assert!(all.count() == 1 && !first.given_up.is_cancelled(), "somebody is there");
        all.leave(&here, &second);
        assert!(all.count() == 0 && first.given_up.is_cancelled());
        // Who left before does nothing to who came after.
        let (next, is_new) = all.enter(&here, || true).expect("entered");
        all.leave(&here, &first);
        all.remove(&here, &Arc::downgrade(&first));
        assert!(is_new && all.count() == 1);
        next.state.try_lock().expect("free").tokens.insert(Vec::new(), token());
        all.leave(&here, &next);
        assert_eq!(all.count(), 1, "what is kept stays");
        all.remove(&here, &Arc::downgrade(&next));
        assert_eq!(all.count(), 0);
    }

    fn token() -> Arc<JwtSvid> {
        let number = TenantNumber::new(1).expect("a number");
        let task = TaskId::fresh(number).expect("entropy");
        Arc::new(JwtSvid {
            spiffe_id: String::new(),
            token: crate::model::secret::SecretText::new(String::new()),
            hint: String::new(),
            lease: LeaseId::fresh(task).expect("entropy"),
            renew_at: Timestamp::from_seconds(0),
        })
    }
}
