//! Who has a static secret, or had it: what a leak makes everybody ask.

use crate::{
    broker::{Broker, Refusal, event::stamp, page, registry::Tenant, view},
    identity::Caller,
    ledger::{HolderRow, keys},
    model::{EndReason, Lease, LeaseId, SecretName, Standing, TenantName, Timestamp},
    pb,
};

use super::in_force;

impl Broker {
    /// Tasks that got a static secret, by version, for as long as they are remembered.
    ///
    /// # Errors
    /// When the caller is no operator, there is no such secret in its scope, the page is none, or the store failed.
    pub async fn list_secret_holders(
        &self,
        caller: &Caller,
        request: pb::ListSecretHoldersRequest,
    ) -> Result<pb::ListSecretHoldersResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let tenant: TenantName = view::id("tenant", &request.tenant)?;
        let name: SecretName = view::id("name", &request.name)?;
        let partner = self.partner_of_secret(&tenant, &name)?;
        let number = self.registry.number(&tenant).filter(|_| operator.reaches(Some(&tenant), partner.as_ref()));
        let number = number.ok_or(Refusal::Unknown("secret"))?;
        let record = self.ledger.secret(number, &name)?.ok_or(Refusal::Unknown("secret"))?;
        let newest = record.as_ref().and_then(in_force);
        let now = self.now();
        let prefix = match request.version {
            0 => keys::secret_holders(number, &name),
            version => keys::secret_holders_of(number, &name, version),
        };
        let keep = |row: &HolderRow| {
            let (standing, lease) = self.holder_standing(&name, row, now)?;
            if request.live && matches!(standing, Standing::Ended(_)) {
                return Ok(None);
            }
            let mut shown = shown(&tenant, &name, row, standing, lease.as_ref());
            shown.superseded = newest != Some(row.version);
            Ok(Some(shown))
        };
        let fetch = |prefix: &[u8], after: &[u8], limit| self.ledger.secret_holders(prefix, after, limit);
        let key = |row: &HolderRow| row.key.clone();
        let (holders, next_page_token) = page::scan(&ask, &[prefix], fetch, key, keep).await?;
        Ok(pb::ListSecretHoldersResponse { holders, next_page_token })
    }

    /// How many tasks hold a version of a secret now, at least: a leak is not left open while all that ever had it are
    /// counted.
    pub(super) fn live_holders(
        &self,
        tenant: &Tenant,
        (name, version): (&SecretName, u32),
        now: Timestamp,
    ) -> Result<u32, Refusal> {
        let prefix = keys::secret_holders_of(tenant.number, name, version);
        let (rows, _) = self.ledger.secret_holders(&prefix, &[], COUNTED_MOST)?;
        let mut live = 0_u32;
        for row in &rows {
            let (standing, _) = self.holder_standing(name, row, now)?;
            live = live.saturating_add(u32::from(!matches!(standing, Standing::Ended(_))));
        }
        Ok(live)
    }

    /// How a task's hold of a secret stands: by its last lease, or another one of the same version that lives.
    fn holder_standing(
        &self,
        name: &SecretName,
        row: &HolderRow,
        now: Timestamp,
    ) -> Result<(Standing, Option<Lease>), Refusal> {
        let last = LeaseId::from_bytes(&row.record.lease).map(|id| self.ledger.lease(id)).transpose()?.flatten();
        let standing = match &last {
            Some(lease) => self.ledger.lease_standing(lease, now)?,
            None => Standing::Ended(EndReason::Expired),
        };
        if !matches!(standing, Standing::Ended(_)) {
            return Ok((standing, last));
        }
        let (leases, _) = self.ledger.leases(row.task.as_bytes(), &[], ROWS)?;
        let same = |lease: &Lease| {
            let secret = lease.secret.as_deref();
            secret.is_some_and(|secret| secret.name == *name && secret.number == row.version)
        };
        for lease in leases.into_iter().filter(|lease| lease.pickup_until.is_none() && same(lease)) {
            let standing = self.ledger.lease_standing(&lease, now)?;
            if !matches!(standing, Standing::Ended(_)) {
                return Ok((standing, Some(lease)));
            }
        }
        Ok((standing, last))
    }
}

fn shown(
    tenant: &TenantName,
    name: &SecretName,
    row: &HolderRow,
    standing: Standing,
    lease: Option<&Lease>,
) -> pb::SecretHolder {
    let record = &row.record;
    let time = |millis: u64| (millis > 0).then(|| stamp(Timestamp::from_millis(millis)));
    let id = lease.map(|lease| lease.id).or_else(|| LeaseId::from_bytes(&record.lease));
    pb::SecretHolder {
        tenant: tenant.to_string(),
        secret: name.to_string(),
        version: row.version,
        partner: record.partner.clone(),
        workload: record.workload.clone(),
        grant: record.grant.clone(),
        purpose: record.purpose.clone(),
        task_id: row.task.to_string(),
        first: time(record.first),
        last: time(record.last),
        times: record.times,
        standing: match standing {
            Standing::Live => pb::Standing::Live,
            Standing::Suspended => pb::Standing::Suspended,
            Standing::Ended(_) => pb::Standing::Ended,
        }
        .into(),
        lease_id: id.map(|id| id.to_string()).unwrap_or_default(),
        expires: lease.map_or_else(|| time(record.expires), |lease| Some(stamp(lease.expires))),
        job_url: record.job_url.clone(),
        superseded: false,
        taken_by: record.taken_by.clone(),
    }
}

/// Holders looked at before a value is changed.
const COUNTED_MOST: usize = 512;
/// Rows read at a time.
const ROWS: usize = 1_024;
