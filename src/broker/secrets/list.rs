//! What there is of static secrets, without their values.

use crate::{
    broker::{Broker, Refusal, event, page, view},
    identity::Caller,
    ledger::{SecretRow, keys},
    model::{PartnerName, SecretName, TenantName, Timestamp},
    pb, records,
};

use super::in_force;

impl Broker {
    /// Static secrets within an operator's scope, without their values.
    ///
    /// # Errors
    /// When the caller is no operator, the page is none, or the store failed.
    pub async fn list_secrets(
        &self,
        caller: &Caller,
        request: pb::ListSecretsRequest,
    ) -> Result<pb::ListSecretsResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let tenant: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let partner: Option<PartnerName> = view::optional_id("partner", &request.partner)?;
        let name: Option<SecretName> = view::optional_id("name", &request.name)?;
        let prefixes = self.tenant_prefixes(&operator, tenant.as_ref());
        let keep = |row: &SecretRow| {
            let (number, own, record) = row;
            let Some(tenant) = self.registry.name(*number) else { return Ok(None) };
            let of = record.as_ref().and_then(|record| record.partner.parse::<PartnerName>().ok());
            let owner = record.as_ref().map_or("", |record| record.owner.as_str());
            let wanted = operator.reaches(Some(&tenant), of.as_ref())
                && (partner.is_none() || partner == of)
                && (request.owner.is_empty() || request.owner == owner)
                && name.as_ref().is_none_or(|name| name == own);
            if !wanted {
                return Ok(None);
            }
            let mut info = info(&tenant, own, record.as_ref());
            info.grants = self.grants_for(&tenant, own, of.as_ref())?;
            Ok(Some(info))
        };
        let fetch = |prefix: &[u8], after: &[u8], limit| self.ledger.secrets(prefix, after, limit);
        let key = |(number, name, _): &SecretRow| keys::secret(*number, name);
        let (secrets, next_page_token) = page::scan(&ask, &prefixes, fetch, key, keep).await?;
        Ok(pb::ListSecretsResponse { secrets, next_page_token })
    }

    /// Grants that may hand a secret out.
    fn grants_for(
        &self,
        tenant: &TenantName,
        name: &SecretName,
        partner: Option<&PartnerName>,
    ) -> Result<Vec<String>, Refusal> {
        let Some(known) = self.listed(tenant)? else { return Ok(Vec::new()) };
        let grants = known.trust.grants().iter();
        let fits = grants.filter(|(_, grant)| partner == Some(&grant.partner) && grant.secrets.has(name));
        Ok(fits.map(|(name, _)| name.to_string()).collect())
    }
}

pub(super) fn info(tenant: &TenantName, name: &SecretName, record: Option<&records::SecretRecord>) -> pb::SecretInfo {
    let time = |millis: u64| (millis > 0).then(|| event::stamp(Timestamp::from_millis(millis)));
    let version = |version: &records::SecretVersionRecord| pb::SecretVersion {
        number: version.number,
        made: time(version.made),
        operator: version.operator.clone(),
        ended: time(version.ended),
        revoked: version.revoked,
    };
    let (tenant, name) = (tenant.to_string(), name.to_string());
    let Some(record) = record else {
        return pb::SecretInfo { tenant, name, problem: "unreadable".into(), ..Default::default() };
    };
    pb::SecretInfo {
        tenant,
        name,
        partner: record.partner.clone(),
        owner: record.owner.clone(),
        purpose: record.purpose.clone(),
        version: in_force(record).unwrap_or(0),
        versions: record.versions.iter().map(version).collect(),
        retired: time(record.retired),
        problem: if record.retired > 0 { "retired".into() } else { String::new() },
        grants: Vec::new(),
    }
}
