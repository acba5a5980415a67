//! An operator's word that a store which was restored or put back may go on.

use super::{Broker, event, refusal::Refusal, revoke::check_reason, task::revision};
use crate::{identity::Caller, ledger::Refused, pb, policy::Role};

impl Broker {
    /// Lifts the hold of a store that was restored or put back. What was issued before it stays ended.
    ///
    /// # Errors
    /// When the caller is no admin of everything, or the store's incarnation is another.
    pub async fn confirm_store(
        &self,
        caller: &Caller,
        request: pb::ConfirmStoreRequest,
    ) -> Result<pb::ConfirmStoreResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        operator.require_everywhere()?;
        check_reason(&request.reason)?;
        let now = self.now();
        let mut confirmed = event::by(caller, operator.actor(), "store.confirmed", now);
        confirmed.reason = request.reason;
        let outcome = self.ledger.confirm_store(request.incarnation, confirmed, now).await;
        if outcome == Err(Refused::Moved) {
            return Err(Refusal::invalid("incarnation", "is not the store's; look at `mayfly status`"));
        }
        let (changed, receipt) = outcome?;
        Ok(pb::ConfirmStoreResponse { revision: Some(revision(&receipt)), changed })
    }
}
