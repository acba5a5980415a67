//! Appeals: those concerned ask that a suspension be lifted, and are answered, in the audit.
//!
//! An appeal gives nothing. It is heard by who may lift, and what lifts is what always does: an admin's word for what was
//! suspended for its speed or for a time, an attestation or a new owner for a grant.

use super::{
    Broker, decided::decided, event, page, refusal::Refusal, revoke::check_reason, task::revision, view, who::Operator,
    wish::within,
};
use crate::{
    identity::Caller,
    ledger::{AppealAnswer, AppealDraft, Filed, Refused, appeal_id, appeal_key, appealed},
    model::{Scope, Suspension, Task, TaskId, TenantName, Timestamp, shape::looks_like_a_secret},
    pb,
    policy::Role,
    records,
};

impl Broker {
    /// Asks, for an operator within whose scope it lies or who answers for the grant's owner, that a suspension be lifted.
    /// Where an appeal against it waits already, that one is the answer.
    ///
    /// # Errors
    /// When nothing is suspended so within the operator's sight, the reason is none, an appeal was refused within a day, or
    /// too many wait.
    pub async fn file_appeal(
        &self,
        caller: &Caller,
        request: pb::FileAppealRequest,
    ) -> Result<pb::FileAppealResponse, Refusal> {
        self.operator(caller)?;
        check_words(&request.reason)?;
        decided(|| self.try_file_appeal(caller, &request)).await
    }

    async fn try_file_appeal(
        &self,
        caller: &Caller,
        request: &pb::FileAppealRequest,
    ) -> Result<pb::FileAppealResponse, Refusal> {
        let basis = self.ledger.basis().1;
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let named = request.scope.as_ref().ok_or_else(|| Refusal::invalid("scope", "is missing"))?;
        let scope = view::scope_of(named)?;
        if !self.is_concerned(&operator, &scope)? {
            return Err(NOTHING);
        }
        let cause = self.cause_of(&scope, &request.cause)?;
        let now = self.now();
        let event = event::by(caller, operator.actor(), "appeal.filed", now);
        let (appeal, is_new, receipt) = self.file(basis, scope, cause, &request.reason, event).await?;
        Ok(pb::FileAppealResponse { appeal: Some(appeal), changed: is_new, revision: receipt })
    }

    /// The same for a workload: of a task that it holds, or of a grant that names it.
    ///
    /// # Errors
    /// As for [`Self::file_appeal`].
    pub async fn appeal(&self, caller: &Caller, request: pb::AppealRequest) -> Result<pb::AppealResponse, Refusal> {
        check_words(&request.reason)?;
        decided(|| self.try_appeal(caller, &request)).await
    }

    async fn try_appeal(&self, caller: &Caller, request: &pb::AppealRequest) -> Result<pb::AppealResponse, Refusal> {
        let (basis, now) = (self.ledger.basis().1, self.now());
        let (scope, actor) = if request.task_id.is_empty() {
            let tenant: TenantName = view::id("tenant", &request.tenant)?;
            let workload = self.workload(caller, &tenant, now)?;
            let grant = view::id("grant", &request.grant)?;
            let known = workload.tenant.trust.grants().get(&grant).filter(|known| known.workloads.has(&workload.name));
            // A key or certificate of one task speaks for that task alone.
            if known.is_none() || workload.confined_to().is_some() {
                return Err(NOTHING);
            }
            (Scope::Grant(tenant, grant), workload.actor())
        } else {
            let id: TaskId = request.task_id.parse().map_err(|_| Refusal::Unknown("task"))?;
            let task = self.ledger.task(id)?.ok_or(Refusal::Unknown("task"))?;
            let workload = self.holder(caller, &task.tenant, &task.workload, now, "task")?;
            within(&workload, id, "task")?;
            Self::check_client_key(caller, &task, "task")?;
            (Scope::Task(self.suspended_above(&task)?), workload.actor())
        };
        let cause = self.cause_of(&scope, &request.cause)?;
        let event = event::by(caller, actor.clone(), "appeal.filed", now);
        let (appeal, is_new, receipt) = self.file(basis, scope, cause, &request.reason, event).await?;
        Ok(pb::AppealResponse { appeal: Some(for_workload(appeal, &actor)), changed: is_new, revision: receipt })
    }

    /// Appeals within an operator's sight, in no order that means anything.
    ///
    /// # Errors
    /// When the caller is no operator, the page is none, or the store failed.
    pub async fn list_appeals(
        &self,
        caller: &Caller,
        request: pb::ListAppealsRequest,
    ) -> Result<pb::ListAppealsResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let keep = |record: &records::AppealRecord| {
            let Some((scope, _)) = appealed(record) else { return Ok(None) };
            let wanted = (request.tenant.is_empty() || request.tenant == record.tenant)
                && (!request.only_open || record.answered == 0)
                && self.is_concerned_by(&operator, &scope, record)?;
            Ok(if wanted { Some(self.shown_appeal(record)?) } else { None })
        };
        let fetch = |_: &[u8], after: &[u8], limit| self.ledger.appeals(after, limit);
        let key = |record: &records::AppealRecord| appeal_key(record).unwrap_or_default();
        let (appeals, next_page_token) = page::scan(&ask, &[Vec::new()], fetch, key, keep).await?;
        Ok(pb::ListAppealsResponse { appeals, next_page_token })
    }

    /// Answers an appeal: grants it, which lifts what it is against, or refuses it. For who may lift, and not for who filed
    /// it.
    ///
    /// # Errors
    /// When there is none that waits within the operator's scope, the operator may not lift, or something else lifts it.
    pub async fn answer_appeal(
        &self,
        caller: &Caller,
        request: pb::AnswerAppealRequest,
    ) -> Result<pb::AnswerAppealResponse, Refusal> {
        self.operator(caller)?;
        check_words(&request.reason)?;
        decided(|| self.try_answer(caller, &request)).await
    }

    async fn try_answer(
        &self,
        caller: &Caller,
        request: &pb::AnswerAppealRequest,
    ) -> Result<pb::AnswerAppealResponse, Refusal> {
        let basis = self.ledger.basis().1;
        let operator = self.operator(caller)?;
        let seen = self.waiting(&operator, &request.appeal_id).await?;
        let (scope, cause) = appealed(&seen).ok_or(NONE)?;
        operator.require(Role::Admin)?;
        // Of a grant that is gone, who reaches where it was says no; there is nothing left to let go.
        let is_gone = self.is_gone(&scope)?;
        if !is_gone {
            self.may_end(&operator, &scope)?;
        }
        // The same person, also by another way in.
        if seen.appellant.strip_prefix("operator:").is_some_and(|by| operator.has_signed(by)) {
            return Err(Refusal::NotAllowed("who filed an appeal does not answer it; ask another admin"));
        }
        if request.granted && is_gone {
            let problem = "cannot let go a grant that is not in the trust map any more; refuse the appeal";
            return Err(Refusal::invalid("granted", problem));
        }
        if request.granted {
            check_liftable(&scope, cause)?;
        }
        let now = self.now();
        let word = if request.granted { "appeal.granted" } else { "appeal.refused" };
        let mut told = event::by(caller, operator.actor(), word, now);
        self.concerning(&mut told, &scope, cause)?;
        told.reason.clone_from(&request.reason);
        told.details.push(format!("filed_by={}", seen.appellant));
        told.details.push(format!("appeal={}", request.appeal_id));
        let kind = if matches!(scope, Scope::Task(_)) { "task.resumed" } else { "scope.released" };
        let released = pb::Event { kind: kind.to_owned(), ..told.clone() };
        let answer = AppealAnswer {
            seen,
            granted: request.granted,
            by: operator.actor(),
            reason: request.reason.clone(),
            event: told,
            released,
            basis,
            now,
        };
        let (answered, receipt) = self.ledger.answer_appeal(answer).await?;
        if !answered {
            return Err(NONE);
        }
        Ok(pb::AnswerAppealResponse { revision: Some(revision(&receipt)) })
    }

    async fn file(
        &self,
        basis: u64,
        scope: Scope,
        cause: Suspension,
        reason: &str,
        mut event: pb::Event,
    ) -> Result<(pb::Appeal, bool, Option<pb::Revision>), Refusal> {
        let now = self.now();
        self.concerning(&mut event, &scope, cause)?;
        event.reason = reason.to_owned();
        let (appellant, reason) = (event.actor.clone(), reason.to_owned());
        let (tenant, partner) = (event.tenant.clone(), event.partner.clone());
        let draft = AppealDraft { scope, cause, tenant, partner, appellant, reason, event, basis, now };
        let filed = self.ledger.file_appeal(draft).await;
        // It was lifted meanwhile.
        let lifted = |refused| if matches!(refused, Refused::Unknown) { NOTHING } else { refused.into() };
        let (filed, receipt) = filed.map_err(lifted)?;
        match filed {
            Filed::New(record) => Ok((self.shown_appeal(&record)?, true, receipt.as_ref().map(revision))),
            Filed::Waits(record) => Ok((self.shown_appeal(&record)?, false, None)),
            Filed::Refused(record, again) => {
                let at = Timestamp::from_millis(record.answered);
                let problem = format!("was appealed against and refused at {at}; appeal again after {again}");
                Err(Refusal::invalid("scope", problem))
            }
        }
    }

    /// Whether an operator may know of a suspension and speak about it.
    fn is_concerned(&self, operator: &Operator, scope: &Scope) -> Result<bool, Refusal> {
        if self.in_reach(operator, scope)? {
            return Ok(true);
        }
        let Scope::Grant(tenant, name) = scope else { return Ok(false) };
        let Some(known) = self.registry.tenant(&self.ledger, tenant)? else { return Ok(false) };
        let Some(grant) = known.trust.grants().get(name) else { return Ok(false) };
        let (owner, global) = (known.owner(name, grant), self.registry.global());
        let speaks = global.operators.get(&operator.name).is_some_and(|own| own.answers_for(&operator.name, owner));
        Ok(speaks || operator.person.as_ref().is_some_and(|person| person.is(owner)))
    }

    /// The same of an appeal that is there: also where the grant is gone that it is about.
    fn is_concerned_by(
        &self,
        operator: &Operator,
        scope: &Scope,
        record: &records::AppealRecord,
    ) -> Result<bool, Refusal> {
        let was_there = operator.sees(&record.tenant, &record.partner);
        Ok(self.is_concerned(operator, scope)? || (was_there && self.is_gone(scope)?))
    }

    /// Whether it is a grant that is not in the trust map any more.
    fn is_gone(&self, scope: &Scope) -> Result<bool, Refusal> {
        let Scope::Grant(tenant, name) = scope else { return Ok(false) };
        let known = self.registry.tenant(&self.ledger, tenant)?;
        Ok(known.is_none_or(|known| !known.trust.grants().contains_key(name)))
    }

    /// The one reason for which a scope is suspended, or the one that is named.
    fn cause_of(&self, scope: &Scope, named: &str) -> Result<Suspension, Refusal> {
        let held = self.ledger.scope(scope.id()).held;
        let mut standing = held.iter().filter(|cause| named.is_empty() || cause.words() == named);
        match (standing.next(), standing.next()) {
            (Some(cause), None) => Ok(cause),
            (Some(_), Some(_)) => {
                let words: Vec<_> = held.iter().map(Suspension::words).collect();
                Err(Refusal::invalid("cause", format!("must say which, for it is suspended for: {}", words.join(", "))))
            }
            (None, _) => Err(NOTHING),
        }
    }

    /// The task itself, or the one above it that is suspended for what it did.
    fn suspended_above(&self, task: &Task) -> Result<TaskId, Refusal> {
        for id in task.lineage(|id| self.ledger.task(id)) {
            let id = id?;
            if !self.ledger.scope(Scope::Task(id).id()).held.is_empty() {
                return Ok(id);
            }
        }
        Ok(task.id)
    }

    /// Whose an event is, and what it is about.
    fn concerning(&self, event: &mut pb::Event, scope: &Scope, cause: Suspension) -> Result<(), Refusal> {
        self.name_scope(event, scope)?;
        match scope {
            Scope::Grant(tenant, name) => {
                event.grant = name.to_string();
                let known = self.registry.tenant(&self.ledger, tenant)?;
                if let Some(grant) = known.as_ref().and_then(|known| known.trust.grants().get(name)) {
                    event.partner = grant.partner.to_string();
                }
            }
            Scope::Workload(_, workload) => event.workload = workload.to_string(),
            Scope::Task(id) => {
                event.task_id = id.to_string();
                if let Some(task) = self.ledger.task(*id)? {
                    (event.workload, event.purpose) = (task.workload.to_string(), task.purpose.to_string());
                }
            }
            Scope::Everything
            | Scope::Issuer(_)
            | Scope::Lease(_)
            | Scope::Partner(_)
            | Scope::PartnerInTenant(..)
            | Scope::Proof(_)
            | Scope::Secret(..)
            | Scope::SigningKey(_)
            | Scope::Tenant(_) => {}
        }
        event.details.push(format!("cause={}", cause.words()));
        Ok(())
    }

    /// The appeal of this id that waits within an operator's sight.
    async fn waiting(&self, operator: &Operator, id: &str) -> Result<records::AppealRecord, Refusal> {
        let mut after = Vec::new();
        loop {
            let (rows, next) = self.ledger.appeals(&after, ROWS)?;
            if let Some(found) = rows.into_iter().find(|record| appeal_id(record) == id) {
                let (scope, _) = appealed(&found).ok_or(NONE)?;
                let is_his = found.answered == 0 && self.is_concerned_by(operator, &scope, &found)?;
                return if is_his { Ok(found) } else { Err(NONE) };
            }
            after = next.ok_or(NONE)?;
            tokio::task::yield_now().await;
        }
    }

    fn shown_appeal(&self, record: &records::AppealRecord) -> Result<pb::Appeal, Refusal> {
        let time = |millis: u64| (millis > 0).then(|| event::stamp(Timestamp::from_millis(millis)));
        let Some((scope, cause)) = appealed(record) else { return Ok(pb::Appeal::default()) };
        let against = self.ledger.suspension(scope.id(), cause)?.map(|row| row.record).unwrap_or_default();
        Ok(pb::Appeal {
            appeal_id: appeal_id(record),
            scope: Some(view::scope(&scope)),
            cause: cause.words().to_owned(),
            standing: if record.answered == 0 { "open" } else { "refused" }.to_owned(),
            tenant: record.tenant.clone(),
            partner: record.partner.clone(),
            appellant: record.appellant.clone(),
            reason: record.reason.clone(),
            filed: time(record.filed),
            suspended: time(against.at),
            suspended_by: against.operator,
            suspended_for: against.reason,
            answered: time(record.answered),
            answered_by: record.answered_by.clone(),
            answer: record.answer.clone(),
        })
    }
}

/// What a workload is told: not which person suspended it and in which words, nor what somebody else said for it.
fn for_workload(mut appeal: pb::Appeal, actor: &str) -> pb::Appeal {
    if appeal.suspended_by != "broker" {
        appeal.suspended_by.clear();
        appeal.suspended_for.clear();
    }
    if appeal.appellant != actor {
        appeal.appellant.clear();
        appeal.reason.clear();
    }
    appeal
}

/// One line of words. What is not said here is said to nobody: it goes into mails and lists.
fn check_words(reason: &str) -> Result<(), Refusal> {
    check_reason(reason)?;
    if reason.chars().any(char::is_control) {
        return Err(Refusal::invalid("reason", "has a control character; write one line"));
    }
    if looks_like_a_secret(reason) {
        return Err(Refusal::invalid("reason", "looks like a secret; say it in words, and replace what was sent"));
    }
    Ok(())
}

/// Whether an admin's word lifts it. A grant goes on when its owner says so, and an appeal is no way around that.
fn check_liftable(scope: &Scope, cause: Suspension) -> Result<(), Refusal> {
    let instead = match cause {
        Suspension::Quarantine | Suspension::Velocity => return Ok(()),
        Suspension::AttestationOverdue | Suspension::TransferPending | Suspension::Dormant => {
            "an attestation: `mayfly attest`"
        }
        Suspension::OwnerLeft => "a new owner: `mayfly owner transfer`, then `mayfly attest`",
    };
    let problem = format!("cannot lift {scope} while it is suspended for `{}`; what does is {instead}", cause.words());
    Err(Refusal::invalid("granted", format!("{problem}, which answers this appeal too")))
}

/// Nothing suspended, and nothing that the caller may know of, look the same.
const NOTHING: Refusal = Refusal::Unknown("suspension");
const NONE: Refusal = Refusal::Unknown("appeal that waits");
/// Rows read at a time.
const ROWS: usize = 1_024;

#[cfg(test)]
mod tests;
