//! Appeals against suspensions: proposals and reads.

use super::{
    engine::Table,
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
    pub async fn file_appeal(&self, draft: FileDraft) -> Result<(Filed, Receipt), Refused> {
        self.propose(Lane::Background, move |tx| appeals::file(tx, &draft)).await
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
