//! Leave to use grants: proposals and reads.

use super::{
    engine::Table,
    keys,
    lanes::Lane,
    open::{Ledger, Receipt},
    ops::approve::{self, AgreeDraft, AskDraft, CloseDraft},
    read::Paged,
    refused::Refused,
    tx::Tx,
};
use crate::model::{Approval, ApprovalId, ApprovalStanding, TenantNumber, Timestamp};

impl Ledger {
    /// Asks for leave.
    ///
    /// # Errors
    /// Refused, with nothing done.
    pub async fn ask_approval(&self, draft: AskDraft) -> Result<Receipt, Refused> {
        let lane = Lane::Begin(draft.approval.id.tenant());
        // What is sure to be refused does not come to the committer.
        let kept = self.approvals_of(draft.approval.id.tenant())?;
        approve::check_room(&kept, &draft.approval, self.basis().0, draft.now)?;
        Ok(self.propose(lane, move |tx| approve::ask(tx, &draft)).await?.1)
    }

    /// Notes a yes.
    ///
    /// # Errors
    /// Refused, with nothing done.
    pub async fn agree_approval(&self, draft: AgreeDraft) -> Result<(Approval, Receipt), Refused> {
        self.propose(Lane::Begin(draft.id.tenant()), move |tx| approve::agree(tx, &draft)).await
    }

    /// Closes one, with the task that uses it.
    ///
    /// # Errors
    /// Refused, with nothing done.
    pub async fn close_approval(&self, draft: CloseDraft) -> Result<(Approval, Receipt), Refused> {
        self.propose(Lane::End, move |tx| approve::close(tx, &draft)).await
    }

    /// An approval. `None` also when its row is unreadable, which is noted: it is over.
    ///
    /// # Errors
    /// When the store failed.
    pub fn approval(&self, id: ApprovalId) -> Result<Option<Approval>, Refused> {
        let value = self.shared.engine.get(Table::Approvals, id.as_bytes()).map_err(|e| self.shared.fault(&e))?;
        Ok(value.and_then(|value| self.read_approval(id, &value)))
    }

    /// Approvals in key order after `after`, under a key prefix (a tenant's).
    ///
    /// # Errors
    /// When the store failed.
    pub fn approvals(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Paged<Approval>, Refused> {
        self.page(Table::Approvals, prefix, after, limit, |key, value| {
            ApprovalId::from_bytes(key).and_then(|id| self.read_approval(id, value))
        })
    }

    /// All that are kept of a tenant: a bounded number.
    ///
    /// # Errors
    /// When the store failed.
    pub fn approvals_of(&self, tenant: TenantNumber) -> Result<Vec<Approval>, Refused> {
        Ok(self.approvals(&keys::tenant(tenant), &[], Approval::KEPT_PER_TENANT)?.0)
    }

    /// Where an approval stands by its own row.
    #[must_use]
    pub fn approval_standing(&self, approval: &Approval, now: Timestamp) -> ApprovalStanding {
        approval.standing(self.shared.incarnation, now)
    }

    fn read_approval(&self, id: ApprovalId, value: &[u8]) -> Option<Approval> {
        let read = self.shared.codec.decode_approval(id, value);
        read.inspect_err(|e| self.shared.aside.note(Table::Approvals, id.as_bytes(), e)).ok()
    }
}

impl Tx<'_> {
    /// An approval; `None` when there is none. An unreadable one is void.
    pub(super) fn approval(&self, id: ApprovalId) -> Result<Option<Approval>, Refused> {
        let Some(value) = self.get(Table::Approvals, id.as_bytes())? else { return Ok(None) };
        self.shared.codec.decode_approval(id, &value).map(Some).map_err(|e| {
            self.shared.aside.note(Table::Approvals, id.as_bytes(), &e);
            Refused::Approval(ApprovalStanding::Void)
        })
    }
}
