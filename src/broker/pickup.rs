//! One-time pickup: a credential that waits for who comes with its handle, and is handed out once.

use prost::Message as _;
use zeroize::Zeroizing;

use super::{
    Broker, event,
    federate::spend,
    fresh::{Credential, Fresh},
    refusal::Refusal,
    rings::Ring,
    view,
    who::Workload,
    wish::{PickupWish, within},
};
use crate::{
    identity::Caller,
    ledger::{PickedUp, PickupDraft, Refused, Waiting},
    mint::handle::Handle,
    model::{Lease, LeaseId, ScopeId, SecretVersion, Standing, Timestamp},
    pb,
    policy::{Denied, Origin},
};

impl Broker {
    /// Seals what was minted under a new handle, and puts the handle in its place. Nothing that is kept opens it.
    pub(super) fn set_aside(
        &self,
        fresh: &mut Fresh,
        lease: &mut Lease,
        wished: &PickupWish,
        ring: &Ring,
        now: Timestamp,
    ) -> Result<Waiting, Refusal> {
        let handle = Handle::fresh(lease.id)?;
        let until = now.after(wished.ttl).min(lease.expires);
        let waits = Credential::Waits { handle: handle.text(), until };
        let credential = std::mem::replace(&mut fresh.credential, waits).encoded();
        let reply = pb::IssueResponse { lease: None, credential: Some(credential), bound: fresh.bound.code() };
        let plain = Zeroizing::new(reply.encode_to_vec());
        let sealed = handle.seal(&plain).map_err(Refusal::fault)?;
        // And once more by a key of the tenant's for this one: a handle that is found later opens nothing in an old copy of the store.
        let sealed = ring.wrapping()?.for_one(&location(lease.id)).seal(&sealed).map_err(Refusal::fault)?;
        lease.pickup_until = Some(until);
        let workload = wished.by.as_ref().map(ToString::to_string).unwrap_or_default();
        Ok(Waiting { handle: handle.sha256(), sealed, workload })
    }

    /// Hands the credential behind a handle out, once. Whoever comes second, or may not, ends it and raises an alarm.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] for what is no handle of ours, [`Refusal::PickedUp`] when it was misused, or the lease is over.
    pub async fn pick_up(&self, caller: &Caller, request: pb::PickupRequest) -> Result<pb::IssueResponse, Refusal> {
        let text = Zeroizing::new(request.handle);
        let handle = Handle::parse(&text).map_err(|_| Refusal::Unknown("handle"))?;
        let now = self.now();
        let basis = self.ledger.basis();
        let lease = self.ledger.lease(handle.lease())?.ok_or(Refusal::Unknown("handle"))?;
        if !self.ledger.is_handle(lease.id, &handle.sha256())? {
            return Err(Refusal::Unknown("handle"));
        }
        let workload = match self.workload(caller, &lease.tenant, now) {
            Ok(workload) => Some(workload),
            Err(Refusal::Denied(Denied::UnknownWorkload | Denied::AmbiguousWorkload)) => None,
            Err(other) => return Err(other),
        };
        // Who is confined to a task takes what is in that task.
        let workload = workload.filter(|workload| within(workload, lease.id.task(), "handle").is_ok());
        let draft = pickup_draft(caller, workload.as_ref(), &lease, &handle, basis, now);
        let (outcome, _) = match self.ledger.pick_up(draft).await {
            Ok(done) => done,
            Err(Refused::Unknown) => return Err(Refusal::Unknown("handle")),
            Err(Refused::KeyNeeded) => {
                let why = Denied::BindingRequired(lease.grant.clone()).into();
                self.refused(caller, workload.as_ref(), &lease.tenant, "lease.refused", &why, now);
                return Err(why);
            }
            Err(refused) => {
                return Err(match &workload {
                    Some(workload) => self.ledger_refused(caller, workload, refused, now).await,
                    None => refused.into(),
                });
            }
        };
        let sealed = match (outcome, workload) {
            (PickedUp::Taken(sealed), Some(_)) => sealed,
            (PickedUp::Misused, Some(_)) => return Err(Refusal::PickedUp),
            // Who has nothing to do with the tenant learns nothing.
            (PickedUp::Misused | PickedUp::Taken(_), None) => return Err(Refusal::Unknown("handle")),
        };
        let ring = self.rings.ring(&self.ledger, lease.id.tenant())?;
        let (wrapping, at) = (ring.wrapping()?, location(lease.id));
        // What an earlier version had wait is sealed by the tenant's key itself.
        let opened = wrapping.for_one(&at).open(&sealed).or_else(|_| wrapping.open(&at, &sealed));
        let sealed = opened.map_err(Refusal::fault)?;
        let plain = handle.open(sealed.expose()).map_err(Refusal::fault)?;
        let mut reply = pb::IssueResponse::decode(plain.expose()).map_err(Refusal::fault)?;
        reply.lease = Some(view::lease(&Lease { pickup_until: None, ..lease }, Standing::Live));
        Ok(reply)
    }

    /// Ends leases that nobody picked up in time, for the record: they were dead before.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn lapse_pickups(&self) -> Result<(), Refused> {
        while self.ledger.lapse_pickups(self.now()).await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

fn pickup_draft(
    caller: &Caller,
    workload: Option<&Workload>,
    lease: &Lease,
    handle: &Handle,
    basis: (u64, u64),
    now: Timestamp,
) -> PickupDraft {
    let actor = workload.map_or_else(|| "unknown".to_owned(), Workload::actor);
    let event = |kind| {
        let mut event = event::by(caller, actor.clone(), kind, now);
        event::of_lease(&mut event, lease);
        event
    };
    PickupDraft {
        lease: lease.id,
        handle: handle.sha256(),
        by: workload.map(|workload| workload.name.clone()),
        needs_key: workload.is_some_and(|workload| lacks_key(caller, workload, lease)),
        proofs: workload.map(|workload| inherited(workload, lease)).unwrap_or_default(),
        parent: workload.and_then(|workload| workload.lease.as_ref()).map(|lease| lease.id),
        spend: workload.and_then(|_| spend(caller, || None)),
        basis,
        taken: event("pickup.taken"),
        misused: event("pickup.misused"),
        now,
    }
}

/// What a credential inherits from who takes it: it ends with what that one proved itself through, and with that one.
fn inherited(workload: &Workload, lease: &Lease) -> Vec<ScopeId> {
    let own = ScopeId::workload(&lease.tenant, &workload.name);
    workload.proofs.iter().copied().chain([own]).collect()
}

/// Whether what waits goes to nobody without a certificate who is not on this host, and this is such a one.
fn lacks_key(caller: &Caller, workload: &Workload, lease: &Lease) -> bool {
    let asks = |secret: &SecretVersion| workload.tenant.trust.asks_for_a_key(&secret.name);
    let is_free = caller.shown_certificate().is_some() || Origin::of(caller) == Origin::Local;
    !is_free && lease.secret.as_deref().is_some_and(asks)
}

/// Where a waiting credential is sealed for.
fn location(lease: LeaseId) -> Vec<u8> {
    [&b"pickup\0"[..], lease.as_bytes()].concat()
}
