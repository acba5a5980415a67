//! Cuts and bars in force.

use std::collections::BTreeMap;

use crate::{
    broker::{Broker, Refusal, page, view, who::Operator},
    identity::Caller,
    ledger::{BarRow, CutRow},
    model::Scope,
    pb,
    policy::Role,
};

impl Broker {
    /// Cuts in force, newest last. The order is not that of their rows: every call walks them all, one page is kept.
    ///
    /// # Errors
    /// When the caller is no operator, the page is none, or the store failed.
    pub async fn list_revocations(
        &self,
        caller: &Caller,
        request: pb::ListRevocationsRequest,
    ) -> Result<pb::ListRevocationsResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let incarnation = self.ledger.basis().0;
        let mut kept: BTreeMap<Vec<u8>, pb::RevocationStatus> = BTreeMap::new();
        let (mut after, mut full) = (Vec::new(), false);
        loop {
            let (rows, next) = self.ledger.cuts(&after, ROWS)?;
            for row in &rows {
                let place = [&row.number.to_be_bytes()[..], row.id.as_bytes()].concat();
                if place <= ask.after || !self.sees_scope(&operator, row.scope.as_ref())? {
                    continue;
                }
                kept.insert(place, view::cut(row, incarnation));
                if kept.len() > ask.size {
                    full = kept.pop_last().is_some();
                }
            }
            let Some(next) = next else { break };
            after = next;
            tokio::task::yield_now().await;
        }
        let next_page_token =
            kept.keys().next_back().filter(|_| full).map(|place| page::token(place)).unwrap_or_default();
        Ok(pb::ListRevocationsResponse { revocations: kept.into_values().collect(), next_page_token })
    }

    /// How far the clean-up behind a revocation is.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] when there is none in force, or the operator may not know of it.
    pub async fn get_revocation(
        &self,
        caller: &Caller,
        request: pb::GetRevocationRequest,
    ) -> Result<pb::RevocationStatus, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let revision = request.revision.ok_or_else(|| Refusal::invalid("revision", "is unset"))?;
        let row = self.find_cut(&operator, revision).await?.ok_or(Refusal::Unknown("revocation"))?;
        Ok(view::cut(&row, revision.incarnation))
    }

    /// The cut that a revision names, when it is in force and in the operator's scope.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn find_cut(&self, operator: &Operator, revision: pb::Revision) -> Result<Option<CutRow>, Refusal> {
        if revision.incarnation != self.ledger.basis().0 {
            return Ok(None);
        }
        let mut after = Vec::new();
        loop {
            let (rows, next) = self.ledger.cuts(&after, ROWS)?;
            for row in rows.into_iter().filter(|row| row.number == revision.number) {
                if self.sees_scope(operator, row.scope.as_ref())? {
                    return Ok(Some(row));
                }
            }
            let Some(next) = next else { return Ok(None) };
            after = next;
            tokio::task::yield_now().await;
        }
    }

    /// Bars in force, in scope order.
    ///
    /// # Errors
    /// As [`Self::list_revocations`].
    pub async fn list_bars(
        &self,
        caller: &Caller,
        request: pb::ListBarsRequest,
    ) -> Result<pb::ListBarsResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let incarnation = self.ledger.basis().0;
        let keep = |row: &BarRow| {
            let seen = self.sees_scope(&operator, row.scope.as_ref())?;
            Ok(seen.then(|| view::bar(row, incarnation)))
        };
        let fetch = |_: &[u8], after: &[u8], limit| self.ledger.bars(after, limit);
        let key = |row: &BarRow| row.key.clone();
        let (bars, next_page_token) = page::scan(&ask, &[Vec::new()], fetch, key, keep).await?;
        Ok(pb::ListBarsResponse { bars, next_page_token })
    }

    /// A damaged row names no scope: it is for those who see everything.
    fn sees_scope(&self, operator: &Operator, scope: Option<&Scope>) -> Result<bool, Refusal> {
        self.in_reach(operator, scope.unwrap_or(&Scope::Everything))
    }
}

const ROWS: usize = 1_024;
