//! Suspensions by reason, and what grants were used: proposals and reads.

use std::fmt;

use super::{
    codec,
    engine::Table,
    keys,
    lanes::Lane,
    open::{Ledger, Receipt},
    ops::custody::{self, CustodyDraft, UseRow},
    read::BarRow,
    refused::Refused,
    shared::Shared,
};
use crate::{
    model::{ApprovalVote, GrantName, Lease, Scope, ScopeId, Standing, Suspension, TenantNumber, Timestamp},
    records,
};

/// Which grants have lapsed by time alone. The trust map knows; the ledger asks, so that no sweep need have run.
pub trait Lapses: Send + Sync + fmt::Debug {
    /// Whether what lives under a grant is suspended now. What cannot be known counts as lapsed.
    fn has_lapsed(&self, tenant: TenantNumber, grant: &GrantName, now: Timestamp) -> bool;
}

/// Whose word still counts. The broker knows who was signed out or has left; the ledger asks in the commit that counts.
pub trait Voices: Send + Sync + fmt::Debug {
    /// Whether who agreed then may still. It is asked under no lock of the ledger's.
    fn counts(&self, vote: &ApprovalVote) -> bool;
}

impl Shared {
    /// Whether a word still counts, as far as its person goes.
    pub(super) fn hears(&self, vote: &ApprovalVote) -> bool {
        self.voices.get().is_none_or(|voices| voices.counts(vote))
    }

    /// The standing that its grant leaves to a lease, by time alone.
    pub(super) fn lapse(&self, lease: &Lease, now: Timestamp) -> Standing {
        match self.lapses.get() {
            Some(lapses) if lapses.has_lapsed(lease.id.tenant(), &lease.grant, now) => Standing::Suspended,
            Some(_) | None => Standing::Live,
        }
    }
}

impl Ledger {
    /// Names who knows which grants have lapsed; the first one stays.
    pub fn ask_for_lapses(&self, lapses: Box<dyn Lapses>) {
        // A second one would be of the same registry.
        let _kept = self.shared.lapses.set(lapses);
    }

    /// Names who knows whose word still counts; the first one stays.
    pub fn ask_for_voices(&self, voices: Box<dyn Voices>) {
        // A second one would be of the same people.
        let _kept = self.shared.voices.set(voices);
    }

    /// Suspends and releases; how many of the acts changed something. Of the others nothing is written, nor their events.
    ///
    /// # Errors
    /// Refused, with nothing done.
    pub async fn custody(&self, draft: CustodyDraft) -> Result<(usize, Receipt), Refused> {
        self.propose(Lane::End, move |tx| custody::run(tx, &draft)).await
    }

    /// Notes when grants were used last.
    ///
    /// # Errors
    /// Refused, with nothing done.
    pub async fn note_uses(&self, rows: Vec<UseRow>) -> Result<(), Refused> {
        let body = move |tx: &mut super::tx::Tx<'_>| {
            custody::note_uses(tx, &rows);
            Ok(())
        };
        self.propose(Lane::Background, body).await.map(|((), _)| ())
    }

    /// Scopes that are suspended for a reason, in no order.
    #[must_use]
    pub fn held_for(&self, cause: Suspension) -> Vec<ScopeId> {
        self.shared.book().held_for(cause)
    }

    /// A suspension of a scope; `None` when there is none.
    ///
    /// # Errors
    /// When the store failed.
    pub fn suspension(&self, scope: ScopeId, cause: Suspension) -> Result<Option<BarRow>, Refused> {
        let key = keys::suspension(scope, cause);
        let value = self.shared.engine.get(Table::Bars, &key).map_err(|e| self.shared.fault(&e))?;
        Ok(value.and_then(|value| self.bar_row(&key, &value)))
    }

    /// When the grants of a tenant were used last, by name. A damaged row says that it never was.
    ///
    /// # Errors
    /// When the store failed.
    pub fn grant_uses(&self, number: TenantNumber) -> Result<Vec<(String, records::GrantUseRecord)>, Refused> {
        let prefix = keys::grant_uses(number);
        Ok(self
            .page(Table::GrantStates, &prefix, &[], usize::MAX, |key, value| {
                let grant = String::from_utf8(key.get(prefix.len()..)?.to_vec()).ok()?;
                let read = self.shared.codec.decode(Table::GrantStates, key, value);
                let read = read.inspect_err(|e| self.shared.aside.note(Table::GrantStates, key, e));
                Some((grant, read.unwrap_or_default()))
            })?
            .0)
    }

    pub(super) fn bar_row(&self, key: &[u8], value: &[u8]) -> Option<BarRow> {
        let (id, code) = keys::parse_bar(key)?;
        let record: records::BarRecord = self.shared.codec.decode(Table::Bars, key, value).unwrap_or_default();
        let scope: Option<Scope> = record.scope.as_ref().and_then(|name| codec::scope_from(name).ok());
        Some(BarRow { scope, id, cause: code.and_then(Suspension::from_code), key: key.to_vec(), record })
    }
}
