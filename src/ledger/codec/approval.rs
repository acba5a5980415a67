//! Approvals as rows.

use super::{Codec, Unreadable, optional};
use crate::{
    ledger::engine::Table,
    model::{Approval, ApprovalId, ApprovalVote, Digest, ScopeId, TaskId, Timestamp, Voter, approval::Closed},
    records,
};

impl Codec {
    /// An approval's row value.
    #[must_use]
    pub fn encode_approval(&self, approval: &Approval) -> Vec<u8> {
        self.encode(Table::Approvals, approval.id.as_bytes(), &record(approval))
    }

    /// The inverse of [`Self::encode_approval`].
    ///
    /// # Errors
    /// When the row is unreadable.
    pub fn decode_approval(&self, id: ApprovalId, value: &[u8]) -> Result<Approval, Unreadable> {
        read(id, self.decode(Table::Approvals, id.as_bytes(), value)?)
    }
}

fn record(approval: &Approval) -> records::ApprovalRecord {
    let task = |id: Option<TaskId>| id.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
    let person = |person: Option<&Digest>| person.map(|person| person.0.to_vec()).unwrap_or_default();
    let vote = |vote: &ApprovalVote| records::ApprovalVoteRecord {
        operator: vote.operator.to_string(),
        at: vote.at.millis(),
        key: vote.key.clone(),
        person: person(vote.person.as_ref()),
        proof_scopes: ScopeId::join(&vote.proofs),
        basis: vote.basis,
        names: vote.voter.as_ref().map(|voter| voter.names.clone()).unwrap_or_default(),
        subjects: vote.voter.as_ref().map(|voter| voter.subjects.clone()).unwrap_or_default(),
    };
    records::ApprovalRecord {
        tenant: approval.tenant.to_string(),
        partner: approval.partner.to_string(),
        grant: approval.grant.to_string(),
        workload: approval.workload.to_string(),
        purpose: approval.purpose.to_string(),
        task: task(approval.task),
        reason: approval.reason.clone(),
        asked_by: approval.asked_by.clone(),
        asked_key: approval.asked_key.clone(),
        asked: approval.asked.millis(),
        waits_until: approval.waits_until.millis(),
        votes: approval.votes.iter().map(vote).collect(),
        until: approval.until.map_or(0, Timestamp::millis),
        used_by: task(approval.used_by),
        closed: approval.closed.map_or(0, |(why, _)| why.code().into()),
        closed_at: approval.closed.map_or(0, |(_, at)| at.millis()),
        terms_sha256: approval.terms.0.to_vec(),
        incarnation: approval.basis.0,
        basis: approval.basis.1,
        asked_person: person(approval.asked_person.as_ref()),
    }
}

fn read(id: ApprovalId, r: records::ApprovalRecord) -> Result<Approval, Unreadable> {
    let name = |_| Unreadable::Field("name");
    let vote = |r: records::ApprovalVoteRecord| {
        Ok(ApprovalVote {
            operator: r.operator.parse().map_err(name)?,
            at: Timestamp::from_millis(r.at),
            key: r.key,
            person: optional(&r.person, "person", Digest::from_slice)?,
            // A person has an id at its provider, always.
            voter: (!r.subjects.is_empty()).then_some(Voter { names: r.names, subjects: r.subjects }),
            proofs: ScopeId::split(&r.proof_scopes).ok_or(Unreadable::Field("proof_scopes"))?,
            basis: r.basis,
        })
    };
    Ok(Approval {
        id,
        tenant: r.tenant.parse().map_err(name)?,
        partner: r.partner.parse().map_err(name)?,
        grant: r.grant.parse().map_err(name)?,
        workload: r.workload.parse().map_err(name)?,
        purpose: r.purpose.parse().map_err(name)?,
        task: optional(&r.task, "task", TaskId::from_bytes)?,
        reason: r.reason,
        asked_by: r.asked_by,
        asked_key: r.asked_key,
        asked_person: optional(&r.asked_person, "asked_person", Digest::from_slice)?,
        asked: Timestamp::from_millis(r.asked),
        waits_until: Timestamp::from_millis(r.waits_until),
        votes: r.votes.into_iter().map(vote).collect::<Result<_, _>>()?,
        until: (r.until > 0).then(|| Timestamp::from_millis(r.until)),
        used_by: optional(&r.used_by, "used_by", TaskId::from_bytes)?,
        closed: Closed::from_code(r.closed).map(|why| (why, Timestamp::from_millis(r.closed_at))),
        terms: Digest::from_slice(&r.terms_sha256).ok_or(Unreadable::Field("terms_sha256"))?,
        basis: (r.incarnation, r.basis),
    })
}
