//! What a process on this host has under one binding: its task, its certificate, its tokens.
//!
//! All its streams share them, so that a client that connects anew does not use up its grant's quota. The task is held by
//! the process itself: it goes on over broken connections and over a restart of the broker, after which the process finds
//! it again by what it is; and it ends when the process does.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    super::{Broker, refusal::Refusal, view},
    Binding, ENDED, Local, is_transient, renew_at,
    tokens::JwtSvid,
};
use crate::{
    identity::Process,
    mint::SecretBytes,
    model::{GrantName, LeaseId, Task, TaskId, TenantNumber, Timestamp, id::hex},
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
pub(super) struct Residences(Mutex<HashMap<Place, Arc<Residence>>>);

/// A process's boot, number and start; and a binding's tenant and grant.
type Place = (String, TenantNumber, GrantName);

/// What one process has under one binding. One at a time asks for more of it.
#[derive(Debug, Default)]
pub(super) struct Residence(tokio::sync::Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    task: Option<TaskId>,
    x509: Option<Arc<X509Svid>>,
    /// By audiences, sorted.
    pub(super) tokens: BTreeMap<Vec<String>, Arc<JwtSvid>>,
}

impl Residence {
    pub(super) async fn state(&self) -> tokio::sync::MutexGuard<'_, State> {
        self.0.lock().await
    }
}

impl Residences {
    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Arc<Residence>>> {
        // Every change under the lock is one insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// What a process has under a binding.
    ///
    /// # Errors
    /// When too many processes have something, or it has ended.
    pub(super) fn residence(self: &Arc<Self>, local: &Local, binding: &Binding) -> Result<Arc<Residence>, Refusal> {
        let place = (local.process.mark(), binding.tenant.number, binding.name.clone());
        let mut all = self.spiffe.residences.lock();
        if let Some(known) = all.get(&place) {
            return Ok(Arc::clone(known));
        }
        if all.len() >= RESIDENCES {
            return Err(Refusal::Unavailable("too many processes have identities"));
        }
        // Under the lock: who leaves is taken out behind it.
        if !local.process.lives() {
            return Err(ENDED);
        }
        let fresh = Arc::<Residence>::default();
        all.insert(place.clone(), Arc::clone(&fresh));
        drop(all);
        let (broker, process) = (Arc::clone(self), local.process.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = process.ended() => {}
                () = broker.spiffe.stop.cancelled() => {}
            }
            broker.spiffe.residences.lock().remove(&place);
        });
        Ok(fresh)
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
