//! Appeals against suspensions: proposals and reads.

use super::{
    engine::Table,
    keys,
    lanes::Lane,
    open::{Ledger, Receipt},
    ops::appeals::{self, AnswerDraft, FileDraft, Filed},
    read::Paged,
    refused::Refused,
};
use crate::records;

impl Ledger {
    /// Files an appeal, behind everything else: it stands in nobody's way.
    ///
    /// # Errors
    /// Refused, with nothing done: nothing is suspended so, or there is no room.
    pub async fn file_appeal(&self, draft: FileDraft) -> Result<(Filed, Option<Receipt>), Refused> {
        // Looked at here first: who asks in vain is no work for the thread that commits.
        let (kept, _) = self.appeals(&[], appeals::ROWS_MOST)?;
        let place = keys::suspension(draft.scope.id(), draft.cause);
        let stands = self.suspension(draft.scope.id(), draft.cause)?.map_or(0, |row| row.record.revision);
        let is_own = |record: &records::AppealRecord| appeals::key_of(record).as_ref() == Some(&place);
        let (own, others): (Vec<_>, Vec<_>) = kept.into_iter().partition(is_own);
        if let Some(filed) = own.first().and_then(|known| appeals::stands_in_the_way(known, stands, draft.now)) {
            return Ok((filed, None));
        }
        appeals::check_counts(others.iter(), &draft)?;
        let (filed, receipt) = self.propose(Lane::Background, move |tx| appeals::file(tx, &draft)).await?;
        Ok((filed, Some(receipt)))
    }

    /// Answers an appeal; false when it waits no more.
    ///
    /// # Errors
    /// Refused, with nothing done.
    pub async fn answer_appeal(&self, draft: AnswerDraft) -> Result<(bool, Receipt), Refused> {
        self.propose(Lane::End, move |tx| appeals::answer(tx, &draft)).await
    }

    /// Appeals in key order after the row `after`; damaged ones are left out.
    ///
    /// # Errors
    /// When the store failed.
    pub fn appeals(&self, after: &[u8], limit: usize) -> Result<Paged<records::AppealRecord>, Refused> {
        self.page(Table::Appeals, &[], after, limit, |key, value| {
            let read = self.shared.codec.decode(Table::Appeals, key, value);
            read.inspect_err(|e| self.shared.aside.note(Table::Appeals, key, e)).ok()
        })
    }
}
