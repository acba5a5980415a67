//! Identity tokens that were used: a row each, written in the commit of the task that the token opened.

use super::{end, ended_or};
use crate::{
    ledger::{engine::Table, refused::Refused, tx::Tx},
    model::{Digest, EndReason, Task, TaskId, Timestamp},
    records,
};

/// The use of an identity token that may not be used at will.
#[derive(Clone, Copy, Debug)]
pub struct Spend {
    /// SHA-256 of what was signed.
    pub token: Digest,
    /// The client's key.
    pub key: Digest,
    /// How many keys may each use it for one task.
    pub keys: usize,
    /// What was asked, when it opens a task; `None` when it only goes on with one.
    pub opens: Option<Digest>,
    /// The end of the token by its own claims, skew included, and so the same for each of its uses: until then they are
    /// remembered.
    pub until: Timestamp,
}

/// What a use comes to.
pub(super) enum Use {
    /// It is the first one of its key, or one more in the task that its key has.
    Fresh(records::SpentRecord),
    /// The very request that opened this task before: its reply was lost.
    Retry(TaskId),
}

/// Judges a use. Nothing is written yet.
///
/// INVARIANT: a key has at most one task by a token. So what a token opens is one task, or one for each of its keys.
pub(super) fn judge(tx: &Tx<'_>, spend: &Spend, task: &Task) -> Result<Use, Refused> {
    let mut record = read(tx, &spend.token)?;
    // What its key has only taken something by opened no task yet.
    let taken_by = record.uses.iter().position(|one| one.client_key == spend.key.0 && one.task.is_empty());
    if let Some(own) = taken_by.and_then(|at| record.uses.get_mut(at)) {
        *own = used(spend, Some(task.id));
        return Ok(Use::Fresh(record));
    }
    let own = record.uses.iter().find(|one| one.client_key == spend.key.0);
    match (own, spend.opens) {
        (Some(own), Some(asked)) if own.request_sha256 == asked.0 => {
            let before = TaskId::from_bytes(&own.task).ok_or(Refused::TokenSpent { first: None })?;
            Ok(Use::Retry(before))
        }
        (Some(own), None) if is_within(tx, task, &own.task)? => Ok(Use::Fresh(record)),
        // One's own mistake, and no theft.
        (Some(_), _) => Err(Refused::TokenOpened),
        (None, _) => {
            add(&mut record, spend, Some(task.id))?;
            Ok(Use::Fresh(record))
        }
    }
}

/// Judges a use by which something is taken that another task has: its key opened a task with the token, or may open one
/// later, and nobody else may. `None` when there is nothing to write.
///
/// # Errors
/// [`Refused::TokenSpent`] when others have used it up.
pub(super) fn judge_taking(tx: &Tx<'_>, spend: &Spend) -> Result<Option<records::SpentRecord>, Refused> {
    let mut record = read(tx, &spend.token)?;
    if record.uses.iter().any(|one| one.client_key == spend.key.0) {
        return Ok(None);
    }
    add(&mut record, spend, None)?;
    Ok(Some(record))
}

/// Notes a use by one more key, while there is room for one.
fn add(record: &mut records::SpentRecord, spend: &Spend, task: Option<TaskId>) -> Result<(), Refused> {
    if record.uses.len() >= spend.keys {
        let first = record.uses.first().and_then(|first| TaskId::from_bytes(&first.task));
        return Err(Refused::TokenSpent { first });
    }
    record.uses.push(used(spend, task));
    record.expires = spend.until.millis();
    Ok(())
}

/// A use for a task, or for none yet.
fn used(spend: &Spend, task: Option<TaskId>) -> records::SpentUse {
    let asked = spend.opens.filter(|_| task.is_some());
    records::SpentUse {
        client_key: spend.key.0.to_vec(),
        task: task.map(|task| task.as_bytes().to_vec()).unwrap_or_default(),
        request_sha256: asked.map(|asked| asked.0.to_vec()).unwrap_or_default(),
    }
}

/// Whether a task, which may not be written yet, is one or below it.
fn is_within(tx: &Tx<'_>, task: &Task, above: &[u8]) -> Result<bool, Refused> {
    for id in task.lineage(|id| ended_or(tx.task(id))) {
        if id?.as_bytes() == above {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes a use that was judged.
pub(super) fn write(tx: &mut Tx<'_>, spend: &Spend, record: &records::SpentRecord) {
    tx.put_record(Table::Spent, spend.token.0.to_vec(), record);
    tx.expires(spend.until).spent.extend_from_slice(&spend.token.0);
}

/// Puts a new task in the place of the one that a lost reply was about: the first ends with all that it got.
pub(super) fn replace(
    tx: &mut Tx<'_>,
    spend: &Spend,
    before: TaskId,
    task: TaskId,
    now: Timestamp,
) -> Result<(), Refused> {
    let mut record = read(tx, &spend.token)?;
    for one in record.uses.iter_mut().filter(|one| one.client_key == spend.key.0) {
        one.task = task.as_bytes().to_vec();
    }
    end::replaced(tx, before, EndReason::Superseded, now)?;
    write(tx, spend, &record);
    Ok(())
}

/// A damaged row counts as used up: nobody can say by whom it was.
fn read(tx: &Tx<'_>, token: &Digest) -> Result<records::SpentRecord, Refused> {
    let Some(value) = tx.get(Table::Spent, &token.0)? else { return Ok(records::SpentRecord::default()) };
    tx.shared.codec.decode(Table::Spent, &token.0, &value).map_err(|e| {
        tx.shared.aside.note(Table::Spent, &token.0, &e);
        Refused::TokenSpent { first: None }
    })
}
