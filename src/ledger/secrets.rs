//! Static secrets: proposals and reads.

use std::ops::Bound;

use super::{
    engine::{Order, Table, prefix_end},
    keys,
    lanes::Lane,
    open::{Ledger, Receipt},
    ops::{
        pickups,
        secrets::{self, SecretCommit},
    },
    read::Paged,
    refused::Refused,
};
use crate::{
    model::{Digest, LeaseId, SecretName, TaskId, TenantNumber},
    records,
};

/// A static secret by its row; `None` for one that cannot be read, which is handed out to nobody.
pub type SecretRow = (TenantNumber, SecretName, Option<records::SecretRecord>);

/// A task that got a secret, and which version.
#[derive(Clone, Debug)]
pub struct HolderRow {
    /// Its row's key.
    pub key: Vec<u8>,
    /// The version.
    pub version: u32,
    /// The task.
    pub task: TaskId,
    /// The rest; empty when it cannot be read: that the task got it, its key says.
    pub record: records::SecretHolderRecord,
}

impl Ledger {
    /// Writes a change of a static secret.
    ///
    /// # Errors
    /// Refused, with nothing done; [`Refused::Moved`] when it was changed meanwhile.
    pub async fn change_secret(&self, commit: SecretCommit) -> Result<Receipt, Refused> {
        Ok(self.propose(Lane::End, move |tx| secrets::run(tx, &commit)).await?.1)
    }

    /// A static secret: `None` when there is none, `Some(None)` when its row cannot be read, which is noted.
    ///
    /// # Errors
    /// When the store failed.
    pub fn secret(
        &self,
        tenant: TenantNumber,
        name: &SecretName,
    ) -> Result<Option<Option<records::SecretRecord>>, Refused> {
        let key = keys::secret(tenant, name);
        let Some(value) = self.get(Table::Secrets, &key)? else { return Ok(None) };
        Ok(Some(self.read_secret(&key, &value)))
    }

    /// The sealed value of a static secret; `None` also when its row cannot be read, which is noted.
    ///
    /// # Errors
    /// When the store failed.
    pub fn secret_value(
        &self,
        tenant: TenantNumber,
        name: &SecretName,
    ) -> Result<Option<records::SecretValueRecord>, Refused> {
        let key = keys::secret(tenant, name);
        let Some(value) = self.get(Table::SecretValues, &key)? else { return Ok(None) };
        let read = self.shared.codec.decode(Table::SecretValues, &key, &value);
        Ok(read.inspect_err(|e| self.shared.aside.note(Table::SecretValues, &key, e)).ok())
    }

    /// Whether a handle is that of a credential which waits, or waited, for whoever has it. Lease ids are no secret: what is
    /// made up around one is no work for the committer.
    ///
    /// # Errors
    /// When the store failed.
    pub fn is_handle(&self, lease: LeaseId, handle: &Digest) -> Result<bool, Refused> {
        let key = keys::pickup(lease);
        let Some(value) = self.get(Table::Pickups, &key)? else { return Ok(false) };
        let read = self.shared.codec.decode(Table::Pickups, &key, &value);
        let record = read.inspect_err(|e| self.shared.aside.note(Table::Pickups, &key, e));
        Ok(record.is_ok_and(|record: records::PickupRecord| pickups::is_of(&record, handle)))
    }

    /// Static secrets in key order after `after`, under a key prefix (a tenant's).
    ///
    /// # Errors
    /// When the store failed.
    pub fn secrets(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Paged<SecretRow>, Refused> {
        self.page(Table::Secrets, prefix, after, limit, |key, value| {
            let (tenant, name) = keys::parse_secret(key)?;
            Some((tenant, name, self.read_secret(key, value)))
        })
    }

    /// Who got a secret, in the order of versions, under a key prefix.
    ///
    /// # Errors
    /// When the store failed.
    pub fn secret_holders(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Paged<HolderRow>, Refused> {
        self.page(Table::SecretHolders, prefix, after, limit, |key, value| {
            let (version, task) = keys::parse_secret_holder(key)?;
            let read = self.shared.codec.decode(Table::SecretHolders, key, value);
            let record = read.inspect_err(|e| self.shared.aside.note(Table::SecretHolders, key, e)).unwrap_or_default();
            Some(HolderRow { key: key.to_vec(), version, task, record })
        })
    }

    /// The greatest version of a secret that somebody is known to have got; 0 for none.
    ///
    /// # Errors
    /// When the store failed.
    pub fn last_held_version(&self, tenant: TenantNumber, name: &SecretName) -> Result<u32, Refused> {
        let prefix = keys::secret_holders(tenant, name);
        let end = prefix_end(&prefix);
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.scan(Table::SecretHolders, (Bound::Included(&prefix), upper), Order::Descending, 1)?;
        Ok(rows.first().and_then(|(key, _)| keys::parse_secret_holder(key)).map_or(0, |(version, _)| version))
    }

    fn read_secret(&self, key: &[u8], value: &[u8]) -> Option<records::SecretRecord> {
        let read = self.shared.codec.decode(Table::Secrets, key, value);
        read.inspect_err(|e| self.shared.aside.note(Table::Secrets, key, e)).ok()
    }
}
