//! What lapses by time alone, for the ledger to ask at each check.

use std::sync::{Arc, Weak};

use super::registry::Registry;
use crate::{
    ledger::{Lapses, Ledger},
    model::{GrantName, TenantNumber, Timestamp},
};

/// The trust map, asked whether a grant was attested in time.
#[derive(Debug)]
struct Attested {
    registry: Arc<Registry>,
    ledger: Weak<Ledger>,
}

impl Lapses for Attested {
    /// A comparison of a time that is in memory already. A tenant that cannot be read, and a grant that is gone, count as
    /// lapsed.
    fn has_lapsed(&self, tenant: TenantNumber, grant: &GrantName, now: Timestamp) -> bool {
        let Some(ledger) = self.ledger.upgrade() else { return true };
        let Ok(Some(known)) = self.registry.by_number(&ledger, tenant) else { return true };
        known.trust.grants().get(grant).is_none_or(|found| known.attest_by(grant, found) <= now)
    }
}

/// Has the ledger ask the trust map, from now on.
pub fn watch(registry: &Arc<Registry>, ledger: &Arc<Ledger>) {
    let attested = Attested { registry: Arc::clone(registry), ledger: Arc::downgrade(ledger) };
    ledger.ask_for_lapses(Box::new(attested));
}
