//! The trust map: rows, what changed and what ends, in one commit.

use super::{
    appeals, approve,
    custody::{self, Custody, UseRow},
    scope::{self, CutDraft},
};
use crate::{
    ledger::{book::ScopeState, engine::Table, keys, refused::Refused, tx::Tx},
    model::{ApprovalId, Digest, GrantName, Scope, ScopeId, TenantName, TenantNumber, Timestamp},
    pb, records,
};

/// A change of the trust map. Bars are never touched by it.
#[derive(Debug)]
pub struct TrustCommit {
    /// Revision that it was computed from: refused when the trust map has changed since.
    pub basis: u64,
    /// Tenants that are written.
    pub tenants: Vec<TenantChange>,
    /// The part that is no tenant's, when it changed: its bytes.
    pub global: Option<Vec<u8>>,
    /// Keys that new tenants get: row key and record.
    pub keys: Vec<(Vec<u8>, records::KeyRecord)>,
    /// Scopes whose decisions in flight must be made anew.
    pub changed: Vec<Scope>,
    /// What ends because authority was taken away.
    pub cuts: Vec<CutDraft>,
    /// Run-time facts about grants.
    pub grant_states: Vec<(TenantNumber, GrantName, records::GrantStateRecord)>,
    /// What is suspended or let go with it, each with its event.
    pub custody: Vec<(Custody, pb::Event)>,
    /// When grants that are new were added.
    pub uses: Vec<UseRow>,
    /// Approvals that no longer fit, each with its event.
    pub voided: Vec<(ApprovalId, pb::Event)>,
    /// Events, one a tenant and one of the whole.
    pub events: Vec<pb::Event>,
    /// When.
    pub now: Timestamp,
}

impl TrustCommit {
    /// One in which nothing changes yet.
    #[must_use]
    pub fn new(basis: u64, now: Timestamp) -> Self {
        Self {
            basis,
            tenants: Vec::new(),
            global: None,
            keys: Vec::new(),
            changed: Vec::new(),
            cuts: Vec::new(),
            grant_states: Vec::new(),
            custody: Vec::new(),
            uses: Vec::new(),
            voided: Vec::new(),
            events: Vec::new(),
            now,
        }
    }
}

/// One tenant's new trust map.
#[derive(Debug)]
pub struct TenantChange {
    /// Its number.
    pub number: TenantNumber,
    /// Its name.
    pub name: TenantName,
    /// Normalised trust map.
    pub trust: Vec<u8>,
    /// Its hash.
    pub hash: Digest,
    /// How often it was changed, this time included.
    pub version: u64,
    /// Whether it is removed.
    pub removed: bool,
    /// Grants that it had and has no more: nobody appeals for them.
    pub gone: Vec<GrantName>,
}

/// Reserves numbers for new tenants: the first of `count`.
pub(in crate::ledger) fn reserve(tx: &mut Tx<'_>, count: u32) -> Result<u32, Refused> {
    let first = tx.next_tenant();
    if first.checked_add(count).is_none_or(|end| end > TenantNumber::MAX) {
        return Err(Refused::Quota("tenant numbers"));
    }
    tx.set_next_tenant(first + count);
    Ok(first)
}

/// Writes a change of the trust map.
pub(in crate::ledger) fn run(tx: &mut Tx<'_>, commit: &TrustCommit) -> Result<(), Refused> {
    let map = trust_map();
    if tx.scope(map).changed > commit.basis {
        return Err(Refused::Moved);
    }
    tx.mark_time(commit.now);
    for event in commit.events.iter().chain(commit.cuts.iter().map(|cut| &cut.event)) {
        tx.audit(event)?;
    }
    let custody = custody::admit(tx, &commit.custody)?;
    let voided = approve::void(tx, &commit.voided, commit.now)?;
    for tenant in &commit.tenants {
        put_tenant(tx, tenant, commit.now);
        for grant in &tenant.gone {
            appeals::abandon(tx, &Scope::Grant(tenant.name.clone(), grant.clone()), commit.now)?;
        }
    }
    if let Some(global) = &commit.global {
        let record = records::TenantRecord { trust: global.clone(), ..Default::default() };
        tx.put_record(Table::Trust, keys::tenant(TenantNumber::BROKER), &record);
    }
    for (key, record) in &commit.keys {
        tx.put_record(Table::Keys, key.clone(), record);
    }
    for (number, grant, record) in &commit.grant_states {
        tx.put_record(Table::GrantStates, keys::grant_state(*number, grant), record);
    }
    let number = tx.number();
    for id in commit.changed.iter().map(Scope::id).chain([map]) {
        let state = tx.scope(id);
        tx.set_scope(id, ScopeState { changed: number, changed_at: commit.now, ..state });
    }
    custody.into_iter().try_for_each(|act| custody::write(tx, act, commit.now))?;
    custody::note_uses(tx, &commit.uses);
    voided.into_iter().for_each(|approval| approve::put(tx, &approval));
    commit.cuts.iter().for_each(|cut| scope::write_cut(tx, cut));
    Ok(())
}

fn put_tenant(tx: &mut Tx<'_>, tenant: &TenantChange, now: Timestamp) {
    let record = records::TenantRecord {
        name: tenant.name.to_string(),
        version: tenant.version,
        trust: tenant.trust.clone(),
        trust_hash: tenant.hash.0.to_vec(),
        removed: if tenant.removed { now.millis() } else { 0 },
    };
    tx.put_record(Table::Trust, keys::tenant(tenant.number), &record);
    tx.put(Table::Trust, keys::tenant_name(&tenant.name), tenant.number.to_bytes().to_vec());
}

/// The pseudo scope that every change of the trust map, or of what is known of a grant, changes.
pub(in crate::ledger) fn trust_map() -> ScopeId {
    Scope::SigningKey(TRUST_MAP.to_owned()).id()
}

/// The pseudo scope whose change stands for the whole trust map; no key id can be spelled so.
const TRUST_MAP: &str = "\0trust map";
