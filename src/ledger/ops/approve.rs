//! Leave to use grants: asked for, agreed to, used by one task, taken back.

use std::time::Duration;

use super::{apply::trust_map, end, live_task};
use crate::{
    ledger::{engine::Table, refused::Refused, tx::Tx},
    model::{
        Approval, ApprovalId, ApprovalStanding, ApprovalVote, Digest, EndReason, GrantName, OperatorName, ScopeId,
        Task, TaskId, Timestamp, approval::Closed,
    },
    pb,
};

/// A request for leave.
#[derive(Debug)]
pub struct AskDraft {
    /// The request; nobody has agreed yet.
    pub approval: Approval,
    /// Its event.
    pub event: pb::Event,
    /// When.
    pub now: Timestamp,
}

/// One person's yes.
#[derive(Debug)]
pub struct AgreeDraft {
    /// To what.
    pub id: ApprovalId,
    /// Whose.
    pub vote: ApprovalVote,
    /// What counts, by the trust map.
    pub terms: Terms,
    /// For how long it can be used once enough have agreed.
    pub valid: Duration,
    /// Its event; who has agreed so far is added.
    pub event: pb::Event,
    /// When.
    pub now: Timestamp,
}

/// An end before its time: a no, or a withdrawal. What uses it ends in the same commit.
#[derive(Debug)]
pub struct CloseDraft {
    /// Of what.
    pub id: ApprovalId,
    /// Why.
    pub why: Closed,
    /// Its event; the task that ends is added.
    pub event: pb::Event,
    /// When.
    pub now: Timestamp,
}

/// What the trust map says of the grant of an approval, at a revision.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How many must agree.
    pub needed: u32,
    /// Whose word counts now.
    pub by: Vec<OperatorName>,
    /// Hash of what the grant gives and demands.
    pub hash: Digest,
    /// Revision that this was read at: refused when the trust map has changed since.
    pub basis: u64,
}

/// A use of an approval by what is begun.
#[derive(Clone, Debug)]
pub struct ApprovalUse {
    /// Which.
    pub id: ApprovalId,
    /// The grant that is used.
    pub grant: GrantName,
    /// What counts, by the trust map.
    pub terms: Terms,
}

/// A first use that was admitted: what is to be written.
#[derive(Debug)]
pub(in crate::ledger) struct FirstUse {
    /// The approval, as the task has it that uses it now.
    approval: Approval,
    /// The task that had it, and whose place that one takes.
    instead: Option<TaskId>,
}

/// Writes a request, within the bounds on those that wait.
pub(in crate::ledger) fn ask(tx: &mut Tx<'_>, draft: &AskDraft) -> Result<(), Refused> {
    let (approval, now) = (&draft.approval, draft.now);
    if let Some(hold) = tx.shared.holds.first() {
        return Err(Refused::Held(hold.explanation()));
    }
    tx.check_basis(&scopes(approval), approval.basis)?;
    if let Some(task) = approval.task {
        live_task(tx, task, now)?;
    }
    let kept = of_tenant(tx, approval.id)?;
    check_room(&kept, approval, tx.shared.incarnation, now)?;
    tx.mark_time(now);
    tx.audit(&draft.event)?;
    put(tx, approval);
    let kept_until = approval.waits_until.after(KEPT);
    tx.expires(kept_until).approvals.extend_from_slice(approval.id.as_bytes());
    Ok(())
}

/// Whether one more request fits beside those that are kept.
///
/// # Errors
/// [`Refused::Quota`], with what is used up.
pub(in crate::ledger) fn check_room(
    kept: &[Approval],
    asked: &Approval,
    incarnation: u64,
    now: Timestamp,
) -> Result<(), Refused> {
    let own = |one: &&Approval| one.workload == asked.workload;
    let open = |one: &&Approval| one.standing(incarnation, now) == ApprovalStanding::Open;
    let bounds = [
        (kept.iter().filter(own).filter(open).count(), Approval::OPEN_PER_WORKLOAD, "workload's open approvals"),
        (kept.iter().filter(own).count(), Approval::KEPT_PER_WORKLOAD, "workload's approvals of a day"),
        (kept.iter().filter(open).count(), Approval::OPEN_PER_TENANT, "tenant's open approvals"),
        (kept.len(), Approval::KEPT_PER_TENANT, "tenant's approvals of a day"),
    ];
    match bounds.into_iter().find(|(count, most, _)| count >= most) {
        Some((_, _, whose)) => Err(Refused::Quota(whose)),
        None => Ok(()),
    }
}

/// Notes a yes; with the last that is needed it can be used.
pub(in crate::ledger) fn agree(tx: &mut Tx<'_>, draft: &AgreeDraft) -> Result<Approval, Refused> {
    let (terms, now) = (&draft.terms, draft.now);
    if let Some(hold) = tx.shared.holds.first() {
        return Err(Refused::Held(hold.explanation()));
    }
    let mut approval = fitting(tx, draft.id, terms)?;
    let standing = approval.standing(tx.shared.incarnation, now);
    if standing != ApprovalStanding::Open {
        return Err(Refused::Approval(standing));
    }
    if approval.involves(&draft.vote.operator, &draft.vote.key, draft.vote.person.as_ref()) {
        return Err(Refused::Involved);
    }
    approval.votes.push(draft.vote.clone());
    let agreed = counting(tx, &approval, terms);
    if agreed >= terms.needed {
        approval.until = Some(now.after(draft.valid));
    }
    let mut event = draft.event.clone();
    event.details.push(format!("agreed={agreed}"));
    event.details.push(format!("needed={}", terms.needed));
    event.details.extend(approval.until.map(|until| format!("until={until}")));
    tx.mark_time(now);
    tx.audit(&event)?;
    put(tx, &approval);
    Ok(approval)
}

/// Ends an approval, and the task that uses it.
pub(in crate::ledger) fn close(tx: &mut Tx<'_>, draft: &CloseDraft) -> Result<Approval, Refused> {
    let mut approval = tx.approval(draft.id)?.ok_or(Refused::Unknown)?;
    let standing = approval.standing(tx.shared.incarnation, draft.now);
    if standing.is_over() {
        return Err(Refused::Approval(standing));
    }
    approval.closed = Some((draft.why, draft.now));
    let mut event = draft.event.clone();
    event.details.extend(approval.used_by.map(|task| format!("ends_task={task}")));
    tx.mark_time(draft.now);
    tx.audit(&event)?;
    put(tx, &approval);
    if let Some(task) = approval.used_by {
        end::replaced(tx, task, EndReason::Revoked, draft.now)?;
    }
    Ok(approval)
}

/// Those of the approvals that are not over yet, closed as void; their events are written, their rows not yet.
pub(in crate::ledger) fn void(
    tx: &mut Tx<'_>,
    voided: &[(ApprovalId, pb::Event)],
    now: Timestamp,
) -> Result<Vec<Approval>, Refused> {
    let mut rows = Vec::with_capacity(voided.len());
    for (id, event) in voided {
        // One that is gone or damaged is closed already.
        let Ok(Some(mut approval)) = tx.approval(*id) else { continue };
        if approval.standing(tx.shared.incarnation, now).is_over() {
            continue;
        }
        approval.closed = Some((Closed::Void, now));
        tx.audit(event)?;
        rows.push(approval);
    }
    Ok(rows)
}

/// The first use of an approval by `task`, or `None` when it uses it already. Refuses when it is not for this, not enough
/// people's words still count, its time is over, or another task has it; `instead` is a task whose place this one takes,
/// while that lives: what was ended on purpose is not begun anew by asking again.
pub(in crate::ledger) fn admit(
    tx: &Tx<'_>,
    wanted: &ApprovalUse,
    task: &Task,
    is_new: bool,
    instead: Option<TaskId>,
    now: Timestamp,
) -> Result<Option<FirstUse>, Refused> {
    let mut approval = fitting(tx, wanted.id, &wanted.terms)?;
    let is_for = approval.tenant == task.tenant
        && approval.partner == task.partner
        && approval.workload == task.workload
        && approval.purpose == task.purpose
        && approval.grant == wanted.grant;
    if !is_for {
        return Err(Refused::Unknown);
    }
    let standing = approval.standing(tx.shared.incarnation, now);
    if !matches!(standing, ApprovalStanding::Granted | ApprovalStanding::Used) {
        return Err(Refused::Approval(standing));
    }
    if counting(tx, &approval, &wanted.terms) < wanted.terms.needed {
        return Err(Refused::Approval(ApprovalStanding::Open));
    }
    match approval.used_by {
        Some(user) if user == task.id => return Ok(None),
        Some(user) if instead != Some(user) => return Err(Refused::Approval(ApprovalStanding::Used)),
        Some(user) => drop(live_task(tx, user, now)?),
        None => {}
    }
    let meant = approval.task.map_or(is_new, |meant| meant == task.id);
    if !meant {
        return Err(Refused::Approval(ApprovalStanding::Used));
    }
    let instead = approval.used_by.replace(task.id);
    Ok(Some(FirstUse { approval, instead }))
}

/// Refuses unless a task that passed another on still has the approval which it has used: what was begun below it rests on
/// the same words as what is begun in it.
pub(in crate::ledger) fn still_used(
    tx: &Tx<'_>,
    user: TaskId,
    wanted: &ApprovalUse,
    now: Timestamp,
) -> Result<(), Refused> {
    let approval = fitting(tx, wanted.id, &wanted.terms)?;
    let standing = approval.standing(tx.shared.incarnation, now);
    if standing != ApprovalStanding::Used || approval.used_by != Some(user) {
        return Err(Refused::Approval(standing));
    }
    if counting(tx, &approval, &wanted.terms) < wanted.terms.needed {
        return Err(Refused::Approval(ApprovalStanding::Open));
    }
    Ok(())
}

/// Writes a first use. The task that had the approval before ends with all that it got: one approval, one task.
pub(in crate::ledger) fn take(tx: &mut Tx<'_>, first: &FirstUse, now: Timestamp) -> Result<(), Refused> {
    put(tx, &first.approval);
    match first.instead {
        Some(before) => end::replaced(tx, before, EndReason::Superseded, now),
        None => Ok(()),
    }
}

/// Notes in a task that it uses an approval.
pub(in crate::ledger) fn bind(task: &mut Task, id: ApprovalId) {
    if !task.approvals.contains(&id) {
        task.approvals.push(id);
    }
}

pub(in crate::ledger) fn put(tx: &mut Tx<'_>, approval: &Approval) {
    let value = tx.shared.codec.encode_approval(approval);
    tx.put(Table::Approvals, approval.id.as_bytes().to_vec(), value);
}

/// An approval whose grant still says what it did when it was asked for.
fn fitting(tx: &Tx<'_>, id: ApprovalId, terms: &Terms) -> Result<Approval, Refused> {
    if tx.scope(trust_map()).changed > terms.basis {
        return Err(Refused::Moved);
    }
    let approval = tx.approval(id)?.ok_or(Refused::Unknown)?;
    if approval.terms != terms.hash {
        return Err(Refused::Approval(ApprovalStanding::Void));
    }
    Ok(approval)
}

/// How many still agree: who is named now, by proofs that were neither cut nor barred since, people who are there and were
/// not signed out since. Each counts once, however often it is written down.
fn counting(tx: &Tx<'_>, approval: &Approval, terms: &Terms) -> u32 {
    let holds = |vote: &&ApprovalVote| {
        let cut = |scope: &ScopeId| {
            let state = tx.scope(*scope);
            state.is_barred() || state.cut > vote.basis
        };
        terms.by.contains(&vote.operator) && !vote.proofs.iter().any(cut) && tx.shared.hears(vote)
    };
    let mut voices: Vec<&ApprovalVote> = Vec::with_capacity(approval.votes.len());
    for vote in approval.votes.iter().filter(holds) {
        if !voices.iter().any(|known| known.is_same_voice(vote)) {
            voices.push(vote);
        }
    }
    u32::try_from(voices.len()).unwrap_or(u32::MAX)
}

/// All of a tenant that this commit knows. A damaged one is over.
fn of_tenant(tx: &Tx<'_>, id: ApprovalId) -> Result<Vec<Approval>, Refused> {
    let prefix = crate::ledger::keys::tenant(id.tenant());
    let end = crate::ledger::engine::prefix_end(&prefix);
    let upper = end.as_deref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    let range = (std::ops::Bound::Included(prefix.as_slice()), upper);
    let mut ids: Vec<ApprovalId> = tx
        .scan(Table::Approvals, range, Approval::KEPT_PER_TENANT)?
        .iter()
        .filter_map(|(key, _)| ApprovalId::from_bytes(key))
        .collect();
    ids.extend(tx.staged(Table::Approvals, &prefix).filter_map(ApprovalId::from_bytes));
    ids.sort_unstable();
    ids.dedup();
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        match tx.approval(id) {
            Ok(approval) => found.extend(approval),
            Err(Refused::Approval(_)) => {}
            Err(refused) => return Err(refused),
        }
    }
    Ok(found)
}

fn scopes(approval: &Approval) -> [ScopeId; 6] {
    [
        ScopeId::everything(),
        ScopeId::tenant(&approval.tenant),
        ScopeId::partner(&approval.partner),
        ScopeId::partner_in_tenant(&approval.tenant, &approval.partner),
        ScopeId::grant(&approval.tenant, &approval.grant),
        ScopeId::workload(&approval.tenant, &approval.workload),
    ]
}

/// How long a row is kept after its request could wait: as long as it can be used, and an hour.
const KEPT: Duration = Duration::from_secs(86_400 + 3_600);
