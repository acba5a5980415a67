//! A static secret on its way to a task: the version in force, and its value.

use crate::{
    broker::{Broker, Refusal, registry::Tenant, rings::Ring},
    ledger::keys,
    mint::SecretBytes,
    model::{SecretName, SecretVersion, TenantNumber},
    policy::Decision,
    records,
};

impl Broker {
    /// The version of the static secret that a decision allows to be handed out; `None` for other kinds.
    ///
    /// # Errors
    /// [`Refusal::SecretUnavailable`] when there is none for the grant's partner; one that cannot be read is none.
    pub(in crate::broker) fn secret_in_force(
        &self,
        tenant: &Tenant,
        decision: &Decision,
    ) -> Result<Option<SecretVersion>, Refusal> {
        let Some(name) = decision.secret() else { return Ok(None) };
        let record = self.ledger.secret(tenant.number, name)?.flatten();
        let fits = |record: &records::SecretRecord| record.partner == decision.partner().as_str();
        let number = record.filter(fits).and_then(|record| in_force(&record));
        let number = number.ok_or_else(|| Refusal::SecretUnavailable(name.clone()))?;
        Ok(Some(SecretVersion { name: name.clone(), number }))
    }

    /// The value of a version that is in force.
    ///
    /// # Errors
    /// When it was rotated meanwhile, or does not open.
    pub(in crate::broker) fn open_secret(
        &self,
        number: TenantNumber,
        secret: &SecretVersion,
        ring: &Ring,
    ) -> Result<SecretBytes, Refusal> {
        let gone = || Refusal::SecretUnavailable(secret.name.clone());
        let row = self.ledger.secret_value(number, &secret.name)?.ok_or_else(gone)?;
        if row.version != secret.number {
            return Err(Refusal::Busy { retry_ms: 50 });
        }
        ring.wrapping()?.open(&location(number, &secret.name, secret.number), &row.sealed).map_err(|error| {
            tracing::error!(%error, tenant = number.get(), secret = %secret.name, "a static secret does not open");
            gone()
        })
    }
}

/// Where a value is sealed for: a value that is moved to another row, or taken for another version, does not open.
pub(super) fn location(number: TenantNumber, name: &SecretName, version: u32) -> Vec<u8> {
    [b"static secret\0", &keys::secret(number, name)[..], &[0], &version.to_be_bytes()].concat()
}

/// The version that is handed out, when one is.
pub(super) fn in_force(record: &records::SecretRecord) -> Option<u32> {
    let last = record.versions.last().filter(|last| last.ended == 0 && record.retired == 0);
    last.map(|last| last.number)
}
