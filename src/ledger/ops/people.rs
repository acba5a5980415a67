//! People and their sign-ins: what a company's directory and its identity provider say of who administers.

use std::{collections::BTreeSet, ops::Bound};

use crate::{
    ledger::{engine::Table, keys, refused::Refused, shared::Hold, tx::Tx},
    model::{Digest, PersonId, PersonKey, Timestamp, person::folded},
    pb, records,
};

/// What is written of people at once.
#[derive(Clone, Debug, Default)]
pub struct PeopleCommit {
    /// Rows to write.
    pub puts: Vec<(PersonId, records::PersonRecord)>,
    /// Rows to remove.
    pub deletes: Vec<PersonId>,
    /// Their events.
    pub events: Vec<pb::Event>,
    /// When.
    pub now: Timestamp,
}

/// A sign-in to begin.
#[derive(Clone, Debug)]
pub struct SignInDraft {
    /// Its id, which its certificate carries.
    pub id: PersonId,
    /// What is kept of it; its incarnation is filled in here.
    pub record: records::SignInRecord,
    /// SHA-256 of what was signed of the ID token.
    pub token: Digest,
    /// SHA-256 of the public key that is certified.
    pub key: Digest,
    /// Until when the token's use is remembered.
    pub token_until: Timestamp,
    /// Its event.
    pub event: pb::Event,
    /// When.
    pub now: Timestamp,
}

/// Writes rows and events. What happened is what was asked for: nothing is refused.
pub(in crate::ledger) fn put(tx: &mut Tx<'_>, commit: &PeopleCommit) -> Result<(), Refused> {
    for event in &commit.events {
        tx.audit(event)?;
    }
    tx.mark_time(commit.now);
    for (id, record) in &commit.puts {
        forget_keys(tx, id)?;
        tx.put_record(Table::People, keys::person(id), record);
        for key in person_keys(record) {
            tx.put(Table::People, keys::person_key(id, key), Vec::new());
        }
    }
    for id in &commit.deletes {
        forget_keys(tx, id)?;
        tx.delete(Table::People, keys::person(id));
    }
    Ok(())
}

/// What a row is found by: everything that it calls the person.
#[must_use]
pub fn person_keys(record: &records::PersonRecord) -> BTreeSet<PersonKey> {
    let names = std::iter::once(&record.user_name).chain(&record.former).filter(|name| !folded(name).is_empty());
    let subjects = [&record.external_id, &record.subject].into_iter().filter(|subject| !subject.is_empty());
    let operator = Some(&record.operator).filter(|operator| !operator.is_empty());
    let names = names.map(|name| PersonKey::name(name));
    let subjects = subjects.map(|subject| PersonKey::subject(subject));
    names.chain(subjects).chain(operator.map(|operator| PersonKey::operator(operator))).collect()
}

/// Takes away what a row was found by, as of now and as of this commit.
fn forget_keys(tx: &mut Tx<'_>, id: &PersonId) -> Result<(), Refused> {
    let prefix = keys::person_keys(id);
    let end = crate::ledger::engine::prefix_end(&prefix);
    let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let rows = tx.scan(Table::People, (Bound::Included(prefix.as_slice()), upper), KEYS_MOST)?;
    let mut gone: BTreeSet<Vec<u8>> = rows.into_iter().map(|(key, _)| key).collect();
    gone.extend(tx.staged(Table::People, &prefix).map(<[u8]>::to_vec));
    gone.into_iter().for_each(|key| tx.delete(Table::People, key));
    Ok(())
}

/// More than any row is found by: it has at most 17 names, two ids and an operator, or the names of one event.
const KEYS_MOST: usize = 1_024;

/// Begins a sign-in. Its token is used up by it, in the same commit. Refused while the store is held: it may not know yet
/// who has left. Lasting operators confirm it.
pub(in crate::ledger) fn sign_in(tx: &mut Tx<'_>, draft: &SignInDraft) -> Result<(), Refused> {
    if let Some(hold) = Hold::STORE.into_iter().find(|&hold| tx.shared.holds.has(hold)) {
        return Err(Refused::Held(hold.explanation()));
    }
    check_unspent(tx, &draft.token)?;
    tx.audit(&draft.event)?;
    remember(tx, &draft.token, &draft.key.0, draft.token_until, draft.now);
    let record = records::SignInRecord { incarnation: tx.shared.incarnation, ..draft.record.clone() };
    let key = keys::sign_in(&draft.id);
    tx.expires(Timestamp::from_millis(record.expires)).sign_ins.extend_from_slice(&key);
    tx.put_record(Table::People, key, &record);
    Ok(())
}

/// Ends a sign-in; false when it had ended before.
pub(in crate::ledger) fn sign_out(
    tx: &mut Tx<'_>,
    id: &PersonId,
    event: &pb::Event,
    now: Timestamp,
) -> Result<bool, Refused> {
    let key = keys::sign_in(id);
    if tx.get(Table::People, &key)?.is_none() {
        return Ok(false);
    }
    tx.audit(event)?;
    tx.mark_time(now);
    tx.delete(Table::People, key);
    Ok(true)
}

/// Remembers what may come once; refused when it has come.
pub(in crate::ledger) fn spend_once(
    tx: &mut Tx<'_>,
    what: &Digest,
    key: &[u8],
    until: Timestamp,
    now: Timestamp,
) -> Result<(), Refused> {
    check_unspent(tx, what)?;
    remember(tx, what, key, until, now);
    Ok(())
}

/// A row that cannot be read counts as used up, too: its being there is what says so.
fn check_unspent(tx: &Tx<'_>, what: &Digest) -> Result<(), Refused> {
    match tx.get(Table::Spent, &what.0)? {
        Some(_) => Err(Refused::TokenSpent { first: None }),
        None => Ok(()),
    }
}

fn remember(tx: &mut Tx<'_>, what: &Digest, key: &[u8], until: Timestamp, now: Timestamp) {
    tx.mark_time(now);
    let uses = vec![records::SpentUse { client_key: key.to_vec(), ..Default::default() }];
    let record = records::SpentRecord { uses, expires: until.millis() };
    tx.put_record(Table::Spent, what.0.to_vec(), &record);
    tx.expires(until).spent.extend_from_slice(&what.0);
}
