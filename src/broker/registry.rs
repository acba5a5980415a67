//! The trust map in memory: a tenant at a time, loaded when it is first asked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use arc_swap::ArcSwap;

use super::{
    lastuse::{LastUse, Uses},
    refusal::Refusal,
};
use crate::{
    ledger::{Ledger, Refused},
    model::{Digest, GrantName, TenantName, TenantNumber, Timestamp},
    policy::{CompiledPolicies, GlobalTrust, Grant, TenantTrust},
    records,
};

/// One tenant as the broker sees it.
#[derive(Debug)]
pub struct Tenant {
    /// Its number.
    pub number: TenantNumber,
    /// Its part of the trust map.
    pub trust: TenantTrust,
    /// The hash of that part.
    pub hash: Digest,
    /// How often it was changed.
    pub version: u64,
    /// Attestations made at run time: they replace the trust map's dates. A damaged one counts as long past.
    pub attested: HashMap<GrantName, Timestamp>,
    /// What is known of grants at run time, as it is stored.
    pub life: HashMap<GrantName, records::GrantStateRecord>,
    /// When its grants were used last.
    pub uses: HashMap<GrantName, Arc<LastUse>>,
}

impl Tenant {
    /// Who answers for a grant: the one it was transferred to, or the one the trust map names.
    #[must_use]
    pub fn owner<'a>(&'a self, name: &GrantName, grant: &'a Grant) -> &'a str {
        self.new_owner(name).unwrap_or(&grant.owner)
    }

    /// Whom a grant was transferred to.
    #[must_use]
    pub fn new_owner(&self, name: &GrantName) -> Option<&str> {
        self.life.get(name).map(|life| life.owner.as_str()).filter(|owner| !owner.is_empty())
    }

    /// When a grant must be attested next.
    #[must_use]
    pub fn attest_by(&self, name: &GrantName, grant: &Grant) -> Timestamp {
        self.attested.get(name).copied().unwrap_or(grant.attest_by)
    }

    /// When a grant becomes dormant unless it is used or attested before; `None` where that has no rule, or it is not
    /// known since when the grant is there.
    #[must_use]
    pub fn dormant_at(&self, name: &GrantName) -> Option<Timestamp> {
        let after = std::time::Duration::from_secs(self.trust.dormant_after()?.into());
        let attested = self.life.get(name).map_or(0, |life| life.attested);
        let (since, used) = self.uses.get(name).map(|known| (known.since(), known.at())).unwrap_or_default();
        let latest = since.max(used).max(Timestamp::from_millis(attested));
        (latest > Timestamp::default()).then(|| latest.after(after))
    }

    /// Notes that a grant was used.
    pub fn note_use(&self, name: &GrantName, now: Timestamp) {
        if let Some(known) = self.uses.get(name) {
            known.note(now);
        }
    }
}

/// The trust map in memory.
///
/// Tenants are read from the ledger when first asked for. An apply puts a new epoch on what it changes before its
/// revision is published, so that a tenant read while it was being changed is never kept.
#[derive(Debug)]
pub struct Registry {
    names: RwLock<BTreeMap<TenantName, TenantNumber>>,
    tenants: RwLock<HashMap<TenantNumber, Slot>>,
    uses: Uses,
    global: ArcSwap<GlobalTrust>,
    /// What was compiled of policies: of each tenant that has any, and of the guardrails (the broker's number). So that a
    /// trust map that was read again is not compiled again, and none on the thread of a request.
    /// With the version of the trust map that each is of.
    compiled: Mutex<HashMap<TenantNumber, (u64, CompiledPolicies)>>,
}

#[derive(Debug, Default)]
struct Slot {
    epoch: u64,
    tenant: Option<Arc<Tenant>>,
}

impl Registry {
    /// Reads names and the global part.
    ///
    /// # Errors
    /// When the store failed. A damaged global part leaves no operator and no partner: recover one on the host.
    pub fn load(ledger: &Ledger) -> Result<Self, Refused> {
        let names = ledger.tenant_names()?;
        let names = names.into_iter().filter_map(|(name, number)| Some((name.parse().ok()?, number))).collect();
        let registry = Self {
            names: RwLock::new(names),
            tenants: RwLock::default(),
            uses: Uses::default(),
            global: ArcSwap::default(),
            compiled: Mutex::default(),
        };
        registry.reload_global(ledger);
        // Nobody waits yet.
        let global = registry.global();
        global.compile();
        registry.keep_compiled(TenantNumber::BROKER, 0, global.compiled());
        Ok(registry)
    }

    /// The part that is no tenant's.
    #[must_use]
    pub fn global(&self) -> Arc<GlobalTrust> {
        self.global.load_full()
    }

    /// Keeps what was compiled of a tenant's policies at a version of its trust map, for when they are read again; false where
    /// a later version's are kept, for compiling takes its time. Guardrails have no versions: they come in the order of
    /// their commits.
    pub fn keep_compiled(&self, number: TenantNumber, version: u64, compiled: CompiledPolicies) -> bool {
        let mut kept = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newest = kept.get(&number).is_none_or(|(known, _)| *known <= version);
        if is_newest {
            kept.insert(number, (version, compiled));
        }
        is_newest
    }

    fn compiled(&self, number: TenantNumber) -> Option<CompiledPolicies> {
        let kept = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&number).map(|(_, compiled)| compiled.clone())
    }

    /// Reads the global part again.
    pub fn reload_global(&self, ledger: &Ledger) {
        let stored = ledger.trust(TenantNumber::BROKER);
        let mut global = match stored.map(|row| row.map(|row| GlobalTrust::from_bytes(&row.trust))) {
            Ok(Some(Ok(global))) => global,
            Ok(None) => GlobalTrust::default(),
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "the global part of the trust map is unreadable; nobody may administer");
                GlobalTrust::unreadable()
            }
            Err(error) => {
                tracing::error!(%error, "the global part of the trust map is unreadable; nobody may administer");
                GlobalTrust::unreadable()
            }
        };
        if global.guardrails.is_some()
            && let Some(compiled) = self.compiled(TenantNumber::BROKER)
        {
            global.adopt(&compiled);
        }
        self.global.store(Arc::new(global));
    }

    /// A tenant's number, also of removed ones.
    #[must_use]
    pub fn number(&self, name: &TenantName) -> Option<TenantNumber> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// A tenant's name by its number.
    #[must_use]
    pub fn name(&self, number: TenantNumber) -> Option<TenantName> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.iter().find(|(_, n)| **n == number).map(|(name, _)| name.clone())
    }

    /// Names after `after` that start with `prefix`, removed ones among them.
    #[must_use]
    pub fn names(&self, prefix: &str, after: Option<&TenantName>, limit: usize) -> Vec<(TenantName, TenantNumber)> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let lower = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = names.range((lower, std::ops::Bound::Unbounded));
        range
            .filter(|(name, _)| name.as_str().starts_with(prefix))
            .take(limit)
            .map(|(name, number)| (name.clone(), *number))
            .collect()
    }

    /// A tenant. `Ok(None)`: there is none, or it was removed.
    ///
    /// # Errors
    /// When the store failed or the tenant's row is damaged: then it is closed.
    pub fn tenant(&self, ledger: &Ledger, name: &TenantName) -> Result<Option<Arc<Tenant>>, Refusal> {
        match self.number(name) {
            Some(number) => self.by_number(ledger, number),
            None => Ok(None),
        }
    }

    /// A tenant by its number.
    ///
    /// # Errors
    /// As [`Self::tenant`].
    pub fn by_number(&self, ledger: &Ledger, number: TenantNumber) -> Result<Option<Arc<Tenant>>, Refusal> {
        let epoch = {
            let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
            let slot = tenants.get(&number);
            if let Some(tenant) = slot.and_then(|slot| slot.tenant.clone()) {
                return Ok(Some(tenant));
            }
            slot.map_or(0, |slot| slot.epoch)
        };
        let Some(tenant) = self.read(ledger, number)? else { return Ok(None) };
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let slot = tenants.entry(number).or_default();
        if slot.epoch == epoch {
            slot.tenant = Some(Arc::clone(&tenant));
        }
        Ok(Some(tenant))
    }

    /// A tenant as it is now, without keeping it in memory: for what looks at all of them.
    ///
    /// # Errors
    /// As [`Self::tenant`].
    pub fn peek(&self, ledger: &Ledger, number: TenantNumber) -> Result<Option<Arc<Tenant>>, Refusal> {
        let kept = {
            let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
            tenants.get(&number).and_then(|slot| slot.tenant.clone())
        };
        match kept {
            Some(tenant) => Ok(Some(tenant)),
            None => self.read(ledger, number),
        }
    }

    /// As [`Self::peek`], for what concerns all tenants: one that is damaged is logged and left out. It is closed anyhow, and
    /// must not keep the others from being seen to.
    ///
    /// # Errors
    /// When the store failed.
    pub fn peek_sound(&self, ledger: &Ledger, number: TenantNumber) -> Result<Option<Arc<Tenant>>, Refusal> {
        match self.peek(ledger, number) {
            Err(refusal) if refusal.is_fault() || ledger.is_trust_damaged(number) => {
                tracing::error!(
                    tenant = number.get(),
                    "a tenant's part of the trust map is unreadable; it is left out"
                );
                Ok(None)
            }
            found => found,
        }
    }

    /// How often a tenant was changed since the start: another number, another trust map or attestation.
    #[must_use]
    pub fn epoch(&self, number: TenantNumber) -> u64 {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.get(&number).map_or(0, |slot| slot.epoch)
    }

    /// When grants were used last.
    #[must_use]
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Forgets what is known of some tenants: their rows have changed.
    pub fn changed(&self, tenants: &[(TenantName, TenantNumber)]) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let mut slots = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        for (name, number) in tenants {
            names.insert(name.clone(), *number);
            let slot = slots.entry(*number).or_default();
            slot.epoch += 1;
            slot.tenant = None;
        }
    }

    fn read(&self, ledger: &Ledger, number: TenantNumber) -> Result<Option<Arc<Tenant>>, Refusal> {
        read(ledger, number, &self.uses, self.compiled(number).as_ref())
    }
}

fn read(
    ledger: &Ledger,
    number: TenantNumber,
    uses: &Uses,
    compiled: Option<&CompiledPolicies>,
) -> Result<Option<Arc<Tenant>>, Refusal> {
    let Some(row) = ledger.trust(number)? else { return Ok(None) };
    if row.removed > 0 {
        return Ok(None);
    }
    let mut trust = TenantTrust::from_bytes(&row.trust).map_err(Refusal::fault)?;
    if let Some(compiled) = compiled.filter(|_| trust.policy().is_some()) {
        trust.adopt(compiled);
    }
    let (mut attested, mut life) = (HashMap::new(), HashMap::new());
    for (grant, state) in ledger.grant_states(number)? {
        let Ok(grant) = grant.parse::<GrantName>() else { continue };
        // A damaged one counts as long past.
        if state.as_ref().map_or(true, |record| record.attest_by > 0) {
            let attest_by = state.as_ref().map_or(Timestamp::default(), |r| Timestamp::from_millis(r.attest_by));
            attested.insert(grant.clone(), attest_by);
        }
        life.insert(grant, state.unwrap_or_default());
    }
    let uses = uses.of(number, &trust, ledger.grant_uses(number)?);
    let hash = trust.hash();
    Ok(Some(Arc::new(Tenant { number, hash, trust, version: row.version, attested, life, uses })))
}
