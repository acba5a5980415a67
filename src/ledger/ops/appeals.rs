//! Appeals: one row at most for a suspension, under its key, and gone with it.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use super::custody::{self, Custody};
use crate::{
    audit::time::stamp,
    ledger::{
        codec::{scope_from, scope_name},
        engine::Table,
        keys,
        refused::Refused,
        tx::Tx,
    },
    model::{Digest, Scope, ScopeId, Suspension, Timestamp, id::hex},
    pb, records,
};

/// An appeal to file.
#[derive(Debug)]
pub struct FileDraft {
    /// What is suspended.
    pub scope: Scope,
    /// For which reason.
    pub cause: Suspension,
    /// Whose that is; empty for none.
    pub tenant: String,
    /// The same.
    pub partner: String,
    /// Who appeals, as events name it.
    pub appellant: String,
    /// Why.
    pub reason: String,
    /// Its event; the appeal's id is added.
    pub event: pb::Event,
    /// Revision at which it was looked at what is suspended.
    pub basis: u64,
    /// When.
    pub now: Timestamp,
}

/// What became of an appeal that was to be filed.
#[derive(Clone, Debug, PartialEq)]
pub enum Filed {
    /// It waits now.
    New(records::AppealRecord),
    /// One waits already: this one.
    Waits(records::AppealRecord),
    /// One was refused lately; until then none is taken.
    Refused(records::AppealRecord, Timestamp),
}

/// An answer.
#[derive(Debug)]
pub struct AnswerDraft {
    /// The appeal as it was seen.
    pub seen: records::AppealRecord,
    /// Whether what it is against is lifted; who answers must be one who may.
    pub granted: bool,
    /// Who answers.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Its event.
    pub event: pb::Event,
    /// The event of the suspension's end, where it is granted.
    pub released: pb::Event,
    /// Revision at which it was looked at what is suspended.
    pub basis: u64,
    /// When.
    pub now: Timestamp,
}

/// The id of an appeal: another each time one is filed.
#[must_use]
pub fn appeal_id(record: &records::AppealRecord) -> String {
    let place = key_of(record).unwrap_or_default();
    let digest = Digest::of_parts(&[b"appeal", &place, &record.filed.to_be_bytes()]);
    hex(digest.0.get(..ID_BYTES).unwrap_or_default())
}

/// Files an appeal against a suspension that stands.
pub(in crate::ledger) fn file(tx: &mut Tx<'_>, draft: &FileDraft) -> Result<Filed, Refused> {
    let key = keys::suspension(draft.scope.id(), draft.cause);
    // A grant that was taken away meanwhile is nobody's to appeal for.
    if custody::is_changed(tx, &draft.scope, draft.basis) {
        return Err(Refused::Moved);
    }
    if !tx.scope(draft.scope.id()).held.has(draft.cause) {
        return Err(Refused::Unknown);
    }
    let against = custody::stored(tx, &draft.scope, draft.cause)?.map_or(0, |row| row.revision);
    // A damaged one keeps nobody from being heard: an appeal gives nothing.
    if let Some(filed) = stored(tx, &key)?.and_then(|known| stands_in_the_way(&known, against, draft.now)) {
        return Ok(filed);
    }
    check_room(tx, draft)?;
    let record = records::AppealRecord {
        scope: Some(scope_name(&draft.scope)),
        cause: draft.cause.code().into(),
        tenant: draft.tenant.clone(),
        partner: draft.partner.clone(),
        filed: draft.now.millis(),
        appellant: draft.appellant.clone(),
        reason: draft.reason.clone(),
        against,
        ..Default::default()
    };
    let mut event = draft.event.clone();
    event.details.push(format!("{ID}{}", appeal_id(&record)));
    tx.mark_time(draft.now);
    tx.audit(&event)?;
    tx.put_record(Table::Appeals, key, &record);
    Ok(Filed::New(record))
}

/// Answers an appeal; false when it waits no more.
pub(in crate::ledger) fn answer(tx: &mut Tx<'_>, draft: &AnswerDraft) -> Result<bool, Refused> {
    let Some(key) = key_of(&draft.seen) else { return Ok(false) };
    if stored(tx, &key)?.as_ref() != Some(&draft.seen) || draft.seen.answered > 0 {
        return Ok(false);
    }
    let (scope, cause) = named(&draft.seen).ok_or(Refused::Unknown)?;
    if draft.granted && custody::is_changed(tx, &scope, draft.basis) {
        return Err(Refused::Moved);
    }
    // What was declared anew since is another matter than the one that was appealed against.
    let stands = custody::stored(tx, &scope, cause)?.map_or(0, |row| row.revision);
    if draft.granted && draft.seen.against != stands {
        return Ok(false);
    }
    tx.mark_time(draft.now);
    tx.audit(&draft.event)?;
    if !draft.granted {
        let record = records::AppealRecord {
            answered: draft.now.millis(),
            answered_by: draft.by.clone(),
            answer: draft.reason.clone(),
            ..draft.seen.clone()
        };
        tx.put_record(Table::Appeals, key, &record);
        return Ok(true);
    }
    tx.audit(&draft.released)?;
    // Before the suspension: its end would answer it too.
    tx.delete(Table::Appeals, key);
    custody::write(tx, &Custody::Release { scope, causes: [cause].into_iter().collect() }, draft.now)?;
    Ok(true)
}

/// What it was against is over, and so is the appeal; one that waited is answered by that.
pub(in crate::ledger) fn close(tx: &mut Tx<'_>, id: ScopeId, cause: Suspension, now: Timestamp) -> Result<(), Refused> {
    end(tx, id, cause, OVER, now)
}

/// What it was against is gone from the trust map, and so is the appeal: it lets nothing go that is declared later under
/// the same name. What is suspended stays so.
pub(in crate::ledger) fn abandon(tx: &mut Tx<'_>, scope: &Scope, now: Timestamp) -> Result<(), Refused> {
    Suspension::ALL.into_iter().try_for_each(|cause| end(tx, scope.id(), cause, GONE, now))
}

fn end(tx: &mut Tx<'_>, id: ScopeId, cause: Suspension, why: &str, now: Timestamp) -> Result<(), Refused> {
    let key = keys::suspension(id, cause);
    if tx.get(Table::Appeals, &key)?.is_none() {
        return Ok(());
    }
    if let Some(record) = stored(tx, &key)?.filter(|record| record.answered == 0) {
        tx.audit(&closed(&record, cause, why, now))?;
    }
    tx.delete(Table::Appeals, key);
    Ok(())
}

fn closed(record: &records::AppealRecord, cause: Suspension, why: &str, now: Timestamp) -> pb::Event {
    let scope = record.scope.as_ref().and_then(|name| scope_from(name).ok());
    let grant = if let Some(Scope::Grant(_, grant)) = &scope { grant.to_string() } else { String::new() };
    pb::Event {
        kind: "appeal.closed".to_owned(),
        decision: "done".to_owned(),
        actor: "broker".to_owned(),
        at: Some(stamp(now)),
        tenant: record.tenant.clone(),
        partner: record.partner.clone(),
        grant,
        reason: why.to_owned(),
        details: vec![
            format!("scope={}", scope.map(|scope| scope.to_string()).unwrap_or_default()),
            format!("cause={}", cause.words()),
            format!("filed_by={}", record.appellant),
            format!("{ID}{}", appeal_id(record)),
        ],
        ..Default::default()
    }
}

/// What an appeal is against.
#[must_use]
pub fn named(record: &records::AppealRecord) -> Option<(Scope, Suspension)> {
    let scope = scope_from(record.scope.as_ref()?).ok()?;
    let cause = u8::try_from(record.cause).ok().and_then(Suspension::from_code)?;
    Some((scope, cause))
}

/// What becomes of another appeal where this one is known: it waits, or was refused lately. One against what was declared
/// before stands in nobody's way.
pub(in crate::ledger) fn stands_in_the_way(
    known: &records::AppealRecord,
    against: u64,
    now: Timestamp,
) -> Option<Filed> {
    let again = Timestamp::from_millis(known.answered).after(AGAIN);
    match (known.against == against, known.answered) {
        (true, 0) => Some(Filed::Waits(known.clone())),
        (true, _) if now < again => Some(Filed::Refused(known.clone(), again)),
        (true | false, _) => None,
    }
}

/// Whether one more fits beside those that are kept.
fn check_room(tx: &Tx<'_>, draft: &FileDraft) -> Result<(), Refused> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut kept: BTreeMap<Vec<u8>, Vec<u8>> = tx.scan(Table::Appeals, all, ROWS_MOST)?.into_iter().collect();
    // With what this very commit has done.
    let staged: Vec<Vec<u8>> = tx.staged(Table::Appeals, &[]).map(<[u8]>::to_vec).collect();
    for key in staged {
        match tx.get(Table::Appeals, &key)? {
            Some(value) => kept.insert(key, value),
            None => kept.remove(&key),
        };
    }
    kept.remove(&keys::suspension(draft.scope.id(), draft.cause));
    if kept.len() >= ROWS_MOST {
        return Err(Refused::Quota("broker's appeals"));
    }
    let read = |(key, value): (&Vec<u8>, &Vec<u8>)| tx.shared.codec.decode(Table::Appeals, key, value).ok();
    let kept: Vec<records::AppealRecord> = kept.iter().filter_map(read).collect();
    check_counts(kept.iter(), draft)
}

/// The limits of a tenant and of a caller in it.
pub(in crate::ledger) fn check_counts<'a>(
    kept: impl Iterator<Item = &'a records::AppealRecord>,
    draft: &FileDraft,
) -> Result<(), Refused> {
    let of_tenant: Vec<_> = kept.filter(|record| record.tenant == draft.tenant).collect();
    if of_tenant.len() >= TENANT_MOST {
        return Err(Refused::Quota("tenant's appeals"));
    }
    let waits = |record: &&&records::AppealRecord| record.answered == 0 && record.appellant == draft.appellant;
    if of_tenant.iter().filter(waits).count() >= APPELLANT_MOST {
        return Err(Refused::Quota("appeals that one may have waiting"));
    }
    Ok(())
}

fn stored(tx: &Tx<'_>, key: &[u8]) -> Result<Option<records::AppealRecord>, Refused> {
    let Some(value) = tx.get(Table::Appeals, key)? else { return Ok(None) };
    let read = tx.shared.codec.decode(Table::Appeals, key, &value);
    Ok(read.inspect_err(|e| tx.shared.aside.note(Table::Appeals, key, e)).ok())
}

/// The key of the suspension that an appeal is against, and so its own.
#[must_use]
pub fn key_of(record: &records::AppealRecord) -> Option<Vec<u8>> {
    named(record).map(|(scope, cause)| keys::suspension(scope.id(), cause))
}

const OVER: &str = "what it was against is lifted or over";
const GONE: &str = "the grant was taken out of the trust map";
/// The name of the detail of events that says which appeal.
pub const ID: &str = "appeal=";
/// How long after a refusal the same suspension may be appealed against again.
pub const AGAIN: Duration = Duration::from_secs(86_400);
/// Rows in all.
pub(in crate::ledger) const ROWS_MOST: usize = 4_096;
/// Rows of one tenant, and of none.
pub(in crate::ledger) const TENANT_MOST: usize = 64;
/// Appeals of one caller in one tenant that may wait.
pub(in crate::ledger) const APPELLANT_MOST: usize = 16;
const ID_BYTES: usize = 12;
