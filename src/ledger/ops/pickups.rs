//! Credentials that wait to be picked up: once, by who has the handle, in time.

use std::ops::Bound;

use super::{
    end, lease_standing, live_task, proof_standing,
    secrets::{self, Exposed, told_of},
    spend::{self, Spend},
};
use crate::{
    ledger::{engine::Table, keys, ops::issue::Waiting, refused::Refused, tx::Tx},
    model::{Digest, EndReason, Lease, LeaseId, ScopeId, Standing, Timestamp, WorkloadName},
    pb, records,
};

/// Somebody who comes with a handle.
#[derive(Debug)]
pub struct PickupDraft {
    /// The lease that the handle names.
    pub lease: LeaseId,
    /// Hash of the handle's secret.
    pub handle: Digest,
    /// The workload of the tenant that came; `None` for somebody else.
    pub by: Option<WorkloadName>,
    /// Whether it comes without the key that who gets this has to hold.
    pub needs_key: bool,
    /// Scopes of what it proved itself through and of itself, and the revision that this was looked at.
    pub proofs: Vec<ScopeId>,
    /// The lease that it came with.
    pub parent: Option<LeaseId>,
    /// Its identity token, when that may not be used at will.
    pub spend: Option<Spend>,
    /// As `proofs`.
    pub basis: (u64, u64),
    /// The event of a pickup.
    pub taken: pb::Event,
    /// The event of one that should not happen; why is added.
    pub misused: pb::Event,
    /// When.
    pub now: Timestamp,
}

/// What became of a pickup that was not refused.
#[derive(Debug, Eq, PartialEq)]
pub enum PickedUp {
    /// The sealed credential, which is nobody else's to take.
    Taken(Vec<u8>),
    /// It was picked up before, or this is not who may: the lease is ended.
    Misused,
}

/// Has a credential wait; its lease is written by the caller.
pub(in crate::ledger) fn wait(tx: &mut Tx<'_>, lease: &Lease, waits: &Waiting, holder_until: Timestamp) {
    let until = lease.pickup_until.unwrap_or(lease.issued);
    let record = records::PickupRecord {
        handle_sha256: waits.handle.0.to_vec(),
        sealed: waits.sealed.clone(),
        until: until.millis(),
        workload: waits.workload.clone(),
        taken: 0,
        taken_by: String::new(),
        holder_until: holder_until.millis(),
    };
    tx.put_record(Table::Pickups, keys::pickup(lease.id), &record);
    tx.put_record(Table::Pickups, keys::pickup_due(until, lease.id), &records::PickupRecord::default());
    // As long as the lease could live a second one who comes is noticed.
    tx.expires(lease.expires).pickups.extend_from_slice(lease.id.as_bytes());
}

/// Hands a waiting credential out, once. A handle that is not the right one does nothing: lease ids are no secret.
pub(in crate::ledger) fn pick_up(tx: &mut Tx<'_>, draft: &PickupDraft) -> Result<PickedUp, Refused> {
    let (id, now) = (draft.lease, draft.now);
    if let Some(hold) = tx.shared.holds.first() {
        return Err(Refused::Held(hold.explanation()));
    }
    let mut record = read(tx, id)?.ok_or(Refused::Unknown)?;
    if !is_of(&record, &draft.handle) {
        return Err(Refused::Unknown);
    }
    let mut lease = tx.lease(id)?.ok_or(Refused::Unknown)?;
    let named = |by: &WorkloadName| record.workload.is_empty() || record.workload == by.as_str();
    let by = draft.by.as_ref().filter(|by| named(by));
    match by {
        Some(_) if record.taken == 0 && draft.needs_key => Err(Refused::KeyNeeded),
        Some(by) if record.taken == 0 => {
            tx.check_basis(&draft.proofs, draft.basis)?;
            if !proof_standing(tx, draft.parent, now)?.is_live() {
                return Err(Refused::LeaseEnded(EndReason::Revoked));
            }
            let spent = match &draft.spend {
                Some(spend) => spend::judge_taking(tx, spend)?.map(|record| (spend, record)),
                None => None,
            };
            match lease_standing(tx, id, now)? {
                Standing::Live => {}
                Standing::Suspended => return Err(Refused::TaskSuspended),
                Standing::Ended(why) => return Err(Refused::LeaseEnded(why)),
            }
            let task = live_task(tx, id.task(), now)?;
            tx.mark_time(now);
            tx.audit(&draft.taken)?;
            if let Some((spend, record)) = &spent {
                spend::write(tx, spend, record);
            }
            if let Some(until) = lease.pickup_until.take() {
                tx.delete(Table::Pickups, keys::pickup_due(until, id));
            }
            // From now on it ends with who took it, too.
            for scope in &draft.proofs {
                if !lease.proofs.contains(scope) {
                    lease.proofs.push(*scope);
                }
            }
            tx.put_lease(&lease);
            let other = Some(by.as_str()).filter(|by| *by != lease.workload.as_str()).unwrap_or_default();
            let holder_until = Timestamp::from_millis(record.holder_until);
            secrets::note_holder(tx, &lease, &task, other, holder_until, now)?;
            let sealed = std::mem::take(&mut record.sealed);
            (record.taken, record.taken_by) = (now.millis(), by.to_string());
            tx.put_record(Table::Pickups, keys::pickup(id), &record);
            Ok(PickedUp::Taken(sealed))
        }
        Some(_) => misused(tx, draft, lease, "second", &record.taken_by),
        None => misused(tx, draft, lease, "stranger", &record.taken_by),
    }
}

/// Two have the handle, or somebody who should not: the lease ends.
fn misused(tx: &mut Tx<'_>, draft: &PickupDraft, lease: Lease, why: &str, taken_by: &str) -> Result<PickedUp, Refused> {
    let now = draft.now;
    if let Standing::Ended(why) = lease.own_standing(now) {
        return Err(Refused::LeaseEnded(why));
    }
    let mut event = draft.misused.clone();
    event.details.push(format!("why={why}"));
    if !taken_by.is_empty() {
        event.details.push(format!("taken_by={taken_by}"));
    }
    let mut exposed = Exposed::default();
    exposed.note(&lease, EndReason::Revoked);
    tx.mark_time(now);
    tx.audit(&event)?;
    exposed.tell(tx, "its handle was misused", now)?;
    end::end_lease(tx, lease, EndReason::Revoked, now)?;
    Ok(PickedUp::Misused)
}

/// Ends some of the leases that nobody picked up in time; whether there may be more. They were dead before this.
pub(in crate::ledger) fn lapse(tx: &mut Tx<'_>, now: Timestamp) -> Result<bool, Refused> {
    if tx.shared.holds.in_doubt() {
        return Ok(false);
    }
    let lower = [keys::PICKUPS_DUE];
    let upper = now.millis().saturating_add(1).to_be_bytes();
    let upper = [&lower[..], &upper].concat();
    let rows = tx.scan(Table::Pickups, (Bound::Included(&lower), Bound::Excluded(&upper)), LAPSED_AT_ONCE)?;
    let is_full = rows.len() == LAPSED_AT_ONCE;
    for (key, _) in rows {
        if let Some((_, id)) = keys::parse_pickup_due(&key) {
            lapsed(tx, id, now)?;
        }
        tx.delete(Table::Pickups, key);
    }
    Ok(is_full)
}

fn lapsed(tx: &mut Tx<'_>, id: LeaseId, now: Timestamp) -> Result<(), Refused> {
    drop_sealed(tx, id)?;
    let lease = match tx.lease(id) {
        Ok(Some(lease)) => lease,
        // A damaged one has ended.
        Ok(None) | Err(Refused::LeaseEnded(_)) => return Ok(()),
        Err(refused) => return Err(refused),
    };
    // What ended by other means before has its event.
    if lease.ended.is_none() && lease.own_standing(now) == Standing::Ended(EndReason::NotPickedUp) {
        tx.mark_time(now);
        tx.audit(&told_of("pickup.expired", &lease, now))?;
        end::end_lease(tx, lease, EndReason::NotPickedUp, now)?;
    }
    Ok(())
}

/// Takes the sealed credential out of its row, which stays.
fn drop_sealed(tx: &mut Tx<'_>, id: LeaseId) -> Result<(), Refused> {
    if let Some(mut record) = read(tx, id)?.filter(|record| !record.sealed.is_empty()) {
        record.sealed = Vec::new();
        tx.put_record(Table::Pickups, keys::pickup(id), &record);
    }
    Ok(())
}

/// Forgets what waits for a lease that has ended. Its handle is remembered, so that whoever comes is noticed.
pub(super) fn clear(tx: &mut Tx<'_>, id: LeaseId, until: Timestamp) -> Result<(), Refused> {
    drop_sealed(tx, id)?;
    tx.delete(Table::Pickups, keys::pickup_due(until, id));
    Ok(())
}

/// Whether a row is one of this handle.
pub(in crate::ledger) fn is_of(record: &records::PickupRecord, handle: &Digest) -> bool {
    Digest::from_slice(&record.handle_sha256).is_some_and(|known| known.matches(handle))
}

/// One that cannot be read is picked up by nobody.
fn read(tx: &Tx<'_>, id: LeaseId) -> Result<Option<records::PickupRecord>, Refused> {
    let key = keys::pickup(id);
    let Some(value) = tx.get(Table::Pickups, &key)? else { return Ok(None) };
    let record = tx.shared.codec.decode(Table::Pickups, &key, &value);
    Ok(record.inspect_err(|e| tx.shared.aside.note(Table::Pickups, &key, e)).ok())
}

/// Handles that lapse in one commit.
const LAPSED_AT_ONCE: usize = 128;
